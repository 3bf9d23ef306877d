//! The feed leader: takes what was handed in, makes revisions of it, and moves `head`.
//!
//! It can die at any line. What it stores is named by content; `head` moves by compare-and-set
//! after everything that it leads to is stored; and what was handed in is deleted last. Taken up a
//! second time it changes nothing, so no revision follows.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{Bus, PutError, Store};
use bytes::Bytes;
use chassis::Cx;
use futures::StreamExt as _;
use model::{
    AdvisoryHead, AdvisoryInbox,
    event::{ADVISORIES, FEED_OBJECTS},
};

use crate::{
    Config, FeedLimits, Feeds, Import, Mode, Source, Update,
    head::{HEAD, Head},
    metrics,
    stage::{self, Staged},
    upload,
};

/// KV `tw_advisories`: what was handed in.
pub(crate) const INBOX: &str = "inbox.";
const RECHECK: Duration = Duration::from_mins(1);
const RETRY: Duration = Duration::from_secs(5);
/// How often moving `head` is tried when somebody else moves it too.
const MOVES_MAX: usize = 5;

/// Leads the feeds while it holds the lease.
pub(crate) struct Leader {
    bus: Bus,
    store: Store,
    head: Head,
    limits: FeedLimits,
    update: Option<Update>,
}

// === impl Leader ===

impl Leader {
    pub(crate) fn new(bus: Bus, head: Head, config: &Config) -> Self {
        let (limits, update) = (config.limits.clone(), config.update.clone());
        Self {
            store: bus.store(),
            bus,
            head,
            limits,
            update,
        }
    }

    /// Waits for the lease and leads, again and again, until `cx` stops.
    pub(crate) async fn run(self, cx: &Cx) {
        let leader = Arc::new(self);
        while !cx.is_stopping() {
            match leader.bus.lease_wait(cx, "feeds").await {
                Ok(Some(lease)) => {
                    let term = cx.child();
                    let (updater, update_cx) = (Arc::clone(&leader), term.clone());
                    term.spawn("feed-updates", async move {
                        updater.keep_updated(&update_cx).await;
                    });
                    tokio::select! {
                        () = lease.lost() => {}
                        () = leader.lead(&term) => {}
                    }
                    term.stop();
                    lease.release().await;
                }
                Ok(None) => return,
                Err(error) => tracing::warn!(%error, "waiting for the lease `feeds`: {error}"),
            }
            cx.sleep(RETRY).await;
        }
    }

    /// Takes up what is in the inbox and what comes.
    async fn lead(&self, cx: &Cx) {
        let mut changes = self.bus.follow(cx, ADVISORIES, 0);
        while !cx.is_stopping() {
            while let Err(error) = take_all(cx, &self.store, &self.head, &self.limits).await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "taking up advisories: {error:#}"
                );
                if !cx.sleep(RETRY).await {
                    return;
                }
            }
            loop {
                tokio::select! {
                    () = cx.stopped() => return,
                    () = tokio::time::sleep(RECHECK) => break,
                    change = changes.next() => match change {
                        Some(change) if change.key.starts_with(INBOX) && change.body.is_some() => break,
                        Some(_) => {}
                        None => return,
                    },
                }
            }
        }
    }

    /// Fetches feeds regularly and hands them in, where the operator wants it.
    async fn keep_updated(&self, cx: &Cx) {
        let Some(update) = &self.update else { return };
        loop {
            for ecosystem in &update.ecosystems {
                if let Err(error) = self.update(cx, &update.url, ecosystem).await {
                    metrics::imported("unavailable");
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "updating `{ecosystem}`: {error:#}"
                    );
                }
                if cx.is_stopping() {
                    return;
                }
            }
            if !cx
                .sleep(Duration::from_secs(update.interval_s.max(60)))
                .await
            {
                return;
            }
        }
    }

    async fn update(&self, cx: &Cx, url: &str, ecosystem: &str) -> anyhow::Result<()> {
        let file = Feeds::new(url, &self.limits)?.fetch(ecosystem).await?;
        let most = self.limits.archive_bytes_max;
        let read = move || chassis::files::read_bounded(file.path(), most);
        let bytes = Bytes::from(cx.blocking(read).await??);
        let import = Import {
            feed: ecosystem.to_owned(),
            mode: Mode::Replace,
            fetched_at: cx.now(),
        };
        upload::hand_in(&self.store, &import, bytes).await?;
        Ok(())
    }
}

/// Takes up everything in the inbox, oldest data first.
pub(crate) async fn take_all(
    cx: &Cx,
    store: &Store,
    head: &Head,
    limits: &FeedLimits,
) -> anyhow::Result<()> {
    let mut inbox = store.list::<AdvisoryInbox>(ADVISORIES, INBOX).await?;
    inbox.sort_by(|a, b| (a.1.body.fetched_at, &a.0).cmp(&(b.1.body.fetched_at, &b.0)));
    for (key, entry) in &inbox {
        take(cx, store, head, &entry.body, limits)
            .await
            .with_context(|| format!("feed `{}`", entry.body.feed.escape_debug()))?;
        store.delete(ADVISORIES, key).await?;
        let is_shared = |(other, others): &(String, bus::Stored<AdvisoryInbox>)| {
            other > key && others.body.object == entry.body.object
        };
        if !inbox.iter().any(is_shared) {
            store
                .delete_object(FEED_OBJECTS, &entry.body.object)
                .await?;
        }
    }
    Ok(())
}

/// Takes up one entry. What can never be read is reported and passed over; an error means that
/// trying again may help.
async fn take(
    cx: &Cx,
    store: &Store,
    head: &Head,
    entry: &AdvisoryInbox,
    limits: &FeedLimits,
) -> anyhow::Result<()> {
    let feed = entry.feed.escape_debug().to_string();
    let bytes = store
        .object_bytes(FEED_OBJECTS, &entry.object, limits.archive_bytes_max)
        .await?;
    let Some(bytes) = bytes else {
        metrics::imported("missing");
        tracing::warn!(feed, object = %entry.object, "feed `{feed}`: its object is gone");
        return Ok(());
    };
    let mode = if entry.replace {
        Mode::Replace
    } else {
        Mode::Merge
    };
    let import = Import {
        feed: entry.feed.clone(),
        mode,
        fetched_at: entry.fetched_at,
    };
    for _ in 0..MOVES_MAX {
        let expected = head.sync(cx).await?;
        let (advisories, source) = (Arc::clone(head.advisories()), Source::Bytes(bytes.clone()));
        let (import, limits) = (import.clone(), limits.clone());
        let staging = move || stage::stage(&advisories, &import, &source, &limits);
        let staged = match cx.blocking(staging).await? {
            Ok(staged) => staged,
            Err(error) => {
                metrics::imported("refused");
                tracing::warn!(
                    feed,
                    error = format!("{error:#}"),
                    "feed `{feed}`: {error:#}"
                );
                return Ok(());
            }
        };
        if publish(cx, store, head, &staged, expected).await? {
            metrics::imported("taken");
            report(&feed, &staged);
            return Ok(());
        }
    }
    anyhow::bail!("others keep moving `head`")
}

/// Stores what a revision leads to, then moves `head`. False where somebody else moved it.
async fn publish(
    cx: &Cx,
    store: &Store,
    head: &Head,
    staged: &Staged,
    expected: u64,
) -> anyhow::Result<bool> {
    let manifest = &staged.imported.manifest;
    if manifest.revision == head.advisories().manifest().revision {
        return Ok(true);
    }
    for bytes in staged.shards.values() {
        store.put_object_bytes(FEED_OBJECTS, bytes.clone()).await?;
    }
    let moved = AdvisoryHead {
        revision: manifest.revision,
        manifest: store.put_object(FEED_OBJECTS, manifest).await?,
        published_at: cx.now(),
    };
    match store.put(ADVISORIES, HEAD, &moved, Some(expected)).await {
        Ok(_) => {}
        Err(PutError::Conflict) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    head.sync(cx).await?;
    Ok(true)
}

fn report(feed: &str, staged: &Staged) {
    let imported = &staged.imported;
    let (revision, records) = (imported.manifest.revision, imported.records);
    let (changed, malformed) = (imported.changed.len(), imported.malformed);
    tracing::info!(
        feed,
        advisory.revision = revision,
        records,
        malformed,
        shards = changed,
        "feed `{feed}` of {records} records taken up: {changed} shards changed, revision {revision}"
    );
    if malformed > 0 {
        let why = imported.problems.join("; ");
        tracing::warn!(
            feed,
            malformed,
            "feed `{feed}`: {malformed} records are unusable: {why}"
        );
    }
}

#[cfg(test)]
mod tests;
