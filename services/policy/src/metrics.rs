//! Metrics of this crate.

use std::{sync::LazyLock, time::Duration};

use model::{
    Decision,
    runtime::{ActionKind, Stage},
};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};

/// Verdicts written, by `decision`.
const VERDICTS: &str = "tidewaiter.policy.verdicts";
/// What became of responses, by `action` and `stage`.
const RESPONSES: &str = "tidewaiter.policy.responses";
/// How long it takes to judge an image under all its policies, with reading the facts; seconds.
const JUDGE_DURATION: &str = "tidewaiter.policy.judge.duration";

/// Seconds.
const DURATION_BOUNDS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("policy");
    Instruments {
        verdicts: meter
            .u64_counter(VERDICTS)
            .with_description("verdicts written")
            .build(),
        responses: meter
            .u64_counter(RESPONSES)
            .with_description("responses to incidents that were decided or went on")
            .build(),
        judge_duration: meter
            .f64_histogram(JUDGE_DURATION)
            .with_unit("s")
            .with_boundaries(DURATION_BOUNDS.to_vec())
            .with_description("reading the facts of an image and judging them")
            .build(),
    }
});

struct Instruments {
    verdicts: Counter<u64>,
    responses: Counter<u64>,
    judge_duration: Histogram<f64>,
}

pub(crate) fn verdict_written(decision: Decision) {
    INSTRUMENTS
        .verdicts
        .add(1, &[KeyValue::new("decision", decision.as_str())]);
}

pub(crate) fn responded(action: Option<ActionKind>, stage: Stage) {
    let action = action.map_or("none", ActionKind::as_str);
    let labels = [
        KeyValue::new("action", action),
        KeyValue::new("stage", stage.as_str()),
    ];
    INSTRUMENTS.responses.add(1, &labels);
}

pub(crate) fn judged(took: Duration) {
    INSTRUMENTS.judge_duration.record(took.as_secs_f64(), &[]);
}
