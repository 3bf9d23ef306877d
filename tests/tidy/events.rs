//! Every version of every event and record has a golden file.

use crate::repo::{Member, files, members, text, verdict};

const TESTDATA: &str = "shared/model/testdata/events";

#[test]
fn every_event_version_has_a_golden_file() {
    let mut wrong = Vec::new();
    let types = types();
    assert!(
        types.len() > 5,
        "found only {types:?}: how types are named has changed"
    );
    for name in types {
        let Some((folder, version)) = name.rsplit_once(".v") else {
            wrong.push(format!("`{name}` does not end with its version, as `.v1`"));
            continue;
        };
        let golden = format!("{TESTDATA}/{folder}/v{version}.json");
        if !files().contains(&golden) {
            wrong.push(format!("`{name}`: add {golden} with every field, and a line in shared/model/tests/golden.rs"));
        }
    }
    verdict("golden files of events and records", &wrong);
}

#[test]
fn every_golden_file_has_its_bytes_of_the_wire() {
    let golden = files()
        .iter()
        .filter(|file| file.starts_with("shared/model/testdata/"));
    let wrong: Vec<String> = golden
        .filter_map(|file| Some(format!("{}.msgpack", file.strip_suffix(".json")?)))
        .filter(|wire| !files().contains(wire))
        .map(|wire| format!("{wire} is missing: run `cargo test -p model`, which writes it"))
        .collect();
    verdict("golden files of the wire", &wrong);
}

/// The `TYPE` constants of the model.
fn types() -> Vec<String> {
    let model = members().iter().find(|member| member.name == "model");
    let sources = model.into_iter().flat_map(Member::sources);
    let mut types = Vec::new();
    for file in sources {
        let text = text(file).unwrap_or_default();
        let lines = text
            .lines()
            .filter(|line| line.contains("const TYPE: &'static str ="));
        types.extend(lines.filter_map(|line| Some(line.split('"').nth(1)?.to_owned())));
    }
    types
}
