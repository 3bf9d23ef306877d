//! Vendors' own feeds beside OSV's records of the same packages.

use model::{FixState, GapCode, Os, Package, PackageType};

use super::{Fake, assess, os, package};
use crate::{ShardAdvisory, vendor};

const RED_HAT: &str = include_str!("../../../testdata/vendors/red-hat.json");

/// A bulletin that fixes all packages of the document, as OSV has it.
const BULLETIN: &str = r#"{"id": "RHSA-2024:0001", "upstream": ["CVE-2024-0001"],
    "summary": "Red Hat Security Advisory: widget security update",
    "affected": [
        {"package": {"ecosystem": "Red Hat:enterprise_linux:9::appstream", "name": "widget-libs"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1:3.1-2.el9"}]}]},
        {"package": {"ecosystem": "Red Hat:enterprise_linux:9::appstream", "name": "untouched"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9-9"}]}]}]}"#;

/// OSV records, and what a vendor's file says.
fn with(records: &[&str], feed: &str, file: &str) -> Fake {
    let mut parts = Vec::new();
    vendor(feed)
        .expect("a vendor")
        .read(file.as_bytes(), &mut |key, part| parts.push((key, part)))
        .expect("its file");
    Fake::of(records).and(parts)
}

fn rpm(name: &str, version: &str, source_version: &str, module: Option<&str>) -> Package {
    Package {
        source_name: Some(if name == "untouched" { name } else { "widget" }.to_owned()),
        source_version: Some(source_version.to_owned()),
        modularity: module.map(ToOwned::to_owned),
        ..package(PackageType::Rpm, name, version)
    }
}

/// The findings as lines.
fn found(shards: &Fake, os: Os, package: Package) -> Vec<String> {
    let assessment = assess(shards, Some(os), vec![package]);
    // How old a release is does not matter here.
    let mut gaps = assessment.gaps.iter();
    let gap = gaps.find(|gap| gap.code != GapCode::EndOfLifeOs);
    assert_eq!(gap, None);
    let lines = assessment.vulnerabilities.iter().map(|one| {
        let (state, fixed) = (one.fix_state, one.fixed_versions.join(","));
        format!("{} {state:?} {fixed} {:?}", one.id, one.severity)
    });
    lines.collect()
}

#[test]
fn a_vendor_and_a_bulletin_make_one_finding_and_the_vendor_decides() {
    let shards = with(&[BULLETIN], "Red Hat VEX", RED_HAT);
    let nine = || os("rhel", "9.4");
    let libs = rpm("widget-libs", "1:3.1-1.el9", "1:3.1-1.el9", None);
    assert_eq!(
        found(&shards, nine(), libs.clone()),
        ["CVE-2024-0001 Fixed 1:3.1-2.el9 Medium"]
    );
    let assessment = assess(&shards, Some(nine()), vec![libs]);
    let evidence = &assessment.vulnerabilities[0].matched.evidence;
    let names = |word: &str| evidence.iter().any(|line| line.starts_with(word));
    assert!(
        names("CVE-2024-0001") && names("RHSA-2024:0001"),
        "{evidence:?}"
    );
    let fixed = rpm("widget-libs", "1:3.1-2.el9", "1:3.1-2.el9", None);
    assert!(found(&shards, nine(), fixed).is_empty());
    // The bulletin names it; who builds it says that it never was affected.
    assert!(found(&shards, nine(), rpm("untouched", "1-1", "1-1", None)).is_empty());
    assert_eq!(
        found(
            &Fake::of(&[BULLETIN]),
            nine(),
            rpm("untouched", "1-1", "1-1", None)
        ),
        ["CVE-2024-0001 Fixed 9-9 Unknown"]
    );
}

#[test]
fn what_has_no_fix_is_found_with_what_becomes_of_it() {
    let shards = with(&[], "Red Hat VEX", RED_HAT);
    let eight = |module: Option<&str>, version: &str| {
        let package = rpm("widget", version, version, module);
        found(&shards, os("rhel", "8.10"), package)
    };
    assert_eq!(eight(None, "1:2-1.el8"), ["CVE-2024-0001 WontFix  Low"]);
    let stream = |name: &str| format!("gadget:{name}:8100020240101:ab12");
    assert_eq!(
        eight(Some(&stream("2")), "1:2-1.module+el8"),
        ["CVE-2024-0001 NotFixed  High"]
    );
    assert_eq!(
        eight(Some(&stream("3")), "1:3.1-1.module+el8"),
        ["CVE-2024-0001 Fixed 1:3.1-2.module+el8 Medium"]
    );
    assert!(eight(Some(&stream("3")), "1:3.1-2.module+el8").is_empty());
    let seven = rpm("widget", "2-1.el7", "2-1.el7", None);
    assert_eq!(
        found(&shards, os("centos", "7"), seven)[0],
        "CVE-2024-0001 EndOfLife  Medium"
    );
}

#[test]
fn what_subscribers_get_a_fix_for_affects_everybody() {
    let affected = |ecosystem: &str, fixed: &str| {
        format!(
            r#"{{"package": {{"ecosystem": "{ecosystem}", "name": "netty"}}, "ranges": [{{"type":
                "ECOSYSTEM", "events": [{{"introduced": "0"}}, {{"fixed": "{fixed}"}}]}}]}}"#
        )
    };
    let record = |affected: &[String]| {
        let affected = affected.join(",");
        format!(
            r#"{{"id": "UBUNTU-CVE-2024-0009", "upstream": ["CVE-2024-0009"], "affected": [{affected}]}}"#
        )
    };
    let pro = affected("Ubuntu:Pro:22.04:LTS", "1-2ubuntu0.1~esm1");
    let covering = r#"{"id": "UBUNTU-CVE-2000-1", "affected": [{"package": {"ecosystem": "Ubuntu:22.04:LTS",
        "name": "other"}, "versions": ["1"]}]}"#;
    let jammy = || os("ubuntu", "22.04");
    let netty = |version: &str| package(PackageType::Deb, "netty", version);
    let only_pro = record(std::slice::from_ref(&pro));
    let shards = Fake::of(&[&only_pro, covering]);
    assert_eq!(
        found(&shards, jammy(), netty("1-2")),
        ["CVE-2024-0009 NotFixed  Unknown"]
    );
    let assessment = assess(&shards, Some(jammy()), vec![netty("1-2")]);
    let matched = &assessment.vulnerabilities[0].matched;
    assert_eq!(matched.method, "subscription");
    assert!(
        matched.evidence[0].ends_with("; fixed for subscribers in 1-2ubuntu0.1~esm1"),
        "{matched:?}"
    );
    // A subscriber has the fix, or can have it.
    assert_eq!(
        found(&shards, jammy(), netty("1-2ubuntu0.1~esm0")),
        ["CVE-2024-0009 Fixed 1-2ubuntu0.1~esm1 Unknown"]
    );
    assert!(found(&shards, jammy(), netty("1-2ubuntu0.1~esm1")).is_empty());
    // Where there is a fix for everybody, that of subscribers is another build.
    let both = record(&[affected("Ubuntu:22.04:LTS", "1-2"), pro]);
    assert!(found(&Fake::of(&[&both]), jammy(), netty("1-2")).is_empty());
}

#[test]
fn a_state_is_never_lost_between_two_feeds() {
    let unfixed = |feed: &str, unfixed: Option<FixState>| ShardAdvisory {
        package: "widget".to_owned(),
        id: "CVE-2024-0001".to_owned(),
        feed: feed.to_owned(),
        unfixed,
        ..ShardAdvisory::default()
    };
    let shard = crate::Shard::new(vec![
        unfixed("Red Hat VEX", Some(FixState::WontFix)),
        unfixed("Red Hat", None),
        ShardAdvisory {
            modules: vec!["gadget:2".to_owned()],
            ..unfixed("Red Hat VEX", None)
        },
    ]);
    assert_eq!(shard.of_package("widget").len(), 3);
    assert_eq!(crate::Shard::decode(&shard.encode()).unwrap(), shard);
}
