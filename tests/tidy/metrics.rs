//! Metrics as they are exported, and what dashboards and alerts ask for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::repo::{extension, files, is_rust, text, verdict};

const DASHBOARD: &str = "deploy/dashboards/tidewaiter.json";
const ALERTS: &str = "deploy/dashboards/alerts.yaml";

/// Our names, and those of OpenTelemetry's conventions that we use.
const PREFIXES: &[&str] = &[
    "tidewaiter.",
    "messaging.",
    "http.server.",
    "http.client.",
    "process.",
];

/// Calls that make an instrument, and what Prometheus sees of it.
const MAKERS: &[(&str, Kind)] = &[
    ("u64_counter", Kind::Counter),
    ("f64_observable_counter", Kind::Counter),
    ("counter", Kind::Counter),
    ("count", Kind::Counter),
    ("u64_gauge", Kind::Gauge),
    ("f64_gauge", Kind::Gauge),
    ("u64_observable_gauge", Kind::Gauge),
    ("f64_observable_gauge", Kind::Gauge),
    ("i64_observable_up_down_counter", Kind::Gauge),
    ("i64_up_down_counter", Kind::Gauge),
    ("gauge", Kind::Gauge),
    ("level", Kind::Gauge),
    ("u64_histogram", Kind::Histogram),
    ("f64_histogram", Kind::Histogram),
    ("histogram", Kind::Histogram),
];

/// Units that become part of a name.
const UNITS: &[(&str, &str)] = &[("s", "_seconds"), ("By", "_bytes"), ("1", "_ratio")];

/// Words of the query language that look like names.
const LANGUAGE: &[&str] = &[
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[test]
fn every_metric_of_the_dashboard_and_the_alerts_is_exported() {
    let (exported, mut wrong) = exported();
    let mut asked = BTreeMap::new();
    for file in [DASHBOARD, ALERTS] {
        let text = text(file).unwrap_or_default();
        let tree: Value = serde_saphyr::from_str(&text).expect("a tree of keys");
        let mut queries = Vec::new();
        collect(&tree, &mut queries);
        assert!(!queries.is_empty(), "{file} asks for nothing");
        for query in queries {
            for name in names(&query) {
                asked.entry(name).or_insert(file);
            }
        }
    }
    for (name, file) in &asked {
        if !exported.contains(name) {
            wrong.push(format!(
                "{file} asks for `{name}`, which no source exports: is its suffix right, or was it renamed?"
            ));
        }
    }
    verdict("metrics", &wrong);
}

/// What an operator must be able to see.
#[test]
fn the_dashboard_shows_what_was_promised() {
    let dashboard = text(DASHBOARD).unwrap_or_default();
    let promised = [
        "tidewaiter_bus_queue_depth",
        "tidewaiter_bus_queue_oldest_age_seconds",
        "tidewaiter_scan_cache_hits_total",
        "tidewaiter_scan_saved_bytes_total",
        "tidewaiter_bus_dead_letters_kept",
        "tidewaiter_spool_depth",
        "messaging_process_duration_seconds_bucket",
    ];
    let wrong: Vec<String> = promised
        .iter()
        .filter(|name| !dashboard.contains(*name))
        .map(|name| format!("{DASHBOARD}: show `{name}`"))
        .collect();
    verdict("the dashboard", &wrong);
}

/// Names as Prometheus sees them, and metrics of which no instrument is made.
fn exported() -> (BTreeSet<String>, Vec<String>) {
    let (mut found, mut wrong) = (BTreeSet::new(), Vec::new());
    let sources = files().iter().filter(|file| {
        let ours = file.starts_with("services/") || file.starts_with("shared/");
        ours && is_rust(file) && !file.contains("/tests") && extension(file) == "rs"
    });
    for file in sources {
        let source = text(file).unwrap_or_default();
        for (name, alias) in metrics(&source) {
            match instrument(&source, &name, alias) {
                Some((kind, unit)) => found.extend(series(&name, kind, unit)),
                // Elsewhere it may be the name of something else.
                None if alias.is_some() && file.ends_with("/metrics.rs") => {
                    wrong.push(format!("{file}: no instrument is made of `{name}`"));
                }
                None => {}
            }
        }
    }
    (found, wrong)
}

/// Names of metrics in a source, with the constants that hold them.
fn metrics(source: &str) -> Vec<(String, Option<&str>)> {
    let mut found = Vec::new();
    for line in source.lines() {
        let mut pieces = line.split('"');
        let (before, Some(text)) = (pieces.next().unwrap_or_default(), pieces.next()) else {
            continue;
        };
        let is_name = |c: char| c.is_ascii_lowercase() || c == '.' || c == '_';
        let is_ours = PREFIXES.iter().any(|prefix| text.starts_with(prefix));
        let constant = before.trim().strip_prefix("const ");
        let constant = constant.and_then(|rest| rest.split(':').next());
        let is_call = before.trim_end().ends_with('(');
        if is_ours && text.chars().all(is_name) && (constant.is_some() || is_call) {
            found.push((text.to_owned(), constant));
        }
    }
    found
}

/// Which instrument a metric is, and its unit.
fn instrument<'a>(source: &'a str, name: &str, alias: Option<&str>) -> Option<(Kind, &'a str)> {
    let name = alias.map_or_else(|| format!("\"{name}\""), str::to_owned);
    let mut rest = source;
    while let Some((before, after)) = rest.split_once(&name) {
        let call = before.trim_end().strip_suffix('(');
        let maker = call.map(|call| call.rsplit(|c: char| !c.is_alphanumeric() && c != '_'));
        let maker = maker.and_then(|mut words| words.next());
        let kind = MAKERS.iter().find(|(word, _)| Some(*word) == maker);
        let is_whole = !after.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        if let Some((_, kind)) = kind.filter(|_| is_whole) {
            // The unit is the next argument, or that of `with_unit` in the same chain.
            let argument = after.trim_start().strip_prefix(',').map(str::trim_start);
            let argument = argument.and_then(|text| text.strip_prefix('"'));
            let chain = after.split(".build()").next().unwrap_or_default();
            let chained = chain.split_once(".with_unit(\"").map(|(_, text)| text);
            let unit = argument.or(chained).and_then(|text| text.split('"').next());
            return Some((*kind, unit.unwrap_or_default()));
        }
        rest = after;
    }
    None
}

/// The series of a metric.
fn series(name: &str, kind: Kind, unit: &str) -> Vec<String> {
    let unit = UNITS.iter().find(|(known, _)| *known == unit);
    let unit = unit.map_or("", |(_, suffix)| suffix);
    let base = format!("{}{unit}", name.replace('.', "_"));
    match kind {
        Kind::Counter => vec![format!("{base}_total")],
        Kind::Gauge => vec![base],
        Kind::Histogram => ["_bucket", "_sum", "_count"]
            .map(|part| format!("{base}{part}"))
            .to_vec(),
    }
}

/// Every query of a tree.
fn collect(tree: &Value, out: &mut Vec<String>) {
    match tree {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(query) if name == "expr" || name == "query" => {
                        out.push(query.clone());
                    }
                    value => collect(value, out),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, out)),
        _ => {}
    }
}

/// Names of metrics in a query.
fn names(query: &str) -> Vec<String> {
    let mut found = Vec::new();
    // What stands in braces and in quotes are labels and their values.
    let mut text = String::new();
    let mut is_label = false;
    for c in query.chars() {
        match c {
            '{' => is_label = true,
            '}' => is_label = false,
            c if !is_label => text.push(c),
            _ => {}
        }
    }
    let mut labels_follow = false;
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        let name = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        if LANGUAGE.contains(&name) {
            labels_follow = true;
        } else if !labels_follow {
            let mut prefixes = PREFIXES.iter().map(|prefix| prefix.replace('.', "_"));
            if prefixes.any(|prefix| name.starts_with(&prefix)) {
                found.push(name.to_owned());
            }
        }
        if word.ends_with(')') {
            labels_follow = false;
        }
    }
    found
}

#[test]
fn names_are_found_in_queries_and_labels_are_not() {
    let query = "sum by (http_route) (rate(http_server_request_duration_seconds_count{a=\"process_x\"}[5m])) / \
                 on (tidewaiter_x) tidewaiter_spool_depth";
    let expected = [
        "http_server_request_duration_seconds_count",
        "tidewaiter_spool_depth",
    ];
    assert_eq!(names(query), expected);
}
