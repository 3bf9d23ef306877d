//! Delivery on a real broker: outages, crashes, groups.

use std::sync::Arc;

use bus::Consume;
use model::{
    Slug,
    event::{DLQ, Event as _},
};
use serde_json::json;
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
};

use super::*;
use crate::testing::{Receiver, World, connect, eventually, numbered};

fn sink(url: &str, more: &serde_json::Value) -> Sink {
    let mut config = json!({ "type": "webhook", "url": format!("{url}/200") });
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

fn handler(cx: &Cx, name: &str, sink: &Sink) -> SinkHandler {
    let name: Slug = name.parse().unwrap();
    SinkHandler::new(cx, &name, sink, &send::client().unwrap()).unwrap()
}

fn serve(cx: &Cx, bus: &Bus, name: &str, sink: &Sink) -> Arc<SinkHandler> {
    start(cx, bus, name, handler(cx, name, sink))
}

fn start(cx: &Cx, bus: &Bus, name: &str, handler: SinkHandler) -> Arc<SinkHandler> {
    let handler = Arc::new(handler);
    let consume = Consume {
        stream: ALERTS.to_owned(),
        durable: format!("{SINK}{name}"),
        filter: String::new(),
        concurrency: handler.places(4),
        ack_wait: bus.config().ack_wait(),
    };
    bus.consume(cx, consume, Arc::clone(&handler));
    handler
}

/// A process that can be killed: nothing that it holds is given back.
async fn process(url: &str, sink: &Sink) -> (Runtime, Arc<SinkHandler>) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (sender, receiver) = oneshot::channel();
    let (url, sink) = (url.to_owned(), sink.clone());
    runtime.spawn(async move {
        let cx = Cx::for_tests();
        let bus = connect(&cx, &url).await;
        drop(sender.send(serve(&cx, &bus, "team", &sink)));
        std::future::pending::<()>().await;
    });
    (runtime, receiver.await.unwrap())
}

async fn publish(world: &World, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let alert = numbered(number);
        world
            .bus
            .publish(&Slug::default_tenant(), &alert)
            .await
            .unwrap();
    }
}

async fn until_acknowledged(world: &World, name: &str) {
    let durable = format!("{SINK}{name}");
    eventually("everything is acknowledged", async || {
        world.bus.backlog(ALERTS, &durable).await.unwrap() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_one_sink_loses_nothing_and_holds_up_no_other() {
    let Some(world) = World::start().await else {
        return;
    };
    let (failing, healthy) = (Receiver::failing(2), Receiver::default());
    let url = failing.start(&world.cx).await;
    serve(&world.cx, &world.bus, "away", &sink(&url, &json!({})));
    let url = healthy.start(&world.cx).await;
    serve(&world.cx, &world.bus, "here", &sink(&url, &json!({})));
    publish(&world, 0..6).await;
    until_acknowledged(&world, "here").await;
    until_acknowledged(&world, "away").await;
    let mut expected: Vec<_> = (0..6)
        .map(|number| numbered(number).message_id(&Slug::default_tenant()))
        .collect();
    expected.sort();
    let mut got = healthy.ids();
    got.sort();
    assert_eq!(got, expected, "each once");
    let mut got = failing.ids();
    assert_eq!(got.len(), 8, "each once, and two copies that failed");
    got.sort();
    got.dedup();
    assert_eq!(got, expected);
    world.cx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_away_for_longer_than_anything_is_tried_gets_everything_in_the_end() {
    let Some(world) = World::start().await else {
        return;
    };
    // Here everything else is given up after its second failure.
    let config = bus::Config {
        retry_for_s: 0,
        ..world.bus.config().clone()
    };
    let bus = Bus::connect(&world.cx, &config, "test").await.unwrap();
    let (away, slow) = (Receiver::failing(4), Receiver::default());
    *slow.is_hanging.lock().unwrap() = true;
    for (name, receiver) in [("away", &away), ("slow", &slow)] {
        let sink = sink(
            &receiver.start(&world.cx).await,
            &json!({"timeout_ms": 60_000}),
        );
        let handler = handler(&world.cx, name, &sink).holding(std::time::Duration::ZERO);
        start(&world.cx, &bus, name, handler);
    }
    publish(&world, 0..3).await;
    eventually("it is seen", async || {
        world.cx.notes().all().contains_key("sink away")
    })
    .await;
    until_acknowledged(&world, "away").await;
    assert_eq!(away.ids().len(), 4 + 3);
    assert!(!world.cx.notes().all().contains_key("sink away"));
    // The one that does not answer held up no other, and has its alerts still.
    assert_eq!(world.bus.backlog(ALERTS, "sink_slow").await.unwrap(), 3);
    let letters = world.bus.dead_letters(None, 10).await.unwrap();
    assert!(letters.letters.is_empty(), "{letters:?}");
    world.cx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_sending_and_acknowledging_sends_a_second_copy_under_the_same_id() {
    let Some(world) = World::start().await else {
        return;
    };
    let receiver = Receiver::default();
    let sink = sink(&receiver.start(&world.cx).await, &json!({}));
    *receiver.is_hanging.lock().unwrap() = true;
    let (runtime, _handler) = process(&world.server.url(), &sink).await;
    publish(&world, 0..1).await;
    eventually("the first copy arrives", async || receiver.ids().len() == 1).await;
    runtime.shutdown_background();
    *receiver.is_hanging.lock().unwrap() = false;
    serve(&world.cx, &world.bus, "team", &sink);
    until_acknowledged(&world, "team").await;
    let ids = receiver.ids();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
    world.cx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_survives_a_crash_whole_and_under_its_id() {
    let Some(world) = World::start().await else {
        return;
    };
    let receiver = Receiver::default();
    let url = receiver.start(&world.cx).await;
    let grouped = |seconds: u32| sink(&url, &json!({ "group_window_s": seconds }));
    // It dies while the window runs.
    let (runtime, handler) = process(&world.server.url(), &grouped(60)).await;
    publish(&world, 0..5).await;
    eventually("all wait for the window's end", async || {
        handler.waiting() == 5
    })
    .await;
    runtime.shutdown_background();
    assert_eq!(receiver.ids().len(), 0);
    // It dies after sending.
    *receiver.is_hanging.lock().unwrap() = true;
    let (runtime, _handler) = process(&world.server.url(), &grouped(2)).await;
    eventually("the group arrives", async || !receiver.ids().is_empty()).await;
    runtime.shutdown_background();
    *receiver.is_hanging.lock().unwrap() = false;
    serve(&world.cx, &world.bus, "team", &grouped(2));
    until_acknowledged(&world, "team").await;
    let events = receiver.events();
    assert_eq!(events.len(), 2, "{events:#?}");
    assert_eq!(events[0]["data"]["total"], 5, "{:#}", events[0]);
    assert_eq!(events[0]["id"], events[1]["id"]);
    assert_eq!(events[0]["data"], events[1]["data"]);
    world.cx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_refuses_gets_dead_letters_and_the_next_alert() {
    let Some(world) = World::start().await else {
        return;
    };
    let receiver = Receiver::default();
    let url = receiver.start(&world.cx).await;
    let refusing = sink(&url, &json!({ "url": format!("{url}/400") }));
    serve(&world.cx, &world.bus, "team", &refusing);
    publish(&world, 0..3).await;
    until_acknowledged(&world, "team").await;
    assert_eq!(receiver.ids().len(), 3);
    let letters = bus::ConsumerSpec::new(DLQ, "letters", "tw.dlq.ALERTS.sink_team", 10);
    world.bus.ensure_consumer(&letters).await.unwrap();
    let count = world.bus.backlog(DLQ, "letters").await.unwrap();
    assert_eq!(count, 3);
    world.cx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_nobody_serves_are_named() {
    let Some(world) = World::start().await else {
        return;
    };
    let spec = bus::ConsumerSpec::new(ALERTS, "sink_old", "", 1_000);
    world.bus.ensure_consumer(&spec).await.unwrap();
    let routes = run(&world.cx, &world.bus, &Config::default()).await;
    assert!(routes.is_ok());
    eventually("the sink `log` has its consumer", async || {
        let durables = world.bus.durables(ALERTS).await.unwrap();
        durables == ["sink_log", "sink_old"]
    })
    .await;
    let unserved = unserved(&world.bus, &Config::default()).await.unwrap();
    assert_eq!(unserved, ["old"]);
    world.cx.stop();
}
