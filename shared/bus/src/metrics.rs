//! The crate's metrics. Labels have few values: templates of subjects, names of consumers,
//! outcomes.

use std::{sync::OnceLock, time::Duration};

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram, UpDownCounter},
};

use crate::Queue;

/// Events stored in a stream, by `template`.
const PUBLISHED: &str = "tidewaiter.bus.published";
/// Messages handled, by `consumer` and `outcome`.
const CONSUMED: &str = "tidewaiter.bus.consumed";
/// Seconds from arrival to acknowledgment, by `consumer`.
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
/// Seconds since the oldest message of a queue was stored, by `consumer`; 0 where it is empty.
const QUEUE_OLDEST: &str = "tidewaiter.bus.queue.oldest_age";
/// Dead letters that nobody dropped or retried.
const LETTERS: &str = "tidewaiter.bus.dead_letters_kept";
/// Bytes of message bodies that are kept as objects.
const CLAIM_BYTES: &str = "tidewaiter.bus.claims";
/// Leases taken from a holder that stopped renewing.
const TAKEOVERS: &str = "tidewaiter.bus.lease_takeovers";
/// Items in the spool.
const SPOOL_ITEMS: &str = "tidewaiter.spool.items";
/// Bytes in the spool.
const SPOOL_BYTES: &str = "tidewaiter.spool.bytes";
/// Items that the spool did not take, by `why`: full or disk.
const SPOOL_REFUSED: &str = "tidewaiter.spool.refused";

pub(crate) struct Metrics {
    published: Counter<u64>,
    consumed: Counter<u64>,
    process: Histogram<f64>,
    redelivered: Counter<u64>,
    dead_letters: Counter<u64>,
    crashes: Counter<u64>,
    refused: Counter<u64>,
    depth: Gauge<u64>,
    in_flight: Gauge<u64>,
    oldest: Gauge<f64>,
    letters: Gauge<u64>,
    claims: Gauge<u64>,
    takeovers: Counter<u64>,
    spool_items: UpDownCounter<i64>,
    spool_bytes: UpDownCounter<i64>,
    spool_refused: Counter<u64>,
}

/// The metrics of this process.
pub(crate) fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let meter = global::meter("bus");
        Metrics {
            published: meter.u64_counter(PUBLISHED).with_unit("{message}").build(),
            consumed: meter.u64_counter(CONSUMED).with_unit("{message}").build(),
            process: meter.f64_histogram(PROCESS_DURATION).with_unit("s").build(),
            redelivered: meter
                .u64_counter(REDELIVERED)
                .with_unit("{message}")
                .build(),
            dead_letters: meter
                .u64_counter(DEAD_LETTERS)
                .with_unit("{message}")
                .build(),
            crashes: meter.u64_counter(CRASHES).with_unit("{crash}").build(),
            refused: meter.u64_counter(REFUSED).with_unit("{message}").build(),
            depth: meter.u64_gauge(QUEUE_DEPTH).with_unit("{message}").build(),
            in_flight: meter
                .u64_gauge(QUEUE_IN_FLIGHT)
                .with_unit("{message}")
                .build(),
            oldest: meter.f64_gauge(QUEUE_OLDEST).with_unit("s").build(),
            letters: meter.u64_gauge(LETTERS).with_unit("{message}").build(),
            claims: meter.u64_gauge(CLAIM_BYTES).with_unit("By").build(),
            takeovers: meter.u64_counter(TAKEOVERS).with_unit("{lease}").build(),
            spool_items: meter
                .i64_up_down_counter(SPOOL_ITEMS)
                .with_unit("{item}")
                .build(),
            spool_bytes: meter
                .i64_up_down_counter(SPOOL_BYTES)
                .with_unit("By")
                .build(),
            spool_refused: meter.u64_counter(SPOOL_REFUSED).with_unit("{item}").build(),
        }
    })
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn published(&self, template: String) {
        self.published
            .add(1, &[KeyValue::new("template", template)]);
    }

    pub(crate) fn consumed(&self, consumer: &str, outcome: &'static str, took: Duration) {
        let consumer = KeyValue::new("consumer", consumer.to_owned());
        self.process
            .record(took.as_secs_f64(), std::slice::from_ref(&consumer));
        self.consumed
            .add(1, &[consumer, KeyValue::new("outcome", outcome)]);
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

    pub(crate) fn spool(&self, items: i64, bytes: i64) {
        self.spool_items.add(items, &[]);
        self.spool_bytes.add(bytes, &[]);
    }

    pub(crate) fn spool_refused(&self, why: &'static str) {
        self.spool_refused.add(1, &[KeyValue::new("why", why)]);
    }
}
