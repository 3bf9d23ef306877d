//! Who may import whom. This table is the shape of the house: an arrow that is not in it is a
//! mistake of the import, or a change of the design.

use crate::repo::{Kind, Member, at, files, members, text, verdict};

/// What a crate may import of ours. Services are not listed: see [`SERVICE`].
const TABLE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("chassis", &[]),
    ("archive", &["model"]),
    ("analyzers", &["model", "archive"]),
    ("malware", &["model", "archive", "analyzers"]),
    ("vulndb", &["model"]),
    ("oci", &["model", "archive", "chassis"]),
    ("cache", &["model", "chassis"]),
    ("bus", &["model", "chassis"]),
    ("report", &["model"]),
    ("testkit", &["model"]),
    ("agent", &["model", "archive", "oci", "chassis", "bus"]),
];

/// What a service may import of ours: never another service.
const SERVICE: &[&str] = &[
    "model",
    "chassis",
    "archive",
    "analyzers",
    "malware",
    "vulndb",
    "oci",
    "cache",
    "bus",
    "report",
];

/// Crates that may import everything.
const ALL: &[&str] = &["load-tests", "tests"];

/// What the binary may call in a service: a service is run, says what its routes are, and these make
/// `scan` possible without a broker. Types come along; modules and other functions do not.
const CALLED: &[(&str, &[&str])] = &[
    (
        "gateway",
        &["run", "run_router", "open_source", "operations"],
    ),
    ("scanner", &["run", "scan"]),
    (
        "matcher",
        &[
            "run",
            "routes",
            "assess",
            "explain",
            "export",
            "import",
            "import_export",
            "is_export",
            "operations",
            "read_for",
            "tells",
        ],
    ),
    (
        "policy",
        &["run", "judge", "run_tests", "untested", "operations"],
    ),
    ("behavior", &["run"]),
    ("alerting", &["run"]),
    ("inventory", &["run", "operations"]),
];

/// Crates without I/O of their own: no runtime and no client among their dependencies.
const PURE: &[&str] = &["model", "archive", "analyzers", "vulndb", "report"];
const ASYNC: &[&str] = &[
    "tokio",
    "tokio-util",
    "futures",
    "reqwest",
    "axum",
    "tower",
    "async-nats",
    "hyper",
];

/// Third-party crates with one home.
const HOMES: &[(&str, &str)] = &[
    ("async-nats", "bus"),
    ("rocksdb", "cache"),
    ("yara-x", "malware"),
    ("libbpf-rs", "agent"),
];

#[test]
fn crates_import_only_what_the_table_allows() {
    let mut wrong = Vec::new();
    for member in members() {
        let Some(allowed) = allowed(member) else {
            wrong.push(format!(
                "`{}` is not in the table of tests/tidy/imports.rs: add what it may import, and why, to the design",
                member.path
            ));
            continue;
        };
        for dependency in member.dependencies() {
            let is_ours = members().iter().any(|other| other.name == dependency.name);
            let is_testkit = dependency.name == "testkit" && dependency.kind == Kind::Dev;
            if is_ours && !is_testkit && !allowed.contains(&dependency.name) {
                wrong.push(format!(
                    "`{}` must not import `{}`: it may import {allowed:?}; hand the value in as an argument, or move the type to `model`",
                    member.name, dependency.name
                ));
            }
        }
    }
    verdict("imports between crates", &wrong);
}

#[test]
fn the_binary_calls_only_the_agreed_functions_of_a_service() {
    let mut wrong = Vec::new();
    let Some(binary) = members().iter().find(|member| member.name == "tidewaiter") else {
        return;
    };
    for file in binary.sources() {
        let text = text(file).unwrap_or_default();
        for (service, functions) in CALLED {
            for name in names_after(&text, &format!("{service}::")) {
                let is_type = name.starts_with(|c: char| c.is_ascii_uppercase());
                if !is_type && !functions.contains(&name.as_str()) {
                    wrong.push(format!(
                        "{file}: `{service}::{name}`: only {functions:?} are called from outside; logic belongs in the service or in a shared crate"
                    ));
                }
            }
        }
    }
    verdict("what `tidewaiter` calls", &wrong);
}

#[test]
fn pure_crates_have_no_runtime_and_no_client() {
    let mut wrong = Vec::new();
    for member in members()
        .iter()
        .filter(|member| PURE.contains(&member.name.as_str()))
    {
        let normal = member
            .dependencies()
            .into_iter()
            .filter(|found| found.kind != Kind::Dev);
        for dependency in normal.filter(|found| ASYNC.contains(&found.name)) {
            wrong.push(format!(
                "`{}` depends on `{}`: it has no async and no network; do that in the caller",
                member.name, dependency.name
            ));
        }
    }
    for file in files()
        .iter()
        .filter(|file| file.starts_with("shared/vulndb/src/"))
    {
        let text = text(file).unwrap_or_default();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for call in ["std::fs", "std::net", "std::env", "fs::"] {
            let is_test = file.ends_with("tests.rs") || file.contains("/tests/");
            if code.contains(call) && !is_test {
                wrong.push(format!("{file}: `{call}`: vulndb does no I/O"));
            }
        }
    }
    verdict("crates that are functions of their arguments", &wrong);
}

#[test]
fn heavy_dependencies_have_one_home() {
    let mut wrong = Vec::new();
    for member in members() {
        for dependency in member.dependencies() {
            let home = HOMES.iter().find(|(name, _)| *name == dependency.name);
            if let Some((name, home)) = home.filter(|(_, home)| *home != member.name) {
                wrong.push(format!(
                    "`{}` depends on `{name}`: only `{home}` does",
                    member.name
                ));
            }
        }
    }
    let deny = text(".deny.toml").unwrap_or_default();
    let deny: toml::Table = deny.parse().unwrap_or_default();
    let bans = at(&deny, &["bans", "deny"]).and_then(toml::Value::as_array);
    let banned = |name: &str, home: &str| {
        bans.into_iter().flatten().any(|ban| {
            let wrappers = ban.get("wrappers").and_then(toml::Value::as_array);
            let wrapper = wrappers
                .and_then(|list| list.first())
                .and_then(toml::Value::as_str);
            ban.get("crate").and_then(toml::Value::as_str) == Some(name) && wrapper == Some(home)
        })
    };
    for (name, home) in HOMES {
        let exists = members().iter().any(|member| member.name == *home);
        if exists && !banned(name, home) {
            wrong.push(format!(
                "`.deny.toml`: deny `{name}` with `wrappers = [\"{home}\"]`"
            ));
        }
    }
    verdict("homes of dependencies", &wrong);
}

fn allowed(member: &Member) -> Option<Vec<&'static str>> {
    let name = member.name.as_str();
    let others = || members().iter().map(|other| other.name.as_str());
    if ALL.contains(&name) {
        return Some(others().collect());
    }
    if name == "tidewaiter" {
        let services = CALLED.iter().map(|(service, _)| *service);
        return Some(SERVICE.iter().copied().chain(services).collect());
    }
    if let Some((_, allowed)) = TABLE.iter().find(|(listed, _)| *listed == name) {
        return Some(allowed.to_vec());
    }
    member
        .path
        .starts_with("services/")
        .then(|| SERVICE.to_vec())
}

/// The identifiers that follow `prefix` where it begins a path; `a::{b, c}` gives both.
fn names_after(text: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (start, _) in text.match_indices(prefix) {
        let before = text[..start].chars().next_back().unwrap_or(' ');
        let line = text[..start]
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .trim_start();
        if before.is_alphanumeric() || before == '_' || before == ':' || line.starts_with("//") {
            continue;
        }
        let rest = &text[start + prefix.len()..];
        let list = rest
            .strip_prefix('{')
            .and_then(|list| list.split('}').next());
        for item in list.unwrap_or(rest).split(',') {
            let item = item.trim_start();
            let end = item
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(item.len());
            names.push(item[..end].to_owned());
            if list.is_none() {
                break;
            }
        }
    }
    names.retain(|name| !name.is_empty() && name != "self");
    names
}

#[test]
fn paths_are_found_one_by_one_and_in_braces() {
    let text =
        "use scanner::{scan, Config};\nlet a = scanner::run(b); x_scanner::no(); // scanner::x\n";
    assert_eq!(
        names_after(text, "scanner::"),
        ["scan", "Config", "run", "x"]
    );
}
