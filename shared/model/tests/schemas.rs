//! What subscribers are promised: the JSON Schemas fit what was ever written, and the AsyncAPI
//! document is whole, current and true of its own examples.
//!
//! `deploy/asyncapi.json` is what `tidewaiter events asyncapi` prints. Where the events changed,
//! delete it and run these tests: they write it again. Read the difference before it is committed:
//! what breaks a subscriber needs a new version of the type.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use jsonschema::Validator;
use model::event::{
    Alert, Event, ImageDeleted, ImageJudged, ImagePushed, Kind, NEWS, ScanRequested,
    VulnerabilityChanged, asyncapi,
};
use serde_json::{Value, json};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn read(file: &Path) -> Option<Value> {
    let mut text = String::new();
    File::open(file)
        .ok()?
        .take(1 << 20)
        .read_to_string(&mut text)
        .ok()?;
    Some(serde_json::from_str(&text).expect("it is JSON"))
}

/// Every golden file of a kind's first version.
fn golden(kind: &Kind) -> Vec<(String, Value)> {
    let (folder, _) = kind.ce_type.rsplit_once(".v").expect("a version");
    let folder = testdata().join("events").join(folder);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("every kind has golden files") {
        let file = entry.expect("a file").path();
        if file
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let name = file.display().to_string();
            found.push((name, read(&file).expect("it can be read")));
        }
    }
    assert!(!found.is_empty(), "{}", kind.ce_type);
    found
}

fn validator(schema: &Value) -> Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap_or_else(|error| panic!("{error}: {schema:#}"))
}

fn assert_fits(validator: &Validator, value: &Value, what: &str) {
    let wrong: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

#[test]
fn everything_that_was_ever_written_fits_the_schema_of_its_kind() {
    for kind in NEWS {
        let validator = validator(&kind.schema());
        for (file, mut value) in golden(kind) {
            assert_fits(&validator, &value, &file);
            // A newer writer knows more fields.
            value["a field of tomorrow"] = json!({ "deep": true });
            assert_fits(&validator, &value, &file);
        }
    }
}

#[test]
fn a_schema_refuses_what_is_no_event() {
    for kind in NEWS {
        let validator = validator(&kind.schema());
        for wrong in [json!(null), json!({}), json!([]), json!("text")] {
            assert!(!validator.is_valid(&wrong), "{}: {wrong}", kind.ce_type);
        }
    }
    let judged = Kind::find("image.judged").expect("it is known");
    let validator = validator(&judged.schema());
    for (field, wrong) in [
        ("image", json!("sha256:short")),
        ("policy", json!("Not A Name")),
        ("decision", json!("perhaps")),
        ("assessed", json!(-1)),
        ("judged_at", json!("yesterday")),
        ("counts", json!({"critical": 1})),
    ] {
        let mut event = judged.example();
        event[field] = wrong;
        assert!(!validator.is_valid(&event), "{event:#}");
    }
}

/// The schema asks for exactly the fields without which nothing is read. A field that is added
/// without a default would break the reader of what is stored already, and `v1-least.json`.
#[test]
fn what_a_schema_requires_is_what_a_reader_needs() {
    check_required::<ImagePushed>();
    check_required::<ImageDeleted>();
    check_required::<ScanRequested>();
    check_required::<ImageJudged>();
    check_required::<VulnerabilityChanged>();
    check_required::<Alert>();
}

fn check_required<T: Event>() {
    let kind = Kind::find(T::TYPE).expect("it is news");
    let schema = kind.schema();
    let required: BTreeSet<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let whole = kind.example();
    for field in whole.as_object().expect("a body has fields").keys() {
        let mut less = whole.clone();
        less.as_object_mut().expect("as above").remove(field);
        let needed = serde_json::from_value::<T>(less).is_err();
        let asked = required.contains(field.as_str());
        assert_eq!(needed, asked, "{}: `{field}`", T::TYPE);
    }
}

#[test]
fn the_committed_document_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/asyncapi.json");
    let now = asyncapi();
    let Some(committed) = read(&file) else {
        fs::write(&file, format!("{now:#}\n")).expect("it can be written");
        panic!(
            "{} was missing and is written now: commit it",
            file.display()
        );
    };
    assert!(
        committed == now,
        "{} is not what the events are now: delete it, run this test again, read the difference",
        file.display()
    );
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    let document = asyncapi();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 50, "{}", references.len());
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("all are inside");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                found.push(reference.to_owned());
            }
            fields.values().for_each(|value| collect(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

/// What AsyncAPI 3.0 asks of a document like ours.
#[test]
fn the_document_has_the_structure_of_asyncapi_3() {
    let document = asyncapi();
    assert_eq!(document["asyncapi"], "3.0.0");
    for field in ["title", "version"] {
        assert!(document["info"][field].is_string(), "info.{field}");
    }
    for (name, server) in entries(&document["servers"]) {
        for field in ["host", "protocol"] {
            assert!(server[field].is_string(), "servers.{name}.{field}");
        }
    }
    let mut sent = BTreeSet::new();
    for (name, operation) in entries(&document["operations"]) {
        assert!(
            ["send", "receive"].contains(&operation["action"].as_str().unwrap_or_default()),
            "{name}"
        );
        let channel = operation["channel"]["$ref"].as_str().expect("a channel");
        sent.insert(channel.to_owned());
        // An operation's messages are those of its channel, by reference.
        for message in operation["messages"].as_array().expect("messages") {
            let message = message["$ref"].as_str().expect("a reference");
            assert!(
                message.starts_with(&format!("{channel}/messages/")),
                "{name}: {message}"
            );
        }
    }
    for (name, channel) in entries(&document["channels"]) {
        let address = channel["address"].as_str().expect("an address");
        assert!(
            sent.contains(&format!("#/channels/{name}")),
            "{name} is sent by nothing"
        );
        let in_address: BTreeSet<&str> = address.split(['{', '}']).skip(1).step_by(2).collect();
        let described: BTreeSet<&str> = channel["parameters"]
            .as_object()
            .into_iter()
            .flat_map(|parameters| parameters.keys().map(String::as_str))
            .collect();
        assert_eq!(in_address, described, "{name}");
        assert!(!entries(&channel["messages"]).is_empty(), "{name}");
    }
    for kind in NEWS {
        let address = kind.address;
        let bridged = address.replacen("tw.", "tw.json.", 1);
        let channels = entries(&document["channels"]);
        for wanted in [address, &bridged] {
            assert!(
                channels
                    .iter()
                    .any(|(_, channel)| channel["address"] == wanted),
                "{wanted}"
            );
        }
    }
}

#[test]
fn every_example_fits_the_schemas_of_its_message() {
    let document = asyncapi();
    for (name, message) in entries(&document["components"]["messages"]) {
        assert!(message["contentType"].is_string(), "{name}");
        let examples = message["examples"].as_array().expect("examples");
        assert!(!examples.is_empty(), "{name}");
        for example in examples {
            for part in ["headers", "payload"] {
                if message.get(part).is_some() {
                    assert_fits(&within(&document, &message[part]), &example[part], &name);
                }
            }
        }
    }
}

/// A schema of the document, whose references lead into it (draft 7, AsyncAPI's own).
fn within(document: &Value, schema: &Value) -> Validator {
    validator(&json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "allOf": [schema],
        "components": document["components"],
    }))
}

fn entries(value: &Value) -> Vec<(String, &Value)> {
    let fields = value.as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.clone(), value)).collect()
}
