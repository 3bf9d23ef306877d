use model::{Digest, Os, Package, PackageType, ScannedPackages};

use super::explain;
use crate::SeverityBy;
use crate::matching::tests::{Fake, os, package};

const GHSA: &str = r#"{"id": "GHSA-aaaa", "aliases": ["CVE-2024-1"],
    "affected": [{"package": {"ecosystem": "PyPI", "name": "x"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}]}]}"#;
const WITHDRAWN: &str = r#"{"id": "PYSEC-2024-1", "aliases": ["CVE-2024-1"], "withdrawn": "2024-01-01T00:00:00Z",
    "affected": [{"package": {"ecosystem": "PyPI", "name": "x"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]}]}"#;
const DSA: &str = r#"{"id": "DSA-1-1", "upstream": ["CVE-2024-2"],
    "affected": [{"package": {"ecosystem": "Debian:12", "name": "src"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.0-2"}]}]}]}"#;

/// Two vulnerabilities, of which the record of one says that it was fixed long ago.
const TWO: [&str; 2] = [
    r#"{"id": "DSA-2-1", "upstream": ["CVE-2024-3", "CVE-2024-4"],
    "affected": [{"package": {"ecosystem": "Debian:12", "name": "two"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.0-2"}]}]}]}"#,
    r#"{"id": "DEBIAN-CVE-2024-3", "upstream": ["CVE-2024-3"],
    "affected": [{"package": {"ecosystem": "Debian:12", "name": "two"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "0.5-1"}]}]}]}"#,
];

/// The explanation as lines.
fn check(os: Option<Os>, packages: Vec<Package>, id: &str) -> String {
    let shards = Fake::of(&[GHSA, WITHDRAWN, DSA, TWO[0], TWO[1]]);
    let scanned = ScannedPackages {
        image: Digest::of(b"image"),
        os,
        packages,
        gaps: Vec::new(),
    };
    let explanation = explain(&scanned, &shards, id, SeverityBy::Vendor).expect("shards");
    let names: Vec<_> = explanation.names.iter().map(String::as_str).collect();
    let mut lines = vec![format!("{} {}", explanation.affected, names.join(" "))];
    for package in &explanation.packages {
        lines.push(format!("{}: {}", package.name, package.verdict));
        for advisory in &package.advisories {
            lines.push(format!(
                "  {}: {} {}",
                advisory.id, advisory.version, advisory.says
            ));
            let ranges = advisory.ranges.iter();
            lines.extend(ranges.map(|range| format!("    {} {}", range.range, range.says)));
        }
    }
    lines.join("\n")
}

#[test]
fn every_advisory_of_any_name_is_told_with_its_ranges() {
    let x = || vec![package(PackageType::Pypi, "x", "1.5")];
    insta::assert_snapshot!(check(None, x(), "CVE-2024-1"), @r#"
    true CVE-2024-1 GHSA-aaaa PYSEC-2024-1
    x: affected: CVE-2024-1 (unknown), fixed in 2.0
      GHSA-aaaa: 1.5 affected: it is in < 2.0
        range < 2.0 holds it
      PYSEC-2024-1: 1.5 nothing: it is withdrawn
    "#);
    assert_eq!(check(None, x(), "GHSA-aaaa").lines().count(), 5);
}

#[test]
fn it_says_why_not() {
    let newer = vec![package(PackageType::Pypi, "x", "2.0")];
    insta::assert_snapshot!(check(None, newer, "CVE-2024-1"), @r#"
    false CVE-2024-1 GHSA-aaaa PYSEC-2024-1
    x: not affected: no advisory that counts holds its version
      GHSA-aaaa: 2.0 not affected: no range and no list holds the version
        range < 2.0 does not hold it
      PYSEC-2024-1: 2.0 nothing: it is withdrawn
    "#);
    let other = vec![package(PackageType::Pypi, "y", "1.0")];
    assert_eq!(check(None, other, "CVE-2024-1"), "false CVE-2024-1");
}

#[test]
fn what_the_distribution_owns_is_said_to_be_its() {
    let distribution = Package {
        source_name: Some("src".to_owned()),
        ..package(PackageType::Deb, "python3-x", "1.0-1")
    };
    let owned = Package {
        owned_by: Some(distribution.id.clone()),
        ..package(PackageType::Pypi, "x", "1.0")
    };
    let said = check(
        Some(os("debian", "12")),
        vec![distribution, owned],
        "CVE-2024-1",
    );
    assert!(
        said.contains("x: not affected: `deb/python3-x` of the operating system owns it"),
        "{said}"
    );
    let packages = vec![Package {
        source_name: Some("src".to_owned()),
        ..package(PackageType::Deb, "python3-x", "1.0-1")
    }];
    let said = check(Some(os("debian", "12")), packages, "CVE-2024-2");
    assert!(
        said.contains("DSA-1-1: 1.0-1 affected: it is in < 1.0-2"),
        "{said}"
    );
}

#[test]
fn of_a_bulletin_the_vulnerability_that_was_asked_for_is_told() {
    let verdict = |id: &str| {
        let packages = vec![package(PackageType::Deb, "two", "1.0-1")];
        let said = check(Some(os("debian", "12")), packages, id);
        let lines: Vec<&str> = said.lines().take(2).collect();
        lines.join("; ")
    };
    assert_eq!(
        verdict("CVE-2024-3"),
        "false CVE-2024-3; two: not affected: no advisory that counts holds its version"
    );
    let other = "two: affected: CVE-2024-4 (unknown), fixed in 1.0-2";
    assert_eq!(verdict("CVE-2024-4"), format!("true CVE-2024-4; {other}"));
    assert_eq!(verdict("DSA-2-1"), format!("true DSA-2-1; {other}"));
}
