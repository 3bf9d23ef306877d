use axum::{body::Body, http::Request};
use chassis::{CxLimits, FixedClock};
use model::{Slug, event::Event as _};
use serde_json::{Value, json};

use super::*;
use crate::{
    contract::{CONTRACT, ask},
    intake::fake::Memory,
};

const GOOD: &[u8] = include_bytes!("../../testdata/distribution/good-index-by-tag.http");

fn config() -> Config {
    let source = serde_json::json!({
        "name": "main",
        "registry": "registry.example:5000",
        "tenant": "team",
        "hook_token_sha256": Digest::of(b"demo-hook-token").hex(),
    });
    let closed = serde_json::json!({"name": "closed", "registry": "closed.example"});
    let sources = [source, closed].map(|json| serde_json::from_value(json).unwrap());
    Config {
        sources: sources.into(),
        hook_bytes_max: 4096,
        ..Config::default()
    }
}

fn body() -> Vec<u8> {
    let end = GOOD
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .unwrap();
    GOOD[end + 4..].to_vec()
}

struct Answer {
    status: StatusCode,
    retry_after: Option<String>,
    body: Value,
}

async fn send(
    config: &Config,
    intake: &Arc<Memory>,
    path: &str,
    token: &str,
    body: Vec<u8>,
) -> Answer {
    let cx = Cx::for_tests();
    let router = routes(&cx, config, Arc::<Memory>::clone(intake));
    let request = Request::post(path)
        .header("authorization", format!("Bearer {token}"))
        .header(
            "content-type",
            "application/vnd.docker.distribution.events.v2+json",
        )
        .body(Body::from(body))
        .unwrap();
    let response = ask(&CONTRACT, &router, request).await;
    let retry_after = response.headers().get("retry-after");
    Answer {
        status: response.status(),
        retry_after: retry_after.map(|value| value.to_str().unwrap().to_owned()),
        body: serde_json::from_slice(response.body()).unwrap_or_default(),
    }
}

async fn check(
    path: &str,
    token: &str,
    body: Vec<u8>,
) -> (StatusCode, Value, Vec<(Slug, Accepted)>) {
    let intake = Arc::new(Memory::with_room(10));
    let answer = send(&config(), &intake, path, token, body).await;
    (answer.status, answer.body, intake.taken())
}

#[tokio::test]
async fn a_push_becomes_an_event_of_the_sources_tenant() {
    let (status, answer, events) = check("/hooks/main", "demo-hook-token", body()).await;
    assert_eq!(
        (status, answer),
        (StatusCode::ACCEPTED, json!({"accepted": 1}))
    );
    let [(tenant, Accepted::Pushed(event))] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(tenant.as_str(), "team");
    assert_eq!(
        (event.source.as_str(), event.repository.as_str()),
        ("main", "team/app")
    );
    assert_eq!(event.tag.as_deref(), Some("1.0"));
}

#[tokio::test]
async fn an_event_that_cannot_be_understood_costs_the_others_nothing_and_is_named() {
    let mut request: Value = serde_json::from_slice(&body()).unwrap();
    let broken = json!({"id": "odd", "action": "push", "target": {"repository": 7}});
    request["events"].as_array_mut().unwrap().insert(0, broken);
    let body = serde_json::to_vec(&request).unwrap();
    let (status, answer, events) = check("/hooks/main", "demo-hook-token", body).await;
    assert_eq!((status, events.len()), (StatusCode::ACCEPTED, 1));
    insta::assert_json_snapshot!(answer, @r#"
    {
      "accepted": 1,
      "refused": {
        "count": 1,
        "events": [
          "event 0 (`odd`): it is not what this kind of source sends: invalid type: integer `7`, expected a string"
        ]
      }
    }
    "#);
}

#[tokio::test]
async fn who_does_not_prove_itself_is_refused_and_told_how() {
    let (status, answer, events) = check("/hooks/main", "wrong", body()).await;
    assert_eq!((status, events.len()), (StatusCode::UNAUTHORIZED, 0));
    insta::assert_json_snapshot!(answer, @r#"
    {
      "detail": "the request does not prove who sends it",
      "error": "unauthorized",
      "hint": "send the source's `hook_token` as `Authorization: Bearer TOKEN`",
      "status": 401
    }
    "#);
    let (status, answer, _) = check("/hooks/closed", "demo-hook-token", body()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(
        answer["hint"]
            .as_str()
            .unwrap()
            .contains("has no `hook_token`")
    );
}

#[tokio::test]
async fn an_unknown_source_is_not_found_whatever_is_sent() {
    for token in ["demo-hook-token", "wrong"] {
        let (status, answer, events) = check("/hooks/other", token, body()).await;
        assert_eq!((status, events.len()), (StatusCode::NOT_FOUND, 0));
        assert_eq!(answer["detail"], "there is no such source");
    }
}

#[tokio::test]
async fn what_cannot_be_decoded_is_answered_and_kept_from_coming_again() {
    let (status, answer, events) =
        check("/hooks/main", "demo-hook-token", b"not json".to_vec()).await;
    assert_eq!(
        (status, answer),
        (StatusCode::ACCEPTED, json!({"accepted": 0}))
    );
    assert_eq!(events, []);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let (status, _, events) = check("/hooks/main", "demo-hook-token", vec![b' '; 5000]).await;
    assert_eq!((status, events.len()), (StatusCode::PAYLOAD_TOO_LARGE, 0));
}

#[tokio::test]
async fn a_full_spool_asks_the_sender_to_come_again() {
    let intake = Arc::new(Memory::with_room(0));
    let answer = send(&config(), &intake, "/hooks/main", "demo-hook-token", body()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.retry_after.as_deref(), Some("5"));
}

#[tokio::test]
async fn a_sender_has_its_share_of_requests() {
    let config = Config {
        hooks_burst_max: 0,
        ..config()
    };
    let intake = Arc::new(Memory::with_room(10));
    let answer = send(&config, &intake, "/hooks/main", "demo-hook-token", body()).await;
    assert_eq!(
        (answer.status, intake.taken().len()),
        (StatusCode::TOO_MANY_REQUESTS, 0)
    );
    assert_eq!(answer.retry_after.as_deref(), Some("1"));
}

#[tokio::test]
async fn an_event_of_the_future_happens_now() {
    let late = String::from_utf8(body()).unwrap().replace("2026-", "2999-");
    let (_, _, events) = check("/hooks/main", "demo-hook-token", late.into_bytes()).await;
    let [(_, Accepted::Pushed(event))] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert!(event.occurred_at < "2998-01-01T00:00:00Z".parse().unwrap());
}

/// A gateway whose source signs, at a time of its own.
pub(crate) struct Signing {
    clock: Arc<FixedClock>,
    intake: Arc<Memory>,
    pub(crate) router: Router,
    // The secret is read when it is used.
    _dir: tempfile::TempDir,
}

impl Signing {
    const SIGNED: &[u8] = include_bytes!("../../testdata/generic/good-push.http");

    pub(crate) fn new(room: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "demo-hook-token").unwrap();
        let source = json!({
            "name": "ci",
            "kind": "generic",
            "registry": "registry.example:5000",
            "hook_secrets": [format!("file:{}", file.display())],
        });
        let config = Config {
            sources: vec![serde_json::from_value(source).unwrap()],
            ..Config::default()
        };
        let clock = Arc::new(FixedClock::new("2026-01-02T03:04:06Z".parse().unwrap()));
        let limits = CxLimits {
            compute_threads: 1,
            blocking_threads: 1,
        };
        let cx = Cx::new(Arc::<FixedClock>::clone(&clock), limits);
        let intake = Arc::new(Memory::with_room(room));
        let router = routes(&cx, &config, Arc::<Memory>::clone(&intake));
        Self {
            clock,
            intake,
            router,
            _dir: dir,
        }
    }

    async fn send(&self, bytes: &[u8]) -> (StatusCode, Value) {
        let request = recorded("/hooks/ci", bytes);
        let response = ask(&CONTRACT, &self.router, request).await;
        let body = serde_json::from_slice(response.body()).unwrap_or_default();
        (response.status(), body)
    }
}

/// A request as it was recorded.
pub(crate) fn recorded(path: &str, recorded: &[u8]) -> Request<Body> {
    let text = std::str::from_utf8(recorded).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut request = Request::post(path);
    let headers = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

#[tokio::test]
async fn a_signed_request_counts_once_and_for_five_minutes() {
    let world = Signing::new(10);
    let (status, answer) = world.send(Signing::SIGNED).await;
    assert_eq!(
        (status, answer),
        (StatusCode::ACCEPTED, json!({"accepted": 1}))
    );
    let (status, answer) = world.send(Signing::SIGNED).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(answer["detail"], "this very request was accepted before");
    world.clock.advance(SignedDuration::from_mins(6));
    let (status, answer) = world.send(Signing::SIGNED).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let hint = answer["hint"].as_str().unwrap();
    assert!(hint.contains("more than 300 s from ours"), "{hint}");
    assert_eq!(world.intake.taken().len(), 1);
}

#[tokio::test]
async fn a_request_that_comes_again_after_a_restart_changes_nothing() {
    let ids = async || {
        let world = Signing::new(10);
        world.send(Signing::SIGNED).await;
        let taken = world.intake.taken();
        let [(tenant, Accepted::Pushed(event))] = taken.as_slice() else {
            panic!("{taken:?}")
        };
        (event.message_id(tenant), event.occurred_at)
    };
    assert_eq!(ids().await, ids().await);
}

#[tokio::test]
async fn a_signed_request_that_was_not_accepted_may_come_again() {
    let world = Signing::new(0);
    for _ in 0..2 {
        let (status, _) = world.send(Signing::SIGNED).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn who_does_not_sign_learns_how() {
    let world = Signing::new(10);
    let unsigned = include_bytes!("../../testdata/generic/bad-authentication-none.http");
    let (status, answer) = world.send(unsigned).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    insta::assert_snapshot!(
        answer["hint"].as_str().unwrap(),
        @"sign with one of the source's `hook_secrets`: `X-Tidewaiter-Signature: t=<unix seconds>,v1=<hex of HMAC-SHA256 over t, a dot and the body>`"
    );
}
