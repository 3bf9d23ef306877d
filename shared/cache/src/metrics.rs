//! Metrics of the section cache.

use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::{
    global,
    metrics::{Counter, Gauge},
};

/// Sections found.
const HITS: &str = "tidewaiter.cache.hits";
/// Sections asked for and not found.
const MISSES: &str = "tidewaiter.cache.misses";
/// Sections found damaged and deleted; each is a miss as well.
const CORRUPT: &str = "tidewaiter.cache.corrupt";
/// Sections deleted to make room.
const EVICTED: &str = "tidewaiter.cache.evicted";
/// Bytes that the sections take.
const BYTES: &str = "tidewaiter.cache.size";

pub(crate) struct Metrics {
    pub(crate) hits: Count,
    pub(crate) misses: Count,
    pub(crate) corrupt: Count,
    pub(crate) evicted: Count,
    pub(crate) bytes: Gauge<u64>,
}

/// A counter that can also be read here.
pub(crate) struct Count(Counter<u64>, AtomicU64);

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("cache");
        let count = |name, meaning| {
            let counter = meter
                .u64_counter(name)
                .with_unit("{section}")
                .with_description(meaning);
            Count(counter.build(), AtomicU64::new(0))
        };
        Self {
            hits: count(HITS, "Sections found"),
            misses: count(MISSES, "Sections asked for and not found"),
            corrupt: count(CORRUPT, "Sections found damaged and deleted"),
            evicted: count(EVICTED, "Sections deleted to make room"),
            bytes: meter
                .u64_gauge(BYTES)
                .with_unit("By")
                .with_description("Bytes that the sections take")
                .build(),
        }
    }
}

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.add(more, &[]);
        self.1.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.1.load(Ordering::Relaxed)
    }
}
