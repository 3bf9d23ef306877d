//! Imports: what they change and what they leave alone.

use std::{fs, io::Write as _, path::Path};

use bytes::Bytes;
use jiff::Timestamp;
use model::AdvisoryManifest;
use zip::{ZipWriter, write::SimpleFileOptions};

use super::{Import, Imported, Mode, import};
use crate::{Advisories, FeedLimits, Source};

/// A zip of records, each given as (id, ecosystem, package, fixed version).
pub(crate) fn records(records: &[(&str, &str, &str, &str)]) -> Bytes {
    let texts = records.iter().map(|(id, ecosystem, package, fixed)| {
        let json = format!(
            r#"{{"id": "{id}", "affected": [{{"package": {{"ecosystem": "{ecosystem}", "name": "{package}"}},
                "ranges": [{{"type": "ECOSYSTEM", "events": [{{"introduced": "0"}}, {{"fixed": "{fixed}"}}]}}]}}]}}"#
        );
        (format!("{id}.json"), json)
    });
    zipped(&texts.collect::<Vec<_>>())
}

pub(crate) fn zipped(files: &[(String, String)]) -> Bytes {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in files {
        zip.start_file(name.as_str(), SimpleFileOptions::default())
            .unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner().into()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn take(
    advisories: &Advisories,
    feed: &str,
    mode: Mode,
    second: i64,
    rows: &[(&str, &str, &str, &str)],
) -> Imported {
    let what = Import {
        feed: feed.to_owned(),
        mode,
        fetched_at: at(second),
        revision: None,
    };
    import(
        advisories,
        &what,
        &Source::Bytes(records(rows)),
        &FeedLimits::default(),
    )
    .unwrap()
}

pub(crate) fn is_whole(advisories: &Advisories, manifest: &AdvisoryManifest) -> bool {
    let shards = manifest.shards.values().copied().collect();
    advisories.missing(shards).unwrap().is_empty()
}

/// Everything that is in force, one line per advisory.
fn listed(advisories: &Advisories) -> Vec<String> {
    let manifest = advisories.manifest();
    let shards = manifest
        .shards
        .keys()
        .map(|key| (key, advisories.shard_of(&manifest, key).unwrap()));
    let mut lines: Vec<String> = shards
        .flat_map(|(key, shard)| {
            let line = |one: &vulndb::ShardAdvisory| {
                format!(
                    "{}/{} {} of {}",
                    key.ecosystem, one.package, one.id, one.feed
                )
            };
            shard.advisories().iter().map(line).collect::<Vec<_>>()
        })
        .collect();
    lines.sort();
    lines
}

/// The same, with the ranges.
pub(crate) fn shown(advisories: &Advisories) -> Vec<String> {
    let manifest = advisories.manifest();
    let mut lines = Vec::new();
    for key in manifest.shards.keys() {
        let shard = advisories.shard_of(&manifest, key).unwrap();
        for one in shard.advisories() {
            lines.push(format!("{} {:?}", one.id, one.windows));
        }
    }
    lines
}

#[test]
fn merging_adds_and_replaces_by_id_and_replacing_withdraws_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let advisories = Advisories::open(dir.path()).unwrap();
    let first = [("A", "PyPI", "x", "1"), ("B", "PyPI", "y", "1")];
    assert_eq!(
        take(&advisories, "one", Mode::Merge, 1, &first)
            .manifest
            .revision,
        1
    );
    // `A` moves to another package; another feed may have the same id.
    take(
        &advisories,
        "one",
        Mode::Merge,
        2,
        &[("A", "PyPI", "z", "2")],
    );
    take(
        &advisories,
        "two",
        Mode::Merge,
        3,
        &[("A", "npm", "x", "1")],
    );
    assert_eq!(
        listed(&advisories),
        ["PyPI/y B of one", "PyPI/z A of one", "npm/x A of two"]
    );
    let imported = take(
        &advisories,
        "one",
        Mode::Replace,
        4,
        &[("C", "PyPI", "y", "1")],
    );
    assert_eq!(listed(&advisories), ["PyPI/y C of one", "npm/x A of two"]);
    assert_eq!((imported.changed.len(), imported.manifest.revision), (2, 4));
    let feeds: Vec<_> = imported
        .manifest
        .feeds
        .iter()
        .map(|feed| (feed.name.as_str(), feed.advisories))
        .collect();
    assert_eq!(feeds, [("one", 1), ("two", 1)]);
}

#[test]
fn the_same_import_again_makes_no_revision_and_a_reopened_copy_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let rows = [("A", "PyPI", "x", "1")];
    let before = {
        let advisories = Advisories::open(dir.path()).unwrap();
        take(&advisories, "one", Mode::Merge, 1, &rows);
        take(&advisories, "one", Mode::Merge, 1, &rows).manifest
    };
    assert_eq!(before.revision, 1);
    let advisories = Advisories::open(dir.path()).unwrap();
    assert_eq!(*advisories.manifest(), before);
    // Newer data with the same content: the age changes, and so the revision.
    let newer = take(&advisories, "one", Mode::Merge, 9, &rows);
    assert_eq!((newer.manifest.revision, newer.changed.len()), (2, 0));
    assert_eq!(newer.manifest.feeds[0].advisories, 1);
}

#[test]
fn a_feed_named_as_an_ecosystem_covers_that_one_alone() {
    let dir = tempfile::tempdir().unwrap();
    let advisories = Advisories::open(dir.path()).unwrap();
    let rows = [
        ("A", "Debian:12", "x", "1"),
        ("B", "Debian:13", "x", "1"),
        ("C", "PyPI", "x", "1"),
    ];
    let named = take(&advisories, "Debian", Mode::Replace, 1, &rows).manifest;
    assert_eq!(named.feeds[0].coverage, ["Debian:12", "Debian:13"]);
    let other = take(&advisories, "mine", Mode::Replace, 1, &rows).manifest;
    assert_eq!(other.feeds[1].coverage, ["Debian:12", "Debian:13", "PyPI"]);
}

#[test]
fn a_few_records_say_nothing_about_coverage_and_age() {
    let dir = tempfile::tempdir().unwrap();
    let advisories = Advisories::open(dir.path()).unwrap();
    let rows = [("A", "Debian:12", "x", "1")];
    let mine = take(&advisories, "mine", Mode::Merge, 5, &rows).manifest;
    let feed = &mine.feeds[0];
    assert!(feed.partial && feed.coverage.is_empty());
    assert_eq!((feed.advisories, mine.stamp().data_at()), (1, None));
    // The whole feed, days ago; then one more record of it.
    let debian = [("B", "Debian:12", "x", "1"), ("C", "Debian:13", "y", "1")];
    take(&advisories, "Debian", Mode::Replace, 3, &debian);
    let more = [("D", "Debian:14", "z", "1")];
    let merged = take(&advisories, "Debian", Mode::Merge, 9, &more).manifest;
    let feed = &merged.feeds[0];
    assert_eq!(feed.coverage, ["Debian:12", "Debian:13"]);
    assert_eq!(
        (feed.advisories, merged.stamp().data_at()),
        (3, Some(at(3)))
    );
    // Given whole, a feed counts; given empty, it is gone.
    let whole = take(&advisories, "mine", Mode::Replace, 2, &rows).manifest;
    assert_eq!(whole.stamp().data_at(), Some(at(2)));
    let gone = take(&advisories, "mine", Mode::Replace, 10, &[]).manifest;
    let names: Vec<_> = gone.feeds.iter().map(|feed| feed.name.as_str()).collect();
    assert_eq!(
        (names, gone.stamp().data_at()),
        (vec!["Debian"], Some(at(3)))
    );
    assert!(
        listed(&advisories)
            .iter()
            .all(|line| line.ends_with("of Debian"))
    );
}

#[test]
fn revisions_of_not_long_ago_can_be_read_and_older_ones_are_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    let advisories = Advisories::open(dir.path()).unwrap();
    for fixed in 1..=6 {
        take(
            &advisories,
            "one",
            Mode::Merge,
            1,
            &[("A", "PyPI", "x", &fixed.to_string())],
        );
    }
    assert!(advisories.at_revision(2).unwrap().is_none());
    for revision in 3..=6 {
        let manifest = advisories.at_revision(revision).unwrap().unwrap();
        assert!(is_whole(&advisories, &manifest), "{revision}");
    }
}

#[test]
fn malformed_records_are_counted_and_a_feed_of_nothing_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let advisories = Advisories::open(&dir.path().join("db")).unwrap();
    let feed = dir.path().join("feed/PyPI");
    fs::create_dir_all(&feed).unwrap();
    fs::write(feed.join("bad.json"), "{").unwrap();
    fs::write(feed.join("readme.txt"), "none").unwrap();
    let what = Import {
        feed: "f".to_owned(),
        mode: Mode::Merge,
        fetched_at: at(1),
        revision: None,
    };
    let limits = FeedLimits::default();
    let run = |path: &Path| import(&advisories, &what, &Source::open(path).unwrap(), &limits);
    assert!(run(&dir.path().join("feed")).is_err());
    let good = r#"{"id": "A", "affected": [{"package": {"ecosystem": "PyPI", "name": "x"}, "versions": ["1"]}]}"#;
    fs::write(feed.join("good.json"), good).unwrap();
    let imported = run(&dir.path().join("feed")).unwrap();
    assert_eq!((imported.records, imported.malformed), (2, 1));
    let small = FeedLimits {
        records_max: 1,
        ..FeedLimits::default()
    };
    let source = Source::open(&dir.path().join("feed")).unwrap();
    assert!(import(&advisories, &what, &source, &small).is_err());
    assert!(
        import(
            &advisories,
            &Import {
                feed: String::new(),
                ..what
            },
            &source,
            &limits
        )
        .is_err()
    );
}

#[test]
fn what_stands_under_the_name_of_an_unreadable_record_stays() {
    let dir = tempfile::tempdir().unwrap();
    let advisories = Advisories::open(dir.path()).unwrap();
    let rows = [("A", "npm", "x", "1.0.0"), ("B", "npm", "y", "1.0.0")];
    take(&advisories, "npm", Mode::Replace, 1, &rows);
    let good = r#"{"id": "B", "affected": [{"package": {"ecosystem": "npm", "name": "y"},
        "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "2.0.0"}]}]}]}"#;
    let files = [("npm/A.json", "{"), ("npm/B.json", good)];
    let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let what = Import {
        feed: "npm".to_owned(),
        mode: Mode::Replace,
        fetched_at: at(2),
        revision: None,
    };
    let source = Source::Bytes(zipped(&files));
    let imported = import(&advisories, &what, &source, &FeedLimits::default()).unwrap();
    assert!(
        imported.problems[0].contains("npm/A.json"),
        "{:?}",
        imported.problems
    );
    let shown = shown(&advisories);
    assert!(shown.iter().any(|line| line.starts_with("A ")), "{shown:?}");
    assert!(shown.iter().any(|line| line.contains("2.0.0")), "{shown:?}");
    assert_eq!(imported.manifest.feeds[0].advisories, 2);
}

#[test]
fn advisories_are_found_by_the_cves_that_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let advisories = Advisories::open(dir.path()).unwrap();
    let rows = [
        ("DEBIAN-CVE-2024-1", "Debian:12", "src", "1"),
        ("CVE-2024-1", "npm", "x", "1.0.0"),
        ("CVE-2024-2", "npm", "z", "1.0.0"),
    ];
    take(&advisories, "all", Mode::Replace, 1, &rows);
    let names = |cve: &str| -> Vec<String> {
        let named = advisories.named(cve).unwrap();
        named.into_iter().map(|one| one.name).collect()
    };
    assert_eq!(names("CVE-2024-1"), ["src", "x"]);
    take(&advisories, "all", Mode::Replace, 2, &rows[1..]);
    assert_eq!(names("CVE-2024-1"), ["x"]);
    assert!(names("CVE-2024-3").is_empty());
}

#[test]
fn a_copy_that_is_not_there_reads_as_empty() {
    let dir = tempfile::tempdir().unwrap();
    let advisories = Advisories::open_read_only(&dir.path().join("none")).unwrap();
    assert_eq!(advisories.manifest().revision, 0);
    assert!(advisories.database().is_err());
}

#[test]
fn the_real_feeds_are_imported() {
    let Some(data) = std::env::var_os("TIDEWAITER_TEST_DATA") else {
        println!("skipped: TIDEWAITER_TEST_DATA is not set");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let advisories = Advisories::open(dir.path()).unwrap();
    for feed in ["Debian", "Alpine", "PyPI", "npm", "Ubuntu"] {
        let path = Path::new(&data)
            .join("advisories")
            .join(feed)
            .join("all.zip");
        if !path.exists() {
            println!("skipped: no `{}`", path.display());
            continue;
        }
        let start = std::time::Instant::now();
        let what = Import {
            feed: feed.to_owned(),
            mode: Mode::Replace,
            fetched_at: at(1),
            revision: None,
        };
        let limits = FeedLimits::default();
        let imported = import(&advisories, &what, &Source::Zip(path), &limits).unwrap();
        let bytes = advisories.database().unwrap().size_bytes().unwrap();
        println!(
            "{feed}: {} records, {} shards changed, {} malformed, {} ms, database {} KiB",
            imported.records,
            imported.changed.len(),
            imported.malformed,
            start.elapsed().as_millis(),
            bytes >> 10,
        );
        assert_eq!(imported.malformed, 0);
    }
}

#[test]
fn the_records_of_the_demonstration_are_usable_and_free_of_prose() {
    let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/demo/advisories");
    let dir = tempfile::tempdir().unwrap();
    let advisories = Advisories::open(dir.path()).unwrap();
    let what = Import {
        feed: "demo".to_owned(),
        mode: Mode::Replace,
        fetched_at: at(1),
        revision: None,
    };
    let source = Source::open(&records).unwrap();
    let imported = import(&advisories, &what, &source, &FeedLimits::default()).unwrap();
    assert_eq!(imported.malformed, 0);
    assert!(
        (30..100).contains(&imported.records),
        "{}",
        imported.records
    );
    assert_eq!(
        imported.manifest.feeds[0].coverage,
        ["Debian:12", "PyPI", "npm"]
    );
    let manifest = advisories.manifest();
    for key in manifest.shards.keys() {
        for one in advisories.shard_of(&manifest, key).unwrap().advisories() {
            assert!(
                one.title.is_empty() && one.notes.is_empty(),
                "{}: {:?}",
                one.id,
                one.notes
            );
        }
    }
}
