//! An owner of a partition, on a real nats-server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{Bus, Store};
use chassis::Cx;
use jiff::Timestamp;
use model::{
    Assessed, Digest, RecordKey, Scanned, Slug, SweptMark, What,
    event::{ADVISORIES, REPORT_OBJECTS},
};
use testkit::NatsServer;

use super::Partitions;
use crate::{
    Advisories, Config, FeedLimits, Import, Mode, handler::tests::list, head::Head, index::Index,
    leader, stage::tests::records, upload,
};

const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    cx: Cx,
    bus: Bus,
    store: Store,
    head: Head,
    key: RecordKey,
    _dir: tempfile::TempDir,
    _server: NatsServer,
}

impl World {
    async fn start() -> Option<Self> {
        let server = NatsServer::start()?;
        let (cx, dir) = (Cx::for_tests(), tempfile::tempdir().unwrap());
        let config = bus::Config {
            url: Some(server.url()),
            ..bus::Config::default()
        };
        let bus = Bus::connect(&cx, &config, "test").await.unwrap();
        bus.provision().await.unwrap();
        let advisories = Arc::new(Advisories::open(dir.path()).unwrap());
        let image = Digest::of(b"image");
        Some(Self {
            head: Head::new(bus.store(), advisories),
            store: bus.store(),
            key: RecordKey::new(&Slug::default_tenant(), image, What::Scanned),
            cx,
            bus,
            _dir: dir,
            _server: server,
        })
    }

    /// Puts a revision with one advisory into force.
    async fn advise(&self, id: &str, fixed: &str) {
        let import = Import {
            feed: "test".to_owned(),
            mode: Mode::Replace,
            fetched_at: Timestamp::UNIX_EPOCH,
            revision: None,
        };
        let zip = records(&[(id, "PyPI", "x", fixed)]);
        upload::hand_in(&self.store, &import, zip).await.unwrap();
        let limits = FeedLimits::default();
        leader::take_all(&self.cx, &self.store, &self.head, (&limits, &[]))
            .await
            .unwrap();
    }

    async fn scan(&self) {
        let packages = list(self.key.image, &[("x", "1.0")]);
        let object = self.store.put_object(REPORT_OBJECTS, &packages).await;
        let scanned = Scanned {
            analyzers: Vec::new(),
            packages: object.unwrap(),
            findings: Digest::of(b"findings"),
            package_count: 1,
            gap_count: 0,
            scanned_at: Timestamp::UNIX_EPOCH,
            duration_ms: 0,
            layers_read: 0,
            unfinished: false,
            cause: String::new(),
            contents: model::ScannedContents::default(),
            files: Vec::new(),
            config: model::ScannedConfig::default(),
        };
        self.store.put_record(&self.key, &scanned, 0).await.unwrap();
    }

    async fn assessed(&self) -> Option<bus::Stored<Assessed>> {
        let key = self.key.sibling(What::Assessed);
        self.store.record::<Assessed>(&key).await.unwrap()
    }

    async fn mark(&self) -> u64 {
        let key = format!("swept.{}", self.key.image.partition());
        let mark = self.store.get::<SweptMark>(ADVISORIES, &key).await.unwrap();
        mark.map_or(0, |mark| mark.body.revision)
    }
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "not {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_late_owner_writes_from_old_advisories_is_assessed_again() {
    let Some(world) = World::start().await else {
        return;
    };
    world.advise("CVE-2024-1", "0.5").await;
    let partitions = Partitions::new(world.bus.clone(), world.head.clone(), &Config::default());
    let (partition, owner) = (world.key.image.partition(), world.cx.child());
    partitions.serve(partition, &owner).await;
    world.scan().await;
    until("assessed", async || world.assessed().await.is_some()).await;
    world.advise("CVE-2024-2", "2.0").await;
    until("swept", async || world.mark().await == 2).await;
    let at_two = world.assessed().await.unwrap();
    assert_eq!((at_two.body.advisory, at_two.body.counts.total()), (2, 1));
    // Who owned the partition before wakes up and writes what it found at revision 1.
    let key = world.key.sibling(What::Assessed);
    let stale = Assessed {
        advisory: 1,
        counts: model::Counts::default(),
        assessment: at_two.body.previous.unwrap(),
        previous: None,
        ..at_two.body
    };
    let revision = at_two.revision;
    let written = world.store.put_record(&key, &stale, revision).await;
    written.unwrap();
    until("assessed again", async || {
        let now = world.assessed().await.unwrap().body;
        (now.advisory, now.counts.total()) == (2, 1)
    })
    .await;
    // A new owner believes the mark, and finds nothing to do.
    owner.stop();
    assert!(owner.finish(PATIENCE).await);
    let owner = world.cx.child();
    partitions.serve(partition, &owner).await;
    world.advise("CVE-2024-3", "2.0").await;
    until("swept", async || world.mark().await == 3).await;
    assert_eq!(world.assessed().await.unwrap().body.advisory, 3);
    world.cx.stop();
    assert!(world.cx.finish(PATIENCE).await);
}

#[test]
fn the_index_of_a_bucket_that_was_made_anew_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let advisories = Advisories::open(dir.path()).unwrap();
    let index = Index::new(advisories.database().unwrap());
    let image = RecordKey::new(&Slug::default_tenant(), Digest::of(b"image"), What::Scanned);
    let partition = image.image.partition();
    let begin = |last, made| index.begin(partition, last, made).unwrap();
    assert_eq!(begin(0, "monday"), 0);
    let fill = || {
        let list = Digest::of(b"packages");
        index.put_scan(&image, 4, list, Default::default).unwrap();
        index.set_cursor(partition, 5).unwrap();
    };
    fill();
    assert_eq!(begin(7, "monday"), 5);
    assert!(index.get(&image).unwrap().is_some());
    // It has more changes than were seen here, and is another bucket all the same.
    assert_eq!((begin(7, "tuesday"), begin(7, "tuesday")), (0, 0));
    assert_eq!(index.get(&image).unwrap(), None);
    fill();
    assert_eq!(begin(4, "tuesday"), 0);
    assert_eq!(index.get(&image).unwrap(), None);
}
