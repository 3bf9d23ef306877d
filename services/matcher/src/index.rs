//! The reverse index: package → images, per partition, in the local database.
//!
//! It goes by way of lists of packages, since many images have the same one: package → lists →
//! images. So a list is written once per partition, and an image costs two keys. A list goes with
//! the last of its images.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use cache::{Batch, CacheError, Database};
use model::{Digest, Partition, RecordKey, What};
use serde::{Deserialize, Serialize};
use vulndb::Lookup;

use crate::advisories::{IMAGES, LISTS, LOOKUPS, MEMBERS, META};

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
    /// The list of its packages.
    pub(crate) list: Option<Digest>,
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

    /// Writes which packages an image's scan found: the name of their list, which follows from its
    /// content, and what they are looked up by. A scan that is there already, or a newer one,
    /// changes nothing.
    pub(crate) fn put_scan(
        &self,
        image: &RecordKey,
        scan: u64,
        list: Digest,
        lookups: impl FnOnce() -> BTreeSet<Lookup>,
    ) -> Result<(), CacheError> {
        let _guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.get(image)?.unwrap_or_default();
        if old.scan >= scan {
            return Ok(());
        }
        let new = Indexed {
            scan,
            advisory: 0,
            list: Some(list),
        };
        self.database.batch(|batch| {
            if old.list != new.list {
                self.leave(batch, image, old.list)?;
                self.join(batch, image, list, lookups)?;
            }
            batch.put_as(IMAGES, &image_key(image), &new)
        })
    }

    /// Adds an image to those that have a list, which is written where it is not there.
    fn join(
        &self,
        batch: &mut Batch<'_>,
        image: &RecordKey,
        list: Digest,
        lookups: impl FnOnce() -> BTreeSet<Lookup>,
    ) -> Result<(), CacheError> {
        let partition = image.image.partition();
        let key = list_key(partition, list);
        if self.database.get(LISTS, &key)?.is_none() {
            let lookups = lookups();
            for lookup in &lookups {
                batch.put(LOOKUPS, &posting(partition, lookup, list), &[])?;
            }
            batch.put_as(LISTS, &key, &lookups)?;
        }
        batch.put(MEMBERS, &member(image, list), &[])
    }

    /// Takes an image from those that have a list, and with the last one the list.
    fn leave(
        &self,
        batch: &mut Batch<'_>,
        image: &RecordKey,
        list: Option<Digest>,
    ) -> Result<(), CacheError> {
        let Some(list) = list else { return Ok(()) };
        let partition = image.image.partition();
        batch.delete(MEMBERS, &member(image, list))?;
        let prefix = list_key(partition, list);
        if self.database.scan_prefix(MEMBERS, &prefix, None, 2)?.len() > 1 {
            return Ok(());
        }
        for lookup in self.lookups(partition, list)? {
            batch.delete(LOOKUPS, &posting(partition, &lookup, list))?;
        }
        batch.delete(LISTS, &list_key(partition, list))
    }

    /// What the packages of a list are looked up by.
    pub(crate) fn lookups(
        &self,
        partition: Partition,
        list: Digest,
    ) -> Result<BTreeSet<Lookup>, CacheError> {
        let known = self.database.get_as(LISTS, &list_key(partition, list))?;
        Ok(known.unwrap_or_default())
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
            self.leave(batch, image, old.list)?;
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
        self.having(partition, prefix.as_bytes())
    }

    /// Images of a partition that hold any package of an ecosystem.
    pub(crate) fn holding_any(
        &self,
        partition: Partition,
        ecosystem: &str,
    ) -> Result<BTreeSet<RecordKey>, CacheError> {
        self.having(partition, format!("{partition}\0{ecosystem}\0").as_bytes())
    }

    /// The ecosystems, without their suffixes, of the packages that a partition's images hold.
    pub(crate) fn ecosystems(&self, partition: Partition) -> Result<BTreeSet<String>, CacheError> {
        let prefix = format!("{partition}\0").into_bytes();
        let mut found = BTreeSet::new();
        let mut from = prefix.clone();
        // One step per ecosystem with its suffix: the rest of its keys is jumped over.
        while let Some((key, _)) = self
            .database
            .scan_prefix(LOOKUPS, &prefix, Some(&from), 1)?
            .into_iter()
            .next()
        {
            let ecosystem = key.get(prefix.len()..).unwrap_or_default();
            let ecosystem = ecosystem
                .split(|byte| *byte == 0)
                .next()
                .unwrap_or_default();
            let name = String::from_utf8_lossy(ecosystem);
            found.extend(name.split(':').next().map(ToOwned::to_owned));
            from = [prefix.as_slice(), ecosystem, &[1]].concat();
        }
        Ok(found)
    }

    /// Images with a list to which postings lead.
    fn having(
        &self,
        partition: Partition,
        postings: &[u8],
    ) -> Result<BTreeSet<RecordKey>, CacheError> {
        let lists: BTreeSet<Digest> = self.ends(LOOKUPS, postings, list_of)?;
        let mut found = BTreeSet::new();
        for list in lists {
            found.extend(self.images(MEMBERS, &list_key(partition, list))?);
        }
        Ok(found)
    }

    /// All images of a partition.
    pub(crate) fn all(&self, partition: Partition) -> Result<BTreeSet<RecordKey>, CacheError> {
        self.images(IMAGES, format!("{partition}\0").as_bytes())
    }

    /// Up to where a partition's bucket is in the index, when it is followed from now on. A bucket
    /// that was made anew starts again, and so does its index; `made` says of which making it is,
    /// and by which rules.
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
        self.ends(family, prefix, image_of)
    }

    /// What the keys with a prefix end with.
    fn ends<T: Ord>(
        &self,
        family: &str,
        prefix: &[u8],
        end: fn(&[u8]) -> Option<T>,
    ) -> Result<BTreeSet<T>, CacheError> {
        let mut found = BTreeSet::new();
        let mut from: Option<Vec<u8>> = None;
        loop {
            let page = self
                .database
                .scan_prefix(family, prefix, from.as_deref(), PAGE)?;
            let is_last = page.len() < PAGE;
            from = page.last().map(|(key, _)| [key.as_slice(), &[0]].concat());
            found.extend(page.iter().filter_map(|(key, _)| end(key)));
            if is_last {
                return Ok(found);
            }
        }
    }
}

/// The last part of a key names the image by its `scanned` record.
fn image_of(key: &[u8]) -> Option<RecordKey> {
    end_of(key)?.parse().ok()
}

/// Or a list.
fn list_of(key: &[u8]) -> Option<Digest> {
    Digest::from_hex(end_of(key)?)
}

fn end_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key).ok()?.rsplit('\0').next()
}

fn image_key(image: &RecordKey) -> Vec<u8> {
    let partition = image.image.partition();
    format!("{partition}\0{}", image.sibling(What::Scanned)).into_bytes()
}

fn open_key(image: &RecordKey) -> Vec<u8> {
    let partition = image.image.partition();
    format!("open/{partition}\0{}", image.sibling(What::Scanned)).into_bytes()
}

fn posting(partition: Partition, lookup: &Lookup, list: Digest) -> Vec<u8> {
    let Lookup { ecosystem, name } = lookup;
    format!("{partition}\0{ecosystem}\0{name}\0{}", list.hex()).into_bytes()
}

/// The key of a list, and what the keys of its members begin with.
fn list_key(partition: Partition, list: Digest) -> Vec<u8> {
    format!("{partition}\0{}\0", list.hex()).into_bytes()
}

fn member(image: &RecordKey, list: Digest) -> Vec<u8> {
    let mut key = list_key(image.image.partition(), list);
    key.extend(image.sibling(What::Scanned).to_string().into_bytes());
    key
}

fn made_key(partition: Partition) -> Vec<u8> {
    format!("made/{partition}").into_bytes()
}

fn cursor_key(partition: Partition) -> Vec<u8> {
    format!("cursor/{partition}").into_bytes()
}
