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
use model::{EPSS, KEV, Partition, SweptMark, event::ADVISORIES};

use crate::{
    FeedLimits, Feeds, Fetched, Import, Latest, Update,
    feeds::{self, Absent},
    head::Head,
    index::Index,
    metrics, upload,
};

/// How often it is looked at least whether a feed is due: images may hold an ecosystem that none
/// did before.
const TICK_MAX: Duration = Duration::from_mins(1);

/// Ecosystems whose packages images hold and that OSV.dev has no export of: their vendors' feeds are
/// all that there is.
const ELSEWHERE: [&str; 2] = ["Amazon Linux", "Oracle Linux"];

/// What was tried before.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// When each feed was tried last.
    pub(crate) at: BTreeMap<String, Timestamp>,
    /// The feeds that the server does not have: that is said once.
    absent: BTreeSet<String>,
}

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
        let mut tried = Tried::default();
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
            let last = tried.at.get(&feed);
            if cx.is_stopping() || last.is_some_and(|last| now.duration_since(*last) < interval) {
                continue;
            }
            tried.at.insert(feed.clone(), now);
            match self.update(cx, &feed).await {
                Ok(is_all) => {
                    tried.absent.remove(&feed);
                    if !is_all {
                        tried.at.remove(&feed);
                    }
                }
                Err(error) => {
                    metrics::imported("unavailable");
                    let is_known = error.is::<Absent>() && !tried.absent.insert(feed.clone());
                    if !is_known {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            feed,
                            "updating `{feed}`: {error:#}"
                        );
                    }
                }
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
        let of_vendors: Vec<String> = feeds::PLACES
            .iter()
            .filter(|place| (place.url)(update).is_some())
            .filter(|place| speaks_of(place.feed, &wanted))
            .map(|place| place.feed.to_owned())
            .collect();
        if update.ecosystems.is_empty() {
            wanted.retain(|ecosystem| !ELSEWHERE.contains(&ecosystem.as_str()));
        }
        wanted.extend(of_vendors);
        wanted.extend(update.kev_url.as_ref().map(|_| KEV.to_owned()));
        wanted.extend(update.epss_url.as_ref().map(|_| EPSS.to_owned()));
        Ok(wanted)
    }

    /// Fetches what is new of a feed and hands it in; false where there is more.
    async fn update(&self, cx: &Cx, feed: &str) -> anyhow::Result<bool> {
        let advisories = Arc::clone(self.head.advisories());
        let name = feed.to_owned();
        let latest = cx.blocking(move || advisories.latest(&name)).await??;
        let fetched = self.update.fetch(feed, &latest, &self.limits).await?;
        let import = Import {
            feed: feed.to_owned(),
            mode: fetched.mode,
            fetched_at: fetched.as_of.unwrap_or_else(|| cx.now()),
            revision: fetched.revision,
        };
        upload::hand_in(&self.store, &import, fetched.zip).await?;
        Ok(fetched.as_of.is_none())
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
        let place = feeds::place(feed);
        let url = match (feed, place) {
            (_, Some(place)) => (place.url)(self),
            (KEV, _) => self.kev_url.as_deref(),
            (EPSS, _) => self.epss_url.as_deref(),
            _ => {
                let feeds = Feeds::new(&self.url, &self.mirrors, limits)?;
                return feeds.fetch(feed, latest).await;
            }
        };
        let url = url.with_context(|| format!("no URL is set for `{feed}`"))?;
        let feeds = Feeds::new(url, &[], limits)?;
        match place {
            Some(place) => place.fetch(&feeds, latest).await,
            None => feeds.fetch_file(feed, latest).await,
        }
    }
}

/// Whether a vendor's feed is about some of these ecosystems, or is named itself.
fn speaks_of(feed: &str, wanted: &BTreeSet<String>) -> bool {
    let own = vulndb::vendor(feed).map(vulndb::Vendor::ecosystems);
    let mut own = own.unwrap_or_default().iter();
    wanted.contains(feed) || own.any(|ecosystem| wanted.contains(*ecosystem))
}
