//! The first place to look for what is known of a layer: sections by their keys, on the local disk.

mod ledger;
mod pending;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use model::{Digest, Hasher, SectionKey};
use rocksdb::DBPinnableSlice;
use serde::{Serialize, de::DeserializeOwned};

use self::{ledger::Ledger, pending::Pending};
use crate::{CacheError, Database, Schema, codec, database::DEFAULT_FAMILY, metrics::Metrics};

/// Everything stands in the family that each database has: another one would cost every scan its
/// opening, and the first one its making and a file.
const FAMILY: &str = DEFAULT_FAMILY;
/// A section's key begins with it -> its place in the order of insertion, its digest, its bytes.
const SECTION: u8 = b's';
/// A key begins with it -> the order of insertion, and how many bytes there are.
const ORDER: u8 = b'o';
const SCHEMA: Schema<'_> = Schema {
    version: 6,
    families: &[],
};

/// What a scan may leave in the log, so that it need not wait for a file: who reads the cache goes
/// through it in a tenth of a millisecond, and who writes to it next makes it a file.
const LOG_BYTES_MAX: usize = 256 << 10;
const LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Sections on the local disk, bounded in size; what was put in first goes first.
pub struct SectionCache {
    mode: Mode,
    metrics: Metrics,
}

/// A section that is here and is not decoded yet.
pub struct StoredSection<'a> {
    cache: &'a SectionCache,
    key: Vec<u8>,
    value: Value<'a>,
}

/// A section as it is stored: sealed, and in the database behind its place in the order.
enum Value<'a> {
    Row(DBPinnableSlice<'a>),
    Pending(Vec<u8>),
}

/// Sections to be kept together, as they are stored.
#[derive(Debug, Default)]
pub struct SectionBatch(BTreeMap<Vec<u8>, Vec<u8>>);

/// How a cache does; for health pages and people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Bytes that the sections take; RocksDB may hold some more until it tidies up.
    pub bytes: u64,
    /// How many bytes they may take.
    pub bytes_max: u64,
    /// Sections found since the start.
    pub hits: u64,
    /// Sections not found since the start.
    pub misses: u64,
    /// Damaged sections deleted since the start.
    pub corrupt: u64,
    /// Sections deleted for room since the start.
    pub evicted: u64,
}

enum Mode {
    /// Of a server: one process, reads and writes.
    Owned {
        database: Database,
        ledger: Mutex<Ledger>,
    },
    /// Of a single scan beside others: reads now, writes at the end.
    Shared {
        dir: PathBuf,
        bytes_max: u64,
        database: Option<Database>,
        pending: Mutex<Pending>,
        /// The same cache, once it is open for writing.
        writer: Mutex<Option<Box<(Database, Ledger)>>>,
    },
    /// There is no place for it: nothing is found and nothing is kept.
    Without { why: String },
}

// === impl SectionBatch ===

impl SectionBatch {
    /// Adds a section.
    pub fn add<T: Serialize>(&mut self, key: &SectionKey, section: &T) -> Result<(), CacheError> {
        let key = key_bytes(key);
        let value = sealed(&key, &codec::encode(section)?);
        self.0.insert(key, value);
        Ok(())
    }
}

// === impl StoredSection ===

impl StoredSection<'_> {
    /// How many bytes it has as it is stored.
    pub fn bytes(&self) -> usize {
        match &self.value {
            Value::Row(row) => row.len(),
            Value::Pending(sealed) => sealed.len(),
        }
    }

    /// The section, if it is unharmed.
    pub fn decode<T: DeserializeOwned>(self) -> Option<T> {
        match self.value.opened(&self.key).and_then(codec::decode) {
            Ok(section) => {
                self.cache.metrics.hits.add(1);
                Some(section)
            }
            Err(error) => self.cache.lost(&self.key, &error),
        }
    }
}

impl fmt::Debug for StoredSection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSection").finish_non_exhaustive()
    }
}

// === impl Value ===

impl Value<'_> {
    /// The section's bytes, if they are those that were stored under the key.
    fn opened(&self, key: &[u8]) -> Result<&[u8], CacheError> {
        let sealed = match self {
            Self::Row(row) => ledger::split(row)?.1,
            Self::Pending(sealed) => sealed,
        };
        opened(key, sealed)
    }
}

// === impl SectionCache ===

impl SectionCache {
    /// Opens the cache of a server, in a folder that no other process uses.
    pub fn open(dir: &Path, bytes_max: u64) -> Result<Self, CacheError> {
        let (database, ledger) = open_owned(dir, bytes_max)?;
        let ledger = Mutex::new(ledger);
        Ok(Self {
            mode: Mode::Owned { database, ledger },
            metrics: Metrics::new(),
        })
    }

    /// Opens the cache of a server, or goes on without one where the disk does not let it be made,
    /// as when it is full. Only what an operator must settle is an error: another process has it.
    pub fn open_or_without(dir: &Path, bytes_max: u64) -> Result<Self, CacheError> {
        match Self::open(dir, bytes_max) {
            Err(error @ CacheError::Busy { .. }) => Err(error),
            Err(error) => Ok(Self {
                mode: Mode::Without {
                    why: format!("it could not be opened: {error}"),
                },
                metrics: Metrics::new(),
            }),
            opened => opened,
        }
    }

    /// Opens a cache that any number of processes use at the same time. It never waits and never
    /// fails: a cache that is missing or cannot be read now is an empty one. What is put into it
    /// is written by [`SectionCache::finish`].
    pub fn open_shared(dir: &Path, bytes_max: u64) -> Self {
        let database = Database::open_read_only(dir, &SCHEMA);
        let pending = Mutex::new(Pending::default());
        let mode = Mode::Shared {
            dir: dir.to_owned(),
            bytes_max,
            database,
            pending,
            writer: Mutex::default(),
        };
        Self {
            mode,
            metrics: Metrics::new(),
        }
    }

    /// The section, if it is here and unharmed.
    pub fn get<T: DeserializeOwned>(&self, key: &SectionKey) -> Option<T> {
        self.find(key)?.decode()
    }

    /// The section as it is stored, if it is here: for who does something else while it is decoded.
    pub fn find(&self, key: &SectionKey) -> Option<StoredSection<'_>> {
        let key = key_bytes(key);
        match self.read(&key) {
            Ok(Some(value)) => Some(StoredSection {
                cache: self,
                key,
                value,
            }),
            Ok(None) => {
                self.metrics.misses.add(1);
                None
            }
            Err(error) => self.lost(&key, &error),
        }
    }

    /// A section that is here and cannot be used.
    fn lost<T>(&self, key: &[u8], error: &CacheError) -> Option<T> {
        self.metrics.misses.add(1);
        self.give_up(key, error);
        None
    }

    /// Keeps a section. One that is here already is replaced.
    pub fn put<T: Serialize>(&self, key: &SectionKey, section: &T) -> Result<(), CacheError> {
        let mut sections = SectionBatch::default();
        sections.add(key, section)?;
        self.put_all(sections)
    }

    /// Keeps sections in one write. Those that are here already are replaced.
    pub fn put_all(&self, sections: SectionBatch) -> Result<(), CacheError> {
        match &self.mode {
            Mode::Owned { database, ledger } => {
                let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                let evicted = ledger.put(database, &sections.0)?;
                self.metrics.evicted.add(evicted);
                self.metrics.bytes.record(ledger.bytes(), &[]);
            }
            Mode::Shared { pending, .. } => {
                pending
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .put(sections.0);
            }
            Mode::Without { why } => return Err(CacheError::Without(why.clone())),
        }
        Ok(())
    }

    /// How many bytes the sections take, and how many they may take.
    pub fn fill(&self) -> (u64, u64) {
        match &self.mode {
            Mode::Owned { ledger, .. } => {
                let ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                (ledger.bytes(), ledger.bytes_max())
            }
            Mode::Shared {
                bytes_max,
                database,
                ..
            } => {
                let ledger = database
                    .as_ref()
                    .and_then(|open| Ledger::read(open, *bytes_max).ok());
                (ledger.map_or(0, |ledger| ledger.bytes()), *bytes_max)
            }
            Mode::Without { .. } => (0, 0),
        }
    }

    /// Opens a shared cache for writing if nobody else has it open, so that [`SectionCache::finish`]
    /// need not: for who will have ended in a moment, because nobody else can write until then.
    pub fn prepare_to_finish(&self) {
        let Mode::Shared {
            dir,
            bytes_max,
            writer,
            ..
        } = &self.mode
        else {
            return;
        };
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.is_none() {
            // Whether it can be opened is said in the end.
            *writer = open_owned(dir, *bytes_max).ok().map(Box::new);
        }
    }

    /// Ends a shared cache: writes what was put into it, if no other process holds the cache for
    /// longer than half a second. Says how many sections were written. An owned cache has written
    /// everything already.
    pub fn finish(&self) -> Result<usize, CacheError> {
        let Mode::Shared {
            dir,
            bytes_max,
            pending,
            writer,
            ..
        } = &self.mode
        else {
            return Ok(0);
        };
        let opened = writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let pending = std::mem::take(&mut *pending.lock().unwrap_or_else(PoisonError::into_inner));
        if pending.is_empty() {
            return Ok(0);
        }
        let owned = match opened {
            Some(owned) => Some(*owned),
            None => open_soon(dir, *bytes_max)?,
        };
        let Some((database, mut ledger)) = owned else {
            tracing::debug!("`{}` is busy: new sections are not kept", dir.display());
            return Ok(0);
        };
        let is_much = pending.bytes() > LOG_BYTES_MAX;
        let (written, evicted) = pending.write(&database, &mut ledger)?;
        if is_much || evicted > 0 {
            database.flush()?;
        }
        Ok(written)
    }

    /// How the cache does.
    pub fn figures(&self) -> Figures {
        let (bytes, bytes_max) = self.fill();
        Figures {
            bytes,
            bytes_max,
            hits: self.metrics.hits.get(),
            misses: self.metrics.misses.get(),
            corrupt: self.metrics.corrupt.get(),
            evicted: self.metrics.evicted.get(),
        }
    }

    /// A section where it is stored: it has megabytes, and is not copied.
    fn read(&self, key: &[u8]) -> Result<Option<Value<'_>>, CacheError> {
        match &self.mode {
            Mode::Owned { database, .. } => stored(database, key),
            Mode::Without { .. } => Ok(None),
            Mode::Shared {
                database, pending, ..
            } => {
                let pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(value) = pending.get(key) {
                    return Ok(Some(Value::Pending(value.to_vec())));
                }
                drop(pending);
                database
                    .as_ref()
                    .map_or(Ok(None), |database| stored(database, key))
            }
        }
    }

    /// Deletes what is damaged; what could not be read may be there the next time.
    fn give_up(&self, key: &[u8], error: &CacheError) {
        if !matches!(error, CacheError::Damaged(_)) {
            tracing::debug!(%error, "section is not read: {error}");
            return;
        }
        self.metrics.corrupt.add(1);
        tracing::warn!(%error, "a section in the cache is damaged and read again: {error}");
        let deleted = match &self.mode {
            Mode::Owned { database, ledger } => ledger
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .delete(database, key),
            Mode::Shared { pending, .. } => {
                pending
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .delete(key.to_vec());
                Ok(())
            }
            Mode::Without { .. } => Ok(()),
        };
        if let Err(error) = deleted {
            tracing::warn!(%error, "damaged section stays: {error}");
        }
    }
}

impl fmt::Debug for SectionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SectionCache")
            .field("figures", &self.figures())
            .finish()
    }
}

/// Opens a cache for writing, with its books; one whose books are damaged starts empty.
fn open_owned(dir: &Path, bytes_max: u64) -> Result<(Database, Ledger), CacheError> {
    let with_books = |database: Database| {
        let ledger = Ledger::read(&database, bytes_max)?;
        Ok((database, ledger))
    };
    match with_books(Database::open(dir, &SCHEMA)?) {
        Err(CacheError::Damaged(why)) => {
            let dir_text = dir.display();
            tracing::warn!(%why, "`{dir_text}` is damaged and starts empty: {why}");
            with_books(Database::open_empty(dir, &SCHEMA)?)
        }
        opened => opened,
    }
}

/// Opens a cache for writing once nobody else has it; `None` when that takes too long.
fn open_soon(dir: &Path, bytes_max: u64) -> Result<Option<(Database, Ledger)>, CacheError> {
    let start = Instant::now();
    loop {
        match open_owned(dir, bytes_max) {
            Err(CacheError::Busy { .. }) if start.elapsed() < LOCK_WAIT => {
                thread::sleep(LOCK_PAUSE);
            }
            Err(CacheError::Busy { .. }) => return Ok(None),
            result => return result.map(Some),
        }
    }
}

/// A section in the database.
fn stored<'d>(database: &'d Database, key: &[u8]) -> Result<Option<Value<'d>>, CacheError> {
    let row = database.get_pinned(FAMILY, key)?;
    Ok(row.map(Value::Row))
}

/// A section's bytes with the digest that proves that they belong to the key.
fn sealed(key: &[u8], payload: &[u8]) -> Vec<u8> {
    [&seal(key, payload).as_bytes()[..], payload].concat()
}

/// The bytes of a sealed section.
fn opened<'v>(key: &[u8], value: &'v [u8]) -> Result<&'v [u8], CacheError> {
    let (digest, payload) = value
        .split_first_chunk::<32>()
        .ok_or_else(|| CacheError::Damaged("a section is too short".to_owned()))?;
    if Digest::from_bytes(*digest) != seal(key, payload) {
        return Err(CacheError::Damaged(
            "a section does not have its digest".to_owned(),
        ));
    }
    Ok(payload)
}

fn seal(key: &[u8], payload: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(key);
    hasher.update(payload);
    hasher.finish()
}

/// A section's key: domain, blob, analyzer. Every part has a fixed length or its length in front.
fn key_bytes(key: &SectionKey) -> Vec<u8> {
    let SectionKey {
        domain,
        blob,
        analyzer,
    } = key;
    let length = |text: &str| (text.len() as u64).to_be_bytes();
    [
        &[SECTION][..],
        &length(domain.as_str()),
        domain.as_str().as_bytes(),
        blob.as_bytes(),
        &length(&analyzer.name),
        analyzer.name.as_bytes(),
        &analyzer.version.to_be_bytes(),
        analyzer.config.as_bytes(),
    ]
    .concat()
}
