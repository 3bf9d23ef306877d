//! The owner of a shard: reads again what its containers did last, then takes what comes, and looks
//! now and then after what waits.

use std::{sync::Arc, time::Duration};

use bus::{Bus, Consume, Heard, Outcome, PutError, Start, Tailed, decode};
use chassis::Cx;
use futures::StreamExt as _;
use jiff::SignedDuration;
use model::{
    Slug,
    event::Event as _,
    runtime::{NodeReported, RUNTIME, RuntimeBatch},
};

use crate::{
    handler::RuntimeHandler,
    shard::{Effects, Watch},
};

/// How often what waits is looked after.
const TICK: Duration = Duration::from_secs(2);
/// Reading again ends after so long, wherever it stands: what comes now counts more.
const REPLAY: Duration = Duration::from_mins(1);

/// Who watches a shard.
pub(crate) struct Owner {
    pub(crate) bus: Bus,
    pub(crate) watch: Arc<Watch>,
}

// === impl Owner ===

impl Owner {
    /// Works until the shard is somebody else's.
    pub(crate) async fn run(self, cx: Cx) {
        let shard = self.watch.number;
        if let Err(error) = self.watch.load().await {
            tracing::warn!(
                error = format!("{error:#}"),
                "open incidents of shard {shard} are not known: {error:#}"
            );
        }
        if let Err(error) = self.replay(&cx).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "what containers of shard {shard} did before is not known: {error:#}"
            );
        }
        let handler = RuntimeHandler {
            watch: Arc::clone(&self.watch),
        };
        // One after another: what a process does is judged by what it did before.
        let consume = Consume::new(&self.bus, RUNTIME, &format!("behavior_{shard}"), 1);
        self.bus.consume(&cx, consume, Arc::new(handler));
        while cx.sleep(TICK).await {
            let ticked = match self.watch.tick().await {
                Ok(effects) => self.settle(effects).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ticked {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "what waits in shard {shard} is looked after later: {error:#}"
                );
            }
        }
    }

    /// Takes the messages of the last minutes once more.
    async fn replay(&self, cx: &Cx) -> anyhow::Result<()> {
        let reading = cx.child();
        let back = SignedDuration::from_secs(self.watch.config.replay_s.into());
        let from = cx.now().checked_sub(back).unwrap_or(jiff::Timestamp::MIN);
        let filter = format!("tw.evt.*.runtime.{}.>", self.watch.number);
        let mut tail = self
            .bus
            .tail(&reading, RUNTIME, Start::Time(from), &filter)
            .await?;
        let read = async {
            while let Some(heard) = tail.next().await {
                match heard {
                    Heard::CaughtUp => break,
                    Heard::Message(message) => self.again(*message).await,
                    Heard::UpTo(_) | Heard::Missed(_) => {}
                }
            }
        };
        let read = tokio::time::timeout(REPLAY, read).await;
        reading.stop();
        if read.is_err() {
            let shard = self.watch.number;
            tracing::warn!("shard {shard} has more to read again than fits a minute");
        }
        Ok(())
    }

    /// Takes one message again. What is wrong with it, its handler found or will find.
    async fn again(&self, message: Tailed) {
        let Some(body) = message.body else { return };
        let kind = message.headers.attribute("ce-type");
        let tenant = message.subject.split('.').nth(2).map(str::parse::<Slug>);
        let Some(Ok(tenant)) = tenant else { return };
        let place = (&tenant, message.subject.as_str());
        let taken = match kind.as_deref() {
            Some(RuntimeBatch::TYPE) => self.watch.batch(place, &body, true).await,
            Some(NodeReported::TYPE) => match decode(&body) {
                Ok(report) => self.watch.report(place, report, true).await,
                Err(error) => Err(error.into()),
            },
            _ => return,
        };
        let settled = match taken {
            Ok(effects) => self.settle(effects).await,
            Err(error) => Err(error),
        };
        if let Err(error) = settled {
            tracing::debug!(
                error = format!("{error:#}"),
                "a message is not read again: {error:#}"
            );
        }
    }

    /// Writes and tells outside of a handler. What another wrote in between is tried again by who
    /// looks the next time.
    async fn settle(&self, effects: Effects) -> anyhow::Result<()> {
        let Effects {
            outcome,
            changes,
            sighted,
            waited,
        } = effects;
        let store = &self.watch.store;
        applied(store.apply(&outcome).await)?;
        for change in &changes {
            let written = change.write(Outcome::none())?;
            match applied(store.apply(&written).await) {
                Ok(true) => {}
                failed => {
                    // A handler was first, or the store is away: all of it comes again.
                    self.watch.wait_again(waited).await;
                    return failed.map(drop);
                }
            }
            let (tenant, detected, changed) = change.news();
            for news in detected {
                self.bus.publish(tenant, news).await?;
            }
            if let Some(news) = changed {
                self.bus.publish(tenant, news).await?;
            }
            self.watch.note(std::slice::from_ref(change)).await;
        }
        for (tenant, news) in &sighted {
            self.bus.publish(tenant, news).await?;
        }
        Ok(())
    }
}

/// Whether it was written: another may have been first.
fn applied<T>(written: Result<T, PutError>) -> anyhow::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(PutError::Conflict) => Ok(false),
        Err(PutError::Store(error)) => Err(error.into()),
    }
}
