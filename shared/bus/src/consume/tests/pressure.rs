//! What is large, full, shared or given back.

use super::*;
use crate::{
    Outbox, Slots, Start, WentBy, encode,
    testing::{alert, pushed, soon},
};

async fn stored_bytes(bus: &Bus, stream: &str) -> u64 {
    let info = bus
        .0
        .wire
        .api(&format!("STREAM.INFO.{stream}"), &Value::Null)
        .await
        .unwrap();
    info.pointer("/state/bytes")
        .and_then(Value::as_u64)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_travels_as_an_object_and_a_lost_one_is_a_dead_letter() {
    let Some(world) = World::start().await else {
        return;
    };
    let World { bus, cx, .. } = &world;
    let large = pushed(&"x".repeat(600_000));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let came = Arc::clone(&seen);
    let record = move |delivery: Delivery<Routed>| {
        let Routed::Pushed(event) = delivery.body;
        came.lock().unwrap().push(event);
        async { Ok(Outcome::none()) }
    };
    bus.publish(&tenant(), &large).await.unwrap();
    assert!(stored_bytes(bus, EVENTS).await < 5_000);
    assert_eq!(count(bus, "OBJ_tw_claims").await, 3);
    let start = Start::Sequence(1);
    let mut tail = bus.tail(cx, EVENTS, start, "").await.unwrap();
    let read = soon(tail.next()).await.unwrap().message().unwrap();
    let read: ImagePushed = decode(&read.body.unwrap()).unwrap();
    assert!(read == large, "the body is another one");
    // Somebody else's outbox, while NATS is away or not.
    let dir = tempfile::TempDir::new().unwrap();
    let outbox = Outbox::open(cx, bus, dir.path(), 10_000_000).unwrap();
    let spooled = pushed(&"y".repeat(300_000));
    outbox.enqueue(&tenant(), &spooled).await.unwrap();
    eventually("it is published", async || outbox.pending() == 0).await;
    bus.consume(cx, Consume::new(bus, EVENTS, "router", 4), acting(record));
    eventually("both came", async || seen.lock().unwrap().len() == 2).await;
    let came = seen.lock().unwrap().clone();
    // Not `assert_eq!`: it would print them.
    assert!(came.contains(&large) && came.contains(&spooled));

    let lost = pushed(&"z".repeat(300_000));
    let body = encode(&lost).unwrap();
    let (bucket, digest) = (model::event::CLAIM_OBJECTS, Digest::of(&body));
    // The object goes before anybody takes the message.
    cx.stop();
    assert!(cx.finish(Duration::from_secs(5)).await);
    let (other_cx, other) = world.other().await;
    other.publish(&tenant(), &lost).await.unwrap();
    other.store().delete_object(bucket, &digest).await.unwrap();
    let consume = Consume::new(&other, EVENTS, "router", 4);
    other.consume(
        &other_cx,
        consume,
        acting(async |_: Delivery<Routed>| panic!("there is nothing to handle")),
    );
    let letters = letters(&other, 1).await;
    assert!(letters[0].cause.contains("is gone"), "{}", letters[0].cause);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_makes_its_publisher_wait_and_nobody_else() {
    let Some(world) = World::start().await else {
        return;
    };
    let World { bus, cx, .. } = &world;
    let listed = topology::streams(bus.config());
    let mut settings = listed
        .into_iter()
        .find(|stream| stream.name == JOBS)
        .unwrap()
        .settings;
    settings["max_msgs"] = 1.into();
    let asked = format!("STREAM.UPDATE.{JOBS}");
    bus.0.wire.api(&asked, &settings).await.unwrap();
    let routes = acting(async |delivery: Delivery<Routed>| {
        let Routed::Pushed(pushed) = delivery.body;
        Ok(Outcome::none().emit(&delivery.tenant, &job(&pushed.repository))?)
    });
    bus.consume(cx, Consume::new(bus, EVENTS, "router", 4), routes);
    let judged_seen = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&judged_seen);
    let news = acting(move |_: Delivery<ImageJudged>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok(Outcome::none()) }
    });
    bus.consume(cx, Consume::new(bus, RESULTS, "alerting", 4), news);
    assert!(bus.full().is_empty());
    for name in ["one", "two"] {
        let event = pushed(name);
        bus.publish(&tenant(), &event).await.unwrap();
    }
    eventually("it is seen", async || !bus.full().is_empty()).await;
    assert_eq!(bus.full(), ["tw.job.image.norm.{tenant}"]);
    assert_eq!(count(bus, JOBS).await, 1);
    let judged = judged(Digest::of(b"other"));
    bus.publish(&tenant(), &judged).await.unwrap();
    eventually("others go on", async || {
        judged_seen.load(Ordering::SeqCst) == 1
    })
    .await;
    // Room again: both jobs get through, and nothing was given up meanwhile.
    bus.consume(
        cx,
        jobs(bus),
        acting(async |_: Delivery<ImageScan>| Ok(Outcome::none())),
    );
    eventually("the router has nothing left", async || {
        bus.backlog(EVENTS, "router")
            .await
            .is_ok_and(|left| left == 0)
    })
    .await;
    queue_is_empty(bus).await;
    assert_eq!(count(bus, DLQ).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_low_priority_leave_the_reserved_slots_to_others() {
    let Some(World {
        cx,
        bus,
        server: _server,
    }) = World::start().await
    else {
        return;
    };
    let slots = Slots::new(4, 1, 1);
    let running = Arc::new(Mutex::new(Vec::new()));
    for priority in Priority::ALL {
        let consume = Consume::new(&bus, JOBS, &format!("image_{priority}"), 16);
        let begun = Arc::clone(&running);
        let hang = acting(move |delivery: Delivery<ImageScan>| {
            begun.lock().unwrap().push(delivery.body.priority);
            std::future::pending()
        });
        bus.consume_sharing(&cx, consume, (&slots, priority), hang);
    }
    let publish = async |priority: Priority, from: u32| {
        for n in from..from + 6 {
            let job = ImageScan {
                priority,
                ..job(&format!("{priority}-{n}"))
            };
            bus.publish(&tenant(), &job).await.unwrap();
        }
    };
    let begin = async |priority: Priority, wanted: usize| {
        eventually("jobs begin", async || {
            let running = running.lock().unwrap();
            running.iter().filter(|one| **one == priority).count() == wanted
        })
        .await;
    };
    publish(Priority::Low, 0).await;
    begin(Priority::Low, 2).await;
    publish(Priority::Norm, 0).await;
    begin(Priority::Norm, 1).await;
    publish(Priority::High, 0).await;
    begin(Priority::High, 1).await;
    bus.look().await;
    let queues = bus.queues();
    let low = queues
        .iter()
        .find(|queue| queue.consumer == "image_low")
        .unwrap();
    assert_eq!((low.pending, low.in_flight), (4, 2));
    assert!(low.oldest_age.is_some_and(|age| age < PATIENCE));
    assert_eq!(running.lock().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_and_not_begun_is_given_back_too() {
    let Some(world) = World::start().await else {
        return;
    };
    let (other_cx, other) = world.other().await;
    // One slot for all: the second job waits for it in the process.
    let slots = Slots::new(1, 0, 0);
    let started = Arc::new(AtomicU32::new(0));
    for priority in [Priority::Norm, Priority::Low] {
        let counted = Arc::clone(&started);
        let consume = Consume::new(&other, JOBS, &format!("image_{priority}"), 1);
        let hang = acting(move |_: Delivery<ImageScan>| {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::pending()
        });
        other.consume_sharing(&other_cx, consume, (&slots, priority), hang);
        let job = ImageScan {
            priority,
            ..job(priority.as_str())
        };
        world.bus.publish(&tenant(), &job).await.unwrap();
    }
    eventually("one runs and one waits", async || {
        let held = async |durable: &str| other.0.held(JOBS, durable).count();
        started.load(Ordering::SeqCst) == 1
            && held("image_norm").await + held("image_low").await == 2
    })
    .await;
    other_cx.stop();
    assert!(other_cx.finish(Duration::from_secs(5)).await);
    let stopped = Instant::now();
    let done = Arc::new(AtomicU32::new(0));
    for priority in [Priority::Norm, Priority::Low] {
        let counted = Arc::clone(&done);
        let consume = Consume::new(&world.bus, JOBS, &format!("image_{priority}"), 1);
        let work = acting(move |_: Delivery<ImageScan>| {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Ok(Outcome::none()) }
        });
        world.bus.consume(&world.cx, consume, work);
    }
    eventually("both are done", async || done.load(Ordering::SeqCst) == 2).await;
    assert!(stopped.elapsed() < Duration::from_millis(1_900));
    assert_eq!(started.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_nobody_serves_and_a_spool_that_cannot_drain_are_told() {
    let Some(mut world) = World::start().await else {
        return;
    };
    world
        .bus
        .publish(&tenant(), &pushed("waits"))
        .await
        .unwrap();
    let queues = world.bus.survey().await.unwrap();
    assert!(world.bus.queues().is_empty(), "this process serves none");
    let router = queues
        .iter()
        .find(|queue| queue.consumer == "router")
        .unwrap();
    assert_eq!((router.pending, router.in_flight), (1, 0));
    assert!(router.oldest_age.is_some());
    assert_eq!(world.bus.dead_letter_count().await.unwrap(), 0);

    assert_eq!(world.bus.spool(), None);
    let dir = tempfile::TempDir::new().unwrap();
    let outbox = Outbox::open(&world.cx, &world.bus, dir.path(), 10_000_000).unwrap();
    world.server.down();
    outbox.enqueue(&tenant(), &pushed("spooled")).await.unwrap();
    let spool = world.bus.spool().unwrap();
    assert_eq!((spool.events, spool.bytes_max), (1, 10_000_000));
    assert!(spool.bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_stream_drops_before_a_sink_takes_it_is_counted_once() {
    let Some(world) = World::start().await else {
        return;
    };
    let wire = &world.bus.0.wire;
    let info = wire.api("STREAM.INFO.ALERTS", &Value::Null).await;
    let mut config = info.unwrap()["config"].take();
    config["max_msgs"] = 3.into();
    wire.api("STREAM.UPDATE.ALERTS", &config).await.unwrap();
    let consume = Consume::new(&world.bus, "ALERTS", "sink_slow", 1);
    let begun = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&begun);
    let hang = acting(move |_: Delivery<model::event::Alert>| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::pending()
    });
    world.bus.consume(&world.cx, consume, hang);
    let publish = async |numbers: std::ops::Range<u64>| {
        for number in numbers {
            let alert = alert(&number.to_string());
            world.bus.publish(&tenant(), &alert).await.unwrap();
        }
    };
    publish(0..1).await;
    eventually("it has one", async || begun.load(Ordering::SeqCst) == 1).await;
    world.bus.look().await;
    assert_eq!(world.bus.went_by(), []);
    // Of ten, the sink has the first and the stream the last three.
    publish(1..10).await;
    let lost = |messages| {
        [WentBy {
            stream: "ALERTS".to_owned(),
            consumer: "sink_slow".to_owned(),
            messages,
        }]
    };
    for _ in 0..2 {
        world.bus.look().await;
        assert_eq!(world.bus.went_by(), lost(6));
    }
    publish(10..12).await;
    world.bus.look().await;
    assert_eq!(world.bus.went_by(), lost(8));
    // What was gone before a sink was there is nothing that it lost.
    let late = Consume::new(&world.bus, "ALERTS", "sink_late", 1);
    let counted = Arc::clone(&begun);
    let hang = acting(move |_: Delivery<model::event::Alert>| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::pending()
    });
    world.bus.consume(&world.cx, late, hang);
    eventually("it has one", async || begun.load(Ordering::SeqCst) == 2).await;
    world.bus.look().await;
    assert_eq!(world.bus.went_by(), lost(8));
}
