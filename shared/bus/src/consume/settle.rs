//! How a message ends: an acknowledgment, another try later, or a dead letter.

use std::{sync::PoisonError, time::Duration};

use bytes::Bytes;
use model::event::Attempts;
use tokio::time::timeout;
use tracing::Span;

use super::{Arrived, Consume, Hold, Server};
use crate::{Handler, attempts::count_transient, error::StoreError, random};

/// The longest delay before a message is tried again.
const DELAY_MAX: Duration = Duration::from_mins(10);
/// How long recording an ending may keep a stopping process.
const ENDING: Duration = Duration::from_secs(2);
/// From this failure on a retry is worth a warning.
const WARN_FROM: u32 = 5;

/// How a message ended.
pub(super) enum End {
    Done,
    /// Nothing to handle: a deletion, a type of a later version, a record replaced long ago.
    Skipped(&'static str),
    Retry(anyhow::Error),
    /// There was no room for it.
    Later(Duration),
    Reject(anyhow::Error),
    /// The process stops: somebody else shall have it at once.
    Stopped,
}

// === impl Server ===

impl<H: Handler> Server<H> {
    /// Gives a message back that was not looked at, since the process stops.
    pub(crate) async fn give_back(&self, hold: &Hold) {
        self.note_ending(hold).await;
        self.send(hold, Bytes::from_static(b"-NAK")).await;
    }

    /// Does what follows from how a message ended.
    pub(super) async fn settle(&self, arrived: &Arrived, hold: &Hold, end: End) -> &'static str {
        if matches!(end, End::Retry(_) | End::Reject(_)) {
            Span::current().record("otel.status_code", "ERROR");
        }
        match end {
            End::Done => self.end(hold, Bytes::from_static(b"+ACK"), "done").await,
            End::Skipped(why) => self.end(hold, Bytes::from_static(b"+ACK"), why).await,
            End::Stopped => {
                self.give_back(hold).await;
                "stopped"
            }
            End::Retry(error) => self.later(arrived, hold, error).await,
            End::Later(pause) => {
                self.note_ending(hold).await;
                self.send(hold, nak(pause)).await;
                "later"
            }
            End::Reject(error) => self.reject(arrived, hold, &error).await,
        }
    }

    /// The message is done with.
    async fn end(&self, hold: &Hold, how: Bytes, outcome: &'static str) -> &'static str {
        self.panics
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&hold.sequence());
        self.send(hold, how).await;
        if hold.is_recorded() {
            // After the acknowledgment: between the two, a message without a record would be one
            // whose handler died.
            self.ledger(hold.sequence()).forget().await;
        }
        outcome
    }

    async fn later(&self, arrived: &Arrived, hold: &Hold, error: anyhow::Error) -> &'static str {
        let now = self.cx.now();
        let counted = self
            .ledger(hold.sequence())
            .close(|attempts| count_transient(attempts, now))
            .await;
        let attempts = counted.unwrap_or_else(|lost| {
            tracing::debug!(error = %lost, "a failure is not recorded: {lost}");
            let transient = u32::try_from(arrived.place.delivered).unwrap_or(u32::MAX);
            Attempts {
                transient,
                ..Attempts::default()
            }
        });
        let delay = backoff(self.bus.config().retry(), attempts.transient);
        self.say_retry(arrived, attempts.transient, &error, delay);
        self.send(hold, nak(delay)).await;
        "retry"
    }

    async fn reject(&self, arrived: &Arrived, hold: &Hold, error: &anyhow::Error) -> &'static str {
        let attempts = if hold.is_recorded() {
            let read = self.ledger(hold.sequence()).read().await;
            read.unwrap_or_default().0
        } else {
            Attempts::default()
        };
        let cause = format!("{error:#}");
        match self
            .bus
            .bury(&self.consume, arrived, cause, &attempts)
            .await
        {
            Ok(()) => self.end(hold, Bytes::from_static(b"+TERM"), "reject").await,
            Err(refused) => {
                tracing::warn!(error = %refused, "a dead letter could not be kept: {refused}");
                self.note_ending(hold).await;
                let delay = random::jitter(DELAY_MAX.min(self.bus.config().retry() * 12));
                self.send(hold, nak(delay)).await;
                "retry"
            }
        }
    }

    /// Records that the handler ended, for a message that will come again.
    async fn note_ending(&self, hold: &Hold) {
        if !self.bus.is_connected() {
            return;
        }
        let ledger = self.ledger(hold.sequence());
        match timeout(ENDING, ledger.close(|_| {})).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "an ending is not recorded: {error}"),
            Err(_) => tracing::debug!("an ending is not recorded in time"),
        }
    }

    async fn send(&self, hold: &Hold, how: Bytes) {
        if let Some(handle) = hold.handle() {
            self.bus.0.wire.send(handle, how).await;
        }
    }

    fn say_retry(&self, arrived: &Arrived, failures: u32, error: &anyhow::Error, delay: Duration) {
        let Consume {
            stream, durable, ..
        } = &self.consume;
        let sequence = arrived.place.stream_sequence;
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        if failures >= WARN_FROM {
            tracing::warn!(
                delay_ms,
                "`{stream}/{durable}` message {sequence} later: {error:#}"
            );
        } else {
            tracing::info!(
                delay_ms,
                "`{stream}/{durable}` message {sequence} later: {error:#}"
            );
        }
    }
}

// === impl End ===

impl End {
    /// Whether trying again may help.
    pub(super) fn of(error: StoreError) -> Self {
        if error.is_permanent() || matches!(error, StoreError::Dangling { .. }) {
            Self::Reject(error.into())
        } else {
            Self::Retry(error.into())
        }
    }
}

/// `min(2^n x first, 10 minutes)`, with jitter.
fn backoff(first: Duration, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    random::jitter(first.saturating_mul(2_u32.pow(doublings)).min(DELAY_MAX))
}

/// Asks for the message again after a while.
fn nak(delay: Duration) -> Bytes {
    format!("-NAK {{\"delay\": {}}}", delay.as_nanos()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_come_later_and_later() {
        let first = Duration::from_secs(5);
        assert!(backoff(first, 1) <= first && backoff(first, 1) >= first / 2);
        assert!(backoff(first, 4) >= Duration::from_secs(20));
        assert!(backoff(first, u32::MAX) <= DELAY_MAX);
    }
}
