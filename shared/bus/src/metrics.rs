//! The crate's metrics. Labels have few values: templates of subjects, names of consumers,
//! outcomes.

use std::{sync::OnceLock, time::Duration};

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram, UpDownCounter},
};

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
/// Leases taken from a holder that stopped renewing.
const TAKEOVERS: &str = "tidewaiter.bus.lease_takeovers";
/// Items in the spool.
const SPOOL_ITEMS: &str = "tidewaiter.spool.items";
/// Bytes in the spool.
const SPOOL_BYTES: &str = "tidewaiter.spool.bytes";

pub(crate) struct Metrics {
    published: Counter<u64>,
    consumed: Counter<u64>,
    process: Histogram<f64>,
    redelivered: Counter<u64>,
    dead_letters: Counter<u64>,
    takeovers: Counter<u64>,
    spool_items: UpDownCounter<i64>,
    spool_bytes: UpDownCounter<i64>,
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
            takeovers: meter.u64_counter(TAKEOVERS).with_unit("{lease}").build(),
            spool_items: meter
                .i64_up_down_counter(SPOOL_ITEMS)
                .with_unit("{item}")
                .build(),
            spool_bytes: meter
                .i64_up_down_counter(SPOOL_BYTES)
                .with_unit("By")
                .build(),
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

    pub(crate) fn takeover(&self) {
        self.takeovers.add(1, &[]);
    }

    pub(crate) fn spool(&self, items: i64, bytes: i64) {
        self.spool_items.add(items, &[]);
        self.spool_bytes.add(bytes, &[]);
    }
}
