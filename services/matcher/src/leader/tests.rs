//! The inbox, with crashes between any two steps; no broker.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use bus::Store;
use bytes::Bytes;
use chassis::{
    Cx, SystemClock,
    http::{
        Grant, Limits,
        openapi::{Info, document},
        operations,
    },
};
use jiff::Timestamp;
use model::{
    AdvisoryHead, AdvisoryInbox, Digest, SigningKey, SweptMark,
    event::{ADVISORIES, FEED_OBJECTS},
};
use testkit::{Answered, Contract};
use tower::ServiceExt as _;

use super::{
    INBOX,
    past::PAST_MAX,
    take_all,
    update::{Tried, Updater},
};
use crate::{
    Advisories, FeedLimits, Import, Mode, Source, Update,
    feeds::{export_of_junk, tests::Site},
    head::{HEAD, Head},
    stage,
    stage::tests::{is_whole, records, shown},
    upload,
};

struct Bench {
    cx: Cx,
    store: Store,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            cx: Cx::for_tests(),
            store: Store::memory(),
            dir,
        }
    }

    /// A process with a local copy of its own.
    fn process(&self, name: &str) -> Head {
        let advisories = Advisories::open(&self.dir.path().join(name)).unwrap();
        Head::new(self.store.clone(), Arc::new(advisories))
    }

    /// An owner of a partition says what its images hold.
    async fn hold(&self, key: &str, ecosystems: &[&str]) {
        let mark = SweptMark {
            ecosystems: ecosystems.iter().map(|&name| name.to_owned()).collect(),
            ..SweptMark::default()
        };
        let put = self.store.put(ADVISORIES, key, &mark, None).await;
        put.unwrap();
    }

    async fn hand_in(&self, feed: &str, rows: &[(&str, &str, &str, &str)]) -> Digest {
        let import = Import {
            feed: feed.to_owned(),
            mode: Mode::Merge,
            fetched_at: Timestamp::UNIX_EPOCH,
            revision: None,
        };
        let key = upload::hand_in(&self.store, &import, records(rows));
        let key = key.await.unwrap();
        let entry = self.store.get::<AdvisoryInbox>(ADVISORIES, &key).await;
        entry.unwrap().unwrap().body.object
    }

    async fn has_object(&self, object: &Digest) -> bool {
        let bytes = self.store.object_bytes(FEED_OBJECTS, object, 1 << 20).await;
        bytes.unwrap().is_some()
    }

    /// Makes a revision in which one advisory differs.
    async fn revise(&self, head: &Head, fixed: usize) -> AdvisoryHead {
        let fixed = fixed.to_string();
        self.hand_in("one", &[("A", "PyPI", "x", &fixed), ("B", "npm", "y", "1")])
            .await;
        self.take(head).await;
        self.head().await
    }

    async fn take(&self, head: &Head) {
        take_all(&self.cx, &self.store, head, (&FeedLimits::default(), &[]))
            .await
            .unwrap();
    }

    async fn head(&self) -> AdvisoryHead {
        self.store
            .get::<AdvisoryHead>(ADVISORIES, HEAD)
            .await
            .unwrap()
            .unwrap()
            .body
    }

    async fn inbox(&self) -> usize {
        self.store
            .list::<AdvisoryInbox>(ADVISORIES, INBOX)
            .await
            .unwrap()
            .len()
    }
}

#[tokio::test]
async fn what_is_handed_in_becomes_a_revision_that_others_follow() {
    let bench = Bench::new();
    let leader = bench.process("leader");
    let zip = bench
        .hand_in("one", &[("A", "PyPI", "x", "1"), ("B", "npm", "y", "1")])
        .await;
    bench.take(&leader).await;
    assert_eq!((bench.head().await.revision, bench.inbox().await), (1, 0));
    assert!(!bench.has_object(&zip).await);
    let follower = bench.process("follower");
    let revisions = follower.watch();
    follower.sync(&bench.cx).await.unwrap();
    assert!(revisions.has_changed().unwrap());
    assert_eq!(
        follower.advisories().manifest(),
        leader.advisories().manifest()
    );
    let manifest = follower.advisories().manifest();
    assert!(is_whole(follower.advisories(), &manifest));
    // The follower can lead: it knows where advisories stand.
    bench.hand_in("one", &[("A", "PyPI", "z", "1")]).await;
    bench.take(&follower).await;
    let manifest = follower.advisories().manifest();
    assert_eq!((manifest.revision, manifest.shards.len()), (2, 2));
}

#[tokio::test]
async fn an_entry_that_was_taken_up_already_makes_no_second_revision() {
    let bench = Bench::new();
    let leader = bench.process("leader");
    let rows = [("A", "PyPI", "x", "1")];
    bench.hand_in("one", &rows).await;
    bench.take(&leader).await;
    // The leader died before it deleted the entry; another one takes over.
    bench.hand_in("one", &rows).await;
    bench.take(&bench.process("next")).await;
    assert_eq!((bench.head().await.revision, bench.inbox().await), (1, 0));
}

#[tokio::test]
async fn entries_that_share_an_object_are_all_taken_up() {
    let bench = Bench::new();
    let leader = bench.process("leader");
    let object = bench
        .store
        .put_object_bytes(FEED_OBJECTS, records(&[("A", "PyPI", "x", "1")]))
        .await
        .unwrap();
    // The one with the greater key is taken up first.
    for (key, feed, second) in [("inbox.b", "one", 1), ("inbox.a", "two", 2)] {
        let entry = AdvisoryInbox {
            object,
            offset: 0,
            feed: feed.to_owned(),
            replace: true,
            fetched_at: Timestamp::from_second(second).unwrap(),
            revision: None,
            increment: false,
        };
        bench
            .store
            .put(ADVISORIES, key, &entry, None)
            .await
            .unwrap();
    }
    bench.take(&leader).await;
    let manifest = leader.advisories().manifest();
    let feeds: Vec<_> = manifest.feeds.iter().map(|feed| &feed.name).collect();
    assert_eq!(feeds, ["one", "two"]);
    assert!(!bench.has_object(&object).await);
}

#[tokio::test]
async fn what_is_handed_in_has_an_object_of_its_own() {
    let bench = Bench::new();
    let import = |feed: &str, second| Import {
        feed: feed.to_owned(),
        mode: Mode::Replace,
        fetched_at: Timestamp::from_second(second).unwrap(),
        revision: None,
    };
    let zip = records(&[("A", "PyPI", "x", "1")]);
    let mut keys = BTreeSet::new();
    for what in [
        import("one", 1),
        import("two", 1),
        import("one", 2),
        import("one", 2),
    ] {
        let key = upload::hand_in(&bench.store, &what, zip.clone()).await;
        keys.insert(key.unwrap());
    }
    let inbox = bench.store.list::<AdvisoryInbox>(ADVISORIES, INBOX);
    let objects: BTreeSet<_> = inbox
        .await
        .unwrap()
        .into_iter()
        .map(|(_, entry)| entry.body.object)
        .collect();
    assert_eq!((keys.len(), objects.len()), (3, 3));
}

#[tokio::test]
async fn old_revisions_go_and_young_ones_can_be_had_by_who_never_saw_them() {
    let bench = Bench::new();
    let leader = bench.process("leader");
    let mut heads = Vec::new();
    for round in 0..PAST_MAX + 4 {
        heads.push(bench.revise(&leader, round).await);
    }
    let head = bench.head().await;
    let past = head.past.iter().map(|past| past.revision);
    let newest = head.revision;
    let oldest = newest - PAST_MAX as u64;
    // One that was deleted after the last move is named until the next.
    assert_eq!(past.filter(|past| *past >= oldest).count(), PAST_MAX);
    assert!(head.past.len() <= PAST_MAX + 1, "{:?}", head.past);
    for one in &heads {
        let is_young = one.revision >= oldest;
        assert_eq!(
            bench.has_object(&one.manifest).await,
            is_young,
            "revision {} of {newest}",
            one.revision
        );
    }
    let fresh = bench.process("fresh");
    fresh.sync(&bench.cx).await.unwrap();
    let to = fresh.advisories().manifest();
    let from = fresh.at(&bench.cx, oldest, &to).await.unwrap().unwrap();
    let changed = to.changed_since(&from);
    assert_eq!(changed.len(), 1);
    let before = fresh.advisories().shard_of(&from, changed[0]).unwrap();
    let after = fresh.advisories().shard_of(&to, changed[0]).unwrap();
    assert_eq!(after.packages_changed_since(&before).len(), 1);
    assert!(fresh.at(&bench.cx, 1, &to).await.unwrap().is_none());
}

#[tokio::test]
async fn a_revision_that_only_has_the_number_of_the_one_in_force_is_published() {
    let bench = Bench::new();
    let (leader, other) = (bench.process("leader"), bench.process("other"));
    let standing = leader.sync_head(&bench.cx).await.unwrap();
    // It stages revision 1; meanwhile another makes another revision 1, and that holds here too.
    let import = Import {
        feed: "mine".to_owned(),
        mode: Mode::Replace,
        fetched_at: Timestamp::UNIX_EPOCH,
        revision: None,
    };
    let source = Source::Bytes(records(&[("A", "PyPI", "x", "1")]));
    let parts = stage::read(&import, &source, &FeedLimits::default(), None).unwrap();
    let staged = stage::stage(leader.advisories(), &import, parts).unwrap();
    bench.hand_in("one", &[("B", "npm", "y", "1")]).await;
    bench.take(&other).await;
    leader.sync(&bench.cx).await.unwrap();
    assert_eq!(leader.advisories().manifest().revision, 1);
    let published = super::publish(&bench.cx, &bench.store, &leader, &staged, standing);
    assert!(!published.await.unwrap(), "to be staged again");
}

#[tokio::test]
async fn a_shard_that_was_fetched_before_the_process_died_is_not_fetched_again() {
    let bench = Bench::new();
    let leader = bench.process("leader");
    bench
        .hand_in("one", &[("A", "PyPI", "x", "1"), ("B", "npm", "y", "1")])
        .await;
    bench.take(&leader).await;
    let manifest = leader.advisories().manifest();
    // They are fetched in the order of their digests.
    let shards: BTreeSet<Digest> = manifest.shards.values().copied().collect();
    let [first, second] = [shards.first(), shards.last()].map(|digest| *digest.unwrap());
    let bytes = bench.store.object_bytes(FEED_OBJECTS, &second, 1 << 20);
    let bytes = bytes.await.unwrap().unwrap();
    bench
        .store
        .delete_object(FEED_OBJECTS, &second)
        .await
        .unwrap();
    let follower = bench.process("follower");
    assert!(follower.sync(&bench.cx).await.is_err());
    assert_eq!(follower.advisories().manifest().revision, 0);
    // The other one stays, and the manifest comes with the last.
    bench
        .store
        .delete_object(FEED_OBJECTS, &first)
        .await
        .unwrap();
    bench
        .store
        .put_object_bytes(FEED_OBJECTS, bytes)
        .await
        .unwrap();
    follower.sync(&bench.cx).await.unwrap();
    assert!(is_whole(follower.advisories(), &manifest));
}

#[tokio::test]
async fn a_copy_that_is_ahead_of_the_head_follows_the_head() {
    let bench = Bench::new();
    let leader = bench.process("leader");
    bench.hand_in("one", &[("A", "PyPI", "x", "1")]).await;
    bench.take(&leader).await;
    bench.store.delete(ADVISORIES, HEAD).await.unwrap();
    leader.sync(&bench.cx).await.unwrap();
    assert_eq!(leader.advisories().manifest().revision, 0);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_passed_over() {
    let bench = Bench::new();
    let leader = bench.process("leader");
    let import = Import {
        feed: "bad".to_owned(),
        mode: Mode::Merge,
        fetched_at: Timestamp::UNIX_EPOCH,
        revision: None,
    };
    upload::hand_in(&bench.store, &import, Bytes::from_static(b"no zip"))
        .await
        .unwrap();
    bench.hand_in("one", &[("A", "PyPI", "x", "1")]).await;
    bench.take(&leader).await;
    assert_eq!((bench.head().await.revision, bench.inbox().await), (1, 0));
}

#[tokio::test]
async fn an_export_is_taken_up_where_its_signer_is_trusted() {
    let bench = Bench::new();
    let elsewhere = bench.process("elsewhere");
    let import = Import {
        feed: "npm".to_owned(),
        mode: Mode::Replace,
        fetched_at: Timestamp::UNIX_EPOCH,
        revision: None,
    };
    let source = Source::Bytes(records(&[("A", "npm", "x", "1")]));
    let limits = FeedLimits::default();
    crate::import(elsewhere.advisories(), &import, &source, &limits).unwrap();
    let (file, key) = (
        bench.dir.path().join("export"),
        SigningKey::generate().unwrap(),
    );
    let signer = Some(&key);
    crate::export(elsewhere.advisories(), &file, signer, Timestamp::UNIX_EPOCH).unwrap();
    let bytes = Bytes::from(chassis::files::read_bounded(&file, 1 << 20).unwrap());
    let leader = bench.process("leader");
    let export = Import {
        feed: "export".to_owned(),
        mode: Mode::Merge,
        ..import
    };
    for (keys, revision) in [(&[][..], 0), (&[key.verifying()][..], 1)] {
        upload::hand_in(&bench.store, &export, bytes.clone())
            .await
            .unwrap();
        take_all(&bench.cx, &bench.store, &leader, (&limits, keys))
            .await
            .unwrap();
        assert_eq!(leader.advisories().manifest().revision, revision);
        assert_eq!(bench.inbox().await, 0);
    }
    let manifest = leader.advisories().manifest();
    assert_eq!(
        (manifest.feeds[0].name.as_str(), manifest.shards.len()),
        ("npm", 1)
    );
}

#[tokio::test]
async fn an_export_with_a_shard_that_nobody_can_read_does_not_stop_what_follows() {
    let bench = Bench::new();
    let (leader, key) = (bench.process("leader"), SigningKey::generate().unwrap());
    let export = Import {
        feed: "export".to_owned(),
        mode: Mode::Merge,
        fetched_at: Timestamp::MIN,
        revision: None,
    };
    let junk = export_of_junk(&key);
    let handing = upload::hand_in(&bench.store, &export, junk);
    handing.await.unwrap();
    bench.hand_in("one", &[("A", "PyPI", "x", "1")]).await;
    let keys = [key.verifying()];
    let limits = FeedLimits::default();
    let taking = take_all(&bench.cx, &bench.store, &leader, (&limits, &keys));
    taking.await.unwrap();
    assert_eq!(bench.inbox().await, 0);
    let manifest = leader.advisories().manifest();
    let feeds: Vec<_> = manifest.feeds.iter().map(|feed| &*feed.name).collect();
    assert_eq!(feeds, ["one"]);
}

#[tokio::test]
async fn feeds_of_what_images_hold_are_kept_up_to_date() {
    let (bench, site) = (Bench::new(), Site::default());
    let (url, leader) = (site.start().await, bench.process("leader"));
    site.export("npm", &[(1, "A", "x", "1.0.0")]);
    site.export("PyPI", &[(1, "P", "x", "1.0")]);
    site.put("/kev.json", r#"{"vulnerabilities": []}"#);
    let updater = |interval_s| Updater {
        store: bench.store.clone(),
        head: leader.clone(),
        limits: FeedLimits::default(),
        update: Update {
            url: url.clone(),
            kev_url: Some(format!("{url}/kev.json")),
            epss_url: None,
            interval_s,
            ..Update::default()
        },
    };
    let mut tried = Tried::default();
    // Nobody holds anything yet; the catalog is fetched all the same, and refused: it is empty.
    updater(3600)
        .update_due(&bench.cx, &mut tried)
        .await
        .unwrap();
    bench.take(&leader).await;
    assert_eq!(site.asked(), ["/kev.json"]);
    assert_eq!(leader.advisories().manifest().revision, 0);
    // One matcher's partitions hold npm packages, and say so.
    bench.hold("swept.3", &["npm"]).await;
    updater(3600)
        .update_due(&bench.cx, &mut tried)
        .await
        .unwrap();
    bench.take(&leader).await;
    assert_eq!(site.asked(), ["/npm/modified_id.csv", "/npm/all.zip"]);
    assert_eq!(shown(leader.advisories()).len(), 1);
    // What OSV.dev has no export of is fetched from its vendor alone, and what nobody has is asked
    // for once in an interval.
    bench.hold("swept.4", &["Oracle Linux", "Nobody"]).await;
    let mut asked = updater(3600);
    asked.update.oracle_oval_url = Some(format!("{url}/elsa.xml"));
    asked.update_due(&bench.cx, &mut tried).await.unwrap();
    asked.update_due(&bench.cx, &mut tried).await.unwrap();
    assert_eq!(
        site.asked(),
        ["/Nobody/modified_id.csv", "/Nobody/all.zip", "/elsa.xml"]
    );
    // A record that cannot be read changes nothing, and what stands stays.
    site.export("npm", &[(2, "A", "x", "2.0.0")]);
    site.put("/npm/A.json", "{");
    tried.at.clear();
    updater(3600)
        .update_due(&bench.cx, &mut tried)
        .await
        .unwrap();
    bench.take(&leader).await;
    let before = leader.advisories().manifest();
    assert!(shown(leader.advisories())[0].contains("1.0.0"));
    site.export("npm", &[(3, "A", "x", "2.0.0")]);
    tried.at.clear();
    updater(3600)
        .update_due(&bench.cx, &mut tried)
        .await
        .unwrap();
    bench.take(&leader).await;
    assert!(shown(leader.advisories())[0].contains("2.0.0"));
    assert_eq!(leader.advisories().manifest().revision, before.revision + 1);
}

#[tokio::test]
async fn uploads_are_checked_and_answered_before_they_are_taken_up() {
    let bench = Bench::new();
    let limits = FeedLimits {
        archive_bytes_max: 4096,
        ..FeedLimits::default()
    };
    let routes = upload::routes(bench.store.clone(), Arc::new(SystemClock), &limits);
    let routes = chassis::http::wrap(routes, &Limits::default());
    let info = Info {
        title: "matcher",
        version: "1",
        description: "advisories in",
    };
    let contract = Contract::new(document(info, &operations(upload::table())));
    let put_as = async |scope: &str, query: &str, body: Bytes| {
        let mut request = Request::put(format!("/v1/advisories?{query}"));
        if !scope.is_empty() {
            request = request.extension(Grant {
                name: "test".to_owned(),
                tenant: "default".to_owned(),
                scopes: vec![scope.to_owned()],
            });
        }
        let request = request.body(Body::from(body)).unwrap();
        let (head, body) = routes.clone().oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, 4096).await.unwrap();
        let media = head
            .headers
            .get("content-type")
            .map(|media| media.to_str().unwrap());
        contract.check(&Answered {
            method: "PUT",
            path: "/v1/advisories",
            status: head.status.as_u16(),
            media,
            body: &body,
        });
        (head.status, String::from_utf8_lossy(&body).into_owned())
    };
    let put = async |query: &str, body: Bytes| put_as("admin", query, body).await;
    let zip = records(&[("A", "PyPI", "x", "1")]);
    let (status, answer) = put("feed=one&mode=replace", zip.clone()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    assert!(answer.contains(r#""inbox":"inbox."#), "{answer}");
    assert_eq!(bench.inbox().await, 1);
    let refused = [
        ("feed=one&mode=other", zip.clone(), StatusCode::BAD_REQUEST),
        ("feed=%00", zip, StatusCode::BAD_REQUEST),
        (
            "feed=one",
            Bytes::from_static(b"{}"),
            StatusCode::BAD_REQUEST,
        ),
        (
            "feed=one",
            Bytes::from(vec![0; 5000]),
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
    ];
    for (query, body, expected) in refused {
        assert_eq!(put(query, body).await.0, expected, "{query}");
    }
    for (scope, expected) in [
        ("read", StatusCode::FORBIDDEN),
        ("", StatusCode::UNAUTHORIZED),
    ] {
        let asked = put_as(scope, "feed=two", records(&[("A", "PyPI", "x", "1")])).await;
        assert_eq!(asked.0, expected);
    }
    assert_eq!(bench.inbox().await, 1);
    assert_eq!(contract.unseen(), [""; 0]);
}
