mod pressure;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, future::BoxFuture};
use jiff::Timestamp;
use model::{
    Counts, Decision, Digest, Known, RecordKey, Slug, What,
    event::{
        DLQ, EVENTS, ImageJudged, ImagePushed, ImageScan, JOBS, Priority, RESULTS, images_bucket,
    },
};
use serde_json::Value;

use super::Consume;
use crate::{
    Bus, Delivery, Failure, Handler, Headers, Input, Outcome, PutError, decode,
    envelope::{Attributes, MESSAGE_ID},
    testing::{PATIENCE, World, eventually, letters, queue_is_empty},
    topology,
};

/// A handler made of a function.
struct Acting<I, F>(F, std::marker::PhantomData<fn(I)>);

type Answer = BoxFuture<'static, Result<Outcome, Failure>>;

impl<I, F> Handler for Acting<I, F>
where
    I: Input,
    F: Fn(Delivery<I>) -> Answer + Send + Sync + 'static,
{
    type Input = I;

    async fn handle(&self, delivery: Delivery<I>) -> Result<Outcome, Failure> {
        (self.0)(delivery).await
    }
}

fn acting<I: Input, R>(
    act: impl Fn(Delivery<I>) -> R + Send + Sync + 'static,
) -> Arc<impl Handler<Input = I>>
where
    R: Future<Output = Result<Outcome, Failure>> + Send + 'static,
{
    let boxed = move |delivery| -> Answer { Box::pin(act(delivery)) };
    Arc::new(Acting(boxed, std::marker::PhantomData))
}

fn tenant() -> Slug {
    Slug::default_tenant()
}

fn job(text: &str) -> ImageScan {
    ImageScan {
        image: Digest::of(text.as_bytes()),
        source: "main".parse().unwrap(),
        repository: "app".to_owned(),
        reference: format!("r.example/app:{text}"),
        index: None,
        cause: "event".to_owned(),
        priority: Priority::Norm,
        force: false,
        manifest: None,
        on_node: None,
    }
}

fn key(job: &ImageScan) -> RecordKey {
    RecordKey::new(&tenant(), job.image, What::Known)
}

fn judged(image: Digest) -> ImageJudged {
    ImageJudged {
        image,
        policy: "default".parse().unwrap(),
        decision: Decision::Allow,
        previous: None,
        reasons: Vec::new(),
        counts: Counts::default(),
        references: Vec::new(),
        assessed: 1,
        policy_revision: 1,
        judged_at: Timestamp::UNIX_EPOCH,
    }
}

fn jobs(bus: &Bus) -> Consume {
    Consume::new(bus, JOBS, "image_norm", 4)
}

async fn count(bus: &Bus, stream: &str) -> u64 {
    let info = bus
        .0
        .wire
        .api(&format!("STREAM.INFO.{stream}"), &Value::Null)
        .await
        .unwrap();
    info.pointer("/state/messages")
        .and_then(Value::as_u64)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_before_events_and_both_before_the_acknowledgment() {
    let Some(World {
        cx,
        bus,
        server: _server,
    }) = World::start().await
    else {
        return;
    };
    let mut news = bus.0.wire.client.subscribe("tw.res.>").await.unwrap();
    bus.0.wire.flush().await.unwrap();
    bus.consume(
        &cx,
        jobs(&bus),
        acting(async move |delivery: Delivery<ImageScan>| {
            let outcome = Outcome::none().put(&key(&delivery.body), &Known::default(), 0)?;
            Ok(outcome.emit(&delivery.tenant, &judged(delivery.body.image))?)
        }),
    );
    bus.publish(&tenant(), &job("one")).await.unwrap();
    let message = tokio::time::timeout(PATIENCE, news.next())
        .await
        .unwrap()
        .unwrap();
    assert!(
        bus.store()
            .record::<Known>(&key(&job("one")))
            .await
            .unwrap()
            .is_some()
    );
    let headers = crate::wire::headers(message.headers.as_ref());
    let id = headers.attribute("ce-id").unwrap();
    assert_eq!(headers.get(MESSAGE_ID), Some(&*id));
    assert_eq!(headers.get("ce-tenant"), Some("default"));
    assert_eq!(headers.get("ce-specversion"), Some("1.0"));
    assert_eq!(
        headers.get("ce-datacontenttype"),
        Some("application/msgpack")
    );
    queue_is_empty(&bus).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_writing_and_acknowledging_changes_nothing() {
    let Some(World {
        cx,
        bus,
        server: _server,
    }) = World::start().await
    else {
        return;
    };
    let (done, store, writer) = (Arc::new(AtomicU32::new(0)), bus.store(), bus.clone());
    let counted = Arc::clone(&done);
    bus.consume(
        &cx,
        jobs(&bus),
        acting(move |delivery: Delivery<ImageScan>| {
            let (store, writer, done) = (store.clone(), writer.clone(), Arc::clone(&counted));
            async move {
                let key = key(&delivery.body);
                let known = store.record::<Known>(&key).await?;
                let revision = known.map_or(0, |known| known.revision);
                let outcome = Outcome::none().put(&key, &Known::default(), revision)?;
                let event = judged(delivery.body.image);
                let outcome = outcome.emit(&delivery.tenant, &event)?;
                if delivery.attempt == 1 {
                    store.apply(&outcome).await.unwrap();
                    writer.publish(&delivery.tenant, &event).await.unwrap();
                    return Err(Failure::Retry(anyhow::anyhow!("as if it died here")));
                }
                done.fetch_add(1, Ordering::SeqCst);
                Ok(outcome)
            }
        }),
    );
    bus.publish(&tenant(), &job("one")).await.unwrap();
    queue_is_empty(&bus).await;
    assert_eq!(done.load(Ordering::SeqCst), 1);
    assert_eq!(count(&bus, RESULTS).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_runs_the_handler_again_at_once() {
    let Some(World {
        cx,
        bus,
        server: _server,
    }) = World::start().await
    else {
        return;
    };
    let (calls, attempts, store) = (
        Arc::new(AtomicU32::new(0)),
        Arc::new(AtomicU64::new(0)),
        bus.store(),
    );
    let (calls_here, attempts_here) = (Arc::clone(&calls), Arc::clone(&attempts));
    bus.consume(
        &cx,
        jobs(&bus),
        acting(move |delivery: Delivery<ImageScan>| {
            let store = store.clone();
            let (calls, attempts) = (Arc::clone(&calls_here), Arc::clone(&attempts_here));
            async move {
                attempts.fetch_max(delivery.attempt, Ordering::SeqCst);
                let key = key(&delivery.body);
                let read = store
                    .record::<Known>(&key)
                    .await?
                    .map_or(0, |known| known.revision);
                if calls.fetch_add(1, Ordering::SeqCst) < 2 {
                    let other = store.put_record(&key, &Known::default(), read).await;
                    assert!(other.is_ok());
                }
                Ok(Outcome::none().put(&key, &Known::default(), read)?)
            }
        }),
    );
    bus.publish(&tenant(), &job("one")).await.unwrap();
    queue_is_empty(&bus).await;
    assert_eq!(
        (
            calls.load(Ordering::SeqCst),
            attempts.load(Ordering::SeqCst)
        ),
        (3, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rejected_becomes_a_dead_letter() {
    let Some(World {
        cx,
        bus,
        server: _server,
    }) = World::start().await
    else {
        return;
    };
    bus.consume(
        &cx,
        jobs(&bus),
        acting(async |_: Delivery<ImageScan>| {
            Err(Failure::Reject(
                anyhow::anyhow!("no such media type").context("scanning"),
            ))
        }),
    );
    bus.publish(&tenant(), &job("one")).await.unwrap();
    let letters = letters(&bus, 1).await;
    let letter = &letters[0];
    assert_eq!((&*letter.stream, &*letter.consumer), (JOBS, "image_norm"));
    insta::assert_snapshot!(letter.cause, @"scanning: no such media type");
    assert_eq!(decode::<ImageScan>(&letter.body).unwrap(), job("one"));
    assert!(letter.headers.iter().any(|(name, _)| name == "ce-id"));
    queue_is_empty(&bus).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_cannot_be_read_become_dead_letters_and_unknown_types_are_skipped() {
    let Some(World {
        cx,
        bus,
        server: _server,
    }) = World::start().await
    else {
        return;
    };
    bus.consume(
        &cx,
        jobs(&bus),
        acting(async |_: Delivery<ImageScan>| panic!("nothing here can be decoded")),
    );
    let send = async |kind: &str, tenant: &str| {
        let mut headers = Headers::default();
        headers.describe(&Attributes {
            id: "id",
            kind,
            source: "/test",
            tenant: Some(&tenant.parse().unwrap()),
            time: Timestamp::UNIX_EPOCH,
        });
        bus.0
            .wire
            .store("tw.job.image.norm.default", &headers, "no map".into())
            .await
            .unwrap();
    };
    send("io.tidewaiter.image.scan.v1", "default").await;
    send("io.tidewaiter.image.scan.v1", "another").await;
    send("io.tidewaiter.image.scan.v99", "default").await;
    let causes: Vec<_> = letters(&bus, 2)
        .await
        .into_iter()
        .map(|letter| letter.cause)
        .collect();
    assert!(
        causes
            .iter()
            .any(|cause| cause.contains("cannot be decoded")),
        "{causes:?}"
    );
    assert!(
        causes
            .iter()
            .any(|cause| cause.contains("`ce-tenant` is `another`")),
        "{causes:?}"
    );
    queue_is_empty(&bus).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_comes_again_with_a_higher_attempt() {
    let Some(World {
        cx,
        bus,
        server: _server,
    }) = World::start().await
    else {
        return;
    };
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&attempts);
    bus.consume(
        &cx,
        jobs(&bus),
        acting(move |delivery: Delivery<ImageScan>| {
            seen.lock().unwrap().push(delivery.attempt);
            async move {
                if delivery.attempt < 3 {
                    return Err(Failure::Retry(anyhow::anyhow!("source is down")));
                }
                Ok(Outcome::none())
            }
        }),
    );
    bus.publish(&tenant(), &job("one")).await.unwrap();
    queue_is_empty(&bus).await;
    assert_eq!(*attempts.lock().unwrap(), [1, 2, 3]);
    assert_eq!(count(&bus, DLQ).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_three_times_makes_a_dead_letter() {
    let Some(World {
        cx,
        bus,
        server: _server,
    }) = World::start().await
    else {
        return;
    };
    bus.consume(
        &cx,
        jobs(&bus),
        acting(async |delivery: Delivery<ImageScan>| {
            assert!(!delivery.body.reference.contains("poison"), "poison");
            Ok(Outcome::none())
        }),
    );
    bus.publish(&tenant(), &job("poison")).await.unwrap();
    bus.publish(&tenant(), &job("healthy")).await.unwrap();
    let letters = letters(&bus, 1).await;
    insta::assert_snapshot!(letters[0].cause, @"the handler panicked: poison");
    queue_is_empty(&bus).await;
    assert!(!cx.is_stopping());
}

/// Counts how often and when a slow handler runs.
async fn run_slowly(world: &mut World, takes: Duration, away: Option<Duration>) -> u32 {
    let World { cx, bus, server } = world;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    bus.consume(
        cx,
        jobs(bus),
        acting(move |_: Delivery<ImageScan>| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(takes).await;
                Ok(Outcome::none())
            }
        }),
    );
    bus.publish(&tenant(), &job("slow")).await.unwrap();
    eventually("it runs", async || calls.load(Ordering::SeqCst) == 1).await;
    if let Some(away) = away {
        server.down();
        tokio::time::sleep(away).await;
        server.up().await;
    }
    queue_is_empty(bus).await;
    calls.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_handler_is_kept_alive() {
    let Some(mut world) = World::start().await else {
        return;
    };
    // Twice the time to acknowledge.
    assert_eq!(
        run_slowly(&mut world, Duration::from_secs(4), None).await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_again_while_it_is_held_is_not_handled_twice() {
    let Some(mut world) = World::start().await else {
        return;
    };
    // The server is away for longer than the time to acknowledge, so it delivers again.
    let away = Some(Duration::from_secs(3));
    assert_eq!(
        run_slowly(&mut world, Duration::from_secs(7), away).await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_after_a_crash_of_the_server() {
    let Some(World {
        cx,
        bus,
        mut server,
    }) = World::start().await
    else {
        return;
    };
    let seen = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
    let inserted = Arc::clone(&seen);
    bus.consume(
        &cx,
        jobs(&bus),
        acting(move |delivery: Delivery<ImageScan>| {
            let seen = Arc::clone(&inserted);
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                seen.lock().unwrap().insert(delivery.body.reference);
                Ok(Outcome::none())
            }
        }),
    );
    for n in 0..50 {
        bus.publish(&tenant(), &job(&n.to_string())).await.unwrap();
    }
    server.down();
    server.up().await;
    for n in 50..60 {
        bus.publish(&tenant(), &job(&n.to_string())).await.unwrap();
    }
    queue_is_empty(&bus).await;
    assert_eq!(seen.lock().unwrap().len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_deleted_at_run_time_is_made_again() {
    let Some(World {
        cx,
        bus,
        server: _server,
    }) = World::start().await
    else {
        return;
    };
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    bus.consume(
        &cx,
        jobs(&bus),
        acting(move |_: Delivery<ImageScan>| {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Ok(Outcome::none()) }
        }),
    );
    bus.publish(&tenant(), &job("one")).await.unwrap();
    queue_is_empty(&bus).await;
    let asked = format!("CONSUMER.DELETE.{JOBS}.image_norm");
    bus.0.wire.api(&asked, &Value::Null).await.unwrap();
    bus.publish(&tenant(), &job("two")).await.unwrap();
    queue_is_empty(&bus).await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_when_the_process_stops_is_given_back_at_once() {
    let Some(world) = World::start().await else {
        return;
    };
    let (other_cx, other) = world.other().await;
    let started = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&started);
    other.consume(
        &other_cx,
        jobs(&other),
        acting(move |_: Delivery<ImageScan>| {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::pending()
        }),
    );
    world.bus.publish(&tenant(), &job("one")).await.unwrap();
    eventually("it runs", async || started.load(Ordering::SeqCst) == 1).await;
    let stopped = Instant::now();
    other_cx.stop();
    assert!(other_cx.finish(Duration::from_secs(5)).await);
    world.bus.consume(
        &world.cx,
        jobs(&world.bus),
        acting(async |_: Delivery<ImageScan>| Ok(Outcome::none())),
    );
    queue_is_empty(&world.bus).await;
    // Sooner than by waiting for the time to acknowledge to pass.
    assert!(
        stopped.elapsed() < Duration::from_millis(1_900),
        "{:?}",
        stopped.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_a_record_is_an_event_with_its_key_and_revision() {
    let Some(World {
        cx,
        bus,
        server: _server,
    }) = World::start().await
    else {
        return;
    };
    let key = key(&job("one"));
    let partition = key.image.partition();
    let stream = topology::bucket_stream(&images_bucket(partition));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let pushed = Arc::clone(&seen);
    let consume = Consume::new(&bus, &stream, &format!("policy_known_{partition}"), 8);
    bus.consume(
        &cx,
        consume,
        acting(move |delivery: Delivery<Known>| {
            let labels = delivery.body.labels.get("a").map_or(0, String::len);
            pushed
                .lock()
                .unwrap()
                .push((delivery.key.unwrap(), delivery.sequence, labels));
            async { Ok(Outcome::none()) }
        }),
    );
    let known = |bytes: usize| Known {
        labels: [("a".to_owned(), "x".repeat(bytes))].into(),
        ..Known::default()
    };
    let store = bus.store();
    let first = store.put_record(&key, &known(1), 0).await.unwrap();
    eventually("the first", async || seen.lock().unwrap().len() == 1).await;
    let second = store.put_record(&key, &known(10_000), first).await.unwrap();
    eventually("the second", async || seen.lock().unwrap().len() == 2).await;
    store
        .delete(&images_bucket(partition), &key.to_string())
        .await
        .unwrap();
    let third = store.put_record(&key, &known(3), 0).await.unwrap();
    eventually("the third", async || seen.lock().unwrap().len() == 3).await;
    let expected = [
        (key.clone(), first, 1),
        (key.clone(), second, 10_000),
        (key, third, 3),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}

/// What the router takes: several types on one consumer.
#[derive(Debug)]
enum Routed {
    Pushed(ImagePushed),
}

impl Input for Routed {
    fn decode(kind: &str, body: &[u8]) -> Result<Option<Self>, crate::DecodeError> {
        let pushed = <ImagePushed as Input>::decode(kind, body)?;
        Ok(pushed.map(Self::Pushed))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_are_handled_once_each() {
    let Some(World {
        cx,
        bus,
        server: _server,
    }) = World::start().await
    else {
        return;
    };
    let seen = Arc::new(Mutex::new(std::collections::HashMap::<String, u32>::new()));
    let counted = Arc::clone(&seen);
    bus.consume(
        &cx,
        Consume::new(&bus, EVENTS, "router", 32),
        acting(move |delivery: Delivery<Routed>| {
            let Routed::Pushed(pushed) = delivery.body;
            *counted
                .lock()
                .unwrap()
                .entry(pushed.repository)
                .or_default() += 1;
            async { Ok(Outcome::none()) }
        }),
    );
    let push = |n: usize| crate::testing::pushed(&format!("app-{n}"));
    futures::stream::iter(0..1_000)
        .map(async |n| bus.publish(&tenant(), &push(n)).await.unwrap())
        .buffer_unordered(100)
        .count()
        .await;
    // The same again: the stream knows their ids.
    bus.publish(&tenant(), &push(7)).await.unwrap();
    eventually("all", async || seen.lock().unwrap().len() == 1_000).await;
    assert!(seen.lock().unwrap().values().all(|count| *count == 1));
    assert_eq!(count(&bus, EVENTS).await, 1_000);
}

/// A record whose body is an object.
fn large(byte: &str) -> Known {
    Known {
        labels: [("a".to_owned(), byte.repeat(10_000))].into(),
        ..Known::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_body_is_deleted_later_unless_it_is_named() {
    let Some(world) = World::start().await else {
        return;
    };
    let cx = chassis::Cx::for_tests();
    let config = crate::Config {
        discard_after_s: 1,
        ..world.server.config()
    };
    let bus = Bus::connect(&cx, &config, "janitor").await.unwrap();
    let (store, key) = (bus.store(), key(&job("one")));
    let read_store = store.clone();
    bus.consume(
        &cx,
        jobs(&bus),
        acting(move |delivery: Delivery<ImageScan>| {
            let store = read_store.clone();
            async move {
                let key = self::key(&delivery.body);
                let known = store.record::<Known>(&key).await?;
                let revision = known.map_or(0, |known| known.revision);
                Ok(Outcome::none().put(&key, &large(&delivery.body.cause), revision)?)
            }
        }),
    );
    let objects = async || count(&bus, "OBJ_tw_reports").await;
    for cause in ["a", "b", "c"] {
        let job = ImageScan {
            cause: cause.to_owned(),
            ..job("one")
        };
        bus.publish(&tenant(), &job).await.unwrap();
        queue_is_empty(&bus).await;
    }
    eventually("one body is left", async || objects().await == 1).await;
    assert_eq!(
        store.record::<Known>(&key).await.unwrap().unwrap().body,
        large("c")
    );
    let conflict = store.put_record(&key, &large("d"), 1).await;
    assert!(matches!(conflict, Err(PutError::Conflict)), "{conflict:?}");
    // Who writes without a handler, as a sweep does, leaves nothing behind either.
    let known = store.record::<Known>(&key).await.unwrap().unwrap();
    store
        .put_record(&key, &large("e"), known.revision)
        .await
        .unwrap();
    assert_eq!(objects().await, 2);
    eventually("one body is left", async || objects().await == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_a_message_to_what_follows_from_it() {
    use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
    use tracing::Instrument as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    let Some(World {
        cx,
        bus,
        server: _server,
    }) = World::start().await
    else {
        return;
    };
    let propagator = opentelemetry_sdk::propagation::TraceContextPropagator::new();
    opentelemetry::global::set_text_map_propagator(propagator);
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let mut news = bus.0.wire.client.subscribe("tw.res.>").await.unwrap();
    bus.0.wire.flush().await.unwrap();
    bus.consume(
        &cx,
        jobs(&bus),
        acting(async |delivery: Delivery<ImageScan>| {
            Ok(Outcome::none().emit(&delivery.tenant, &judged(delivery.body.image))?)
        }),
    );
    let root = tracing::info_span!("webhook");
    let trace = root.context().span().span_context().trace_id().to_string();
    bus.publish(&tenant(), &job("one"))
        .instrument(root)
        .await
        .unwrap();
    let message = tokio::time::timeout(PATIENCE, news.next())
        .await
        .unwrap()
        .unwrap();
    let headers = crate::wire::headers(message.headers.as_ref());
    let parent = headers.get("traceparent").unwrap();
    assert_eq!(parent.split('-').nth(1), Some(&*trace), "{parent}");
}
