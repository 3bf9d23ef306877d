use std::collections::HashSet;

use model::{Gap, GapCode, Hides, Package, PackageId, Report};
use serde_json::Value;

use crate::{
    Format, Options,
    tests::{
        samples::{empty, full, package},
        schemas::{document, document_of_all, index},
    },
};

fn spdx(report: &Report) -> Value {
    document(report, Format::SpdxJson, &Options::default())
}

/// Every identifier is there once, and whatever is related is there.
fn check_ids(document: &Value) {
    let packages = document["packages"].as_array().unwrap();
    let ids = packages.iter().map(|one| one["SPDXID"].as_str().unwrap());
    let ids: Vec<&str> = ids.chain(["SPDXRef-DOCUMENT"]).collect();
    let unique: HashSet<&str> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len());
    for id in ids {
        let rest = id.strip_prefix("SPDXRef-").unwrap();
        let is_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        assert!(rest.chars().all(is_ok), "{id}");
    }
    for one in document["relationships"].as_array().unwrap() {
        for key in ["spdxElementId", "relatedSpdxElement"] {
            let id = one[key].as_str().unwrap();
            assert!(unique.contains(id) || id == "NOASSERTION", "{id}");
        }
    }
}

fn related(document: &Value) -> Vec<String> {
    let all = document["relationships"].as_array().unwrap();
    let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    all.iter()
        .map(|one| {
            let (from, to) = (text(one, "spdxElementId"), text(one, "relatedSpdxElement"));
            format!("{from} {} {to}", text(one, "relationshipType"))
        })
        .collect()
}

#[test]
fn a_document_with_everything() {
    let mut report = full();
    report.packages[0]
        .digests
        .push(format!("sha256:{}", "ab".repeat(32)));
    report.packages[0].vendor = Some("Debian".to_owned());
    let document = spdx(&report);
    check_ids(&document);
    insta::assert_json_snapshot!("package", document["packages"][2]);
    let mut head = document.clone();
    head["packages"] = Value::Null;
    insta::assert_json_snapshot!("document", head);
}

#[test]
fn what_needs_what_is_related() {
    let mut report = empty();
    let id = |name: &str| PackageId(format!("deb:{name}@1"));
    for (name, needs) in [("app", &["libc", "gone"][..]), ("libc", &[])] {
        report.packages.push(Package {
            id: id(name),
            depends_on: needs.iter().map(|name| id(name)).collect(),
            ..package()
        });
    }
    let document = spdx(&report);
    check_ids(&document);
    let needs = related(&document);
    let needs: Vec<&String> = needs
        .iter()
        .filter(|text| text.contains("DEPENDS_ON"))
        .collect();
    let ids: Vec<&str> = document["packages"].as_array().unwrap()[2..]
        .iter()
        .map(|one| one["SPDXID"].as_str().unwrap())
        .collect();
    assert_eq!(needs, [&format!("{} DEPENDS_ON {}", ids[0], ids[1])]);
}

#[test]
fn a_list_that_gaps_cut_may_have_more() {
    let mut report = empty();
    let more = "SPDXRef-Image CONTAINS NOASSERTION".to_owned();
    report
        .gaps
        .push(Gap::new(GapCode::LimitFile, Hides::Secrets, "x"));
    assert!(!related(&spdx(&report)).contains(&more));
    report
        .gaps
        .push(Gap::new(GapCode::Truncated, Hides::Entries, "x"));
    assert!(related(&spdx(&report)).contains(&more));
}

#[test]
fn licenses_are_one_expression_of_what_is_known_or_named() {
    let check = |licenses: &[&str], expected: &str, names: usize| {
        let mut report = empty();
        report.packages.push(Package {
            licenses: licenses.iter().map(|text| (*text).to_owned()).collect(),
            ..package()
        });
        let document = spdx(&report);
        let package = document["packages"].as_array().unwrap().last().unwrap();
        assert_eq!(package["licenseDeclared"], expected);
        let named = document["hasExtractedLicensingInfos"].as_array();
        assert_eq!(named.map_or(0, Vec::len), names);
    };
    check(&[], "NOASSERTION", 0);
    check(&["mit"], "MIT", 0);
    check(&["MIT OR Apache-2.0"], "MIT OR Apache-2.0", 0);
    check(
        &["MIT OR Apache-2.0", "BSD-3-Clause"],
        "(MIT OR Apache-2.0) AND BSD-3-Clause",
        0,
    );
    check(
        &["as is", "as is"],
        "LicenseRef-as-is-1e48eeff2236 AND LicenseRef-as-is-1e48eeff2236",
        1,
    );
    check(&["LicenseRef-a"], "LicenseRef-LicenseRef-a-5ddb7507aba1", 1);
}

#[test]
fn an_index_contains_the_images_of_its_platforms() {
    let document = document_of_all(&index(3), Format::SpdxJson);
    check_ids(&document);
    let of_index = related(&document);
    let of_index = of_index
        .iter()
        .filter(|text| text.starts_with("SPDXRef-Index CONTAINS"));
    assert_eq!(of_index.count(), 3);
}

#[test]
fn the_namespace_follows_the_content() {
    let namespace = |report: &Report| {
        spdx(report)["documentNamespace"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let mut report = full();
    let first = namespace(&report);
    assert_eq!(first, namespace(&report));
    report.packages[0].version.push('1');
    assert_ne!(first, namespace(&report));
}
