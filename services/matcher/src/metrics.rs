//! Metrics of this crate.

use std::{sync::LazyLock, time::Duration};

use model::event::Change;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram},
};

/// How long it takes to assess an image, with reading its packages; seconds.
const ASSESS_DURATION: &str = "tidewaiter.matcher.assess.duration";
/// Vulnerabilities that appeared in or left an image, by `change`.
const CHANGES: &str = "tidewaiter.matcher.vulnerability.changes";
/// The advisory revision in force here.
const REVISION: &str = "tidewaiter.matcher.advisory.revision";
/// Images assessed again because advisories changed.
const SWEPT: &str = "tidewaiter.matcher.swept.images";
/// Feeds that were taken up, by `outcome`.
const IMPORTS: &str = "tidewaiter.matcher.imports";

/// Seconds.
const DURATION_BOUNDS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("matcher");
    Instruments {
        assess_duration: meter
            .f64_histogram(ASSESS_DURATION)
            .with_unit("s")
            .with_boundaries(DURATION_BOUNDS.to_vec())
            .with_description("reading an image's packages and matching them")
            .build(),
        changes: meter
            .u64_counter(CHANGES)
            .with_description("vulnerabilities that appeared in or left an image")
            .build(),
        revision: meter
            .u64_gauge(REVISION)
            .with_description("the advisory revision in force here")
            .build(),
        swept: meter
            .u64_counter(SWEPT)
            .with_description("images assessed again because advisories changed")
            .build(),
        imports: meter
            .u64_counter(IMPORTS)
            .with_description("feeds that were taken up")
            .build(),
    }
});

struct Instruments {
    assess_duration: Histogram<f64>,
    changes: Counter<u64>,
    revision: Gauge<u64>,
    swept: Counter<u64>,
    imports: Counter<u64>,
}

pub(crate) fn assessed(took: Duration) {
    INSTRUMENTS.assess_duration.record(took.as_secs_f64(), &[]);
}

pub(crate) fn changed(change: Change) {
    INSTRUMENTS
        .changes
        .add(1, &[KeyValue::new("change", change.to_string())]);
}

pub(crate) fn revision(revision: u64) {
    INSTRUMENTS.revision.record(revision, &[]);
}

pub(crate) fn swept(images: usize) {
    INSTRUMENTS.swept.add(images as u64, &[]);
}

pub(crate) fn imported(outcome: &'static str) {
    INSTRUMENTS
        .imports
        .add(1, &[KeyValue::new("outcome", outcome)]);
}
