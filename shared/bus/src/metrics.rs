//! The crate's metrics. Labels have few values: templates of subjects, names of consumers,
//! outcomes. What OpenTelemetry's conventions for messaging name has their names and attributes.

use std::{sync::OnceLock, time::Duration};

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram, UpDownCounter},
};

use tokio::sync::watch;

use crate::{Queue, wire::Link};

/// Attempts to store a message in a stream.
const SENT: &str = "messaging.client.sent.messages";
/// How long they took, seconds.
const SEND_DURATION: &str = "messaging.client.operation.duration";
/// Messages handled, by consumer and by our `outcome`.
const CONSUMED: &str = "messaging.client.consumed.messages";
/// From arrival to acknowledgment, seconds, by consumer.
const PROCESS_DURATION: &str = "messaging.process.duration";
/// Messages that came more than once, by `consumer`.
const REDELIVERED: &str = "tidewaiter.bus.redelivered";
/// Dead letters, by `consumer`.
const DEAD_LETTERS: &str = "tidewaiter.bus.dead_letters";
/// Deaths of processes that were found by who took their work.
const CRASHES: &str = "tidewaiter.bus.crashes";
/// Publishes that a full stream refused, by `template`.
const REFUSED: &str = "tidewaiter.bus.refused";
/// Messages that wait, by `consumer`.
const QUEUE_DEPTH: &str = "tidewaiter.bus.queue.depth";
/// Messages that are being handled by any process, by `consumer`.
const QUEUE_IN_FLIGHT: &str = "tidewaiter.bus.queue.in_flight";
/// Since the oldest message of a queue was stored, seconds, by `consumer`; 0 where it is empty.
const QUEUE_OLDEST: &str = "tidewaiter.bus.queue.oldest_age";
/// Messages that a stream dropped before they were given to a `consumer`; several processes that
/// serve it count the same ones.
const WENT_BY: &str = "tidewaiter.bus.went_by";
/// Dead letters that nobody dropped or retried.
const LETTERS: &str = "tidewaiter.bus.dead_letters_kept";
/// Bytes of message bodies that are kept as objects.
const CLAIM_BYTES: &str = "tidewaiter.bus.claims";
/// Leases taken from a holder that stopped renewing.
const TAKEOVERS: &str = "tidewaiter.bus.lease_takeovers";
/// Whether there is a connection to NATS: 1 or 0.
const CONNECTED: &str = "tidewaiter.bus.connected";
/// Events in the spool.
const SPOOL_DEPTH: &str = "tidewaiter.spool.depth";
/// Bytes of the spool on disk.
const SPOOL_BYTES: &str = "tidewaiter.spool.size";

/// Bounds that the conventions advise, seconds.
const SEND_BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// The same, with more above: a large image takes minutes.
const PROCESS_BOUNDS: [f64; 17] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 60.0, 300.0,
    900.0,
];
/// Events that the spool did not take, by `why`: full or disk.
const SPOOL_REFUSED: &str = "tidewaiter.spool.refused";

pub(crate) struct Metrics {
    sent: Counter<u64>,
    send_duration: Histogram<f64>,
    consumed: Counter<u64>,
    process_duration: Histogram<f64>,
    redelivered: Counter<u64>,
    dead_letters: Counter<u64>,
    crashes: Counter<u64>,
    refused: Counter<u64>,
    went_by: Counter<u64>,
    depth: Gauge<u64>,
    in_flight: Gauge<u64>,
    oldest: Gauge<f64>,
    letters: Gauge<u64>,
    claims: Gauge<u64>,
    takeovers: Counter<u64>,
    spool_depth: UpDownCounter<i64>,
    spool_bytes: UpDownCounter<i64>,
    spool_refused: Counter<u64>,
}

/// The metrics of this process.
pub(crate) fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let meter = global::meter("bus");
        let counter = |name, unit, meaning| {
            let counter = meter.u64_counter(name).with_unit(unit);
            counter.with_description(meaning).build()
        };
        let gauge = |name, unit, meaning| {
            let gauge = meter.u64_gauge(name).with_unit(unit);
            gauge.with_description(meaning).build()
        };
        let histogram = |name, unit, meaning, bounds: &[f64]| {
            let histogram = meter.f64_histogram(name).with_unit(unit);
            let histogram = histogram.with_boundaries(bounds.to_vec());
            histogram.with_description(meaning).build()
        };
        let level = |name, unit, meaning| {
            let level = meter.i64_up_down_counter(name).with_unit(unit);
            level.with_description(meaning).build()
        };
        Metrics {
            sent: counter(SENT, "{message}", "Attempts to store a message in a stream"),
            send_duration: histogram(
                SEND_DURATION,
                "s",
                "How long it takes to store a message",
                &SEND_BOUNDS,
            ),
            consumed: counter(CONSUMED, "{message}", "Messages handled"),
            process_duration: histogram(
                PROCESS_DURATION,
                "s",
                "From a message's arrival to its acknowledgment",
                &PROCESS_BOUNDS,
            ),
            redelivered: counter(REDELIVERED, "{message}", "Messages that came again"),
            dead_letters: counter(
                DEAD_LETTERS,
                "{message}",
                "Messages that became dead letters",
            ),
            crashes: counter(
                CRASHES,
                "{crash}",
                "Deaths of processes found by their heirs",
            ),
            refused: counter(REFUSED, "{message}", "Publishes that a full stream refused"),
            went_by: counter(WENT_BY, "{message}", "Messages that a consumer missed"),
            depth: gauge(QUEUE_DEPTH, "{message}", "Messages that wait"),
            in_flight: gauge(QUEUE_IN_FLIGHT, "{message}", "Messages being handled"),
            oldest: meter
                .f64_gauge(QUEUE_OLDEST)
                .with_unit("s")
                .with_description("Since the oldest message of a queue was stored")
                .build(),
            letters: gauge(LETTERS, "{message}", "Dead letters that wait for somebody"),
            claims: gauge(CLAIM_BYTES, "By", "Bytes of bodies kept as objects"),
            takeovers: counter(TAKEOVERS, "{lease}", "Leases taken from a silent holder"),
            spool_depth: level(SPOOL_DEPTH, "{event}", "Events accepted and not published"),
            spool_bytes: level(SPOOL_BYTES, "By", "Bytes of the spool on disk"),
            spool_refused: counter(
                SPOOL_REFUSED,
                "{event}",
                "Events that the spool did not take",
            ),
        }
    })
}

// === impl Metrics ===

impl Metrics {
    /// An attempt to store a message ended; `error` is the kind of failure.
    pub(crate) fn sent(&self, template: String, took: Duration, error: Option<&'static str>) {
        let mut labels = operation("publish");
        labels.push(KeyValue::new("messaging.destination.template", template));
        labels.extend(error.map(|kind| KeyValue::new("error.type", kind)));
        self.sent.add(1, &labels);
        labels.push(KeyValue::new("messaging.operation.type", "send"));
        self.send_duration.record(took.as_secs_f64(), &labels);
    }

    /// A message was handled; `outcome` says how it ended.
    pub(crate) fn consumed(&self, consumer: &str, outcome: &'static str, took: Duration) {
        let mut labels = operation("process");
        let group = KeyValue::new("messaging.consumer.group.name", consumer.to_owned());
        labels.push(group);
        if matches!(outcome, "retry" | "reject") {
            labels.push(KeyValue::new("error.type", outcome));
        }
        self.process_duration.record(took.as_secs_f64(), &labels);
        labels.push(KeyValue::new("outcome", outcome));
        self.consumed.add(1, &labels);
    }

    pub(crate) fn redelivered(&self, consumer: &str) {
        self.redelivered
            .add(1, &[KeyValue::new("consumer", consumer.to_owned())]);
    }

    pub(crate) fn dead_letter(&self, consumer: &str) {
        self.dead_letters
            .add(1, &[KeyValue::new("consumer", consumer.to_owned())]);
    }

    pub(crate) fn crash(&self) {
        self.crashes.add(1, &[]);
    }

    pub(crate) fn refused(&self, template: &str) {
        self.refused
            .add(1, &[KeyValue::new("template", template.to_owned())]);
    }

    pub(crate) fn went_by(&self, consumer: &str, messages: u64) {
        let labels = [KeyValue::new("consumer", consumer.to_owned())];
        self.went_by.add(messages, &labels);
    }

    pub(crate) fn queue(&self, queue: &Queue) {
        let labels = [KeyValue::new("consumer", queue.consumer.clone())];
        self.depth.record(queue.pending, &labels);
        self.in_flight.record(queue.in_flight, &labels);
        let oldest = queue.oldest_age.unwrap_or_default();
        self.oldest.record(oldest.as_secs_f64(), &labels);
    }

    pub(crate) fn kept(&self, claim_bytes: u64, letters: u64) {
        self.claims.record(claim_bytes, &[]);
        self.letters.record(letters, &[]);
    }

    pub(crate) fn takeover(&self) {
        self.takeovers.add(1, &[]);
    }

    pub(crate) fn spool(&self, events: i64, bytes: i64) {
        self.spool_depth.add(events, &[]);
        self.spool_bytes.add(bytes, &[]);
    }

    pub(crate) fn spool_refused(&self, why: &'static str) {
        self.spool_refused.add(1, &[KeyValue::new("why", why)]);
    }
}

/// Shows from now on whether there is a connection.
pub(crate) fn watch(link: watch::Receiver<Link>) {
    // The meter keeps what it asks, and the instrument itself is of no further use.
    let _asked = global::meter("bus")
        .u64_observable_gauge(CONNECTED)
        .with_unit("{connection}")
        .with_description("Whether there is a connection to NATS")
        .with_callback(move |gauge| gauge.observe(link.borrow().up.into(), &[]))
        .build();
}

/// What the conventions want of every metric.
fn operation(name: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "nats"),
        KeyValue::new("messaging.operation.name", name),
    ]
}
