//! Sweeps, with crashes between any two steps; no broker.

use std::sync::{Arc, Mutex};

use bus::BusError;
use futures::FutureExt as _;
use jiff::Timestamp;
use model::{
    AdvisoryHead, Assessed, Assessment, Digest, EPSS, KEV, Scanned, Slug, SweptMark, What,
    event::{ADVISORIES, REPORT_OBJECTS},
};

use super::{Progress, Sweeper, touched};
use crate::{
    FeedLimits, Import, Mode, Source,
    handler::{Cause, tests::Bench},
    head::{HEAD, Head},
    index::Open,
    stage::tests::zipped,
};

/// What is told, and whether telling works.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<(Vec<String>, bool)>>);

/// A sweeper that begins from a mark.
fn sweeper(bench: &Bench, mark: u64, told: &Told) -> Sweeper {
    let told = told.clone();
    Sweeper {
        partition: bench.key.image.partition(),
        cx: bench.assessor.cx.clone(),
        store: bench.store.clone(),
        head: Head::new(bench.store.clone(), Arc::clone(&bench.assessor.advisories)),
        assessor: bench.assessor.clone(),
        publish: Arc::new(move |_, event| {
            let mut told = told.0.lock().unwrap();
            let result = if told.1 {
                Err(BusError::Full("news".to_owned()))
            } else {
                let id = &event.vulnerability.id;
                told.0.push(format!("{} {id}", event.change));
                Ok(())
            };
            async move { result }.boxed()
        }),
        images_at_once: 4,
        progress: Arc::new(Progress::new(mark, true)),
        missing: Mutex::default(),
    }
}

async fn sweep(sweeper: &Sweeper) -> anyhow::Result<usize> {
    let to = sweeper.begin().unwrap();
    sweeper.sweep(&to).await
}

async fn mark(bench: &Bench) -> Option<u64> {
    let key = format!("swept.{}", bench.key.image.partition());
    let mark = bench.store.get::<SweptMark>(ADVISORIES, &key).await;
    mark.unwrap().map(|mark| mark.body.revision)
}

async fn assessed(bench: &Bench) -> Assessed {
    let key = bench.key.sibling(What::Assessed);
    bench
        .store
        .record::<Assessed>(&key)
        .await
        .unwrap()
        .unwrap()
        .body
}

/// Assesses a scan as its message does.
async fn assess(bench: &Bench, scan: &(u64, Scanned)) {
    let assessing = bench
        .assessor
        .assess(&bench.key, scan.0, &scan.1, Cause::Scan);
    let outcome = assessing.await.unwrap();
    bench.store.apply(&outcome).await.unwrap();
}

#[tokio::test]
async fn a_revision_touches_images_that_hold_what_changed() {
    let bench = Bench::new();
    let (advisories, index) = (
        bench.assessor.advisories.clone(),
        bench.assessor.index.clone(),
    );
    let partition = bench.key.image.partition();
    let find = |from: Option<u64>| {
        let from = from.map(|from| advisories.at_revision(from).unwrap().unwrap());
        touched(
            &advisories,
            &index,
            partition,
            from.as_ref(),
            &advisories.manifest(),
        )
        .unwrap()
        .len()
    };
    bench.advise(&[
        ("CVE-2024-1", "PyPI", "x", "2.0"),
        ("CVE-2024-2", "PyPI", "other", "2.0"),
    ]);
    let scan = bench.scan(&[("x", "1.0")]).await;
    assess(&bench, &scan).await;
    // An image of another tenant in the same partition, without the package.
    let other = model::RecordKey {
        tenant: "other".parse::<Slug>().unwrap(),
        ..bench.key.clone()
    };
    let empty = Digest::of(b"no packages");
    index.put_scan(&other, 1, empty, Default::default).unwrap();
    assert_eq!(find(Some(1)), 0, "nothing changed");
    assert_eq!(find(Some(0)), 1, "the ecosystem is covered now");
    assert_eq!(find(None), 2, "all");
    index.swept(&bench.key, scan.0, 1).unwrap();
    assert_eq!(find(None), 1, "without what a sweep is done with");
    bench.advise(&[
        ("CVE-2024-1", "PyPI", "x", "2.0"),
        ("CVE-2024-2", "PyPI", "other", "3.0"),
    ]);
    assert_eq!(find(Some(1)), 0, "nobody holds the package");
    bench.advise(&[
        ("CVE-2024-1", "PyPI", "x", "3.0"),
        ("CVE-2024-2", "PyPI", "other", "3.0"),
    ]);
    assert_eq!(find(Some(1)), 1, "two revisions later, one holds a package");
    assert_eq!(find(None), 2, "without the old revision, all");
    index.remove(&bench.key).unwrap();
    assert_eq!(find(Some(1)), 0, "it is forgotten");
}

#[tokio::test]
async fn what_becomes_known_to_be_exploited_touches_images_that_have_it() {
    let bench = Bench::new();
    let (advisories, index) = (
        bench.assessor.advisories.clone(),
        bench.assessor.index.clone(),
    );
    bench.advise(&[
        ("CVE-2024-1", "PyPI", "x", "2.0"),
        ("CVE-2024-2", "PyPI", "other", "2.0"),
    ]);
    let scan = bench.scan(&[("x", "1.0")]).await;
    assess(&bench, &scan).await;
    let catalog = |feed: &str, name: &str, text: String| {
        let what = Import {
            feed: feed.to_owned(),
            mode: Mode::Replace,
            fetched_at: Timestamp::UNIX_EPOCH,
            revision: None,
        };
        let source = Source::Bytes(zipped(&[(name.to_owned(), text)]));
        let before = advisories.manifest().revision;
        crate::import(&advisories, &what, &source, &FeedLimits::default()).unwrap();
        let from = advisories.at_revision(before).unwrap().unwrap();
        let to = advisories.manifest();
        let partition = bench.key.image.partition();
        touched(&advisories, &index, partition, Some(&from), &to)
            .unwrap()
            .len()
    };
    let known = |cve: &str| {
        format!(r#"{{"vulnerabilities": [{{"cveID": "{cve}", "dateAdded": "2024-01-02"}}]}}"#)
    };
    assert_eq!(catalog(KEV, "kev.json", known("CVE-2024-2")), 0);
    assert_eq!(catalog(KEV, "kev.json", known("CVE-2024-1")), 1);
    let scores = |epss: &str| format!("cve,epss,percentile\nCVE-2024-1,{epss},0.9\n");
    assert_eq!(catalog(EPSS, "epss.csv", scores("0.495")), 1);
    assert_eq!(catalog(EPSS, "epss.csv", scores("0.499")), 0, "no percent");
    assert_eq!(catalog(EPSS, "epss.csv", scores("0.5")), 1);
    let (scan, scanned) = &scan;
    let cause = Cause::Advisories { swept: 1 };
    let outcome = bench.assessor.assess(&bench.key, *scan, scanned, cause);
    bench.store.apply(&outcome.await.unwrap()).await.unwrap();
    let object = assessed(&bench).await.assessment;
    let assessment = bench.store.object::<Assessment>(REPORT_OBJECTS, &object);
    let found = assessment.await.unwrap().unwrap().vulnerabilities;
    assert_eq!((found[0].kev, found[0].epss), (true, Some(0.5)));
}

#[tokio::test]
async fn a_package_that_left_an_image_leaves_the_index() {
    let bench = Bench::new();
    for packages in [&[("x", "1.0"), ("y", "1.0")][..], &[("y", "1.0")][..]] {
        let scan = bench.scan(packages).await;
        assess(&bench, &scan).await;
        bench.assessor.index.swept(&bench.key, scan.0, 7).unwrap();
    }
    let index = &bench.assessor.index;
    let holding = |name: &str| {
        let lookup = vulndb::Lookup {
            ecosystem: "PyPI".to_owned(),
            name: name.to_owned(),
        };
        index
            .holding(bench.key.image.partition(), &lookup)
            .unwrap()
            .len()
    };
    assert_eq!((holding("x"), holding("y")), (0, 1));
    // An older scan that comes late changes nothing.
    let empty = Digest::of(b"no packages");
    index
        .put_scan(&bench.key, 1, empty, Default::default)
        .unwrap();
    assert_eq!(holding("y"), 1);
    // What a sweep did for an older scan is not done for the newer one.
    let newest = bench.scan(&[("y", "1.0")]).await;
    index
        .put_scan(&bench.key, newest.0, newest.1.packages, Default::default)
        .unwrap();
    let known = index.get(&bench.key).unwrap().unwrap();
    assert_eq!((known.scan, known.advisory), (newest.0, 0));
}

#[tokio::test]
async fn a_full_sweep_that_dies_before_it_writes_or_tells_does_all_of_it_again() {
    let bench = Bench::new();
    bench.advise(&[("CVE-2024-1", "PyPI", "x", "2.0")]);
    let scan = bench.scan(&[("x", "1.0")]).await;
    assess(&bench, &scan).await;
    bench.advise(&[("CVE-2024-2", "PyPI", "x", "2.0")]);
    let told = Told::default();
    // It dies after matching, before it writes: what it wrote into the index must not hide that.
    let cause = Cause::Advisories { swept: 0 };
    let dropped = bench.assessor.assess(&bench.key, scan.0, &scan.1, cause);
    drop(dropped.await.unwrap());
    // The next one dies after it wrote, before it told.
    told.0.lock().unwrap().1 = true;
    let dying = sweeper(&bench, 0, &told);
    assert!(sweep(&dying).await.is_err());
    assert_eq!(
        (assessed(&bench).await.advisory, mark(&bench).await),
        (2, None)
    );
    told.0.lock().unwrap().1 = false;
    let next = sweeper(&bench, 0, &told);
    assert_eq!(sweep(&next).await.unwrap(), 1);
    assert_eq!(mark(&bench).await, Some(2));
    let news = ["appeared CVE-2024-2", "resolved CVE-2024-1"];
    assert_eq!(told.0.lock().unwrap().0, news);
    assert_eq!(sweep(&next).await.unwrap(), 0, "nothing is left");
}

#[tokio::test]
async fn an_image_that_fails_does_not_stop_the_others_and_holds_the_mark_until_it_is_a_gap() {
    let bench = Bench::new();
    bench.advise(&[("CVE-2024-1", "PyPI", "x", "2.0")]);
    let scan = bench.scan(&[("x", "1.0")]).await;
    assess(&bench, &scan).await;
    let other = model::RecordKey {
        tenant: "other".parse::<Slug>().unwrap(),
        ..bench.key.clone()
    };
    let lost = Scanned {
        packages: Digest::of(b"gone"),
        ..scan.1.clone()
    };
    let revision = bench.store.put_record(&other, &lost, 0).await.unwrap();
    let index = &bench.assessor.index;
    let known = index.get(&bench.key).unwrap().unwrap();
    let known = known.list.unwrap();
    index
        .put_scan(&other, revision, known, || panic!("the list is there"))
        .unwrap();
    bench.advise(&[("CVE-2024-2", "PyPI", "x", "2.0")]);
    let sweeper = sweeper(&bench, 0, &Told::default());
    for _ in 1..super::TRIES_MAX {
        let error = sweep(&sweeper).await.unwrap_err();
        assert!(format!("{error:#}").contains("are missing"), "{error:#}");
        assert_eq!(assessed(&bench).await.advisory, 2, "the other one is done");
        assert_eq!(mark(&bench).await, None);
    }
    assert_eq!(sweep(&sweeper).await.unwrap(), 1);
    assert_eq!(mark(&bench).await, Some(2));
    let key = other.sibling(What::Assessed);
    let other = bench.store.record::<Assessed>(&key).await;
    assert_eq!(other.unwrap().unwrap().body.counts.total(), 0);
}

#[tokio::test]
async fn what_was_assessed_by_other_rules_is_assessed_again_at_the_same_revision() {
    let bench = Bench::new();
    bench.advise(&[("CVE-2024-1", "PyPI", "x", "2.0")]);
    let scan = bench.scan(&[("x", "1.0")]).await;
    assess(&bench, &scan).await;
    let told = Told::default();
    let index = &bench.assessor.index;
    assert_eq!(sweep(&sweeper(&bench, 0, &told)).await.unwrap(), 1);
    // As rules wrote it that found nothing.
    let key = bench.key.sibling(What::Assessed);
    let record = bench.store.record::<Assessed>(&key).await.unwrap().unwrap();
    let found = bench
        .store
        .object::<Assessment>(REPORT_OBJECTS, &record.body.assessment);
    let blind = Assessment {
        vulnerabilities: Vec::new(),
        ..found.await.unwrap().unwrap()
    };
    let blind = Assessed {
        assessment: bench
            .store
            .put_object(REPORT_OBJECTS, &blind)
            .await
            .unwrap(),
        previous: None,
        ..record.body
    };
    let written = bench.store.put_record(&key, &blind, record.revision).await;
    written.unwrap();
    assert_eq!(
        sweep(&sweeper(&bench, 1, &told)).await.unwrap(),
        0,
        "the same rules"
    );
    assert_eq!(assessed(&bench).await.assessment, blind.assessment);
    for (dies, expected) in [(true, 0), (false, 1)] {
        let by_others = Sweeper {
            progress: Arc::new(Progress::new(1, false)),
            ..sweeper(&bench, 1, &told)
        };
        told.0.lock().unwrap().1 = dies;
        assert_eq!(sweep(&by_others).await.ok(), (!dies).then_some(1));
        let heard = told.0.lock().unwrap().0.clone();
        assert_eq!(heard, vec!["appeared CVE-2024-1"; expected], "{heard:?}");
        if !dies {
            assert_eq!(sweep(&by_others).await.unwrap(), 0, "it is done");
        }
    }
    let found = assessed(&bench).await;
    assert_ne!(
        (found.advisory, found.counts),
        (1, model::Counts::default())
    );
    assert!(index.get(&bench.key).unwrap().is_some());
    let mark = format!("swept.{}", bench.key.image.partition());
    let mark = bench
        .store
        .get::<SweptMark>(ADVISORIES, &mark)
        .await
        .unwrap();
    assert_eq!(mark.unwrap().body.rules, bench.assessor.advisories.rules());
}

#[tokio::test]
async fn what_a_sweep_wrote_that_never_came_to_its_mark_is_looked_at_again() {
    let bench = Bench::new();
    let rows = [("CVE-2024-1", "PyPI", "x", "2.0")];
    bench.advise(&rows);
    let scan = bench.scan(&[("x", "1.0")]).await;
    assess(&bench, &scan).await;
    let told = Told::default();
    sweep(&sweeper(&bench, 0, &told)).await.unwrap();
    // At revision 2 the advisory is withdrawn. The image's record is written; then the owner dies.
    bench.advise(&[("CVE-2024-9", "PyPI", "other", "2.0")]);
    let cause = Cause::Advisories { swept: 1 };
    let dying = bench.assessor.assess(&bench.key, scan.0, &scan.1, cause);
    bench.store.apply(&dying.await.unwrap()).await.unwrap();
    let record = assessed(&bench).await;
    assert_eq!((record.advisory, record.counts.total()), (2, 0));
    // At revision 3 it is back: between the mark and now nothing changed.
    bench.advise(&rows);
    let next = sweeper(&bench, 1, &told);
    assert!(next.progress.is_open(record.advisory, false));
    let open = Open {
        advisory: record.advisory,
        sequence: 9,
    };
    bench.assessor.index.open(&bench.key, open).unwrap();
    assert_eq!(sweep(&next).await.unwrap(), 1);
    let record = assessed(&bench).await;
    assert_eq!((record.advisory, record.counts.total()), (3, 1));
    assert_eq!(mark(&bench).await, Some(3));
    let opened = bench.assessor.index.opened(next.partition).unwrap();
    assert!(opened.is_empty(), "{opened:?}");
    let news = told.0.lock().unwrap().0.clone();
    let told = ["resolved CVE-2024-1", "appeared CVE-2024-1"];
    assert_eq!(news, told, "what the dead one did not tell is told");
}

#[tokio::test]
async fn an_image_that_is_scanned_while_an_advisory_is_imported_is_never_missed() {
    // The advisory comes before the image is matched, between that and its record, or after it.
    for step in 0..3 {
        let (bench, told) = (Bench::new(), Told::default());
        bench.advise(&[("CVE-2024-9", "PyPI", "other", "2.0")]);
        sweep(&sweeper(&bench, 0, &told)).await.unwrap();
        let scan = bench.scan(&[("x", "1.0")]).await;
        let sweeper = sweeper(&bench, 1, &told);
        let import = async |now: usize| {
            if now == step {
                bench.advise(&[("CVE-2024-1", "PyPI", "x", "2.0")]);
                sweep(&sweeper).await.unwrap();
            }
        };
        let cause = Cause::Scan;
        import(0).await;
        let matched = bench.assessor.assess(&bench.key, scan.0, &scan.1, cause);
        let matched = matched.await.unwrap();
        import(1).await;
        if bench.store.apply(&matched).await.is_err() {
            // Somebody else wrote the record: the message comes again.
            assess(&bench, &scan).await;
        }
        // Whoever follows the bucket notes a record that comes and rests on an older revision.
        let advisory = assessed(&bench).await.advisory;
        if sweeper.progress.is_open(advisory, true) {
            let open = Open {
                advisory,
                sequence: 9,
            };
            bench.assessor.index.open(&bench.key, open).unwrap();
            sweep(&sweeper).await.unwrap();
        }
        import(2).await;
        let record = assessed(&bench).await;
        assert_eq!(
            (record.advisory, record.counts.total()),
            (2, 1),
            "at step {step}"
        );
        assert_eq!(mark(&bench).await, Some(2), "at step {step}");
    }
}

#[tokio::test]
async fn a_mark_is_not_replaced_by_a_smaller_one_unless_the_advisories_are_new() {
    let bench = Bench::new();
    bench.advise(&[("CVE-2024-1", "PyPI", "x", "2.0")]);
    let key = format!("swept.{}", bench.key.image.partition());
    let ahead = SweptMark {
        revision: 7,
        data_at: None,
        ..SweptMark::default()
    };
    bench
        .store
        .put(ADVISORIES, &key, &ahead, None)
        .await
        .unwrap();
    let head = AdvisoryHead {
        revision: 7,
        manifest: Digest::of(b"manifest"),
        published_at: Timestamp::UNIX_EPOCH,
        past: Vec::new(),
    };
    bench
        .store
        .put(ADVISORIES, HEAD, &head, None)
        .await
        .unwrap();
    sweep(&sweeper(&bench, 0, &Told::default())).await.unwrap();
    assert_eq!(mark(&bench).await, Some(7), "another owner is ahead");
    bench.store.delete(ADVISORIES, HEAD).await.unwrap();
    sweep(&sweeper(&bench, 7, &Told::default())).await.unwrap();
    assert_eq!(mark(&bench).await, Some(1));
}

#[tokio::test]
async fn a_sweep_of_a_partition_that_was_given_up_writes_no_mark() {
    let bench = Bench::new();
    bench.advise(&[("CVE-2024-1", "PyPI", "x", "2.0")]);
    let sweeper = sweeper(&bench, 0, &Told::default());
    bench.assessor.cx.stop();
    assert!(sweep(&sweeper).await.is_err());
    assert_eq!(mark(&bench).await, None);
}

#[test]
fn a_record_that_rests_on_other_advisories_than_the_mark_is_open() {
    let progress = Progress::new(5, true);
    assert!(!progress.is_open(4, false), "the mark speaks for it");
    assert!(!progress.is_open(5, true));
    assert!(
        progress.is_open(6, false),
        "a sweep without a mark wrote it"
    );
    assert!(
        progress.is_open(4, true),
        "somebody wrote it after the mark"
    );
}

#[tokio::test]
async fn an_image_whose_packages_are_fetched_twice_at_once_is_fetched_once() {
    let bench = Bench::new();
    let (_, scanned) = bench.scan(&[("x", "1.0")]).await;
    let packages = &bench.assessor.packages;
    let (one, two) = tokio::join!(
        packages.get(&scanned.packages, None),
        packages.get(&scanned.packages, None)
    );
    let (one, two) = (one.unwrap().unwrap(), two.unwrap().unwrap());
    assert!(Arc::ptr_eq(&one, &two));
    let object = &scanned.packages;
    bench
        .store
        .delete_object(REPORT_OBJECTS, object)
        .await
        .unwrap();
    assert!(
        packages.get(object, None).await.unwrap().is_some(),
        "it is kept"
    );
    let gone = packages.get(&Digest::of(b"gone"), None).await.unwrap();
    assert!(gone.is_none());
}
