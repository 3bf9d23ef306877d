//! The inbox, with crashes between any two steps; no broker.

use std::sync::Arc;

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use bus::Store;
use bytes::Bytes;
use chassis::{Cx, SystemClock};
use jiff::Timestamp;
use model::{
    AdvisoryHead, AdvisoryInbox, Digest,
    event::{ADVISORIES, FEED_OBJECTS},
};
use tower::ServiceExt as _;

use super::{INBOX, take_all};
use crate::{
    Advisories, FeedLimits, Import, Mode,
    head::{HEAD, Head},
    stage::tests::records,
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

    async fn hand_in(&self, feed: &str, rows: &[(&str, &str, &str, &str)]) -> Digest {
        let import = Import {
            feed: feed.to_owned(),
            mode: Mode::Merge,
            fetched_at: Timestamp::UNIX_EPOCH,
        };
        let zip = records(rows);
        upload::hand_in(&self.store, &import, zip.clone())
            .await
            .unwrap();
        Digest::of(&zip)
    }

    async fn take(&self, head: &Head) {
        take_all(&self.cx, &self.store, head, &FeedLimits::default())
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
    assert_eq!(
        bench
            .store
            .object_bytes(FEED_OBJECTS, &zip, 1 << 20)
            .await
            .unwrap(),
        None
    );
    let follower = bench.process("follower");
    let revisions = follower.watch();
    follower.sync(&bench.cx).await.unwrap();
    assert!(revisions.has_changed().unwrap());
    assert_eq!(
        follower.advisories().manifest(),
        leader.advisories().manifest()
    );
    let manifest = follower.advisories().manifest();
    assert!(follower.advisories().missing(&manifest).unwrap().is_empty());
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
    };
    upload::hand_in(&bench.store, &import, Bytes::from_static(b"no zip"))
        .await
        .unwrap();
    bench.hand_in("one", &[("A", "PyPI", "x", "1")]).await;
    bench.take(&leader).await;
    assert_eq!((bench.head().await.revision, bench.inbox().await), (1, 0));
}

#[tokio::test]
async fn uploads_are_checked_and_answered_before_they_are_taken_up() {
    let bench = Bench::new();
    let limits = FeedLimits {
        archive_bytes_max: 4096,
        ..FeedLimits::default()
    };
    let routes = upload::routes(bench.store.clone(), Arc::new(SystemClock), &limits);
    let put = async |query: &str, body: Bytes| {
        let request = Request::put(format!("/v1/advisories?{query}")).body(Body::from(body));
        let response = routes.clone().oneshot(request.unwrap()).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 4096).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
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
    assert_eq!(bench.inbox().await, 1);
}
