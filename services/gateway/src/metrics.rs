//! What the gateway and the router count.

use std::sync::LazyLock;

use opentelemetry::{KeyValue, global, metrics::Counter};

/// Webhook requests, by source and by what became of them.
static HOOKS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("gateway")
        .u64_counter("tidewaiter.gateway.hooks")
        .with_unit("{request}")
        .with_description("Webhook requests by source and outcome")
        .build()
});

/// Events in webhooks that could not be understood, by source.
static REFUSED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("gateway")
        .u64_counter("tidewaiter.gateway.hook_events_refused")
        .with_unit("{event}")
        .with_description("Events in webhooks that could not be understood, by source")
        .build()
});

/// Scan requests over the API.
static SCAN_REQUESTS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("gateway")
        .u64_counter("tidewaiter.gateway.scan_requests")
        .with_unit("{request}")
        .with_description("Scan requests that were accepted")
        .build()
});

/// Events that the router took, by what became of them.
static ROUTED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("gateway")
        .u64_counter("tidewaiter.router.events")
        .with_unit("{event}")
        .with_description("Events by what the router made of them")
        .build()
});

/// Images of nodes that no source gives and that are forgotten, for their node tells of too many.
static SIGHTINGS_FORGOTTEN: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("gateway")
        .u64_counter("tidewaiter.router.sightings_forgotten")
        .with_unit("{image}")
        .with_description("Images of nodes that no source gives, beyond what is kept of a node")
        .build()
});

/// Image jobs made.
static JOBS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("gateway")
        .u64_counter("tidewaiter.router.jobs")
        .with_unit("{job}")
        .with_description("Image jobs that the router made")
        .build()
});

/// Tags that the crawler looked at.
static LOOKED_AT: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("gateway")
        .u64_counter("tidewaiter.crawler.tags")
        .with_unit("{tag}")
        .with_description("Tags that the crawler looked at, by source and what it found")
        .build()
});

/// Passes of the crawler that came to their end.
static CRAWLED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("gateway")
        .u64_counter("tidewaiter.crawler.passes")
        .with_unit("{pass}")
        .with_description("Passes through a source that came to their end")
        .build()
});

/// `source` is a configured name, so it has few values.
pub(crate) fn hook(source: &str, outcome: &'static str) {
    let labels = [
        KeyValue::new("source", source.to_owned()),
        KeyValue::new("outcome", outcome),
    ];
    HOOKS.add(1, &labels);
}

/// `source` is a configured name.
pub(crate) fn hook_events_refused(source: &str, count: usize) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    REFUSED.add(count, &[KeyValue::new("source", source.to_owned())]);
}

pub(crate) fn scan_requested() {
    SCAN_REQUESTS.add(1, &[]);
}

pub(crate) fn routed(outcome: &'static str, jobs: usize) {
    ROUTED.add(1, &[KeyValue::new("outcome", outcome)]);
    JOBS.add(u64::try_from(jobs).unwrap_or(u64::MAX), &[]);
}

pub(crate) fn sightings_forgotten(count: usize) {
    SIGHTINGS_FORGOTTEN.add(u64::try_from(count).unwrap_or(u64::MAX), &[]);
}

/// `source` is a configured name.
pub(crate) fn looked_at(source: &str, found: &'static str) {
    let labels = [
        KeyValue::new("source", source.to_owned()),
        KeyValue::new("found", found),
    ];
    LOOKED_AT.add(1, &labels);
}

/// `source` is a configured name.
pub(crate) fn crawled(source: &str) {
    CRAWLED.add(1, &[KeyValue::new("source", source.to_owned())]);
}
