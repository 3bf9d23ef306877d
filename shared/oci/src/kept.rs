//! Manifests that somebody read already, for another process to go on from.
//!
//! Configs are not among them: their environment may hold secrets, which belong in no message.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use futures::future::BoxFuture;
use model::Digest;

use crate::{
    Limits, OciError,
    resolve::{Documents, Fetched},
    source::Descriptor,
};

/// A manifest that is larger is not kept: it is read again by who needs it.
const MANIFEST_BYTES_MAX: usize = 64 << 10;

/// Manifests, each under the digest that its bytes have.
#[derive(Clone, Default)]
pub struct Kept(HashMap<Digest, Vec<u8>>);

/// Reads documents, and keeps a copy of each manifest.
pub(crate) struct Keeping<'a> {
    from: &'a dyn Documents,
    kept: Mutex<Kept>,
}

// === impl Kept ===

impl Kept {
    /// Manifests that came from anywhere: what each is called follows from its bytes.
    pub fn of(manifests: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let manifests = manifests.into_iter();
        Self(manifests.map(|bytes| (Digest::of(&bytes), bytes)).collect())
    }

    /// The bytes of a manifest.
    pub fn get(&self, digest: &Digest) -> Option<&[u8]> {
        self.0.get(digest).map(Vec::as_slice)
    }

    /// The same, as its source would give it.
    pub(crate) fn fetched(&self, digest: Digest) -> Option<Fetched> {
        self.get(&digest).map(|bytes| Fetched {
            bytes: bytes.to_vec(),
            digest,
            content_type: None,
        })
    }

    fn keep(&mut self, digest: Digest, bytes: &[u8]) {
        if bytes.len() <= MANIFEST_BYTES_MAX {
            self.0.insert(digest, bytes.to_vec());
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

// === impl Keeping ===

impl<'a> Keeping<'a> {
    /// Reads from `from`; `root` was read already.
    pub(crate) fn new(from: &'a dyn Documents, root: &Fetched) -> Self {
        let mut kept = Kept::default();
        kept.keep(root.digest, &root.bytes);
        Self {
            from,
            kept: Mutex::new(kept),
        }
    }

    /// What was read.
    pub(crate) fn kept(self) -> Kept {
        self.kept
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Documents for Keeping<'_> {
    fn manifest<'a>(
        &'a self,
        repository: &'a str,
        digest: Digest,
    ) -> BoxFuture<'a, Result<Fetched, OciError>> {
        Box::pin(async move {
            let fetched = self.from.manifest(repository, digest).await?;
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.keep(fetched.digest, &fetched.bytes);
            drop(kept);
            Ok(fetched)
        })
    }

    fn config<'a>(
        &'a self,
        repository: &'a str,
        config: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<u8>, OciError>> {
        self.from.config(repository, config)
    }

    fn limits(&self) -> &Limits {
        self.from.limits()
    }
}
