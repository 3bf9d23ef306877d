use axum::{body::Body, http::Request};
use bus::Store;
use model::{ScanRequestRecord, event::REFS};
use serde_json::{Value, json};

use super::*;
use crate::{
    contract::{self, CONTRACT},
    intake::fake::Memory,
};

/// A token that may do one thing; `nobody` is none.
fn grant(token: &str) -> Option<Grant> {
    let scope = match token {
        "ci" | "other-ci" => "scan",
        "viewer" => "read",
        _ => return None,
    };
    let (name, tenant) = (token.to_owned(), "team".to_owned());
    Some(Grant {
        name,
        tenant,
        scopes: vec![scope.to_owned()],
    })
}

fn config() -> Config {
    let source = |name: &str, registry: &str, tenant: &str| {
        serde_json::from_value(json!({"name": name, "registry": registry, "tenant": tenant}))
            .unwrap()
    };
    let sources = vec![
        source("main", "registry.example:5000", "team"),
        source("hub", "docker.io", "team"),
        source("foreign", "foreign.example", "other"),
    ];
    Config {
        sources,
        callback_hosts: vec!["ci.example".to_owned()],
        ..Config::default()
    }
}

/// A gateway with what it keeps.
struct World {
    intake: Arc<Memory>,
    store: Store,
    config: Config,
    router: Router,
}

struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl World {
    fn new(room: usize, config: Config) -> Self {
        let world = Self {
            intake: Arc::new(Memory::with_room(room)),
            store: Store::memory(),
            config,
            router: Router::new(),
        };
        world.restarted()
    }

    /// The same, with nothing in memory any more.
    fn restarted(self) -> Self {
        let intake = Arc::<Memory>::clone(&self.intake);
        let keys = Keys::new(self.store.clone(), || true);
        let router = routes(&Cx::for_tests(), &self.config, intake, keys).unwrap();
        Self { router, ..self }
    }

    async fn ask(&self, path: &str, token: &str, key: Option<&str>, body: &Value) -> Answered {
        let mut request = Request::post(path).header("content-type", "application/json");
        if let Some(grant) = grant(token) {
            request = request.extension(grant);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let request = request.body(Body::from(body.to_string())).unwrap();
        let (head, body) = contract::ask(&CONTRACT, &self.router, request)
            .await
            .into_parts();
        Answered {
            status: head.status,
            headers: head.headers,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        }
    }

    async fn keyed(&self, key: &str, body: &Value) -> Answered {
        self.ask("/v1/scans", "ci", Some(key), body).await
    }

    /// As the router does.
    async fn resolve(&self, error: Option<&str>) {
        let taken = self.intake.taken();
        let Some((tenant, Accepted::Requested(event))) = taken.last() else {
            panic!("{taken:?}")
        };
        let record = ScanRequestRecord {
            reference: event.reference.to_string(),
            images: Vec::new(),
            index: None,
            error: error.map(ToOwned::to_owned),
            resolved_at: event.requested_at,
            waits_for: std::collections::BTreeMap::new(),
            content: event.content.clone(),
        };
        let key = ScanRequestRecord::key(tenant, &event.id);
        self.store.put(REFS, &key, &record, None).await.unwrap();
    }
}

async fn ask(
    token: &str,
    key: Option<&str>,
    body: &Value,
) -> (StatusCode, Value, Vec<(Slug, Accepted)>) {
    let world = World::new(10, config());
    let answer = world.ask("/v1/scans", token, key, body).await;
    (answer.status, answer.body, world.intake.taken())
}

#[tokio::test]
async fn a_request_becomes_an_event_and_says_where_to_ask() {
    let (status, answer, events) = ask(
        "ci",
        Some("build 7"),
        &json!({"image": "registry.example:5000/team/app:1.0"}),
    )
    .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    insta::assert_json_snapshot!(answer);
    let [(tenant, Accepted::Requested(event))] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(tenant.as_str(), "team");
    assert_eq!(
        (event.source.as_str(), event.priority),
        ("main", Priority::High)
    );
    assert_eq!(answer["status_url"], format!("/v1/scans/{}", event.id));
}

#[tokio::test]
async fn a_key_gives_the_same_id_and_no_key_a_new_one() {
    let body = json!({"image": "debian:12"});
    let id = async |key| {
        ask("ci", key, &body).await.1["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(id(Some("a")).await, id(Some("a")).await);
    assert_ne!(id(Some("a")).await, id(Some("b")).await);
    assert_ne!(id(None).await, id(None).await);
}

#[tokio::test]
async fn a_registry_that_is_no_source_is_refused_naming_those_that_are() {
    let (status, answer, events) =
        ask("ci", None, &json!({"image": "foreign.example/app:1"})).await;
    assert_eq!(
        (status, events.len()),
        (StatusCode::UNPROCESSABLE_ENTITY, 0)
    );
    insta::assert_json_snapshot!(answer);
    let body = json!({"image": "debian:12", "source": "main"});
    let (status, answer, _) = ask("ci", None, &body).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        answer["detail"],
        "`docker.io` is not served by a source `main`"
    );
}

#[tokio::test]
async fn a_body_that_is_not_a_request_is_refused() {
    let (status, ..) = ask("ci", None, &json!({"image": "UPPER/case"})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, ..) = ask("ci", None, &json!({"image": "debian:12", "frce": true})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, ..) = ask("ci", Some(""), &json!({"image": "debian:12"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_token_needs_the_scope_to_scan() {
    let body = json!({"image": "debian:12"});
    assert_eq!(ask("viewer", None, &body).await.0, StatusCode::FORBIDDEN);
    assert_eq!(ask("nobody", None, &body).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_key_with_another_body_is_refused_now_and_after_a_restart() {
    let body = json!({"image": "debian:12"});
    let others = [
        json!({"image": "debian:13"}),
        json!({"image": "debian:12", "force": true}),
        json!({"image": "debian:12", "priority": "low"}),
        json!({"image": "debian:12", "callback": "https://ci.example/"}),
    ];
    let world = World::new(10, config());
    let first = world.keyed("build 7", &body).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    let check = async |world: &World| {
        for other in &others {
            let refused = world.keyed("build 7", other).await;
            assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{other}");
        }
        let again = world.keyed("build 7", &body).await;
        assert_eq!(
            (again.status, &again.body),
            (StatusCode::ACCEPTED, &first.body)
        );
    };
    check(&world).await;
    world.resolve(None).await;
    let world = world.restarted();
    check(&world).await;
    // Once it is answered it is not asked for again.
    assert_eq!(world.intake.taken().len(), 2);
    // A request that led nowhere may lead somewhere now.
    world.resolve(Some("no such image")).await;
    check(&world).await;
    assert_eq!(world.intake.taken().len(), 3);
}

#[tokio::test]
async fn a_request_that_was_not_accepted_does_not_use_up_its_key() {
    let world = World::new(0, config());
    for image in ["debian:12", "debian:13"] {
        let answer = world.keyed("build 7", &json!({"image": image})).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers["retry-after"], "5");
    }
}

#[tokio::test]
async fn who_waits_is_sent_where_waiting_is_done() {
    let world = World::new(10, config());
    let body = json!({"image": "debian:12"});
    let answer = world.ask("/v1/scans?wait=60", "ci", None, &body).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let id = answer.body["id"].as_str().unwrap();
    assert_eq!(
        answer.headers["location"],
        format!("/v1/scans/{id}?wait=60").as_str()
    );
    let answer = world.ask("/v1/scans?wait=121", "ci", None, &body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(world.intake.taken().len(), 1);
}

#[tokio::test]
async fn callbacks_go_to_configured_hosts_alone() {
    let body = |url: &str| json!({"image": "debian:12", "callback": url});
    let (status, _, events) = ask("ci", None, &body("https://ci.example/hooks")).await;
    let [(_, Accepted::Requested(event))] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(
        (status, event.callback.as_deref()),
        (StatusCode::ACCEPTED, Some("https://ci.example/hooks"))
    );
    let (status, answer, events) = ask("ci", None, &body("http://169.254.169.254/")).await;
    assert_eq!(
        (status, events.len()),
        (StatusCode::UNPROCESSABLE_ENTITY, 0)
    );
    insta::assert_json_snapshot!(answer, @r#"
    {
      "detail": "`callback` is refused: it leads to `http://169.254.169.254:80`, which is not among the configured hosts",
      "error": "unprocessable_entity",
      "hint": "the operator lists hosts in `gateway.callback_hosts`, with their port; they are reached by https unless they are listed with `http://`",
      "status": 422
    }
    "#);
}

#[tokio::test]
async fn a_token_has_its_share_of_requests_and_others_have_theirs() {
    let config = Config {
        scans_burst_max: 2,
        scans_per_second_max: 1,
        ..config()
    };
    let world = World::new(10, config);
    let body = json!({"image": "debian:12"});
    let ask = async |token| world.ask("/v1/scans", token, None, &body).await;
    assert_eq!(ask("ci").await.status, StatusCode::ACCEPTED);
    assert_eq!(ask("ci").await.status, StatusCode::ACCEPTED);
    let refused = ask("ci").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(ask("other-ci").await.status, StatusCode::ACCEPTED);
}
