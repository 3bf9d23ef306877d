//! The reverse index: package → images, per partition, in the local database.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    /// The advisory revision of the last sweep that assessed this scan, wrote what follows and told
    /// it; 0 where none did. It is raised after all that, so a sweep that is begun again leaves out
    /// what is done and nothing else.
    pub(crate) advisory: u64,
    /// What its packages are looked up by.
    pub(crate) lookups: BTreeSet<Lookup>,
}

/// An image that must be assessed again, although the advisories of its packages need not change:
/// its record rests on other advisories than the partition's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    /// The revision that its record rests on.
    pub(crate) advisory: u64,
    /// The record's sequence.
    pub(crate) sequence: u64,
}

// === impl Index ===

impl Index {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self {
            database: Arc::clone(database),
            writing: Arc::default(),
        }
    }

    /// Writes what the packages of an image's scan are looked up by. A scan that is there already,
    /// or a newer one, changes nothing.
    pub(crate) fn put_scan(
        &self,
        image: &RecordKey,
        scan: u64,
        lookups: impl FnOnce() -> BTreeSet<Lookup>,
    ) -> Result<(), CacheError> {
        let _guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.get(image)?;
        if old.as_ref().is_some_and(|old| old.scan >= scan) {
            return Ok(());
        }
        let old = old.unwrap_or_default();
        let new = Indexed {
            scan,
            advisory: 0,
            lookups: lookups(),
        };
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

    /// Notes that a sweep is done with an image's scan.
    pub(crate) fn swept(
        &self,
        image: &RecordKey,
        scan: u64,
        advisory: u64,
    ) -> Result<(), CacheError> {
        let _guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.get(image)? {
            Some(known) if known.scan == scan => {
                let known = Indexed { advisory, ..known };
                self.database.put_as(IMAGES, &image_key(image), &known)
            }
            _ => Ok(()),
        }
    }

    /// Notes that an image must be assessed again.
    pub(crate) fn open(&self, image: &RecordKey, open: Open) -> Result<(), CacheError> {
        let _guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.database.put_as(META, &open_key(image), &open)
    }

    /// The images of a partition that must be assessed again.
    pub(crate) fn opened(
        &self,
        partition: Partition,
    ) -> Result<BTreeMap<RecordKey, Open>, CacheError> {
        let images = self.images(META, format!("open/{partition}\0").as_bytes())?;
        let mut opened = BTreeMap::new();
        for image in images {
            if let Some(open) = self.database.get_as(META, &open_key(&image))? {
                opened.insert(image, open);
            }
        }
        Ok(opened)
    }

    /// Notes that an image was assessed again, unless its record was written once more meanwhile.
    pub(crate) fn close(&self, image: &RecordKey, open: Open) -> Result<(), CacheError> {
        let _guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let key = open_key(image);
        match self.database.get_as::<Open>(META, &key)? {
            Some(known) if known == open => self.database.delete(META, &key),
            _ => Ok(()),
        }
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
            batch.delete(META, &open_key(image))?;
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

    /// Up to where a partition's bucket is in the index, when it is followed from now on. A bucket
    /// that was made anew starts again, and so does its index.
    pub(crate) fn begin(
        &self,
        partition: Partition,
        last: u64,
        made: &str,
    ) -> Result<u64, CacheError> {
        let key = made_key(partition);
        let known: Option<String> = self.database.get_as(META, &key)?;
        let cursor = self.cursor(partition)?;
        let is_new = cursor > last || known.as_deref().is_some_and(|known| known != made);
        if is_new {
            for image in self.all(partition)? {
                self.remove(&image)?;
            }
            for (image, open) in self.opened(partition)? {
                self.close(&image, open)?;
            }
            self.set_cursor(partition, 0)?;
        }
        self.database.put_as(META, &key, &made)?;
        Ok(if is_new { 0 } else { cursor })
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

fn open_key(image: &RecordKey) -> Vec<u8> {
    let partition = image.image.partition();
    format!("open/{partition}\0{}", image.sibling(What::Scanned)).into_bytes()
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

fn made_key(partition: Partition) -> Vec<u8> {
    format!("made/{partition}").into_bytes()
}

fn cursor_key(partition: Partition) -> Vec<u8> {
    format!("cursor/{partition}").into_bytes()
}
