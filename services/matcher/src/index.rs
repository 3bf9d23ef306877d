//! The reverse index: package → images, per partition, in the local database.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use cache::{CacheError, Database};
use model::{Partition, RecordKey, What};
use serde::{Deserialize, Serialize};
use vulndb::Lookup;

use crate::advisories::{IMAGES, LOOKUPS, META};

/// How many keys are read at once.
const PAGE: usize = 10_000;

/// Which images hold a package; and what is known of each image.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    database: Arc<Database>,
    /// Reading an entry and writing it again must not be interrupted by another writer of it.
    writing: Arc<Mutex<()>>,
}

/// An image in the index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Indexed {
    /// The scan that it rests on.
    pub(crate) scan: u64,
    /// The advisory revision that it was last assessed at, or is being assessed at.
    pub(crate) advisory: u64,
    /// What its packages are looked up by.
    pub(crate) lookups: BTreeSet<Lookup>,
}

// === impl Index ===

impl Index {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self {
            database: Arc::clone(database),
            writing: Arc::default(),
        }
    }

    /// Writes an image's lookups and its assessed revision in one batch. An older scan than the one
    /// that is there changes nothing.
    pub(crate) fn put(&self, image: &RecordKey, mut new: Indexed) -> Result<(), CacheError> {
        let _guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.get(image)?.unwrap_or_default();
        if old.scan > new.scan {
            return Ok(());
        }
        if old.scan == new.scan {
            new.advisory = new.advisory.max(old.advisory);
        }
        self.database.batch(|batch| {
            for gone in old.lookups.difference(&new.lookups) {
                batch.delete(LOOKUPS, &posting(image, gone))?;
            }
            for come in new.lookups.difference(&old.lookups) {
                batch.put(LOOKUPS, &posting(image, come), &[])?;
            }
            batch.put_as(IMAGES, &image_key(image), &new)
        })
    }

    /// Forgets an image.
    pub(crate) fn remove(&self, image: &RecordKey) -> Result<(), CacheError> {
        let _guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(old) = self.get(image)? else {
            return Ok(());
        };
        self.database.batch(|batch| {
            for lookup in &old.lookups {
                batch.delete(LOOKUPS, &posting(image, lookup))?;
            }
            batch.delete(IMAGES, &image_key(image))
        })
    }

    pub(crate) fn get(&self, image: &RecordKey) -> Result<Option<Indexed>, CacheError> {
        self.database.get_as(IMAGES, &image_key(image))
    }

    /// Images of a partition that hold a package.
    pub(crate) fn holding(
        &self,
        partition: Partition,
        lookup: &Lookup,
    ) -> Result<BTreeSet<RecordKey>, CacheError> {
        let prefix = format!("{partition}\0{}\0{}\0", lookup.ecosystem, lookup.name);
        self.images(LOOKUPS, prefix.as_bytes())
    }

    /// Images of a partition that hold any package of an ecosystem.
    pub(crate) fn holding_any(
        &self,
        partition: Partition,
        ecosystem: &str,
    ) -> Result<BTreeSet<RecordKey>, CacheError> {
        self.images(LOOKUPS, format!("{partition}\0{ecosystem}\0").as_bytes())
    }

    /// All images of a partition.
    pub(crate) fn all(&self, partition: Partition) -> Result<BTreeSet<RecordKey>, CacheError> {
        self.images(IMAGES, format!("{partition}\0").as_bytes())
    }

    /// Forgets a partition if it is to be forgotten; says whether it was.
    pub(crate) fn clear_if(&self, clear: bool, partition: Partition) -> Result<bool, CacheError> {
        if clear {
            for image in self.all(partition)? {
                self.remove(&image)?;
            }
            self.set_cursor(partition, 0)?;
        }
        Ok(clear)
    }

    /// Up to which sequence of its bucket a partition is in the index.
    pub(crate) fn cursor(&self, partition: Partition) -> Result<u64, CacheError> {
        Ok(self
            .database
            .get_as(META, &cursor_key(partition))?
            .unwrap_or_default())
    }

    /// Moves the cursor; what it passes must be in the index.
    pub(crate) fn set_cursor(&self, partition: Partition, sequence: u64) -> Result<(), CacheError> {
        self.database
            .put_as(META, &cursor_key(partition), &sequence)
    }

    fn images(&self, family: &str, prefix: &[u8]) -> Result<BTreeSet<RecordKey>, CacheError> {
        let mut found = BTreeSet::new();
        let mut from: Option<Vec<u8>> = None;
        loop {
            let page = self
                .database
                .scan_prefix(family, prefix, from.as_deref(), PAGE)?;
            let is_last = page.len() < PAGE;
            from = page.last().map(|(key, _)| [key.as_slice(), &[0]].concat());
            found.extend(page.iter().filter_map(|(key, _)| image_of(key)));
            if is_last {
                return Ok(found);
            }
        }
    }
}

/// The last part of a key names the image by its `scanned` record.
fn image_of(key: &[u8]) -> Option<RecordKey> {
    std::str::from_utf8(key)
        .ok()?
        .rsplit('\0')
        .next()?
        .parse()
        .ok()
}

fn image_key(image: &RecordKey) -> Vec<u8> {
    let partition = image.image.partition();
    format!("{partition}\0{}", image.sibling(What::Scanned)).into_bytes()
}

fn posting(image: &RecordKey, lookup: &Lookup) -> Vec<u8> {
    let partition = image.image.partition();
    let Lookup { ecosystem, name } = lookup;
    format!(
        "{partition}\0{ecosystem}\0{name}\0{}",
        image.sibling(What::Scanned)
    )
    .into_bytes()
}

fn cursor_key(partition: Partition) -> Vec<u8> {
    format!("cursor/{partition}").into_bytes()
}
