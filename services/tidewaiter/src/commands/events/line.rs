//! An event as one line for people: when, what, which, the key fact.

use model::event::Kind;
use serde_json::Value;

/// So much of one value fits a line.
const VALUE_CHARS_MAX: usize = 160;

/// A CloudEvent as a line.
pub(super) fn line(event: &Value) -> String {
    let ce_type = event["type"].as_str().unwrap_or_default();
    let kind = match Kind::find(ce_type) {
        Some(kind) => kind.name(),
        None => ce_type,
    };
    let (which, fact) = match event.get("data") {
        Some(data) => parts(kind, data),
        None => ("-".to_owned(), "cannot be read any more".to_owned()),
    };
    let time = text(event, "time");
    // To the second, as far as it is a time.
    let time = time
        .parse::<jiff::Timestamp>()
        .map_or(time, |time| format!("{time:.0}"));
    let tenant = match event["tenant"].as_str() {
        None | Some("default") => String::new(),
        Some(tenant) => format!("[{tenant}] "),
    };
    plain(&format!("{time:<20}  {kind:<21}  {tenant}{which}  {fact}"))
}

/// Which image, and what of it.
fn parts(kind: &str, data: &Value) -> (String, String) {
    match kind {
        "image.pushed" => (name(data), digest(data, "digest")),
        "image.deleted" => (name(data), "is gone".to_owned()),
        "scan.requested" => {
            let by = text(data, "system");
            (text(data, "reference"), format!("asked for by {by}"))
        }
        "image.judged" => (image(data), judged(data)),
        "image.sighted" => {
            let (node, which) = (text(data, "node"), digest(data, "image"));
            let runs = if data["running"] == Value::Bool(true) {
                "runs"
            } else {
                "lies"
            };
            (
                image(data),
                format!("{runs} on {node} as {which}, not scanned yet"),
            )
        }
        "container.detected" => {
            let found = &data["detection"];
            let severity = text(found, "severity");
            (
                text(found, "rule"),
                format!("{severity}: {}", text(found, "title")),
            )
        }
        "incident.changed" => {
            let incident = &data["incident"];
            let (state, severity) = (text(incident, "state"), text(incident, "severity"));
            let title = text(incident, "title");
            (
                text(incident, "id"),
                format!("{state}, {severity}: {title}"),
            )
        }
        "container.responded" => {
            let (action, stage) = (text(data, "action"), text(data, "stage"));
            let (by, detail) = (text(data, "by"), text(data, "detail"));
            (
                text(data, "incident"),
                format!("{action} {stage} by {by}: {detail}"),
            )
        }
        "vulnerability.changed" => (digest(data, "image"), changed(data)),
        "alert" => {
            let (state, severity) = (text(data, "state"), text(data, "severity"));
            let title = text(data, "title");
            (image(data), format!("{state}, {severity}: {title}"))
        }
        _ => ("-".to_owned(), short(&data.to_string())),
    }
}

fn judged(data: &Value) -> String {
    let (decision, policy) = (text(data, "decision"), text(data, "policy"));
    let before = match data["previous"].as_str() {
        Some(previous) => format!(", was {}", short(previous)),
        None => String::new(),
    };
    let why = match data["reasons"].as_array().map(Vec::as_slice) {
        None | Some([]) => String::new(),
        Some([first, rest @ ..]) => {
            let more = match rest.len() {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            format!(": {}{more}", short(first.as_str().unwrap_or_default()))
        }
    };
    format!("{decision}{before} under {policy}{why}")
}

fn changed(data: &Value) -> String {
    let found = &data["vulnerability"];
    let (change, id) = (text(data, "change"), text(found, "id"));
    let severity = text(found, "severity");
    let (package, version) = (text(found, "package"), text(found, "installed_version"));
    let fixed = match found["fixed_versions"][0].as_str() {
        Some(fixed) => format!(", fixed in {}", short(fixed)),
        None => String::new(),
    };
    format!("{change} {id}, {severity}: {package} {version}{fixed}")
}

/// `source/repository:tag`.
fn name(data: &Value) -> String {
    let (source, repository) = (text(data, "source"), text(data, "repository"));
    match data["tag"].as_str() {
        Some(tag) => format!("{source}/{repository}:{}", short(tag)),
        None => format!("{source}/{repository}"),
    }
}

/// The first name of an image, or its digest.
fn image(data: &Value) -> String {
    match data["references"][0].as_str() {
        Some(reference) => short(reference),
        None => digest(data, "image"),
    }
}

fn digest(data: &Value, field: &str) -> String {
    let digest = data[field].as_str().unwrap_or("-");
    digest.chars().take("sha256:".len() + 12).collect()
}

fn text(data: &Value, field: &str) -> String {
    short(data[field].as_str().unwrap_or("-"))
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(VALUE_CHARS_MAX).collect();
    if text.chars().nth(VALUE_CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

/// Names come from outside: nothing in them may steer a terminal.
fn plain(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use model::event::NEWS;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_has_a_line_of_its_own() {
        let lines = NEWS.iter().map(|kind| {
            line(&json!({
                "type": kind.ce_type,
                "time": "2026-01-02T03:04:05.678Z",
                "tenant": "default",
                "data": kind.example(),
            }))
        });
        let lines: Vec<String> = lines.collect();
        let expected = [
            "image.pushed           main/team/app:1.0  sha256:222222222222",
            "image.deleted          main/team/app:1.0  is gone",
            "scan.requested         registry.example/team/app:1.0  asked for by gitlab",
            "image.sighted          registry.example/team/app:1  runs on node-1 as \
             sha256:222222222222, not scanned yet",
            "image.judged           registry.example/team/app:1.0  deny, was allow under default: \
             1 vulnerability of level 4 or 5 has a fix",
            "vulnerability.changed  sha256:222222222222  appeared CVE-2023-0286, high: \
             libssl3 3.0.11-1, fixed in 3.0.11-1~deb12u1",
            "container.detected     drift/modified-executable  critical: tmp/dropped is not what the \
             image holds",
            "incident.changed       fedcba9876543210fedcba9876543210  open, critical: web ran \
             tmp/dropped, which its image does not hold",
            "container.responded    fedcba9876543210fedcba9876543210  replace done by alice: web-2 \
             runs in its place",
            "alert                  registry.example/team/app:1.0  raised, critical: \
             team/app:1.0 is denied",
        ];
        let expected = expected.map(|line| format!("2026-01-02T03:04:05Z  {line}"));
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_name_from_outside_steers_no_terminal_and_has_its_length() {
        let event = json!({
            "type": "io.tidewaiter.image.deleted.v1",
            "time": "2026-01-02T03:04:05Z",
            "tenant": "acme",
            "data": {"source": "main", "repository": format!("a\u{1b}[2Jb\nc{}", "x".repeat(500))},
        });
        let line = line(&event);
        assert!(line.contains("[acme] main/a [2Jb cxxx"), "{line}");
        assert!(line.ends_with("x…  is gone"), "{line}");
        assert!(!line.contains(char::is_control));
        let empty = super::line(&json!({}));
        assert!(empty.ends_with("cannot be read any more"), "{empty}");
    }
}
