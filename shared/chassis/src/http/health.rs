//! Routes that every process has: `/healthz`, `/readyz`, `/metrics`.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use prometheus::Registry;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Access, Operation, Route,
    route::{operations, router},
};
use crate::{Cx, Readiness, telemetry};

const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether the process runs.
#[derive(Serialize, JsonSchema)]
struct Alive {
    /// `ok`.
    status: &'static str,
}

/// Whether the process can do its work.
#[derive(Serialize, JsonSchema)]
struct Ready {
    /// Its parts, and whether they are ready.
    checks: BTreeMap<String, bool>,
    /// What works with less than it should have.
    notes: BTreeMap<String, String>,
    /// `ready`, `not ready` or `stopping`.
    status: &'static str,
}

/// `/healthz` answers as long as the process runs; `/readyz` is 503 while a check fails or the
/// process is stopping, and names the checks and [`crate::Notes`].
pub fn health(cx: &Cx, readiness: &Readiness) -> Router {
    router(health_table(), (cx.clone(), readiness.clone()))
}

/// `/metrics`: what [`telemetry::Telemetry::registry`] holds, as Prometheus reads it.
pub fn metrics(registry: Registry) -> Router {
    router(metrics_table(), registry)
}

/// What is to be said of the routes of every process.
pub fn health_operations() -> Vec<Operation> {
    let mut all = operations(health_table());
    all.extend(operations(metrics_table()));
    all
}

fn health_table() -> Vec<Route<(Cx, Readiness)>> {
    vec![
        Access::Anyone
            .get("/healthz", "isAlive", "Whether the process runs", alive)
            .never_same()
            .answers::<Alive>(StatusCode::OK, "it runs"),
        Access::Anyone
            .get(
                "/readyz",
                "isReady",
                "Whether the process can do its work",
                ready,
            )
            .never_same()
            .answers::<Ready>(StatusCode::OK, "it can")
            .answers::<Ready>(StatusCode::SERVICE_UNAVAILABLE, "it cannot, or is stopping"),
    ]
}

fn metrics_table() -> Vec<Route<Registry>> {
    vec![
        Access::Anyone
            .get(
                "/metrics",
                "getMetrics",
                "Metrics, as Prometheus reads them",
                text,
            )
            .never_same()
            .answers_with(StatusCode::OK, METRICS, "all metrics of the process"),
    ]
}

async fn alive() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

async fn ready(State((cx, readiness)): State<(Cx, Readiness)>) -> (StatusCode, Json<Ready>) {
    let checks = readiness.checks();
    let (code, status) = if cx.is_stopping() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if checks.values().all(|ready| *ready) {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    let notes = cx.notes().all();
    (
        code,
        Json(Ready {
            checks,
            notes,
            status,
        }),
    )
}

async fn text(State(registry): State<Registry>) -> impl IntoResponse {
    let text = telemetry::prometheus_text(&registry);
    ([(header::CONTENT_TYPE, METRICS)], text)
}
