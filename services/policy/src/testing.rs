//! A client for tests of routes: every answer is held against the document.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderValue, Request, header},
};
use chassis::http::{
    Grant, Limits, Operation,
    openapi::{Info, document},
};
use testkit::{Answered, Contract};
use tower::ServiceExt as _;

pub(crate) struct Client {
    routes: Router,
    contract: Contract,
}

// === impl Client ===

impl Client {
    pub(crate) fn new(routes: Router, operations: &[Operation]) -> Self {
        let info = Info {
            title: "policy",
            version: "1",
            description: "what may be used, and what is done",
        };
        Self {
            routes: chassis::http::wrap(routes, &Limits::default()),
            contract: Contract::new(document(info, operations)),
        }
    }

    /// Status and body.
    pub(crate) async fn ask(&self, scopes: &[&str], request: &str, body: &str) -> (u16, String) {
        let ((status, _), body) = self.answer(scopes, request, body).await;
        (status, String::from_utf8(body).unwrap())
    }

    /// Status, `ETag` and body of `METHOD PATH` or `METHOD PATH if not ETAG`.
    pub(crate) async fn answer(
        &self,
        scopes: &[&str],
        request: &str,
        body: &str,
    ) -> ((u16, Option<String>), Vec<u8>) {
        let (request, known) = request.split_once(" if not ").unwrap_or((request, ""));
        let (method, uri) = request.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(uri);
        let request = request.header(header::IF_NONE_MATCH, known);
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        if !scopes.is_empty() {
            request.extensions_mut().insert(Grant {
                name: "tester".to_owned(),
                tenant: "default".to_owned(),
                scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            });
        }
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let text = |name| {
            let value = response.headers().get(name);
            value.map(|value: &HeaderValue| value.to_str().unwrap().to_owned())
        };
        let (tag, media) = (text(header::ETAG), text(header::CONTENT_TYPE));
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        self.contract.check(&Answered {
            method,
            path: uri.split('?').next().unwrap(),
            status,
            media: media.as_deref(),
            body: &body,
        });
        ((status, tag), body.to_vec())
    }

    /// Answers that the document describes and that were not given.
    pub(crate) fn unseen(&self) -> Vec<String> {
        self.contract.unseen()
    }
}
