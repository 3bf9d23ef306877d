use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{options::WRITES_BYTES, *};

const SCHEMA: Schema<'_> = Schema {
    version: 1,
    families: &["a", "b"],
};

fn open(folder: &TempDir) -> Database {
    Database::open(folder.path(), &SCHEMA).unwrap()
}

#[test]
fn what_is_written_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder);
    database.put("a", b"k", b"v").unwrap();
    database.put_as("b", b"k", &vec!["x", "y"]).unwrap();
    database.put("a", b"gone", b"v").unwrap();
    database.delete("a", b"gone").unwrap();
    drop(database);
    let database = open(&folder);
    assert_eq!(database.get("a", b"k").unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!(
        database.get_as::<Vec<String>>("b", b"k").unwrap().unwrap(),
        ["x", "y"]
    );
    assert_eq!(database.get("a", b"gone").unwrap(), None);
    assert_eq!(database.get("b", b"other").unwrap(), None);
    assert!(matches!(
        database.get("c", b"k"),
        Err(CacheError::Family(_))
    ));
    assert!(matches!(
        database.get_as::<u8>("a", b"k"),
        Err(CacheError::Damaged(_))
    ));
    database.flush().unwrap();
    assert_eq!(database.estimate_keys("b").unwrap(), 1);
    assert!(database.size_bytes().unwrap() > 0);
}

/// Bytes of the logs in a database's folder.
pub(crate) fn logs(folder: &TempDir) -> u64 {
    let files = fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
    let logs = files.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
    logs.map(|file| file.metadata().unwrap().len()).sum()
}

#[test]
fn what_was_flushed_is_in_no_log_any_more() {
    // In half of them a family is on its way to the disk already, as where memory is short.
    for round in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let database = open(&folder);
        if round % 2 == 0 {
            let mut unwaited = FlushOptions::default();
            unwaited.set_wait(false);
            database.db.flush_opt(&unwaited).unwrap();
        }
        database.put("a", b"k", &[7; 5000]).unwrap();
        assert!(logs(&folder) > 5000, "{}", logs(&folder));
        database.flush().unwrap();
        drop(database);
        assert_eq!(logs(&folder), 0, "who opens it next goes through them");
        assert!(open(&folder).get("a", b"k").unwrap().is_some());
    }
}

#[test]
fn another_schema_starts_empty() {
    let check = |schema: &Schema<'_>, kept: bool| {
        let folder = tempfile::tempdir().unwrap();
        open(&folder).put("a", b"k", b"v").unwrap();
        let database = Database::open(folder.path(), schema).unwrap();
        assert_eq!(
            database.get("a", b"k").unwrap().is_some(),
            kept,
            "{schema:?}"
        );
        drop(database);
        assert!(Database::open_read_only(folder.path(), schema).is_some());
    };
    check(&SCHEMA, true);
    check(
        &Schema {
            version: 1,
            families: &["a", "b", "c"],
        },
        true,
    );
    check(
        &Schema {
            version: 2,
            families: &["a", "b"],
        },
        false,
    );
    check(
        &Schema {
            version: 0,
            families: &["a", "b"],
        },
        false,
    );
    check(
        &Schema {
            version: 1,
            families: &["a"],
        },
        false,
    );
}

#[test]
fn a_damaged_database_starts_empty() {
    let folder = tempfile::tempdir().unwrap();
    open(&folder).put("a", b"k", b"v").unwrap();
    fs::write(folder.path().join("CURRENT"), b"nonsense").unwrap();
    assert!(Database::open_read_only(folder.path(), &SCHEMA).is_none());
    assert_eq!(open(&folder).get("a", b"k").unwrap(), None);
}

#[test]
fn one_writes_and_others_read_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Database::open_read_only(folder.path(), &SCHEMA).is_none());
    assert!(Database::open_read_only(&folder.path().join("none"), &SCHEMA).is_none());
    assert!(!folder.path().join("none").exists());
    let writer = open(&folder);
    writer.put("a", b"k", b"v").unwrap();
    assert!(matches!(
        Database::open(folder.path(), &SCHEMA),
        Err(CacheError::Busy { .. })
    ));
    let reader = Database::open_read_only(folder.path(), &SCHEMA).unwrap();
    assert_eq!(reader.get("a", b"k").unwrap().as_deref(), Some(&b"v"[..]));
    assert!(reader.put("a", b"k", b"w").is_err());
    let other = Schema {
        version: 2,
        ..SCHEMA
    };
    assert!(Database::open_read_only(folder.path(), &other).is_none());
    assert!(!folder.path().join("LOG").exists());
}

#[test]
fn a_batch_happens_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder);
    let failed = database.batch(|batch| {
        batch.put("a", b"1", b"x")?;
        batch.put("none", b"1", b"x")
    });
    assert!(failed.is_err());
    assert_eq!(database.get("a", b"1").unwrap(), None);
    let done = database.batch(|batch| {
        batch.put("a", b"1", b"x")?;
        batch.put("a", b"2", b"x")?;
        batch.delete_range("a", b"2", b"3")?;
        batch.put_as("b", b"1", &7_u8)?;
        batch.sync();
        Ok(())
    });
    done.unwrap();
    assert_eq!(database.scan_prefix("a", b"", None, 10).unwrap().len(), 1);
    assert_eq!(database.get_as::<u8>("b", b"1").unwrap(), Some(7));
}

#[test]
fn pages_of_a_prefix_hold_each_key_once() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder);
    for key in ["a", "b", "b\u{0}", "b1", "b2", "c"] {
        database.put("a", key.as_bytes(), b"").unwrap();
    }
    database.put("a", b"\xff\xff", b"").unwrap();
    let keys = |prefix: &[u8], from: Option<&[u8]>, limit| {
        let pairs = database.scan_prefix("a", prefix, from, limit).unwrap();
        pairs.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(keys(b"b", None, 3), [&b"b"[..], b"b\0", b"b1"]);
    assert_eq!(keys(b"b", Some(b"b1\0"), 3), [b"b2"]);
    assert_eq!(keys(b"b", Some(b"a"), 1), [b"b"]);
    assert!(keys(b"b", Some(b"c"), 9).is_empty());
    assert_eq!(keys(b"\xff", None, 9), [b"\xff\xff"]);
    assert_eq!(keys(b"", None, 9).len(), 7);
}

proptest! {
    #[test]
    fn the_end_of_a_prefix_is_after_all_its_keys(prefix: Vec<u8>, rest: Vec<u8>, other: Vec<u8>) {
        let key = [prefix.clone(), rest].concat();
        if let Some(end) = after_prefix(&prefix) {
            prop_assert!(key < end);
            prop_assert!(other.starts_with(&prefix) || other < prefix || other >= end);
        }
    }
}

#[test]
fn whatever_is_kept_can_be_read_without_its_schema() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder);
    database.put("a", b"k", b"v").unwrap();
    drop(database);
    let database = Database::open_as_it_is(folder.path()).unwrap();
    let mut names: Vec<_> = database.families().collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "default"]);
    let pairs = database.scan_prefix("a", b"", None, 10).unwrap();
    assert_eq!(pairs, [(b"k".to_vec(), b"v".to_vec())]);
    assert!(Database::open_as_it_is(&folder.path().join("none")).is_err());
}

#[test]
fn what_is_not_on_disk_is_bounded_for_all_databases_together() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let databases = folders.each_ref().map(open);
    // Four times the bound, half of it in either database.
    for key in 0..2_048_u32 {
        for database in &databases {
            for family in SCHEMA.families {
                let value = [key.to_le_bytes(); 1_024].concat();
                database.put(family, &key.to_be_bytes(), &value).unwrap();
            }
        }
    }
    // What came faster than the disk took it goes with what is written next.
    let began = Instant::now();
    while memory().writes > WRITES_BYTES {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", memory());
        for database in &databases {
            database.put("b", b"next", b"").unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for database in &databases {
        for family in SCHEMA.families {
            let last = database.get(family, &2_047_u32.to_be_bytes()).unwrap();
            assert_eq!(last.map(|value| value.len()), Some(4_096));
        }
    }
    assert!(memory().blocks > 0, "{:?}", memory());
}
