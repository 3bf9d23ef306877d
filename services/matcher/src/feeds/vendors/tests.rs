//! Against a server in the layouts of vendors on this machine.

use std::io::Write as _;

use jiff::Timestamp;
use model::DEBIAN_TRACKER;

use super::{PLACES, place};
use crate::{
    Advisories, FeedLimits, Fetched, Import, Mode, Source, Update,
    feeds::tests::Site,
    stage::{self, tests::shown},
};

const RED_HAT: &str = "Red Hat VEX";

/// A document about one package of one release; without a version it has no fix.
fn document(cve: &str, package: &str, fixed: Option<&str>) -> String {
    let (status, version) = match fixed {
        Some(version) => ("fixed", format!("@{version}")),
        None => ("known_affected", String::new()),
    };
    format!(
        r#"{{"document": {{"tracking": {{"id": "{cve}"}}}}, "product_tree": {{"branches": [
            {{"product": {{"name": "RHEL 9", "product_id": "r9", "product_identification_helper":
                {{"cpe": "cpe:/o:redhat:enterprise_linux:9"}}}}}},
            {{"product": {{"name": "p", "product_id": "p", "product_identification_helper":
                {{"purl": "pkg:rpm/redhat/{package}{version}?arch=src"}}}}}}],
            "relationships": [{{"full_product_name": {{"product_id": "r9:p"}}, "product_reference": "p",
                "relates_to_product_reference": "r9"}}]}},
        "vulnerabilities": [{{"cve": "{cve}", "product_status": {{"{status}": ["r9:p"]}}}}]}}"#
    )
}

/// A tar of files.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, text) in files {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", text.len()).as_bytes());
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(text.as_bytes());
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn update(url: &str) -> Update {
    Update {
        debian_tracker_url: Some(format!("{url}/tracker.json")),
        red_hat_vex_url: Some(format!("{url}/vex")),
        suse_vex_url: Some(format!("{url}/csaf-vex.tar.bz2")),
        amazon_url: Some(url.to_owned()),
        oracle_oval_url: Some(format!("{url}/elsa.xml.bz2")),
        ..Update::default()
    }
}

/// Fetches what is new of a feed and takes it into a local copy.
async fn step(advisories: &Advisories, update: &Update, feed: &str) -> Fetched {
    let limits = FeedLimits {
        increment_records_max: 2,
        ..FeedLimits::default()
    };
    let latest = advisories.latest(feed).unwrap();
    let fetched = update.fetch(feed, &latest, &limits).await.unwrap();
    let import = Import {
        feed: feed.to_owned(),
        mode: fetched.mode,
        fetched_at: fetched
            .as_of
            .unwrap_or_else(|| Timestamp::from_second(2_000_000_000).unwrap()),
        revision: fetched.revision.clone(),
    };
    let source = Source::Bytes(fetched.zip.clone());
    stage::import(advisories, &import, &source, &limits).unwrap();
    fetched
}

/// Puts a list of Red Hat's documents there: rows of (number, time of change or deletion).
fn list(site: &Site, name: &str, rows: &[(&str, &str)]) {
    let line = |(number, at): &(&str, &str)| format!("\"2024/cve-2024-{number}.json\",\"{at}\"\n");
    let lines: String = rows.iter().map(line).collect();
    site.put(&format!("/vex/{name}.csv"), lines);
}

/// Three documents change, and three are deleted: one that had changed before, one that was there,
/// and one that comes back.
fn change(site: &Site, day: &str) {
    site.put(
        "/vex/2024/cve-2024-3.json",
        document("CVE-2024-3", "c", None),
    );
    site.put(
        "/vex/2024/cve-2024-4.json",
        document("CVE-2024-4", "d", None),
    );
    site.put(
        "/vex/2024/cve-2024-1.json",
        document("CVE-2024-1", "a", Some("2-1.el9")),
    );
    list(
        site,
        "changes",
        &[
            ("1", "2025-02-18T14:28:08+00:00"),
            ("4", "2025-02-17T00:00:00+00:00"),
            ("3", "2025-02-16T00:00:00+00:00"),
            ("5", "2025-02-15T12:00:00+00:00"),
            ("2", day),
        ],
    );
    list(
        site,
        "deletions",
        &[
            ("1", "2025-02-16T00:00:00+00:00"),
            ("5", "2025-02-15T12:00:00+00:00"),
            ("2", "2025-02-17T00:00:00+00:00"),
        ],
    );
}

#[test]
fn every_vendors_feed_has_a_place() {
    for vendor in vulndb::VENDORS {
        assert!(place(vendor.feed()).is_some(), "{}", vendor.feed());
    }
    assert_eq!(PLACES.len(), vulndb::VENDORS.len());
    let unset = Update::default();
    let of = |feed: &str| (place(feed).unwrap().url)(&unset).is_some();
    assert!(of(RED_HAT) && !of(DEBIAN_TRACKER));
}

#[tokio::test]
async fn documents_come_as_an_archive_once_and_then_by_what_changed() {
    let (site, dir) = (Site::default(), tempfile::tempdir().unwrap());
    let update = update(&site.start().await);
    let advisories = Advisories::open(dir.path()).unwrap();
    let day = "2025-02-15T00:00:00+00:00";
    list(&site, "changes", &[("2", day), ("1", day)]);
    let archive = tar(&[
        ("2024/cve-2024-1.json", &document("CVE-2024-1", "a", None)),
        ("2024/cve-2024-2.json", &document("CVE-2024-2", "b", None)),
        ("2024/cve-2024-2.json.asc", "no document"),
    ]);
    site.put("/vex/archive_latest.txt", "csaf_vex_2025-02-14.tar.bz2\n");
    site.put("/vex/csaf_vex_2025-02-14.tar.bz2", bzip2(&archive));
    let fetched = step(&advisories, &update, RED_HAT).await;
    let archive = "/vex/csaf_vex_2025-02-14.tar.bz2";
    let index = ["/vex/changes.csv", "/vex/archive_latest.txt"];
    assert_eq!(site.asked(), [index[0], index[1], archive]);
    // It is as old as the archive, and there is more.
    assert_eq!(fetched.as_of.unwrap().to_string(), "2025-02-14T00:00:00Z");
    assert_eq!(shown(&advisories).len(), 2);
    // Of the three that changed two are fetched at once, oldest first.
    change(&site, day);
    let fetched = step(&advisories, &update, RED_HAT).await;
    assert_eq!(
        site.asked(),
        [
            "/vex/changes.csv",
            "/vex/deletions.csv",
            "/vex/2024/cve-2024-3.json",
            "/vex/2024/cve-2024-4.json"
        ]
    );
    assert_eq!(fetched.mode, Mode::Increment);
    assert_eq!(fetched.as_of.unwrap().to_string(), "2025-02-17T00:00:00Z");
    let lines = shown(&advisories);
    let has = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(
        has("CVE-2024-3") && has("CVE-2024-4") && !has("CVE-2024-2"),
        "{lines:?}"
    );
    let fetched = step(&advisories, &update, RED_HAT).await;
    assert_eq!(fetched.as_of, None);
    let lines = shown(&advisories);
    assert!(
        lines.iter().any(|line| line.contains("2-1.el9")),
        "{lines:?}"
    );
    let feed = advisories.manifest().feeds[0].clone();
    assert_eq!(feed.coverage, ["Red Hat:enterprise_linux:9"]);
    assert_eq!(feed.fetched_at.as_second(), 2_000_000_000);
    // Nothing changed since.
    site.asked();
    let fetched = step(&advisories, &update, RED_HAT).await;
    assert_eq!((site.asked().len(), fetched.changes), (1, Some(0)));
}

#[tokio::test]
async fn an_archive_without_a_day_in_its_name_is_as_old_as_its_file() {
    let (site, dir) = (Site::default(), tempfile::tempdir().unwrap());
    let update = update(&site.start().await);
    let advisories = Advisories::open(dir.path()).unwrap();
    list(&site, "changes", &[("1", "2026-07-01T00:00:00+00:00")]);
    let text = document("CVE-2024-1", "a", None);
    let archive = tar(&[("2024/cve-2024-1.json", &text)]);
    site.put("/vex/archive_latest.txt", "vex-archive.tar.zst\n");
    site.put("/vex/vex-archive.tar.zst", bzip2(&archive));
    let limits = FeedLimits::default();
    let latest = advisories.latest(RED_HAT).unwrap();
    let refused = update.fetch(RED_HAT, &latest, &limits).await;
    let refused = format!("{:#}", refused.unwrap_err());
    assert!(refused.contains("of which day"), "{refused}");
    let modified = "Fri, 03 Jul 2026 00:00:00 GMT".parse().unwrap();
    {
        let mut files = site.0.lock().unwrap();
        files.headers.insert("last-modified", modified);
    }
    let fetched = step(&advisories, &update, RED_HAT).await;
    assert_eq!(fetched.as_of.unwrap().to_string(), "2026-07-03T00:00:00Z");
    assert_eq!(shown(&advisories).len(), 1);
}

#[tokio::test]
async fn an_archive_a_file_and_repositories_are_fetched_when_they_changed() {
    let (site, dir) = (Site::default(), tempfile::tempdir().unwrap());
    let update = update(&site.start().await);
    let advisories = Advisories::open(dir.path()).unwrap();
    let suse = document("CVE-2024-1", "a", None).replace("RHEL 9", "openSUSE Leap 15.6");
    site.put(
        "/csaf-vex.tar.bz2",
        bzip2(&tar(&[("csaf-vex/cve-2024-1.json", &suse)])),
    );
    let oval = r#"<oval_definitions><definitions><definition><metadata><title>ELSA-1: x</title>
        <reference source="elsa" ref_id="ELSA-1"/><reference source="CVE" ref_id="CVE-2024-1"/></metadata>
        <criteria><criterion comment="Oracle Linux 9 is installed"/>
        <criterion comment="a is earlier than 0:2-1.el9"/></criteria></definition></definitions></oval_definitions>"#;
    site.put("/elsa.xml.bz2", bzip2(oval.as_bytes()));
    for (path, prefix) in [
        ("2/core/latest", "ALAS2"),
        ("al2023/core/mirrors/latest", "ALAS2023"),
    ] {
        // Of a mirror's address only the path counts.
        let mirror = format!("https://elsewhere.example/{prefix}/guid\n");
        site.put(&format!("/{path}/x86_64/mirror.list"), mirror);
        let updates = format!(
            r#"<updates><update type="security"><id>{prefix}-2024-1</id><references>
                <reference id="CVE-2024-1" type="cve"/></references><pkglist><collection>
                <package name="a" epoch="0" version="2" release="1"/></collection></pkglist></update></updates>"#
        );
        site.put(
            &format!("/{prefix}/guid/repodata/updateinfo.xml.gz"),
            updates,
        );
    }
    for feed in ["SUSE VEX", "Oracle OVAL", "Amazon updates"] {
        let fetched = step(&advisories, &update, feed).await;
        assert_eq!(
            (fetched.mode, fetched.as_of),
            (Mode::Replace, None),
            "{feed}"
        );
        let again = step(&advisories, &update, feed).await;
        assert_eq!(again.changes, Some(0), "{feed}");
    }
    let covered: Vec<String> = advisories
        .manifest()
        .feeds
        .iter()
        .map(|feed| format!("{}: {}", feed.name, feed.coverage.join(", ")))
        .collect();
    assert_eq!(
        covered,
        [
            "Amazon updates: Amazon Linux:2, Amazon Linux:2023",
            "Oracle OVAL: Oracle Linux:9",
            "SUSE VEX: openSUSE:Leap 15.6",
        ]
    );
    // What is gone from the archive is withdrawn.
    let other = suse.replace("CVE-2024-1", "CVE-2024-2");
    site.put(
        "/csaf-vex.tar.bz2",
        bzip2(&tar(&[("csaf-vex/cve-2024-2.json", &other)])),
    );
    step(&advisories, &update, "SUSE VEX").await;
    let ids = advisories.ids("SUSE VEX").unwrap();
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), ["CVE-2024-2"]);
}

#[test]
fn a_document_that_cannot_be_read_is_named_and_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let advisories = Advisories::open(dir.path()).unwrap();
    let import = Import {
        feed: RED_HAT.to_owned(),
        mode: Mode::Replace,
        fetched_at: Timestamp::UNIX_EPOCH,
        revision: None,
    };
    let take = |files: &[(&str, &str)]| {
        let archive = dir.path().join("csaf_vex_2025-02-14.tar.bz2");
        std::fs::write(&archive, bzip2(&tar(files))).unwrap();
        let source = Source::open(&archive).unwrap();
        stage::import(&advisories, &import, &source, &FeedLimits::default())
    };
    let good = document("CVE-2024-1", "a", None);
    let imported = take(&[
        ("2024/cve-2024-1.json", &good),
        ("2024/cve-2024-2.json", "{"),
    ])
    .unwrap();
    assert_eq!((imported.records, imported.malformed), (2, 1));
    assert!(
        imported.problems[0].contains("cve-2024-2.json"),
        "{:?}",
        imported.problems
    );
    // What stands under the name of one that cannot be read stays; all the more where none can.
    let other = document("CVE-2024-3", "c", None);
    take(&[
        ("2024/cve-2024-1.json", "{"),
        ("2024/cve-2024-3.json", &other),
    ])
    .unwrap();
    assert!(take(&[("2024/cve-2024-2.json", "{")]).is_err());
    assert_eq!(shown(&advisories).len(), 2);
}

#[test]
fn what_is_larger_than_allowed_is_refused() {
    let plain = b"<updates/>".repeat(100);
    let packed = bzip2(&plain);
    let inflate = |most: usize| crate::feeds::inflate(&packed, most as u64);
    assert_eq!(inflate(plain.len()).unwrap(), plain);
    assert!(inflate(plain.len() - 1).is_err());
    let document = document("CVE-2024-1", "a", None);
    let archive = bzip2(&tar(&[("a/cve-2024-1.json", &document)]));
    let read = |total_bytes_max: u64| {
        let limits = FeedLimits {
            total_bytes_max,
            ..FeedLimits::default()
        };
        let source = Source::Bytes(archive.clone().into());
        let mut count = 0;
        source
            .each_record(&limits, 1 << 20, &mut |_, _| count += 1)
            .map(|()| count)
    };
    assert_eq!(read(document.len() as u64 * 8).unwrap(), 1);
    assert!(read(document.len() as u64 - 1).is_err());
}
