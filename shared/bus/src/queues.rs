//! How full the queues are that this process serves: asked regularly, shown as metrics and on the
//! page of health.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chassis::Cx;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::{
    QueueState,
    event::{CLAIM_OBJECTS, DLQ},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    Bus, Consume,
    error::{BusError, StoreError},
    metrics::metrics,
    random,
    reader::state,
    topology::{consumers, object_stream},
    wire::{Raw, WireError},
};

/// How many queues are asked for at once.
const PARALLEL: usize = 16;
/// How often the server is asked.
const EVERY: Duration = Duration::from_secs(15);
/// How long messages that went by are told of.
const TOLD: Duration = Duration::from_hours(24);

/// A consumer's queue, as it was a few seconds ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The stream.
    pub stream: String,
    /// The consumer.
    pub consumer: String,
    /// Messages that wait.
    pub pending: u64,
    /// Messages that are being handled, by any process.
    pub in_flight: u64,
    /// How long the oldest of them all is there.
    pub oldest_age: Option<Duration>,
}

/// Messages that a full or old stream dropped before a consumer was given them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WentBy {
    /// The stream.
    pub stream: String,
    /// The consumer.
    pub consumer: String,
    /// How many, since this process began to serve it.
    pub messages: u64,
}

// === impl Queue ===

impl Queue {
    /// The queue as records and pages show it.
    pub fn state(&self) -> QueueState {
        QueueState {
            stream: self.stream.clone(),
            consumer: self.consumer.clone(),
            pending: self.pending,
            in_flight: self.in_flight,
            oldest_age_seconds: self.oldest_age.map(|age| age.as_secs()),
        }
    }
}

/// The queues of a process.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// By stream and consumer: what is served, and by whom.
    served: Mutex<BTreeMap<(String, String), Served>>,
    started: AtomicBool,
}

#[derive(Debug)]
struct Served {
    cx: Cx,
    filter: String,
    last: Option<Queue>,
    losses: Losses,
}

/// What went by a consumer.
#[derive(Debug, Default)]
struct Losses {
    messages: u64,
    /// Those up to this sequence are counted.
    counted: u64,
    at: Option<Instant>,
}

impl Bus {
    /// The queues of the consumers that this process serves, as they were asked for last; at most
    /// some 15 s old.
    pub fn queues(&self) -> Vec<Queue> {
        self.0.queues.map(|served| {
            let known = served.values().filter_map(|one| one.last.clone());
            known.collect()
        })
    }

    /// The consumers that this process serves and that lost messages within a day. Empty is healthy.
    pub fn went_by(&self) -> Vec<WentBy> {
        self.0.queues.map(|served| {
            let lost = served.iter().filter_map(|((stream, consumer), one)| {
                let lately = one.losses.at.is_some_and(|at| at.elapsed() <= TOLD);
                lately.then(|| WentBy {
                    stream: stream.clone(),
                    consumer: consumer.clone(),
                    messages: one.losses.messages,
                })
            });
            lost.collect()
        })
    }

    /// The queues of all consumers that belong to services, also of those that nobody serves now:
    /// asked for at once.
    pub async fn survey(&self) -> Result<Vec<Queue>, BusError> {
        let asked = stream::iter(consumers())
            .map(async |spec| {
                let queue = self.queue(&spec.stream, &spec.durable, &spec.filter);
                queue.await.map(|(queue, _)| queue)
            })
            .buffered(PARALLEL);
        let asked = asked.try_collect().await;
        asked.map_err(|error| StoreError::unavailable("consumers", &error).into())
    }

    /// Watches a consumer's queue until `cx` stops.
    pub(crate) fn observe(&self, cx: &Cx, consume: &Consume) {
        let Consume {
            stream,
            durable,
            filter,
            ..
        } = consume;
        let one = Served {
            cx: cx.clone(),
            filter: filter.clone(),
            last: None,
            losses: Losses::default(),
        };
        self.0
            .queues
            .map(|served| served.insert((stream.clone(), durable.clone()), one));
        if self.0.queues.started.swap(true, Ordering::Relaxed) {
            return;
        }
        let bus = self.clone();
        self.0.cx.spawn("queues", async move {
            // The first look comes soon, and not at the same moment in all processes.
            let mut pause = random::jitter(EVERY / 5);
            while bus.0.cx.sleep(pause).await {
                tokio::select! {
                    () = bus.0.cx.stopped() => return,
                    () = bus.look() => {}
                }
                pause = EVERY;
            }
        });
    }

    /// Asks for everything once.
    pub(crate) async fn look(&self) {
        for (stream, durable, filter) in self.0.queues.due() {
            if !self.is_connected() {
                return;
            }
            match self.queue(&stream, &durable, &filter).await {
                Ok((queue, gap)) => {
                    metrics().queue(&queue);
                    // With a filter, the messages of other subjects would be counted.
                    let lost = self.0.queues.map(|served| {
                        let one = served.get_mut(&(stream, durable))?;
                        one.last = Some(queue.clone());
                        filter
                            .is_empty()
                            .then(|| one.losses.note(gap.unwrap_or(0..0)))
                    });
                    let Some(lost) = lost else { continue };
                    let Queue {
                        stream, consumer, ..
                    } = &queue;
                    // Also where there is none: what was never told cannot be seen to grow.
                    metrics().went_by(consumer, lost);
                    if lost > 0 {
                        tracing::warn!(
                            "{stream} dropped {lost} messages before `{consumer}` was given them"
                        );
                    }
                }
                Err(error) => tracing::debug!(%error, "queue of `{durable}`: {error}"),
            }
        }
        let claims = state(&self.0.wire, &object_stream(CLAIM_OBJECTS)).await;
        let letters = state(&self.0.wire, DLQ).await;
        if let (Ok(claims), Ok(letters)) = (claims, letters) {
            metrics().kept(claims.bytes, letters.messages);
        }
    }

    /// Asks for one queue, and for the sequences between the last message that was given and the
    /// first after it that is still held.
    async fn queue(
        &self,
        stream: &str,
        durable: &str,
        filter: &str,
    ) -> Result<(Queue, Option<Range<u64>>), WireError> {
        let wire = &self.0.wire;
        let asked = format!("CONSUMER.INFO.{stream}.{durable}");
        let info = wire.api(&asked, &Value::Null).await?;
        let number = |pointer: &str| info.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let (pending, in_flight) = (number("/num_pending"), number("/num_ack_pending"));
        let (mut oldest_age, mut gap) = (None, None);
        if pending + in_flight > 0 {
            let from = number("/ack_floor/stream_seq").saturating_add(1);
            let first = self.first_from(stream, filter, from).await?;
            let stored_at = first.as_ref().and_then(Raw::stored_at);
            let age = stored_at.map(|at| self.0.cx.now().duration_since(at));
            oldest_age = age.map(|age| Duration::try_from(age).unwrap_or_default());
            let given = number("/delivered/stream_seq");
            gap = first.map(|first| given.saturating_add(1)..first.sequence);
        }
        let queue = Queue {
            stream: stream.to_owned(),
            consumer: durable.to_owned(),
            pending,
            in_flight,
            oldest_age,
        };
        Ok((queue, gap))
    }

    /// The first message at a sequence or behind it.
    async fn first_from(
        &self,
        stream: &str,
        filter: &str,
        from: u64,
    ) -> Result<Option<Raw>, WireError> {
        let filter = if filter.is_empty() { ">" } else { filter };
        let which = json!({ "seq": from, "next_by_subj": filter });
        self.0.wire.direct(stream, &which).await
    }
}

// === impl Losses ===

impl Losses {
    /// Counts the messages of a gap that were not counted before.
    fn note(&mut self, gap: Range<u64>) -> u64 {
        let from = gap.start.max(self.counted.saturating_add(1));
        let new = gap.end.saturating_sub(from);
        if new > 0 {
            self.messages = self.messages.saturating_add(new);
            self.counted = gap.end.saturating_sub(1);
            self.at = Some(Instant::now());
        }
        new
    }
}

// === impl Queues ===

impl Queues {
    /// What to ask for; consumers that are not served any more are forgotten.
    fn due(&self) -> Vec<(String, String, String)> {
        self.map(|served| {
            served.retain(|_, one| !one.cx.is_stopping());
            let due = served.iter().map(|((stream, durable), one)| {
                (stream.clone(), durable.clone(), one.filter.clone())
            });
            due.collect()
        })
    }

    fn map<T>(&self, work: impl FnOnce(&mut BTreeMap<(String, String), Served>) -> T) -> T {
        work(&mut self.served.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
