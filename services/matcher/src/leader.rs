//! The feed leader: takes what was handed in, makes revisions of it, and moves `head`.
//!
//! It can die at any line. What it stores is named by content; `head` moves by compare-and-set
//! after everything that it leads to is stored; and what was handed in is deleted last. Taken up a
//! second time it changes nothing, so no revision follows. `head` also names the revisions before
//! it; what only older ones lead to is deleted after it moved, which the next move does again.

mod past;
pub(crate) mod update;

use std::{io::Cursor, sync::Arc, time::Duration};

use anyhow::Context as _;
use bus::{Bus, PutError, Store};
use bytes::Bytes;
use chassis::{Cx, Lost};
use futures::StreamExt as _;
use model::{
    AdvisoryHead, AdvisoryInbox, VerifyingKey,
    event::{ADVISORIES, FEED_OBJECTS},
};

use self::update::Updater;
use crate::{
    Config, FeedLimits, Import, Mode, Source, Update,
    feeds::{self, Export},
    head::{HEAD, Head},
    metrics,
    stage::{self, Parts, Staged},
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
    trusted_keys: Vec<VerifyingKey>,
    update: Option<Update>,
}

/// What stands in the inbox, read.
#[derive(Clone)]
enum Read {
    Records(Box<Import>, Parts),
    Export(Export),
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
            trusted_keys: config.trusted_keys.clone(),
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
                    if let Some(updater) = leader.updater() {
                        let update_cx = term.clone();
                        term.spawn("feed-updates", async move {
                            updater.run(&update_cx).await;
                        });
                    }
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

    /// Who fetches feeds, where the operator wants it.
    fn updater(&self) -> Option<Updater> {
        let update = self.update.clone()?;
        Some(Updater {
            store: self.store.clone(),
            head: self.head.clone(),
            limits: self.limits.clone(),
            update,
        })
    }

    /// Takes up what is in the inbox and what comes.
    async fn lead(&self, cx: &Cx) {
        let mut changes = self.bus.follow(cx, ADVISORIES, 0);
        while !cx.is_stopping() {
            let bounds = (&self.limits, self.trusted_keys.as_slice());
            while let Err(error) = take_all(cx, &self.store, &self.head, bounds).await {
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
}

/// Takes up everything in the inbox, oldest data first.
pub(crate) async fn take_all(
    cx: &Cx,
    store: &Store,
    head: &Head,
    bounds: (&FeedLimits, &[VerifyingKey]),
) -> anyhow::Result<()> {
    let mut inbox = store.list::<AdvisoryInbox>(ADVISORIES, INBOX).await?;
    inbox.sort_by(|a, b| (a.1.body.fetched_at, &a.0).cmp(&(b.1.body.fetched_at, &b.0)));
    for (index, (key, entry)) in inbox.iter().enumerate() {
        take(cx, store, head, &entry.body, bounds)
            .await
            .with_context(|| format!("feed `{}`", entry.body.feed.escape_debug()))?;
        // First the entry, and only as it was taken up; what was handed in again stays. Whoever
        // dies between the two leaves an object behind and nothing undone.
        match store.delete_at(ADVISORIES, key, entry.revision).await {
            Ok(()) => {}
            Err(PutError::Conflict) => continue,
            Err(PutError::Store(error)) => return Err(error.into()),
        }
        // An entry that follows may share its object, if an older version handed them in.
        let mut later = inbox.iter().skip(index + 1);
        if !later.any(|(_, later)| later.body.object == entry.body.object) {
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
    bounds: (&FeedLimits, &[VerifyingKey]),
) -> anyhow::Result<()> {
    let feed = entry.feed.escape_debug().to_string();
    let (limits, keys) = (bounds.0.clone(), bounds.1.to_vec());
    let most = limits.archive_bytes_max.saturating_add(entry.offset);
    let bytes = store
        .object_bytes(FEED_OBJECTS, &entry.object, most)
        .await?;
    let Some(mut bytes) = bytes else {
        metrics::imported("missing");
        tracing::warn!(feed, object = %entry.object, "feed `{feed}`: its object is gone");
        return Ok(());
    };
    let front = usize::try_from(entry.offset).unwrap_or(usize::MAX);
    let bytes = bytes.split_off(front.min(bytes.len()));
    let import = import_of(entry);
    let read = cx.blocking(move || read(import, bytes, &limits, &keys));
    // Only what the records themselves are to blame for is refused.
    let read = match read.await {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => {
            refused(&feed, &error);
            return Ok(());
        }
        Err(panic @ Lost::Panicked) => {
            refused(&feed, &panic.into());
            return Ok(());
        }
        Err(stop @ Lost::Stopped) => return Err(stop.into()),
    };
    for _ in 0..MOVES_MAX {
        let (expected, standing) = head.sync_head(cx).await?;
        let (advisories, read) = (Arc::clone(head.advisories()), read.clone());
        let staging = move || match read {
            Read::Records(import, parts) => stage::stage(&advisories, &import, parts),
            Read::Export(export) => feeds::stage_export(&advisories, export),
        };
        let staged = match cx.blocking(staging).await {
            Ok(staged) => staged?,
            Err(panic @ Lost::Panicked) => {
                refused(&feed, &panic.into());
                return Ok(());
            }
            Err(stop @ Lost::Stopped) => return Err(stop.into()),
        };
        if publish(cx, store, head, &staged, (expected, standing)).await? {
            metrics::imported("taken");
            report(&feed, &staged);
            return Ok(());
        }
    }
    anyhow::bail!("others keep moving `head`")
}

fn import_of(entry: &AdvisoryInbox) -> Import {
    Import {
        feed: entry.feed.clone(),
        mode: match (entry.replace, entry.increment) {
            (true, _) => Mode::Replace,
            (false, true) => Mode::Increment,
            (false, false) => Mode::Merge,
        },
        fetched_at: entry.fetched_at,
        revision: entry.revision.clone(),
    }
}

/// Reads what was handed in: records, or an export that somebody signed whom we trust.
fn read(
    import: Import,
    bytes: Bytes,
    limits: &FeedLimits,
    keys: &[VerifyingKey],
) -> anyhow::Result<Read> {
    if feeds::is_export(Cursor::new(&bytes)) {
        let export = Export::read(Cursor::new(&bytes), (keys, false), limits)?;
        return Ok(Read::Export(export));
    }
    let parts = stage::read(&import, &Source::Bytes(bytes), limits, None)?;
    Ok(Read::Records(Box::new(import), parts))
}

fn refused(feed: &str, error: &anyhow::Error) {
    metrics::imported("refused");
    tracing::warn!(
        feed,
        error = format!("{error:#}"),
        "feed `{feed}`: {error:#}"
    );
}

/// Stores what a revision leads to, then moves `head`, then deletes what only revisions of long ago
/// name. False where somebody else moved `head`.
async fn publish(
    cx: &Cx,
    store: &Store,
    head: &Head,
    staged: &Staged,
    (expected, standing): (u64, Option<AdvisoryHead>),
) -> anyhow::Result<bool> {
    if !staged.is_new {
        return Ok(true);
    }
    let manifest = &staged.imported.manifest;
    for bytes in staged.shards.values() {
        store.put_object_bytes(FEED_OBJECTS, bytes.clone()).await?;
    }
    let (past, old) = past::of(store, standing).await?;
    let moved = AdvisoryHead {
        revision: manifest.revision,
        manifest: store.put_object(FEED_OBJECTS, manifest).await?,
        published_at: cx.now(),
        past,
    };
    match store.put(ADVISORIES, HEAD, &moved, Some(expected)).await {
        Ok(_) => {}
        Err(PutError::Conflict) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    head.sync(cx).await?;
    // The revision is in force; what is not deleted now is deleted after the next.
    if let Err(error) = past::trim(cx, store, &moved, &old).await {
        tracing::warn!(
            error = format!("{error:#}"),
            "deleting old advisories: {error:#}"
        );
    }
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
