//! One RocksDB database: families of keys and values, all of them rebuildable.

mod options;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rocksdb::{
    BoundColumnFamily, DB, DBPinnableSlice, DEFAULT_COLUMN_FAMILY_NAME, ErrorKind, FlushOptions,
    IteratorMode, ReadOptions, WriteBatch, WriteOptions,
};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use self::options::{Memory, memory};
use crate::{CacheError, codec, metrics};

/// The family that each database has.
pub(crate) const DEFAULT_FAMILY: &str = DEFAULT_COLUMN_FAMILY_NAME;
/// Where the schema's version stands in it.
const SCHEMA_KEY: &[u8] = b"tidewaiter.schema";

/// What a database holds.
#[derive(Clone, Copy, Debug)]
pub struct Schema<'a> {
    /// Raised when the meaning of what is stored changes; a database of another version is emptied.
    pub version: u32,
    /// Names of the families beside the one that each database has.
    pub families: &'a [&'a str],
}

/// A database in a folder of its own. One process at a time can open it for writing.
pub struct Database {
    db: DB,
    dir: PathBuf,
    families: Vec<String>,
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Writes that happen together or not at all.
pub struct Batch<'a> {
    database: &'a Database,
    writes: WriteBatch,
    sync: bool,
}

// === impl Database ===

impl Database {
    /// Opens a database for reading and writing, and makes it where there is none. One with another
    /// schema, and one too damaged to be opened, is emptied.
    pub fn open(dir: &Path, schema: &Schema<'_>) -> Result<Self, CacheError> {
        fs::create_dir_all(dir).map_err(|source| CacheError::Folder {
            dir: dir.to_owned(),
            source,
        })?;
        metrics::watch_memory();
        match Self::open_present(dir, schema) {
            Ok(Some(database)) => return Ok(database),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::Corruption => {
                let dir = dir.display();
                tracing::warn!(%dir, %error, "`{dir}` is damaged and starts empty: {error}");
            }
            Err(error) => return Err(open_error(dir, &error)),
        }
        Self::open_empty(dir, schema)
    }

    /// Opens a new database in the place of one that is there.
    pub(crate) fn open_empty(dir: &Path, schema: &Schema<'_>) -> Result<Self, CacheError> {
        let made = DB::destroy(&options::database(), dir).and_then(|()| make(dir, schema));
        made.map_err(|error| open_error(dir, &error))
    }

    /// Opens a database for reading only, beside a process that writes to it or not. `None` where
    /// there is none, where it has another schema or where it cannot be read at this moment.
    ///
    /// What the writer adds later is not seen. What it deletes later may become an error on
    /// reading.
    pub fn open_read_only(dir: &Path, schema: &Schema<'_>) -> Option<Self> {
        if !is_present(dir) {
            return None;
        }
        let open = || {
            let families = options::families(schema.families);
            DB::open_cf_descriptors_read_only(&options::read_only(), dir, families, false)
        };
        // A writer that replaces a file while it is looked for is done with it the next time.
        let database = open()
            .or_else(|_| open())
            .inspect_err(|error| tracing::debug!(%error, "cache is not read: {error}"))
            .map(|db| wrap(db, dir, schema))
            .ok()?;
        (database.schema_version().ok()? == Some(schema.version)).then_some(database)
    }

    /// Opens a database of whatever schema for reading only: for who looks at everything that is kept.
    pub fn open_as_it_is(dir: &Path) -> Result<Self, CacheError> {
        let failed = |error: rocksdb::Error| open_error(dir, &error);
        let names = DB::list_cf(&options::database(), dir).map_err(failed)?;
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let ours: Vec<_> = names
            .iter()
            .copied()
            .filter(|name| *name != DEFAULT_FAMILY)
            .collect();
        let families = options::families(&ours);
        let opened = DB::open_cf_descriptors_read_only(&options::read_only(), dir, families, false);
        let schema = Schema {
            version: 0,
            families: &ours,
        };
        Ok(wrap(opened.map_err(failed)?, dir, &schema))
    }

    /// Names of the families: those of the schema, and the one that each database has.
    pub fn families(&self) -> impl Iterator<Item = &str> {
        let families = self.families.iter().map(String::as_str);
        families.chain([DEFAULT_FAMILY])
    }

    /// The value of a key.
    pub fn get(&self, family: &str, key: &[u8]) -> Result<Option<Vec<u8>>, CacheError> {
        self.db
            .get_cf(&self.family(family)?, key)
            .map_err(|error| self.error(&error))
    }

    /// [`Database::get`] without a copy: the value stays in memory while it is held.
    pub(crate) fn get_pinned(
        &self,
        family: &str,
        key: &[u8],
    ) -> Result<Option<DBPinnableSlice<'_>>, CacheError> {
        self.db
            .get_pinned_cf(&self.family(family)?, key)
            .map_err(|error| self.error(&error))
    }

    /// Sets the value of a key.
    pub fn put(&self, family: &str, key: &[u8], value: &[u8]) -> Result<(), CacheError> {
        self.db
            .put_cf(&self.family(family)?, key, value)
            .map_err(|error| self.error(&error))
    }

    /// Deletes a key; one that is not there is no error.
    pub fn delete(&self, family: &str, key: &[u8]) -> Result<(), CacheError> {
        self.db
            .delete_cf(&self.family(family)?, key)
            .map_err(|error| self.error(&error))
    }

    /// [`Database::get`] of a value that [`Database::put_as`] wrote.
    pub fn get_as<T: DeserializeOwned>(
        &self,
        family: &str,
        key: &[u8],
    ) -> Result<Option<T>, CacheError> {
        self.get(family, key)?
            .map(|bytes| codec::decode(&bytes))
            .transpose()
    }

    /// Sets the value of a key, compressed MessagePack.
    pub fn put_as<T: Serialize>(
        &self,
        family: &str,
        key: &[u8],
        value: &T,
    ) -> Result<(), CacheError> {
        self.put(family, key, &codec::encode(value)?)
    }

    /// Up to `limit` pairs whose key begins with `prefix`, in the order of their keys, beginning at
    /// `from` where given. The next page begins at the last key with a zero byte appended.
    pub fn scan_prefix(
        &self,
        family: &str,
        prefix: &[u8],
        from: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, CacheError> {
        let mut bounds = ReadOptions::default();
        bounds.set_total_order_seek(true);
        if let Some(end) = after_prefix(prefix) {
            bounds.set_iterate_upper_bound(end);
        }
        let start = from.filter(|from| *from > prefix).unwrap_or(prefix);
        let mode = IteratorMode::From(start, rocksdb::Direction::Forward);
        let pairs = self
            .db
            .iterator_cf_opt(&self.family(family)?, bounds, mode)
            .take(limit);
        pairs
            .map(|pair| pair.map(|(key, value)| (key.into_vec(), value.into_vec())))
            .collect::<Result<_, _>>()
            .map_err(|error| self.error(&error))
    }

    /// Does what `fill` puts into the batch, all of it or nothing.
    pub fn batch(
        &self,
        fill: impl FnOnce(&mut Batch<'_>) -> Result<(), CacheError>,
    ) -> Result<(), CacheError> {
        let mut batch = Batch {
            database: self,
            writes: WriteBatch::default(),
            sync: false,
        };
        fill(&mut batch)?;
        let mut how = WriteOptions::default();
        how.set_sync(batch.sync);
        self.db
            .write_opt(batch.writes, &how)
            .map_err(|error| self.error(&error))
    }

    /// About how many keys a family has.
    pub fn estimate_keys(&self, family: &str) -> Result<u64, CacheError> {
        self.property(family, "rocksdb.estimate-num-keys")
    }

    /// About how many bytes everything takes, on disk and in memory that is not on disk yet.
    pub fn size_bytes(&self) -> Result<u64, CacheError> {
        let properties = [
            "rocksdb.total-sst-files-size",
            "rocksdb.total-blob-file-size",
            "rocksdb.cur-size-all-mem-tables",
        ];
        let mut sum: u64 = 0;
        for family in self.families() {
            for property in properties {
                sum = sum.saturating_add(self.property(family, property)?);
            }
        }
        Ok(sum)
    }

    /// Writes to disk what is in memory, so that the next opening is quick: as long as one family is
    /// not written, even the one that holds nothing but the schema's version, the log of all is kept,
    /// and is read by whoever opens the database.
    ///
    /// A family that is being written of itself when the log changes holds the old log, also when it
    /// has ended and nothing of it is in there. So the log changes once more after all are written,
    /// which takes something to write.
    pub fn flush(&self) -> Result<(), CacheError> {
        let how = FlushOptions::default();
        let flushed = || {
            for family in self
                .families
                .iter()
                .filter_map(|name| self.db.cf_handle(name))
            {
                self.db.flush_cf_opt(&family, &how)?;
            }
            if let Some(version) = self.db.get_pinned(SCHEMA_KEY)? {
                self.db.put(SCHEMA_KEY, version)?;
            }
            self.db.flush_opt(&how)
        };
        flushed().map_err(|error| self.error(&error))
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Opens what is there; `None` where it has another schema.
    fn open_present(dir: &Path, schema: &Schema<'_>) -> Result<Option<Self>, rocksdb::Error> {
        if !is_present(dir) {
            return make(dir, schema).map(Some);
        }
        // It is asked for its families by opening it: who reads them without the lock may meet another
        // process that replaces the file where they stand.
        let database = match open_all(dir, schema) {
            Err(error) if has_other_families(&error) => return Ok(None),
            opened => opened?,
        };
        Ok((database.schema_version()? == Some(schema.version)).then_some(database))
    }

    fn schema_version(&self) -> Result<Option<u32>, rocksdb::Error> {
        let bytes = self.db.get(SCHEMA_KEY)?;
        Ok(bytes.and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?))))
    }

    fn family(&self, name: &str) -> Result<Arc<BoundColumnFamily<'_>>, CacheError> {
        self.db
            .cf_handle(name)
            .ok_or_else(|| CacheError::Family(name.to_owned()))
    }

    fn property(&self, family: &str, name: &str) -> Result<u64, CacheError> {
        let value = self.db.property_int_value_cf(&self.family(family)?, name);
        value
            .map(Option::unwrap_or_default)
            .map_err(|error| self.error(&error))
    }

    fn error(&self, error: &rocksdb::Error) -> CacheError {
        if error.kind() == ErrorKind::Corruption {
            return CacheError::Damaged(error.to_string());
        }
        CacheError::Store {
            dir: self.dir.clone(),
            why: error.to_string(),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

// === impl Batch ===

impl Batch<'_> {
    /// Sets the value of a key.
    pub fn put(&mut self, family: &str, key: &[u8], value: &[u8]) -> Result<(), CacheError> {
        self.writes
            .put_cf(&self.database.family(family)?, key, value);
        Ok(())
    }

    /// Sets the value of a key, compressed MessagePack.
    pub fn put_as<T: Serialize>(
        &mut self,
        family: &str,
        key: &[u8],
        value: &T,
    ) -> Result<(), CacheError> {
        self.put(family, key, &codec::encode(value)?)
    }

    /// Deletes a key.
    pub fn delete(&mut self, family: &str, key: &[u8]) -> Result<(), CacheError> {
        self.writes.delete_cf(&self.database.family(family)?, key);
        Ok(())
    }

    /// Deletes the keys from `start` up to and without `end`.
    pub fn delete_range(
        &mut self,
        family: &str,
        start: &[u8],
        end: &[u8],
    ) -> Result<(), CacheError> {
        self.writes
            .delete_range_cf(&self.database.family(family)?, start, end);
        Ok(())
    }

    /// Waits until the batch is on the disk: for what must survive a power cut.
    pub const fn sync(&mut self) {
        self.sync = true;
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("writes", &self.writes.len())
            .finish_non_exhaustive()
    }
}

fn is_present(dir: &Path) -> bool {
    dir.join("CURRENT").is_file()
}

/// A new, empty database.
fn make(dir: &Path, schema: &Schema<'_>) -> Result<Database, rocksdb::Error> {
    let database = open_all(dir, schema)?;
    database.db.put(SCHEMA_KEY, schema.version.to_be_bytes())?;
    Ok(database)
}

fn open_all(dir: &Path, schema: &Schema<'_>) -> Result<Database, rocksdb::Error> {
    let families = options::families(schema.families);
    let db = DB::open_cf_descriptors(&options::database(), dir, families)?;
    Ok(wrap(db, dir, schema))
}

fn wrap(db: DB, dir: &Path, schema: &Schema<'_>) -> Database {
    let families = schema
        .families
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    Database {
        db,
        dir: dir.to_owned(),
        families,
    }
}

/// Whether a database was not opened because it has families that the schema does not know. RocksDB has
/// no kind for it.
fn has_other_families(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::InvalidArgument
        && error.to_string().contains("Column families not opened")
}

fn open_error(dir: &Path, error: &rocksdb::Error) -> CacheError {
    let (dir, why) = (dir.to_owned(), error.to_string());
    // RocksDB has no kind for it; the lock's file name is in all of its texts about locks.
    if error.kind() == ErrorKind::IOError && why.contains("/LOCK") {
        return CacheError::Busy { dir };
    }
    CacheError::Open { dir, why }
}

/// The first key after all that begin with `prefix`; `None` where there is no such key.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}
