//! One message: decode, handle, write, publish, acknowledge; or retry, or a dead letter.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use chassis::{Cx, telemetry};
use futures::FutureExt;
use model::event::DeadLetter;
use tokio::time::Instant;
use tracing::{Instrument, Span, field};

use super::{Arrived, Consume, Held, Hold, message::Identity};
use crate::{
    Bus, Delivery, Failure, Handler, Input, Outcome,
    envelope::{Attributes, Headers, MESSAGE_ID, encode},
    error::{BusError, PutError, StoreError},
    metrics::metrics,
    publish::publish,
    random,
    store::is_marker,
    subject,
    wire::WireError,
};

/// How often a handler runs again at once after another wrote first.
const CONFLICTS_MAX: u32 = 5;
/// A message whose handler panics so often in this process is a dead letter.
const PANICS_MAX: u32 = 3;
/// The longest delay before a message is tried again.
const DELAY_MAX: Duration = Duration::from_mins(10);
/// From this attempt on a retry is worth a warning.
const WARN_FROM: u64 = 5;

/// A consumer's handler with what is needed around it.
pub(crate) struct Server<H> {
    pub(crate) bus: Bus,
    pub(crate) consume: Consume,
    pub(crate) held: Held,
    cx: Cx,
    handler: Arc<H>,
    /// How often a message's handler panicked, by sequence.
    panics: Mutex<HashMap<u64, u32>>,
}

/// How a message ended.
enum End {
    Done,
    /// Nothing to handle: a deletion, a type of a later version, a record replaced long ago.
    Skipped(&'static str),
    Retry(anyhow::Error),
    Reject(anyhow::Error),
    /// The process stops: somebody else shall have it at once.
    Stopped,
}

// === impl Server ===

impl<H: Handler> Server<H> {
    pub(crate) fn new(bus: Bus, cx: Cx, consume: Consume, handler: Arc<H>) -> Self {
        let held = bus.0.held(&consume.stream, &consume.durable);
        Self {
            bus,
            consume,
            held,
            cx,
            handler,
            panics: Mutex::default(),
        }
    }

    /// Holds a message that arrived. `None`: it is held already.
    pub(crate) fn hold(&self, arrived: &Arrived) -> Option<Hold> {
        if arrived.place.delivered > 1 {
            metrics().redelivered(&self.consume.durable);
        }
        self.held
            .take(arrived.place.stream_sequence, arrived.handle.clone())
    }

    /// Handles a message to its end, in a span whose parent is the message's.
    pub(crate) async fn process(&self, arrived: Arrived, hold: Hold) {
        let started = Instant::now();
        let span = self.span(&arrived);
        let get = |name: &str| arrived.headers.get(name).map(str::to_owned);
        telemetry::set_parent(&span, telemetry::extract(&get));
        async {
            let end = tokio::select! {
                biased;
                end = self.run(&arrived) => end,
                () = self.give_up() => End::Stopped,
            };
            let outcome = self.settle(&arrived, &hold, end).await;
            metrics().consumed(&self.consume.durable, outcome, started.elapsed());
        }
        .instrument(span.clone())
        .await;
    }

    fn span(&self, arrived: &Arrived) -> Span {
        let template = subject::template(&arrived.subject);
        let Consume {
            stream, durable, ..
        } = &self.consume;
        tracing::info_span!(
            "process",
            otel.name = format!("process {template}"),
            otel.kind = "consumer",
            otel.status_code = field::Empty,
            messaging.system = "nats",
            messaging.operation.name = "process",
            messaging.operation.type = "process",
            messaging.destination.name = arrived.subject,
            messaging.destination.template = template,
            messaging.destination.subscription.name = format!("{stream}/{durable}"),
            messaging.consumer.group.name = durable,
            messaging.message.id = arrived.headers.attribute("ce-id"),
            messaging.message.body.size = arrived.body.len(),
            messaging.nats.stream_sequence = arrived.place.stream_sequence,
            messaging.nats.delivered = arrived.place.delivered,
        )
    }

    /// Ends when the process stops and the grace is over.
    async fn give_up(&self) {
        self.cx.stopped().await;
        tokio::time::sleep(self.bus.config().grace()).await;
    }

    async fn run(&self, arrived: &Arrived) -> End {
        if is_marker(&arrived.headers) {
            return End::Skipped("deleted");
        }
        let identity = match arrived.identity() {
            Ok(identity) => identity,
            Err(cause) => return End::Reject(anyhow!(cause)),
        };
        let body = match self.body(arrived).await {
            Ok(Some(body)) => body,
            Ok(None) => return End::Skipped("superseded"),
            Err(error) => return End::of(error),
        };
        for _ in 0..CONFLICTS_MAX {
            let delivery = match Self::delivery(arrived, &identity, &body) {
                Ok(Some(delivery)) => delivery,
                Ok(None) => return End::Skipped("unknown"),
                Err(end) => return end,
            };
            let outcome = match self.call(delivery, arrived).await {
                Ok(outcome) => outcome,
                Err(Failure::Retry(error)) => return End::Retry(error),
                Err(Failure::Reject(error)) => return End::Reject(error),
            };
            match self.finish(outcome).await {
                Ok(end) => return end,
                Err(Conflict) => {
                    tokio::time::sleep(random::jitter(Duration::from_millis(20))).await;
                }
            }
        }
        End::Retry(anyhow!("another wrote first, {CONFLICTS_MAX} times"))
    }

    async fn body(&self, arrived: &Arrived) -> Result<Option<Bytes>, StoreError> {
        match subject::key_of(&arrived.subject) {
            Some((bucket, key)) => {
                let store = &self.bus.0.store;
                store
                    .body(bucket, key, &arrived.headers, arrived.body.clone())
                    .await
            }
            None => Ok(Some(arrived.body.clone())),
        }
    }

    fn delivery(
        arrived: &Arrived,
        identity: &Identity,
        body: &[u8],
    ) -> Result<Option<Delivery<H::Input>>, End> {
        let decoded = H::Input::decode(&identity.kind, body)
            .with_context(|| format!("body of type `{}`", identity.kind))
            .map_err(End::Reject)?;
        Ok(decoded.map(|body| Delivery {
            tenant: identity.tenant.clone(),
            body,
            id: identity.id.clone(),
            subject: arrived.subject.clone(),
            sequence: arrived.place.stream_sequence,
            key: identity.key.clone(),
            attempt: arrived.place.delivered,
        }))
    }

    /// Runs the handler. A panic is a bug of ours: tried again, then a dead letter.
    async fn call(
        &self,
        delivery: Delivery<H::Input>,
        arrived: &Arrived,
    ) -> Result<Outcome, Failure> {
        let running = AssertUnwindSafe(self.handler.handle(delivery)).catch_unwind();
        let panic = match running.await {
            Ok(result) => return result,
            Err(panic) => panic_text(&*panic),
        };
        let sequence = arrived.place.stream_sequence;
        let count = {
            let mut panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
            let count = panics.entry(sequence).or_default();
            *count += 1;
            *count
        };
        let error = anyhow!("the handler panicked: {panic}");
        tracing::error!(error = %error, "handling message {sequence}: {error}");
        Err(if count < PANICS_MAX {
            Failure::Retry(error)
        } else {
            Failure::Reject(error)
        })
    }

    /// Writes records, then publishes events. `Conflict`: run the handler again.
    async fn finish(&self, outcome: Outcome) -> Result<End, Conflict> {
        let Outcome {
            writes,
            emits,
            discards,
        } = outcome;
        for write in &writes {
            match self.bus.0.store.write(write).await {
                Ok(written) => self.bus.0.janitor.replaced(written),
                Err(PutError::Conflict) => return Err(Conflict),
                Err(PutError::Store(error)) => return Ok(End::of(error)),
            }
        }
        for emit in &emits {
            let published = publish(&self.bus.0.wire, emit, self.cx.now()).await;
            match published {
                Ok(()) => {}
                Err(error @ BusError::Refused { .. }) => return Ok(End::Reject(error.into())),
                Err(error) => return Ok(End::Retry(error.into())),
            }
        }
        self.bus.0.janitor.discard(&writes, discards);
        Ok(End::Done)
    }

    async fn settle(&self, arrived: &Arrived, hold: &Hold, end: End) -> &'static str {
        let failed = matches!(end, End::Retry(_) | End::Reject(_));
        if failed {
            Span::current().record("otel.status_code", "ERROR");
        }
        match end {
            End::Done => {
                self.acknowledge(hold, Bytes::from_static(b"+ACK"), "done")
                    .await
            }
            End::Skipped(why) => {
                self.acknowledge(hold, Bytes::from_static(b"+ACK"), why)
                    .await
            }
            End::Stopped => {
                self.acknowledge(hold, Bytes::from_static(b"-NAK"), "stopped")
                    .await
            }
            End::Retry(error) => {
                let attempt = arrived.place.delivered;
                let delay = backoff(self.bus.config().retry(), attempt);
                self.say_retry(arrived, &error, delay);
                let nak = format!("-NAK {{\"delay\": {}}}", delay.as_nanos());
                self.acknowledge(hold, nak.into(), "retry").await
            }
            End::Reject(error) => match self.bury(arrived, &error).await {
                Ok(()) => {
                    self.acknowledge(hold, Bytes::from_static(b"+TERM"), "reject")
                        .await
                }
                Err(refused) => {
                    tracing::warn!(error = %refused, "a dead letter could not be kept: {refused}");
                    let delay = random::jitter(DELAY_MAX.min(self.bus.config().retry() * 12));
                    let nak = format!("-NAK {{\"delay\": {}}}", delay.as_nanos());
                    self.acknowledge(hold, nak.into(), "retry").await
                }
            },
        }
    }

    async fn acknowledge(&self, hold: &Hold, how: Bytes, outcome: &'static str) -> &'static str {
        if outcome != "retry" {
            let mut panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
            panics.remove(&hold.sequence());
        }
        if let Some(handle) = hold.handle() {
            self.bus.0.wire.send(handle, how).await;
        }
        outcome
    }

    fn say_retry(&self, arrived: &Arrived, error: &anyhow::Error, delay: Duration) {
        let Consume {
            stream, durable, ..
        } = &self.consume;
        let sequence = arrived.place.stream_sequence;
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        if arrived.place.delivered >= WARN_FROM {
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

    /// Keeps the message as it was, with why it failed. Doing it again changes nothing.
    async fn bury(&self, arrived: &Arrived, error: &anyhow::Error) -> Result<(), WireError> {
        let Consume {
            stream, durable, ..
        } = &self.consume;
        let sequence = arrived.place.stream_sequence;
        let cause = format!("{error:#}");
        tracing::warn!("`{stream}/{durable}` message {sequence} is a dead letter: {cause}");
        let pairs = arrived.headers.iter();
        let letter = DeadLetter {
            stream: stream.clone(),
            sequence,
            consumer: durable.clone(),
            subject: arrived.subject.clone(),
            cause,
            headers: pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: arrived.body.to_vec(),
            at: self.cx.now(),
        };
        let body = encode(&letter).map_err(|error| WireError::Other(error.to_string()))?;
        // Two consumers may give up on the same message: each has its letter.
        let id = format!("dlq:{stream}:{durable}:{sequence}");
        let mut headers = Headers::default().with(MESSAGE_ID, &*id);
        headers.describe(&Attributes {
            id: &id,
            kind: "io.tidewaiter.dead-letter.v1",
            source: "/bus",
            tenant: subject::tenant(&arrived.subject).as_ref(),
            time: letter.at,
        });
        self.bus
            .0
            .wire
            .store(&format!("tw.dlq.{stream}.{durable}"), &headers, body)
            .await?;
        metrics().dead_letter(durable);
        Ok(())
    }
}

struct Conflict;

// === impl End ===

impl End {
    /// Whether trying again may help.
    fn of(error: StoreError) -> Self {
        if error.is_permanent() {
            Self::Reject(error.into())
        } else {
            Self::Retry(error.into())
        }
    }
}

/// `min(2^n x first, 10 minutes)`, with jitter.
fn backoff(first: Duration, attempt: u64) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(16);
    random::jitter(first.saturating_mul(2_u32.pow(doublings)).min(DELAY_MAX))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_come_later_and_later() {
        let first = Duration::from_secs(5);
        assert!(backoff(first, 1) <= first && backoff(first, 1) >= first / 2);
        assert!(backoff(first, 4) >= Duration::from_secs(20));
        assert!(backoff(first, u64::MAX) <= DELAY_MAX);
    }
}
