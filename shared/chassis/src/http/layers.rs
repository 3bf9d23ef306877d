//! What is put around every route: a span, errors in one form, limits.

use std::{
    any::Any,
    sync::OnceLock,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{DefaultBodyLimit, MatchedPath, Request},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
};
use opentelemetry::{KeyValue, global, metrics::Histogram};
use tower_http::{
    catch_panic::CatchPanicLayer,
    timeout::{RequestBodyTimeoutLayer, TimeoutLayer},
};
use tracing::{Instrument as _, Span, field::Empty};

use super::{ApiError, Limits};
use crate::telemetry;

/// Routes without spans and metrics: they are asked every few seconds and tell nothing.
const QUIET: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
const PLAIN_ERROR_BYTES_MAX: usize = 8 * 1024;

/// Another limit for the bodies of some routes than [`Limits::body_bytes_max`]:
/// `Router::new().route(…).layer(body_limit(n))`. It holds for extractors (`Bytes`, `Json`, …),
/// and for a handler that takes the request with `RequestExt::into_limited_body`.
pub fn body_limit(bytes_max: usize) -> DefaultBodyLimit {
    DefaultBodyLimit::max(bytes_max)
}

/// Puts around a router what [`super::Server`] puts around every one: limits, the span, errors in one form.
pub fn wrap(router: Router, limits: &Limits) -> Router {
    let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
    let status = StatusCode::REQUEST_TIMEOUT;
    router
        .layer(DefaultBodyLimit::max(limits.body_bytes_max))
        .layer(RequestBodyTimeoutLayer::new(seconds(
            limits.body_idle_seconds_max,
        )))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(TimeoutLayer::with_status_code(
            status,
            seconds(limits.request_seconds_max),
        ))
        .layer(from_fn(one_form_of_errors))
        .layer(from_fn(observe))
}

/// Opens the server span with the caller's trace as its parent, and measures
/// (OpenTelemetry semantic conventions, "HTTP server").
async fn observe(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    if QUIET.contains(&path.as_str()) {
        return next.run(request).await;
    }
    let method = known(request.method());
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
    let span = tracing::info_span!(
        "http",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        url.path = path,
        http.response.status_code = Empty,
    );
    let headers = request.headers();
    let parent = telemetry::extract(&|name| Some(headers.get(name)?.to_str().ok()?.to_owned()));
    telemetry::set_parent(&span, parent);
    let start = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    record(&span, method, route, response.status(), start.elapsed());
    response
}

fn record(span: &Span, method: &'static str, route: String, status: StatusCode, took: Duration) {
    static DURATION: OnceLock<Histogram<f64>> = OnceLock::new();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    let duration = DURATION.get_or_init(|| {
        let bounds = [
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
        ];
        global::meter("chassis")
            .f64_histogram("http.server.request.duration")
            .with_unit("s")
            .with_description("How long requests take")
            .with_boundaries(bounds.to_vec())
            .build()
    });
    let labels = [
        KeyValue::new("http.request.method", method),
        KeyValue::new("http.route", route),
        KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
    ];
    duration.record(took.as_secs_f64(), &labels);
    let ms = took.as_millis();
    tracing::debug!(parent: span, status = status.as_u16(), duration_ms = ms, "answered {status}");
}

/// Methods are from outside: unknown ones are one label.
fn known(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "_OTHER",
    }
}

/// Turns what extractors, the router and layers answer as plain text into [`ApiError`]s.
async fn one_form_of_errors(request: Request, next: Next) -> Response {
    let path: String = request.uri().path().chars().take(200).collect();
    let response = next.run(request).await;
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let plain = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !plain || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let text = to_bytes(body, PLAIN_ERROR_BYTES_MAX)
        .await
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let detail = match (text.trim(), status) {
        ("", StatusCode::NOT_FOUND) => format!("there is nothing at `{path}`"),
        ("", StatusCode::METHOD_NOT_ALLOWED) => format!("`{path}` does not know this method"),
        ("", StatusCode::REQUEST_TIMEOUT) => "the request took too long".to_owned(),
        ("", _) => status
            .canonical_reason()
            .unwrap_or("an error")
            .to_ascii_lowercase(),
        (text, _) => text.to_owned(),
    };
    let mut response = ApiError::new(status, detail).into_response();
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        head.headers.remove(name);
    }
    response.headers_mut().extend(head.headers);
    response
}

/// A handler that panics ends its request, not the process. The panic hook has logged it.
fn panicked(_panic: Box<dyn Any + Send>) -> Response<Body> {
    let detail = "something went wrong here, and it was logged";
    let mut response = ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response();
    // What the handler left half done is not for reuse.
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
