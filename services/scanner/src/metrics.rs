//! What the scanner counts.

use std::{sync::LazyLock, time::Duration};

use opentelemetry::{
    global,
    metrics::{Counter, Histogram},
};

/// How long scans take, seconds.
static SCAN_DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    global::meter("scanner")
        .f64_histogram("tidewaiter.scan.duration")
        .with_unit("s")
        .with_description("Time from an image job's start to its report")
        .build()
});

/// Layers that were read from their source.
static LAYERS_READ: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("scanner")
        .u64_counter("tidewaiter.scan.layers_read")
        .with_unit("{layer}")
        .with_description("Layers read from their source")
        .build()
});

/// Layers whose sections were all known.
static LAYERS_KNOWN: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("scanner")
        .u64_counter("tidewaiter.scan.layers_known")
        .with_unit("{layer}")
        .with_description("Layers taken from the cache")
        .build()
});

pub(crate) fn scanned(duration: Duration, read: u32, layers: u32) {
    SCAN_DURATION.record(duration.as_secs_f64(), &[]);
    LAYERS_READ.add(u64::from(read), &[]);
    LAYERS_KNOWN.add(u64::from(layers.saturating_sub(read)), &[]);
}
