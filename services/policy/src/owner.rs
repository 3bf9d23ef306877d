//! The owner of a partition: takes its records as they come, and judges all of its images again
//! when a policy changes, a waiver ends or newer advisory data come.
//!
//! A new owner begins with a pass over the whole partition. It finds verdicts that stand, and
//! leaves them, so a restart writes nothing; and it fills the calendar.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bus::{Bus, Change, Consume, PutError, topology::bucket_stream};
use chassis::Cx;
use futures::{StreamExt as _, stream};
use model::{Assessed, Partition, RecordKey, SweptMark, What, event::images_bucket};

use crate::{
    calendar::Calendar,
    handler::{AssessedHandler, KnownHandler},
    ruling::Ruling,
    rulings::{Basis, Judges},
};

/// How often the calendar and the mark of the last sweep are looked at.
const TICK: Duration = Duration::from_secs(10);
/// How often a verdict is tried that others write at the same time.
const TRIES: u32 = 5;

/// Who judges the images of a partition.
pub(crate) struct Owner {
    pub(crate) bus: Bus,
    pub(crate) judges: Judges,
    pub(crate) partition: Partition,
    pub(crate) concurrency: usize,
    pub(crate) calendar: Arc<Calendar>,
}

// === impl Owner ===

impl Owner {
    /// Works until the partition is somebody else's.
    pub(crate) async fn run(mut self, cx: Cx) {
        let (judges, calendar) = (self.judges.clone(), Arc::clone(&self.calendar));
        let assessed = AssessedHandler { judges, calendar };
        self.bus
            .consume(&cx, self.consume("assessed"), Arc::new(assessed));
        let (judges, calendar) = (self.judges.clone(), Arc::clone(&self.calendar));
        self.bus.consume(
            &cx,
            self.consume("known"),
            Arc::new(KnownHandler { judges, calendar }),
        );
        let mut mark = None;
        while !cx.is_stopping() {
            self.judges.policies.borrow_and_update();
            let passed = self.pass(&cx).await;
            while !self.policies_changed(&cx).await && !cx.is_stopping() {
                self.tick(&mut mark).await;
                if !passed {
                    break;
                }
            }
        }
    }

    /// Waits for a policy to change, but no longer than for the next tick.
    async fn policies_changed(&mut self, cx: &Cx) -> bool {
        tokio::select! {
            changed = self.judges.policies.changed() => changed.is_ok(),
            _ = cx.sleep(TICK) => false,
        }
    }

    fn consume(&self, what: &str) -> Consume {
        let bucket = images_bucket(self.partition);
        Consume {
            filter: format!("$KV.{bucket}.*.*.{what}"),
            durable: format!("policy_{what}_{}", self.partition),
            stream: bucket_stream(&bucket),
            concurrency: self.concurrency,
            ack_wait: self.bus.config().ack_wait(),
        }
    }

    /// Looks at every image of the partition. False where it could not be read.
    async fn pass(&self, cx: &Cx) -> bool {
        let bucket = images_bucket(self.partition);
        let last = match self.bus.last_sequence(&bucket).await {
            Ok(0) => return true,
            Ok(last) => last,
            Err(error) => {
                tracing::warn!(%error, "partition {} cannot be read: {error}", self.partition);
                return false;
            }
        };
        // Following ends with this context, and the pass ends where the partition ended.
        let mark = match self.judges.store.swept_mark(self.partition).await {
            Ok(mark) => mark,
            Err(error) => {
                tracing::warn!(%error, "partition {} cannot be read: {error}", self.partition);
                return false;
            }
        };
        let (reading, mark) = (cx.child(), &mark);
        let changes = self.bus.follow(&reading, &bucket, 1);
        let end = futures::future::ready;
        changes
            .take_while(|change| end(change.sequence <= last))
            .for_each_concurrent(self.concurrency, |change| async {
                let at_the_end = change.sequence == last;
                self.look(change, mark).await;
                if at_the_end {
                    reading.stop();
                }
            })
            .await;
        reading.stop();
        true
    }

    /// Looks at one record that a pass meets. An assessment is taken as it came: where it has been
    /// replaced since, the message of the other is handled as well, and what rests on it stays.
    async fn look(&self, change: Change, mark: &SweptMark) {
        let Ok(key) = change.key.parse::<RecordKey>() else {
            return;
        };
        if change.body.is_none() {
            return;
        }
        let basis = match &key.what {
            What::Assessed => match change.decode::<Assessed>().await {
                Ok(Some(assessed)) => Some(Basis {
                    revision: change.sequence,
                    assessed,
                    mark: Some(mark.clone()),
                }),
                Ok(None) | Err(_) => None,
            },
            What::Judged(policy) if !self.judges.policies.borrow().knows(policy) => None,
            What::Judged(_) | What::Known | What::Scanned => return,
        };
        self.settle(&key, basis).await;
    }

    /// Looks at the images whose time has come.
    async fn tick(&self, mark: &mut Option<SweptMark>) {
        let mut images = self.calendar.take_ended(self.judges.cx.now());
        match self.judges.store.swept_mark(self.partition).await {
            Ok(found) => {
                if mark.as_ref() != Some(&found) {
                    images.extend(self.calendar.take_waiting());
                    *mark = Some(found);
                }
            }
            Err(error) => tracing::warn!(%error, "a partition's mark cannot be read: {error}"),
        }
        self.settle_all(images).await;
    }

    async fn settle_all(&self, keys: BTreeSet<RecordKey>) {
        let settle = |key: RecordKey| async move { self.settle(&key, None).await };
        stream::iter(keys)
            .for_each_concurrent(self.concurrency, settle)
            .await;
    }

    /// Does for one image, or one verdict of a forgotten policy, what the handlers do for a
    /// message. What does not work now is tried again at the next tick.
    async fn settle(&self, key: &RecordKey, basis: Option<Basis>) {
        if let Err(error) = self.try_settle(key, basis).await {
            let image = key.image;
            tracing::warn!(
                image.digest = %image,
                error = format!("{error:#}"),
                "image {image} could not be judged now: {error:#}"
            );
            self.calendar.add(self.judges.cx.now(), key.clone());
        }
    }

    async fn try_settle(&self, key: &RecordKey, basis: Option<Basis>) -> anyhow::Result<()> {
        let mut basis = basis;
        for _ in 0..TRIES {
            let rulings = match basis.take() {
                Some(basis) => self.judges.assessed(key, basis, false).await?,
                None => rulings(&self.judges, key).await?,
            };
            match self.write(&rulings).await {
                Err(PutError::Conflict) => {}
                Err(PutError::Store(error)) => return Err(error.into()),
                Ok(()) => {
                    for news in rulings.iter().filter_map(|ruling| ruling.news.as_ref()) {
                        self.bus.publish(&key.tenant, news).await?;
                    }
                    return Ok(());
                }
            }
        }
        anyhow::bail!("others wrote its verdict {TRIES} times in between")
    }

    async fn write(&self, rulings: &[Ruling]) -> Result<(), PutError> {
        for ruling in rulings {
            if let Some(replaces) = ruling.replaces {
                self.judges
                    .store
                    .put_record(&ruling.key, &ruling.judged, replaces)
                    .await?;
            }
            ruling.log();
            self.calendar.note(ruling, &self.judges.policies.borrow());
        }
        Ok(())
    }
}

/// What is to be done about an image as it is now, or about one verdict of a forgotten policy.
pub(crate) async fn rulings(judges: &Judges, key: &RecordKey) -> anyhow::Result<Vec<Ruling>> {
    if let What::Judged(_) = key.what {
        return Ok(judges.orphan(key).await?.into_iter().collect());
    }
    let Some(stored) = judges.store.record::<Assessed>(key).await? else {
        return Ok(Vec::new());
    };
    let basis = Basis::of(stored.revision, stored.body);
    judges.assessed(key, basis, false).await
}
