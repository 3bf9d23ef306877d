//! A partition that moves to another process and comes back, over a real broker.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bus::Bus;
use chassis::Cx;
use jiff::Timestamp;
use model::{
    Assessed, Assessment, Digest, RecordKey, Scanned, ScannedPackages, Slug, SweptMark, What,
    event::{ADVISORIES, REPORT_OBJECTS},
};
use testkit::{NatsServer, TempDir};

use super::{Partitions, mark_key};
use crate::{
    Advisories, Config, FeedLimits, Import, Mode, handler::tests::package, head::Head, leader,
    stage::tests::records, upload,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A matcher with an index and advisories of its own. It does not follow `head` by itself, so that
/// a test decides when it is behind.
struct Process {
    cx: Cx,
    bus: Bus,
    head: Head,
    partitions: Arc<Partitions>,
}

impl Process {
    async fn start(nats: &NatsServer, dir: &TempDir, name: &str) -> Self {
        let cx = Cx::for_tests();
        let config = bus::Config {
            url: Some(nats.url()),
            ..bus::Config::default()
        };
        let bus = Bus::connect(&cx, &config, name).await.unwrap();
        bus.provision().await.unwrap();
        let advisories = Advisories::open(&dir.path().join(name)).unwrap();
        let head = Head::new(bus.store(), Arc::new(advisories));
        let partitions = Partitions::new(bus.clone(), head.clone(), &Config::default());
        Self {
            cx,
            bus,
            head,
            partitions: Arc::new(partitions),
        }
    }

    /// Serves the partition of a test until the context is stopped.
    fn own(&self) -> Cx {
        let (child, partitions) = (self.cx.child(), Arc::clone(&self.partitions));
        let (serving, partition) = (child.clone(), image().partition());
        child.spawn("partition", async move {
            partitions.serve(partition, &serving).await;
        });
        child
    }

    /// Makes a revision of these rows: id, ecosystem, package, fixed version.
    async fn advise(&self, rows: &[(&str, &str, &str, &str)]) {
        let import = Import {
            feed: "test".to_owned(),
            mode: Mode::Replace,
            fetched_at: self.cx.now(),
        };
        let store = self.bus.store();
        upload::hand_in(&store, &import, records(rows))
            .await
            .unwrap();
        leader::take_all(&self.cx, &store, &self.head, &FeedLimits::default())
            .await
            .unwrap();
    }

    /// Writes a scan of a tenant's image with these Python packages.
    async fn scan(&self, tenant: &str, packages: &[(&str, &str)]) {
        let (store, key) = (self.bus.store(), key(tenant));
        let packages = ScannedPackages {
            image: key.image,
            os: None,
            packages: packages
                .iter()
                .map(|(name, version)| package(name, version))
                .collect(),
            gaps: Vec::new(),
        };
        let scanned = Scanned {
            analyzers: Vec::new(),
            packages: store.put_object(REPORT_OBJECTS, &packages).await.unwrap(),
            findings: Digest::of(b"findings"),
            package_count: 0,
            gap_count: 0,
            scanned_at: Timestamp::UNIX_EPOCH,
            duration_ms: 0,
            layers_read: 0,
            cause: String::new(),
        };
        let present = store.record::<Scanned>(&key).await.unwrap();
        let expected = present.map_or(0, |stored| stored.revision);
        store.put_record(&key, &scanned, expected).await.unwrap();
    }

    /// Waits until a tenant's image is assessed like this: revision, then `id fixed` of each
    /// vulnerability.
    async fn assessed(&self, tenant: &str, revision: u64, expected: &[&str]) {
        let key = key(tenant).sibling(What::Assessed);
        let ask = async || -> Option<(u64, Vec<String>)> {
            let store = self.bus.store();
            let assessed = store.record::<Assessed>(&key).await.ok()??.body;
            let assessment: Assessment = store
                .object(REPORT_OBJECTS, &assessed.assessment)
                .await
                .ok()??;
            let found = assessment.vulnerabilities.iter();
            let line = found.map(|one| format!("{} {}", one.id, one.fixed_versions.join(",")));
            Some((assessed.advisory, line.collect()))
        };
        let expected = (revision, expected.iter().map(ToString::to_string).collect());
        until(&format!("{tenant} assessed as {expected:?}"), async || {
            ask().await.as_ref() == Some(&expected)
        })
        .await;
    }

    async fn swept(&self, revision: u64) {
        let key = mark_key(image().partition());
        until(&format!("mark at {revision}"), async || {
            let mark = self.bus.store().get::<SweptMark>(ADVISORIES, &key).await;
            mark.is_ok_and(|mark| mark.is_some_and(|mark| mark.body.revision == revision))
        })
        .await;
    }
}

fn image() -> Digest {
    Digest::of(b"image")
}

/// The same image of several tenants lies in one partition.
fn key(tenant: &str) -> RecordKey {
    let tenant: Slug = tenant.parse().unwrap();
    RecordKey::new(&tenant, image(), What::Scanned)
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn give_up(owned: Cx) {
    owned.stop();
    assert!(owned.finish(Duration::from_secs(15)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_comes_back_is_caught_up_with_before_it_is_swept() {
    let Some(nats) = NatsServer::start() else {
        return;
    };
    let dir = testkit::temp_dir();
    let one = Process::start(&nats, &dir, "one").await;
    let two = Process::start(&nats, &dir, "two").await;
    one.advise(&[("CVE-1", "PyPI", "x", "2.0")]).await;
    let owned = one.own();
    one.scan("early", &[("x", "1.0")]).await;
    one.assessed("early", 1, &["CVE-1 2.0"]).await;
    one.swept(1).await;
    give_up(owned).await;

    // Elsewhere an image is scanned again, another one comes, and the advisories move on.
    let owned = two.own();
    one.scan("early", &[("x", "1.0"), ("z", "1.0")]).await;
    one.scan("meanwhile", &[("y", "1.0")]).await;
    two.assessed("early", 1, &["CVE-1 2.0"]).await;
    two.assessed("meanwhile", 1, &[]).await;
    let second = [("CVE-1", "PyPI", "x", "2.0"), ("CVE-2", "PyPI", "y", "2.0")];
    two.advise(&second).await;
    two.assessed("meanwhile", 2, &["CVE-2 2.0"]).await;
    two.swept(2).await;
    give_up(owned).await;

    // Back again. The mark promises revision 2, so nothing may be assessed with what was left here.
    assert_eq!(one.head.advisories().manifest().revision, 1);
    let owned = one.own();
    one.scan("late", &[("y", "1.0")]).await;
    one.assessed("late", 2, &["CVE-2 2.0"]).await;
    // What changed meanwhile is in the index.
    one.advise(&[
        ("CVE-1", "PyPI", "x", "2.0"),
        ("CVE-2", "PyPI", "y", "3.0"),
        ("CVE-3", "PyPI", "z", "2.0"),
    ])
    .await;
    one.assessed("meanwhile", 3, &["CVE-2 3.0"]).await;
    one.assessed("late", 3, &["CVE-2 3.0"]).await;
    one.assessed("early", 3, &["CVE-1 2.0", "CVE-3 2.0"]).await;
    one.swept(3).await;
    give_up(owned).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_was_cut_off_cannot_move_the_mark() {
    let Some(nats) = NatsServer::start() else {
        return;
    };
    let dir = testkit::temp_dir();
    let (one, two) = (
        Process::start(&nats, &dir, "one").await,
        Process::start(&nats, &dir, "two").await,
    );
    let cut_off = one.own();
    one.advise(&[("CVE-1", "PyPI", "x", "2.0")]).await;
    one.swept(1).await;
    let key = mark_key(image().partition());
    let stored = one.bus.store().get::<SweptMark>(ADVISORIES, &key).await;
    let known = stored.unwrap().unwrap();
    let owned = two.own();
    until("the mark is the new owner's", async || {
        let stored = two.bus.store().get::<SweptMark>(ADVISORIES, &key).await;
        stored.is_ok_and(|stored| stored.is_some_and(|now| now.revision > known.revision))
    })
    .await;
    // The revision that the old owner knows is not the one that it must replace.
    let late = SweptMark {
        revision: 7,
        data_at: None,
    };
    let store = one.bus.store();
    let put = store.put(ADVISORIES, &key, &late, Some(known.revision));
    assert!(put.await.is_err());
    two.swept(1).await;
    give_up(cut_off).await;
    give_up(owned).await;
}
