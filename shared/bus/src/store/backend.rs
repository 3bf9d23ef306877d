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

    /// Deletes an object.
    fn delete_object<'a>(&'a self, bucket: &'a str, digest: &'a Digest) -> Reply<'a, ()>;
}

/// A future answer.
pub(crate) type Reply<'a, T> = BoxFuture<'a, Result<T, StoreError>>;
