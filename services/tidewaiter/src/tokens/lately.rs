//! Tokens that were seen lately: what a process knows of them while NATS is away.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use model::TokenRecord;

/// How long a token is believed after it was looked up last. A revocation cannot reach a process
/// that has lost NATS, so this is how long it may go unnoticed there.
const AGE_MAX: SignedDuration = SignedDuration::from_mins(15);
/// Tokens kept; beyond it those that were looked up longest ago go.
const TOKENS_MAX: usize = 10_000;

/// By the hex digits of a token's sha256.
#[derive(Debug, Default)]
pub(super) struct Lately(Mutex<HashMap<String, Seen>>);

#[derive(Debug)]
struct Seen {
    record: TokenRecord,
    at: Timestamp,
}

// === impl Lately ===

impl Lately {
    /// What is known of a token from before.
    pub(super) fn get(&self, token: &str, now: Timestamp) -> Option<TokenRecord> {
        let tokens = self.lock();
        let seen = tokens.get(token)?;
        (now.duration_since(seen.at) <= AGE_MAX).then(|| seen.record.clone())
    }

    /// Notes what a look-up found; `None` where there is no such token.
    pub(super) fn note(&self, token: &str, record: Option<&TokenRecord>, now: Timestamp) {
        let mut tokens = self.lock();
        let Some(record) = record.cloned() else {
            tokens.remove(token);
            return;
        };
        if tokens.len() >= TOKENS_MAX && !tokens.contains_key(token) {
            let oldest = tokens.iter().min_by_key(|(_, seen)| seen.at);
            let oldest = oldest.map(|(token, _)| token.clone());
            oldest.map(|token| tokens.remove(&token));
        }
        tokens.insert(token.to_owned(), Seen { record, at: now });
    }

    /// Notes all tokens that there are. Others are forgotten.
    pub(super) fn note_all(
        &self,
        all: impl IntoIterator<Item = (String, TokenRecord)>,
        now: Timestamp,
    ) {
        let all = all.into_iter().take(TOKENS_MAX);
        *self.lock() = all
            .map(|(token, record)| (token, Seen { record, at: now }))
            .collect();
    }

    /// A lock whose holder panicked still guards whole values.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
