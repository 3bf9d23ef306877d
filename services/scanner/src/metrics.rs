//! What the scanner counts.

use std::{sync::OnceLock, time::Duration};

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram},
};

use crate::sections::Tier;

/// How long scans take, seconds.
const SCAN_DURATION: &str = "tidewaiter.scan.duration";
/// Layers that were read from their source.
const LAYERS_READ: &str = "tidewaiter.scan.layers_read";
/// Bytes of the blobs that were read from their source.
const BYTES_READ: &str = "tidewaiter.scan.read";
/// Layers taken from where they are kept, by `tier`: `memory`, `disk` or `shared`.
const CACHE_HITS: &str = "tidewaiter.scan.cache_hits";
/// Layers of which something was missing in every tier.
const CACHE_MISSES: &str = "tidewaiter.scan.cache_misses";
/// Bytes of blobs that were not read, because a tier had the layer.
const BYTES_SAVED: &str = "tidewaiter.scan.saved";
/// Times that a layer was waited for because somebody else read it.
const LEASE_WAITS: &str = "tidewaiter.scan.lease_waits";
/// Layers that are waited for now because another process reads them.
const LEASE_WAITING: &str = "tidewaiter.scan.lease_waiting";
/// Layers read without a lease, because the broker was away.
const UNLEASED: &str = "tidewaiter.scan.unleased";
/// Shared layers that could not be had or shared, by `kind`: `corrupt`, `late`, `away` or
/// `too_large`. Each is a miss, and none fails a scan.
const SHARED_TROUBLE: &str = "tidewaiter.scan.shared_trouble";
/// Bytes that decoded layers take in memory, about.
const MEMORY_BYTES: &str = "tidewaiter.scan.memory_size";
/// Bytes that the fleet's shared layers take.
const SHARED_BYTES: &str = "tidewaiter.scan.shared_size";

/// From what a cache answers to what a large image takes, seconds.
const DURATION_BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0, 900.0,
];

struct Metrics {
    duration: Histogram<f64>,
    layers_read: Counter<u64>,
    bytes_read: Counter<u64>,
    hits: Counter<u64>,
    misses: Counter<u64>,
    bytes_saved: Counter<u64>,
    lease_waits: Counter<u64>,
    lease_waiting: Gauge<u64>,
    unleased: Counter<u64>,
    shared_trouble: Counter<u64>,
    memory_bytes: Gauge<u64>,
    shared_bytes: Gauge<u64>,
}

fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let meter = global::meter("scanner");
        let counter = |name, unit, meaning| {
            let counter = meter.u64_counter(name).with_unit(unit);
            counter.with_description(meaning).build()
        };
        let gauge = |name, unit, meaning| {
            let gauge = meter.u64_gauge(name).with_unit(unit);
            gauge.with_description(meaning).build()
        };
        Metrics {
            duration: meter
                .f64_histogram(SCAN_DURATION)
                .with_unit("s")
                .with_boundaries(DURATION_BOUNDS.to_vec())
                .with_description("Time from an image job's start to its report")
                .build(),
            layers_read: counter(LAYERS_READ, "{layer}", "Layers read from their source"),
            bytes_read: counter(BYTES_READ, "By", "Bytes of blobs read from their source"),
            hits: counter(CACHE_HITS, "{layer}", "Layers taken from a tier"),
            misses: counter(CACHE_MISSES, "{layer}", "Layers that no tier had whole"),
            bytes_saved: counter(BYTES_SAVED, "By", "Bytes of blobs that were not read"),
            lease_waits: counter(LEASE_WAITS, "{wait}", "Waits for another's reading"),
            lease_waiting: gauge(LEASE_WAITING, "{layer}", "Layers that another reads"),
            unleased: counter(UNLEASED, "{layer}", "Layers read without a lease"),
            shared_trouble: counter(SHARED_TROUBLE, "{layer}", "Shared layers not to be had"),
            memory_bytes: gauge(
                MEMORY_BYTES,
                "By",
                "Bytes that decoded layers take in memory",
            ),
            shared_bytes: gauge(SHARED_BYTES, "By", "Bytes that the fleet's layers take"),
        }
    })
}

pub(crate) fn scanned(duration: Duration) {
    metrics().duration.record(duration.as_secs_f64(), &[]);
}

/// A layer was read, or could not be.
pub(crate) fn missed() {
    metrics().misses.add(1, &[]);
}

pub(crate) fn read(bytes: u64) {
    metrics().layers_read.add(1, &[]);
    metrics().bytes_read.add(bytes, &[]);
}

pub(crate) fn hit(tier: Tier, bytes: u64) {
    metrics()
        .hits
        .add(1, &[KeyValue::new("tier", tier.as_str())]);
    metrics().bytes_saved.add(bytes, &[]);
}

pub(crate) fn waits() {
    metrics().lease_waits.add(1, &[]);
}

pub(crate) fn waiting(layers: u32) {
    metrics().lease_waiting.record(layers.into(), &[]);
}

pub(crate) fn unleased() {
    metrics().unleased.add(1, &[]);
}

pub(crate) fn shared_trouble(kind: &'static str) {
    metrics()
        .shared_trouble
        .add(1, &[KeyValue::new("kind", kind)]);
}

pub(crate) fn memory(bytes: u64) {
    metrics().memory_bytes.record(bytes, &[]);
}

pub(crate) fn shared(bytes: u64) {
    metrics().shared_bytes.record(bytes, &[]);
}
