use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use chassis::Cx;
use futures::StreamExt as _;
use jiff::Timestamp;
use model::{
    Slug,
    event::{EVENTS, ImagePushed},
};
use serde_json::Value;
use tempfile::TempDir;

use super::{Spool, SpoolError};
use crate::{
    Bus, Outbox,
    testing::{Disk, Server, eventually},
};

const MIB: u64 = 1024 * 1024;
/// Where the child process of a test works.
const CHILD_DIR: &str = "TIDEWAITER_TEST_SPOOL";

fn item(n: u64) -> Bytes {
    Bytes::from(format!(
        "item {n} {}",
        "x".repeat(usize::try_from(n % 100).unwrap())
    ))
}

/// Everything that is there, from the first item that is not delivered.
fn read_all(spool: &Spool) -> Vec<(u64, Bytes)> {
    let items = spool.reader().read(1_000_000, usize::MAX).unwrap();
    items
        .into_iter()
        .map(|item| (item.sequence, item.body))
        .collect()
}

fn files(dir: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|known| known == extension))
        .collect();
    found.sort();
    found
}

async fn reopen(dir: &Path) -> Spool {
    // The thread of the spool before may still be closing its files.
    eventually("it opens", async || match Spool::open(dir, MIB) {
        Ok(_) => true,
        Err(error) => {
            assert!(matches!(error, SpoolError::Io(_)), "{error}");
            false
        }
    })
    .await;
    loop {
        match Spool::open(dir, MIB) {
            Ok(spool) => return spool,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn filled(dir: &Path, count: u64) -> Spool {
    let spool = Spool::open(dir, MIB).unwrap();
    for n in 1..=count {
        assert_eq!(spool.append(item(n)).await.unwrap(), n);
    }
    spool
}

#[tokio::test]
async fn items_survive_a_restart_in_order() {
    let dir = TempDir::new().unwrap();
    drop(filled(dir.path(), 100).await);
    let spool = reopen(dir.path()).await;
    spool.commit(40).await;
    assert_eq!(spool.append(item(101)).await.unwrap(), 101);
    drop(spool);
    let spool = reopen(dir.path()).await;
    let expected: Vec<_> = (41..=101).map(|n| (n, item(n))).collect();
    assert_eq!(read_all(&spool), expected);
    assert_eq!(spool.pending(), 61);
}

#[tokio::test]
async fn a_torn_end_is_cut_off_and_the_sequence_goes_on() {
    let dir = TempDir::new().unwrap();
    drop(filled(dir.path(), 10).await);
    let file = files(dir.path(), "seg").pop().unwrap();
    let length = fs::metadata(&file).unwrap().len();
    OpenOptions::new()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(length - 3)
        .unwrap();
    let spool = reopen(dir.path()).await;
    assert_eq!(spool.append(item(10)).await.unwrap(), 10);
    let expected: Vec<_> = (1..=10).map(|n| (n, item(n))).collect();
    assert_eq!(read_all(&spool), expected);
    assert!(files(dir.path(), "corrupt").is_empty());
}

fn damage(file: &Path, at: u64) {
    let mut file = OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(b"garbage").unwrap();
}

#[tokio::test]
async fn damage_in_the_middle_of_the_last_file_is_set_aside() {
    let dir = TempDir::new().unwrap();
    drop(filled(dir.path(), 10).await);
    damage(&files(dir.path(), "seg").pop().unwrap(), 60);
    let spool = reopen(dir.path()).await;
    let left = read_all(&spool);
    assert!(!left.is_empty() && left.len() < 10, "{left:?}");
    assert_eq!(files(dir.path(), "corrupt").len(), 1);
    // Sequences that may have been used are not used again.
    assert!(spool.append(item(11)).await.unwrap() > 10);
    assert_eq!(read_all(&spool).len(), left.len() + 1);
}

#[tokio::test]
async fn damage_in_an_older_file_costs_the_rest_of_that_file_only() {
    let dir = TempDir::new().unwrap();
    let spool = Spool::open(dir.path(), MIB).unwrap();
    let large = Bytes::from(vec![7; 60_000]);
    for _ in 0..12 {
        spool.append(large.clone()).await.unwrap();
    }
    let segments = files(dir.path(), "seg");
    assert!(segments.len() >= 3, "{segments:?}");
    damage(&segments[0], 60_100);
    let left: Vec<u64> = read_all(&spool)
        .into_iter()
        .map(|(sequence, _)| sequence)
        .collect();
    assert_eq!(left, [1, 5, 6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(files(dir.path(), "corrupt").len(), 1);
}

#[tokio::test]
async fn a_full_spool_refuses_and_a_drained_one_gives_the_space_back() {
    let dir = TempDir::new().unwrap();
    let spool = Spool::open(dir.path(), MIB).unwrap();
    let large = Bytes::from(vec![7; 60_000]);
    let mut accepted = 0;
    let refused = loop {
        match spool.append(large.clone()).await {
            Ok(sequence) => accepted = sequence,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused, SpoolError::Full { max: MIB, .. }),
        "{refused}"
    );
    assert_eq!(accepted, 17);
    let on_disk: u64 = files(dir.path(), "seg")
        .iter()
        .map(|f| fs::metadata(f).unwrap().len())
        .sum();
    assert!(
        on_disk <= MIB && on_disk == spool.bytes(),
        "{on_disk} {}",
        spool.bytes()
    );
    spool.commit(accepted).await;
    eventually("it is empty", async || spool.bytes() == 0).await;
    let segments = files(dir.path(), "seg");
    assert!(
        segments
            .iter()
            .all(|file| fs::metadata(file).unwrap().len() == 0),
        "{segments:?}"
    );
    spool.append(large).await.unwrap();
}

#[tokio::test]
async fn only_one_process_has_it_open() {
    let dir = TempDir::new().unwrap();
    let _open = Spool::open(dir.path(), MIB).unwrap();
    assert!(matches!(
        Spool::open(dir.path(), MIB),
        Err(SpoolError::Io(_))
    ));
}

/// Not a test of its own: the process that the test below kills.
#[tokio::test(flavor = "multi_thread")]
async fn child_process() {
    let Some(dir) = chassis::config::env_var(CHILD_DIR) else {
        return;
    };
    let spool = Arc::new(Spool::open(Path::new(&dir), 64 * MIB).unwrap());
    let appends = futures::stream::iter(1..).map(|n| {
        let spool = Arc::clone(&spool);
        async move { spool.append(item(n)).await.unwrap() }
    });
    let mut acknowledged = appends.buffered(16);
    while let Some(sequence) = acknowledged.next().await {
        println!("ack {sequence}");
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    let dir = TempDir::new().unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "spool::tests::child_process", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acks = lines.filter_map(|line| line.ok()?.split("ack ").nth(1)?.parse().ok());
        for _ in 0..500 {
            last = acks.next().unwrap();
        }
        child.kill().unwrap();
        last = acks.fold(last, u64::max);
        child.wait().unwrap();
    }
    let spool = Spool::open(dir.path(), 64 * MIB).unwrap();
    let sequences: Vec<u64> = read_all(&spool)
        .into_iter()
        .map(|(sequence, _)| sequence)
        .collect();
    assert!(
        sequences.len() as u64 >= last,
        "{} of {last}",
        sequences.len()
    );
    let expected: Vec<u64> = (1..=sequences.len() as u64).collect();
    assert_eq!(sequences, expected);
    assert!(files(dir.path(), "corrupt").is_empty());
}

fn pushed(n: usize) -> ImagePushed {
    ImagePushed {
        source: "main".parse().unwrap(),
        repository: format!("app-{n}"),
        tag: None,
        digest: None,
        sender_id: None,
        occurred_at: Timestamp::UNIX_EPOCH,
        priority: model::event::Priority::Norm,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_accepts_without_a_server_and_drains_in_order() {
    let Some(mut server) = Server::start().await else {
        return;
    };
    let cx = Cx::for_tests();
    let bus = Bus::connect(&cx, &server.config(), "gateway")
        .await
        .unwrap();
    bus.provision().await.unwrap();
    server.down();
    let dir = TempDir::new().unwrap();
    let later = Bus::connect_later(&cx, &server.config(), "gateway")
        .await
        .unwrap();
    assert!(!later.is_connected());
    let outbox = Outbox::open(&cx, &later, dir.path(), MIB).unwrap();
    for n in 0..200 {
        outbox
            .enqueue(&Slug::default_tenant(), &pushed(n))
            .await
            .unwrap();
    }
    assert_eq!(outbox.pending(), 200);
    server.up().await;
    for n in 200..300 {
        outbox
            .enqueue(&Slug::default_tenant(), &pushed(n))
            .await
            .unwrap();
    }
    eventually("all is published", async || outbox.pending() == 0).await;
    let wire = &bus.0.wire;
    let info = wire
        .api(&format!("STREAM.INFO.{EVENTS}"), &Value::Null)
        .await
        .unwrap();
    assert_eq!(
        info.pointer("/state/messages").and_then(Value::as_u64),
        Some(300)
    );
    for (sequence, n) in [(1, 0), (150, 149), (300, 299)] {
        let body = Bytes::from(format!("{{\"seq\": {sequence}}}"));
        let read = wire
            .call(format!("$JS.API.DIRECT.GET.{EVENTS}"), None, body)
            .await
            .unwrap();
        assert_eq!(
            crate::decode::<ImagePushed>(&read.payload).unwrap(),
            pushed(n)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_loses_nothing_and_one_with_room_goes_on() {
    let Some(disk) = Disk::mount(512) else {
        return;
    };
    let dir = disk.path().join("spool");
    let spool = Spool::open(&dir, 100 * MIB).unwrap();
    let item = |n: u64| Bytes::from(vec![u8::try_from(n).unwrap(); 20_000]);
    let mut accepted = 0;
    let refused = loop {
        match spool.append(item(accepted + 1)).await {
            Ok(sequence) => accepted = sequence,
            Err(refused) => break refused,
        }
    };
    assert!(accepted > 10, "{accepted}");
    let SpoolError::Io(error) = &refused else {
        panic!("{refused}");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    let expected = |to: u64| (1..=to).map(|n| (n, item(n))).collect::<Vec<_>>();
    assert!(read_all(&spool) == expected(accepted));
    // What is delivered gives its space back, on a disk that has none left.
    spool.commit(accepted).await;
    eventually("the space is given back", async || spool.bytes() == 0).await;
    let sequence = spool.append(item(accepted + 1)).await.unwrap();
    assert_eq!(sequence, accepted + 1);
    drop(spool);
    let spool = reopen(&dir).await;
    assert!(read_all(&spool) == [(sequence, item(sequence))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_on_a_full_disk_says_so_until_there_is_room() {
    let (Some(disk), Some(server)) = (Disk::mount(512), Server::start().await) else {
        return;
    };
    let cx = Cx::for_tests();
    let bus = Bus::connect(&cx, &server.config(), "gateway")
        .await
        .unwrap();
    bus.provision().await.unwrap();
    let outbox = Outbox::open(&cx, &bus, &disk.path().join("spool"), MIB).unwrap();
    let tenant = Slug::default_tenant();
    outbox.enqueue(&tenant, &pushed(1)).await.unwrap();
    eventually("it is published", async || outbox.pending() == 0).await;
    let filler = disk.fill();
    let mut n = 2;
    // The rest of a block may take one more.
    while outbox.enqueue(&tenant, &pushed(n)).await.is_ok() {
        n += 1;
    }
    let notes = cx.notes().all();
    assert!(
        notes["spool"].contains("senders are told to come again: spool: No space left"),
        "{notes:?}"
    );
    fs::remove_file(filler).unwrap();
    outbox.enqueue(&tenant, &pushed(n)).await.unwrap();
    assert!(!cx.notes().all().contains_key("spool"));
    eventually("all is published", async || outbox.pending() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_disk_is_full_loses_nothing_that_was_accepted() {
    let Some(disk) = Disk::mount(64 * 1024) else {
        return;
    };
    let store = TempDir::new_in(disk.path()).unwrap();
    let Some(mut server) = Server::start_in(store).await else {
        return;
    };
    let cx = Cx::for_tests();
    let bus = Bus::connect(&cx, &server.config(), "gateway")
        .await
        .unwrap();
    if let Err(error) = bus.provision().await {
        panic!("{error}");
    }
    let dir = TempDir::new().unwrap();
    let outbox = Outbox::open(&cx, &bus, dir.path(), 64 * MIB).unwrap();
    let tenant = Slug::default_tenant();
    let large = |n: usize| ImagePushed {
        repository: format!("{n}-{}", "x".repeat(100_000)),
        ..pushed(n)
    };
    let filler = disk.fill();
    for n in 0..20 {
        outbox.enqueue(&tenant, &large(n)).await.unwrap();
    }
    eventually("it is seen", async || {
        cx.notes().all().contains_key("events in the spool")
    })
    .await;
    assert!(outbox.pending() > 0 && files(dir.path(), "refused").is_empty());
    fs::remove_file(filler).unwrap();
    // A server whose disk was full goes on after a restart.
    server.down();
    server.up().await;
    eventually("all is published", async || outbox.pending() == 0).await;
    assert!(!cx.notes().all().contains_key("events in the spool"));
    assert!(files(dir.path(), "refused").is_empty());
    let mut tail = bus
        .tail(&cx, EVENTS, crate::Start::Sequence(1), "")
        .await
        .unwrap();
    let mut found = std::collections::BTreeSet::new();
    while found.len() < 20 {
        let heard = crate::testing::soon(tail.next()).await.unwrap();
        let crate::Heard::Message(read) = heard else {
            continue;
        };
        let event: ImagePushed = crate::decode(&read.body.unwrap()).unwrap();
        found.insert(event.repository);
    }
    drop(server);
}
