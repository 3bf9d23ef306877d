use model::Slug;
use serde_json::Value;

use super::*;
use crate::{
    Start, Tail, Tailed,
    testing::{World, eventually, pushed, soon},
};

async fn publish(world: &World, repositories: &[&str]) {
    let tenant = Slug::default_tenant();
    for repository in repositories {
        let event = pushed(repository);
        world.bus.publish(&tenant, &event).await.unwrap();
    }
}

async fn next(tail: &mut Tail) -> Tailed {
    loop {
        if let Some(message) = soon(tail.next()).await.unwrap().message() {
            return message;
        }
    }
}

async fn repositories(tail: &mut Tail, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < count {
        let body = next(tail).await.body.unwrap();
        let event: Value = serde_json::from_slice(&body).unwrap();
        found.push(event["data"]["repository"].as_str().unwrap().to_owned());
    }
    found
}

/// Waits until a bridge holds the lease, and has looked where to begin.
async fn at_work(world: &World) {
    eventually("a bridge at work", async || {
        world.bus.lease_revision(LEASE).await.unwrap().is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn news_are_stored_once_as_json_however_many_bridges_there_are() {
    let Some(world) = World::start().await else {
        return;
    };
    publish(&world, &["a"]).await;
    let first = Begin::After(Position::default());
    // As a bridge of an installation that has one since its first day.
    let news = world
        .bus
        .news(&world.cx, first, Selection::default())
        .await
        .unwrap();
    drop(news);
    let mut json = world
        .bus
        .tail(&world.cx, JSON, Start::Sequence(1), "")
        .await
        .unwrap();
    let (cx, bus) = world.other().await;
    bus.bridge_json(&cx);
    at_work(&world).await;
    world.bus.bridge_json(&world.cx);
    // Where the first one begins is a matter of its start: something comes in the end.
    let mut n = 0;
    while world.bus.0.wire.last(JSON, "tw.json.>").await.is_err()
        || state(&world.bus.0.wire, JSON).await.unwrap().last == 0
    {
        n += 1;
        publish(&world, &[&format!("start-{n}")]).await;
    }
    let message = next(&mut json).await;
    assert_eq!(message.subject, "tw.json.evt.default.registry.pushed.main");
    let kind = message.headers.get("Content-Type").unwrap();
    assert!(kind.starts_with("application/cloudevents+json"), "{kind}");
    publish(&world, &["b", "c"]).await;
    loop {
        if repositories(&mut json, 1).await == ["b"] {
            break;
        }
    }
    assert_eq!(repositories(&mut json, 1).await, ["c"]);

    // The one at work stops; the other goes on where it ended.
    cx.stop();
    publish(&world, &["d", "e", "f"]).await;
    assert_eq!(repositories(&mut json, 3).await, ["d", "e", "f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_behind_another_message_than_the_last_is_refused() {
    let Some(world) = World::start().await else {
        return;
    };
    let message = Tailed {
        sequence: 1,
        time: jiff::Timestamp::UNIX_EPOCH,
        subject: "tw.evt.default.registry.pushed.main".to_owned(),
        headers: Headers::default(),
        body: None,
    };
    let position = Position::new([1, 0, 0]);
    let store = async |last| world.bus.bridge("EVENTS", &message, position, last).await;
    assert_eq!(store(0).await.unwrap(), 1);
    assert_eq!(store(1).await.unwrap(), 2);
    assert!(store(1).await.is_err());
    let End { begin, last } = world.bus.end_of_bridge().await.unwrap();
    assert_eq!((begin, last), (Begin::After(position), 2));
}
