//! Serving a partition: its scans, its index, and its sweeps.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use bus::{BucketEnd, Bus, Change, Consume, StoreError, topology};
use chassis::Cx;
use futures::{FutureExt as _, StreamExt as _};
use model::{
    Assessed, Partition, RecordKey, Scanned, SweptMark, What,
    event::{ADVISORIES, images_bucket},
};
use tokio::sync::{Notify, watch};

use crate::{
    Config,
    handler::{self, Assessor},
    head::Head,
    index::{Index, Open},
    matches::{self, Matches, Packages},
    sweep::{Progress, Sweeper},
};

const RETRY: Duration = Duration::from_secs(5);
/// Changes that are taken up together.
const CHUNK: usize = 64;

/// Serves partitions.
pub(crate) struct Partitions {
    bus: Bus,
    head: Head,
    packages: Packages,
    matches: Matches,
    images_at_once: usize,
}

/// Follows a partition's bucket and keeps its index.
struct Indexing {
    partition: Partition,
    cx: Cx,
    bus: Bus,
    index: Index,
    packages: Packages,
    progress: Arc<Progress>,
    /// Up to which sequence the bucket is in the index.
    cursor: watch::Sender<u64>,
    /// A record came that must be assessed again.
    opened: Arc<Notify>,
}

/// Sweeps a partition when there is a reason.
struct Sweeping {
    bus: Bus,
    sweeper: Sweeper,
    cursor: watch::Receiver<u64>,
    opened: Arc<Notify>,
}

// === impl Partitions ===

impl Partitions {
    pub(crate) fn new(bus: Bus, head: Head, config: &Config) -> Self {
        Self {
            packages: matches::packages(bus.store()),
            matches: Matches::default(),
            bus,
            head,
            images_at_once: config.images_at_once.max(1),
        }
    }

    /// Serves a partition until `cx` stops. Fresh images are assessed from the start; sweeps wait
    /// for the index.
    ///
    /// Before the first scan is taken the mark is read, and then the head: so the advisories here
    /// are not older than the mark, and a scan that is assessed with them is not left behind by a
    /// sweep that was before.
    pub(crate) async fn serve(&self, partition: Partition, cx: &Cx) {
        let (mark, has_rules) = loop {
            match self.mark(cx, partition).await {
                Ok(mark) => break mark,
                Err(error) => complain(partition, "taking over", &error),
            }
            if !cx.sleep(RETRY).await {
                return;
            }
        };
        let Ok(database) = self.head.advisories().database() else {
            return;
        };
        let assessor = Assessor {
            cx: cx.clone(),
            store: self.bus.store(),
            advisories: Arc::clone(self.head.advisories()),
            index: Index::new(database),
            packages: self.packages.clone(),
            matches: self.matches.clone(),
        };
        let stream = topology::bucket_stream(&images_bucket(partition));
        let durable = format!("matcher_{partition}");
        let consume = Consume::new(&self.bus, &stream, &durable, self.images_at_once);
        self.bus.consume(cx, consume, Arc::new(assessor.clone()));
        let progress = Arc::new(Progress::new(mark, has_rules));
        let opened = Arc::new(Notify::new());
        let (cursor, is_at) = watch::channel(0);
        let indexing = Indexing {
            partition,
            cx: cx.clone(),
            bus: self.bus.clone(),
            index: assessor.index.clone(),
            packages: self.packages.clone(),
            progress: Arc::clone(&progress),
            cursor,
            opened: Arc::clone(&opened),
        };
        let bus = self.bus.clone();
        let sweeper = Sweeper {
            partition,
            cx: cx.clone(),
            store: self.bus.store(),
            head: self.head.clone(),
            assessor,
            publish: Arc::new(move |tenant, event| {
                let bus = bus.clone();
                async move { bus.publish(&tenant, &event).await }.boxed()
            }),
            images_at_once: self.images_at_once,
            progress,
            missing: Mutex::default(),
        };
        let sweeping = Sweeping {
            bus: self.bus.clone(),
            sweeper,
            cursor: is_at,
            opened,
        };
        cx.spawn("index", indexing.run());
        cx.spawn("sweep", sweeping.run());
    }

    /// The partition's mark, read before the head that the local copy is then at; and whether it is
    /// of the rules of matching in force.
    async fn mark(&self, cx: &Cx, partition: Partition) -> anyhow::Result<(u64, bool)> {
        let key = format!("swept.{partition}");
        let mark = self.bus.store().get::<SweptMark>(ADVISORIES, &key).await?;
        self.head.sync(cx).await?;
        let rules = self.head.advisories().rules();
        Ok(mark.map_or((0, true), |mark| {
            (mark.body.revision, mark.body.rules == rules)
        }))
    }
}

// === impl Indexing ===

impl Indexing {
    /// Follows until the partition stops; a bucket that is made anew is followed from its start.
    async fn run(self) {
        let bucket = images_bucket(self.partition);
        while !self.cx.is_stopping() {
            if let Err(error) = self.follow(&bucket).await {
                complain(self.partition, "indexing", &error);
                self.cx.sleep(RETRY).await;
            }
        }
    }

    /// Brings the index up to the bucket's last sequence at the start, then goes on following.
    async fn follow(&self, bucket: &str) -> anyhow::Result<()> {
        let BucketEnd { last, made } = self.bus.position(bucket).await?;
        // Other rules may look packages up by other names.
        let index_of = format!("{made} by rules {}", vulndb::RULES);
        let (index, partition) = (self.index.clone(), self.partition);
        let beginning = move || index.begin(partition, last, &index_of);
        let cursor = self.cx.blocking(beginning).await?;
        let cursor = cursor.context("reading the cursor")?;
        self.cursor.send_replace(cursor);
        let changes = self.bus.follow_after(&self.cx, bucket, cursor, &made);
        let mut chunks = changes.ready_chunks(CHUNK);
        while let Some(chunk) = chunks.next().await {
            while let Err(error) = self.changes(&chunk, last).await {
                complain(self.partition, "indexing", &error);
                if !self.cx.sleep(RETRY).await {
                    return Ok(());
                }
            }
            if let Some(change) = chunk.last() {
                self.cursor.send_replace(change.sequence);
            }
        }
        Ok(())
    }

    /// Takes changes into the index; the cursor passes them after everything that follows from them
    /// is in the database.
    async fn changes(&self, changes: &[Change], last: u64) -> anyhow::Result<()> {
        for change in changes {
            self.change(change, change.sequence > last).await?;
        }
        if let Some(change) = changes.last() {
            self.index.set_cursor(self.partition, change.sequence)?;
        }
        Ok(())
    }

    async fn change(&self, change: &Change, is_late: bool) -> anyhow::Result<()> {
        if let Ok(key) = change.key.parse::<RecordKey>() {
            match key.what {
                What::Scanned if change.body.is_none() => self.index.remove(&key)?,
                What::Scanned => self.scanned(&key, change).await?,
                What::Assessed if change.body.is_some() => {
                    self.assessed(&key, change, is_late).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn scanned(&self, key: &RecordKey, change: &Change) -> anyhow::Result<()> {
        let known = self.index.get(key)?;
        if known.is_some_and(|known| known.scan >= change.sequence) {
            return Ok(());
        }
        let Some(scanned) = readable(change.decode::<Scanned>().await, change)?.flatten() else {
            return Ok(());
        };
        // Gone means replaced: the newer scan follows.
        let (object, content) = (scanned.packages, scanned.contents.packages);
        let list = self.packages.get(&object, content.as_ref()).await;
        let packages = match readable(list, change)? {
            Some(Some(packages)) => Some(packages),
            Some(None) => return Ok(()),
            None => None,
        };
        let lookups = || packages.map_or_else(BTreeSet::new, |list| handler::lookups(&list));
        let name = handler::list_of(&scanned);
        self.index.put_scan(key, change.sequence, name, lookups)?;
        Ok(())
    }

    /// Notes an image whose record does not rest on what the partition was swept for.
    async fn assessed(
        &self,
        key: &RecordKey,
        change: &Change,
        is_late: bool,
    ) -> anyhow::Result<()> {
        let Some(assessed) = readable(change.decode::<Assessed>().await, change)?.flatten() else {
            return Ok(());
        };
        let advisory = assessed.advisory;
        if self.progress.is_open(advisory, is_late) {
            let sequence = change.sequence;
            self.index.open(key, Open { advisory, sequence })?;
            if self.progress.is_behind(advisory) {
                self.opened.notify_one();
            }
        }
        Ok(())
    }
}

/// What was read; `None` where it can never be read, which must not stop the index.
fn readable<T>(read: Result<T, StoreError>, change: &Change) -> anyhow::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.is_permanent() || matches!(error, StoreError::Corrupt { .. }) => {
            let key = &change.key;
            tracing::warn!(key, %error, "`{key}` is not in the index: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

// === impl Sweeping ===

impl Sweeping {
    /// Sweeps after every new revision, once at the start where the mark is behind, and when a
    /// record comes that rests on older advisories.
    async fn run(mut self) {
        let mut revision = self.sweeper.head.watch();
        let (cx, partition) = (self.sweeper.cx.clone(), self.sweeper.partition);
        loop {
            revision.mark_unchanged();
            while let Err(error) = self.sweep().await {
                if cx.is_stopping() {
                    return;
                }
                complain(partition, "sweeping", &error);
                if !cx.sleep(RETRY).await {
                    return;
                }
            }
            tokio::select! {
                () = cx.stopped() => return,
                () = self.opened.notified() => {}
                changed = revision.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn sweep(&mut self) -> anyhow::Result<()> {
        let Some(to) = self.sweeper.begin() else {
            return Ok(());
        };
        let partition = self.sweeper.partition;
        // The index may be behind what others wrote into the bucket until now.
        let last = self.bus.last_sequence(&images_bucket(partition)).await?;
        let cx = self.sweeper.cx.clone();
        tokio::select! {
            () = cx.stopped() => return Ok(()),
            caught_up = self.cursor.wait_for(|cursor| *cursor >= last) => {
                caught_up.context("nobody keeps the index")?;
            }
        }
        let images = self.sweeper.sweep(&to).await?;
        if images > 0 {
            let revision = to.revision;
            tracing::info!(
                %partition,
                advisory.revision = revision,
                images,
                "partition {partition} swept for revision {revision}: {images} images assessed again"
            );
        }
        Ok(())
    }
}

fn complain(partition: Partition, what: &str, error: &anyhow::Error) {
    tracing::warn!(%partition, error = format!("{error:#}"), "{what} partition {partition}: {error:#}");
}

#[cfg(test)]
mod tests;
