use model::event::LAYER_OBJECTS;

use super::*;
use crate::{
    Config, Store,
    testing::{Server, World},
};

const MAX: u64 = 4_000_000;

fn name(number: u32) -> Digest {
    Digest::of(&number.to_be_bytes())
}

/// Bytes that differ from object to object.
fn bytes(number: u32, size: u32) -> Bytes {
    let seed = number.wrapping_mul(2_654_435_761);
    (0..size)
        .map(|n| n.wrapping_add(seed).wrapping_mul(97).to_be_bytes()[1])
        .collect()
}

async fn put(store: &Store, number: u32, size: u32) {
    let (name, bytes) = (name(number), bytes(number, size));
    store.put_named(LAYER_OBJECTS, &name, bytes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_of_another_object_is_found_by_the_digest_and_healed_by_the_next_writer() {
    let Some(world) = World::start().await else {
        return;
    };
    let (store, wire) = (world.bus.store(), &world.bus.0.wire);
    for chunk in 0..3 {
        put(&store, 1, 700_000).await;
        let subject = topology::object_subject(LAYER_OBJECTS, &name(1), chunk);
        let stream = topology::object_stream(LAYER_OBJECTS);
        let known = wire.last(&stream, &subject).await.unwrap().unwrap();
        let mut body = known.body.to_vec();
        body[chunk * 100] ^= 1;
        let headers = ["tw-chunks", "tw-size", "tw-sha256"]
            .into_iter()
            .filter_map(|name| Some((name, known.headers.get(name)?.to_owned())));
        let headers = headers.fold(Headers::default(), |all, (name, value)| {
            all.with(name, value)
        });
        wire.store(&subject, &headers, body.into()).await.unwrap();
        let read = store.named(LAYER_OBJECTS, &name(1), MAX).await;
        assert!(
            matches!(read, Err(StoreError::Corrupt { .. })),
            "{chunk}: {read:?}"
        );
    }
    put(&store, 1, 700_000).await;
    let read = store.named(LAYER_OBJECTS, &name(1), MAX).await.unwrap();
    assert!(read == Some(bytes(1, 700_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_lost_a_chunk_is_absent() {
    let Some(world) = World::start().await else {
        return;
    };
    let (store, wire) = (world.bus.store(), &world.bus.0.wire);
    for chunk in 0..3 {
        put(&store, 1, 700_000).await;
        let filter = topology::object_subject(LAYER_OBJECTS, &name(1), chunk);
        let asked = format!("STREAM.PURGE.{}", topology::object_stream(LAYER_OBJECTS));
        wire.api(&asked, &json!({ "filter": filter }))
            .await
            .unwrap();
        let read = store.named(LAYER_OBJECTS, &name(1), MAX).await.unwrap();
        assert!(read.is_none(), "{chunk}");
    }
    put(&store, 1, 700_000).await;
    assert!(
        store
            .named(LAYER_OBJECTS, &name(1), MAX)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_of_one_name_never_give_a_mixture() {
    let Some(world) = World::start().await else {
        return;
    };
    let (_cx, other) = world.other().await;
    let (one, two) = (world.bus.store(), other.store());
    let shared = name(7);
    let write = async |store: &Store, number: u32| {
        for _ in 0..20 {
            let stored = store.put_named(LAYER_OBJECTS, &shared, bytes(number, 600_000));
            stored.await.unwrap();
        }
    };
    let read = async || {
        for _ in 0..60 {
            match one.named(LAYER_OBJECTS, &shared, MAX).await {
                Ok(Some(read)) => assert!(read == bytes(1, 600_000) || read == bytes(2, 600_000)),
                Ok(None) | Err(StoreError::Corrupt { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::join!(write(&one, 1), write(&two, 2), read());
    write(&one, 3).await;
    let read = one.named(LAYER_OBJECTS, &shared, MAX).await.unwrap();
    assert!(read == Some(bytes(3, 600_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_bucket_drops_the_oldest_and_goes_on() {
    let Some(server) = Server::start().await else {
        return;
    };
    let cx = chassis::Cx::for_tests();
    let config = Config {
        layers_bytes_max: 4_000_000,
        ..server.config()
    };
    let bus = crate::Bus::connect(&cx, &config, "test").await.unwrap();
    bus.provision().await.unwrap();
    let store = bus.store();
    for number in 0..40 {
        put(&store, number, 300_000).await;
        let read = store
            .named(LAYER_OBJECTS, &name(number), MAX)
            .await
            .unwrap();
        assert!(read == Some(bytes(number, 300_000)), "{number}");
    }
    let usage = store.usage(LAYER_OBJECTS).await.unwrap();
    assert_eq!(usage.bytes_max, Some(4_000_000));
    assert!(
        usage.bytes <= 4_000_000 && usage.bytes > 3_000_000,
        "{usage:?}"
    );
    let mut there = Vec::new();
    for number in 0..40 {
        there.push(
            store
                .named(LAYER_OBJECTS, &name(number), MAX)
                .await
                .unwrap()
                .is_some(),
        );
    }
    let first = there.iter().position(|there| *there).unwrap();
    assert!(
        first > 20 && there[first..].iter().all(|there| *there),
        "{there:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_is_stored_again_only_when_it_has_been_there_for_a_while() {
    let Some(world) = World::start().await else {
        return;
    };
    let store = world.bus.store();
    let sequence = async |minutes| {
        let now = store.now().checked_add(Duration::from_mins(minutes));
        let store = Store {
            clock: std::sync::Arc::new(chassis::FixedClock::new(now.unwrap())),
            ..store.clone()
        };
        let put = store.put_object_bytes(LAYER_OBJECTS, bytes(1, 600_000));
        let seen = store.backend.seen(LAYER_OBJECTS, &put.await.unwrap()).await;
        seen.unwrap().unwrap().sequence
    };
    let first = sequence(0).await;
    assert_eq!(sequence(29).await, first);
    assert!(sequence(31).await > first);
}
