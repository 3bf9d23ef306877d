//! The channel between the two threads, and what the first of them does.

use std::{
    io::{self, BufRead, Read},
    sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel},
    time::Instant,
};

use archive::{ArchiveError, Format, Inflate, Limits};
use model::{Digest, Hasher};

/// Bytes of one buffer.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;

/// Buffers there are. The first thread holds at most one while it waits for another, the second
/// one at most one while it waits for a full one: any number from three on moves.
const BUFFERS: usize = 6;

/// What is on its way to the second thread.
enum Piece {
    /// So many bytes of the layer, inflated.
    Layer(Box<[u8]>, usize),
    /// So many bytes of the blob.
    Blob(Box<[u8]>, usize),
    /// The digest of the blob's bytes before those that follow.
    BlobSoFar(Box<Hasher>),
}

/// The first thread's end.
pub(super) struct Feeder {
    full: SyncSender<Piece>,
    empty: Receiver<Box<[u8]>>,
    made: usize,
    deadline: Option<Instant>,
}

/// The second thread's end: the layer's bytes, hashed as they pass.
pub(super) struct PlainBytes {
    full: Option<Receiver<Piece>>,
    empty: Option<Sender<Box<[u8]>>>,
    current: Box<[u8]>,
    start: usize,
    end: usize,
    layer: Hasher,
    /// Where the second thread hashes the blob as well.
    blob: Option<Box<Hasher>>,
    layer_bytes: u64,
    deadline: Option<Instant>,
    timed_out: bool,
}

/// What passed.
pub(super) struct Sums {
    /// sha256 of the layer's bytes.
    pub(super) layer: Digest,
    /// sha256 of the blob's bytes, where the second thread had to hash them.
    pub(super) blob: Option<Digest>,
    /// How many bytes the layer has.
    pub(super) layer_bytes: u64,
}

/// How the first thread ended.
#[derive(Debug)]
pub(super) struct Fed {
    /// Whether the blob is not compressed: its bytes are the layer's.
    pub(super) is_plain: bool,
    /// sha256 of the blob's bytes, where the first thread hashed them.
    pub(super) blob: Option<Digest>,
    /// Whether every byte of the blob was read and handed over.
    pub(super) is_whole: bool,
    /// Bytes of the blob that were read.
    pub(super) compressed_bytes: u64,
    /// Where it stopped before the end.
    pub(super) error: Option<ArchiveError>,
    /// That the media type says something else.
    pub(super) media_type: Option<ArchiveError>,
}

/// A pipe.
pub(super) fn pipe(deadline: Option<Instant>) -> (Feeder, PlainBytes) {
    let (full, full_receiver) = sync_channel(BUFFERS);
    let (empty, empty_receiver) = channel();
    let feeder = Feeder {
        full,
        empty: empty_receiver,
        made: 0,
        deadline,
    };
    let plain = PlainBytes {
        full: Some(full_receiver),
        empty: Some(empty),
        current: Box::default(),
        start: 0,
        end: 0,
        layer: Hasher::default(),
        blob: None,
        layer_bytes: 0,
        deadline,
        timed_out: false,
    };
    (feeder, plain)
}

/// The first thread: reads the blob, inflates it, sends both on.
pub(super) fn feed(blob: impl Read, media_type: &str, limits: &Limits, feeder: Feeder) -> Fed {
    let mut tee = Tee {
        source: blob,
        feeder,
        to: Copies::Hasher(Box::default()),
        read: 0,
        is_late: false,
        has_ended: false,
    };
    let mut fed = Fed {
        is_plain: false,
        blob: None,
        is_whole: false,
        compressed_bytes: 0,
        error: None,
        media_type: None,
    };
    fed.error = inflate_all(&mut tee, media_type, limits, &mut fed).err();
    let is_content = fed.error.as_ref().is_none_or(|error| {
        !error.is_transient() && !matches!(error, ArchiveError::CompressedBytes(_))
    });
    if is_content && !fed.is_plain {
        // Nothing more to inflate, but the digest is over all bytes.
        let error = drain(&mut tee, limits).err();
        fed.error = fed.error.or(error);
    }
    if tee.is_late {
        fed.error = Some(ArchiveError::Time(limits.time_ms));
    }
    let is_sent = tee.flush();
    fed.is_whole = is_sent && tee.has_ended;
    fed.compressed_bytes = tee.read;
    if let Copies::Hasher(hasher) = tee.to {
        fed.blob = Some(hasher.finish());
    }
    fed
}

fn inflate_all<R: Read>(
    tee: &mut Tee<R>,
    media_type: &str,
    limits: &Limits,
    fed: &mut Fed,
) -> Result<(), ArchiveError> {
    let mut inflate = Inflate::open(tee, limits)?;
    fed.media_type = inflate.check(media_type).err();
    fed.is_plain = inflate.format() == Format::Plain;
    match inflate.format() {
        Format::Plain => inflate.source_mut().to = Copies::Nowhere,
        // Inflating gzip is the most that there is to do: everything else is for the other thread.
        Format::Gzip => inflate.source_mut().hand_over(),
        // Inflating zstd takes less than hashing what comes of it.
        Format::Zstd => {}
    }
    loop {
        let Some(mut buffer) = inflate.source_mut().feeder.take() else {
            return Ok(());
        };
        let length = inflate.fill(&mut buffer)?;
        let piece = Piece::Layer(buffer, length);
        if length == 0 || !inflate.source_mut().feeder.send(piece) {
            return Ok(());
        }
    }
}

/// Reads what is left of the blob.
fn drain(tee: &mut Tee<impl Read>, limits: &Limits) -> Result<(), ArchiveError> {
    let mut scratch = vec![0; BUFFER_BYTES];
    while !tee.has_ended {
        match tee.read(&mut scratch) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ArchiveError::Source(error)),
            Ok(_) if tee.read > limits.compressed_bytes_max => {
                return Err(ArchiveError::CompressedBytes(limits.compressed_bytes_max));
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Passes the blob on and sees to it that it is hashed.
struct Tee<R> {
    source: R,
    feeder: Feeder,
    to: Copies,
    read: u64,
    is_late: bool,
    has_ended: bool,
}

/// Where the blob's bytes go, beside being inflated.
enum Copies {
    /// Into a digest, here.
    Hasher(Box<Hasher>),
    /// To the second thread, which hashes them: a buffer that is not full yet, and what it has.
    Feeder(Option<Box<[u8]>>, usize),
    /// Nowhere: they are the layer's, which is hashed anyway.
    Nowhere,
}

// === impl Feeder ===

impl Feeder {
    /// An empty buffer; `None` when the other side is gone.
    fn take(&mut self) -> Option<Box<[u8]>> {
        if let Ok(buffer) = self.empty.try_recv() {
            return Some(buffer);
        }
        if self.made < BUFFERS {
            self.made = self.made.saturating_add(1);
            return Some(vec![0; BUFFER_BYTES].into_boxed_slice());
        }
        self.empty.recv().ok()
    }

    /// Whether the other side will get it.
    fn send(&self, piece: Piece) -> bool {
        match self.full.try_send(piece) {
            Ok(()) => true,
            Err(TrySendError::Full(piece)) => self.full.send(piece).is_ok(),
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }
}

// === impl Tee ===

impl<R: Read> Tee<R> {
    /// Lets the second thread go on with the blob's digest.
    fn hand_over(&mut self) {
        let copies = std::mem::replace(&mut self.to, Copies::Feeder(None, 0));
        if let Copies::Hasher(hasher) = copies {
            // If the other side is gone, what is sent next will show it.
            let _sent = self.feeder.send(Piece::BlobSoFar(hasher));
        }
    }

    fn copy(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if let Copies::Hasher(hasher) = &mut self.to {
            hasher.update(bytes);
            return Ok(());
        }
        while !bytes.is_empty() {
            let Copies::Feeder(pending, filled) = &mut self.to else {
                return Ok(());
            };
            let mut buffer = match pending.take() {
                Some(buffer) => buffer,
                None => self.feeder.take().ok_or(io::ErrorKind::BrokenPipe)?,
            };
            let free = buffer.get_mut(*filled..).unwrap_or_default();
            let length = free.len().min(bytes.len());
            let (now, later) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
            if let Some(to) = free.get_mut(..length) {
                to.copy_from_slice(now);
            }
            bytes = later;
            *filled = filled.saturating_add(length);
            let is_full = *filled >= BUFFER_BYTES;
            *pending = Some(buffer);
            if is_full && !self.flush() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }

    /// Whether everything that was copied is on its way.
    fn flush(&mut self) -> bool {
        let Copies::Feeder(pending, filled) = &mut self.to else {
            return true;
        };
        let length = std::mem::take(filled);
        let buffer = pending.take();
        buffer.is_none_or(|buffer| self.feeder.send(Piece::Blob(buffer, length)))
    }
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.feeder.is_late() {
            self.is_late = true;
            return Err(io::ErrorKind::TimedOut.into());
        }
        let length = self.source.read(buffer)?;
        // An empty buffer reads nothing, and that is not the end.
        self.has_ended = length == 0 && !buffer.is_empty();
        self.read = self.read.saturating_add(length as u64);
        self.copy(buffer.get(..length).unwrap_or_default())?;
        Ok(length)
    }
}

// === impl PlainBytes ===

impl PlainBytes {
    /// Whether the deadline came before the end.
    pub(super) fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// The digests of what passed.
    pub(super) fn sums(&self) -> Sums {
        Sums {
            layer: self.layer.clone().finish(),
            blob: self.blob.clone().map(|hasher| hasher.finish()),
            layer_bytes: self.layer_bytes,
        }
    }

    /// The next buffer of the layer; those of the blob are hashed on the way.
    fn receive(&mut self) {
        let empty = std::mem::take(&mut self.current);
        self.give_back(empty);
        while let Some(full) = &self.full {
            if self
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
            {
                self.timed_out = true;
                // The first thread notices, wherever it waits, and stops.
                (self.full, self.empty) = (None, None);
                return;
            }
            let (buffer, length) = match full.recv() {
                Ok(Piece::Layer(buffer, length)) => (buffer, length),
                Ok(Piece::Blob(buffer, length)) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    if let Some(hasher) = &mut self.blob {
                        hasher.update(bytes);
                    }
                    self.give_back(buffer);
                    continue;
                }
                Ok(Piece::BlobSoFar(hasher)) => {
                    self.blob = Some(hasher);
                    continue;
                }
                Err(_) => return,
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            self.layer.update(bytes);
            self.layer_bytes = self.layer_bytes.saturating_add(length as u64);
            self.current = buffer;
            (self.start, self.end) = (0, length);
            return;
        }
    }

    fn give_back(&self, buffer: Box<[u8]>) {
        if let Some(empty) = self.empty.as_ref().filter(|_| !buffer.is_empty()) {
            // The first thread may have ended already, and needs no more buffers.
            let _sent = empty.send(buffer).is_ok();
        }
    }
}

impl Read for PlainBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for PlainBytes {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start >= self.end {
            (self.start, self.end) = (0, 0);
            self.receive();
        }
        Ok(self.current.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, length: usize) {
        self.start = self.start.saturating_add(length).min(self.end);
    }
}
