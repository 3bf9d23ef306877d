//! Bills of materials of one report, as files: what reads them elsewhere is held against them, so that
//! a report comes back as it was.

use model::{Confidence, Package, PackageId, PackageType, Purl, Report};

use super::samples::{empty, package};
use crate::{Format, Options, render};

fn id(text: &str) -> PackageId {
    PackageId(text.to_owned())
}

/// Every kind of difficulty: names with groups, epochs, several licences, digests of all kinds.
fn sample() -> Report {
    let os = Package {
        id: id("deb:openssl@1:3.0.11-1/amd64"),
        version: "1:3.0.11-1".to_owned(),
        purl: Purl("pkg:deb/debian/openssl@1:3.0.11-1?arch=amd64&distro=debian-12".to_owned()),
        vendor: Some("Debian".to_owned()),
        licenses: vec![
            "apache-2.0".to_owned(),
            "MIT OR BSD-3-Clause".to_owned(),
            "as: is".to_owned(),
        ],
        digests: vec![format!("md5:{}", "0a".repeat(16)), "h1:base64=".to_owned()],
        depends_on: Vec::new(),
        owned_by: None,
        direct: None,
        dev: None,
        ..package()
    };
    let language = Package {
        kind: PackageType::Npm,
        path: "app/node_modules/x/package.json".to_owned(),
        arch: None,
        distro: None,
        source_name: None,
        source_version: None,
        vendor: None,
        licenses: vec!["MIT".to_owned()],
        digests: vec![format!("sha512:{}", "0b".repeat(64))],
        ..os.clone()
    };
    let mut report = empty();
    report.packages = others(&os, &language);
    report.packages.push(os);
    report.packages.sort_by(|one, other| {
        let key = |of: &Package| (of.kind, of.name.clone(), of.version.clone());
        key(one).cmp(&key(other))
    });
    report
}

fn others(os: &Package, language: &Package) -> Vec<Package> {
    vec![
        Package {
            id: id("rpm:bash@1:5.1-4/x86_64"),
            kind: PackageType::Rpm,
            name: "bash".to_owned(),
            version: "1:5.1-4".to_owned(),
            purl: Purl("pkg:rpm/redhat/bash@5.1-4?arch=x86_64&epoch=1&rpmmod=a:b".to_owned()),
            modularity: Some("a:b".to_owned()),
            source_version: Some("1:5.1".to_owned()),
            licenses: vec!["MIT OR Apache-2.0".to_owned()],
            digests: Vec::new(),
            ..os.clone()
        },
        Package {
            id: id("pypi:Flask_Thing@1.0#lib/x.whl!/y"),
            kind: PackageType::Pypi,
            name: "Flask_Thing".to_owned(),
            version: "1.0".to_owned(),
            purl: Purl("pkg:pypi/flask-thing@1.0".to_owned()),
            within: Some("y".to_owned()),
            owned_by: Some(os.id.clone()),
            confidence: Confidence::Medium,
            ..language.clone()
        },
        Package {
            id: id("npm:@scope/tool@1.0#x"),
            name: "@scope/tool".to_owned(),
            version: "1.0".to_owned(),
            purl: Purl("pkg:npm/%40scope/tool@1.0".to_owned()),
            depends_on: vec![id("maven:org.a:b@1#x"), id("npm:left-pad@1.0#x")],
            direct: Some(true),
            dev: Some(true),
            ..language.clone()
        },
        Package {
            id: id("npm:left-pad@1.0#x"),
            name: "left-pad".to_owned(),
            version: "1.0".to_owned(),
            purl: Purl("pkg:npm/left-pad@1.0".to_owned()),
            direct: Some(false),
            dev: Some(false),
            licenses: Vec::new(),
            confidence: Confidence::Low,
            ..language.clone()
        },
        Package {
            id: id("maven:org.a:b@1#x"),
            kind: PackageType::Maven,
            name: "org.a:b".to_owned(),
            version: "1".to_owned(),
            purl: Purl("pkg:maven/org.a/b@1".to_owned()),
            ..language.clone()
        },
    ]
}

#[test]
fn bills_of_materials_are_as_in_the_files() {
    let check = |format, golden: &str, name: &str| {
        let mut out = Vec::new();
        render(&sample(), format, &Options::default(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        if std::env::var_os("TIDEWAITER_UPDATE_GOLDEN").is_some() {
            let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/sbom/");
            std::fs::write(format!("{directory}{name}"), &text).unwrap();
        } else {
            assert!(
                text == golden,
                "{name} is another: run with TIDEWAITER_UPDATE_GOLDEN=1 and read the difference"
            );
        }
    };
    check(
        Format::Json,
        include_str!("../../testdata/sbom/sample.json"),
        "sample.json",
    );
    check(
        Format::CycloneDx,
        include_str!("../../testdata/sbom/sample.cdx.json"),
        "sample.cdx.json",
    );
    check(
        Format::SpdxJson,
        include_str!("../../testdata/sbom/sample.spdx.json"),
        "sample.spdx.json",
    );
}
