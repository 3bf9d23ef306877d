//! What a service uses on NATS and what its roles may use are the same.

use std::collections::BTreeSet;

use bus::permissions::{Grants, Role};

use crate::repo::{files, is_rust, text, verdict};

/// The roles of a service's crate.
const ROLES: &[(&str, &[Role])] = &[
    ("gateway", &[Role::Gateway, Role::Router]),
    ("scanner", &[Role::Scanner]),
    ("matcher", &[Role::Matcher]),
    ("policy", &[Role::Policy]),
    ("behavior", &[Role::Behavior]),
    ("alerting", &[Role::Alerting]),
    ("inventory", &[Role::Inventory]),
];

/// How a source names a stream, bucket or bucket of objects, and the stream behind it.
const STREAMS: &[(&str, &str)] = &[
    ("ADVISORIES", "KV_tw_advisories"),
    ("ALERTS", "ALERTS"),
    ("ALERT_STATES", "KV_tw_alerts"),
    ("CONFIG", "KV_tw_config"),
    ("EVENTS", "EVENTS"),
    ("EVIDENCE_OBJECTS", "OBJ_tw_evidence"),
    ("forensic_objects", "OBJ_tw_forensics"),
    ("FEED_OBJECTS", "OBJ_tw_feeds"),
    ("INCIDENTS", "KV_tw_incidents"),
    ("JOBS", "JOBS"),
    ("LAYER_OBJECTS", "OBJ_tw_layers"),
    ("NODES", "KV_tw_nodes"),
    ("REFS", "KV_tw_refs"),
    ("REPORT_OBJECTS", "OBJ_tw_reports"),
    ("RESPONSES", "RESPONSES"),
    ("RESPONSE_RECORDS", "KV_tw_responses"),
    ("RESULTS", "RESULTS"),
    ("RUNTIME", "RUNTIME"),
    ("RecordKey", "KV_tw_images_0"),
];

/// What a service's roles may use although its sources do not say so, and why.
const UNSAID: &[(&str, &str, &str)] = &[
    ("matcher", "RESULTS", "an event says where it goes"),
    ("matcher", "REFS", "the bus sweeps markers away for it"),
    ("gateway", "NODES", "the bus forgets images for it"),
    ("inventory", "RESPONSES", "an event says where it goes"),
    ("behavior", "EVENTS", "an event says where it goes"),
    ("behavior", "RESULTS", "an event says where it goes"),
    (
        "behavior",
        "CONFIG",
        "the binary looks its callers' tokens up",
    ),
    ("inventory", "RUNTIME", "the bus surveys every queue"),
    (
        "gateway",
        "CONFIG",
        "the binary looks its callers' tokens up",
    ),
    (
        "inventory",
        "CONFIG",
        "the binary mounts the tokens' routes",
    ),
    ("inventory", "EVENTS", "it is one of `NEWS_STREAMS`"),
    ("inventory", "RESULTS", "it is one of `NEWS_STREAMS`"),
    ("inventory", "ALERTS", "it is one of `NEWS_STREAMS`"),
    ("inventory", "JOBS", "the bus surveys every queue"),
    (
        "gateway",
        "REPORT_OBJECTS",
        "the bus keeps large records there",
    ),
    ("alerting", "ADVISORIES", "the bus reads verdicts for it"),
    ("policy", "ADVISORIES", "the bus reads verdicts for it"),
    (
        "alerting",
        "REPORT_OBJECTS",
        "the bus keeps large records there",
    ),
];

#[test]
fn a_service_may_use_on_nats_what_it_uses_and_nothing_else() {
    let mut wrong = Vec::new();
    for (service, roles) in ROLES {
        let grants = Grants::of(roles.iter().copied());
        let names = names(service);
        for (name, stream) in STREAMS {
            let (uses, may) = (names.contains(*name), grants.uses(stream));
            let unsaid = UNSAID.iter().any(|(crate_name, of, reason)| {
                crate_name == service && of == name && !reason.is_empty()
            });
            if uses && !may {
                wrong.push(format!(
                    "`{service}` names `{name}`, and its roles have no right to `{stream}`: \
                     shared/bus/src/permissions/needs.rs"
                ));
            }
            if may && !uses && !unsaid {
                wrong.push(format!(
                    "the roles of `{service}` may use `{stream}`, and nothing there names `{name}`"
                ));
            }
        }
    }
    verdict("rights on NATS", &wrong);
}

/// The names in a service's sources, without those of its tests.
fn names(service: &str) -> BTreeSet<String> {
    let folder = format!("services/{service}/src/");
    let of_tests = |file: &&String| file.contains("/tests") || file.ends_with("/testing.rs");
    let sources = files()
        .iter()
        .filter(|file| file.starts_with(&folder) && is_rust(file))
        .filter(|file| !of_tests(file));
    let mut names = BTreeSet::new();
    for source in sources {
        let text = text(source).unwrap_or_default();
        let (code, _) = text
            .split_once("#[cfg(test)]\nmod tests {")
            .unwrap_or((&text, ""));
        let words = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        names.extend(words.map(str::to_owned));
    }
    names
}
