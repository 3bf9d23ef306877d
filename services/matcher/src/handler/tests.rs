//! Scans in, assessments and news out; no broker.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{Delivery, Failure, Handler as _, Outcome, Store};
use chassis::Cx;
use jiff::Timestamp;
use model::{
    Assessed, Assessment, Confidence, Digest, GapCode, Hides, Package, PackageId, PackageType,
    Purl, RecordKey, Scanned, ScannedContents, ScannedPackages, Slug, What,
    event::{REPORT_OBJECTS, VulnerabilityChanged},
};
use tempfile::TempDir;

use super::{Assessor, Cause};
use crate::{
    Advisories, FeedLimits, Import, Mode, Source, import,
    index::Index,
    matches::{self, Matches},
    stage::tests::records,
};

/// A matcher on a store in memory.
pub(crate) struct Bench {
    pub(crate) assessor: Assessor,
    pub(crate) store: Store,
    pub(crate) key: RecordKey,
    _dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let advisories = Arc::new(Advisories::open(dir.path()).unwrap());
        let store = Store::memory();
        let assessor = Assessor {
            cx: Cx::for_tests(),
            store: store.clone(),
            index: Index::new(advisories.database().unwrap()),
            packages: matches::packages(store.clone()),
            matches: Matches::default(),
            advisories,
        };
        let image = Digest::of(b"image");
        let key = RecordKey::new(&Slug::default_tenant(), image, What::Scanned);
        Self {
            assessor,
            store,
            key,
            _dir: dir,
        }
    }

    pub(crate) fn advise(&self, rows: &[(&str, &str, &str, &str)]) {
        let what = Import {
            feed: "test".to_owned(),
            mode: Mode::Replace,
            fetched_at: Timestamp::UNIX_EPOCH,
            revision: None,
        };
        let source = Source::Bytes(records(rows));
        import(
            &self.assessor.advisories,
            &what,
            &source,
            &FeedLimits::default(),
        )
        .unwrap();
    }

    /// Stores a scan with these Python packages; gives the record's revision.
    pub(crate) async fn scan(&self, packages: &[(&str, &str)]) -> (u64, Scanned) {
        let packages = list(self.key.image, packages);
        let object = self
            .store
            .put_object(REPORT_OBJECTS, &packages)
            .await
            .unwrap();
        let scanned = Scanned {
            analyzers: Vec::new(),
            packages: object,
            findings: Digest::of(b"findings"),
            package_count: 0,
            gap_count: 0,
            scanned_at: Timestamp::UNIX_EPOCH,
            duration_ms: 0,
            layers_read: 0,
            unfinished: false,
            cause: String::new(),
            contents: ScannedContents::default(),
            files: Vec::new(),
            config: model::ScannedConfig::default(),
        };
        let present = self.store.record::<Scanned>(&self.key).await.unwrap();
        let expected = present.map_or(0, |stored| stored.revision);
        let revision = self
            .store
            .put_record(&self.key, &scanned, expected)
            .await
            .unwrap();
        (revision, scanned)
    }

    async fn deliver(&self, scan: &(u64, Scanned)) -> Outcome {
        let delivery = Delivery::of_record(&self.key, scan.0, scan.1.clone());
        self.assessor.handle(delivery).await.unwrap()
    }

    /// Delivers and writes, as the bus does.
    async fn done(&self, scan: &(u64, Scanned)) -> Vec<String> {
        let outcome = self.deliver(scan).await;
        self.store.apply(&outcome).await.unwrap();
        told(&outcome)
    }

    async fn sweep(&self, scan: &(u64, Scanned), swept: u64) -> Outcome {
        let cause = Cause::Advisories { swept };
        self.assessor
            .assess(&self.key, scan.0, &scan.1, cause)
            .await
            .unwrap()
    }

    async fn assessed(&self) -> Option<Assessed> {
        let key = self.key.sibling(What::Assessed);
        self.store
            .record::<Assessed>(&key)
            .await
            .unwrap()
            .map(|stored| stored.body)
    }
}

fn told(outcome: &Outcome) -> Vec<String> {
    let events = outcome.events::<VulnerabilityChanged>();
    let line = |event: &VulnerabilityChanged| {
        format!(
            "{} {} at {}",
            event.change, event.vulnerability.id, event.advisory
        )
    };
    events.iter().map(|(_, event)| line(event)).collect()
}

/// An image's Python packages.
pub(crate) fn list(image: Digest, packages: &[(&str, &str)]) -> ScannedPackages {
    let packages = packages.iter();
    ScannedPackages {
        image,
        os: None,
        packages: packages
            .map(|(name, version)| package(name, version))
            .collect(),
        gaps: Vec::new(),
    }
}

fn package(name: &str, version: &str) -> Package {
    Package {
        id: PackageId(format!("pypi/{name}")),
        kind: PackageType::Pypi,
        name: name.to_owned(),
        version: version.to_owned(),
        purl: Purl(format!("pkg:pypi/{name}@{version}")),
        path: format!("lib/{name}/METADATA"),
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

#[tokio::test]
async fn the_first_assessment_is_written_and_is_no_news() {
    let bench = Bench::new();
    bench.advise(&[("CVE-2024-1", "PyPI", "x", "2.0")]);
    let scan = bench.scan(&[("x", "1.0")]).await;
    assert_eq!(bench.done(&scan).await, Vec::<String>::new());
    let assessed = bench.assessed().await.unwrap();
    assert_eq!((assessed.scan, assessed.advisory), (scan.0, 1));
    assert_eq!((assessed.counts.total(), assessed.counts.fixable), (1, 1));
    let object: Assessment = bench
        .store
        .object(REPORT_OBJECTS, &assessed.assessment)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(object.vulnerabilities[0].id, "CVE-2024-1");
    let indexed = bench.assessor.index.get(&bench.key).unwrap().unwrap();
    let partition = bench.key.image.partition();
    let lookups = bench
        .assessor
        .index
        .lookups(partition, indexed.list.unwrap());
    let lookups = lookups.unwrap();
    assert_eq!(
        (indexed.scan, indexed.advisory, lookups.len()),
        (scan.0, 0, 1),
        "whether the record will be written nobody knows yet"
    );
}

#[tokio::test]
async fn a_difference_is_news_and_a_redelivery_tells_the_same_again() {
    let bench = Bench::new();
    bench.advise(&[("CVE-2024-1", "PyPI", "x", "2.0")]);
    let scan = bench.scan(&[("x", "1.0")]).await;
    bench.done(&scan).await;
    bench.advise(&[("CVE-2024-2", "PyPI", "x", "2.0")]);
    let outcome = bench.sweep(&scan, 1).await;
    let news = ["appeared CVE-2024-2 at 2", "resolved CVE-2024-1 at 2"];
    assert_eq!(told(&outcome), news);
    bench.store.apply(&outcome).await.unwrap();
    // Whoever wrote the record died before it told: the sweep, or the message, comes again.
    assert_eq!(told(&bench.sweep(&scan, 1).await), news);
    let again = bench.deliver(&scan).await;
    assert_eq!(told(&again), news);
    assert!(again.records::<Assessed>().is_empty());
    // It comes again only after the next revision: still told, and the rest as well.
    bench.advise(&[("CVE-2024-3", "PyPI", "x", "2.0")]);
    let late = bench.sweep(&scan, 1).await;
    let more = ["appeared CVE-2024-3 at 3", "resolved CVE-2024-2 at 3"];
    assert_eq!(told(&late), [news, more].concat());
    assert_eq!(late.records::<Assessed>().len(), 1);
}

#[tokio::test]
async fn what_a_record_no_longer_names_is_discarded() {
    let bench = Bench::new();
    let mut named = Vec::new();
    let scan = bench.scan(&[("x", "1.0")]).await;
    for round in 1..=3 {
        bench.advise(&[(format!("CVE-2024-{round}").as_str(), "PyPI", "x", "2.0")]);
        let outcome = bench.sweep(&scan, round - 1).await;
        let gone: Vec<Digest> = outcome
            .discards()
            .into_iter()
            .map(|(_, digest)| digest)
            .collect();
        // The record names the last two.
        let expected: Vec<Digest> = named.iter().rev().nth(1).copied().into_iter().collect();
        assert_eq!(gone, expected, "round {round}");
        bench.store.apply(&outcome).await.unwrap();
        named.push(bench.assessed().await.unwrap().assessment);
    }
}

#[tokio::test]
async fn a_sweep_that_finds_nothing_new_writes_nothing() {
    let bench = Bench::new();
    bench.advise(&[("CVE-2024-1", "PyPI", "x", "2.0")]);
    let scan = bench.scan(&[("x", "1.0")]).await;
    bench.done(&scan).await;
    bench.advise(&[
        ("CVE-2024-1", "PyPI", "x", "2.0"),
        ("CVE-2024-2", "PyPI", "x", "0.5"),
    ]);
    assert!(bench.sweep(&scan, 1).await.is_empty());
}

#[tokio::test]
async fn a_record_with_a_larger_part_is_not_replaced() {
    let bench = Bench::new();
    let old = bench.scan(&[("x", "1.0")]).await;
    let new = bench.scan(&[("x", "1.0"), ("y", "1.0")]).await;
    bench.advise(&[("CVE-2024-1", "PyPI", "x", "2.0")]);
    bench.done(&new).await;
    assert!(bench.deliver(&old).await.is_empty(), "an older scan");
    // A record of a revision that this process has not got yet.
    let key = bench.key.sibling(What::Assessed);
    let stored = bench.store.record::<Assessed>(&key).await.unwrap().unwrap();
    let ahead = Assessed {
        advisory: 7,
        ..stored.body
    };
    bench
        .store
        .put_record(&key, &ahead, stored.revision)
        .await
        .unwrap();
    assert!(bench.deliver(&new).await.is_empty(), "older advisories");
    let newest = bench.scan(&[("x", "1.0")]).await;
    let delivery = Delivery::of_record(&bench.key, newest.0, newest.1.clone());
    assert!(matches!(
        bench.assessor.handle(delivery).await,
        Err(Failure::Retry(_))
    ));
}

#[tokio::test]
async fn news_of_a_scan_are_told_by_whoever_replaces_its_record() {
    let bench = Bench::new();
    bench.advise(&[("CVE-2024-1", "PyPI", "x", "2.0")]);
    let first = bench.scan(&[("x", "1.0")]).await;
    bench.done(&first).await;
    // A second scan: its record is written, and then whoever wrote it dies.
    bench.advise(&[("CVE-2024-2", "PyPI", "x", "2.0")]);
    let second = bench.scan(&[("x", "1.0"), ("y", "1.0")]).await;
    let untold = bench.done(&second).await;
    assert_eq!(untold.len(), 2);
    // The next sweep writes at the next revision before the message comes again.
    bench.advise(&[("CVE-2024-3", "PyPI", "x", "2.0")]);
    let outcome = bench.sweep(&second, 2).await;
    let told = told(&outcome);
    assert!(untold.iter().all(|line| told.contains(line)), "{told:?}");
    assert_eq!(told.len(), 4);
}

#[tokio::test]
async fn an_image_that_cannot_be_read_is_assessed_with_a_gap_and_nothing_is_resolved() {
    let bench = Bench::new();
    bench.advise(&[("CVE-2024-1", "PyPI", "x", "2.0")]);
    let (scan, scanned) = bench.scan(&[("x", "1.0")]).await;
    bench.done(&(scan, scanned.clone())).await;
    // An object that is no list of packages.
    let object = bench
        .store
        .put_object(REPORT_OBJECTS, &"nonsense")
        .await
        .unwrap();
    let broken = Scanned {
        packages: object,
        ..scanned
    };
    let scan = bench
        .store
        .put_record(&bench.key, &broken, scan)
        .await
        .unwrap();
    let news = bench.done(&(scan, broken)).await;
    assert_eq!(news, Vec::<String>::new());
    let assessed = bench.assessed().await.unwrap();
    assert_eq!((assessed.scan, assessed.counts.total()), (scan, 0));
    let object: Assessment = bench
        .store
        .object(REPORT_OBJECTS, &assessed.assessment)
        .await
        .unwrap()
        .unwrap();
    let gap = &object.gaps[0];
    assert_eq!(
        (gap.code, gap.hides),
        (GapCode::ScanAborted, Hides::Packages)
    );
}

#[tokio::test]
async fn packages_that_never_come_back_are_a_gap_at_last() {
    let bench = Bench::new();
    let scan = bench.scan(&[("x", "1.0")]).await;
    bench
        .store
        .delete_object(REPORT_OBJECTS, &scan.1.packages)
        .await
        .unwrap();
    let mut delivery = Delivery::of_record(&bench.key, scan.0, scan.1.clone());
    delivery.attempt = super::TRIES_MAX;
    let outcome = bench.assessor.handle(delivery).await.unwrap();
    assert_eq!(outcome.records::<Assessed>().len(), 1);
}

#[tokio::test]
async fn a_scan_whose_object_is_gone_waits_unless_a_newer_one_is_there() {
    let bench = Bench::new();
    let scan = bench.scan(&[("x", "1.0")]).await;
    bench
        .store
        .delete_object(REPORT_OBJECTS, &scan.1.packages)
        .await
        .unwrap();
    let delivery = Delivery::of_record(&bench.key, scan.0, scan.1.clone());
    assert!(matches!(
        bench.assessor.handle(delivery).await,
        Err(Failure::Retry(_))
    ));
    bench.scan(&[("y", "1.0")]).await;
    assert!(bench.deliver(&scan).await.is_empty());
}

/// Prints what an image of 200 packages costs, 40 advisories each of which two affect it: the first
/// one of its kind, and those that share its packages.
#[tokio::test]
async fn an_image_that_shares_its_packages_costs_little() {
    let mut bench = Bench::new();
    let mut rows = Vec::new();
    let names: Vec<String> = (0..200).map(|index| format!("package-{index}")).collect();
    for name in &names {
        for index in 0..40 {
            let fixed = if index < 2 { "2.0" } else { "1.2" };
            rows.push((format!("CVE-2024-{index}-{name}"), name.as_str(), fixed));
        }
    }
    let rows: Vec<_> = rows
        .iter()
        .map(|(id, name, fixed)| (id.as_str(), "PyPI", *name, *fixed))
        .collect();
    bench.advise(&rows);
    let packages: Vec<_> = names.iter().map(|name| (name.as_str(), "1.50")).collect();
    let (_, scanned) = bench.scan(&packages).await;
    let list = bench.assessor.packages.get(&scanned.packages, None).await;
    let list = list.unwrap().unwrap();
    let matching = || {
        let start = Instant::now();
        let assessment =
            crate::assess(&bench.assessor.advisories, &list, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(assessment.vulnerabilities.len(), 400);
        start.elapsed()
    };
    let (first, again) = (matching(), (0..50).map(|_| matching()).min().unwrap());
    println!("matching 200 packages: the first image {first:?}, then {again:?}");
    let mut took = Vec::new();
    for index in 0..50 {
        let image = Digest::of(format!("image {index}").as_bytes());
        bench.key = RecordKey::new(&Slug::default_tenant(), image, What::Scanned);
        let scan = bench.scan(&packages).await;
        let start = Instant::now();
        bench.done(&scan).await;
        took.push(start.elapsed());
        assert_eq!(bench.assessed().await.unwrap().counts.total(), 400);
    }
    let mean = took.iter().sum::<Duration>() / 50;
    println!("assessing one, with reading, indexing and writing: {mean:?}");
}
