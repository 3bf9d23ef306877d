//! Following `head`: fetch the manifest in force and the shards that are not here.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{Bus, Store};
use bytes::Bytes;
use chassis::Cx;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::{
    AdvisoryHead, AdvisoryManifest, Digest,
    event::{ADVISORIES, FEED_OBJECTS},
};
use tokio::sync::{Mutex, watch};

use crate::{Advisories, metrics};

/// KV `tw_advisories`: the revision in force.
pub(crate) const HEAD: &str = "head";
/// The largest shard.
pub(crate) const SHARD_BYTES_MAX: u64 = 256 << 20;

/// How many shards are fetched at once.
const FETCHES: usize = 16;
/// `head` is read again at least so often: a wake-up can be lost.
const RECHECK: Duration = Duration::from_mins(1);
const RETRY: Duration = Duration::from_secs(5);

/// The revision in force and the local copy of it; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    store: Store,
    advisories: Arc<Advisories>,
    revision: Arc<watch::Sender<u64>>,
    /// One at a time changes the local copy; and which KV revision of `head` it is a copy of.
    changing: Arc<Mutex<Option<u64>>>,
}

// === impl Head ===

impl Head {
    pub(crate) fn new(store: Store, advisories: Arc<Advisories>) -> Self {
        let revision = Arc::new(watch::Sender::new(advisories.manifest().revision));
        Self {
            store,
            advisories,
            revision,
            changing: Arc::default(),
        }
    }

    pub(crate) fn advisories(&self) -> &Arc<Advisories> {
        &self.advisories
    }

    /// The revision here, with every change of it.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Reads `head` and makes the local copy what it says. Gives the KV revision of `head`.
    pub(crate) async fn sync(&self, cx: &Cx) -> anyhow::Result<u64> {
        let mut copied = self.changing.lock().await;
        let Some(head) = self.store.get::<AdvisoryHead>(ADVISORIES, HEAD).await? else {
            self.install(cx, AdvisoryManifest::default(), BTreeMap::new())
                .await?;
            *copied = None;
            return Ok(0);
        };
        if *copied == Some(head.revision) {
            return Ok(head.revision);
        }
        let digest = head.body.manifest;
        let manifest: Option<AdvisoryManifest> = self.store.object(FEED_OBJECTS, &digest).await?;
        let manifest = manifest.with_context(|| format!("manifest `{digest}` is missing"))?;
        let (advisories, wanted) = (Arc::clone(&self.advisories), manifest.clone());
        let missing = cx.blocking(move || advisories.missing(&wanted)).await??;
        let fetched: BTreeMap<Digest, Bytes> = stream::iter(missing)
            .map(|digest| self.shard(digest))
            .buffer_unordered(FETCHES)
            .try_collect()
            .await?;
        self.install(cx, manifest, fetched).await?;
        *copied = Some(head.revision);
        Ok(head.revision)
    }

    /// Follows `head` until `cx` stops.
    pub(crate) async fn follow(&self, cx: &Cx, bus: &Bus) {
        let mut changes = bus.follow(cx, ADVISORIES, 0);
        while !cx.is_stopping() {
            tokio::select! {
                () = cx.stopped() => return,
                change = changes.next() => match change {
                    Some(change) if change.key != HEAD => continue,
                    Some(_) => {}
                    None => return,
                },
                () = tokio::time::sleep(RECHECK) => {}
            }
            while let Err(error) = self.sync(cx).await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "following advisories: {error:#}"
                );
                if !cx.sleep(RETRY).await {
                    return;
                }
            }
        }
    }

    async fn shard(&self, digest: Digest) -> anyhow::Result<(Digest, Bytes)> {
        let bytes = self
            .store
            .object_bytes(FEED_OBJECTS, &digest, SHARD_BYTES_MAX)
            .await?;
        Ok((
            digest,
            bytes.with_context(|| format!("shard `{digest}` is missing"))?,
        ))
    }

    async fn install(
        &self,
        cx: &Cx,
        manifest: AdvisoryManifest,
        shards: BTreeMap<Digest, Bytes>,
    ) -> anyhow::Result<()> {
        let revision = manifest.revision;
        if *self.advisories.manifest() != manifest {
            let advisories = Arc::clone(&self.advisories);
            let fetched = shards.len();
            cx.blocking(move || advisories.install(&manifest, &shards))
                .await??;
            tracing::info!(
                advisory.revision = revision,
                shards = fetched,
                "advisories are at revision {revision}; {fetched} shards were new here"
            );
        }
        metrics::revision(revision);
        self.revision
            .send_if_modified(|known| std::mem::replace(known, revision) != revision);
        Ok(())
    }
}
