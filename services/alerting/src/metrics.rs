//! Metrics of this crate.

use std::sync::LazyLock;

use model::AlertState;
use opentelemetry::{KeyValue, global, metrics::Counter};

/// Alerts raised and resolved, by `state`.
const ALERTS: &str = "tidewaiter.alerting.alerts";
/// Deliveries to sinks, by `sink` and `result`: delivered, retry or refused.
const DELIVERIES: &str = "tidewaiter.alerting.deliveries";

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("alerting");
    Instruments {
        alerts: meter
            .u64_counter(ALERTS)
            .with_description("alerts raised and resolved")
            .build(),
        deliveries: meter
            .u64_counter(DELIVERIES)
            .with_description("deliveries to sinks")
            .build(),
    }
});

struct Instruments {
    alerts: Counter<u64>,
    deliveries: Counter<u64>,
}

pub(crate) fn alert_changed(state: AlertState) {
    let state = match state {
        AlertState::Raised => "raised",
        AlertState::Resolved => "resolved",
    };
    INSTRUMENTS.alerts.add(1, &[KeyValue::new("state", state)]);
}

pub(crate) fn delivered(sink: &str, result: &'static str) {
    let labels = [
        KeyValue::new("sink", sink.to_owned()),
        KeyValue::new("result", result),
    ];
    INSTRUMENTS.deliveries.add(1, &labels);
}
