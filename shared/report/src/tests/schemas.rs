//! The schemas that others wrote for the formats they define.

use jsonschema::{Registry, Validator};
use model::{Digest, Gap, GapCode, Hides, Package, PackageId, REPORTS_SCHEMA, Report, Reports};
use serde_json::Value;

use super::samples::{empty, full, verdict};
use crate::{Format, Options, render, render_all};

const SARIF: &str = include_str!("../../testdata/schemas/sarif-schema-2.1.0.json");
const CYCLONEDX: &str = include_str!("../../testdata/schemas/bom-1.6.schema.json");
const SPDX_DOCUMENT: &str = include_str!("../../testdata/schemas/spdx-2.3.schema.json");
/// The list of licences.
pub(crate) const SPDX: &str = include_str!("../../testdata/schemas/spdx.schema.json");
const JSF: &str = include_str!("../../testdata/schemas/jsf-0.82.schema.json");

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn validator(schema: &str) -> Validator {
    let mut schema = parse(schema);
    for part in ["run", "toolComponent"] {
        // We write no languages. What the standard says of them is no regular expression: it closes
        // a bracket that nobody opened.
        let path = format!("/definitions/{part}/properties/language");
        if let Some(Value::Object(language)) = schema.pointer_mut(&path) {
            language.remove("pattern");
        }
    }
    let registry = Registry::new()
        .add("http://cyclonedx.org/schema/spdx.schema.json", parse(SPDX))
        .unwrap()
        .add(
            "http://cyclonedx.org/schema/jsf-0.82.schema.json",
            parse(JSF),
        )
        .unwrap()
        .prepare()
        .unwrap();
    jsonschema::options()
        .with_registry(&registry)
        .should_validate_formats(true)
        .build(&schema)
        .unwrap()
}

/// Fails with everything that the schema refuses.
fn check(validator: &Validator, document: &Value, what: &str) {
    let errors: Vec<_> = validator
        .iter_errors(document)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}");
}

/// A report of this format.
pub(crate) fn document(report: &Report, format: Format, options: &Options) -> Value {
    let mut out = Vec::new();
    render(report, format, options, &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// The reports of an index.
pub(crate) fn document_of_all(reports: &Reports, format: Format) -> Value {
    let mut out = Vec::new();
    render_all(reports, format, &Options::default(), &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// An index of so many platforms.
pub(crate) fn index(platforms: usize) -> Reports {
    let report = |number: usize| {
        let mut report = full();
        report.target.platform = format!("linux/arch{number}").parse().unwrap();
        for found in &mut report.vulnerabilities {
            found.package_id = report.packages[0].id.clone();
        }
        report
    };
    Reports {
        schema: REPORTS_SCHEMA.to_owned(),
        index_digest: Digest::of(b"index"),
        reports: (0..platforms).map(report).collect(),
        verdict: verdict(model::Decision::Deny, Vec::new()),
    }
}

/// A report whose image puts the worst it can into every text.
pub(crate) fn hostile() -> Report {
    let evil = "a](0) {0} <b>\u{1b}[31m\u{202e}\u{0}\"\\|\u{feff}: //..%2f é";
    let mut report = full();
    report.target.reference = evil.to_owned();
    report.target.layers[0].created_by = Some(evil.to_owned());
    report.packages.push(Package {
        id: PackageId(evil.to_owned()),
        name: evil.to_owned(),
        version: evil.to_owned(),
        path: evil.to_owned(),
        licenses: vec![evil.to_owned(), String::new()],
        digests: vec![format!("sha256:{evil}"), "md5:0".to_owned()],
        ..report.packages[0].clone()
    });
    for found in &mut report.vulnerabilities {
        found.id = evil.to_owned();
        evil.clone_into(&mut found.title);
        evil.clone_into(&mut found.url);
        evil.clone_into(&mut found.path);
        found.aliases = vec![evil.to_owned()];
        found.fixed_versions = vec![evil.to_owned()];
    }
    evil.clone_into(&mut report.secrets[0].title);
    evil.clone_into(&mut report.secrets[0].path);
    report.secrets[0].line = 0;
    report.secrets[0].column = 0;
    evil.clone_into(&mut report.malware[0].rule);
    report
        .gaps
        .push(Gap::new(GapCode::Malformed, Hides::Packages, evil).at(evil));
    report
}

/// Every kind of document there is.
fn check_all(format: Format, schema: &str) {
    let validator = validator(schema);
    let all = Options {
        show_suppressed: true,
        ..Options::default()
    };
    for (what, report) in [("empty", empty()), ("full", full()), ("hostile", hostile())] {
        for options in [&Options::default(), &all] {
            check(&validator, &document(&report, format, options), what);
        }
    }
    for platforms in [0, 1, 3, 25] {
        let what = format!("{platforms} platforms");
        check(
            &validator,
            &document_of_all(&index(platforms), format),
            &what,
        );
    }
}

#[test]
fn sarif_documents_are_valid() {
    check_all(Format::Sarif, SARIF);
}

#[test]
fn cyclonedx_documents_are_valid() {
    check_all(Format::CycloneDx, CYCLONEDX);
}

#[test]
fn spdx_documents_are_valid() {
    check_all(Format::SpdxJson, SPDX_DOCUMENT);
}

#[test]
fn the_schemas_refuse_what_is_not_valid() {
    let broken = |format, schema, path: &str, value: Value| {
        let mut document = document(&full(), format, &Options::default());
        *document.pointer_mut(path).unwrap() = value;
        assert!(!validator(schema).is_valid(&document), "{path}");
    };
    broken(
        Format::Sarif,
        SARIF,
        "/runs/0/results/0/level",
        "bad".into(),
    );
    broken(Format::CycloneDx, CYCLONEDX, "/serialNumber", "1".into());
    broken(
        Format::SpdxJson,
        SPDX_DOCUMENT,
        "/packages/0/name",
        1.into(),
    );
    // The licences are in a schema of their own.
    let license = serde_json::json!([{"license": {"id": "no-such-license"}}]);
    broken(
        Format::CycloneDx,
        CYCLONEDX,
        "/components/1/licenses",
        license,
    );
}
