use std::collections::{BTreeMap, BTreeSet, HashSet};

use model::{Digest, Gap, GapCode, Hides, Malware, Package, PackageId, PackageType, Report};
use serde_json::Value;

use crate::{
    Format, Options,
    licenses::SPDX_IDS,
    tests::{
        samples::{empty, full, package},
        schemas::{SPDX, document, document_of_all, index},
    },
};

fn bom(report: &Report) -> Value {
    document(report, Format::CycloneDx, &Options::default())
}

/// Every `bom-ref` of a document, which must be unique, and every reference to one.
fn refs(value: &Value, defined: &mut Vec<String>, used: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| refs(item, defined, used)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("bom-ref", Value::String(text)) => defined.push(text.clone()),
                    ("ref", Value::String(text)) => used.push(text.clone()),
                    ("dependsOn" | "assemblies", Value::Array(items)) => {
                        used.extend(items.iter().map(|item| item.as_str().unwrap().to_owned()));
                    }
                    _ => refs(value, defined, used),
                }
            }
        }
        _ => {}
    }
}

fn check_refs(document: &Value) {
    let (mut defined, mut used) = (Vec::new(), Vec::new());
    refs(document, &mut defined, &mut used);
    let unique: HashSet<_> = defined.iter().collect();
    assert_eq!(unique.len(), defined.len(), "{defined:?}");
    for one in used {
        assert!(unique.contains(&one), "{one} is not in the document");
    }
}

fn installed(report: &mut Report, name: &str, needs: &[&str]) {
    let id = |name: &str| PackageId(format!("deb:{name}@1"));
    report.packages.push(Package {
        id: id(name),
        name: name.to_owned(),
        depends_on: needs.iter().map(|name| id(name)).collect(),
        ..package()
    });
}

fn needs_of(document: &Value, from: &str) -> Vec<String> {
    let all = document["dependencies"].as_array().unwrap();
    let one = all.iter().find(|one| one["ref"] == from).unwrap();
    let needs = one["dependsOn"].as_array().unwrap();
    needs
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_document_with_everything() {
    let mut report = full();
    report.packages[0]
        .digests
        .push(format!("sha256:{}", "ab".repeat(32)));
    // Found in two packages: one entry.
    let mut twice = report.vulnerabilities[4].clone();
    twice.package_id = report.packages[0].id.clone();
    report.vulnerabilities.truncate(4);
    let id = PackageId("deb/libssl3".to_owned());
    report.packages.push(Package {
        id: id.clone(),
        name: "libssl3".to_owned(),
        ..package()
    });
    report.vulnerabilities.push(twice.clone());
    twice.package_id = id;
    twice.package = "libssl3".to_owned();
    report.vulnerabilities.push(twice);
    for found in &mut report.vulnerabilities {
        if found.package_id.0 == "deb/zlib1g" || found.package_id.0 == "deb/perl-base" {
            found.package_id = report.packages[0].id.clone();
        }
    }
    let document = bom(&report);
    insta::assert_json_snapshot!("metadata", document["metadata"]);
    insta::assert_json_snapshot!("package", document["components"][1]);
    let both = document["vulnerabilities"].as_array().unwrap();
    let both = both
        .iter()
        .find(|one| one["id"] == "CVE-2025-0001")
        .unwrap();
    insta::assert_json_snapshot!("vulnerability", both);
    check_refs(&document);
}

#[test]
fn malware_is_a_file_and_what_is_wrong_with_it_and_secrets_are_left_out() {
    let mut report = full();
    let mut again = report.malware[0].clone();
    again.rule = "packed".to_owned();
    again.waived = report
        .vulnerabilities
        .iter()
        .find_map(|one| one.waived.clone());
    assert!(again.waived.is_some() && !report.secrets.is_empty());
    let mut mild = again.clone();
    mild.severity = model::Severity::Low;
    mild.path = "opt/mild".to_owned();
    report.malware.extend([again, mild]);
    let options = Options {
        severities: vec![model::Severity::Critical],
        ..Options::default()
    };
    let document = document(&report, Format::CycloneDx, &options);
    check_refs(&document);
    let files = document["components"].as_array().unwrap();
    let files: Vec<_> = files.iter().filter(|one| one["type"] == "file").collect();
    insta::assert_json_snapshot!("files", files);
    let found = document["vulnerabilities"].as_array().unwrap();
    let found: Vec<_> = found.iter().filter(|one| one["cwes"][0] == 506).collect();
    insta::assert_json_snapshot!("malware", found);
    let text = document.to_string();
    for secret in &report.secrets {
        assert!(!text.contains(&secret.rule) && !text.contains(&*secret.masked));
    }
}

#[test]
fn two_malicious_files_at_one_path_of_one_layer_are_two_components() {
    let (first, mut report) = (full().malware[0].clone(), empty());
    let second = Malware {
        digest: Digest::of(b"the file that replaced it"),
        rule: "packed".to_owned(),
        deleted_later: !first.deleted_later,
        ..first.clone()
    };
    // The same file again, which a later layer deletes: once it is not deleted.
    let again = Malware {
        deleted_later: true,
        ..first.clone()
    };
    report.malware = vec![first.clone(), second.clone(), again];
    let document = bom(&report);
    check_refs(&document);
    let components = document["components"].as_array().unwrap();
    let files: BTreeMap<&str, &Value> = components
        .iter()
        .filter(|one| one["type"] == "file")
        .map(|one| (one["hashes"][0]["content"].as_str().unwrap(), one))
        .collect();
    let digests: BTreeSet<String> = [first.digest.hex(), second.digest.hex()].into();
    assert!(
        files.keys().copied().eq(digests.iter().map(String::as_str)),
        "{files:?}"
    );
    let deleted = |found: &Malware| {
        let file = files[&*found.digest.hex()];
        let properties = file["properties"].as_array().unwrap().iter();
        let mut deleted = properties.filter(|one| one["name"] == "tidewaiter:file:deletedLater");
        deleted.next().unwrap()["value"].clone()
    };
    assert_eq!(deleted(&first), first.deleted_later.to_string());
    assert_eq!(deleted(&second), second.deleted_later.to_string());
    // Each finding is of its own file.
    let found = document["vulnerabilities"].as_array().unwrap().iter();
    let packed = found
        .filter(|one| one["id"] == "packed")
        .collect::<Vec<_>>();
    assert_eq!(packed.len(), 1);
    assert_eq!(
        packed[0]["affects"][0]["ref"],
        files[&*second.digest.hex()]["bom-ref"]
    );
}

#[test]
fn what_was_decided_is_in_the_analysis() {
    let document = bom(&full());
    let analyses: Vec<_> = document["vulnerabilities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{}: {}", one["id"], one["analysis"]))
        .collect();
    insta::assert_snapshot!(analyses.join("\n"), @r#"
    "CVE-2025-0005": {"state":"not_affected","justification":"code_not_present","detail":"not_affected: component_not_present (vendor.vex.json)"}
    "CVE-2025-0002": null
    "CVE-2025-0003": null
    "CVE-2025-0004": {"state":"exploitable","response":["will_not_fix"],"detail":"accepted by ann until 2026-02-01: not reachable (policy.yaml)"}
    "CVE-2025-0001": null
    "xmrig": null
    "#);
}

#[test]
fn everything_is_reached_from_the_image() {
    let mut report = empty();
    installed(&mut report, "app", &["libc", "libc", "gone", "app"]);
    installed(&mut report, "libc", &[]);
    installed(&mut report, "a", &["b"]);
    installed(&mut report, "b", &["c"]);
    installed(&mut report, "c", &["a", "libc"]);
    let document = bom(&report);
    assert_eq!(needs_of(&document, "image"), ["os", "deb:app@1", "deb:a@1"]);
    assert_eq!(needs_of(&document, "deb:app@1"), ["deb:libc@1"]);
    assert_eq!(needs_of(&document, "deb:libc@1"), [""; 0]);
    check_refs(&document);
}

#[test]
fn a_list_that_gaps_cut_is_called_incomplete() {
    let mut report = empty();
    report
        .gaps
        .push(Gap::new(GapCode::LimitFile, Hides::Secrets, "x"));
    assert_eq!(bom(&report)["compositions"], Value::Null);
    report
        .gaps
        .push(Gap::new(GapCode::Truncated, Hides::Entries, "x"));
    assert_eq!(
        bom(&report)["compositions"],
        serde_json::json!([{"aggregate": "incomplete", "assemblies": ["image"]}])
    );
}

#[test]
fn the_serial_number_follows_the_content() {
    let number = |report: &Report| bom(report)["serialNumber"].as_str().unwrap().to_owned();
    let mut report = full();
    let first = number(&report);
    assert_eq!(first, number(&report));
    report.packages[0].version.push('1');
    assert_ne!(first, number(&report));
    assert_eq!(first.as_bytes()["urn:uuid:00000000-0000-".len()], b'8');
}

#[test]
fn an_index_holds_the_images_of_its_platforms() {
    let document = document_of_all(&index(3), Format::CycloneDx);
    check_refs(&document);
    assert_eq!(document["components"].as_array().unwrap().len(), 3);
    let image = &document["components"][1];
    assert_eq!(
        (&image["type"], &image["bom-ref"]),
        (&"container".into(), &"linux/arch1|image".into())
    );
    assert_eq!(image["components"][1]["name"], "openssl");
    assert_eq!(
        needs_of(&document, "index"),
        [
            "linux/arch0|image",
            "linux/arch1|image",
            "linux/arch2|image"
        ]
    );
}

#[test]
fn a_scoped_name_is_divided() {
    let check = |kind, name: &str, expected: (Option<&str>, &str)| {
        let mut report = empty();
        report.packages.push(Package {
            kind,
            name: name.to_owned(),
            ..package()
        });
        let document = bom(&report);
        let one = &document["components"][1];
        assert_eq!(
            (one["group"].as_str(), one["name"].as_str().unwrap()),
            expected
        );
    };
    check(PackageType::Npm, "@babel/core", (Some("@babel"), "core"));
    check(PackageType::Npm, "left-pad", (None, "left-pad"));
    check(
        PackageType::Maven,
        "org.slf4j:slf4j-api",
        (Some("org.slf4j"), "slf4j-api"),
    );
    check(PackageType::Deb, "a:b", (None, "a:b"));
}

#[test]
fn the_license_identifiers_are_those_of_the_schema() {
    let schema: Value = serde_json::from_str(SPDX).unwrap();
    let mut listed: Vec<_> = schema["enum"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();
    listed.sort_unstable();
    assert_eq!(SPDX_IDS.lines().collect::<Vec<_>>(), listed);
}
