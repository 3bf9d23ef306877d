//! The API of the whole: what it says of itself, and the routes that belong to no service.
//!
//! The document holds the rows of all tables, whichever roles run in this process: a fleet's ingress
//! gives all of them one address.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use bus::Bus;
use chassis::{
    Cx,
    http::{
        Access, Route,
        openapi::{Info, document},
    },
};
use serde_json::Value;

use crate::tokens::{self, Ledger};

const JSON: &str = "application/json";
const INFO: Info = Info {
    title: "Tidewaiter",
    version: env!("CARGO_PKG_VERSION"),
    description: "\
Images by name or digest, what is wrong with them, what policy says, and who may ask.

A token goes into `Authorization: Bearer TOKEN`; its scopes are `read`, `scan`, \
`respond` and `admin`. Errors are \
`application/problem+json`: `status`, `error` as a word for programs, `detail`, and `hint` with what \
to do. A list has `items` and, unless it ends, `next`, which is the `cursor` of the page behind it. \
Answers have an `ETag`: who sends it as `If-None-Match` gets 304 while nothing has changed.",
};

/// What this API is.
pub(crate) fn description() -> Value {
    let mut all = chassis::http::health_operations();
    all.extend(chassis::http::operations(table()));
    all.extend(tokens::operations());
    all.extend(gateway::operations());
    all.extend(inventory::operations());
    all.extend(matcher::operations());
    all.extend(policy::operations());
    document(INFO, &all)
}

/// The routes that stand beside the inventory's.
pub(crate) fn routes(cx: &Cx, bus: &Bus) -> Router {
    let text: Arc<str> = description().to_string().into();
    let ledger = Ledger::new(bus.store(), cx.clock());
    chassis::http::router(table(), text).merge(tokens::routes(ledger))
}

fn table() -> Vec<Route<Arc<str>>> {
    vec![
        Access::Anyone
            .get("/v1/openapi.json", "getOpenApi", "This document", openapi)
            .strong()
            .answers_with(StatusCode::OK, JSON, "OpenAPI 3.1"),
    ]
}

async fn openapi(State(text): State<Arc<str>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, JSON)], text.to_string())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _};

    use testkit::Contract;

    use super::*;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/openapi.json");

    #[test]
    fn the_document_is_one_that_tools_can_read() {
        let contract = Contract::new(description());
        // Nothing was asked yet, so every answer that is described is unseen: there are many.
        assert!(contract.unseen().len() > 80);
    }

    #[test]
    fn the_document_is_the_golden_one() {
        let described = description();
        let mut golden = String::new();
        let read =
            File::open(GOLDEN).and_then(|file| file.take(1 << 20).read_to_string(&mut golden));
        let is_same = read.is_ok() && serde_json::from_str::<Value>(&golden).unwrap() == described;
        if !is_same {
            let text = serde_json::to_string_pretty(&described).unwrap();
            std::fs::write(GOLDEN, format!("{text}\n")).unwrap();
        }
        assert!(
            is_same,
            "{GOLDEN} was another and is written now: read the difference and commit it"
        );
    }

    #[test]
    fn only_the_document_and_probes_are_for_everybody() {
        let described = description();
        let mut open = Vec::new();
        for (path, item) in described["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if operation["security"] == serde_json::json!([]) {
                    open.push(format!("{method} {path}"));
                }
            }
        }
        assert_eq!(
            open,
            [
                "get /healthz",
                "get /metrics",
                "get /readyz",
                "get /v1/openapi.json"
            ]
        );
    }
}
