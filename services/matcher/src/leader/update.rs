//! Fetching feeds regularly: those that the operator names, or those of the packages that images
//! hold, and the catalogs of exploited vulnerabilities.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use bus::Store;
use chassis::Cx;
use jiff::{SignedDuration, Timestamp};
use model::{DEBIAN_TRACKER, EPSS, KEV, Partition, SweptMark, event::ADVISORIES};

use crate::{
    FeedLimits, Feeds, Fetched, Import, Latest, Update, head::Head, index::Index, metrics, stage,
    upload,
};

/// How often it is looked at least whether a feed is due: images may hold an ecosystem that none
/// did before.
const TICK_MAX: Duration = Duration::from_mins(1);

/// When each feed was tried last.
pub(crate) type Tried = BTreeMap<String, Timestamp>;

/// Keeps feeds up to date.
#[derive(Debug)]
pub(crate) struct Updater {
    pub(crate) store: Store,
    pub(crate) head: Head,
    pub(crate) limits: FeedLimits,
    pub(crate) update: Update,
}

// === impl Updater ===

impl Updater {
    /// Fetches feeds and hands them in until `cx` stops.
    pub(super) async fn run(&self, cx: &Cx) {
        let mut tried = Tried::new();
        let interval = Duration::from_secs(self.update.interval_s.max(1));
        loop {
            if let Err(error) = self.update_due(cx, &mut tried).await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "looking for feeds that are due: {error:#}"
                );
            }
            if !cx.sleep(interval.min(TICK_MAX)).await {
                return;
            }
        }
    }

    /// Fetches the feeds that are due. One that fails does not stop the others, and what is here of
    /// it stays in force.
    pub(crate) async fn update_due(&self, cx: &Cx, tried: &mut Tried) -> anyhow::Result<()> {
        let interval = self.update.interval_s.max(1);
        let interval = SignedDuration::from_secs(i64::try_from(interval).unwrap_or(i64::MAX));
        for feed in self.wanted(cx).await? {
            let now = cx.now();
            let last = tried.get(&feed);
            if cx.is_stopping() || last.is_some_and(|last| now.duration_since(*last) < interval) {
                continue;
            }
            tried.insert(feed.clone(), now);
            if let Err(error) = self.update(cx, &feed).await {
                metrics::imported("unavailable");
                tracing::warn!(
                    error = format!("{error:#}"),
                    feed,
                    "updating `{feed}`: {error:#}"
                );
            }
        }
        Ok(())
    }

    /// The feeds that are to be kept up to date.
    async fn wanted(&self, cx: &Cx) -> anyhow::Result<BTreeSet<String>> {
        let update = &self.update;
        let mut wanted: BTreeSet<String> = update.ecosystems.iter().cloned().collect();
        if wanted.is_empty() {
            // Every owner of a partition says what its images hold when it has swept; what is
            // held here is known before.
            let marks = self.store.list::<SweptMark>(ADVISORIES, "swept.").await?;
            wanted.extend(marks.into_iter().flat_map(|(_, mark)| mark.body.ecosystems));
            let advisories = Arc::clone(self.head.advisories());
            let held = move || -> anyhow::Result<BTreeSet<String>> {
                let index = Index::new(advisories.database()?);
                let mut held = BTreeSet::new();
                for partition in Partition::all() {
                    held.extend(index.ecosystems(partition)?);
                }
                Ok(held)
            };
            wanted.extend(cx.blocking(held).await??);
        }
        let tracker = update.debian_tracker_url.as_ref();
        wanted.extend(tracker.map(|_| DEBIAN_TRACKER.to_owned()));
        wanted.extend(update.kev_url.as_ref().map(|_| KEV.to_owned()));
        wanted.extend(update.epss_url.as_ref().map(|_| EPSS.to_owned()));
        Ok(wanted)
    }

    async fn update(&self, cx: &Cx, feed: &str) -> anyhow::Result<()> {
        let advisories = Arc::clone(self.head.advisories());
        let name = feed.to_owned();
        let latest = cx.blocking(move || advisories.latest(&name)).await??;
        let fetched = self.update.fetch(feed, &latest, &self.limits).await?;
        let import = Import {
            feed: feed.to_owned(),
            mode: fetched.mode,
            fetched_at: cx.now(),
            revision: fetched.revision,
        };
        upload::hand_in(&self.store, &import, fetched.zip).await?;
        Ok(())
    }
}

// === impl Update ===

impl Update {
    /// Fetches what is new of a feed since what is here.
    pub async fn fetch(
        &self,
        feed: &str,
        latest: &Latest,
        limits: &FeedLimits,
    ) -> anyhow::Result<Fetched> {
        if !stage::is_one_file(feed) {
            let feeds = Feeds::new(&self.url, &self.mirrors, limits)?;
            return feeds.fetch(feed, latest).await;
        }
        let url = match feed {
            KEV => &self.kev_url,
            EPSS => &self.epss_url,
            _ => &self.debian_tracker_url,
        };
        let url = url
            .as_deref()
            .with_context(|| format!("no URL is set for `{feed}`"))?;
        Feeds::new(url, &[], limits)?.fetch_file(feed, latest).await
    }
}
