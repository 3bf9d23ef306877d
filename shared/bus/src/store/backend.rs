//! What a backend does: messages by key with compare-and-set, and objects. No types, no pointers.

use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use model::Digest;

use crate::{
    envelope::Headers,
    error::{PutError, StoreError},
    wire::Raw,
};

/// The seam between the typed face and where the bytes are.
pub(crate) trait Backend: Send + Sync {
    /// For people.
    fn name(&self) -> &'static str;

    /// The last message of a key, also if it is the marker of a deletion.
    fn get<'a>(&'a self, bucket: &'a str, key: &'a str) -> Reply<'a, Option<Raw>>;

    /// Writes a key. `expected` 0 also fits a deleted key.
    fn put<'a>(
        &'a self,
        bucket: &'a str,
        key: &'a str,
        headers: Headers,
        body: Bytes,
        expected: Option<u64>,
    ) -> BoxFuture<'a, Result<u64, PutError>>;

    /// Leaves the marker of a deletion.
    fn remove<'a>(
        &'a self,
        bucket: &'a str,
        key: &'a str,
        expected: Option<u64>,
    ) -> BoxFuture<'a, Result<u64, PutError>>;

    /// Keys that start with `prefix`, sorted, without deleted ones.
    fn list<'a>(&'a self, bucket: &'a str, prefix: &'a str) -> Reply<'a, Vec<(String, Raw)>>;

    /// Stores an object; one that was stored since `reuse` may be left as it is.
    fn put_object<'a>(
        &'a self,
        bucket: &'a str,
        digest: &'a Digest,
        bytes: Bytes,
        reuse: Option<Timestamp>,
    ) -> Reply<'a, ()>;

    /// An object's bytes, not verified yet.
    fn object<'a>(
        &'a self,
        bucket: &'a str,
        digest: &'a Digest,
        max: u64,
    ) -> Reply<'a, Option<Bytes>>;

    /// Stores an object under any name, over what is there.
    fn put_named<'a>(&'a self, bucket: &'a str, name: &'a Digest, bytes: Bytes) -> Reply<'a, ()>;

    /// An object by its name, with the digest that its writer computed, not verified yet.
    fn named<'a>(
        &'a self,
        bucket: &'a str,
        name: &'a Digest,
        max: u64,
    ) -> Reply<'a, Option<(Digest, Bytes)>>;

    /// How full a bucket of objects is.
    fn usage<'a>(&'a self, bucket: &'a str) -> Reply<'a, Usage>;

    /// When and where an object was stored the last time.
    fn seen<'a>(&'a self, bucket: &'a str, digest: &'a Digest) -> Reply<'a, Option<Seen>>;

    /// Deletes an object as it was seen; what was stored later stays.
    fn delete_seen<'a>(&'a self, bucket: &'a str, digest: &'a Digest, seen: Seen) -> Reply<'a, ()>;
}

/// One storing of an object: it tells what was there from what came later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Of its last message.
    pub(crate) sequence: u64,
    pub(crate) chunks: usize,
    /// By the clock of the store.
    pub(crate) at: Timestamp,
}

/// How full a bucket of objects is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that its messages take.
    pub bytes: u64,
    /// How many bytes they may take; `None` where there is no bound.
    pub bytes_max: Option<u64>,
    /// How many messages there are: one per object of up to 256 KiB, more for larger ones.
    pub messages: u64,
}

/// A future answer.
pub(crate) type Reply<'a, T> = BoxFuture<'a, Result<T, StoreError>>;
