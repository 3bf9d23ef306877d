use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::intake::fake::Memory;

/// A token that may do one thing; `nobody` is none.
fn grant(token: &str) -> Option<Grant> {
    let scope = match token {
        "ci" => "scan",
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
        ..Config::default()
    }
}

async fn ask(
    token: &str,
    key: Option<&str>,
    body: &Value,
) -> (StatusCode, Value, Vec<(Slug, Accepted)>) {
    let intake = Arc::new(Memory::with_room(10));
    let router = routes(&Cx::for_tests(), &config(), Arc::<Memory>::clone(&intake));
    let mut request = Request::post("/v1/scans").header("content-type", "application/json");
    if let Some(grant) = grant(token) {
        request = request.extension(grant);
    }
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let request = request.body(Body::from(body.to_string())).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
    (
        status,
        serde_json::from_slice(&body).unwrap_or_default(),
        intake.taken(),
    )
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
