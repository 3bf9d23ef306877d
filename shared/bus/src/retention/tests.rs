use std::collections::BTreeMap;

use jiff::SignedDuration;
use model::{
    Assessed, AssessedContents, CheckRecord, Counts, RefKind,
    runtime::{HostFacts, ImageAtRest, NodeReported, SensorMatrix},
};

use super::*;
use crate::testing::{World, eventually};

/// A moment is a retention here, for the servers say when something was stored.
const MOMENT: Duration = Duration::from_millis(1);

fn digest(number: u64) -> Digest {
    Digest::of(&number.to_be_bytes())
}

fn name(gone_at: Option<Timestamp>) -> SeenReference {
    SeenReference {
        source: "main".parse().unwrap(),
        registry: "registry.test".to_owned(),
        repository: "shop/api".to_owned(),
        tag: Some("1".to_owned()),
        since: Timestamp::UNIX_EPOCH,
        gone_at,
    }
}

fn known(number: u64, references: Vec<SeenReference>) -> Known {
    Known {
        references,
        indexes: vec![digest(number + 1000)],
        config: Some(digest(number + 2000)),
        ..Known::default()
    }
}

fn assessed() -> Assessed {
    Assessed {
        scan: 1,
        advisory: 1,
        assessment: digest(1),
        findings: digest(2),
        previous: None,
        counts: Counts::default(),
        assessed_at: Timestamp::UNIX_EPOCH,
        contents: AssessedContents::default(),
    }
}

fn node(images: Vec<ImageAtRest>, received_at: Timestamp) -> NodeRecord {
    NodeRecord {
        report: NodeReported {
            node: "node-1".parse().unwrap(),
            boot: "1".to_owned(),
            sequence: 1,
            at: received_at,
            agent: "1".to_owned(),
            host: HostFacts::default(),
            sensors: SensorMatrix::default(),
            containers: Vec::new(),
            images,
            left_out: 0,
        },
        received_at,
    }
}

fn at_rest(id: Digest) -> ImageAtRest {
    ImageAtRest {
        runtime: "podman".to_owned(),
        id,
        names: Vec::new(),
        repo_digests: Vec::new(),
        bytes: 1,
        created_at: None,
    }
}

struct Fleet {
    world: World,
    tenant: Slug,
}

impl Fleet {
    async fn start() -> Option<Self> {
        Some(Self {
            world: World::start().await?,
            tenant: Slug::default_tenant(),
        })
    }

    fn store(&self) -> Store {
        self.world.bus.store()
    }

    fn key(&self, number: u64, what: What) -> RecordKey {
        RecordKey::new(&self.tenant, digest(number), what)
    }

    /// An image with its records and what leads to it.
    async fn image(&self, number: u64, gone_at: Option<Timestamp>) {
        let known = known(number, vec![name(gone_at)]);
        let store = self.store();
        let key = self.key(number, What::Known);
        store.put_record(&key, &known, 0).await.unwrap();
        let key = key.sibling(What::Assessed);
        store.put_record(&key, &assessed(), 0).await.unwrap();
        for (leading, kind) in [(1000, RefKind::Index), (2000, RefKind::Config)] {
            let record = RefRecord {
                kind,
                images: vec![digest(number)],
            };
            let key = RefRecord::key(&self.tenant, digest(number + leading));
            store.put(REFS, &key, &record, Some(0)).await.unwrap();
        }
    }

    /// Which of an image's keys there are.
    async fn left(&self, number: u64) -> (bool, bool, bool) {
        let bucket = images_bucket(digest(number).partition());
        let is_there = async |what| {
            let key = self.key(number, what).to_string();
            self.store().exists(&bucket, &key).await.unwrap()
        };
        let index = RefRecord::key(&self.tenant, digest(number + 1000));
        (
            is_there(What::Known).await,
            is_there(What::Assessed).await,
            self.store().exists(REFS, &index).await.unwrap(),
        )
    }

    /// What all roles do, the records' moment being the same.
    async fn forget(&self, retention: Duration) -> u64 {
        self.forget_where(retention, &["main"]).await
    }

    /// The same, where other sources are configured.
    async fn forget_where(&self, retention: Duration, sources: &[&str]) -> u64 {
        let bus = &self.world.bus;
        let sources = sources.iter().map(|source| source.parse().unwrap());
        let sources = sources
            .map(|source| (self.tenant.clone(), source))
            .collect();
        let gone = bus.forget_after(retention, &sources).await.unwrap();
        for kind in [
            RecordKind::Scanned,
            RecordKind::Assessed,
            RecordKind::Judged,
        ] {
            bus.forget_orphans(kind, MOMENT).await.unwrap();
        }
        gone
    }

    fn now(&self) -> Timestamp {
        self.store().stored_before(Duration::ZERO).unwrap()
    }

    async fn known(&self, number: u64) -> Known {
        let key = self.key(number, What::Known);
        let stored = self.store().record::<Known>(&key).await.unwrap();
        stored.unwrap().body
    }

    async fn is_gone(&self, number: u64) -> bool {
        self.known(number).await.names().next().is_none()
    }
}

const ALL: (bool, bool, bool) = (true, true, true);
const NOTHING: (bool, bool, bool) = (false, false, false);

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_nobody_has_any_more_is_forgotten_and_every_other_stays() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let gone = Some(fleet.now() - SignedDuration::from_hours(1));
    fleet.image(1, gone).await;
    fleet.image(2, None).await;
    fleet.image(3, gone).await;
    // A runtime knows it by its config; and another by its index.
    let mut images = vec![at_rest(digest(2003))];
    fleet.image(4, gone).await;
    images.push(ImageAtRest {
        repo_digests: vec![format!("registry.test/shop/api@{}", digest(1004))],
        ..at_rest(digest(9))
    });
    let record = node(images, fleet.now() + SignedDuration::from_hours(1));
    let key = "default.node-1.reported";
    fleet.store().put(NODES, key, &record, None).await.unwrap();

    let hour = Duration::from_hours(2);
    assert_eq!(fleet.forget(hour).await, 0);
    eventually("the image is forgotten", async || {
        fleet.forget(MOMENT).await;
        fleet.left(1).await == NOTHING
    })
    .await;
    for number in [2, 3, 4] {
        assert_eq!(fleet.left(number).await, ALL, "{number}");
    }
    // A node that is not heard of any more has nothing.
    let record = node(vec![at_rest(digest(2003))], Timestamp::UNIX_EPOCH);
    fleet.store().put(NODES, key, &record, None).await.unwrap();
    eventually("both are forgotten", async || {
        fleet.forget(MOMENT).await;
        (fleet.left(3).await, fleet.left(4).await) == (NOTHING, NOTHING)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_gone_for_a_shorter_time_keeps_the_image() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let now = fleet.now();
    fleet
        .image(1, Some(now - SignedDuration::from_hours(3)))
        .await;
    let later = known(
        1,
        vec![
            name(Some(now - SignedDuration::from_hours(3))),
            name(Some(now + SignedDuration::from_hours(1))),
        ],
    );
    let key = fleet.key(1, What::Known);
    let store = fleet.store();
    let stored = store.record::<Known>(&key).await.unwrap().unwrap();
    let put = store.put_record(&key, &later, stored.revision);
    put.await.unwrap();
    // The record is older than the retention, the name is not.
    eventually("a moment has passed", async || {
        fleet.forget(MOMENT).await;
        fleet.now() > now + SignedDuration::from_millis(50)
    })
    .await;
    assert_eq!(fleet.left(1).await, ALL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_deletes_only_its_own_records_and_no_fresh_ones() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    fleet.image(1, None).await;
    let key = fleet.key(1, What::Known).to_string();
    let bucket = images_bucket(digest(1).partition());
    fleet.store().delete(&bucket, &key).await.unwrap();
    let bus = &fleet.world.bus;
    let forget = async |kind, age| bus.forget_orphans(kind, age).await.unwrap();
    assert_eq!(forget(RecordKind::Assessed, ORPHANS_FOR).await, 0);
    eventually("a moment has passed", async || {
        assert_eq!(forget(RecordKind::Scanned, MOMENT).await, 0);
        assert_eq!(forget(RecordKind::Judged, MOMENT).await, 0);
        forget(RecordKind::Assessed, MOMENT).await == 1
    })
    .await;
    assert!(!fleet.left(1).await.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn markers_are_swept_away_and_what_was_written_over_them_stays() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let gone = Some(fleet.now() - SignedDuration::from_hours(1));
    fleet.image(1, gone).await;
    let messages = async || {
        let wire = fleet.world.bus.0.following().await.unwrap();
        let bucket = images_bucket(digest(1).partition());
        let stream = topology::bucket_stream(&bucket);
        state(&wire, &stream).await.unwrap().messages
    };
    assert_eq!(messages().await, 2);
    eventually("the image is forgotten", async || {
        fleet.forget(MOMENT).await;
        fleet.left(1).await == NOTHING
    })
    .await;
    assert_eq!(messages().await, 2, "followers still learn of it");
    // It comes back: no marker any more.
    let key = fleet.key(1, What::Known);
    let again = known(1, vec![name(None)]);
    fleet.store().put_record(&key, &again, 0).await.unwrap();
    eventually("the marker of its assessment is gone", async || {
        fleet.world.bus.sweep_markers_after(MOMENT).await.unwrap();
        messages().await == 1
    })
    .await;
    assert_eq!(fleet.left(1).await, (true, false, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_tags_and_answered_requests_are_kept_for_as_long() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let store = fleet.store();
    let tag = |digest| TagRecord {
        source: "main".parse().unwrap(),
        reference: "registry.test/shop/api:1".to_owned(),
        digest,
        images: Vec::new(),
        since: Timestamp::UNIX_EPOCH,
    };
    let key = |tag: &str| TagRecord::key(&fleet.tenant, "registry.test", "shop/api", tag);
    let request = ScanRequestRecord {
        reference: "registry.test/shop/api:1".to_owned(),
        images: Vec::new(),
        index: None,
        error: None,
        resolved_at: Timestamp::UNIX_EPOCH,
        waits_for: BTreeMap::new(),
        content: None,
    };
    let asked = ScanRequestRecord::key(&fleet.tenant, "1");
    store
        .put(REFS, &key("gone"), &tag(None), None)
        .await
        .unwrap();
    let here = tag(Some(digest(1)));
    store.put(REFS, &key("here"), &here, None).await.unwrap();
    store.put(REFS, &asked, &request, None).await.unwrap();
    let hour = Duration::from_hours(1);
    assert_eq!(fleet.forget(hour).await, 0);
    eventually("both are gone", async || {
        fleet.forget(MOMENT).await;
        let tag = store.exists(REFS, &key("gone")).await.unwrap();
        !tag && !store.exists(REFS, &asked).await.unwrap()
    })
    .await;
    assert!(store.exists(REFS, &key("here")).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_source_that_is_not_configured_any_more_are_gone_and_come_back_with_it() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let (store, hour) = (fleet.store(), Duration::from_hours(1));
    fleet.image(1, None).await;
    let tag = TagRecord {
        source: "main".parse().unwrap(),
        reference: "registry.test/shop/api:1".to_owned(),
        digest: Some(digest(1)),
        images: vec![digest(1)],
        since: Timestamp::UNIX_EPOCH,
    };
    let key = TagRecord::key(&fleet.tenant, "registry.test", "shop/api", "1");
    store.put(REFS, &key, &tag, None).await.unwrap();
    let checked = CheckRecord {
        source: tag.source.clone(),
        repository: "registry.test/shop/api".to_owned(),
        checked_at: Timestamp::UNIX_EPOCH,
        tags: 1,
        errors: 0,
    };
    let looked = CheckRecord::key(&fleet.tenant, &checked.source, "shop/api");
    store.put(REFS, &looked, &checked, None).await.unwrap();

    assert_eq!(fleet.forget_where(hour, &["main", "other"]).await, 0);
    assert!(!fleet.is_gone(1).await);
    assert_eq!(fleet.forget_where(hour, &["other"]).await, 1);
    assert!(fleet.is_gone(1).await);
    assert!(!store.exists(REFS, &looked).await.unwrap());
    let gone = store.get::<TagRecord>(REFS, &key).await.unwrap().unwrap();
    assert_eq!((gone.body.digest, gone.body.images), (None, Vec::new()));
    // Since when it is gone does not move, and within the retention it stays.
    let first = fleet.known(1).await;
    assert_eq!(fleet.forget_where(hour, &["other"]).await, 0);
    assert_eq!(fleet.known(1).await, first);
    // The source again: the crawler finds the tag, as the router has it gone.
    let mut again = first.clone();
    again.merge(known(1, vec![name(None)]));
    assert_eq!(again.names().count(), 1);
    // Not the source again: forgotten after the retention.
    eventually("the image is forgotten", async || {
        fleet.forget_where(MOMENT, &["other"]).await;
        fleet.left(1).await == NOTHING
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_only_nodes_had_are_gone_while_no_node_has_the_image() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let (store, hour) = (fleet.store(), Duration::from_hours(1));
    for number in [1, 2] {
        fleet.image(number, None).await;
        let key = fleet.key(number, What::Known);
        let revision = store.record::<Known>(&key).await.unwrap().unwrap().revision;
        let of_node = SeenReference {
            source: Slug::node_source(),
            ..name(None)
        };
        let mut of_node = known(number, vec![of_node]);
        // The node knows the second by an index that only a reference leads from.
        of_node.indexes.clear();
        store.put_record(&key, &of_node, revision).await.unwrap();
    }
    let reported = async |images: Vec<Digest>| {
        let images = images.into_iter().map(at_rest).collect();
        let record = node(images, fleet.now() + SignedDuration::from_hours(1));
        let key = "default.node-1.reported";
        store.put(NODES, key, &record, None).await.unwrap();
        assert_eq!(fleet.forget(hour).await, 0);
        (fleet.is_gone(1).await, fleet.is_gone(2).await)
    };
    assert_eq!(
        reported(vec![digest(2001), digest(1002)]).await,
        (false, false)
    );
    assert_eq!(reported(vec![digest(1)]).await, (false, true));
    assert_eq!(reported(vec![digest(1002)]).await, (true, false));
}
