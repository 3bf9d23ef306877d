//! Metrics of a running installation, beside the dashboard.

use std::{collections::BTreeSet, path::Path};

use testkit::{ImageBuilder, debian_layer};

use crate::fabric::{Advisory, Fabric, Options};

const DASHBOARD: &str = "../deploy/dashboards/tidewaiter.json";

/// What an operator must find after one image went through.
const PROMISED: &[&str] = &[
    "messaging_client_consumed_messages_total",
    "messaging_client_operation_duration_seconds",
    "messaging_client_sent_messages_total",
    "messaging_process_duration_seconds",
    "process_cpu_time_seconds_total",
    "process_memory_usage_bytes",
    "tidewaiter_bus_connected",
    "tidewaiter_bus_dead_letters_kept",
    "tidewaiter_bus_queue_depth",
    "tidewaiter_bus_queue_oldest_age_seconds",
    "tidewaiter_policy_verdicts_total",
    "tidewaiter_registry_request_duration_seconds",
    "tidewaiter_scan_cache_hits_total",
    "tidewaiter_scan_read_bytes_total",
    "tidewaiter_scan_saved_bytes_total",
    "tidewaiter_spool_depth",
    "tidewaiter_spool_size_bytes",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_is_exported_and_what_is_exported_is_shown() {
    let Some(fabric) = Fabric::start(Options::default()).await else {
        return;
    };
    fabric.import(&Advisory::requests()).await;
    for tag in ["1", "2"] {
        // The second one has its layer from the cache.
        let image = ImageBuilder::new().layer(debian_layer(), "base");
        let image = image.step(&format!("LABEL tag={tag}")).build();
        let reference = fabric.push(image, "team/app", tag);
        fabric.verdict(&reference).await;
    }
    let families = fabric
        .until("all metrics", async || {
            let text = fabric.metrics().await?;
            let families = families(&text);
            let is_there = |name: &&str| families.contains(*name);
            PROMISED.iter().all(is_there).then_some(families)
        })
        .await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DASHBOARD);
    let dashboard = chassis::files::read_text_bounded(&path, 1 << 20).expect("the dashboard");
    let hidden: Vec<&String> = families
        .iter()
        .filter(|name| !dashboard.contains(name.as_str()))
        .collect();
    assert!(hidden.is_empty(), "the dashboard does not show {hidden:?}");
}

/// Names of what is exported; `target_info` says only who we are.
fn families(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.filter_map(|line| line.split_whitespace().next());
    let names = names.filter(|name| *name != "target_info");
    names.map(str::to_owned).collect()
}
