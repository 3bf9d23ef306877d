//! Matching whole packages, and every record of the real feeds.

mod vendors;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    path::Path,
    sync::Arc,
    time::Instant,
};

use jiff::civil::date;
use model::{
    AdvisoryStamp, Assessment, Confidence, Digest, EPSS, GapCode, Hides, KEV, Os, Package,
    PackageId, PackageType, Purl, ScannedPackages, ShardKey, Vulnerability,
};

use super::{Limits, SeverityBy, match_packages};
use crate::{Advisory, Exploitation, Memo, Shard, ShardAdvisory, ShardError, Shards, lookups};

#[derive(Default)]
pub(crate) struct Fake {
    shards: BTreeMap<ShardKey, Arc<Shard>>,
    covered: BTreeSet<String>,
    memo: Option<Memo>,
}

impl Shards for Fake {
    fn shard(&self, key: &ShardKey) -> Result<Option<Arc<Shard>>, ShardError> {
        Ok(self.shards.get(key).cloned())
    }

    fn covers(&self, ecosystem: &str) -> bool {
        self.covered.contains(ecosystem)
    }

    fn memo(&self) -> Option<&Memo> {
        self.memo.as_ref()
    }
}

impl Fake {
    pub(crate) fn of(records: &[&str]) -> Self {
        let mut parts: BTreeMap<ShardKey, Vec<ShardAdvisory>> = BTreeMap::new();
        for record in records {
            let advisory = Advisory::parse(record.as_bytes()).expect("a record");
            for (key, part) in advisory.split("test") {
                parts.entry(key).or_default().push(part);
            }
        }
        let covered = parts.keys().map(|key| key.ecosystem.clone()).collect();
        let shards = parts
            .into_iter()
            .map(|(key, parts)| (key, Arc::new(Shard::new(parts))));
        Self {
            shards: shards.collect(),
            covered,
            memo: None,
        }
    }

    /// With more parts.
    fn and(mut self, parts: Vec<(ShardKey, ShardAdvisory)>) -> Self {
        for (key, part) in parts {
            self.covered.insert(key.ecosystem.clone());
            let shard = self.shards.entry(key).or_default();
            let mut all = shard.advisories().to_vec();
            all.push(part);
            *shard = Arc::new(Shard::new(all));
        }
        self
    }
}

pub(crate) fn package(kind: PackageType, name: &str, version: &str) -> Package {
    Package {
        id: PackageId(format!("{kind}/{name}")),
        kind,
        name: name.to_owned(),
        version: version.to_owned(),
        purl: Purl(format!("pkg:{kind}/{name}@{version}")),
        path: format!("lib/{name}-{version}/meta"),
        within: None,
        layer: Digest::of(b"layer"),
        arch: None,
        distro: None,
        source_name: None,
        source_version: None,
        vendor: None,
        modularity: None,
        licenses: Vec::new(),
        depends_on: Vec::new(),
        digests: Vec::new(),
        owned_by: None,
        direct: None,
        dev: None,
        confidence: Confidence::High,
    }
}

/// A finding of which only the name matters.
pub(crate) fn vulnerability(id: &str) -> Vulnerability {
    let record = format!(
        r#"{{"id": "{id}", "affected": [{{"package": {{"ecosystem": "PyPI", "name": "x"}},
            "ranges": [{{"type": "ECOSYSTEM", "events": [{{"introduced": "0"}}]}}]}}]}}"#
    );
    let found = assess(
        &Fake::of(&[&record]),
        None,
        vec![package(PackageType::Pypi, "x", "1")],
    );
    found.vulnerabilities.into_iter().next().expect("one")
}

pub(crate) fn os(id: &str, version_id: &str) -> Os {
    Os {
        id: id.to_owned(),
        version_id: version_id.to_owned(),
        eol: None,
        pretty_name: None,
        codename: None,
    }
}

fn assess(shards: &Fake, os: Option<Os>, packages: Vec<Package>) -> Assessment {
    let scanned = ScannedPackages {
        image: Digest::of(b"image"),
        os,
        packages,
        gaps: Vec::new(),
    };
    match_packages(
        &scanned,
        shards,
        &AdvisoryStamp::default(),
        date(2026, 11, 24),
        &Limits::default(),
    )
    .expect("shards")
}

/// Findings and gaps as lines.
fn check(shards: &Fake, os: Option<Os>, packages: Vec<Package>) -> String {
    let assessment = assess(shards, os, packages);
    let mut lines = Vec::new();
    for found in &assessment.vulnerabilities {
        lines.push(format!(
            "{} {} {} {:?} fixed {:?} also {:?} by {}",
            found.severity,
            found.id,
            found.package,
            found.fix_state,
            found.fixed_versions,
            found.aliases,
            found.matched.method,
        ));
        lines.extend(
            found
                .matched
                .evidence
                .iter()
                .map(|line| format!("  {line}")),
        );
    }
    lines.extend(
        assessment
            .gaps
            .iter()
            .map(|gap| format!("gap {:?}: {}", gap.code, gap.detail)),
    );
    lines.join("\n")
}

/// Matches with small limits: one advisory of each severity for every package of source `linux`.
fn limited(limits: &Limits, packages: usize) -> Assessment {
    let record = |id: &str, severity: &str| {
        format!(
            r#"{{"id": "{id}", "database_specific": {{"severity": "{severity}"}},
                "affected": [{{"package": {{"ecosystem": "Debian:12", "name": "linux"}},
                "ranges": [{{"type": "ECOSYSTEM", "events": [{{"introduced": "0"}}]}}]}}]}}"#
        )
    };
    let records = [record("CVE-2024-1", "LOW"), record("CVE-2024-2", "HIGH")];
    let shards = Fake::of(&records.each_ref().map(String::as_str));
    let stanza = |index: usize| Package {
        source_name: Some("linux".to_owned()),
        ..package(PackageType::Deb, &format!("linux-image-{index:04}"), "6.1")
    };
    let scanned = ScannedPackages {
        image: Digest::of(b"image"),
        os: Some(os("debian", "12")),
        packages: (0..packages).map(stanza).collect(),
        gaps: Vec::new(),
    };
    let (stamp, today) = (AdvisoryStamp::default(), date(2026, 11, 24));
    match_packages(&scanned, &shards, &stamp, today, limits).expect("shards")
}

#[test]
fn of_too_many_findings_the_worst_are_kept_and_a_gap_tells_of_the_rest() {
    let limits = Limits {
        findings_max: 10,
        ..Limits::default()
    };
    let assessment = limited(&limits, 100);
    assert_eq!(assessment.vulnerabilities.len(), 10);
    let worst = assessment.vulnerabilities.first().expect("ten of them");
    assert!(
        assessment
            .vulnerabilities
            .iter()
            .all(|found| found.severity == worst.severity),
        "the lesser ones are left out"
    );
    let gaps: Vec<_> = assessment
        .gaps
        .iter()
        .map(|gap| (gap.code, gap.hides, gap.detail.as_str()))
        .collect();
    assert_eq!(
        gaps,
        [(
            GapCode::LimitResults,
            Hides::Packages,
            "more than 10 vulnerabilities: 190 less severe ones are left out"
        )]
    );
}

#[test]
fn of_too_much_work_the_rest_is_a_gap() {
    let limits = Limits {
        comparisons_max: 100,
        ..Limits::default()
    };
    let assessment = limited(&limits, 60);
    assert_eq!(assessment.vulnerabilities.len(), 100);
    let gap = assessment.gaps.first().expect("a gap");
    assert_eq!(
        (gap.code, gap.hides),
        (GapCode::LimitResults, Hides::Packages)
    );
    assert!(
        gap.detail.contains("10 packages are not matched"),
        "{}",
        gap.detail
    );
}

#[test]
fn what_is_remembered_is_what_would_be_found_again() {
    let record = |fixed: &str| {
        format!(
            r#"{{"id": "CVE-2024-1", "affected": [{{"package": {{"ecosystem": "PyPI", "name": "x"}},
                "ranges": [{{"type": "ECOSYSTEM", "events": [{{"introduced": "0"}}, {{"fixed": "{fixed}"}}]}}]}}]}}"#
        )
    };
    let x = || package(PackageType::Pypi, "x", "1.5");
    let elsewhere = || Package {
        id: PackageId("another".to_owned()),
        path: "srv/x-1.5/meta".to_owned(),
        layer: Digest::of(b"another layer"),
        ..x()
    };
    let unreadable = |path: &str| Package {
        path: path.to_owned(),
        ..package(PackageType::Pypi, "x", "?")
    };
    let newer = || Package {
        version: "2.5".to_owned(),
        ..x()
    };
    let mut shards = Fake::of(&[&record("2")]);
    shards.memo = Some(Memo::default());
    let (first, again) = (
        assess(&shards, None, vec![x()]),
        assess(&shards, None, vec![x()]),
    );
    assert_eq!((first.vulnerabilities.len(), &first), (1, &again));
    // In another place it has what it would have there without anything remembered.
    let there = assess(&shards, None, vec![elsewhere()]).vulnerabilities;
    let forgetful = Fake::of(&[&record("2")]);
    assert_eq!(
        there,
        assess(&forgetful, None, vec![elsewhere()]).vulnerabilities
    );
    assert!(
        there[0].layer == Digest::of(b"another layer")
            && there[0].path == "srv/x-1.5/meta"
            && there[0].fingerprint != first.vulnerabilities[0].fingerprint
    );
    for path in ["a", "b"] {
        let gap = &assess(&shards, None, vec![unreadable(path)]).gaps[0];
        assert_eq!(gap.path.as_deref(), Some(path), "{gap:?}");
    }
    assert!(
        assess(&shards, None, vec![newer()])
            .vulnerabilities
            .is_empty()
    );
    // Another shard in its place: the result of the old one is not taken.
    let replaced = Fake::of(&[&record("1")]);
    shards.shards = replaced.shards;
    assert!(assess(&shards, None, vec![x()]).vulnerabilities.is_empty());
}

#[test]
fn an_assessment_says_when_the_support_of_its_operating_system_ends() {
    let ends = |id: &str, version: &str| {
        let ends = assess(&Fake::default(), Some(os(id, version)), Vec::new()).os_ends;
        ends.map(|ends| ends.to_string())
    };
    assert_eq!(
        ends("debian", "12").as_deref(),
        Some("2028-07-01T00:00:00Z")
    );
    assert_eq!(ends("debian", "14"), None, "not known");
    assert_eq!(ends("alpine", "3.4"), None, "long ago");
}

const GHSA: &str = r#"{"id": "GHSA-aaaa", "aliases": ["CVE-2024-1"], "summary": "title",
    "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"},
                 {"type": "CVSS_V3", "score": "nonsense"}],
    "database_specific": {"severity": "MODERATE"},
    "affected": [{"package": {"ecosystem": "PyPI", "name": "Lib.X"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}]}]}"#;
const PYSEC: &str = r#"{"id": "PYSEC-2024-1", "aliases": ["CVE-2024-1"],
    "affected": [{"package": {"ecosystem": "PyPI", "name": "lib-x"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]}]}"#;
const DSA: &str = r#"{"id": "DSA-1-1", "upstream": ["DEBIAN-CVE-2024-2", "CVE-2024-2", "CVE-2024-3"],
    "affected": [{"package": {"ecosystem": "Debian:12", "name": "src"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.0-2"}]}]}]}"#;
const DEBIAN_CVE: &str = r#"{"id": "DEBIAN-CVE-2024-2", "upstream": ["CVE-2024-2"],
    "affected": [
        {"package": {"ecosystem": "Debian:12", "name": "src"},
         "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.0-1"}]}]},
        {"package": {"ecosystem": "Debian:13", "name": "src"},
         "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}],
         "ecosystem_specific": {"urgency": "unimportant"}}]}"#;

#[test]
fn aliases_join_to_one_finding_with_evidence_of_each() {
    let shards = Fake::of(&[GHSA, PYSEC]);
    insta::assert_snapshot!(check(&shards, None, vec![package(PackageType::Pypi, "lib_x", "1.0")]), @r#"
    critical CVE-2024-1 lib_x Fixed fixed ["2.0"] also ["GHSA-aaaa", "PYSEC-2024-1"] by package
      GHSA-aaaa (test): PyPI `lib-x` 1.0 is in < 2.0; malformed vector `nonsense`
      PYSEC-2024-1 (test): PyPI `lib-x` 1.0 is in all versions
    "#);
}

#[test]
fn a_bulletin_gives_one_finding_per_vulnerability_and_its_record_outranks_it() {
    let shards = Fake::of(&[DSA, DEBIAN_CVE]);
    let source = |version: &str| Package {
        source_name: Some("src".to_owned()),
        source_version: Some(version.to_owned()),
        ..package(PackageType::Deb, "bin", "1.0-9+b1")
    };
    insta::assert_snapshot!(check(&shards, Some(os("debian", "12")), vec![source("1.0-0")]), @r#"
    unknown CVE-2024-2 bin Fixed fixed ["1.0-1", "1.0-2"] also ["DEBIAN-CVE-2024-2"] by source_package
      DEBIAN-CVE-2024-2 (test): Debian:12 `src` 1.0-0 is in < 1.0-1
      DSA-1-1 (test): Debian:12 `src` 1.0-0 is in < 1.0-2
    unknown CVE-2024-3 bin Fixed fixed ["1.0-2"] also [] by source_package
      DSA-1-1 (test): Debian:12 `src` 1.0-0 is in < 1.0-2
    "#);
    insta::assert_snapshot!(check(&shards, Some(os("debian", "12")), vec![source("1.0-1")]), @r#"
    unknown CVE-2024-3 bin Fixed fixed ["1.0-2"] also [] by source_package
      DSA-1-1 (test): Debian:12 `src` 1.0-1 is in < 1.0-2
    "#);
    insta::assert_snapshot!(check(&shards, Some(os("debian", "13")), vec![source("1.0-1")]), @r#"
    negligible CVE-2024-2 bin NotFixed fixed [] also ["DEBIAN-CVE-2024-2"] by source_package
      DEBIAN-CVE-2024-2 (test): Debian:13 `src` 1.0-1 is in all versions
    "#);
}

#[test]
fn what_nobody_covers_is_a_gap() {
    let shards = Fake::of(&[DSA]);
    let packages = || {
        vec![
            package(PackageType::Deb, "bin", "1"),
            package(PackageType::Pypi, "x", "1"),
            package(PackageType::Conda, "x", "1"),
        ]
    };
    insta::assert_snapshot!(check(&shards, None, packages()), @r#"
    gap UnknownOs: no os-release: 1 operating system packages are not matched
    gap NoAdvisories: no advisory feed covers `PyPI` (1 package)
    gap NoAdvisories: no advisory feed covers `conda` (1 package)
    "#);
    insta::assert_snapshot!(check(&shards, Some(os("debian", "11")), packages()), @r#"
    gap EndOfLifeOs: debian 11 gets no security updates since 2026-08-31
    gap NoAdvisories: no advisory feed covers `Debian:11` (1 package)
    gap NoAdvisories: no advisory feed covers `PyPI` (1 package)
    gap NoAdvisories: no advisory feed covers `conda` (1 package)
    "#);
    insta::assert_snapshot!(check(&shards, Some(os("fedora", "43")), Vec::new()), @r#"
    gap UnknownOs: no rules for operating system `fedora`, version `43`: 0 operating system packages are not matched
    "#);
    insta::assert_snapshot!(check(&shards, None, Vec::new()), @"");
    let guessed = Package {
        confidence: Confidence::Low,
        ..package(PackageType::Generic, "redis", "7.2.4")
    };
    let assessment = assess(&shards, None, vec![guessed]);
    let gaps = assessment.gaps.iter().map(|gap| (gap.code, gap.hides));
    let told = (GapCode::NoAdvisories, Hides::Nothing);
    assert_eq!(
        gaps.collect::<Vec<_>>(),
        [told],
        "a guess makes no verdict incomplete"
    );
}

#[test]
fn an_undecided_version_is_a_gap_only_where_an_advisory_asks() {
    let shards = Fake::of(&[GHSA]);
    let packages = vec![
        package(PackageType::Pypi, "lib-x", "?"),
        package(PackageType::Pypi, "other", "?"),
    ];
    insta::assert_snapshot!(check(&shards, None, packages), @r#"
    gap UndecidedVersion: pypi `lib-x`: version `?` cannot be compared; undecided: GHSA-aaaa
    "#);
}

#[test]
fn bulletins_of_the_red_hat_family_rate_and_name_their_module() {
    let alsa = r#"{"id": "ALSA-2021:1", "summary": "Important: ruby:2.7 security update", "related": ["CVE-2024-5"],
        "affected": [{"package": {"ecosystem": "npm", "name": "ruby"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0.0"}]}]}]}"#;
    let bugs = alsa
        .replace("ALSA", "ALBA")
        .replace(r#", "related": ["CVE-2024-5"]"#, "");
    let shards = Fake::of(&[alsa, &bugs]);
    insta::assert_snapshot!(check(&shards, None, vec![package(PackageType::Npm, "ruby", "1.0.0")]), @r#"
    high CVE-2024-5 ruby Fixed fixed ["2.0.0"] also [] by package
      ALSA-2021:1 (test): npm `ruby` 1.0.0 is in < 2.0.0; module ruby:2.7
    "#);
}

#[test]
fn a_remark_is_negligible_unless_another_source_rates_it() {
    let remark = r#"{"id": "RUSTSEC-2024-1", "aliases": ["CVE-2024-6"],
        "affected": [{"package": {"ecosystem": "npm", "name": "x"}, "database_specific": {"informational": "unsound"},
            "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}]}]}]}"#;
    let rated = r#"{"id": "GHSA-1", "aliases": ["CVE-2024-6"], "database_specific": {"severity": "HIGH"},
        "affected": [{"package": {"ecosystem": "npm", "name": "x"},
            "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}]}]}]}"#;
    let x = || vec![package(PackageType::Npm, "x", "1.0.0")];
    insta::assert_snapshot!(check(&Fake::of(&[remark]), None, x()), @r#"
    negligible CVE-2024-6 x NotFixed fixed [] also ["RUSTSEC-2024-1"] by package
      RUSTSEC-2024-1 (test): npm `x` 1.0.0 is in all versions; by its source a remark (unsound)
    "#);
    let both = assess(&Fake::of(&[remark, rated]), None, x());
    assert_eq!(both.vulnerabilities[0].severity, model::Severity::High);
}

#[test]
fn whose_word_decides_about_severity_can_be_chosen() {
    let record = r#"{"id": "CVE-2024-1",
        "severity": [{"type": "Ubuntu", "score": "low"},
            {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"},
            {"type": "CVSS_V4", "score": "CVSS:4.0/AV:L/AC:L/AT:N/PR:L/UI:N/VC:L/VI:N/VA:N/SC:N/SI:N/SA:N"}],
        "affected": [{"package": {"ecosystem": "Ubuntu:22.04:LTS", "name": "x"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]}]}"#;
    let shards = Fake::of(&[record]);
    let severity = |severity| {
        let scanned = ScannedPackages {
            image: Digest::of(b"image"),
            os: Some(os("ubuntu", "22.04")),
            packages: vec![package(PackageType::Deb, "x", "1")],
            gaps: Vec::new(),
        };
        let limits = Limits {
            severity,
            ..Limits::default()
        };
        let (stamp, today) = (AdvisoryStamp::default(), date(2026, 11, 24));
        let found = match_packages(&scanned, &shards, &stamp, today, &limits).expect("shards");
        let found = found.vulnerabilities.into_iter().next().expect("one");
        assert_eq!(found.cvss.len(), 2, "every rating is kept");
        found.severity.to_string()
    };
    assert_eq!(severity(SeverityBy::Vendor), "low");
    assert_eq!(severity(SeverityBy::Cvss), "medium");
    assert_eq!(severity(SeverityBy::Highest), "critical");
}

#[test]
fn exploitation_is_joined_by_any_name_and_orders_the_findings() {
    let record = |id: &str, alias: &str| {
        format!(
            r#"{{"id": "{id}", "aliases": ["{alias}"], "database_specific": {{"severity": "MODERATE"}},
                "affected": [{{"package": {{"ecosystem": "PyPI", "name": "x"}},
                "ranges": [{{"type": "ECOSYSTEM", "events": [{{"introduced": "0"}}]}}]}}]}}"#
        )
    };
    let mut shards = Fake::of(&[
        &record("GHSA-1", "CVE-2024-1"),
        &record("GHSA-2", "CVE-2024-2"),
    ]);
    let one = |cve: &str, known_since, epss| Exploitation {
        cve: cve.to_owned(),
        feed: "test".to_owned(),
        known_since,
        ransomware: false,
        epss,
    };
    for (catalog, found) in [
        (KEV, one("CVE-2024-2", Some(date(2024, 5, 1)), None)),
        (EPSS, one("CVE-2024-2", None, Some(0.25))),
    ] {
        let key = ShardKey::of(catalog, "CVE-2024-2");
        shards
            .shards
            .insert(key, Arc::new(Shard::of(Vec::new(), vec![found])));
    }
    let found = assess(&shards, None, vec![package(PackageType::Pypi, "x", "1")]).vulnerabilities;
    let lines: Vec<_> = found
        .iter()
        .map(|found| (found.id.as_str(), found.kev, found.epss))
        .collect();
    assert_eq!(
        lines,
        [
            ("CVE-2024-2", true, Some(0.25)),
            ("CVE-2024-1", false, None)
        ]
    );
}

#[test]
fn withdrawn_advisories_find_nothing_and_still_join() {
    let withdrawn = GHSA.replace(
        r#""summary""#,
        r#""withdrawn": "2024-01-01T00:00:00Z", "summary""#,
    );
    let shards = Fake::of(&[&withdrawn, &PYSEC.replace("CVE-2024-1", "GHSA-aaaa")]);
    insta::assert_snapshot!(check(&shards, None, vec![package(PackageType::Pypi, "lib-x", "1.0")]), @r#"
    unknown CVE-2024-1 lib-x NotFixed fixed [] also ["GHSA-aaaa", "PYSEC-2024-1"] by package
      PYSEC-2024-1 (test): PyPI `lib-x` 1.0 is in all versions
    "#);
}

#[test]
fn what_a_distribution_owns_is_judged_by_the_distribution() {
    let shards = Fake::of(&[GHSA, DSA]);
    let distribution = package(PackageType::Deb, "python3-lib-x", "1.0-1");
    let owned = Package {
        owned_by: Some(distribution.id.clone()),
        ..package(PackageType::Pypi, "lib-x", "1.0")
    };
    let packages = vec![distribution, owned];
    assert_eq!(
        assess(&shards, Some(os("debian", "12")), packages.clone())
            .vulnerabilities
            .len(),
        0
    );
    // Nobody speaks for a release without advisories.
    assert_eq!(
        assess(&shards, Some(os("debian", "13")), packages)
            .vulnerabilities
            .len(),
        1
    );
}

#[test]
fn fingerprints_stay_over_versions_and_differ_between_packages() {
    let shards = Fake::of(&[GHSA]);
    let print = |version: &str| {
        let found = assess(
            &shards,
            None,
            vec![package(PackageType::Pypi, "lib-x", version)],
        );
        found.vulnerabilities[0].fingerprint.clone()
    };
    assert_eq!(print("1.0"), print("1.5"));
}

#[test]
fn lookups_name_what_matching_asks_for() {
    let deb = Package {
        source_name: Some("src".to_owned()),
        ..package(PackageType::Deb, "bin", "1")
    };
    let found = lookups(&deb, Some(&os("ubuntu", "22.04")));
    let found: Vec<_> = found
        .iter()
        .map(|l| format!("{}/{}", l.ecosystem, l.name))
        .collect();
    assert_eq!(
        found,
        [
            "Ubuntu:22.04:LTS/src",
            "Ubuntu:22.04/src",
            "Ubuntu:Pro:22.04:LTS/src"
        ]
    );
    assert!(lookups(&package(PackageType::Conda, "x", "1"), None).is_empty());
}

#[test]
fn every_record_of_the_real_feeds_is_read() {
    let Some(data) = std::env::var_os("TIDEWAITER_TEST_DATA") else {
        println!("skipped: TIDEWAITER_TEST_DATA is not set");
        return;
    };
    let advisories = Path::new(&data).join("advisories");
    let folders = std::fs::read_dir(&advisories).expect("a directory");
    let mut zips: Vec<_> = folders
        .map(|entry| entry.expect("an entry").path().join("all.zip"))
        .filter(|zip| zip.is_file())
        .collect();
    zips.sort();
    for path in zips {
        let feed = path.parent().and_then(Path::file_name).expect("a folder");
        let feed = feed.to_string_lossy();
        let file = std::fs::File::open(&path).expect("a file");
        let mut archive = zip::ZipArchive::new(file).expect("a zip");
        let start = Instant::now();
        let (mut malformed, mut parts, mut noted, mut versions) = (0, 0, 0, 0);
        for index in 0..archive.len() {
            let mut bytes = Vec::new();
            archive
                .by_index(index)
                .expect("an entry")
                .read_to_end(&mut bytes)
                .expect("bytes");
            let Ok(advisory) = Advisory::parse(&bytes) else {
                malformed += 1;
                continue;
            };
            for (_, part) in advisory.split(&feed) {
                parts += 1;
                noted += usize::from(!part.notes.is_empty());
                versions += part.versions.len();
            }
        }
        let took = start.elapsed().as_millis();
        let count = archive.len();
        println!(
            "{feed}: {count} records, {parts} parts, {malformed} malformed, {noted} with notes, \
             {versions} versions outside their windows, {took} ms"
        );
        assert_eq!(malformed, 0, "{feed}");
    }
}
