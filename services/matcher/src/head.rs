//! Following `head`: fetch the manifest in force and the shards that are not here.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

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
    /// One at a time changes the local copy.
    changing: Arc<Mutex<()>>,
    /// The object of the manifest that was installed last by this process.
    installed: Arc<std::sync::Mutex<Option<Digest>>>,
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
            installed: Arc::default(),
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
        Ok(self.sync_head(cx).await?.0)
    }

    /// [`Head::sync`], with what `head` says.
    pub(crate) async fn sync_head(&self, cx: &Cx) -> anyhow::Result<(u64, Option<AdvisoryHead>)> {
        let _changing = self.changing.lock().await;
        let Some(head) = self.store.get::<AdvisoryHead>(ADVISORIES, HEAD).await? else {
            self.install(cx, AdvisoryManifest::default()).await?;
            return Ok((0, None));
        };
        let digest = head.body.manifest;
        let here = self.advisories.manifest();
        if here.revision == head.body.revision && self.is_installed(&digest) {
            return Ok((head.revision, Some(head.body)));
        }
        let manifest: Option<AdvisoryManifest> = self.store.object(FEED_OBJECTS, &digest).await?;
        let manifest = manifest.with_context(|| format!("manifest `{digest}` is missing"))?;
        self.fetch(cx, &manifest, None).await?;
        self.install(cx, manifest).await?;
        *self
            .installed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(digest);
        Ok((head.revision, Some(head.body)))
    }

    /// [`Head::sync`] until it works. False: `cx` stopped first.
    pub(crate) async fn sync_at_last(&self, cx: &Cx) -> bool {
        while let Err(error) = self.sync(cx).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "following advisories: {error:#}"
            );
            if !cx.sleep(RETRY).await {
                return false;
            }
        }
        true
    }

    /// An older revision, with the shards that differ from those of `to`: kept here, or as `head`
    /// still names it. `None` where it is too long ago.
    pub(crate) async fn at(
        &self,
        cx: &Cx,
        revision: u64,
        to: &AdvisoryManifest,
    ) -> anyhow::Result<Option<AdvisoryManifest>> {
        let _changing = self.changing.lock().await;
        let advisories = Arc::clone(&self.advisories);
        let here = cx.blocking(move || advisories.at_revision(revision));
        if let Some(manifest) = here.await?? {
            return Ok(Some(manifest));
        }
        let head = self.store.get::<AdvisoryHead>(ADVISORIES, HEAD).await?;
        let past = head.into_iter().flat_map(|head| head.body.past);
        let Some(digest) = past
            .filter(|past| past.revision == revision)
            .map(|past| past.manifest)
            .next()
        else {
            return Ok(None);
        };
        let manifest: Option<AdvisoryManifest> = self.store.object(FEED_OBJECTS, &digest).await?;
        let Some(manifest) = manifest else {
            return Ok(None);
        };
        // The leader may be deleting it: then it is too long ago.
        if let Err(error) = self.fetch(cx, &manifest, Some(to)).await {
            tracing::debug!("revision {revision} is not whole any more: {error:#}");
            return Ok(None);
        }
        let (advisories, kept) = (Arc::clone(&self.advisories), manifest.clone());
        cx.blocking(move || advisories.remember(&kept)).await??;
        Ok(Some(manifest))
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
            if !self.sync_at_last(cx).await {
                return;
            }
        }
    }

    /// Fetches the shards of a manifest that are not here, or those of them that differ from the
    /// shards of another one. Each goes into the database as it comes: memory holds a few at a
    /// time, and what is there when the process dies is not fetched again.
    async fn fetch(
        &self,
        cx: &Cx,
        manifest: &AdvisoryManifest,
        other_than: Option<&AdvisoryManifest>,
    ) -> anyhow::Result<()> {
        let none = AdvisoryManifest::default();
        let wanted = manifest
            .changed_since(other_than.unwrap_or(&none))
            .into_iter()
            .filter_map(|key| manifest.shards.get(key).copied())
            .collect();
        let advisories = Arc::clone(&self.advisories);
        let missing = cx.blocking(move || advisories.missing(wanted)).await??;
        let mut fetching = stream::iter(missing)
            .map(|digest| self.shard(digest))
            .buffer_unordered(FETCHES);
        while let Some((digest, bytes)) = fetching.try_next().await? {
            let advisories = Arc::clone(&self.advisories);
            cx.blocking(move || advisories.keep(&digest, &bytes))
                .await??;
        }
        Ok(())
    }

    fn is_installed(&self, manifest: &Digest) -> bool {
        let installed = self
            .installed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *installed == Some(*manifest)
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

    async fn install(&self, cx: &Cx, manifest: AdvisoryManifest) -> anyhow::Result<()> {
        let revision = manifest.revision;
        if *self.advisories.manifest() != manifest {
            let advisories = Arc::clone(&self.advisories);
            cx.blocking(move || advisories.install(&manifest, &BTreeMap::new()))
                .await??;
            tracing::info!(
                advisory.revision = revision,
                "advisories are at revision {revision}"
            );
        }
        metrics::revision(revision);
        self.revision
            .send_if_modified(|known| std::mem::replace(known, revision) != revision);
        Ok(())
    }
}
