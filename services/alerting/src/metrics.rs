//! Metrics of this crate.

use std::sync::LazyLock;

use model::AlertState;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};

/// Alerts raised and resolved, by `state`.
const ALERTS: &str = "tidewaiter.alerting.alerts";
/// Alerts that came back within the window, by `state`: nobody was told.
const QUIET: &str = "tidewaiter.alerting.quiet";
/// Alerts that were told because of the time, by `why`: reminder or stays.
const TOLD_AGAIN: &str = "tidewaiter.alerting.told_again";
/// Deliveries to sinks, by `sink` and `result`: delivered, retry, refused or filtered.
const DELIVERIES: &str = "tidewaiter.alerting.deliveries";
/// Alerts in a notification that lists several, by `sink`.
const GROUPED: &str = "tidewaiter.alerting.grouped";
/// Answers to scan requests, by `result`: delivered, retry or refused.
const CALLBACKS: &str = "tidewaiter.alerting.callbacks";

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("alerting");
    Instruments {
        alerts: meter
            .u64_counter(ALERTS)
            .with_description("alerts raised and resolved")
            .build(),
        quiet: meter
            .u64_counter(QUIET)
            .with_description("alerts that came back within the window")
            .build(),
        told_again: meter
            .u64_counter(TOLD_AGAIN)
            .with_description("alerts that were told because of the time")
            .build(),
        grouped: meter
            .u64_histogram(GROUPED)
            .with_boundaries(vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0])
            .with_description("alerts in a notification that lists several")
            .build(),
        callbacks: meter
            .u64_counter(CALLBACKS)
            .with_description("answers to scan requests that were sent")
            .build(),
        deliveries: meter
            .u64_counter(DELIVERIES)
            .with_description("deliveries to sinks")
            .build(),
    }
});

struct Instruments {
    alerts: Counter<u64>,
    quiet: Counter<u64>,
    told_again: Counter<u64>,
    grouped: Histogram<u64>,
    callbacks: Counter<u64>,
    deliveries: Counter<u64>,
}

pub(crate) fn alert_changed(state: AlertState) {
    INSTRUMENTS.alerts.add(1, &[label(state)]);
}

pub(crate) fn alert_kept_quiet(state: AlertState) {
    INSTRUMENTS.quiet.add(1, &[label(state)]);
}

pub(crate) fn alert_told_again(is_reminder: bool) {
    let why = if is_reminder { "reminder" } else { "stays" };
    INSTRUMENTS.told_again.add(1, &[KeyValue::new("why", why)]);
}

pub(crate) fn grouped(sink: &str, alerts: usize) {
    let alerts = u64::try_from(alerts).unwrap_or(u64::MAX);
    let labels = [KeyValue::new("sink", sink.to_owned())];
    INSTRUMENTS.grouped.record(alerts, &labels);
}

pub(crate) fn answered(result: &'static str) {
    INSTRUMENTS
        .callbacks
        .add(1, &[KeyValue::new("result", result)]);
}

fn label(state: AlertState) -> KeyValue {
    let state = match state {
        AlertState::Raised => "raised",
        AlertState::Resolved => "resolved",
    };
    KeyValue::new("state", state)
}

pub(crate) fn delivered(sink: &str, result: &'static str) {
    let labels = [
        KeyValue::new("sink", sink.to_owned()),
        KeyValue::new("result", result),
    ];
    INSTRUMENTS.deliveries.add(1, &labels);
}
