//! Values that images have in common: packed once by who writes them, fetched and decoded once by
//! who reads them.
//!
//! Thousands of images stand on one stack. Each has objects of its own, so that deleting one's
//! takes nothing from another, but most of such an object is the same in all of them. Its record
//! says so by the digest of that part; a reader that has met the digest needs no object at all.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use chassis::Recent;
use model::{Digest, Slug};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OnceCell;

use super::{
    OBJECT_BYTES_MAX, OBJECT_PLAIN_BYTES_MAX, Store, malformed,
    objects::{self, Common},
};
use crate::error::{EncodeError, StoreError};

/// Packed bytes of common parts that a writer keeps.
const PACKED_BYTES_MAX: usize = 8 << 20;

/// Common parts that were packed of late, by the digest of their plain bytes.
#[derive(Clone)]
pub(super) struct Packs(Arc<Mutex<Recent<Digest, Bytes>>>);

/// Decoded values of one kind of objects; cheap to clone.
pub struct Contents<T> {
    store: Store,
    bucket: &'static str,
    recent: Arc<Mutex<Recent<Digest, Entry<T>>>>,
}

/// Empty while it is fetched: who asks meanwhile waits for that.
type Entry<T> = Arc<OnceCell<Arc<T>>>;

/// Why there is no value.
enum Absent {
    Gone,
    Failed(StoreError),
}

// === impl Store ===

impl Store {
    /// Packs what values have in common, for [`Store::put_object_with`]: fields of a struct.
    pub fn common<T: Serialize>(&self, value: &T) -> Result<Common, EncodeError> {
        let common = Common::of(value, |content| self.packs.get(content))?;
        self.packs.keep(&common);
        Ok(common)
    }

    /// Stores an object of one tenant that reads as one value with the fields of `own` and those
    /// of `common`.
    pub async fn put_object_with<T: Serialize>(
        &self,
        tenant: &Slug,
        bucket: &str,
        own: &T,
        common: &Common,
    ) -> Result<Digest, StoreError> {
        let packed = objects::pack_with(own, common)?;
        let bytes = objects::owned(&packed, tenant.as_str());
        self.put_object_bytes(bucket, bytes).await
    }
}

// === impl Contents ===

impl<T: DeserializeOwned> Contents<T> {
    /// Values of a bucket's objects; those are kept that take about so many bytes encoded.
    pub fn new(store: Store, bucket: &'static str, bytes_max: usize) -> Self {
        Self {
            store,
            bucket,
            recent: Arc::new(Mutex::new(Recent::new(bytes_max))),
        }
    }

    /// The value of an object. `None`: it is not there. Where `content` names what it has in
    /// common with others, its own fields are those of any of them.
    pub async fn get(
        &self,
        object: &Digest,
        content: Option<&Digest>,
    ) -> Result<Option<Arc<T>>, StoreError> {
        let name = content.unwrap_or(object);
        let entry = self.entry(name);
        let fetch = async || {
            let (value, bytes) = self.fetch(object, content).await?;
            self.lock().weigh(name, bytes);
            Ok(Arc::new(value))
        };
        match entry.get_or_try_init(fetch).await {
            Ok(value) => Ok(Some(Arc::clone(value))),
            Err(Absent::Gone) => Ok(None),
            Err(Absent::Failed(error)) => Err(error),
        }
    }

    async fn fetch(&self, object: &Digest, content: Option<&Digest>) -> Result<(T, usize), Absent> {
        let bucket = self.bucket;
        let found = self
            .store
            .object_bytes(bucket, object, OBJECT_BYTES_MAX)
            .await
            .map_err(Absent::Failed)?;
        let failed = |cause: &dyn ToString| {
            Absent::Failed(malformed(bucket, &object.hex(), &cause.to_string()))
        };
        let bytes = found.ok_or(Absent::Gone)?;
        let plain = objects::unpack(&bytes, OBJECT_PLAIN_BYTES_MAX);
        let plain = plain.map_err(|cause| failed(&cause))?;
        if content.is_some_and(|content| plain.content() != Some(*content)) {
            return Err(failed(&"it has other content than its record says"));
        }
        let value = plain.decode().map_err(|cause| failed(&cause))?;
        Ok((value, plain.size()))
    }

    fn entry(&self, name: &Digest) -> Entry<T> {
        let mut recent = self.lock();
        if let Some(known) = recent.get(name) {
            return known;
        }
        let entry = Entry::<T>::default();
        recent.put(*name, Arc::clone(&entry), 0);
        entry
    }

    fn lock(&self) -> MutexGuard<'_, Recent<Digest, Entry<T>>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Contents<T> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            bucket: self.bucket,
            recent: Arc::clone(&self.recent),
        }
    }
}

impl<T> fmt::Debug for Contents<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents")
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

// === impl Packs ===

impl Packs {
    fn get(&self, content: &Digest) -> Option<Bytes> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.get(content)
    }

    fn keep(&self, common: &Common) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let packed = common.packed().clone();
        let bytes = packed.len();
        recent.put(common.content(), packed, bytes);
    }
}

impl Default for Packs {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Recent::new(PACKED_BYTES_MAX))))
    }
}

#[cfg(test)]
mod tests;
