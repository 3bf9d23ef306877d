//! Sweeps: which images a new revision touches, and assessing them again.
//!
//! A sweep may die between any two steps, and the next one, here or elsewhere, begins where the
//! partition's mark says. That is right because of three things. An image counts as done only after
//! its record is written and its news are told. The mark is written last, when every image is done.
//! And a record that rests on other advisories than the mark, because a sweep wrote it that never
//! came to its mark, or a scan between two revisions, is noted as open while the bucket is followed:
//! it is assessed again whatever changed between mark and revision, since what changed to and fro
//! leaves no trace there.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use anyhow::Context as _;
use bus::{BusError, Failure, PutError, Store};
use chassis::Cx;
use futures::{StreamExt as _, future::BoxFuture};
use model::{
    AdvisoryHead, AdvisoryManifest, Partition, RecordKey, Scanned, Slug, SweptMark,
    event::{ADVISORIES, VulnerabilityChanged},
};
use vulndb::Lookup;

use crate::{
    Advisories,
    handler::{Assessor, Cause, PackagesMissing, TRIES_MAX},
    head::{HEAD, Head},
    index::{Index, Open},
    metrics,
};

/// How often an image is assessed again when others write its record at the same time.
const CONFLICTS_MAX: usize = 5;

/// Of how many CVEs the packages are looked for whose exploitation changed: more, as with the first
/// catalog, cost more than all images do.
const EXPLOITED_MAX: usize = 1_000;

/// Publishes news.
pub(crate) type Publish = Arc<
    dyn Fn(Slug, VulnerabilityChanged) -> BoxFuture<'static, Result<(), BusError>> + Send + Sync,
>;

/// Assesses a partition's images again.
pub(crate) struct Sweeper {
    pub(crate) partition: Partition,
    pub(crate) cx: Cx,
    pub(crate) store: Store,
    pub(crate) head: Head,
    pub(crate) assessor: Assessor,
    pub(crate) publish: Publish,
    pub(crate) images_at_once: usize,
    pub(crate) progress: Arc<Progress>,
    /// How often an image's packages were missing, of those that are.
    pub(crate) missing: Mutex<BTreeMap<RecordKey, u64>>,
}

/// How far sweeps are; who follows the bucket compares records with it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The revision that this owner begins from: the mark as it was before the first scan was
    /// taken here, then what was swept here. Another owner's later mark is not believed: it knows
    /// nothing of the scans that were assessed here.
    swept: AtomicU64,
    /// The revision of the last sweep that began.
    begun: AtomicU64,
    /// Whether the partition was swept with the rules of matching that are in force.
    has_rules: AtomicBool,
}

/// What a sweep is about.
struct Task {
    images: BTreeSet<RecordKey>,
    open: BTreeMap<RecordKey, Open>,
}

// === impl Progress ===

impl Progress {
    pub(crate) fn new(mark: u64, has_rules: bool) -> Self {
        Self {
            swept: AtomicU64::new(mark),
            begun: AtomicU64::new(mark),
            has_rules: AtomicBool::new(has_rules),
        }
    }

    pub(crate) fn swept(&self) -> u64 {
        self.swept.load(SeqCst)
    }

    /// Whether a record must be assessed again that rests on this revision. `is_late`: it was
    /// written while this owner followed; older ones were there for the sweep that the mark is of.
    pub(crate) fn is_open(&self, advisory: u64, is_late: bool) -> bool {
        advisory > self.swept() || (is_late && self.is_behind(advisory))
    }

    /// Whether a revision is older than that of the last sweep that began.
    pub(crate) fn is_behind(&self, advisory: u64) -> bool {
        advisory < self.begun.load(SeqCst)
    }
}

// === impl Sweeper ===

impl Sweeper {
    /// Names the revision to sweep for; `None` without advisories. From here on a record of an
    /// older revision that comes is noted, so whatever is in the bucket after this is either in the
    /// index when it has caught up, or noted when it comes.
    pub(crate) fn begin(&self) -> Option<Arc<AdvisoryManifest>> {
        let to = self.head.advisories().manifest();
        self.progress.begun.store(to.revision, SeqCst);
        (to.revision > 0).then_some(to)
    }

    /// Assesses again what a revision touches and what is open, then writes the partition's mark.
    /// An image that cannot be assessed now does not stop the others; the mark waits for it.
    pub(crate) async fn sweep(&self, to: &Arc<AdvisoryManifest>) -> anyhow::Result<usize> {
        let swept = self.progress.swept();
        let has_rules = self.progress.has_rules.load(SeqCst);
        let cause = if has_rules {
            Cause::Advisories { swept }
        } else {
            Cause::Rules { swept }
        };
        let Task { images, open } = self.task(cause, to).await?;
        let count = images.len();
        let mut sweeping = futures::stream::iter(images)
            .map(async |image| {
                let done = self.again(&image, cause).await;
                (image, done)
            })
            .buffer_unordered(self.images_at_once);
        let mut failed: Option<anyhow::Error> = None;
        let mut failures = 0_usize;
        while let Some((image, done)) = sweeping.next().await {
            anyhow::ensure!(!self.cx.is_stopping(), "the partition was given up");
            match done {
                Ok(()) => {
                    if let Some(open) = open.get(&image) {
                        self.assessor.index.close(&image, *open)?;
                    }
                }
                Err(error) => {
                    failures += 1;
                    failed.get_or_insert(error.context(format!("assessing `{}`", image.image)));
                }
            }
        }
        drop(sweeping);
        metrics::swept(count);
        if let Some(error) = failed {
            return Err(error.context(format!("{failures} of {count} images are left")));
        }
        if swept != to.revision || !has_rules {
            self.mark(to).await?;
            self.progress.swept.store(to.revision, SeqCst);
            self.progress.has_rules.store(true, SeqCst);
        }
        self.close_marked(to.revision)?;
        Ok(count)
    }

    async fn task(&self, cause: Cause, to: &Arc<AdvisoryManifest>) -> anyhow::Result<Task> {
        let from = match cause {
            Cause::Advisories { swept } => match swept.cmp(&to.revision) {
                Ordering::Equal => Some(AdvisoryManifest::clone(to)),
                Ordering::Less => self.head.at(&self.cx, swept, to).await?,
                // The mark is of advisories that are no more.
                Ordering::Greater => None,
            },
            Cause::Rules { .. } | Cause::Scan => None,
        };
        let is_by_rules = matches!(cause, Cause::Rules { .. });
        let (advisories, index) = (
            Arc::clone(self.head.advisories()),
            self.assessor.index.clone(),
        );
        let (partition, to) = (self.partition, Arc::clone(to));
        let find = move || {
            let mut images = if is_by_rules {
                // Also those that a sweep to this revision is done with.
                index.all(partition)?
            } else {
                touched(&advisories, &index, partition, from.as_ref(), &to)?
            };
            let mut open = index.opened(partition)?;
            open.retain(|_, open| open.advisory != to.revision);
            images.extend(open.keys().cloned());
            anyhow::Ok(Task { images, open })
        };
        self.cx.blocking(find).await?
    }

    /// Records that rest on the marked revision need no second look.
    fn close_marked(&self, revision: u64) -> anyhow::Result<()> {
        for (image, open) in self.assessor.index.opened(self.partition)? {
            if open.advisory == revision {
                self.assessor.index.close(&image, open)?;
            }
        }
        Ok(())
    }

    /// Writes the mark: by compare-and-set, and never over one of a newer revision, which another
    /// owner wrote who took over meanwhile. A mark above the revision in force is of advisories
    /// that are no more.
    async fn mark(&self, to: &AdvisoryManifest) -> anyhow::Result<()> {
        let key = format!("swept.{}", self.partition);
        let present = self.store.get::<SweptMark>(ADVISORIES, &key).await?;
        let expected = present.as_ref().map_or(0, |present| present.revision);
        if let Some(present) = present.filter(|present| present.body.revision > to.revision) {
            let head = self.store.get::<AdvisoryHead>(ADVISORIES, HEAD).await?;
            if head.is_some_and(|head| head.body.revision >= present.body.revision) {
                return Ok(());
            }
        }
        anyhow::ensure!(!self.cx.is_stopping(), "the partition was given up");
        let mark = SweptMark {
            revision: to.revision,
            data_at: to.stamp().data_at(),
            ecosystems: self.assessor.index.ecosystems(self.partition)?,
            rules: self.assessor.advisories.rules(),
        };
        let written = self.store.put(ADVISORIES, &key, &mark, Some(expected));
        written.await.context("writing the mark")?;
        Ok(())
    }

    /// Assesses an image again, writes what follows and tells it; then it counts as done.
    async fn again(&self, image: &RecordKey, cause: Cause) -> anyhow::Result<()> {
        for _ in 0..CONFLICTS_MAX {
            let Some(scanned) = self.store.record::<Scanned>(image).await? else {
                self.assessor.index.remove(image)?;
                return Ok(());
            };
            let (scan, scanned) = (scanned.revision, scanned.body);
            let advisory = self.head.advisories().manifest().revision;
            let mut outcome = self.assessor.assess(image, scan, &scanned, cause).await;
            if let Err(Failure::Retry(error)) = &outcome
                && error.is::<PackagesMissing>()
                && self.was_missing(image) >= TRIES_MAX
            {
                let unreadable = self
                    .assessor
                    .unreadable(image, scan, &scanned, cause, error);
                outcome = unreadable.await;
            }
            let outcome = match outcome {
                Ok(outcome) => outcome,
                Err(Failure::Retry(error) | Failure::Reject(error)) => return Err(error),
                Err(Failure::Later(_)) => anyhow::bail!("there is no room for it just now"),
            };
            match self.store.apply(&outcome).await {
                Ok(_) => {}
                Err(PutError::Conflict) => continue,
                Err(error) => return Err(error.into()),
            }
            for (tenant, event) in outcome.events::<VulnerabilityChanged>() {
                (self.publish)(tenant, event).await?;
            }
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            missing.remove(image);
            drop(missing);
            // The revision as it was before: an assessment may rest on a newer one, and is then
            // looked at once more.
            self.assessor.index.swept(image, scan, advisory)?;
            return Ok(());
        }
        anyhow::bail!("others keep writing its record")
    }

    /// Counts how often an image's packages were missing.
    fn was_missing(&self, image: &RecordKey) -> u64 {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let times = missing.entry(image.clone()).or_default();
        *times += 1;
        *times
    }
}

/// The images of a partition that may have another assessment at revision `to` than at `from`:
/// those that hold a package of which the advisories changed, and those that hold any package of
/// an ecosystem that is covered now and was not, or the other way round. Without `from`, because
/// it is too long ago, all. Those that a sweep to `to` is done with are left out.
pub(crate) fn touched(
    advisories: &Advisories,
    index: &Index,
    partition: Partition,
    from: Option<&AdvisoryManifest>,
    to: &AdvisoryManifest,
) -> anyhow::Result<BTreeSet<RecordKey>> {
    let mut images = match from {
        Some(from) => changed(advisories, index, partition, from, to)?,
        None => index.all(partition)?,
    };
    let mut left = BTreeSet::new();
    while let Some(image) = images.pop_first() {
        let is_done = |indexed: crate::index::Indexed| indexed.advisory == to.revision;
        if !index.get(&image)?.is_some_and(is_done) {
            left.insert(image);
        }
    }
    Ok(left)
}

fn changed(
    advisories: &Advisories,
    index: &Index,
    partition: Partition,
    from: &AdvisoryManifest,
    to: &AdvisoryManifest,
) -> anyhow::Result<BTreeSet<RecordKey>> {
    let mut images = BTreeSet::new();
    let mut exploited = BTreeSet::new();
    for key in to.changed_since(from) {
        let (before, after) = (
            advisories.shard_of(from, key)?,
            advisories.shard_of(to, key)?,
        );
        exploited.extend(after.exploited_changed_since(&before));
        exploited.extend(after.predictions_changed_since(&before));
        for name in after.packages_changed_since(&before) {
            let lookup = Lookup {
                ecosystem: key.ecosystem.clone(),
                name,
            };
            images.extend(index.holding(partition, &lookup)?);
        }
    }
    if exploited.len() > EXPLOITED_MAX {
        return Ok(index.all(partition)?);
    }
    for cve in exploited {
        for lookup in advisories.named(&cve)? {
            images.extend(index.holding(partition, &lookup)?);
        }
    }
    for ecosystem in coverage(from).symmetric_difference(&coverage(to)) {
        images.extend(index.holding_any(partition, ecosystem)?);
    }
    Ok(images)
}

fn coverage(manifest: &AdvisoryManifest) -> BTreeSet<&str> {
    manifest
        .feeds
        .iter()
        .flat_map(|feed| &feed.coverage)
        .map(String::as_str)
        .collect()
}

#[cfg(test)]
mod tests;
