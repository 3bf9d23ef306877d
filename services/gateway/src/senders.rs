//! Who may send webhooks: the configured sources with their secrets and their share of requests.

use std::sync::{Arc, Mutex, PoisonError};

use chassis::Cx;
use jiff::{SignedDuration, Timestamp};
use model::Digest;
use tracing::error;

use crate::{
    SourceConfig,
    decoders::{self, Decoder, Secrets},
};

/// How long a secret is used before it is read again, so that an exchanged one is seen.
const SECRETS_AGE_MAX: SignedDuration = SignedDuration::from_secs(30);

/// A source that sends webhooks.
pub(crate) struct Sender {
    pub(crate) source: SourceConfig,
    pub(crate) decoder: &'static dyn Decoder,
    secrets: Mutex<Option<(Timestamp, Arc<Secrets>)>>,
    rate: Mutex<Rate>,
}

/// How many requests came in the second that runs.
#[derive(Debug, Default)]
struct Rate {
    second: i64,
    requests: u32,
}

// === impl Sender ===

impl Sender {
    /// `None` for a kind that nobody decodes; [`crate::Config::check`] has refused it before.
    pub(crate) fn new(source: &SourceConfig) -> Option<Self> {
        let decoder = decoders::of_kind(&source.kind)?;
        Some(Self {
            source: source.clone(),
            decoder,
            secrets: Mutex::default(),
            rate: Mutex::default(),
        })
    }

    /// What the sender may prove itself with.
    pub(crate) async fn secrets(&self, cx: &Cx) -> Arc<Secrets> {
        let now = cx.now();
        if let Some((read_at, secrets)) = &*lock(&self.secrets)
            && now.duration_since(*read_at) < SECRETS_AGE_MAX
        {
            return Arc::clone(secrets);
        }
        let source = self.source.clone();
        let secrets = cx.blocking(move || read(&source)).await.unwrap_or_default();
        let secrets = Arc::new(secrets);
        *lock(&self.secrets) = Some((now, Arc::clone(&secrets)));
        secrets
    }

    /// Counts a request; false if it is one too many.
    pub(crate) fn admit(&self, now: Timestamp, per_second_max: u32) -> bool {
        lock(&self.rate).admit(now.as_second(), per_second_max)
    }
}

// === impl Rate ===

impl Rate {
    fn admit(&mut self, second: i64, max: u32) -> bool {
        if second != self.second {
            *self = Self {
                second,
                requests: 0,
            };
        }
        self.requests = self.requests.saturating_add(1);
        self.requests <= max
    }
}

fn read(source: &SourceConfig) -> Secrets {
    let plain = source
        .hook_token
        .as_ref()
        .and_then(|reference| match reference.read() {
            Ok(secret) => Some(secret),
            Err(error) => {
                error!(
                    source = %source.name,
                    "the webhook token of source `{}` cannot be read: {error:#}", source.name
                );
                None
            }
        });
    let sha256 = source
        .hook_token_sha256
        .as_deref()
        .and_then(Digest::from_hex);
    Secrets { plain, sha256 }
}

/// A lock whose holder panicked still guards whole values.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_room_for_so_many_requests() {
        let mut rate = Rate::default();
        let admitted: Vec<_> = [7, 7, 7, 8, 8]
            .into_iter()
            .map(|second| rate.admit(second, 2))
            .collect();
        assert_eq!(admitted, [true, true, false, true, true]);
    }
}
