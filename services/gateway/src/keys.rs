//! Idempotency keys: the same key is the same request, and with another body it is a mistake.
//!
//! A request's id is computed from its key, so it is the same in every process and after every
//! restart; what was asked for under it is kept here for the last few, and for good in the record
//! that the router writes.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bus::Store;
use model::{Fingerprint, ScanRequestRecord, Slug, event::REFS};
use tokio::time::timeout;
use tracing::debug;

/// Requests kept in memory; the oldest are forgotten first.
const REQUESTS_MAX: usize = 10_000;
/// How long the record of a request may take: an answer must not wait for NATS.
const PATIENCE: Duration = Duration::from_millis(100);

/// What was asked for under which key.
pub(crate) struct Keys {
    store: Store,
    /// Whether NATS is there now.
    is_up: Box<dyn Fn() -> bool + Send + Sync>,
    lately: Mutex<Lately>,
}

#[derive(Default)]
struct Lately {
    contents: HashMap<String, Fingerprint>,
    order: VecDeque<String>,
}

/// What a key was used for before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// For nothing, or for the same and it is not known yet what came of it.
    New,
    /// For the same, and it led to images.
    Answered,
    /// For something else.
    Other,
}

// === impl Keys ===

impl Keys {
    pub(crate) fn new(store: Store, is_up: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            store,
            is_up: Box::new(is_up),
            lately: Mutex::default(),
        }
    }

    /// Notes what is asked for under an id, and says what it was used for before.
    pub(crate) async fn note(
        &self,
        tenant: &Slug,
        id: &str,
        content: &Fingerprint,
        reference: &str,
    ) -> Use {
        let noted = self.lock().note(id, content);
        if !noted {
            return Use::Other;
        }
        let Some(record) = self.record(tenant, id).await else {
            return Use::New;
        };
        let is_same = record
            .content
            .as_ref()
            .map_or(record.reference == reference, |known| known == content);
        if !is_same {
            self.forget(id);
            return Use::Other;
        }
        if record.error.is_none() {
            Use::Answered
        } else {
            Use::New
        }
    }

    /// Forgets a request that was not accepted.
    pub(crate) fn forget(&self, id: &str) {
        let mut lately = self.lock();
        if lately.contents.remove(id).is_some() {
            lately.order.retain(|known| known != id);
        }
    }

    /// What became of a request, as far as that can be found out at once.
    async fn record(&self, tenant: &Slug, id: &str) -> Option<ScanRequestRecord> {
        if !(self.is_up)() {
            return None;
        }
        let key = ScanRequestRecord::key(tenant, id);
        let asked = self.store.get::<ScanRequestRecord>(REFS, &key);
        match timeout(PATIENCE, asked).await {
            Ok(Ok(found)) => found.map(|stored| stored.body),
            Ok(Err(error)) => {
                debug!("what was asked for before is not known just now: {error}");
                None
            }
            Err(_) => None,
        }
    }

    /// A lock whose holder panicked still guards whole values.
    fn lock(&self) -> std::sync::MutexGuard<'_, Lately> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

// === impl Lately ===

impl Lately {
    /// False if something else was asked for under the same id.
    fn note(&mut self, id: &str, content: &Fingerprint) -> bool {
        if let Some(known) = self.contents.get(id) {
            return known == content;
        }
        while self.order.len() >= REQUESTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.contents.remove(&oldest);
        }
        self.contents.insert(id.to_owned(), content.clone());
        self.order.push_back(id.to_owned());
        true
    }
}
