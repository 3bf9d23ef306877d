//! The gateway as a whole, with a real nats-server that goes away and comes back.

use std::{
    collections::BTreeSet,
    sync::Mutex,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use bus::{Delivery, Failure, Handler, Outcome};
use chassis::http::Grant;
use model::{CrawlRecord, Digest, Known, RecordKey, Slug, What, event::REFS};
use serde_json::json;
use testkit::{NatsServer, RegistryOptions, RegistryServer, TempDir, clean_image};
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::*;
use crate::router::Routed;

const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "demo-hook-token";

/// A gateway without a router.
struct World {
    cx: Cx,
    bus: Bus,
    router: axum::Router,
    nats: NatsServer,
    _dir: TempDir,
}

/// Stands in for the router: notes which events arrive.
#[derive(Default)]
struct Arrivals(Mutex<BTreeSet<String>>);

impl Handler for Arrivals {
    type Input = Routed;

    async fn handle(&self, delivery: Delivery<Routed>) -> Result<Outcome, Failure> {
        let name = match delivery.body {
            Routed::Pushed(event) => event.tag.unwrap_or_default(),
            Routed::Deleted(event) => event.repository,
            Routed::Requested(event) => event.id,
            Routed::Sighted(event) => event.image.to_string(),
        };
        self.0.lock().unwrap().insert(name);
        Ok(Outcome::none())
    }
}

async fn bus_of(cx: &Cx, nats: &NatsServer) -> Bus {
    let config = bus::Config {
        url: Some(nats.url()),
        lease_ms: 1500,
        retry_ms: 100,
        ..bus::Config::default()
    };
    let bus = Bus::connect(cx, &config, "test").await.unwrap();
    bus.provision().await.unwrap();
    bus
}

async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl World {
    async fn start(spool_bytes_max: u64) -> Option<Self> {
        let nats = NatsServer::start()?;
        let cx = Cx::for_tests();
        let bus = bus_of(&cx, &nats).await;
        let dir = testkit::temp_dir();
        let source = json!({
            "name": "main",
            "registry": "registry.example:5000",
            "hook_token_sha256": Digest::of(TOKEN.as_bytes()).hex(),
        });
        let config = Config {
            data_dir: dir.path().to_owned(),
            sources: vec![serde_json::from_value(source).unwrap()],
            spool_bytes_max,
            ..Config::default()
        };
        let router = run(&cx, &bus, &config).await.unwrap();
        Some(Self {
            cx,
            bus,
            router,
            nats,
            _dir: dir,
        })
    }

    /// Sends a webhook about a tag; status and whether it says when to come again.
    async fn push(&self, tag: &str) -> (StatusCode, bool) {
        let body = json!({"events": [{
            "id": tag,
            "action": "push",
            "target": {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "repository": "team/app",
                "tag": tag,
                "digest": Digest::of(tag.as_bytes()),
            },
        }]});
        let request = Request::post("/hooks/main")
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Body::from(body.to_string()));
        self.send(request.unwrap()).await
    }

    async fn scan(&self, key: &str) -> (StatusCode, bool) {
        let grant = Grant {
            name: "ci".to_owned(),
            tenant: "default".to_owned(),
            scopes: vec!["scan".to_owned()],
        };
        let request = Request::post("/v1/scans")
            .header("content-type", "application/json")
            .header("idempotency-key", key)
            .extension(grant)
            .body(Body::from(r#"{"image": "registry.example:5000/app:1"}"#));
        self.send(request.unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, bool) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        (
            answer.status(),
            answer.headers().contains_key("retry-after"),
        )
    }

    fn listen(&self) -> Arc<Arrivals> {
        let arrivals = Arc::<Arrivals>::default();
        let consume = Consume {
            stream: EVENTS.to_owned(),
            durable: "router".to_owned(),
            filter: String::new(),
            concurrency: 32,
            ack_wait: self.bus.config().ack_wait(),
        };
        self.bus
            .consume(&self.cx, consume, Arc::<Arrivals>::clone(&arrivals));
        arrivals
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nats_is_down_everything_is_accepted_within_300_ms_and_arrives_later() {
    let Some(mut world) = World::start(64 << 20).await else {
        return;
    };
    world.nats.kill();
    let world_here = &world;
    let mut took = Vec::new();
    for round in 0..30 {
        // Ten senders at once, and CI among them.
        let timed = async |number: usize| {
            let began = Instant::now();
            let answer = match number {
                9 => world_here.scan(&format!("build-{round}")).await,
                number => world_here.push(&format!("{round}-{number}")).await,
            };
            (answer, began.elapsed())
        };
        let answers = futures::future::join_all((0..10).map(timed)).await;
        for (answer, elapsed) in answers {
            assert_eq!(answer, (StatusCode::ACCEPTED, false));
            took.push(elapsed);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took.sort();
    let p99 = took[took.len() * 99 / 100];
    println!("p50 {:?}, p99 {p99:?}", took[took.len() / 2]);
    assert!(p99 < Duration::from_millis(300), "{p99:?}");
    world.nats.restart();
    let arrivals = world.listen();
    eventually("all arrive", async || {
        arrivals.0.lock().unwrap().len() == 300
    })
    .await;
    world.cx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_aloud_and_loses_nothing_it_accepted() {
    let Some(mut world) = World::start(64 << 10).await else {
        return;
    };
    world.nats.kill();
    let mut accepted = BTreeSet::new();
    for number in 0..1000 {
        let tag = format!("tag-{number}");
        match world.push(&tag).await {
            (StatusCode::ACCEPTED, false) => accepted.insert(tag),
            refused => {
                assert_eq!(refused, (StatusCode::SERVICE_UNAVAILABLE, true));
                break;
            }
        };
    }
    assert!((20..1000).contains(&accepted.len()), "{}", accepted.len());
    // A request that was refused does not hold its key.
    assert_eq!(world.scan("build").await.0, StatusCode::SERVICE_UNAVAILABLE);
    world.nats.restart();
    let arrivals = world.listen();
    eventually("what was accepted arrives", async || {
        *arrivals.0.lock().unwrap() == accepted
    })
    .await;
    eventually("there is room again", async || {
        world.push("later").await.0 == StatusCode::ACCEPTED
    })
    .await;
    world.cx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_webhook_told_of_is_crawled_by_one_process_at_a_time() {
    let Some(registry) = RegistryServer::start(RegistryOptions::default()) else {
        return;
    };
    let Some(nats) = NatsServer::start() else {
        return;
    };
    let image = clean_image();
    registry.push(image.clone(), "team/app", "1");
    let source = json!({
        "name": "main",
        "registry": registry.host(),
        "crawl": {"start_after_s": 0, "requests_per_second": 100},
    });
    let config = Config {
        sources: vec![serde_json::from_value(source).unwrap()],
        ..Config::default()
    };
    let cx = Cx::for_tests();
    let (_in_force, analyzers) = watch::channel(BTreeSet::new());
    let mut buses = Vec::new();
    for _ in 0..2 {
        let (bus, analyzers) = (bus_of(&cx, &nats).await, analyzers.clone());
        let sources = Arc::new(Sources::open(&cx, &config, None, None).await.unwrap());
        let routes = run_router(&cx, &bus, &config, sources, analyzers).await;
        assert!(routes.is_ok_and(|routes| !routes.has_routes()));
        buses.push(bus);
    }
    let store = buses[0].store();
    let key = RecordKey::new(&Slug::default_tenant(), image.digest, What::Known);
    eventually("the image is known", async || {
        store.record::<Known>(&key).await.unwrap().is_some()
    })
    .await;
    let name = "main".parse().unwrap();
    let key = CrawlRecord::key(&Slug::default_tenant(), &name);
    let record = async || store.get::<CrawlRecord>(REFS, &key).await.unwrap();
    eventually("the pass ended", async || {
        record()
            .await
            .is_some_and(|stored| stored.body.last_pass.is_some())
    })
    .await;
    let pass = record().await.unwrap().body.pass;
    assert_eq!((pass.number, pass.repositories, pass.found), (1, 1, 1));
    cx.stop();
    assert!(cx.finish(PATIENCE).await, "everything ends");
}
