//! What the tests of this crate need: a receiver, a broker, alerts.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};
use bus::{Bus, Failure, Outcome};
use chassis::Cx;
use jiff::Timestamp;
use model::{AlertState, Digest, Fingerprint, Severity, event::Alert};
use serde_json::Value;
use testkit::NatsServer;
use tokio::net::TcpListener;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The alert of every snapshot.
pub(crate) fn example() -> Alert {
    Alert {
        fingerprint: Fingerprint::of(&["example"]),
        state: AlertState::Raised,
        severity: Severity::Critical,
        title: "r.example/app:1: deny by policy default".to_owned(),
        text: "1 vulnerability: CVE-2024-0001 (critical) in openssl 3.0.1".to_owned(),
        image: Some(Digest::of(b"image")),
        references: vec!["r.example/app:1".to_owned()],
        event: "judged:1".to_owned(),
        at: Timestamp::UNIX_EPOCH,
        policy: Some("default".parse().unwrap()),
        reminder: 0,
    }
}

/// One of several alerts on the same repository.
pub(crate) fn numbered(number: u32) -> Alert {
    Alert {
        fingerprint: Fingerprint::of(&["example", &number.to_string()]),
        title: format!("r.example/app:{number}: deny by policy default"),
        event: format!("judged:{number}"),
        ..example()
    }
}

/// A receiver that answers as its path says, and keeps what it got.
#[derive(Clone, Default)]
pub(crate) struct Receiver {
    seen: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    /// So many requests are answered with 503 first.
    failing: Arc<Mutex<u32>>,
    /// Requests are kept, and not answered.
    pub(crate) is_hanging: Arc<Mutex<bool>>,
}

impl Receiver {
    /// Answers so many requests with 503 first.
    pub(crate) fn failing(count: u32) -> Self {
        let receiver = Self::default();
        *receiver.failing.lock().unwrap() = count;
        receiver
    }

    pub(crate) async fn start(&self, cx: &Cx) -> String {
        let routes = Router::new()
            .route("/{status}", post(answer))
            .with_state(self.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = cx.clone();
        cx.spawn("receiver", async move {
            tokio::select! {
                served = axum::serve(listener, routes).into_future() => served.unwrap(),
                () = stopped.stopped() => {}
            }
        });
        format!("http://{address}")
    }

    pub(crate) fn seen(&self) -> Vec<(HeaderMap, String)> {
        self.seen.lock().unwrap().clone()
    }

    /// The events that came, failed attempts included.
    pub(crate) fn events(&self) -> Vec<Value> {
        let seen = self.seen();
        let read = |(_, body): &(HeaderMap, String)| serde_json::from_str(body).unwrap();
        seen.iter().map(read).collect()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        let id = |event: &Value| event["id"].as_str().unwrap().to_owned();
        self.events().iter().map(id).collect()
    }
}

async fn answer(
    State(receiver): State<Receiver>,
    Path(status): Path<u16>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, [(&'static str, &'static str); 1], &'static str) {
    receiver.seen.lock().unwrap().push((headers, body));
    if status == 599 || *receiver.is_hanging.lock().unwrap() {
        std::future::pending::<()>().await;
    }
    let fails = {
        let mut failing = receiver.failing.lock().unwrap();
        let fails = *failing > 0;
        *failing = failing.saturating_sub(1);
        fails
    };
    let status = if fails { 503 } else { status };
    let status = StatusCode::from_u16(status).unwrap();
    let place = [("location", "http://elsewhere.example/")];
    (status, place, "because of the weather")
}

/// A broker, and a process on it.
pub(crate) struct World {
    pub(crate) server: NatsServer,
    pub(crate) cx: Cx,
    pub(crate) bus: Bus,
}

impl World {
    /// `None` where there is no nats-server.
    pub(crate) async fn start() -> Option<Self> {
        let server = NatsServer::start()?;
        let cx = Cx::for_tests();
        let bus = connect(&cx, &server.url()).await;
        bus.provision().await.unwrap();
        Some(Self { server, cx, bus })
    }
}

pub(crate) async fn connect(cx: &Cx, url: &str) -> Bus {
    let config = bus::Config {
        url: Some(url.to_owned()),
        ack_wait_ms: 1_500,
        grace_ms: 200,
        retry_ms: 100,
        ..bus::Config::default()
    };
    Bus::connect(cx, &config, "test").await.unwrap()
}

/// How a delivery ended.
pub(crate) fn ended(handled: Result<Outcome, Failure>) -> String {
    match handled {
        Ok(_) => "delivered".to_owned(),
        Err(Failure::Retry(error)) => format!("retry: {error:#}"),
        Err(Failure::Reject(error)) => format!("reject: {error:#}"),
        Err(Failure::Later(pause)) => format!("later: {pause:?}"),
    }
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// HMAC-SHA256 as RFC 2104 writes it, apart from the library that signs.
pub(crate) fn hmac_sha256(secret: &[u8], message: &[u8]) -> String {
    assert!(secret.len() <= 64);
    let mut key = [0_u8; 64];
    key[..secret.len()].copy_from_slice(secret);
    let inner = Digest::of(&[&key.map(|byte| byte ^ 0x36), message].concat());
    let outer = Digest::of(&[&key.map(|byte| byte ^ 0x5c)[..], inner.as_bytes()].concat());
    outer.hex()
}

/// Checks a signed request as a receiver would.
pub(crate) fn assert_signed(headers: &HeaderMap, body: &str, secret: &str) {
    let header = headers["x-tidewaiter-signature"].to_str().unwrap();
    let (time, signatures) = header.strip_prefix("t=").unwrap().split_once(',').unwrap();
    let right = hmac_sha256(secret.as_bytes(), format!("{time}.{body}").as_bytes());
    let right = format!("v1={right}");
    assert!(signatures.split(',').any(|one| one == right), "{header}");
}
