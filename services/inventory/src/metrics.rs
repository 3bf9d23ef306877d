//! What the inventory counts.

use std::sync::LazyLock;

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge},
};

/// Changes of records that the view took up.
static CHANGES: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("inventory")
        .u64_counter("tidewaiter.inventory.changes")
        .with_unit("{record}")
        .with_description("Changes of records that the view took up")
        .build()
});

/// Nodes, by `state`: `reporting` or `silent`.
static NODES: LazyLock<Gauge<u64>> = LazyLock::new(|| {
    global::meter("inventory")
        .u64_gauge("tidewaiter.inventory.nodes")
        .with_unit("{node}")
        .with_description("Nodes, by whether they are heard of")
        .build()
});

/// Containers of nodes that report, by `state`: `running` or `other`.
static CONTAINERS: LazyLock<Gauge<u64>> = LazyLock::new(|| {
    global::meter("inventory")
        .u64_gauge("tidewaiter.inventory.containers")
        .with_unit("{container}")
        .with_description("Containers of the nodes that report")
        .build()
});

/// Incidents that are open.
static INCIDENTS: LazyLock<Gauge<u64>> = LazyLock::new(|| {
    global::meter("inventory")
        .u64_gauge("tidewaiter.inventory.open_incidents")
        .with_unit("{incident}")
        .with_description("Incidents that are open")
        .build()
});

/// How much there is of what runs, of all tenants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) reporting: u64,
    pub(crate) silent: u64,
    pub(crate) containers_running: u64,
    pub(crate) containers_other: u64,
    pub(crate) open_incidents: u64,
}

pub(crate) fn changed(what: &'static str) {
    CHANGES.add(1, &[KeyValue::new("record", what)]);
}

pub(crate) fn running(now: &Running) {
    let state = |state: &'static str| [KeyValue::new("state", state)];
    NODES.record(now.reporting, &state("reporting"));
    NODES.record(now.silent, &state("silent"));
    CONTAINERS.record(now.containers_running, &state("running"));
    CONTAINERS.record(now.containers_other, &state("other"));
    INCIDENTS.record(now.open_incidents, &[]);
}
