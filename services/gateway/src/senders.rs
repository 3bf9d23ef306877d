//! Who may send webhooks: the configured sources with their secrets and what they sent lately.

use std::sync::{Arc, Mutex, PoisonError};

use chassis::{Cx, SecretRef};
use jiff::{SignedDuration, Timestamp};
use model::Digest;
use tracing::error;

use crate::{
    SourceConfig,
    decoders::{self, Decoder, Secrets},
    seen::Seen,
};

/// How long a secret is used before it is read again, so that an exchanged one is seen.
const SECRETS_AGE_MAX: SignedDuration = SignedDuration::from_secs(30);

/// A source that sends webhooks.
pub(crate) struct Sender {
    pub(crate) source: SourceConfig,
    pub(crate) decoder: &'static dyn Decoder,
    secrets: Mutex<Option<(Timestamp, Arc<Secrets>)>>,
    seen: Mutex<Seen>,
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
            seen: Mutex::default(),
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

    /// Notes a signature for as long as it could be sent again; false if it was.
    pub(crate) fn is_new(&self, signature: Digest, now: Timestamp, age: SignedDuration) -> bool {
        lock(&self.seen).note(signature, now, age)
    }

    /// A request with this signature was not accepted, and may come again.
    pub(crate) fn forget(&self, signature: Digest) {
        lock(&self.seen).forget(signature);
    }
}

fn read(source: &SourceConfig) -> Secrets {
    let read = |reference: &SecretRef| match reference.read() {
        Ok(secret) => Some(secret),
        Err(error) => {
            error!(
                source = %source.name,
                "a webhook secret of source `{}` cannot be read: {error:#}", source.name
            );
            None
        }
    };
    let references = source.hook_token.iter().chain(&source.hook_secrets);
    let plain = references.filter_map(read).collect();
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
