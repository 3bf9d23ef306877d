//! Serving a partition: its scans, its index, and its sweeps.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{Bus, Change, Consume, Failure, PutError, Store, topology};
use chassis::Cx;
use futures::StreamExt as _;
use model::{
    AdvisoryManifest, Partition, RecordKey, Scanned, ScannedPackages, SweptMark, What,
    event::{ADVISORIES, REPORT_OBJECTS, VulnerabilityChanged, images_bucket},
};
use tokio::sync::watch;

use crate::{
    Config,
    handler::{self, Assessor, Cause},
    head::Head,
    index::{Index, Indexed},
    metrics, sweep,
};

const RETRY: Duration = Duration::from_secs(5);
/// How often an image is assessed again when others write its record at the same time.
const CONFLICTS_MAX: usize = 5;

/// Serves partitions.
pub(crate) struct Partitions {
    bus: Bus,
    head: Head,
    images_at_once: usize,
}

/// One partition while it is owned.
struct Owned {
    partition: Partition,
    cx: Cx,
    bus: Bus,
    store: Store,
    head: Head,
    index: Index,
    assessor: Assessor,
    images_at_once: usize,
}

// === impl Partitions ===

impl Partitions {
    pub(crate) fn new(bus: Bus, head: Head, config: &Config) -> Self {
        Self {
            bus,
            head,
            images_at_once: config.images_at_once.max(1),
        }
    }

    /// Serves a partition until `cx` stops. Fresh images are assessed from the start; sweeps wait
    /// for the index.
    pub(crate) async fn serve(&self, partition: Partition, cx: &Cx) {
        let Ok(database) = self.head.advisories().database() else {
            return;
        };
        let index = Index::new(database);
        let store = self.bus.store();
        let assessor = Assessor {
            cx: cx.clone(),
            store: store.clone(),
            advisories: Arc::clone(self.head.advisories()),
            index: index.clone(),
        };
        let owned = Arc::new(Owned {
            partition,
            cx: cx.clone(),
            bus: self.bus.clone(),
            store,
            head: self.head.clone(),
            index,
            assessor: assessor.clone(),
            images_at_once: self.images_at_once,
        });
        if !owned.take_over().await {
            return;
        }
        let stream = topology::bucket_stream(&images_bucket(partition));
        let durable = format!("matcher_{partition}");
        let consume = Consume::new(&self.bus, &stream, &durable, self.images_at_once);
        self.bus.consume(cx, consume, Arc::new(assessor));
        let (ready, is_ready) = watch::channel(false);
        let indexing = Arc::clone(&owned);
        cx.spawn("index", async move {
            indexing.keep_index(&ready).await;
        });
        cx.spawn("sweep", async move {
            owned.keep_swept(is_ready).await;
        });
    }
}

// === impl Owned ===

impl Owned {
    /// What comes first, whoever had the partition before. It may still be at work somewhere, cut
    /// off: the mark is written anew, so that it cannot move it any more. And its advisories may
    /// have been newer than ours; the mark then promises for every image what an assessment with
    /// ours would not hold: so ours become those in force. False: the partition is gone.
    async fn take_over(&self) -> bool {
        loop {
            // In this order: what the mark says now is in force, so the head cannot be behind it.
            let taken = match self.renew_mark().await {
                Ok(()) => self.head.sync(&self.cx).await,
                Err(error) => Err(error),
            };
            let Err(error) = taken else {
                return !self.cx.is_stopping();
            };
            self.complain("taking over", &error);
            if !self.cx.sleep(RETRY).await {
                return false;
            }
        }
    }

    async fn renew_mark(&self) -> anyhow::Result<()> {
        for _ in 0..CONFLICTS_MAX {
            let (revision, mark) = self.mark().await?;
            let key = mark_key(self.partition);
            match self
                .store
                .put(ADVISORIES, &key, &mark, Some(revision))
                .await
            {
                Ok(_) => return Ok(()),
                Err(PutError::Conflict) => {}
                Err(PutError::Store(error)) => return Err(error.into()),
            }
        }
        anyhow::bail!("another keeps moving the mark")
    }

    /// The partition's mark with its revision in KV.
    async fn mark(&self) -> anyhow::Result<(u64, SweptMark)> {
        let key = mark_key(self.partition);
        let stored = self.store.get::<SweptMark>(ADVISORIES, &key).await?;
        Ok(stored.map_or_else(Default::default, |stored| (stored.revision, stored.body)))
    }

    /// Brings the index up to the bucket's last sequence at the start, then goes on following.
    async fn keep_index(&self, ready: &watch::Sender<bool>) {
        let bucket = images_bucket(self.partition);
        let (last, cursor) = loop {
            let last = self
                .bus
                .last_sequence(&bucket)
                .await
                .context("reading the last sequence");
            let cursor = self
                .index
                .cursor(self.partition)
                .context("reading the cursor");
            match last.and_then(|last| Ok((last, cursor?))) {
                Ok(found) => break found,
                Err(error) => self.complain("indexing", &error),
            }
            if !self.cx.sleep(RETRY).await {
                return;
            }
        };
        // A bucket that was made anew starts again; so does its index.
        let cursor = match self.index.clear_if(cursor > last, self.partition) {
            Ok(true) => 0,
            Ok(false) => cursor,
            Err(error) => return self.complain("clearing the index of", &error.into()),
        };
        ready.send_replace(cursor >= last);
        let mut changes = self.bus.follow(&self.cx, &bucket, cursor.saturating_add(1));
        while let Some(change) = changes.next().await {
            while let Err(error) = self.index_change(&change).await {
                self.complain("indexing", &error);
                if !self.cx.sleep(RETRY).await {
                    return;
                }
            }
            if change.sequence >= last {
                ready.send_if_modified(|ready| !std::mem::replace(ready, true));
            }
        }
    }

    async fn index_change(&self, change: &Change) -> anyhow::Result<()> {
        let key = change
            .key
            .parse::<RecordKey>()
            .ok()
            .filter(|key| key.what == What::Scanned);
        if let Some(key) = key {
            if change.body.is_none() {
                self.index.remove(&key)?;
            } else if self
                .index
                .get(&key)?
                .is_none_or(|known| known.scan < change.sequence)
            {
                self.index_scan(&key, change).await?;
            }
        }
        self.index.set_cursor(self.partition, change.sequence)?;
        Ok(())
    }

    async fn index_scan(&self, key: &RecordKey, change: &Change) -> anyhow::Result<()> {
        let Some(scanned) = change.decode::<Scanned>().await? else {
            return Ok(());
        };
        let packages: Option<ScannedPackages> =
            self.store.object(REPORT_OBJECTS, &scanned.packages).await?;
        // Gone means replaced: the newer scan follows.
        let Some(packages) = packages else {
            return Ok(());
        };
        let entry = Indexed {
            scan: change.sequence,
            advisory: 0,
            lookups: handler::lookups(&packages),
        };
        self.index.put(key, entry)?;
        Ok(())
    }

    /// Sweeps after every new revision, and once at the start where the mark is behind.
    async fn keep_swept(&self, mut is_ready: watch::Receiver<bool>) {
        let mut revision = self.head.watch();
        tokio::select! {
            () = self.cx.stopped() => return,
            ready = is_ready.wait_for(|ready| *ready) => if ready.is_err() { return },
        }
        drop(is_ready);
        loop {
            revision.mark_unchanged();
            while let Err(error) = self.sweep().await {
                self.complain("sweeping", &error);
                if !self.cx.sleep(RETRY).await {
                    return;
                }
            }
            tokio::select! {
                () = self.cx.stopped() => return,
                changed = revision.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Assesses again what the revision in force touches, then writes the partition's mark.
    async fn sweep(&self) -> anyhow::Result<()> {
        let to = self.head.advisories().manifest();
        let (expected, mark) = self.mark().await?;
        let swept = mark.revision;
        if to.revision == 0 || swept == to.revision {
            return Ok(());
        }
        let images = self.touched(swept, &to).await?;
        let count = images.len();
        let mut sweeping = futures::stream::iter(images)
            .map(|image| self.again(image, swept))
            .buffer_unordered(self.images_at_once);
        while let Some(swept) = sweeping.next().await {
            swept?;
            anyhow::ensure!(!self.cx.is_stopping(), "the partition was given up");
        }
        metrics::swept(count);
        let mark = SweptMark {
            revision: to.revision,
            data_at: to.stamp().data_at(),
        };
        let key = mark_key(self.partition);
        let put = self.store.put(ADVISORIES, &key, &mark, Some(expected));
        put.await.context("moving the mark")?;
        if count > 0 {
            tracing::info!(
                partition = %self.partition,
                advisory.revision = to.revision,
                images = count,
                "partition {} swept for revision {}: {count} images assessed again",
                self.partition,
                to.revision
            );
        }
        Ok(())
    }

    async fn touched(
        &self,
        swept: u64,
        to: &Arc<AdvisoryManifest>,
    ) -> anyhow::Result<Vec<RecordKey>> {
        let (advisories, index) = (Arc::clone(self.head.advisories()), self.index.clone());
        let (partition, to) = (self.partition, Arc::clone(to));
        let find = move || {
            // Without a mark nothing was swept; one above our revision is of advisories that are
            // no more.
            let from = Some(swept).filter(|from| (1..to.revision).contains(from));
            let from = from
                .map(|from| advisories.at_revision(from))
                .transpose()?
                .flatten();
            sweep::touched(&advisories, &index, partition, from.as_ref(), &to)
        };
        Ok(self.cx.blocking(find).await??.into_iter().collect())
    }

    /// Assesses an image again.
    async fn again(&self, image: RecordKey, swept: u64) -> anyhow::Result<()> {
        for _ in 0..CONFLICTS_MAX {
            let Some(scanned) = self.store.record::<Scanned>(&image).await? else {
                self.index.remove(&image)?;
                return Ok(());
            };
            let outcome = self
                .assessor
                .assess(
                    &image,
                    scanned.revision,
                    &scanned.body,
                    Cause::Advisories { swept },
                )
                .await;
            let outcome = match outcome {
                Ok(outcome) => outcome,
                Err(Failure::Retry(error) | Failure::Reject(error)) => {
                    return Err(error.context(format!("assessing `{}`", image.image)));
                }
            };
            match self.store.apply(&outcome).await {
                Ok(_) => {}
                Err(PutError::Conflict) => continue,
                Err(error) => return Err(error.into()),
            }
            for (tenant, event) in outcome.events::<VulnerabilityChanged>() {
                self.bus.publish(&tenant, &event).await?;
            }
            return Ok(());
        }
        anyhow::bail!("others keep writing the record of `{}`", image.image)
    }

    fn complain(&self, what: &str, error: &anyhow::Error) {
        let partition = self.partition;
        tracing::warn!(%partition, error = format!("{error:#}"), "{what} partition {partition}: {error:#}");
    }
}

/// KV `tw_advisories`: the revision that everything in a partition holds for.
fn mark_key(partition: Partition) -> String {
    format!("swept.{partition}")
}

#[cfg(test)]
mod tests;
