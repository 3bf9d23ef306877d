use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    process::{Command, Stdio},
};

use model::AnalyzerId;

use super::*;
use crate::database::tests::logs;

const ROOM: u64 = 1 << 20;
/// Set in the processes that a test starts: the folder of the cache that they share.
const SHARED_DIR: &str = "TIDEWAITER_CACHE_TEST_DIR";

fn key(number: u32) -> SectionKey {
    SectionKey {
        domain: "default".parse().unwrap(),
        blob: Digest::of(&number.to_be_bytes()),
        analyzer: AnalyzerId {
            name: "dpkg".to_owned(),
            version: 1,
            config: Digest::of(b""),
        },
    }
}

/// A section of about `size` bytes that cannot be compressed.
fn section(number: u32, size: usize) -> Vec<Digest> {
    let part =
        |index: usize| Digest::of(&[&number.to_be_bytes()[..], &index.to_be_bytes()].concat());
    (0..size.div_ceil(34)).map(part).collect()
}

#[test]
fn a_section_is_there_for_its_own_key_only_and_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = SectionCache::open(folder.path(), ROOM).unwrap();
    cache.put(&key(1), &"one".to_owned()).unwrap();
    drop(cache);
    let cache = SectionCache::open(folder.path(), ROOM).unwrap();
    assert_eq!(cache.get::<String>(&key(1)).as_deref(), Some("one"));
    let mut others = [key(2), key(1), key(1), key(1), key(1)];
    others[1].domain = "other".parse().unwrap();
    others[2].analyzer.version = 2;
    others[3].analyzer.config = Digest::of(b"x");
    others[4].analyzer.name = "apk".to_owned();
    for other in others {
        assert_eq!(cache.get::<String>(&other), None, "{other:?}");
    }
    let figures = cache.figures();
    assert_eq!((figures.hits, figures.misses, figures.corrupt), (1, 5, 0));
}

#[test]
fn a_damaged_section_is_a_miss_and_deleted_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let place = key_bytes(&key(1));
    for flipped in [0, 7, 8, 39, 40, 44, usize::MAX] {
        let cache = SectionCache::open(folder.path(), ROOM).unwrap();
        cache.put(&key(1), &section(1, 2000)).unwrap();
        cache.put(&key(2), &section(2, 2000)).unwrap();
        drop(cache);
        let database = Database::open(folder.path(), &SCHEMA).unwrap();
        let mut row = database.get(FAMILY, &place).unwrap().unwrap();
        let at = flipped.min(row.len() - 1);
        row[at] ^= 1;
        database.put(FAMILY, &place, &row).unwrap();
        drop(database);
        let cache = SectionCache::open(folder.path(), ROOM).unwrap();
        let found = cache.get::<Vec<Digest>>(&key(1));
        if flipped < 8 {
            // Its place in the order is not part of the answer.
            assert_eq!(found, Some(section(1, 2000)));
            continue;
        }
        assert_eq!(found, None, "{flipped}");
        assert_eq!(cache.figures().corrupt, 1, "{flipped}");
        let Mode::Owned { database, .. } = &cache.mode else {
            panic!("not owned")
        };
        assert_eq!(database.get(FAMILY, &place).unwrap(), None, "{flipped}");
        assert_eq!(cache.get::<Vec<Digest>>(&key(2)), Some(section(2, 2000)));
    }
}

#[test]
fn a_section_of_another_shape_is_a_miss_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let cache = SectionCache::open(folder.path(), ROOM).unwrap();
    cache.put(&key(1), &"text").unwrap();
    assert_eq!(cache.get::<Vec<u64>>(&key(1)), None);
    assert_eq!(cache.figures().corrupt, 1);
    assert_eq!(cache.get::<String>(&key(1)), None);
}

#[test]
fn the_oldest_go_first_and_the_bound_holds_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let mut evicted = 0;
    for round in 0..4 {
        let cache = SectionCache::open(folder.path(), ROOM).unwrap();
        for number in round * 50..(round + 1) * 50 {
            cache
                .put(&key(number), &section(number, 16 * 1024))
                .unwrap();
            assert!(cache.figures().bytes <= ROOM);
            assert!(cache.get::<Vec<Digest>>(&key(number)).is_some());
        }
        evicted += cache.figures().evicted;
    }
    let cache = SectionCache::open(folder.path(), ROOM).unwrap();
    let there: Vec<_> = (0..200)
        .map(|number| cache.get::<Vec<Digest>>(&key(number)).is_some())
        .collect();
    let first = there.iter().position(|there| *there).unwrap();
    assert!(there[first..].iter().all(|there| *there));
    assert_eq!(evicted, first as u64);
    assert!((55..=64).contains(&(200 - first)), "{first}");
    // Replacing does not count twice.
    let before = cache.figures().bytes;
    cache.put(&key(199), &section(199, 16 * 1024)).unwrap();
    assert_eq!(cache.figures().bytes, before);
    cache.put(&key(500), &section(500, 400 * 1024)).unwrap();
    assert_eq!(
        cache.get::<Vec<Digest>>(&key(500)),
        None,
        "too large to be kept"
    );
}

#[test]
fn the_sum_is_the_sum_of_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let cache = SectionCache::open(folder.path(), ROOM).unwrap();
    for number in 0..300 {
        let number = number % 97;
        cache
            .put(&key(number), &section(number, 100 * number as usize))
            .unwrap();
    }
    let Mode::Owned { database, .. } = &cache.mode else {
        panic!("not owned")
    };
    let rows = database
        .scan_prefix(FAMILY, &[SECTION], None, 1000)
        .unwrap();
    let sum: usize = rows
        .iter()
        .map(|(key, row)| 2 * key.len() + row.len() + 16)
        .sum();
    assert_eq!(cache.figures().bytes, sum as u64);
    let order = database
        .scan_prefix(FAMILY, &[ORDER], Some(&[ORDER, 0]), 1000)
        .unwrap();
    assert_eq!(order.len(), rows.len());
}

#[test]
fn a_scan_writes_at_its_end_and_never_waits_for_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("cache");
    let scan = SectionCache::open_shared(&dir, ROOM);
    assert_eq!(scan.get::<String>(&key(1)), None);
    scan.put(&key(1), &"one").unwrap();
    assert_eq!(scan.get::<String>(&key(1)).as_deref(), Some("one"));
    assert!(!dir.exists());
    assert_eq!(scan.finish().unwrap(), 1);
    assert_eq!(scan.finish().unwrap(), 0);

    let server = SectionCache::open(&dir, ROOM).unwrap();
    server.put(&key(2), &"two").unwrap();
    let scan = SectionCache::open_shared(&dir, ROOM);
    assert_eq!(scan.get::<String>(&key(1)).as_deref(), Some("one"));
    assert_eq!(scan.get::<String>(&key(2)).as_deref(), Some("two"));
    assert!(scan.figures().bytes > 0);
    scan.put(&key(3), &"three").unwrap();
    let start = Instant::now();
    assert_eq!(scan.finish().unwrap(), 0);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(server.get::<String>(&key(3)), None);
}

#[test]
fn a_scan_that_prepares_its_end_holds_the_cache_until_then() {
    let folder = tempfile::tempdir().unwrap();
    let other = || SectionCache::open(folder.path(), ROOM);
    let is_held = || matches!(other(), Err(CacheError::Busy { .. }));
    let scan = SectionCache::open_shared(folder.path(), ROOM);
    scan.prepare_to_finish();
    assert!(is_held());
    scan.put(&key(1), &"one").unwrap();
    scan.prepare_to_finish();
    assert_eq!(scan.finish().unwrap(), 1);
    let server = other().unwrap();
    assert_eq!(server.get::<String>(&key(1)).as_deref(), Some("one"));

    // Who comes late or has nothing to write holds it no longer either.
    let scan = SectionCache::open_shared(folder.path(), ROOM);
    scan.prepare_to_finish();
    scan.put(&key(2), &"two").unwrap();
    drop(server);
    assert_eq!(scan.finish().unwrap(), 1);
    scan.prepare_to_finish();
    assert!(is_held());
    assert_eq!(scan.finish().unwrap(), 0);
    assert!(!is_held());
}

#[test]
fn much_that_a_scan_writes_is_in_no_log() {
    for size in [3_000, 90_000] {
        let folder = tempfile::tempdir().unwrap();
        let scan = SectionCache::open_shared(folder.path(), ROOM);
        for number in 0..4 {
            scan.put(&key(number), &section(number, size)).unwrap();
        }
        assert_eq!(scan.finish().unwrap(), 4);
        let logged = logs(&folder);
        let bound = if 4 * size > LOG_BYTES_MAX { 0 } else { 20_000 };
        assert!(logged <= bound, "{logged} of {size}");
        let scan = SectionCache::open_shared(folder.path(), ROOM);
        for number in 0..4 {
            let found = scan.get::<Vec<Digest>>(&key(number));
            assert_eq!(found, Some(section(number, size)));
        }
    }
}

#[test]
fn a_scan_for_which_others_go_leaves_none_of_it_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let server = SectionCache::open(folder.path(), ROOM).unwrap();
    for number in 0..60 {
        server.put(&key(number), &section(number, 17_000)).unwrap();
    }
    drop(server);
    let scan = SectionCache::open_shared(folder.path(), ROOM);
    for number in 60..64 {
        scan.put(&key(number), &section(number, 17_000)).unwrap();
    }
    scan.finish().unwrap();
    assert_eq!(logs(&folder), 0);
    let scan = SectionCache::open_shared(folder.path(), ROOM);
    assert_eq!(scan.get::<Vec<Digest>>(&key(0)), None);
    assert!(scan.get::<Vec<Digest>>(&key(63)).is_some());
}

#[test]
fn a_cache_with_damaged_books_starts_empty() {
    let folder = tempfile::tempdir().unwrap();
    let cache = SectionCache::open(folder.path(), ROOM).unwrap();
    for number in 0..200 {
        cache.put(&key(number), &section(number, 3_000)).unwrap();
    }
    let Mode::Owned { database, .. } = &cache.mode else {
        panic!("not owned")
    };
    database.flush().unwrap();
    drop(cache);
    // The books stand before the sections and the schema's version, so in the first block of a file.
    for file in std::fs::read_dir(folder.path())
        .unwrap()
        .map(Result::unwrap)
    {
        let path = file.path();
        if path.extension().is_some_and(|end| end == "sst") {
            let file = File::options().read(true).write(true).open(path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, 100).unwrap();
            file.write_all_at(&[byte[0] ^ 1], 100).unwrap();
        }
    }
    let cache = SectionCache::open(folder.path(), ROOM).unwrap();
    assert_eq!(cache.fill().0, 0);
    cache.put(&key(1), &section(1, 3_000)).unwrap();
    assert_eq!(cache.get::<Vec<Digest>>(&key(1)), Some(section(1, 3_000)));
}

#[test]
fn a_scan_deletes_at_its_end_what_it_found_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let place = key_bytes(&key(1));
    SectionCache::open(folder.path(), ROOM)
        .unwrap()
        .put(&key(1), &"one")
        .unwrap();
    let database = Database::open(folder.path(), &SCHEMA).unwrap();
    database.put(FAMILY, &place, b"short").unwrap();
    drop(database);
    let scan = SectionCache::open_shared(folder.path(), ROOM);
    assert_eq!(scan.get::<String>(&key(1)), None);
    assert_eq!(scan.figures().corrupt, 1);
    assert_eq!(scan.finish().unwrap(), 0);
    let database = Database::open(folder.path(), &SCHEMA).unwrap();
    assert_eq!(database.get(FAMILY, &place).unwrap(), None);
}

#[test]
fn a_scan_replaces_at_its_end_what_had_another_shape() {
    let folder = tempfile::tempdir().unwrap();
    let cache = SectionCache::open(folder.path(), ROOM).unwrap();
    cache.put(&key(1), &"text").unwrap();
    drop(cache);
    let scan = SectionCache::open_shared(folder.path(), ROOM);
    assert_eq!(scan.get::<Vec<u64>>(&key(1)), None);
    scan.put(&key(1), &vec![1_u64]).unwrap();
    assert_eq!(scan.finish().unwrap(), 1);
    let scan = SectionCache::open_shared(folder.path(), ROOM);
    assert_eq!(scan.get::<Vec<u64>>(&key(1)), Some(vec![1]));
}

/// What one scan of several does: finds a few sections or makes them, and writes at its end.
fn scan(dir: &Path, who: u32) {
    for round in 0..5 {
        let cache = SectionCache::open_shared(dir, ROOM);
        for number in [who, 100, 101 + round] {
            let wanted = section(number, 4096);
            match cache.get::<Vec<Digest>>(&key(number)) {
                Some(found) => assert_eq!(found, wanted),
                None => cache.put(&key(number), &wanted).unwrap(),
            }
        }
        cache.finish().unwrap();
        assert_eq!(cache.figures().corrupt, 0);
    }
}

/// Who did not get the lock in time has written nothing; what is there is right.
fn check_what_is_there(dir: &Path) {
    let cache = SectionCache::open(dir, ROOM).unwrap();
    let mut there = 0;
    for number in (0..8).chain(100..106) {
        if let Some(found) = cache.get::<Vec<Digest>>(&key(number)) {
            assert_eq!(found, section(number, 4096), "{number}");
            there += 1;
        }
    }
    assert!(there >= 3, "{there}");
}

#[test]
fn eight_scans_at_once_in_threads() {
    let folder = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        for who in 0..8 {
            let dir = folder.path();
            scope.spawn(move || scan(dir, who));
        }
    });
    check_what_is_there(folder.path());
}

#[test]
fn eight_scans_at_once_in_processes() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let start = |who: u32| {
        Command::new(&program)
            .args([
                "--exact",
                "sections::tests::one_scan_of_eight",
                "--ignored",
                "--nocapture",
            ])
            .env(SHARED_DIR, folder.path())
            .env("TIDEWAITER_CACHE_TEST_WHO", who.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..8).map(start).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    check_what_is_there(folder.path());
}

#[test]
#[ignore = "a process of `eight_scans_at_once_in_processes`"]
fn one_scan_of_eight() {
    let Some(dir) = chassis::config::env_var(SHARED_DIR) else {
        return;
    };
    let who = chassis::config::env_var("TIDEWAITER_CACHE_TEST_WHO").unwrap();
    scan(Path::new(&dir), who.parse().unwrap());
}

#[test]
fn scans_beside_a_server_that_writes_and_evicts_do_not_fail() {
    let folder = tempfile::tempdir().unwrap();
    let server = SectionCache::open(folder.path(), ROOM).unwrap();
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for number in 0..400 {
                server
                    .put(&key(number), &section(number, 40 * 1024))
                    .unwrap();
                if number % 20 == 0 {
                    let Mode::Owned { database, .. } = &server.mode else {
                        panic!("not owned")
                    };
                    database.flush().unwrap();
                }
            }
        });
        let mut number = 0;
        while !writing.is_finished() {
            let scan = SectionCache::open_shared(folder.path(), ROOM);
            for number in number..number + 20 {
                let found = scan.get::<Vec<Digest>>(&key(number));
                assert!(found.is_none_or(|found| found == section(number, 40 * 1024)));
            }
            assert_eq!(scan.figures().corrupt, 0);
            number = (number + 7) % 400;
        }
    });
    let Mode::Owned { database, .. } = &server.mode else {
        panic!("not owned")
    };
    let size = database.size_bytes().unwrap();
    assert!(size < 16 * ROOM, "{size} bytes on disk for {ROOM}");
}

#[test]
fn many_writers_at_once_evict_the_oldest_and_keep_the_books_right() {
    let folder = tempfile::tempdir().unwrap();
    let cache = SectionCache::open(folder.path(), ROOM).unwrap();
    thread::scope(|scope| {
        for who in 0..4_u32 {
            let cache = &cache;
            scope.spawn(move || {
                for number in (0..100).map(|n| who * 1000 + n) {
                    cache
                        .put(&key(number), &section(number, 16 * 1024))
                        .unwrap();
                    assert!(cache.fill().0 <= ROOM);
                    let found = cache.get::<Vec<Digest>>(&key(number));
                    assert!(found.is_none_or(|found| found == section(number, 16 * 1024)));
                }
            });
        }
    });
    cache.put(&key(9999), &section(9999, 16 * 1024)).unwrap();
    assert!(cache.get::<Vec<Digest>>(&key(9999)).is_some());
    let Mode::Owned { database, .. } = &cache.mode else {
        panic!("not owned")
    };
    let rows = database
        .scan_prefix(FAMILY, &[SECTION], None, 1000)
        .unwrap();
    let sum: usize = rows
        .iter()
        .map(|(key, row)| 2 * key.len() + row.len() + 16)
        .sum();
    assert_eq!(cache.fill(), (sum as u64, ROOM));
    let order = database
        .scan_prefix(FAMILY, &[ORDER], Some(&[ORDER, 0]), 1000)
        .unwrap();
    assert_eq!(order.len(), rows.len());
    assert!((50..=64).contains(&rows.len()), "{}", rows.len());
    // What is left is what came last.
    let places: Vec<_> = order.iter().map(|(place, _)| place.clone()).collect();
    let first = u64::from_be_bytes(places[0][1..].try_into().unwrap());
    let expected: Vec<_> = (first..=401)
        .map(|place| [&[ORDER][..], &place.to_be_bytes()].concat())
        .collect();
    assert_eq!(places, expected);
}

#[test]
fn a_cache_that_cannot_be_made_is_one_that_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let cache = SectionCache::open_or_without(&file.join("cache"), ROOM).unwrap();
    let put = cache.put(&key(1), &"one");
    assert!(matches!(put, Err(CacheError::Without(_))), "{put:?}");
    assert_eq!(cache.get::<String>(&key(1)), None);
    assert_eq!((cache.fill(), cache.figures().misses), ((0, 0), 1));
    // Two processes with one folder are a mistake and no full disk.
    let dir = folder.path().join("cache");
    let _held = SectionCache::open_or_without(&dir, ROOM).unwrap();
    let busy = SectionCache::open_or_without(&dir, ROOM);
    assert!(matches!(busy, Err(CacheError::Busy { .. })));
}

#[test]
fn on_a_full_disk_puts_fail_and_what_is_there_is_still_found() {
    let folder = tempfile::tempdir().unwrap();
    // No file may become larger than 512 KB: for RocksDB a disk that is full.
    let script = "ulimit -f 1024; trap '' XFSZ; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "sections::tests::a_full_disk", "--ignored"])
        .env(SHARED_DIR, folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "a process of `on_a_full_disk_puts_fail_and_what_is_there_is_still_found`"]
fn a_full_disk() {
    let Some(dir) = chassis::config::env_var(SHARED_DIR) else {
        return;
    };
    let cache = SectionCache::open(Path::new(&dir), 1 << 30).unwrap();
    cache.put(&key(0), &section(0, 1000)).unwrap();
    let failed = (1..400).find(|number| {
        cache
            .put(&key(*number), &section(*number, 16 * 1024))
            .is_err()
    });
    assert!(failed.is_some(), "the disk is full at some time");
    assert_eq!(cache.get::<Vec<Digest>>(&key(0)), Some(section(0, 1000)));
    for number in 1..400 {
        let found = cache.get::<Vec<Digest>>(&key(number));
        assert!(found.is_none_or(|found| found == section(number, 16 * 1024)));
        assert!(cache.fill().0 <= 1 << 30);
    }
}
