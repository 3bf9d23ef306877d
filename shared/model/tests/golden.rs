//! Golden files: what was ever written is read by today's types, and nothing in it is dropped.
//!
//! `testdata/events/<ce-type without version>/` holds events and records, `testdata/stored/<name>/`
//! the other values of buckets and objects. `v1.json` has every field, `v1-least.json` only those
//! without a default; the `.msgpack` file beside each has the bytes of the wire. These files are
//! added, never edited: a field that is added gets a file of its own (`v1-<field>.json`), a change
//! of meaning a new version of the type.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use model::{
    AdvisoryHead, AdvisoryInbox, AdvisoryManifest, AlertRecord, Assessed, Assessment, CheckRecord,
    CrawlRecord, Judged, Known, PolicyRecord, ProcessRecord, Record, RefRecord, ScanRequestRecord,
    Scanned, ScannedFindings, ScannedPackages, SweptMark, TagRecord, TokenRecord,
    event::{
        Alert, Attempts, DeadLetter, Event, ImageDeleted, ImageJudged, ImagePushed, ImageScan,
        ScanRequested, VulnerabilityChanged,
    },
    runtime::{
        ContainerDetected, ContainerResponded, Desired, Detection, ImageSighted, Incident,
        IncidentChanged, LayerFiles, NodeRecord, NodeReported, ResponseLedger, ResponseOrdered,
        ResponseRecord, ResponseReported, RuntimeBatch, SightedImages, SightedRecord,
        SignedDesired, Surroundings,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// What a type makes of a golden file: as JSON and as MessagePack.
type Reading = (Value, Vec<u8>);

/// A type with golden files.
struct Case {
    folder: PathBuf,
    /// JSON in; what the type makes of it out, as JSON and as MessagePack.
    from_json: fn(&str) -> Result<Reading, String>,
    /// MessagePack in; what the type makes of it out, as JSON.
    from_msgpack: fn(&[u8]) -> Result<Value, String>,
}

#[test]
fn what_was_written_is_read_and_nothing_is_dropped() {
    let mut wrong = Vec::new();
    for case in cases() {
        let files = golden_files(&case.folder, "json");
        if files.is_empty() {
            wrong.push(format!(
                "{}: no golden file: add `v1.json`",
                case.folder.display()
            ));
        }
        for file in files {
            if let Err(why) = check(&case, &file) {
                wrong.push(format!("{}: {why}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_golden_folder_belongs_to_a_type() {
    let known: Vec<PathBuf> = cases().into_iter().map(|case| case.folder).collect();
    for group in ["events", "stored"] {
        for entry in fs::read_dir(testdata().join(group)).unwrap() {
            let folder = entry.unwrap().path();
            assert!(
                known.contains(&folder),
                "no type reads {}",
                folder.display()
            );
        }
    }
}

/// Every type that crosses a process or a disk.
fn cases() -> Vec<Case> {
    vec![
        event::<ImagePushed>(),
        event::<ImageDeleted>(),
        event::<ScanRequested>(),
        event::<ImageScan>(),
        event::<ImageJudged>(),
        event::<VulnerabilityChanged>(),
        event::<NodeReported>(),
        event::<RuntimeBatch>(),
        event::<ImageSighted>(),
        event::<ContainerDetected>(),
        event::<IncidentChanged>(),
        event::<ContainerResponded>(),
        event::<ResponseOrdered>(),
        event::<ResponseReported>(),
        event::<Alert>(),
        record::<Known>(),
        record::<Scanned>(),
        record::<Assessed>(),
        record::<Judged>(),
        stored::<RefRecord>("ref"),
        stored::<ScanRequestRecord>("scan_request"),
        stored::<TagRecord>("tag"),
        stored::<CrawlRecord>("crawl"),
        stored::<CheckRecord>("checked"),
        stored::<ProcessRecord>("process"),
        stored::<TokenRecord>("token"),
        stored::<AlertRecord>("alert"),
        stored::<PolicyRecord>("policy"),
        stored::<AdvisoryHead>("advisory_head"),
        stored::<AdvisoryInbox>("advisory_inbox"),
        stored::<AdvisoryManifest>("advisory_manifest"),
        stored::<SweptMark>("swept"),
        stored::<ScannedPackages>("packages"),
        stored::<ScannedFindings>("findings"),
        stored::<LayerFiles>("layer_files"),
        stored::<SightedRecord>("sighted"),
        stored::<SightedImages>("sighted_images"),
        stored::<Assessment>("assessment"),
        stored::<DeadLetter>("dead_letter"),
        stored::<Attempts>("attempts"),
        stored::<NodeRecord>("node"),
        stored::<Incident>("incident"),
        stored::<Vec<Detection>>("timeline"),
        stored::<Surroundings>("surroundings"),
        stored::<ResponseRecord>("response_record"),
        stored::<ResponseLedger>("response_ledger"),
        stored::<Desired>("desired"),
        stored::<SignedDesired>("signed_desired"),
    ]
}

fn event<T: Event>() -> Case {
    case::<T>(&format!("events/{}", without_version(T::TYPE)))
}

fn record<T: Record>() -> Case {
    case::<T>(&format!("events/{}", without_version(T::TYPE)))
}

fn stored<T: Serialize + DeserializeOwned>(name: &str) -> Case {
    case::<T>(&format!("stored/{name}"))
}

fn case<T: Serialize + DeserializeOwned>(folder: &str) -> Case {
    Case {
        folder: testdata().join(folder),
        from_json: |text| {
            let value: T = serde_json::from_str(text).map_err(|error| error.to_string())?;
            let packed = rmp_serde::to_vec_named(&value).map_err(|error| error.to_string())?;
            Ok((
                serde_json::to_value(&value).map_err(|error| error.to_string())?,
                packed,
            ))
        },
        from_msgpack: |bytes| {
            let value: T = rmp_serde::from_slice(bytes).map_err(|error| error.to_string())?;
            serde_json::to_value(&value).map_err(|error| error.to_string())
        },
    }
}

fn check(case: &Case, file: &Path) -> Result<(), String> {
    let text = String::from_utf8(read(file).map_err(|error| error.to_string())?)
        .map_err(|error| error.to_string())?;
    let golden: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let (again, packed) = (case.from_json)(&text)?;
    keeps("", &golden, &again)?;
    equal("its MessagePack", &(case.from_msgpack)(&packed)?, &again)?;

    // A newer writer knows more fields.
    let mut newer = golden;
    if let Value::Object(fields) = &mut newer {
        fields.insert("a field of tomorrow".to_owned(), Value::Bool(true));
    }
    equal(
        "with an unknown field",
        &(case.from_json)(&newer.to_string())?.0,
        &again,
    )?;

    let wire = file.with_extension("msgpack");
    match read(&wire) {
        Ok(bytes) => equal(
            "the stored MessagePack",
            &(case.from_msgpack)(&bytes)?,
            &again,
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::write(&wire, packed).map_err(|error| error.to_string())?;
            Err(format!(
                "{} was missing and is written now: commit it",
                wire.display()
            ))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Everything in `golden` is in `again` with the same value; `again` may have more fields.
fn keeps(path: &str, golden: &Value, again: &Value) -> Result<(), String> {
    match (golden, again) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in old {
                match new.get(name) {
                    Some(kept) => keeps(&format!("{path}/{name}"), value, kept)?,
                    // An absent option may be written as null or left out.
                    None if value.is_null() => {}
                    None => return Err(format!("`{path}/{name}` is dropped")),
                }
            }
            Ok(())
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            let pairs = old.iter().zip(new).enumerate();
            pairs
                .into_iter()
                .try_for_each(|(i, (a, b))| keeps(&format!("{path}/{i}"), a, b))
        }
        _ if golden == again => Ok(()),
        _ => Err(format!("`{path}` was {golden} and is {again} now")),
    }
}

fn equal(what: &str, got: &Value, expected: &Value) -> Result<(), String> {
    if got == expected {
        Ok(())
    } else {
        Err(format!("{what} reads as {got}, not {expected}"))
    }
}

fn golden_files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

fn without_version(name: &str) -> &str {
    let (name, version) = name
        .rsplit_once(".v")
        .expect("a type ends with its version");
    assert!(
        version.bytes().all(|b| b.is_ascii_digit()),
        "{name} ends with `.v<number>`"
    );
    name
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(1 << 20).read_to_end(&mut bytes)?;
    Ok(bytes)
}
