//! What became of the attempts at a message that was delivered more than once: crashes, which
//! condemn, and transient failures, which do not.
//!
//! The first delivery writes nothing. Every other ending that leads to a further delivery is
//! recorded before the message is given back, so a second delivery without a record follows a
//! crash (or an acknowledgment that was lost, which costs one count and condemns nothing). From
//! the second delivery on, `open` names the process whose handler runs. Who finds it set by a
//! process that is not alive any more counts a crash.
//!
//! Only a death while *alone* condemns: the healthy job that ran beside a poisonous one is tried
//! by itself, and lives. A broker that is away for long lets live processes look dead: therefore
//! they write what they hold first thing when they are back, and nobody judges before that.

use jiff::Timestamp;
use model::event::{ATTEMPTS, Attempts, OpenAttempt};
use tokio::time::sleep;

use crate::{
    Bus,
    error::{PutError, StoreError},
    metrics::metrics,
};

/// So many crashes condemn, if the last one was alone.
pub(crate) const CRASHES_MAX: u32 = 3;
/// How often a record is written again after another wrote it.
const CONFLICTS_MAX: u32 = 8;

/// The record of one message and one consumer.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    bus: Bus,
    key: String,
}

/// What was found by who takes a message again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) attempts: Attempts,
    /// Whether the handler died of answering for a condemned message: it is not asked again.
    pub(crate) unanswered: bool,
}

// === impl Ledger ===

impl Ledger {
    pub(crate) fn new(bus: &Bus, stream: &str, durable: &str, sequence: u64) -> Self {
        Self {
            bus: bus.clone(),
            key: format!("{stream}.{durable}.{sequence}"),
        }
    }

    /// Looks at the attempt before this one, and counts a crash where it ended in one.
    pub(crate) async fn take(&self) -> Result<Taken, StoreError> {
        for _ in 0..CONFLICTS_MAX {
            let (mut attempts, revision) = self.read().await?;
            let died = match &attempts.open {
                None => revision == 0,
                Some(open) => !self.bus.is_alive(&open.holder).await?,
            };
            if !died {
                return Ok(Taken {
                    attempts,
                    unanswered: false,
                });
            }
            if let Some(wait) = self.bus.unsettled() {
                sleep(wait).await;
                continue;
            }
            let unanswered = attempts.condemned && attempts.open.is_some();
            let alone = attempts.open.take().is_some_and(|open| open.alone);
            attempts.crashes = attempts.crashes.saturating_add(1);
            attempts.condemned |= alone && attempts.crashes >= CRASHES_MAX;
            match self.write(&attempts, revision).await {
                Ok(()) => {
                    metrics().crash();
                    return Ok(Taken {
                        attempts,
                        unanswered,
                    });
                }
                Err(PutError::Conflict) => {}
                Err(PutError::Store(error)) => return Err(error),
            }
        }
        Err(self.contended())
    }

    /// Says that this process's handler begins.
    pub(crate) async fn open(&self, alone: bool) -> Result<(), StoreError> {
        let shown = self.bus.show().await;
        shown.map_err(|error| StoreError::unavailable(&self.key, &error))?;
        let holder = self.bus.0.presence.id.clone();
        self.update(|attempts| {
            attempts.open = Some(OpenAttempt {
                holder: holder.clone(),
                alone,
            });
        })
        .await
        .map(drop)
    }

    /// Says that this process's handler ended, and how.
    pub(crate) async fn close(
        &self,
        change: impl Fn(&mut Attempts),
    ) -> Result<Attempts, StoreError> {
        let holder = &self.bus.0.presence.id;
        self.update(|attempts| {
            if attempts
                .open
                .as_ref()
                .is_some_and(|open| open.holder == *holder)
            {
                attempts.open = None;
            }
            change(attempts);
        })
        .await
    }

    /// The message will not come again.
    pub(crate) async fn forget(&self) {
        if let Err(error) = self.bus.0.store.delete(ATTEMPTS, &self.key).await {
            tracing::debug!(%error, "`{}` stays until it expires: {error}", self.key);
        }
    }

    /// The record as it stands, and its revision.
    pub(crate) async fn read(&self) -> Result<(Attempts, u64), StoreError> {
        let found = self
            .bus
            .0
            .store
            .get::<Attempts>(ATTEMPTS, &self.key)
            .await?;
        Ok(found.map_or_else(Default::default, |found| (found.body, found.revision)))
    }

    async fn update(&self, change: impl Fn(&mut Attempts)) -> Result<Attempts, StoreError> {
        for _ in 0..CONFLICTS_MAX {
            let (mut attempts, revision) = self.read().await?;
            change(&mut attempts);
            match self.write(&attempts, revision).await {
                Ok(()) => return Ok(attempts),
                Err(PutError::Conflict) => {}
                Err(PutError::Store(error)) => return Err(error),
            }
        }
        Err(self.contended())
    }

    async fn write(&self, attempts: &Attempts, revision: u64) -> Result<(), PutError> {
        let store = &self.bus.0.store;
        store
            .put(ATTEMPTS, &self.key, attempts, Some(revision))
            .await
            .map(drop)
    }

    fn contended(&self) -> StoreError {
        StoreError::unavailable(&self.key, &"others write it all the time")
    }
}

/// Counts a failure that may be gone the next time.
pub(crate) fn count_transient(attempts: &mut Attempts, now: Timestamp) {
    attempts.transient = attempts.transient.saturating_add(1);
    attempts.since.get_or_insert(now);
}

#[cfg(test)]
mod tests;
