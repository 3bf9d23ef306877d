//! When tokens were used last, so that those that nobody uses can be revoked.
//!
//! A use is noted beside the token and not in it: every process may note one, and few may write
//! tokens. It is noted at most every ten minutes, whoever sees it, so it costs a request nothing.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bus::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use model::event::CONFIG;
use serde::{Deserialize, Serialize};
use tracing::debug;

/// What the keys begin with; the digest of the token follows.
const KEYS: &str = "used.";
/// A use so soon after another is not noted.
const EVERY: SignedDuration = SignedDuration::from_mins(10);
/// Tokens whose uses are remembered here; beyond it all are forgotten, and looked up again.
const TOKENS_MAX: usize = 10_000;

/// What this process knows of uses: by token, the last that is noted.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<HashMap<String, Timestamp>>);

/// The value of a key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Used {
    at: Timestamp,
}

// === impl Uses ===

impl Uses {
    /// Whether a use now may have to be noted; then this process does not ask again for a while.
    pub(super) fn is_due(&self, token: &str, now: Timestamp) -> bool {
        let mut known = self.lock();
        if known.get(token).is_some_and(|at| !is_later(now, *at)) {
            return false;
        }
        if known.len() >= TOKENS_MAX && !known.contains_key(token) {
            known.clear();
        }
        known.insert(token.to_owned(), now);
        true
    }

    /// Notes a use, unless another process has noted one of late.
    pub(super) async fn note(&self, store: &Store, token: &str, now: Timestamp) {
        match note(store, token, now).await {
            Ok(noted) => {
                self.lock().insert(token.to_owned(), noted);
            }
            Err(error) => debug!("the use of a token is not noted: {error:#}"),
        }
    }

    /// A lock whose holder panicked still guards whole values.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the use that is noted now.
async fn note(store: &Store, token: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    let key = key(token);
    let noted = store.get::<Used>(CONFIG, &key).await?;
    if let Some(noted) = noted.filter(|noted| !is_later(now, noted.body.at)) {
        return Ok(noted.body.at);
    }
    store.put(CONFIG, &key, &Used { at: now }, None).await?;
    Ok(now)
}

/// The last noted use of every token, by its digest.
pub(super) async fn all(store: &Store) -> Result<BTreeMap<String, Timestamp>, StoreError> {
    let found = store.list::<Used>(CONFIG, KEYS).await?;
    let uses = found.into_iter().filter_map(|(key, used)| {
        let token = key.strip_prefix(KEYS)?.to_owned();
        Some((token, used.body.at))
    });
    Ok(uses.collect())
}

/// Forgets the uses of a token that is gone.
pub(super) async fn forget(store: &Store, token: &str) -> Result<(), StoreError> {
    store.delete(CONFIG, &key(token)).await
}

fn is_later(now: Timestamp, noted: Timestamp) -> bool {
    now.duration_since(noted) >= EVERY
}

fn key(token: &str) -> String {
    format!("{KEYS}{token}")
}
