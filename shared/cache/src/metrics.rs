//! Metrics of databases, and of the section cache.

use std::sync::{
    Once,
    atomic::{AtomicU64, Ordering},
};

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge},
};

use crate::database;

/// Sections found.
const HITS: &str = "tidewaiter.cache.hits";
/// Sections asked for and not found.
const MISSES: &str = "tidewaiter.cache.misses";
/// Sections found damaged and deleted; each is a miss as well.
const CORRUPT: &str = "tidewaiter.cache.corrupt";
/// Sections deleted to make room.
const EVICTED: &str = "tidewaiter.cache.evicted";
/// Memory that databases have in use, by what it holds.
const MEMORY: &str = "tidewaiter.database.memory";
/// Bytes that the sections take.
const BYTES: &str = "tidewaiter.cache.size";

pub(crate) struct Metrics {
    pub(crate) hits: Count,
    pub(crate) misses: Count,
    pub(crate) corrupt: Count,
    pub(crate) evicted: Count,
    pub(crate) bytes: Gauge<u64>,
}

/// Shows from now on what the databases of the process have in memory.
pub(crate) fn watch_memory() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        // The meter keeps what it asks, and the instrument itself is of no further use.
        let _asked = global::meter("cache")
            .u64_observable_gauge(MEMORY)
            .with_unit("By")
            .with_description("Memory that databases have in use, by what it holds")
            .with_callback(|gauge| {
                let database::Memory { blocks, writes } = database::memory();
                for (holds, bytes) in [("blocks", blocks), ("writes", writes)] {
                    let bytes = bytes.try_into().unwrap_or(u64::MAX);
                    gauge.observe(bytes, &[KeyValue::new("holds", holds)]);
                }
            })
            .build();
    });
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
