//! The pipe through the three threads, and what the first of them does.

use std::{
    io::{self, BufRead, Read},
    sync::mpsc::{Receiver, Sender, channel},
    time::Instant,
};

use archive::{ArchiveError, Format, Inflate, Limits};
use model::{Digest, Hasher};

use super::digests::{Digester, Job, Note, WantedDigests};

/// Bytes that are read at a time where nothing is inflated.
const DRAIN_BYTES: usize = 256 << 10;

/// The buffers that a pipe has: they bound what its channels hold.
#[derive(Clone, Copy)]
pub(super) struct Buffers {
    /// Bytes of one.
    pub(super) bytes: usize,
    /// How many there are.
    count: usize,
    /// Whether other threads give them back.
    come_back: bool,
}

/// The first thread's end.
pub(super) struct Feeder {
    plain: Sender<Piece>,
    jobs: Sender<Job>,
    empty: Receiver<Box<[u8]>>,
    made: usize,
    buffers: Buffers,
    deadline: Option<Instant>,
}

/// So many bytes of the layer.
type Piece = (Box<[u8]>, usize);

/// The second thread's end: the layer's bytes, and what is noted of them.
pub(super) struct PlainBytes {
    /// `None` once it is too late.
    ends: Option<(Receiver<Piece>, Sender<Job>)>,
    current: Box<[u8]>,
    start: usize,
    end: usize,
    notes: Vec<Note>,
    bytes: u64,
    deadline: Option<Instant>,
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
    /// Whether there were too few buffers.
    pub(super) is_cut: bool,
    /// Bytes of the blob that were read.
    pub(super) compressed_bytes: u64,
    /// Where it stopped before the end.
    pub(super) error: Option<ArchiveError>,
    /// That the media type says something else.
    pub(super) media_type: Option<ArchiveError>,
}

/// A pipe.
pub(super) fn pipe(deadline: Option<Instant>, buffers: Buffers) -> (Feeder, PlainBytes, Digester) {
    let (plain, plain_receiver) = channel();
    let (jobs, jobs_receiver) = channel();
    let (empty, empty_receiver) = channel();
    let feeder = Feeder {
        plain,
        jobs: jobs.clone(),
        empty: empty_receiver,
        made: 0,
        buffers,
        deadline,
    };
    let plain = PlainBytes {
        ends: Some((plain_receiver, jobs)),
        current: Box::default(),
        start: 0,
        end: 0,
        notes: Vec::new(),
        bytes: 0,
        deadline,
    };
    let digester = Digester::new(jobs_receiver, empty, deadline);
    (feeder, plain, digester)
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
        is_cut: false,
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
        // Inflating gzip is the most that there is to do: everything else is for other threads.
        Format::Gzip => inflate.source_mut().hand_over(),
        // Inflating zstd takes less than each of the others does.
        Format::Zstd => {}
    }
    loop {
        let Some(mut buffer) = inflate.source_mut().feeder.take() else {
            fed.is_cut = true;
            return Ok(());
        };
        let length = inflate.fill(&mut buffer)?;
        let feeder = &inflate.source_mut().feeder;
        if length == 0 || feeder.plain.send((buffer, length)).is_err() {
            return Ok(());
        }
    }
}

/// Reads what is left of the blob.
fn drain(tee: &mut Tee<impl Read>, limits: &Limits) -> Result<(), ArchiveError> {
    let mut scratch = vec![0; DRAIN_BYTES];
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
    /// To the third thread, which hashes them: a buffer that is not full yet, and what it has.
    Feeder(Option<Box<[u8]>>, usize),
    /// Nowhere: they are the layer's, which is hashed anyway.
    Nowhere,
}

// === impl Buffers ===

impl Buffers {
    /// Of three threads, each holds one, the first a second one for the blob's bytes, and the others
    /// are what a thread may be ahead of the next.
    pub(super) const MANY: Self = Self {
        bytes: 256 << 10,
        count: 10,
        come_back: true,
    };

    /// Of one thread, they hold all that a small layer inflates to.
    pub(super) const FEW: Self = Self {
        bytes: 32 << 10,
        count: 16,
        come_back: false,
    };
}

// === impl Feeder ===

impl Feeder {
    /// An empty buffer; `None` when the other sides are gone, or none ever comes back.
    fn take(&mut self) -> Option<Box<[u8]>> {
        if let Ok(buffer) = self.empty.try_recv() {
            return Some(buffer);
        }
        if self.made < self.buffers.count {
            self.made = self.made.saturating_add(1);
            return Some(vec![0; self.buffers.bytes].into_boxed_slice());
        }
        if !self.buffers.come_back {
            return None;
        }
        self.empty.recv().ok()
    }

    fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }
}

// === impl Tee ===

impl<R: Read> Tee<R> {
    /// Lets the third thread go on with the blob's digest, where there is one.
    fn hand_over(&mut self) {
        if !self.feeder.buffers.come_back {
            return;
        }
        let copies = std::mem::replace(&mut self.to, Copies::Feeder(None, 0));
        if let Copies::Hasher(hasher) = copies {
            // If the other side is gone, what is sent next will show it.
            let _sent = self.feeder.jobs.send(Job::BlobSoFar(hasher));
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
            let is_full = *filled >= buffer.len();
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
        buffer.is_none_or(|buffer| self.feeder.jobs.send(Job::Blob(buffer, length)).is_ok())
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
        self.ends.is_none()
    }

    /// How many bytes passed.
    pub(super) const fn passed(&self) -> u64 {
        self.bytes
    }

    /// Notes that a file begins, of which there was so much before what passed last.
    pub(super) fn begin(&mut self, number: usize, wanted: WantedDigests, before: &[u8]) {
        self.notes.push(Note::Begin(number, wanted));
        if !before.is_empty() {
            self.notes.push(Note::Passed(Box::from(before)));
        }
    }

    /// Notes that as many bytes as were consumed last are the file's.
    pub(super) fn part(&mut self, length: usize) {
        let range = self.start.saturating_sub(length)..self.start;
        match self.notes.last_mut() {
            Some(Note::Part(last)) if last.end == range.start => last.end = range.end,
            _ => self.notes.push(Note::Part(range)),
        }
    }

    /// Notes that so many bytes of the file are a hole.
    pub(super) fn hole(&mut self, length: usize) {
        let length = length as u64;
        match self.notes.last_mut() {
            Some(Note::Hole(last)) => *last = last.saturating_add(length),
            _ => self.notes.push(Note::Hole(length)),
        }
    }

    /// Notes that the file was whole.
    pub(super) fn end(&mut self) {
        self.notes.push(Note::End);
    }

    /// Hands the buffer on and takes the next.
    fn receive(&mut self) {
        let Some((plain, jobs)) = &self.ends else {
            return;
        };
        let buffer = std::mem::take(&mut self.current);
        if !buffer.is_empty() {
            let notes = std::mem::take(&mut self.notes);
            // The third thread ends before this one only at the deadline, and says so itself.
            let _sent = jobs.send(Job::Layer(buffer, self.end, notes));
            (self.start, self.end) = (0, 0);
        }
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            // The first thread notices, wherever it waits, and stops.
            self.ends = None;
            return;
        }
        if let Ok((buffer, length)) = plain.recv() {
            self.bytes = self.bytes.saturating_add(length as u64);
            self.current = buffer;
            (self.start, self.end) = (0, length);
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
            self.receive();
        }
        Ok(self.current.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, length: usize) {
        self.start = self.start.saturating_add(length).min(self.end);
    }
}
