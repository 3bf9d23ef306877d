//! A registry with a token server, which can misbehave.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, RawQuery, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
    routing::get,
};
use chassis::Cx;
use futures::{StreamExt as _, stream};
use model::Digest;
use testkit::Image;

/// What the server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Blobs break after three quarters of what is left.
    BreaksBlobs,
    /// The same, and each answer starts at the first byte.
    BreaksBlobsIgnoresRanges,
    /// Every blob breaks at its first byte.
    NoBlobs,
    EndlessManifest,
    EndlessToken,
    RedirectsForever,
    WrongDigest,
    TooManyRequests,
    Unwell,
    HtmlManifest,
    /// Wants basic authentication only after a token was given.
    SecretsElsewhere,
}

pub(super) struct Fake {
    pub(super) host: String,
    cx: Cx,
    state: Arc<Shared>,
}

struct Shared {
    fault: Fault,
    host: String,
    image: Image,
    tokens: AtomicUsize,
    blob_gets: AtomicUsize,
    scopes: Mutex<Vec<String>>,
}

type Answer = Response<Body>;

impl Fake {
    pub(super) async fn start(image: &Image, fault: Fault) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Shared {
            fault,
            host: host.clone(),
            image: image.clone(),
            tokens: AtomicUsize::default(),
            blob_gets: AtomicUsize::default(),
            scopes: Mutex::default(),
        });
        let router = Router::new()
            .route("/token", get(token).post(token_by_form))
            .route("/again", get(again))
            .route("/v2/", get(ping))
            .route("/v2/app/manifests/{reference}", get(manifest))
            .route("/v2/app/blobs/{digest}", get(blob))
            .with_state(Arc::clone(&state));
        let cx = Cx::for_tests();
        let stop = cx.clone();
        cx.spawn("fake", async move {
            let serving = axum::serve(listener, router);
            let stopped = async move { stop.stopped().await };
            serving.with_graceful_shutdown(stopped).await.unwrap();
        });
        Self { host, cx, state }
    }

    pub(super) fn tokens(&self) -> usize {
        self.state.tokens.load(Ordering::Relaxed)
    }

    pub(super) fn scopes(&self) -> Vec<String> {
        self.state.scopes.lock().unwrap().clone()
    }

    pub(super) fn blob_gets(&self) -> usize {
        self.state.blob_gets.load(Ordering::Relaxed)
    }

    /// Tokens given so far are no longer accepted.
    pub(super) fn revoke(&self) {
        self.state.scopes.lock().unwrap().clear();
    }

    pub(super) async fn stop(self) {
        self.cx.stop();
        assert!(self.cx.finish(Duration::from_secs(10)).await);
    }
}

impl Shared {
    /// A token is good that was given since the last revocation.
    fn lets_in(&self, headers: &HeaderMap) -> Result<(), Box<Answer>> {
        let given = self.scopes.lock().unwrap().len();
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let is_good = given > 0 && token.is_some_and(|token| token.starts_with("Bearer good"));
        if is_good && self.fault != Fault::SecretsElsewhere {
            return Ok(());
        }
        let challenge = format!(
            r#"Bearer realm="http://{}/token",service="fake",scope="repository:other:push""#,
            self.host
        );
        let challenge = HeaderValue::from_str(&challenge).unwrap();
        let mut answer = status(StatusCode::UNAUTHORIZED);
        answer
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
        Err(Box::new(answer))
    }

    fn give_token(&self, scope: String) -> Answer {
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        self.scopes.lock().unwrap().push(scope);
        answer(format!(r#"{{"token": "good{number}", "expires_in": 300}}"#))
    }
}

fn answer(body: impl Into<Body>) -> Answer {
    Response::new(body.into())
}

fn status(status: StatusCode) -> Answer {
    let mut answer = answer("");
    *answer.status_mut() = status;
    answer
}

fn endless() -> Answer {
    let zeros = || std::iter::repeat_with(|| Ok::<_, Infallible>(Bytes::from(vec![b' '; 65536])));
    answer(Body::from_stream(stream::iter(zeros())))
}

async fn ping(State(state): State<Arc<Shared>>, headers: HeaderMap) -> Answer {
    state
        .lets_in(&headers)
        .map_or_else(|refusal| *refusal, |()| status(StatusCode::OK))
}

async fn again(State(state): State<Arc<Shared>>) -> Answer {
    redirect(&format!("http://{}/again", state.host))
}

fn redirect(target: &str) -> Answer {
    let mut answer = status(StatusCode::TEMPORARY_REDIRECT);
    let target = HeaderValue::from_str(target).unwrap();
    answer.headers_mut().insert(header::LOCATION, target);
    answer
}

async fn token(
    State(state): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    // `tester:secret`
    let password = HeaderValue::from_static("Basic dGVzdGVyOnNlY3JldA==");
    if state.fault == Fault::EndlessToken {
        return endless();
    }
    if headers.get(header::AUTHORIZATION) != Some(&password) {
        return status(StatusCode::UNAUTHORIZED);
    }
    let query = query.unwrap();
    assert!(query.contains("service=fake"), "{query}");
    let scope = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "scope");
    state.give_token(scope.unwrap().1.into_owned())
}

async fn token_by_form(State(state): State<Arc<Shared>>, body: String) -> Answer {
    assert!(
        body.contains("grant_type=refresh_token&refresh_token=refresh"),
        "{body}"
    );
    state.give_token("by form".to_owned())
}

async fn manifest(State(state): State<Arc<Shared>>, headers: HeaderMap) -> Answer {
    if let Err(refusal) = state.lets_in(&headers) {
        return *refusal;
    }
    let mut answer = match state.fault {
        Fault::EndlessManifest => return endless(),
        Fault::RedirectsForever => return redirect(&format!("http://{}/again", state.host)),
        Fault::Unwell => return status(StatusCode::BAD_GATEWAY),
        Fault::TooManyRequests => {
            let mut answer = status(StatusCode::TOO_MANY_REQUESTS);
            answer
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
            return answer;
        }
        Fault::HtmlManifest => return answer("<html>log in to the Wi-Fi</html>"),
        _ => answer(state.image.manifest.clone()),
    };
    if state.fault == Fault::WrongDigest {
        let digest = HeaderValue::from_str(&Digest::of(b"other").to_string()).unwrap();
        answer.headers_mut().insert(super::DIGEST_HEADER, digest);
    }
    answer
}

async fn blob(
    State(state): State<Arc<Shared>>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Answer {
    if let Err(refusal) = state.lets_in(&headers) {
        return *refusal;
    }
    state.blob_gets.fetch_add(1, Ordering::Relaxed);
    let layer = state
        .image
        .layers
        .iter()
        .find(|layer| layer.digest.to_string() == digest);
    let bytes = layer.map_or_else(|| state.image.config.clone(), |layer| layer.blob.clone());
    let range = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let range = range.filter(|_| state.fault != Fault::BreaksBlobsIgnoresRanges);
    let start = range.map_or(0, |range| {
        range
            .strip_prefix("bytes=")
            .unwrap()
            .trim_end_matches('-')
            .parse::<usize>()
            .unwrap()
    });
    let rest = bytes[start..].to_vec();
    let whole = rest.len();
    let sent = match state.fault {
        _ if layer.is_none() && state.fault != Fault::NoBlobs => whole,
        Fault::BreaksBlobs => whole / 4 * 3,
        // Each answer gets further than the one before.
        Fault::BreaksBlobsIgnoresRanges => {
            (whole / 4 * state.blob_gets.load(Ordering::Relaxed)).min(whole)
        }
        Fault::NoBlobs => 0,
        _ => whole,
    };
    let sent = if whole > 64 { sent } else { whole };
    let part = Bytes::from(rest).slice(..sent);
    let breaks = sent < whole;
    // A stream that fails in its middle closes the connection; what was sent before shall arrive.
    let broken = stream::once(async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Err(std::io::Error::other("broken"))
    });
    let parts = stream::once(async { Ok(part) })
        .chain(broken)
        .take(if breaks { 2 } else { 1 });
    let body = Body::from_stream(parts);
    let mut answer = answer(body);
    if range.is_some() {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let last = bytes.len().saturating_sub(1);
        let range = format!("bytes {start}-{last}/{}", bytes.len());
        let range = HeaderValue::from_str(&range).unwrap();
        answer.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    answer
}
