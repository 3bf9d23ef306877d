use std::time::{Duration, Instant};

use futures::StreamExt as _;
use model::{
    Slug,
    event::{EVENTS, REFS},
};

use super::{feed::SLOW, *};
use crate::testing::{World, pushed, soon};

async fn publish(world: &World, from: usize, to: usize) {
    for n in from..to {
        let event = pushed(&format!("app-{n}"));
        let tenant = Slug::default_tenant();
        world.bus.publish(&tenant, &event).await.unwrap();
    }
}

async fn take(tail: &mut Tail, count: usize) -> Vec<u64> {
    let mut sequences = Vec::new();
    while sequences.len() < count {
        sequences.push(message(tail).await.sequence);
    }
    sequences
}

/// The next message.
async fn message(tail: &mut Tail) -> Tailed {
    loop {
        if let Some(message) = soon(tail.next()).await.unwrap().message() {
            return message;
        }
    }
}

/// The next thing that is not a message.
async fn note(tail: &mut Tail) -> Heard {
    loop {
        let heard = soon(tail.next()).await.unwrap();
        if !matches!(heard, Heard::Message(_)) {
            return heard;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_from_a_sequence_a_time_and_from_now() {
    let Some(world) = World::start().await else {
        return;
    };
    let World { bus, cx, .. } = &world;
    publish(&world, 0, 5).await;
    let mut all = bus.tail(cx, EVENTS, Start::Sequence(0), "").await.unwrap();
    let third = {
        take(&mut all, 2).await;
        message(&mut all).await
    };
    assert_eq!(third.sequence, 3);
    assert_eq!(third.subject, "tw.evt.default.registry.pushed.main");
    assert_eq!(
        crate::decode::<model::event::ImagePushed>(&third.body.unwrap())
            .unwrap()
            .repository,
        "app-2"
    );
    let from_four = Start::Sequence(4);
    let mut rest = bus.tail(cx, EVENTS, from_four, "").await.unwrap();
    assert_eq!(take(&mut rest, 2).await, [4, 5]);
    let since = Start::Time(third.time);
    let mut rest = bus.tail(cx, EVENTS, since, "").await.unwrap();
    assert_eq!(rest.start(), 2);
    assert_eq!(take(&mut rest, 3).await, [3, 4, 5]);
    let mut new = bus.tail(cx, EVENTS, Start::New, "").await.unwrap();
    publish(&world, 5, 7).await;
    assert_eq!(take(&mut new, 2).await, [6, 7]);
    cx.stop();
    while soon(new.next()).await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_leaves_out_what_it_does_not_fit_in_streams_and_in_buckets() {
    let Some(world) = World::start().await else {
        return;
    };
    let World { bus, cx, .. } = &world;
    publish(&world, 0, 2).await;
    let other: Slug = "acme".parse().unwrap();
    bus.publish(&other, &pushed("theirs")).await.unwrap();
    let filter = "tw.evt.acme.>";
    let start = Start::Sequence(1);
    let mut theirs = bus.tail(cx, EVENTS, start, filter).await.unwrap();
    assert_eq!(take(&mut theirs, 1).await, [3]);
    let store = bus.store();
    for key in ["a.one", "b.two", "b.three"] {
        store.put(REFS, key, &1, None).await.unwrap();
    }
    let stream = crate::topology::bucket_stream(REFS);
    let filter = "$KV.tw_refs.b.*";
    let mut keys = bus.tail(cx, &stream, start, filter).await.unwrap();
    assert_eq!(take(&mut keys, 2).await, [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_resumes_after_a_restart_of_the_server_and_names_a_missing_stream() {
    let Some(mut world) = World::start().await else {
        return;
    };
    publish(&world, 0, 3).await;
    let (bus, cx) = (world.bus.clone(), world.cx.clone());
    let start = Start::Sequence(1);
    let mut tail = bus.tail(&cx, EVENTS, start, "tw.evt.>").await.unwrap();
    assert_eq!(take(&mut tail, 3).await, [1, 2, 3]);
    world.server.down();
    world.server.up().await;
    publish(&world, 3, 6).await;
    assert_eq!(take(&mut tail, 3).await, [4, 5, 6]);
    let missing = bus.tail(&cx, "NOTHING", start, "").await;
    insta::assert_snapshot!(missing.unwrap_err(), @"NOTHING: refused by nats-server: stream not found (error code 10059)");
    assert!(bus.tail(&cx, "A.>", start, "").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_once_that_it_caught_up_and_up_to_where_nothing_fits() {
    let Some(world) = World::start().await else {
        return;
    };
    let World { bus, cx, .. } = &world;
    publish(&world, 0, 3).await;
    let start = Start::Sequence(0);
    let mut all = bus.tail(cx, EVENTS, start, "").await.unwrap();
    assert_eq!(take(&mut all, 3).await, [1, 2, 3]);
    assert_eq!(soon(all.next()).await, Some(Heard::CaughtUp));
    let nobody = "tw.evt.nobody.registry.>";
    let mut none = bus.tail(cx, EVENTS, start, nobody).await.unwrap();
    assert_eq!(note(&mut none).await, Heard::CaughtUp);
    // The server says so with its next sign of life.
    assert_eq!(note(&mut none).await, Heard::UpTo(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_held_any_more_is_named() {
    let Some(world) = World::start().await else {
        return;
    };
    let World { bus, cx, .. } = &world;
    publish(&world, 0, 5).await;
    let purge = serde_json::json!({ "keep": 2 });
    let asked = format!("STREAM.PURGE.{EVENTS}");
    bus.0.wire.api(&asked, &purge).await.unwrap();
    let missed = |from, to, next| Heard::Missed(Missed { from, to, next });

    let start = Start::Sequence(2);
    let mut late = bus.tail(cx, EVENTS, start, "").await.unwrap();
    assert_eq!(soon(late.next()).await, Some(missed(2, Some(3), 4)));
    assert_eq!(take(&mut late, 2).await, [4, 5]);
    // From the oldest on means what there is.
    let mut all = bus.tail(cx, EVENTS, Start::Sequence(1), "").await.unwrap();
    assert_eq!(take(&mut all, 2).await, [4, 5]);
    // A sequence of another stream of that name: what is here now is new to its reader.
    let mut other = bus.tail(cx, EVENTS, Start::Sequence(50), "").await.unwrap();
    assert_eq!(soon(other.next()).await, Some(missed(50, None, 1)));
    assert_eq!(take(&mut other, 2).await, [4, 5]);
    // An empty stream holds nothing of what it held.
    let all_gone = serde_json::json!({ "filter": "" });
    bus.0.wire.api(&asked, &all_gone).await.unwrap();
    let mut empty = bus.tail(cx, EVENTS, Start::Sequence(4), "").await.unwrap();
    assert_eq!(soon(empty.next()).await, Some(missed(4, Some(5), 6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_dawdles_is_told_what_the_stream_dropped_meanwhile() {
    let Some(world) = World::start().await else {
        return;
    };
    let World { bus, cx, .. } = &world;
    // More than is read ahead and asked for at once.
    let many = AHEAD + 2 * BATCH + 10;
    publish(&world, 0, many).await;
    let start = Start::Sequence(1);
    let mut tail = bus.tail(cx, EVENTS, start, "").await.unwrap();
    assert_eq!(take(&mut tail, 1).await, [1]);
    let since = Instant::now();
    crate::testing::eventually("the reader waits long enough", async || {
        since.elapsed() > SLOW + Duration::from_millis(200)
    })
    .await;
    let purge = serde_json::json!({ "keep": 1 });
    let asked = format!("STREAM.PURGE.{EVENTS}");
    bus.0.wire.api(&asked, &purge).await.unwrap();
    let (mut last, mut told) = (1, None);
    while last < many as u64 {
        match soon(tail.next()).await.unwrap() {
            Heard::Message(message) => last = message.sequence,
            Heard::Missed(missed) => told = Some((last, missed)),
            Heard::CaughtUp | Heard::UpTo(_) => {}
        }
    }
    let (read, missed) = told.expect("something was dropped");
    assert_eq!(missed.from, read + 1);
    assert_eq!(missed.to, Some(many as u64 - 1));
    assert_eq!(missed.next, many as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_made_anew_is_read_from_its_first_message() {
    let Some(mut world) = World::start().await else {
        return;
    };
    publish(&world, 0, 3).await;
    let (bus, cx) = (world.bus.clone(), world.cx.clone());
    let start = Start::Sequence(1);
    let mut tail = bus.tail(&cx, EVENTS, start, "").await.unwrap();
    assert_eq!(take(&mut tail, 3).await, [1, 2, 3]);
    let nothing = serde_json::Value::Null;
    let asked = format!("STREAM.DELETE.{EVENTS}");
    bus.0.wire.api(&asked, &nothing).await.unwrap();
    bus.provision().await.unwrap();
    // As many as were read of the one before, and more.
    publish(&world, 3, 8).await;
    world.server.down();
    world.server.up().await;
    let heard = loop {
        match soon(tail.next()).await.unwrap() {
            Heard::CaughtUp | Heard::UpTo(_) => {}
            heard => break heard,
        }
    };
    let anew = Missed {
        from: 4,
        to: None,
        next: 1,
    };
    assert_eq!(heard, Heard::Missed(anew));
    assert_eq!(take(&mut tail, 5).await, [1, 2, 3, 4, 5]);
}
