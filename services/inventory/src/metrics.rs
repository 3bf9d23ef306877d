//! What the inventory counts.

use std::sync::LazyLock;

use opentelemetry::{KeyValue, global, metrics::Counter};

/// Changes of records that the view took up.
static CHANGES: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("inventory")
        .u64_counter("tidewaiter.inventory.changes")
        .with_unit("{record}")
        .with_description("Changes of records that the view took up")
        .build()
});

pub(crate) fn changed(what: &'static str) {
    CHANGES.add(1, &[KeyValue::new("record", what)]);
}
