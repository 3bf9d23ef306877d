//! A revision over HTTP, from a store in memory.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use bytes::Bytes;
use chassis::{
    Cx,
    http::{
        Grant, Limits,
        openapi::{Info, document},
        operations, router,
    },
};
use jiff::Timestamp;
use model::Digest;
use testkit::{Answered, Contract};
use tower::ServiceExt as _;

use super::*;
use crate::{
    Advisories, FeedLimits, Import, Mode, Unpacked, head::Head, leader, stage::tests::records,
    stage::tests::shown, upload,
};

/// A server, and what it was asked.
struct World {
    dir: tempfile::TempDir,
    cx: Cx,
    store: Store,
    head: Head,
    routes: axum::Router,
    contract: Contract,
}

impl World {
    fn new() -> Self {
        let (dir, store) = (tempfile::tempdir().unwrap(), Store::memory());
        let advisories = Advisories::open(&dir.path().join("server")).unwrap();
        let info = Info {
            title: "matcher",
            version: "1",
            description: "advisories out",
        };
        Self {
            dir,
            cx: Cx::for_tests(),
            head: Head::new(store.clone(), Arc::new(advisories)),
            routes: chassis::http::wrap(router(table(), store.clone()), &Limits::default()),
            contract: Contract::new(document(info, &operations(table()))),
            store,
        }
    }

    async fn advise(&self, second: i64, rows: &[(&str, &str, &str, &str)]) {
        let import = Import {
            feed: "one".to_owned(),
            mode: Mode::Replace,
            fetched_at: Timestamp::from_second(second).unwrap(),
            revision: None,
        };
        let zip = records(rows);
        upload::hand_in(&self.store, &import, zip).await.unwrap();
        let limits = FeedLimits::default();
        leader::take_all(&self.cx, &self.store, &self.head, (&limits, &[]))
            .await
            .unwrap();
    }

    async fn get(&self, scope: &str, path: &str) -> (StatusCode, Bytes) {
        let mut request = Request::get(format!("/v1/advisories/{path}"));
        if !scope.is_empty() {
            request = request.extension(Grant {
                name: "test".to_owned(),
                tenant: "default".to_owned(),
                scopes: vec![scope.to_owned()],
            });
        }
        let request = request.body(Body::empty()).unwrap();
        let answer = self.routes.clone().oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        let media = head.headers.get("content-type");
        self.contract.check(&Answered {
            method: "GET",
            path: &format!("/v1/advisories/{path}"),
            status: head.status.as_u16(),
            media: media.map(|media| media.to_str().unwrap()),
            body: &body,
        });
        (head.status, body)
    }

    /// Takes what the server has into a local copy; how many shards were fetched.
    async fn pull(&self, advisories: &Advisories) -> usize {
        let (status, document) = self.get("read", Unpacked::MANIFEST).await;
        assert_eq!(status, StatusCode::OK);
        let unpacked = Unpacked::read(&document, None, (&[], true)).unwrap();
        let mut shards = BTreeMap::new();
        for digest in unpacked.missing(advisories).unwrap() {
            let (status, bytes) = self.get("read", &Unpacked::shard(&digest)).await;
            assert_eq!(status, StatusCode::OK);
            shards.insert(digest, bytes);
        }
        let fetched = shards.len();
        let limits = FeedLimits::default();
        unpacked.import(advisories, shards, &limits).unwrap();
        fetched
    }
}

#[tokio::test]
async fn a_revision_is_handed_out_and_only_what_differs_is_fetched() {
    let world = World::new();
    let manifest = Unpacked::MANIFEST;
    assert_eq!(world.get("read", manifest).await.0, StatusCode::NOT_FOUND);
    let rows = [("A", "PyPI", "x", "1"), ("B", "npm", "y", "1")];
    world.advise(1, &rows).await;
    let here = Advisories::open(&world.dir.path().join("here")).unwrap();
    assert_eq!(world.pull(&here).await, 2);
    assert_eq!(shown(&here), shown(world.head.advisories()));
    assert_eq!(world.pull(&here).await, 0);
    world.advise(2, &[rows[0], ("B", "npm", "y", "2")]).await;
    assert_eq!(world.pull(&here).await, 1);
    assert_eq!(shown(&here), shown(world.head.advisories()));
    assert_eq!(
        here.manifest().feeds,
        world.head.advisories().manifest().feeds
    );

    let nobody = Unpacked::shard(&Digest::of(b"nobody's"));
    assert_eq!(world.get("read", &nobody).await.0, StatusCode::NOT_FOUND);
    for (scope, path, expected) in [
        ("read", "shards/x", StatusCode::BAD_REQUEST),
        ("push", manifest, StatusCode::FORBIDDEN),
        ("push", "shards/x", StatusCode::FORBIDDEN),
        ("", manifest, StatusCode::UNAUTHORIZED),
        ("", "shards/x", StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(world.get(scope, path).await.0, expected, "{scope} {path}");
    }
    assert_eq!(world.contract.unseen(), [""; 0]);
}

#[tokio::test]
async fn what_is_not_signed_or_was_changed_on_the_way_is_refused() {
    let world = World::new();
    world.advise(1, &[("A", "PyPI", "x", "1")]).await;
    let (_, document) = world.get("read", Unpacked::MANIFEST).await;
    let refused = Unpacked::read(&document, None, (&[], false)).unwrap_err();
    assert!(refused.to_string().contains("not signed"), "{refused}");
    let here = Advisories::open(&world.dir.path().join("here")).unwrap();
    let unpacked = Unpacked::read(&document, None, (&[], true)).unwrap();
    let missing = unpacked.missing(&here).unwrap();
    let other = missing
        .into_iter()
        .map(|digest| (digest, Bytes::from_static(b"other")))
        .collect();
    let import = |limits: &FeedLimits, shards| unpacked.clone().import(&here, shards, limits);
    let refused = import(&FeedLimits::default(), other).unwrap_err();
    assert!(refused.to_string().contains("has other bytes"), "{refused}");
    let none = BTreeMap::new();
    assert!(
        import(&FeedLimits::default(), none).is_err(),
        "nothing came"
    );
    assert_eq!(here.manifest().revision, 0);
}
