//! State: records and other keys, and objects. One typed face over two backends, NATS and memory.
//!
//! A record's body over 8 KB is stored as an object of `tw_reports`; the record's message then
//! holds a pointer in a header, and every reader resolves it. The object's bytes hold the key and
//! the revision that the write replaces, so two writes never share one, and a replaced one never
//! comes back to life.

pub(crate) mod backend;
pub(crate) mod claims;
mod contents;
mod keys;
mod memory;
pub(crate) mod nats;
mod objects;
mod pointers;
#[cfg(test)]
pub(crate) mod suite;
mod verdicts;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use model::{Digest, Partition, Record, RecordKey, Slug, event::images_bucket};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use self::{backend::Backend, contents::Packs, memory::Memory, pointers::Pointers};
use crate::{
    envelope::{Attributes, BODY_OBJECT, Headers, decode},
    error::{EncodeError, PutError, StoreError},
    handler::{Discard, Outcome, Write, WriteKind},
    janitor::Janitor,
    subject,
    wire::Raw,
};

pub(crate) use self::keys::is_marker;
pub use self::{backend::Usage, contents::Contents, objects::Common};

/// Bodies up to this size stay in the record's own message: what most verdicts take. An object costs
/// a message to write and one for each who reads.
const INLINE_BYTES_MAX: usize = 8 * 1024;
/// The largest value of a key that is not an image's record.
const VALUE_BYTES_MAX: u64 = 768 * 1024;
/// The largest object, as stored.
const OBJECT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The largest object, decompressed.
const OBJECT_PLAIN_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// How many pointers are resolved at once in a list.
const PARALLEL: usize = 16;
const ZSTD_LEVEL: i32 = 3;
/// A writer relies on an object for this part of the time after which the janitor deletes it: the
/// rest is for naming it, and for clocks that differ.
const REUSE_PART: u32 = 2;

/// Reads and writes state; cheap to clone.
#[derive(Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
    clock: Arc<dyn chassis::Clock>,
    packs: Packs,
    pointers: Pointers,
    /// Takes what writes leave behind; absent in memory, and in the janitor's own.
    janitor: Option<Janitor>,
}

/// A value with the revision to expect when it is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<T> {
    /// Its revision.
    pub revision: u64,
    /// The value.
    pub body: T,
}

/// What became of an object that nothing named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collected {
    /// It is not there any more.
    Gone,
    /// Something names it again.
    Named,
    /// It was stored again of late: who did that may still be about to name it.
    Young,
}

/// What an object that holds a record's body contains.
#[derive(Serialize, Deserialize)]
struct Body {
    key: String,
    replaces: u64,
    body: Bytes,
}

// === impl Store ===

impl Store {
    /// A store in memory, for tests of handlers.
    pub fn memory() -> Self {
        Self {
            backend: Arc::new(Memory::default()),
            clock: Arc::new(chassis::SystemClock),
            packs: Packs::default(),
            pointers: Pointers::default(),
            janitor: None,
        }
    }

    pub(crate) fn new(backend: Arc<dyn Backend>, clock: Arc<dyn chassis::Clock>) -> Self {
        Self {
            backend,
            clock,
            packs: Packs::default(),
            pointers: Pointers::default(),
            janitor: None,
        }
    }

    /// The same store, whose writes hand what they replace to the janitor.
    pub(crate) fn with_janitor(mut self, janitor: Janitor) -> Self {
        self.janitor = Some(janitor);
        self
    }

    /// An image's record.
    pub async fn record<R: Record>(
        &self,
        key: &RecordKey,
    ) -> Result<Option<Stored<R>>, StoreError> {
        let (bucket, key) = (images_bucket(key.image.partition()), key.to_string());
        match self.backend.get(&bucket, &key).await? {
            Some(raw) if !is_marker(&raw.headers) => {
                self.pointers
                    .note(&key, raw.sequence, pointer(&raw.headers));
                self.value(&bucket, &key, raw).await
            }
            _ => Ok(None),
        }
    }

    /// Every record of one type in a partition, of the images that `keep` chooses. It reads the
    /// whole partition.
    pub async fn records<R: Record>(
        &self,
        partition: Partition,
        keep: impl Fn(&RecordKey) -> bool + Send,
    ) -> Result<Vec<(RecordKey, Stored<R>)>, StoreError> {
        let bucket = images_bucket(partition);
        let found = self
            .backend
            .list(&bucket, "")
            .await?
            .into_iter()
            .filter_map(|(key, raw)| {
                let of_type = raw.headers.attribute(crate::envelope::CE_TYPE)? == R::TYPE;
                let record_key: RecordKey = key.parse().ok()?;
                (of_type && keep(&record_key)).then_some((key, record_key, raw))
            });
        let found: Vec<_> = found.collect();
        stream::iter(found)
            .map(async |(key, record_key, raw)| {
                Ok(self
                    .value(&bucket, &key, raw)
                    .await?
                    .map(|stored| (record_key, stored)))
            })
            .buffered(PARALLEL)
            .try_filter_map(async |item| Ok(item))
            .try_collect()
            .await
    }

    /// Writes an image's record by compare-and-set; `expected` is the revision that was read, 0
    /// where there is none. Gives the new revision.
    pub async fn put_record<R: Record>(
        &self,
        key: &RecordKey,
        body: &R,
        expected: u64,
    ) -> Result<u64, PutError> {
        let outcome = Outcome::none().put(key, body, expected)?;
        let written = self.apply(&outcome).await?;
        Ok(written.first().map_or(0, |written| written.revision))
    }

    /// Any other key.
    pub async fn get<T: DeserializeOwned>(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Option<Stored<T>>, StoreError> {
        check_key(key)?;
        match self.backend.get(bucket, key).await? {
            Some(raw) if !is_marker(&raw.headers) => self.value(bucket, key, raw).await,
            _ => Ok(None),
        }
    }

    /// Writes any other key: by compare-and-set where `expected` is given (0: it must be absent).
    pub async fn put<T: Serialize>(
        &self,
        bucket: &str,
        key: &str,
        body: &T,
        expected: Option<u64>,
    ) -> Result<u64, PutError> {
        let outcome = Outcome::none().put_kv(bucket, key, body, expected)?;
        let written = self.apply(&outcome).await?;
        Ok(written.first().map_or(0, |written| written.revision))
    }

    /// Deletes a key. Deleting what is not there is no error.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        check_key(key)?;
        match self.backend.remove(bucket, key, None).await {
            Ok(_) | Err(PutError::Conflict) => Ok(()),
            Err(PutError::Store(error)) => Err(error),
        }
    }

    /// Deletes a key that has this revision. A conflict means that somebody wrote it since it was
    /// read, or that it is gone.
    pub async fn delete_at(&self, bucket: &str, key: &str, revision: u64) -> Result<(), PutError> {
        check_key(key)?;
        self.backend.remove(bucket, key, Some(revision)).await?;
        Ok(())
    }

    /// Keys that start with `prefix`, in order, with their values. A value that does not decode as
    /// `T` is an error. Reads the whole bucket unless the prefix names an image.
    pub async fn list<T: DeserializeOwned>(
        &self,
        bucket: &str,
        prefix: &str,
    ) -> Result<Vec<(String, Stored<T>)>, StoreError> {
        let found = self.backend.list(bucket, prefix).await?;
        stream::iter(found)
            .map(async |(key, raw)| {
                let stored = self.value(bucket, &key, raw).await?;
                Ok(stored.map(|stored| (key, stored)))
            })
            .buffered(PARALLEL)
            .try_filter_map(async |item| Ok(item))
            .try_collect()
            .await
    }

    /// Stores a value as an object of one tenant, as [`Store::put_object`] does. The same value of
    /// another tenant is another object: deleting one's takes nothing from the other.
    pub async fn put_object_of<T: Serialize>(
        &self,
        tenant: &Slug,
        bucket: &str,
        value: &T,
    ) -> Result<Digest, StoreError> {
        self.put_object_bytes(bucket, Self::packed_of(tenant, value)?)
            .await
    }

    /// The bytes of such an object, for [`Store::put_object_bytes`]: packing much takes long.
    pub fn packed_of<T: Serialize>(tenant: &Slug, value: &T) -> Result<Bytes, EncodeError> {
        Ok(objects::owned(&objects::pack(value)?, tenant.as_str()))
    }

    /// Stores a value as an object, named by the digest of its bytes (zstd of MessagePack). Doing
    /// it again changes nothing.
    pub async fn put_object<T: Serialize>(
        &self,
        bucket: &str,
        value: &T,
    ) -> Result<Digest, StoreError> {
        self.put_object_bytes(bucket, objects::pack(value)?).await
    }

    /// Reads such an object. `None`: it is not there, or not whole any more.
    pub async fn object<T: DeserializeOwned>(
        &self,
        bucket: &str,
        digest: &Digest,
    ) -> Result<Option<T>, StoreError> {
        match self.object_bytes(bucket, digest, OBJECT_BYTES_MAX).await? {
            Some(bytes) => objects::unpack(&bytes, OBJECT_PLAIN_BYTES_MAX)
                .and_then(|plain| plain.decode())
                .map(Some)
                .map_err(|cause| malformed(bucket, &digest.hex(), &cause)),
            None => Ok(None),
        }
    }

    /// Stores bytes as an object.
    pub async fn put_object_bytes(&self, bucket: &str, bytes: Bytes) -> Result<Digest, StoreError> {
        let digest = Digest::of(&bytes);
        let size = bytes.len() as u64;
        if size > OBJECT_BYTES_MAX {
            let what = format!("{bucket}/{digest}");
            return Err(StoreError::TooLarge {
                what,
                size,
                max: OBJECT_BYTES_MAX,
            });
        }
        let reuse = self.reuse_for();
        let reuse = reuse.and_then(|recent| self.now().checked_sub(recent).ok());
        self.backend
            .put_object(bucket, &digest, bytes, reuse)
            .await?;
        Ok(digest)
    }

    /// An object's bytes, at most `max` of them, verified.
    pub async fn object_bytes(
        &self,
        bucket: &str,
        digest: &Digest,
        max: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        match self.backend.object(bucket, digest, max).await? {
            Some(bytes) if Digest::of(&bytes) == *digest => Ok(Some(bytes)),
            Some(_) => Err(StoreError::Corrupt {
                bucket: bucket.to_owned(),
                digest: *digest,
            }),
            None => Ok(None),
        }
    }

    /// Stores bytes under a name that says nothing about them, over what is there. Of two writers
    /// at once each reader gets one's bytes, or a [`StoreError::Corrupt`].
    pub async fn put_named(
        &self,
        bucket: &str,
        name: &Digest,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        let size = bytes.len() as u64;
        if size > OBJECT_BYTES_MAX {
            let what = format!("{bucket}/{name}");
            return Err(StoreError::TooLarge {
                what,
                size,
                max: OBJECT_BYTES_MAX,
            });
        }
        self.backend.put_named(bucket, name, bytes).await
    }

    /// What [`Store::put_named`] stored, at most `max` bytes, verified by the digest that was
    /// stored with them. `None`: it is not there, or not whole any more.
    pub async fn named(
        &self,
        bucket: &str,
        name: &Digest,
        max: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        match self.backend.named(bucket, name, max).await? {
            Some((digest, bytes)) if Digest::of(&bytes) == digest => Ok(Some(bytes)),
            Some(_) => Err(StoreError::Corrupt {
                bucket: bucket.to_owned(),
                digest: *name,
            }),
            None => Ok(None),
        }
    }

    /// How full a bucket of objects is.
    pub async fn usage(&self, bucket: &str) -> Result<Usage, StoreError> {
        self.backend.usage(bucket).await
    }

    /// Whether there is a value for a key, as for a lease's: its value is not read.
    pub async fn exists(&self, bucket: &str, key: &str) -> Result<bool, StoreError> {
        check_key(key)?;
        let found = self.backend.get(bucket, key).await?;
        Ok(found.is_some_and(|raw| !is_marker(&raw.headers)))
    }

    /// Deletes an object. Deleting what is not there is no error; what is stored meanwhile stays.
    pub async fn delete_object(&self, bucket: &str, digest: &Digest) -> Result<(), StoreError> {
        match self.backend.seen(bucket, digest).await? {
            Some(seen) => self.backend.delete_seen(bucket, digest, seen).await,
            None => Ok(()),
        }
    }

    /// Deletes an object that nothing names and that has been there for `after`.
    ///
    /// A writer may store it again at any moment and name it then. One who finds it old stores it
    /// again, later than what is seen here, and that stays. One who finds it young names it long
    /// before it is old enough to be seen here.
    pub(crate) async fn collect(
        &self,
        bucket: &str,
        digest: &Digest,
        after: Duration,
        is_named: impl AsyncFnOnce() -> Result<bool, StoreError>,
    ) -> Result<Collected, StoreError> {
        let Some(seen) = self.backend.seen(bucket, digest).await? else {
            return Ok(Collected::Gone);
        };
        let old = self.now().checked_sub(after);
        if !old.is_ok_and(|old| seen.at <= old) {
            return Ok(Collected::Young);
        }
        if is_named().await? {
            return Ok(Collected::Named);
        }
        self.backend.delete_seen(bucket, digest, seen).await?;
        Ok(Collected::Gone)
    }

    /// For how long who stored an object may name it without storing it again; `None`: for ever.
    pub fn reuse_for(&self) -> Option<Duration> {
        let janitor = self.janitor.as_ref()?;
        Some(janitor.after() / REUSE_PART)
    }

    /// The time before which an object was stored that is older than `age`.
    pub(crate) fn stored_before(&self, age: Duration) -> Result<Timestamp, StoreError> {
        let before = self.now().checked_sub(age);
        before.map_err(|error| StoreError::unavailable("the clock", &error))
    }

    /// Deletes an object that nothing names, unless it was stored after `before`. Gives whether it
    /// went.
    pub(crate) async fn delete_stored_before(
        &self,
        bucket: &str,
        digest: &Digest,
        before: Timestamp,
    ) -> Result<bool, StoreError> {
        let seen = self.backend.seen(bucket, digest).await?;
        let Some(seen) = seen.filter(|seen| seen.at <= before) else {
            return Ok(false);
        };
        self.backend.delete_seen(bucket, digest, seen).await?;
        Ok(true)
    }

    #[cfg(test)]
    pub(crate) async fn seen(
        &self,
        bucket: &str,
        digest: &Digest,
    ) -> Result<Option<backend::Seen>, StoreError> {
        self.backend.seen(bucket, digest).await
    }

    /// Writes the records and keys of an outcome in order, as the bus does for handlers. Events
    /// are not published.
    pub async fn apply(&self, outcome: &Outcome) -> Result<Vec<Written>, PutError> {
        let mut written = Vec::with_capacity(outcome.writes.len());
        for write in &outcome.writes {
            written.push(self.write(write).await?);
        }
        self.discard(&outcome.writes, &outcome.discards);
        Ok(written)
    }

    pub(crate) async fn raw(&self, bucket: &str, key: &str) -> Result<Option<Raw>, StoreError> {
        self.backend.get(bucket, key).await
    }

    /// Resolves a pointer and decodes. `None`: the object is gone, since the record was replaced
    /// long ago.
    pub(crate) async fn value<T: DeserializeOwned>(
        &self,
        bucket: &str,
        key: &str,
        raw: Raw,
    ) -> Result<Option<Stored<T>>, StoreError> {
        let revision = raw.sequence;
        let body = self.body(bucket, key, &raw.headers, raw.body).await?;
        let decoded = |body: Bytes| decode(&body).map_err(|cause| malformed(bucket, key, &cause));
        Ok(body
            .map(decoded)
            .transpose()?
            .map(|body| Stored { revision, body }))
    }

    /// The body that a message has or points to.
    pub(crate) async fn body(
        &self,
        bucket: &str,
        key: &str,
        headers: &Headers,
        inline: Bytes,
    ) -> Result<Option<Bytes>, StoreError> {
        let Some((object_bucket, digest)) = pointer(headers) else {
            return Ok(Some(inline));
        };
        let found: Option<Body> = self.object(&object_bucket, &digest).await?;
        match found {
            Some(found) if found.key == key => Ok(Some(found.body)),
            Some(found) => {
                let cause = format!("its object is the body of `{}`", found.key);
                Err(malformed(bucket, key, &cause))
            }
            None => Ok(None),
        }
    }

    pub(crate) async fn write(&self, write: &Write) -> Result<Written, PutError> {
        check_key(&write.key)?;
        let Write {
            bucket,
            key,
            body,
            expected,
            ..
        } = write;
        let mut headers = Headers::default();
        let (mut inline, mut replaced) = (body.clone(), None);
        if let WriteKind::Record { key: record, kind } = &write.kind {
            let before = expected.unwrap_or_default();
            replaced = self.pointer_of(bucket, key, before).await?;
            headers = self.record_headers(record, kind, before);
            if body.len() > INLINE_BYTES_MAX {
                let whole = Body {
                    key: key.clone(),
                    replaces: before,
                    body: body.clone(),
                };
                let bucket = model::event::REPORT_OBJECTS;
                let digest = self.put_object(bucket, &whole).await?;
                headers.push(BODY_OBJECT, format!("{bucket}/{}", digest.hex()));
                inline = Bytes::new();
            }
        } else {
            headers.trace();
        }
        let size = inline.len() as u64;
        if size > VALUE_BYTES_MAX {
            let what = format!("{bucket}/{key}");
            return Err(StoreError::TooLarge {
                what,
                size,
                max: VALUE_BYTES_MAX,
            }
            .into());
        }
        let made = pointer(&headers);
        let put = self
            .backend
            .put(bucket, key, headers, inline, *expected)
            .await;
        // Nobody names what a write brought that lost, either.
        let nameless = match &put {
            Ok(_) => replaced,
            Err(PutError::Conflict) => made,
            Err(PutError::Store(_)) => None,
        };
        if let Some(janitor) = &self.janitor {
            janitor.replaced(bucket, key, nameless);
        }
        let revision = put?;
        Ok(Written {
            bucket: bucket.clone(),
            key: key.clone(),
            revision,
        })
    }

    /// Hands over the objects that the writes of an outcome leave without a name.
    pub(crate) fn discard(&self, writes: &[Write], discards: &[Discard]) {
        if let Some(janitor) = &self.janitor {
            janitor.discard(writes, discards);
        }
    }

    /// The object that holds the body of the record to be replaced.
    async fn pointer_of(
        &self,
        bucket: &str,
        key: &str,
        revision: u64,
    ) -> Result<Option<(String, Digest)>, PutError> {
        if revision == 0 {
            return Ok(None);
        }
        if let Some(noted) = self.pointers.at(key, revision) {
            return Ok(noted.pointer);
        }
        match self.backend.get(bucket, key).await? {
            Some(raw) if raw.sequence == revision => Ok(pointer(&raw.headers)),
            _ => Err(PutError::Conflict),
        }
    }

    fn record_headers(&self, key: &RecordKey, kind: &str, replaces: u64) -> Headers {
        let mut headers = Headers::default();
        headers.describe(&Attributes {
            // A retry of the same write has the same id.
            id: &format!("{key}:{replaces}"),
            kind,
            source: "/records",
            tenant: Some(&key.tenant),
            time: self.now(),
        });
        headers
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("backend", &self.backend.name())
            .finish_non_exhaustive()
    }
}

/// A key that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// Its revision now.
    pub revision: u64,
}

/// The object that holds a message's body.
pub(crate) fn pointer(headers: &Headers) -> Option<(String, Digest)> {
    let (bucket, hex) = headers.get(BODY_OBJECT)?.split_once('/')?;
    Some((bucket.to_owned(), Digest::from_hex(hex)?))
}

fn malformed(bucket: &str, key: &str, cause: &impl ToString) -> StoreError {
    StoreError::Malformed {
        what: format!("{bucket}/{key}"),
        cause: cause.to_string(),
    }
}

fn check_key(key: &str) -> Result<(), StoreError> {
    if subject::is_key(key) {
        Ok(())
    } else {
        Err(StoreError::Key(key.chars().take(200).collect()))
    }
}
