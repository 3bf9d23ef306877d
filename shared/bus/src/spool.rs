//! The spool: what was accepted and is not delivered yet, on this disk.
//!
//! Items are appended to segment files by one thread, one `fdatasync` for all who wait; a cursor
//! file says up to which item all is delivered, and segments before it are unlinked. A process
//! that dies loses nothing it acknowledged; an item may be delivered again, never less than once.
//!
//! A record cut off at the end of the last file is the trace of a crash before the
//! acknowledgment, and goes. Damage anywhere else is set aside in a `.corrupt` file and said out
//! loud. The bound counts bytes on disk; an item beyond it is refused with [`SpoolError::Full`].

mod reader;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use self::{reader::Reader, segment::Item};
use self::{
    segment::{HEADER, ITEM_BYTES_MAX},
    writer::{Command, Writer},
};
use crate::metrics::metrics;

/// The size at which a new segment begins.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// How many appends may wait for the thread.
const CHANNEL: usize = 1_024;

/// What was accepted and is not delivered yet; cheap to clone.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// Why an item was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It holds as much as it may.
    #[error("the spool holds {bytes} bytes, at most {max} are allowed")]
    Full {
        /// What it holds.
        bytes: u64,
        /// What it may hold.
        max: u64,
    },
    /// One item is too large, or cannot be encoded.
    #[error("the item does not fit: {0}")]
    Item(String),
    /// The disk.
    #[error("spool: {0}")]
    Io(#[from] io::Error),
}

pub(crate) struct Shared {
    dir: PathBuf,
    bytes_max: u64,
    segment_bytes: u64,
    /// Bytes in segment files, and promised to appends under way.
    bytes: AtomicU64,
    /// All items up to here are delivered.
    cursor: AtomicU64,
    /// The last item that is on disk.
    durable: watch::Sender<u64>,
    /// First sequence and size of every segment.
    segments: Mutex<BTreeMap<u64, u64>>,
    /// Held as long as the spool is open.
    _lock: File,
}

// === impl Spool ===

impl Spool {
    /// Opens a spool in a directory of its own, or makes it. It never holds more than `bytes_max`
    /// bytes. Only one process may have it open.
    pub fn open(dir: &Path, bytes_max: u64) -> Result<Self, SpoolError> {
        fs::create_dir_all(dir)?;
        let lock = File::create(dir.join("lock"))?;
        lock.try_lock().map_err(io::Error::from)?;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            bytes_max,
            segment_bytes: SEGMENT_BYTES.min(bytes_max / 4),
            bytes: AtomicU64::new(0),
            cursor: AtomicU64::new(0),
            durable: watch::Sender::new(0),
            segments: Mutex::default(),
            _lock: lock,
        });
        let writer = Writer::recover(Arc::clone(&shared))?;
        metrics().spool(signed(shared.pending()), signed(shared.bytes()));
        let (commands, incoming) = mpsc::channel(CHANNEL);
        thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || writer.run(incoming))?;
        Ok(Self { shared, commands })
    }

    /// Adds an item; returns its sequence when it is on disk.
    pub async fn append(&self, item: Bytes) -> Result<u64, SpoolError> {
        if item.len() > ITEM_BYTES_MAX {
            return Err(SpoolError::Item(format!("{} bytes", item.len())));
        }
        let size = HEADER + item.len() as u64;
        self.shared.reserve(size)?;
        let (reply, answer) = oneshot::channel();
        let gone = || SpoolError::Io(io::Error::other("the spool's thread has ended"));
        if self
            .commands
            .send(Command::Append { item, reply })
            .await
            .is_err()
        {
            self.shared.give_back(size);
            return Err(gone());
        }
        let sequence = answer.await.map_err(|_| gone())??;
        metrics().spool(1, signed(size));
        Ok(sequence)
    }

    /// Says that all items up to `sequence` are delivered.
    pub(crate) async fn commit(&self, sequence: u64) {
        let before = self.shared.cursor.fetch_max(sequence, Ordering::AcqRel);
        metrics().spool(-signed(sequence.saturating_sub(before)), 0);
        // The thread is gone only when the process ends; items come again then.
        let _gone = self.commands.send(Command::Commit).await.is_err();
    }

    /// Reads from the first item that is not delivered.
    pub(crate) fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// The last item on disk, to watch.
    pub(crate) fn durable(&self) -> watch::Receiver<u64> {
        self.shared.durable.subscribe()
    }

    /// Items not delivered.
    pub fn pending(&self) -> u64 {
        self.shared.pending()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes()
    }

    /// Bytes that it may have on disk.
    pub fn bytes_max(&self) -> u64 {
        self.shared.bytes_max
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.shared.dir
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool")
            .field("dir", &self.shared.dir)
            .finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn segments(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> u64 {
        self.durable
            .borrow()
            .saturating_sub(self.cursor.load(Ordering::Acquire))
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Promises space, or refuses.
    fn reserve(&self, size: u64) -> Result<(), SpoolError> {
        let fits = |bytes: u64| bytes.checked_add(size).filter(|sum| *sum <= self.bytes_max);
        self.bytes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fits)
            .map(|_| ())
            .map_err(|bytes| SpoolError::Full {
                bytes,
                max: self.bytes_max,
            })
    }

    fn give_back(&self, size: u64) {
        self.bytes.fetch_sub(size, Ordering::AcqRel);
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
