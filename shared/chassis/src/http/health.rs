//! Routes that every process has: `/healthz`, `/readyz`, `/metrics`.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    routing::get,
};
use prometheus::Registry;
use serde_json::{Value, json};

use crate::{Cx, Readiness, telemetry};

/// `/healthz` answers as long as the process runs; `/readyz` is 503 while a check fails or the
/// process is stopping, and names the checks and [`crate::Notes`].
pub fn health(cx: &Cx, readiness: &Readiness) -> Router {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/readyz", get(ready))
        .with_state((cx.clone(), readiness.clone()))
}

/// `/metrics`: what [`telemetry::Telemetry::registry`] holds, as Prometheus reads it.
pub fn metrics(registry: Registry) -> Router {
    let text = |State(registry): State<Registry>| async move {
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        (
            [(header::CONTENT_TYPE, kind)],
            telemetry::prometheus_text(&registry),
        )
    };
    Router::new()
        .route("/metrics", get(text))
        .with_state(registry)
}

async fn ready(State((cx, readiness)): State<(Cx, Readiness)>) -> (StatusCode, Json<Value>) {
    let checks = readiness.checks();
    let (status, word) = if cx.is_stopping() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if checks.values().all(|ready| *ready) {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    let notes = cx.notes().all();
    (
        status,
        Json(json!({"status": word, "checks": checks, "notes": notes})),
    )
}
