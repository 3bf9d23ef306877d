use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use model::{
    AssessedContents, Counts, RecordKey, ScannedConfig, ScannedContents, Slug, What,
    event::{REPORT_OBJECTS, images_bucket},
};

use super::*;
use crate::{
    Config,
    envelope::{Attributes, Headers},
    testing::{World, eventually},
};

fn digest(number: u64) -> Digest {
    Digest::of(&number.to_be_bytes())
}

fn scanned(objects: [Digest; 3]) -> Scanned {
    let [packages, findings, files] = objects;
    Scanned {
        analyzers: Vec::new(),
        packages,
        findings,
        package_count: 0,
        gap_count: 0,
        scanned_at: Timestamp::UNIX_EPOCH,
        duration_ms: 0,
        layers_read: 0,
        cause: String::new(),
        unfinished: false,
        contents: ScannedContents::default(),
        files: vec![None, Some(files)],
        config: ScannedConfig::default(),
    }
}

fn assessed(assessment: Digest, findings: Digest) -> Assessed {
    Assessed {
        scan: 1,
        advisory: 1,
        assessment,
        findings,
        previous: None,
        counts: Counts::default(),
        assessed_at: Timestamp::UNIX_EPOCH,
        contents: AssessedContents::default(),
    }
}

/// A second is enough to be old.
async fn world() -> Option<World> {
    World::with(|config| Config {
        discard_after_s: 1,
        ..config
    })
    .await
}

async fn put(store: &Store, bytes: impl Into<Bytes>) -> Digest {
    let put = store.put_object_bytes(REPORT_OBJECTS, bytes.into());
    put.await.unwrap()
}

async fn is_there(store: &Store, digest: &Digest) -> bool {
    let read = store.object_bytes(REPORT_OBJECTS, digest, 1 << 20).await;
    read.unwrap().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_record_names_goes_and_all_else_stays() {
    let Some(world) = world().await else {
        return;
    };
    let (store, tenant) = (world.bus.store(), Slug::default_tenant());
    let key = RecordKey::new(&tenant, digest(1), What::Scanned);
    let mut named = Vec::new();
    for name in [
        "packages",
        "findings",
        "files",
        "assessment",
        "older findings",
    ] {
        named.push(put(&store, name).await);
    }
    let record = scanned([named[0], named[1], named[2]]);
    store.put_record(&key, &record, 0).await.unwrap();
    let assessed = assessed(named[3], named[4]);
    let of_assessed = key.sibling(What::Assessed);
    store.put_record(&of_assessed, &assessed, 0).await.unwrap();
    // A record that is too large for its message is an object itself.
    let known = Known {
        labels: [("a".to_owned(), "x".repeat(20_000))].into(),
        ..Known::default()
    };
    let of_known = key.sibling(What::Known);
    store.put_record(&of_known, &known, 0).await.unwrap();

    let orphan = put(&store, "files of a layer that no image has any more").await;
    let large = put(&store, vec![7; 600 * 1024]).await;
    eventually("both orphans are collected", async || {
        world.bus.collect_once().await.unwrap();
        !is_there(&store, &orphan).await && !is_there(&store, &large).await
    })
    .await;
    for object in &named {
        assert!(is_there(&store, object).await, "{object} is named");
    }
    let known = store.record::<Known>(&of_known).await.unwrap();
    assert_eq!(known.unwrap().body.labels["a"].len(), 20_000);
    let usage = store.usage(REPORT_OBJECTS).await.unwrap();
    assert_eq!(usage.messages, 6, "no chunk is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_of_late_may_be_named_in_a_moment_and_stays() {
    let Some(world) = World::start().await else {
        return;
    };
    let store = world.bus.store();
    let young = put(&store, "named in a moment").await;
    assert_eq!(world.bus.collect_once().await.unwrap(), 0);
    assert!(is_there(&store, &young).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_this_version_does_not_know_stops_the_pass() {
    let Some(world) = world().await else {
        return;
    };
    let store = world.bus.store();
    let orphan = put(&store, "who knows").await;
    let (bucket, tenant) = (images_bucket(digest(1).partition()), Slug::default_tenant());
    let mut headers = Headers::default();
    headers.describe(&Attributes {
        id: "1",
        kind: "io.tidewaiter.image.signed.v1",
        source: "/records",
        tenant: Some(&tenant),
        time: Timestamp::UNIX_EPOCH,
    });
    let subject = subject::of_key(&bucket, &format!("{tenant}.{}.signed", digest(1).hex()));
    let stored = world.bus.0.wire.store(&subject, &headers, Bytes::new());
    stored.await.unwrap();
    eventually("the orphan is old", async || {
        let before = store.stored_before(Duration::from_secs(1)).unwrap();
        let seen = store.seen(REPORT_OBJECTS, &orphan).await.unwrap();
        seen.is_some_and(|seen| seen.at <= before)
    })
    .await;
    let refused = world.bus.collect_once().await.unwrap_err();
    assert!(refused.to_string().contains("signed"), "{refused}");
    assert!(is_there(&store, &orphan).await);
}

#[test]
fn what_was_noted_is_named_and_hardly_anything_else() {
    let wrong = |salt: u64| {
        let mut named = Named::new(salt);
        for number in 0..100_000 {
            named.note(&digest(number));
        }
        assert!((0..100_000).all(|number| named.has(&digest(number))));
        let others = 100_000..200_000;
        others
            .filter(|number| named.has(&digest(*number)))
            .collect::<Vec<_>>()
    };
    let (one, two) = (wrong(1), wrong(2));
    assert!(one.len() < 20 && two.len() < 20, "{one:?} {two:?}");
    assert!(one.iter().all(|number| !two.contains(number)));
}
