//! The crawler: looks around in each source for what no webhook told of.
//!
//! Webhooks are hints and get lost: so once in `check_interval_s` a pass goes through a source's
//! repositories (its catalog, and those that are configured) and their tags, asks for the digest
//! that each tag names, and compares it with what the router noted. What differs is told as an
//! ordinary event, of low priority and with an id computed from content, and goes the way of every
//! other: the router asks the source again before it believes it.
//!
//! | found | told |
//! |---|---|
//! | a tag that is not known, or names another digest | `image.pushed` |
//! | a tag whose image was never scanned, or by other analyzers | `image.pushed` |
//! | a known tag that is gone | `image.deleted` |
//!
//! Whether the assessments hold for the advisories of today is the matcher's business, which sweeps
//! its partitions at every change.
//!
//! One process at a time goes through a source, under the lease `crawl.<source>`. How far it got is
//! in KV after every repository ([`CrawlRecord`]), so the next process goes on there; when a
//! repository was looked at is there as well ([`CheckRecord`]): the last check of all images that
//! its tags lead to. Requests go out at a set rate. A source that is away is waited for; what
//! cannot be looked at is counted, and said in the record.
//!
//! What it does not do: an image that is named by no tag is not looked for, since no registry lists
//! those. One that was told of by its digest alone is judged and kept right like every other, for
//! advisories and policies reach it without the registry; but that it is gone, or that analyzers
//! are newer, is only found when somebody tells of it or asks for it again.

mod compare;
mod pass;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{Bus, Lease, Store, StoreError};
use chassis::Cx;
use futures::future::BoxFuture;
use jiff::SignedDuration;
use model::{CrawlRecord, Slug, event::REFS};
use oci::OciError;
use tracing::{debug, warn};

use crate::{AnalyzersInForce, Config, SourceConfig, Sources, intake::Accepted, sources::Client};

/// How often a request is sent that the source has no answer for.
const ATTEMPTS: u32 = 8;
/// The first wait between two of them; it doubles. A source that says how long is believed.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(10);
/// How long after a failure of our own a pass goes on.
const AGAIN: Duration = Duration::from_secs(15);
/// How long a pass may take to come to an end when the lease is lost.
const END: Duration = Duration::from_secs(5);

/// Goes through one source.
struct Crawler {
    cx: Cx,
    source: SourceConfig,
    client: Arc<dyn Client>,
    store: Store,
    tell: Arc<dyn Tell>,
    analyzers: AnalyzersInForce,
}

/// Where events go: the bus, or a test.
trait Tell: Send + Sync {
    /// Returns when the event is stored.
    fn tell<'a>(
        &'a self,
        tenant: &'a Slug,
        event: &'a Accepted,
    ) -> BoxFuture<'a, anyhow::Result<()>>;
}

/// Why a pass did not come to its end.
#[derive(Debug)]
enum Interrupted {
    /// The process stops, or the lease is lost.
    Stopped,
    /// Something of ours is away; the pass goes on later.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Interrupted {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<StoreError> for Interrupted {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl Tell for Bus {
    fn tell<'a>(
        &'a self,
        tenant: &'a Slug,
        event: &'a Accepted,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let published = match event {
                Accepted::Pushed(event) => self.publish(tenant, event).await,
                Accepted::Deleted(event) => self.publish(tenant, event).await,
                Accepted::Requested(event) => self.publish(tenant, event).await,
            };
            published.context("publishing what was found")
        })
    }
}

/// Starts a crawler for every source that wants one.
pub(crate) fn start(
    cx: &Cx,
    bus: &Bus,
    config: &Config,
    sources: &Sources,
    analyzers: &AnalyzersInForce,
) {
    let wanted = config.sources.iter().filter(|source| source.crawl.enabled);
    for source in wanted {
        let Some(client) = sources.client(&source.name) else {
            continue;
        };
        let crawler = Crawler {
            cx: cx.clone(),
            source: source.clone(),
            client: Arc::clone(client),
            store: bus.store(),
            tell: Arc::new(bus.clone()),
            analyzers: analyzers.clone(),
        };
        let (bus, cx_here) = (bus.clone(), cx.clone());
        cx.spawn("crawler", async move {
            let settle = Duration::from_secs(u64::from(crawler.source.crawl.start_after_s));
            if cx_here.sleep(settle).await {
                run(&cx_here, &bus, crawler).await;
            }
        });
    }
}

/// Takes the lease again and again, and crawls while it is held.
async fn run(cx: &Cx, bus: &Bus, crawler: Crawler) {
    let name = format!("crawl.{}", crawler.source.name);
    let crawler = Arc::new(crawler);
    while !cx.is_stopping() {
        match bus.lease_wait(cx, &name).await {
            Ok(Some(lease)) => hold(cx, &crawler, lease).await,
            Ok(None) => return,
            Err(error) => {
                warn!("lease `{name}`: {error}");
                cx.sleep(AGAIN).await;
            }
        }
    }
}

async fn hold(cx: &Cx, crawler: &Arc<Crawler>, lease: Lease) {
    let child = cx.child();
    let of_child = crawler.for_part(&child);
    child.spawn("crawl", async move { of_child.passes().await });
    tokio::select! {
        () = lease.lost() => {}
        () = cx.stopped() => {}
    }
    child.stop();
    if !child.finish(END).await {
        debug!("a pass of `{}` does not end", lease.name());
    }
    lease.release().await;
}

// === impl Crawler ===

impl Crawler {
    /// The same, for as long as `cx` goes.
    fn for_part(&self, cx: &Cx) -> Self {
        Self {
            cx: cx.clone(),
            source: self.source.clone(),
            client: Arc::clone(&self.client),
            store: self.store.clone(),
            tell: Arc::clone(&self.tell),
            analyzers: self.analyzers.clone(),
        }
    }

    /// Pass after pass, each at its time.
    async fn passes(&self) {
        let name = &self.source.name;
        while !self.cx.is_stopping() {
            let wait = match self.next_pass().await {
                Ok(wait) => wait,
                Err(Interrupted::Stopped) => return,
                Err(Interrupted::Failed(error)) => {
                    warn!(source = %name, "looking around source `{name}` goes on later: {error:#}");
                    AGAIN
                }
            };
            self.cx.sleep(wait.max(PAUSE)).await;
        }
    }

    /// Makes a pass if it is due. How long until the next one is.
    async fn next_pass(&self) -> Result<Duration, Interrupted> {
        let wait = self.until_due().await?;
        if !wait.is_zero() {
            return Ok(wait);
        }
        self.pass().await?;
        self.until_due().await
    }

    /// How long until a pass has to begin; zero while one is to be gone on with.
    async fn until_due(&self) -> Result<Duration, Interrupted> {
        let key = CrawlRecord::key(&self.source.tenant, &self.source.name);
        let Some(stored) = self.store.get::<CrawlRecord>(REFS, &key).await? else {
            return Ok(Duration::ZERO);
        };
        if stored.body.cursor.is_some() {
            return Ok(Duration::ZERO);
        }
        // A little early, so that no image is later than promised for its place in the pass.
        let interval = i64::from(self.source.crawl.check_interval_s).saturating_mul(9) / 10;
        let interval = SignedDuration::from_secs(interval);
        let passed = self.cx.now().duration_since(stored.body.pass.started_at);
        let wait = interval.saturating_sub(passed);
        Ok(Duration::try_from(wait).unwrap_or_default())
    }

    /// Sends a request at its time, and again while the source is away.
    async fn ask<'a, T>(
        &self,
        request: impl Fn() -> BoxFuture<'a, Result<T, OciError>>,
    ) -> Result<Result<T, OciError>, Interrupted> {
        let pace = Duration::from_secs(1).checked_div(self.source.crawl.requests_per_second);
        let pace = pace.unwrap_or(PAUSE);
        let mut pause = PAUSE;
        for attempt in 1.. {
            if !self.cx.sleep(pace).await {
                return Err(Interrupted::Stopped);
            }
            let error = match request().await {
                Err(error) if error.is_transient() && attempt < ATTEMPTS => error,
                answer => return Ok(answer),
            };
            debug!(source = %self.source.name, "asking again: {error}");
            let wait = error.retry_after().unwrap_or(pause).min(PAUSE_MAX);
            if !self.cx.sleep(wait).await {
                return Err(Interrupted::Stopped);
            }
            pause = pause.saturating_mul(2);
        }
        Err(Interrupted::Stopped)
    }
}
