//! Metrics of this crate.

use std::sync::LazyLock;

use opentelemetry::{KeyValue, global, metrics::Counter};

/// Events that were told.
const EVENTS: &str = "tidewaiter.agent.events";
/// Events that were counted and not told, by `class`.
const DROPS: &str = "tidewaiter.agent.drops";
/// Messages that were put into the spool, by `kind`: batch or report.
const MESSAGES: &str = "tidewaiter.agent.messages";
/// Bytes of files that were hashed.
const HASHED: &str = "tidewaiter.agent.hashed_bytes";
/// Files that were not hashed, since they are too large or too many.
const NOT_HASHED: &str = "tidewaiter.agent.not_hashed";

struct Instruments {
    events: Counter<u64>,
    drops: Counter<u64>,
    messages: Counter<u64>,
    hashed: Counter<u64>,
    not_hashed: Counter<u64>,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("agent");
    let counter = |name, description| {
        let counter = meter.u64_counter(name);
        counter.with_description(description).build()
    };
    Instruments {
        events: counter(EVENTS, "events that were told"),
        drops: counter(DROPS, "events that were counted and not told"),
        messages: counter(MESSAGES, "messages that were put into the spool"),
        hashed: counter(HASHED, "bytes of files that were hashed"),
        not_hashed: counter(NOT_HASHED, "files that were not hashed"),
    }
});

pub(crate) fn events(count: usize) {
    INSTRUMENTS.events.add(count as u64, &[]);
}

pub(crate) fn drops(class: &str, count: u64) {
    let class = KeyValue::new("class", class.to_owned());
    INSTRUMENTS.drops.add(count, &[class]);
}

pub(crate) fn message(kind: &'static str) {
    INSTRUMENTS.messages.add(1, &[KeyValue::new("kind", kind)]);
}

pub(crate) fn hashed(bytes: usize) {
    INSTRUMENTS.hashed.add(bytes as u64, &[]);
}

pub(crate) fn not_hashed() {
    INSTRUMENTS.not_hashed.add(1, &[]);
}
