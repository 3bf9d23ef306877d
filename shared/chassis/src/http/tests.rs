use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes, to_bytes},
    http::{Method, Request, StatusCode, header},
    response::Response,
    routing::{get, post},
};
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tower::ServiceExt as _;

use super::*;
use crate::{Cx, Readiness};

pub(super) const SOON: Duration = Duration::from_secs(10);

struct OneToken;

impl Tokens for OneToken {
    fn find(&self, token_sha256_hex: &str) -> BoxFuture<'_, Result<Option<Grant>, TokensAway>> {
        let grant = Grant {
            name: "ci".to_owned(),
            tenant: "default".to_owned(),
            scopes: vec!["images:read".to_owned()],
        };
        let found = token_sha256_hex == token_digest("opensesame");
        let away = token_sha256_hex == token_digest("asked in vain");
        Box::pin(async move {
            if away {
                return Err(TokensAway);
            }
            Ok(found.then_some(grant))
        })
    }
}

fn router() -> Router {
    let whoami = |Extension(grant): Extension<Grant>| async move { grant.name };
    let row = |scope, path, id| {
        let row = Access::Scope(scope).get(path, id, "A name", whoami);
        row.answers_with(StatusCode::OK, "text/plain", "the caller's name")
    };
    let table = vec![
        row("images:read", "/images", "getImages"),
        row("tokens:write", "/tokens", "getTokens"),
        Access::Anyone
            .get("/open", "getOpen", "Open", async || "open")
            .answers_with(StatusCode::OK, "text/plain", "for everybody"),
    ];
    let tokens: Arc<dyn Tokens> = Arc::new(OneToken);
    let private = super::router(table, ()).layer(Extension(tokens));
    Router::new()
        .route("/echo", post(|body: Bytes| async move { body }))
        .route(
            "/large",
            post(|body: Bytes| async move { body.len().to_string() }),
        )
        .layer(body_limit(3 * 1024 * 1024))
        .route(
            "/small",
            post(|body: Bytes| async move { body.len().to_string() }),
        )
        .route("/json", post(|Json(_): Json<Value>| async { "read" }))
        .route("/panic", get(async || -> &str { panic!("on purpose") }))
        .route(
            "/broken",
            get(async || -> Result<(), ApiError> {
                Err(anyhow::anyhow!("password is hunter2")
                    .context("asking the store")
                    .into())
            }),
        )
        .merge(private)
}

async fn ask(request: Request<Body>) -> (StatusCode, String, Response<()>) {
    let response = wrap(router(), &Limits::default())
        .oneshot(request)
        .await
        .unwrap();
    let (head, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    (head.status, text, Response::from_parts(head, ()))
}

fn get_with(path: &str, authorization: Option<&str>) -> Request<Body> {
    let request = Request::get(path);
    let request = match authorization {
        Some(value) => request.header(header::AUTHORIZATION, value),
        None => request,
    };
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn every_error_has_one_form() {
    let mut seen = String::new();
    for (method, path, body) in [
        (Method::GET, "/nowhere", ""),
        (Method::GET, "/echo", ""),
        (Method::POST, "/json", "not json"),
        (Method::GET, "/panic", ""),
        (Method::GET, "/broken", ""),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::from(body))
            .unwrap();
        let (_, text, head) = ask(request).await;
        assert_eq!(
            head.headers()[header::CONTENT_TYPE],
            "application/problem+json",
            "{path}"
        );
        assert!(
            !text.contains("hunter2") && !text.contains("on purpose"),
            "{text}"
        );
        seen.push_str(&text);
        seen.push('\n');
    }
    insta::assert_snapshot!(seen, @r#"
    {"detail":"there is nothing at `/nowhere`","error":"not_found","status":404}
    {"detail":"`/echo` does not know this method","error":"method_not_allowed","status":405}
    {"detail":"Expected request with `Content-Type: application/json`","error":"unsupported_media_type","status":415}
    {"detail":"something went wrong here, and it was logged","error":"internal_server_error","status":500}
    {"detail":"something went wrong here, and it was logged","error":"internal_server_error","status":500}
    "#);
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_unless_the_route_allows_them() {
    let two_mib = || Body::from(vec![0; 2 * 1024 * 1024]);
    let post = |path: &str, body| Request::post(path).body(body).unwrap();
    let (status, text, _) = ask(post("/small", two_mib())).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(text.contains("payload_too_large"), "{text}");
    assert_eq!(ask(post("/large", two_mib())).await.1, "2097152");
}

#[tokio::test]
async fn tokens_open_what_their_scopes_say() {
    let check = async |path, authorization: Option<&str>| {
        let (status, text, head) = ask(get_with(path, authorization)).await;
        let challenge = head.headers().get(header::WWW_AUTHENTICATE);
        let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
        assert!(!text.contains("opensesame"));
        (status.as_u16(), challenge)
    };
    let good = Some("Bearer opensesame");
    assert_eq!(check("/images", good).await, (200, None));
    assert_eq!(
        check("/images", Some("bearer  opensesame")).await,
        (200, None)
    );
    for bad in [
        None,
        Some("Basic b3BlbnNlc2FtZQ=="),
        Some("Bearer "),
        Some("Bearer"),
    ] {
        let expected = (401, Some("Bearer realm=\"tidewaiter\"".to_owned()));
        assert_eq!(check("/images", bad).await, expected, "{bad:?}");
    }
    let (status, challenge) = check("/images", Some("Bearer wrong")).await;
    assert_eq!(
        (status, challenge.unwrap().contains("invalid_token")),
        (401, true)
    );
    assert_eq!(check("/images", Some("Bearer asked in vain")).await.0, 503);
    let (status, challenge) = check("/tokens", good).await;
    assert_eq!(
        (status, challenge.unwrap().contains("insufficient_scope")),
        (403, true)
    );
}

#[tokio::test]
async fn a_route_for_everybody_does_not_ask_who_calls() {
    for token in [None, Some("Bearer wrong"), Some("Bearer asked in vain")] {
        let (status, text, _) = ask(get_with("/open", token)).await;
        assert_eq!(
            (status, text.as_str()),
            (StatusCode::OK, "open"),
            "{token:?}"
        );
    }
}

#[tokio::test]
async fn who_has_an_answer_learns_so_only_with_permission() {
    let ask = async |token: &str, known: &str| {
        let request = Request::get("/images").header(header::AUTHORIZATION, token);
        let request = request.header(header::IF_NONE_MATCH, known);
        let (status, text, head) = ask(request.body(Body::empty()).unwrap()).await;
        let tag = head.headers().get(header::ETAG).cloned();
        (status.as_u16(), text, tag)
    };
    let (status, text, tag) = ask("Bearer opensesame", "").await;
    assert_eq!((status, text.as_str()), (200, "ci"));
    let tag = tag.unwrap();
    let tag = tag.to_str().unwrap();
    let (status, text, _) = ask("Bearer opensesame", tag).await;
    assert_eq!((status, text.as_str()), (304, ""));
    for known in [tag, "*"] {
        let (status, _, told) = ask("Bearer wrong", known).await;
        assert_eq!((status, told), (401, None));
    }
}

async fn start(limits: Limits) -> (Cx, SocketAddr) {
    serve_with(Cx::for_tests(), Server { limits, tls: None }).await
}

/// A server with all that the tests ask for.
pub(super) async fn serve_with(cx: Cx, server: Server) -> (Cx, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = |cx: Cx| async move {
        cx.stopped().await;
        "answered while stopping"
    };
    let seen = cx.clone();
    let readiness = Readiness::default();
    readiness.set("bus", true);
    let router = router()
        .route("/slow", get(move || slow(seen.clone())))
        .merge(health(&cx, &readiness))
        .merge(metrics(prometheus::Registry::new()));
    let server_cx = cx.clone();
    cx.spawn("http", async move {
        server.serve(&server_cx, listener, router).await;
    });
    (cx, address)
}

pub(super) async fn talk(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

#[tokio::test]
async fn a_stopping_server_answers_what_it_has_begun() {
    let (cx, address) = start(Limits::default()).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(
        talk(address, &get("/healthz"))
            .await
            .ends_with(r#"{"status":"ok"}"#)
    );
    assert!(
        talk(address, &get("/readyz"))
            .await
            .contains(r#"{"checks":{"bus":true}"#)
    );
    assert!(
        talk(address, &get("/metrics"))
            .await
            .starts_with("HTTP/1.1 200")
    );

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    // An answer on another connection, so that the first one is being handled for sure.
    talk(address, &get("/healthz")).await;
    cx.stop();
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.ends_with("answered while stopping"), "{answer}");
    assert!(cx.finish(SOON).await);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn clients_that_dawdle_are_cut_off() {
    let limits = Limits {
        head_seconds_max: 1,
        body_idle_seconds_max: 1,
        ..Limits::default()
    };
    let (cx, address) = start(limits).await;
    let head = talk(address, "GET /healthz HTT");
    let body = talk(
        address,
        "POST /small HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab",
    );
    // So far it may become HTTP/1 as well as HTTP/2.
    let nothing = talk(address, "P");
    let (head, body, nothing) = tokio::join!(head, body, nothing);
    assert_eq!(nothing, "", "it is closed");
    assert!(
        head.is_empty() || head.starts_with("HTTP/1.1 408"),
        "{head}"
    );
    assert!(body.starts_with("HTTP/1.1 4"), "{body}");
    cx.stop();
    assert!(cx.finish(SOON).await);
}
