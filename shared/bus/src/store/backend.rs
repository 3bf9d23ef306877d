//! What a backend does: messages by key with compare-and-set, and objects. No types, no pointers.

use bytes::Bytes;
use futures::future::BoxFuture;
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

    /// Stores an object; does nothing if it is there, unless its life shall begin anew.
    fn put_object<'a>(
        &'a self,
        bucket: &'a str,
        digest: &'a Digest,
        bytes: Bytes,
        renew: bool,
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

    /// Deletes an object.
    fn delete_object<'a>(&'a self, bucket: &'a str, digest: &'a Digest) -> Reply<'a, ()>;
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
