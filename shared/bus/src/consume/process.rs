//! One message: look at the attempts before, decode, handle, write, publish. What follows from how
//! that ended is in `settle`.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use chassis::{Cx, Lost, telemetry};
use futures::FutureExt;
use model::event::{Attempts, Priority};
use tokio::time::{Instant, sleep};
use tracing::{Instrument, Span, field};

use super::{Arrived, Consume, Held, Hold, message::Identity, settle::End};
use crate::{
    Bus, Delivery, Failure, GivenUp, Handler, Input, Outcome, Slots,
    attempts::{CRASHES_MAX, Ledger, Taken},
    dlq,
    error::{BusError, PutError, StoreError},
    handler::Emit,
    metrics::metrics,
    publish::publish,
    random,
    slots::Slot,
    store::is_marker,
    subject,
};

/// How often a handler runs again at once after another wrote first.
const CONFLICTS_MAX: u32 = 5;
/// Pause before a handler runs again.
const CONFLICT_PAUSE: Duration = Duration::from_millis(20);
/// A message whose handler panics so often in this process is a dead letter.
const PANICS_MAX: u32 = 3;
/// Pause before a full stream is tried again.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// How long a claim that seems to be gone may take to appear.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// A consumer's handler with what is needed around it.
pub(crate) struct Server<H> {
    pub(crate) bus: Bus,
    pub(crate) consume: Consume,
    pub(crate) held: Held,
    /// The slots that its messages share with those of other consumers.
    share: Option<(Slots, Priority)>,
    pub(super) cx: Cx,
    handler: Arc<H>,
    /// How often a message's handler panicked, by sequence.
    pub(super) panics: Mutex<HashMap<u64, u32>>,
}

// === impl Server ===

impl<H: Handler> Server<H> {
    pub(crate) fn new(
        bus: Bus,
        cx: Cx,
        consume: Consume,
        share: Option<(Slots, Priority)>,
        handler: Arc<H>,
    ) -> Self {
        let held = bus.0.held(&consume.stream, &consume.durable);
        Self {
            bus,
            consume,
            held,
            share,
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
                end = self.run(&arrived, &hold) => end,
                () = self.stopped(&hold) => End::Stopped,
            };
            let outcome = self.settle(&arrived, &hold, end).await;
            metrics().consumed(&self.consume.durable, outcome, started.elapsed());
        }
        .instrument(span.clone())
        .await;
    }

    /// Records what this process works on, for it may have been away for so long that others take
    /// it for dead.
    pub(crate) async fn announce(&self) {
        for sequence in self.held.unrecorded() {
            if let Err(error) = self.ledger(sequence).open(false).await {
                tracing::debug!(%error, "message {sequence} is not announced: {error}");
            }
        }
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

    /// Ends when the process stops, and for a handler that began when the grace is over; there is
    /// none for one that works on what is not ours any more.
    async fn stopped(&self, hold: &Hold) {
        self.cx.stopped().await;
        if hold.has_begun() {
            tokio::select! {
                () = sleep(self.bus.config().grace()) => {}
                () = self.cx.aborted() => {}
            }
        }
    }

    pub(super) fn ledger(&self, sequence: u64) -> Ledger {
        let Consume {
            stream, durable, ..
        } = &self.consume;
        Ledger::new(&self.bus, stream, durable, sequence)
    }

    async fn slot(&self) -> Option<Slot> {
        let (slots, class) = self.share.as_ref()?;
        slots.take(*class).await
    }

    async fn run(&self, arrived: &Arrived, hold: &Hold) -> End {
        let _slot = self.slot().await;
        if is_marker(&arrived.headers) {
            return End::Skipped("deleted");
        }
        if !dlq::is_for(&self.consume.durable, arrived) {
            return End::Skipped("for_another");
        }
        let identity = match arrived.identity() {
            Ok(identity) => identity,
            Err(cause) => return End::Reject(anyhow!(cause)),
        };
        let taken = match self.take(arrived, hold).await {
            Ok(taken) => taken,
            Err(error) => return End::of(error),
        };
        let body = match self.body(arrived).await {
            Ok(Some(body)) => body,
            Ok(None) => return End::Skipped("superseded"),
            Err(error) => return End::of(error),
        };
        let opened = Opened {
            arrived,
            identity,
            body,
            alone: H::IS_HAZARDOUS && taken.attempts.crashes.saturating_add(1) >= CRASHES_MAX,
        };
        if H::IS_HAZARDOUS && taken.attempts.condemned {
            let crashes = taken.attempts.crashes;
            let cause = format!("it killed its process {crashes} times, the last time alone");
            if taken.unanswered {
                return End::Reject(anyhow!(cause));
            }
            return self.give_up(&opened, hold, GivenUp::Broken(cause)).await;
        }
        match self.handle(&opened, hold).await {
            End::Retry(error) => match self.too_long(&taken.attempts) {
                Some(tried) => {
                    let error = error.context(format!("given up after {} s", tried.as_secs()));
                    let why = GivenUp::Away(format!("{error:#}"));
                    self.give_up(&opened, hold, why).await
                }
                None => End::Retry(error),
            },
            End::Reject(error) => {
                let why = GivenUp::Broken(format!("{error:#}"));
                self.give_up(&opened, hold, why).await
            }
            end => end,
        }
    }

    /// For how long a message has failed, where that is longer than it is tried.
    fn too_long(&self, attempts: &Attempts) -> Option<Duration> {
        let since = attempts.since.filter(|_| H::GIVES_UP)?;
        let tried = Duration::try_from(self.cx.now().duration_since(since)).ok()?;
        (tried > self.bus.config().retry_for()).then_some(tried)
    }

    async fn handle(&self, opened: &Opened<'_>, hold: &Hold) -> End {
        for _ in 0..CONFLICTS_MAX {
            let delivery = match opened.delivery::<H::Input>() {
                Ok(Some(delivery)) => delivery,
                Ok(None) => return End::Skipped("unknown"),
                Err(error) => return End::Reject(error),
            };
            let running = self.call(delivery, opened.arrived);
            let outcome = match self.attempt(hold, opened.alone, running).await {
                Ok(outcome) => outcome,
                Err(Failure::Retry(error)) => return End::Retry(error),
                Err(Failure::Later(pause)) => return End::Later(pause),
                Err(Failure::Reject(error)) => return End::Reject(error),
            };
            match self.finish(outcome).await {
                Ok(end) => return end,
                Err(Conflict) => sleep(random::jitter(CONFLICT_PAUSE)).await,
            }
        }
        End::Retry(anyhow!("another wrote first, {CONFLICTS_MAX} times"))
    }

    /// What became of the attempt before, where there was one.
    async fn take(&self, arrived: &Arrived, hold: &Hold) -> Result<Taken, StoreError> {
        if arrived.place.delivered <= 1 {
            return Ok(Taken::default());
        }
        hold.record();
        self.ledger(hold.sequence()).take().await
    }

    /// Runs a handler beside others, or alone. While it runs the record says so.
    async fn attempt(
        &self,
        hold: &Hold,
        alone: bool,
        running: impl Future<Output = Result<Outcome, Failure>>,
    ) -> Result<Outcome, Failure> {
        let passed = self.bus.0.gate.pass(alone).await;
        let ledger = self.ledger(hold.sequence());
        if hold.is_recorded() {
            ledger.open(alone).await?;
        }
        hold.begin();
        let result = running.await;
        if hold.is_recorded()
            && let Err(error) = ledger.close(|_| {}).await
        {
            tracing::debug!(%error, "a handler's end is not recorded: {error}");
        }
        drop(passed);
        result
    }

    /// Lets the handler answer for a message that will not be handled any more.
    async fn give_up(&self, opened: &Opened<'_>, hold: &Hold, why: GivenUp) -> End {
        for _ in 0..CONFLICTS_MAX {
            let Ok(Some(delivery)) = opened.delivery::<H::Input>() else {
                break;
            };
            let answering = AssertUnwindSafe(self.handler.given_up(delivery, &why));
            let answering = answering.catch_unwind().map(|answer| {
                answer.unwrap_or_else(|panic| Err(Failure::Reject(anyhow!(panic_text(&*panic)))))
            });
            match self.attempt(hold, opened.alone, answering).await {
                Ok(outcome) => match self.finish(outcome).await {
                    Ok(End::Retry(error)) => return End::Retry(error),
                    Ok(_) => break,
                    Err(Conflict) => sleep(random::jitter(CONFLICT_PAUSE)).await,
                },
                Err(Failure::Retry(error)) => {
                    return End::Retry(error.context(why.cause().to_owned()));
                }
                Err(Failure::Later(pause)) => return End::Later(pause),
                Err(Failure::Reject(error)) => {
                    tracing::warn!("nobody answers for a message that is given up: {error:#}");
                    break;
                }
            }
        }
        End::Reject(anyhow!(why.cause().to_owned()))
    }

    async fn body(&self, arrived: &Arrived) -> Result<Option<Bytes>, StoreError> {
        let found = self.bus.resolve(arrived).await;
        if matches!(found, Err(StoreError::Dangling { .. })) {
            // In a cluster, the server that was asked may not have it yet.
            sleep(SECOND_LOOK).await;
            return self.bus.resolve(arrived).await;
        }
        found
    }

    /// Runs the handler. A panic is a bug of ours: tried again, then a dead letter.
    async fn call(
        &self,
        delivery: Delivery<H::Input>,
        arrived: &Arrived,
    ) -> Result<Outcome, Failure> {
        let running = AssertUnwindSafe(self.handler.handle(delivery)).catch_unwind();
        let panic = match running.await {
            Ok(Err(Failure::Retry(error))) if has_panicked(&error) => format!("{error:#}"),
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
                Ok(_) => {}
                Err(PutError::Conflict) => return Err(Conflict),
                Err(PutError::Store(error)) => return Ok(End::of(error)),
            }
        }
        for emit in &emits {
            match self.publish(emit).await {
                Ok(()) => {}
                Err(error @ BusError::Refused { .. }) => return Ok(End::Reject(error.into())),
                Err(BusError::Store(error)) => return Ok(End::of(error)),
                Err(error) => return Ok(End::Retry(error.into())),
            }
        }
        self.bus.0.store.discard(&writes, &discards);
        Ok(End::Done)
    }

    /// Publishes an event, and waits where its stream is full: this consumer takes nothing more
    /// then, and others go on.
    async fn publish(&self, emit: &Emit) -> Result<(), BusError> {
        loop {
            match publish(&self.bus, emit).await {
                Err(BusError::Full(_)) if !self.cx.is_stopping() => {
                    self.cx.sleep(random::jitter(FULL_PAUSE)).await;
                }
                other => return other,
            }
        }
    }
}

/// A message that can be handled.
struct Opened<'a> {
    arrived: &'a Arrived,
    identity: Identity,
    body: Bytes,
    /// Whether it must be handled alone.
    alone: bool,
}

struct Conflict;

// === impl Opened ===

impl Opened<'_> {
    /// What the handler gets. `None`: a type that this version does not know.
    fn delivery<I: Input>(&self) -> anyhow::Result<Option<Delivery<I>>> {
        let Self {
            arrived,
            identity,
            body,
            alone,
        } = self;
        let decoded = I::decode(&identity.kind, body)
            .with_context(|| format!("body of type `{}`", identity.kind))?;
        Ok(decoded.map(|body| Delivery {
            tenant: identity.tenant.clone(),
            body,
            id: identity.id.clone(),
            subject: arrived.subject.clone(),
            sequence: arrived.place.stream_sequence,
            key: identity.key.clone(),
            attempt: arrived.place.delivered,
            alone: *alone,
            retried: dlq::is_retried(arrived),
        }))
    }
}

/// Whether an error says that what the handler had computed elsewhere panicked.
fn has_panicked(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| cause.downcast_ref::<Lost>() == Some(&Lost::Panicked))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}
