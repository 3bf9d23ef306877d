//! The fleet's place for layers: objects that every worker can read, and that may be gone.
//!
//! A layer with everything that one set of analyzers found is one object, so that looking it up is
//! one round trip whether it is there or not (one object per section: seven). The price: a worker
//! that has nothing on its own disk gains nothing from an object of another set.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use analyzers::{KeptEntries, KeptSection, PreparedLayer};
use bus::{Store, StoreError};
use cache::CacheError;
use chassis::Cx;
use model::{Digest, event::LAYER_OBJECTS};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::{Wanted, health::Health};
use crate::metrics;

/// No object is larger, however much room there is.
const OBJECT_BYTES_MAX: u64 = 256 << 20;

/// Layers as objects.
#[derive(Debug)]
pub(super) struct Shared {
    cx: Cx,
    store: Store,
    bytes_max: u64,
    /// How long one layer may take to come or go.
    deadline: Duration,
    health: Health,
    /// It is left alone until then.
    rest_until: Mutex<Option<Instant>>,
    corrupt: AtomicU64,
}

/// What an object holds. Its place in the key is repeated: a name says nothing about its content.
#[derive(Serialize)]
struct ObjectRef<'a> {
    blob: Digest,
    set: Digest,
    entries: &'a KeptEntries,
    sections: Vec<&'a KeptSection>,
}

#[derive(Deserialize)]
struct Object {
    blob: Digest,
    set: Digest,
    entries: KeptEntries,
    sections: Vec<KeptSection>,
}

/// Why there is no answer.
enum Trouble {
    /// It was away a moment ago.
    Resting,
    Late(Duration),
    Store(StoreError),
    Encoding(CacheError),
    /// This process is stopping.
    Stopping,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(cx: &Cx, store: Store, bytes_max: u64, deadline: Duration) -> Self {
        Self {
            cx: cx.clone(),
            store,
            bytes_max,
            deadline,
            health: Health::new(cx.notes().clone(), "layer cache of the fleet"),
            rest_until: Mutex::default(),
            corrupt: AtomicU64::new(0),
        }
    }

    /// A whole layer; whatever is wrong with the object or the broker, it is a miss.
    pub(super) async fn get(&self, blob: Digest, wanted: &Wanted) -> Option<PreparedLayer> {
        let found = self.read(blob, wanted).await;
        self.answered(blob, found).flatten()
    }

    /// Shares a whole layer, over what is there.
    pub(super) async fn put(&self, wanted: &Wanted, layer: Arc<PreparedLayer>) {
        let blob = layer.blob;
        let written = self.write(wanted, layer).await;
        self.answered(blob, written);
    }

    /// How many objects were found damaged.
    pub(super) fn corrupt(&self) -> u64 {
        self.corrupt.load(Ordering::Relaxed)
    }

    /// Notes how full it is.
    pub(super) async fn check(&self) {
        let usage = timeout(self.deadline, self.store.usage(LAYER_OBJECTS)).await;
        if let Ok(Ok(usage)) = usage {
            metrics::shared(usage.bytes);
            self.health
                .fills(usage.bytes, usage.bytes_max.unwrap_or(u64::MAX));
        }
    }

    async fn read(&self, blob: Digest, wanted: &Wanted) -> Result<Option<PreparedLayer>, Trouble> {
        let name = wanted.name(blob);
        let read = self.store.named(LAYER_OBJECTS, &name, self.object_max());
        let Some(bytes) = self.in_time(read).await? else {
            return Ok(None);
        };
        let what = wanted.clone();
        let decoded = self.cx.blocking(move || decode(&bytes, blob, &what));
        let decoded = decoded.await.map_err(|_| Trouble::Stopping)?;
        decoded.map(Some).map_err(Trouble::Encoding)
    }

    async fn write(&self, wanted: &Wanted, layer: Arc<PreparedLayer>) -> Result<(), Trouble> {
        let (blob, set) = (layer.blob, wanted.set);
        let encoded = self.cx.blocking(move || {
            cache::encode(&ObjectRef {
                blob,
                set,
                entries: &layer.entries,
                sections: layer.sections.iter().map(|section| &**section).collect(),
            })
        });
        let bytes = encoded.await.map_err(|_| Trouble::Stopping)?;
        let bytes = bytes.map_err(Trouble::Encoding)?;
        let size = bytes.len() as u64;
        if size > self.object_max() {
            debug!(layer.digest = %blob, "a layer of {size} bytes is too large to be shared");
            return Ok(());
        }
        let name = wanted.name(blob);
        let written = self.store.put_named(LAYER_OBJECTS, &name, bytes.into());
        self.in_time(written).await
    }

    /// One layer must not drive out most others.
    fn object_max(&self) -> u64 {
        (self.bytes_max / 4).min(OBJECT_BYTES_MAX)
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Trouble> {
        let rest_until = *self
            .rest_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if rest_until.is_some_and(|until| Instant::now() < until) {
            return Err(Trouble::Resting);
        }
        match timeout(self.deadline, work).await {
            Ok(result) => result.map_err(Trouble::Store),
            Err(_) => Err(Trouble::Late(self.deadline)),
        }
    }

    /// Counts and tells what went wrong. What is away is left alone for a while, so that not every
    /// layer of every image waits for it.
    fn answered<T>(&self, blob: Digest, result: Result<T, Trouble>) -> Option<T> {
        let trouble = match result {
            Ok(value) => {
                self.health.works();
                return Some(value);
            }
            Err(trouble) => trouble,
        };
        metrics::shared_trouble(trouble.kind());
        match &trouble {
            Trouble::Resting | Trouble::Stopping => {}
            Trouble::Store(StoreError::Corrupt { .. } | StoreError::Malformed { .. })
            | Trouble::Encoding(CacheError::Damaged(_)) => {
                self.corrupt.fetch_add(1, Ordering::Relaxed);
                let why = trouble.text();
                warn!(layer.digest = %blob, "shared layer {blob} is damaged and read again: {why}");
            }
            Trouble::Store(StoreError::TooLarge { .. }) | Trouble::Encoding(_) => {
                debug!(layer.digest = %blob, "layer {blob} is not shared: {}", trouble.text());
            }
            Trouble::Late(_) | Trouble::Store(_) => {
                let until = Instant::now() + self.deadline;
                *self
                    .rest_until
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(until);
                self.health.fails(&trouble.text());
            }
        }
        None
    }
}

/// The layer in an object, if it is the one that is wanted.
fn decode(bytes: &[u8], blob: Digest, wanted: &Wanted) -> Result<PreparedLayer, CacheError> {
    let object: Object = cache::decode(bytes)?;
    let is_other = object.blob != blob || object.set != wanted.set;
    let sections: Vec<_> = object.sections.into_iter().map(Arc::new).collect();
    if is_other || !wanted.fits(&sections) {
        return Err(CacheError::Damaged("it is another layer's".to_owned()));
    }
    Ok(PreparedLayer::of_kept(blob, object.entries, sections))
}

// === impl Trouble ===

impl Trouble {
    /// As the metric names it.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Late(_) => "late",
            Self::Store(StoreError::Corrupt { .. } | StoreError::Malformed { .. })
            | Self::Encoding(CacheError::Damaged(_)) => "corrupt",
            Self::Store(StoreError::TooLarge { .. }) | Self::Encoding(_) => "too_large",
            Self::Resting | Self::Stopping | Self::Store(_) => "away",
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Resting => "it was away a moment ago".to_owned(),
            Self::Stopping => "this process is stopping".to_owned(),
            Self::Late(deadline) => format!("no answer within {} ms", deadline.as_millis()),
            Self::Store(error) => error.to_string(),
            Self::Encoding(error) => error.to_string(),
        }
    }
}
