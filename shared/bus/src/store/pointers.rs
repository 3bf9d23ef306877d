//! Which objects hold the bodies of records that were read of late: who replaces a record hands its
//! object over, and has mostly just read it.

use std::sync::{Arc, Mutex, PoisonError};

use chassis::Recent;
use model::Digest;

/// Bytes that are kept, about.
const BYTES_MAX: usize = 2 << 20;

/// The object of a record: bucket and digest.
type Pointer = (String, Digest);

/// What a revision of a record points to; by key.
#[derive(Clone)]
pub(super) struct Pointers(Arc<Mutex<Recent<String, Noted>>>);

#[derive(Clone, Debug)]
pub(super) struct Noted {
    revision: u64,
    /// `None`: the record has its body with it.
    pub(super) pointer: Option<Pointer>,
}

// === impl Pointers ===

impl Pointers {
    /// Notes what was read.
    pub(super) fn note(&self, key: &str, revision: u64, pointer: Option<Pointer>) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.put(key.to_owned(), Noted { revision, pointer }, key.len() + 64);
    }

    /// What is known of a revision. A revision is never written twice, so it stays true.
    pub(super) fn at(&self, key: &str, revision: u64) -> Option<Noted> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.get(key).filter(|noted| noted.revision == revision)
    }
}

impl Default for Pointers {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Recent::new(BYTES_MAX))))
    }
}
