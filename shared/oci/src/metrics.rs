//! Metrics of this crate.

use std::{sync::OnceLock, time::Duration};

use opentelemetry::{KeyValue, global, metrics::Histogram};
use reqwest::StatusCode;

/// How long registries take to begin an answer, seconds, by `registry` as it is configured, and
/// `outcome`: `2xx` to `5xx`, `429`, `timeout`, `broken`, and `refused` for a blob. Where a registry
/// sends us on to is in no label: it could make up as many hosts as it likes.
const REQUEST_DURATION: &str = "tidewaiter.registry.request.duration";

/// Seconds.
const BOUNDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// A registry answered, or did not.
pub(crate) fn asked(registry: &str, outcome: &'static str, took: Duration) {
    static DURATION: OnceLock<Histogram<f64>> = OnceLock::new();
    let duration = DURATION.get_or_init(|| {
        global::meter("oci")
            .f64_histogram(REQUEST_DURATION)
            .with_unit("s")
            .with_boundaries(BOUNDS.to_vec())
            .with_description("How long registries take to begin an answer")
            .build()
    });
    let labels = [
        KeyValue::new("registry", registry.to_owned()),
        KeyValue::new("outcome", outcome),
    ];
    duration.record(took.as_secs_f64(), &labels);
}

/// What became of a request, by its answer.
pub(crate) fn of_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        429 => "429",
        ..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}
