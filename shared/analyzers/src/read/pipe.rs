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

/// A full buffer on its way.
struct Piece {
    buffer: Box<[u8]>,
    length: usize,
    /// Whether these are the blob's bytes; else the layer's, inflated.
    is_blob: bool,
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
    blob: Hasher,
    layer_bytes: u64,
    deadline: Option<Instant>,
    timed_out: bool,
}

/// What passed.
pub(super) struct Sums {
    /// sha256 of the layer's bytes.
    pub(super) layer: Digest,
    /// sha256 of the blob's bytes; nothing of a plain blob, whose bytes are the layer's.
    pub(super) blob: Digest,
    /// How many bytes the layer has.
    pub(super) layer_bytes: u64,
}

/// How the first thread ended.
#[derive(Debug)]
pub(super) struct Fed {
    /// Whether the blob is not compressed.
    pub(super) is_plain: bool,
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
        blob: Hasher::default(),
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
        pending: None,
        length: 0,
        read: 0,
        is_muted: false,
        is_late: false,
        has_ended: false,
    };
    let mut fed = Fed {
        is_plain: false,
        is_whole: false,
        compressed_bytes: 0,
        error: None,
        media_type: None,
    };
    fed.error = inflate_all(&mut tee, media_type, limits, &mut fed).err();
    let is_content = fed.error.as_ref().is_none_or(|error| {
        !error.is_transient() && !matches!(error, ArchiveError::CompressedBytes(_))
    });
    if is_content && !tee.is_muted {
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
    inflate.source_mut().is_muted = fed.is_plain;
    loop {
        let Some(mut buffer) = inflate.source_mut().feeder.take() else {
            return Ok(());
        };
        let length = inflate.fill(&mut buffer)?;
        if length == 0 || !inflate.source_mut().feeder.send(buffer, length, false) {
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

/// Passes the blob on and sends a copy to the second thread.
struct Tee<R> {
    source: R,
    feeder: Feeder,
    /// A buffer that is not full yet.
    pending: Option<Box<[u8]>>,
    length: usize,
    read: u64,
    /// Whether no copy is needed.
    is_muted: bool,
    is_late: bool,
    has_ended: bool,
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
    fn send(&self, buffer: Box<[u8]>, length: usize, is_blob: bool) -> bool {
        let piece = Piece {
            buffer,
            length,
            is_blob,
        };
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
    fn copy(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut buffer = match self.pending.take() {
                Some(buffer) => buffer,
                None => self.feeder.take().ok_or(io::ErrorKind::BrokenPipe)?,
            };
            let free = buffer.get_mut(self.length..).unwrap_or_default();
            let length = free.len().min(bytes.len());
            let (now, later) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
            if let Some(to) = free.get_mut(..length) {
                to.copy_from_slice(now);
            }
            bytes = later;
            self.length = self.length.saturating_add(length);
            self.pending = Some(buffer);
            if self.length >= BUFFER_BYTES && !self.flush() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }

    /// Whether everything that was copied is on its way.
    fn flush(&mut self) -> bool {
        let length = std::mem::take(&mut self.length);
        self.pending
            .take()
            .is_none_or(|buffer| self.feeder.send(buffer, length, true))
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
        if !self.is_muted {
            self.copy(buffer.get(..length).unwrap_or_default())?;
        }
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
            blob: self.blob.clone().finish(),
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
            let Ok(Piece {
                buffer,
                length,
                is_blob,
            }) = full.recv()
            else {
                return;
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            if is_blob {
                self.blob.update(bytes);
                self.give_back(buffer);
                continue;
            }
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
