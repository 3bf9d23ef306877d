//! Metrics of this crate.

use std::{sync::LazyLock, time::Duration};

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};

/// Events that were looked at.
const EVENTS: &str = "tidewaiter.behavior.events";
/// Events that agents counted and did not send, by `class`.
const DROPS: &str = "tidewaiter.behavior.drops";
/// Detections, by `rule` and `result`: raised, repeated, accepted or full.
const DETECTIONS: &str = "tidewaiter.behavior.detections";
/// Incidents, by `change`: opened, worse, grown or closed.
const INCIDENTS: &str = "tidewaiter.behavior.incidents";
/// Files that ran and are not of the image's own layers, by `result`: unchanged, drift, waiting or
/// unverified.
const FILES: &str = "tidewaiter.behavior.files";
/// Images that nodes hold and nobody has scanned.
const SIGHTED: &str = "tidewaiter.behavior.sighted";
/// Those that are not told of, for their node names too many.
const SIGHTED_TOO_MANY: &str = "tidewaiter.behavior.sighted_too_many";
/// How long it takes to judge a batch, with reading what it needs; seconds.
const BATCH_DURATION: &str = "tidewaiter.behavior.batch.duration";

/// Seconds.
const DURATION_BOUNDS: [f64; 11] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0,
];
/// Classes of events that agents count apart; what else one names is `other`, since names are
/// labels and come from outside.
const CLASSES: [&str; 5] = ["exec", "network", "file", "syscall", "process"];

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("behavior");
    Instruments {
        events: meter
            .u64_counter(EVENTS)
            .with_description("runtime events that were looked at")
            .build(),
        drops: meter
            .u64_counter(DROPS)
            .with_description("runtime events that agents counted and did not send")
            .build(),
        detections: meter
            .u64_counter(DETECTIONS)
            .with_description("detections in containers")
            .build(),
        incidents: meter
            .u64_counter(INCIDENTS)
            .with_description("changes of incidents")
            .build(),
        files: meter
            .u64_counter(FILES)
            .with_description("files that ran and are not of the image's own layers")
            .build(),
        sighted: meter
            .u64_counter(SIGHTED)
            .with_description("images of nodes that nobody has scanned")
            .build(),
        sighted_too_many: meter
            .u64_counter(SIGHTED_TOO_MANY)
            .with_description("images that are not told of, for their node names too many")
            .build(),
        batch_duration: meter
            .f64_histogram(BATCH_DURATION)
            .with_unit("s")
            .with_boundaries(DURATION_BOUNDS.to_vec())
            .with_description("judging a batch of runtime events")
            .build(),
    }
});

struct Instruments {
    events: Counter<u64>,
    drops: Counter<u64>,
    detections: Counter<u64>,
    incidents: Counter<u64>,
    files: Counter<u64>,
    sighted: Counter<u64>,
    sighted_too_many: Counter<u64>,
    batch_duration: Histogram<f64>,
}

pub(crate) fn batch(events: usize, took: Duration) {
    let count = u64::try_from(events).unwrap_or(u64::MAX);
    INSTRUMENTS.events.add(count, &[]);
    INSTRUMENTS.batch_duration.record(took.as_secs_f64(), &[]);
}

pub(crate) fn dropped(class: &str, count: u64) {
    let known = CLASSES.into_iter().find(|known| *known == class);
    let class = KeyValue::new("class", known.unwrap_or("other"));
    INSTRUMENTS.drops.add(count, &[class]);
}

pub(crate) fn detection(rule: &'static str, result: &'static str) {
    let labels = [KeyValue::new("rule", rule), KeyValue::new("result", result)];
    INSTRUMENTS.detections.add(1, &labels);
}

pub(crate) fn incident(change: &'static str) {
    INSTRUMENTS
        .incidents
        .add(1, &[KeyValue::new("change", change)]);
}

pub(crate) fn file(result: &'static str) {
    INSTRUMENTS.files.add(1, &[KeyValue::new("result", result)]);
}

pub(crate) fn sighted() {
    INSTRUMENTS.sighted.add(1, &[]);
}

pub(crate) fn sighted_too_many() {
    INSTRUMENTS.sighted_too_many.add(1, &[]);
}
