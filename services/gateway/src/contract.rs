//! What the document says of our routes is what they answer: every answer of every test is held
//! against it.

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, Response, header},
};
use bus::Store;
use chassis::{
    Cx,
    http::{
        Grant, Limits,
        openapi::{Info, document},
    },
};
use model::Digest;
use serde_json::{Value, json};
use testkit::{Answered, Contract};
use tower::ServiceExt as _;

use crate::{Config, hooks, intake::fake::Memory, keys::Keys, scans};

/// The contract that all tests share.
pub(crate) static CONTRACT: LazyLock<Contract> = LazyLock::new(contract);

const SIGNED: &[u8] = include_bytes!("../testdata/generic/good-push.http");

fn contract() -> Contract {
    let info = Info {
        title: "gateway",
        version: "1",
        description: "the outside world in",
    };
    Contract::new(document(info, &crate::operations()))
}

/// An answer, held against a contract.
pub(crate) async fn ask(
    contract: &Contract,
    router: &Router,
    request: Request<Body>,
) -> Response<Vec<u8>> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let router = chassis::http::wrap(router.clone(), &Limits::default());
    let (head, body) = router.oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let media = head.headers.get(header::CONTENT_TYPE);
    contract.check(&Answered {
        method: method.as_str(),
        path: &path,
        status: head.status.as_u16(),
        media: media.map(|media| media.to_str().unwrap()),
        body: &body,
    });
    Response::from_parts(head, body.to_vec())
}

/// Asks, and says what the status was.
struct Asker<'a> {
    contract: &'a Contract,
    router: Router,
}

impl Asker<'_> {
    async fn hook(&self, path: &str, body: &[u8], token: &str) -> u16 {
        let request = Request::post(path).header("authorization", format!("Bearer {token}"));
        let request = request.body(Body::from(body.to_vec())).unwrap();
        ask(self.contract, &self.router, request)
            .await
            .status()
            .as_u16()
    }

    async fn scan(&self, path: &str, scope: Option<&str>, body: &Value) -> u16 {
        let mut request = Request::post(path).header("content-type", "application/json");
        if let Some(scope) = scope {
            request = request.extension(Grant {
                name: "ci".to_owned(),
                tenant: "default".to_owned(),
                scopes: vec![scope.to_owned()],
            });
        }
        let request = request.body(Body::from(body.to_string())).unwrap();
        ask(self.contract, &self.router, request)
            .await
            .status()
            .as_u16()
    }
}

fn config() -> Config {
    let token = Digest::of(b"token").hex();
    let source = json!({"name": "main", "registry": "docker.io", "hook_token_sha256": token});
    Config {
        sources: vec![serde_json::from_value(source).unwrap()],
        ..Config::default()
    }
}

fn router(config: &Config, room: usize) -> Router {
    let cx = Cx::for_tests();
    let intake = Arc::new(Memory::with_room(room));
    let keys = Keys::new(Store::memory(), || true);
    let scans = scans::routes(&cx, config, intake.clone(), keys).unwrap();
    hooks::routes(&cx, config, intake).merge(scans)
}

#[tokio::test]
async fn every_answer_that_is_described_is_given() {
    let contract = contract();
    let asker = |config: &Config, room| Asker {
        contract: &contract,
        router: router(config, room),
    };
    let open = asker(&config(), 10);
    assert_eq!(open.hook("/hooks/main", b"{}", "token").await, 202);
    assert_eq!(open.hook("/hooks/main", b"{}", "wrong").await, 401);
    assert_eq!(open.hook("/hooks/none", b"{}", "token").await, 404);
    let large = vec![b' '; config().hook_bytes_max + 1];
    assert_eq!(open.hook("/hooks/main", &large, "token").await, 413);

    let body = json!({"image": "debian:12"});
    assert_eq!(open.scan("/v1/scans", Some("scan"), &body).await, 202);
    assert_eq!(
        open.scan("/v1/scans?wait=1", Some("scan"), &body).await,
        303
    );
    assert_eq!(
        open.scan("/v1/scans?wait=121", Some("scan"), &body).await,
        400
    );
    assert_eq!(open.scan("/v1/scans", Some("read"), &body).await, 403);
    assert_eq!(open.scan("/v1/scans", None, &body).await, 401);
    assert_eq!(
        open.scan("/v1/scans", Some("scan"), &json!({"image": 1}))
            .await,
        422
    );
    let large = json!({"image": "x".repeat(100_000)});
    assert_eq!(open.scan("/v1/scans", Some("scan"), &large).await, 413);
    let grant = Grant {
        name: "ci".to_owned(),
        tenant: "default".to_owned(),
        scopes: vec!["scan".to_owned()],
    };
    let request = Request::post("/v1/scans")
        .extension(grant)
        .body(Body::from("{}"))
        .unwrap();
    assert_eq!(
        ask(&contract, &open.router, request)
            .await
            .status()
            .as_u16(),
        415
    );

    let full = asker(&config(), 0);
    assert_eq!(full.scan("/v1/scans", Some("scan"), &body).await, 503);
    let busy = Config {
        scans_burst_max: 0,
        hooks_burst_max: 0,
        ..config()
    };
    let busy = asker(&busy, 10);
    assert_eq!(busy.hook("/hooks/main", b"{}", "token").await, 429);
    assert_eq!(busy.scan("/v1/scans", Some("scan"), &body).await, 429);

    // The same signature twice, and what a full spool does not take.
    for (room, statuses) in [(10, [202, 409]), (0, [503, 503])] {
        let signing = hooks::tests::Signing::new(room);
        for status in statuses {
            let request = hooks::tests::recorded("/hooks/ci", SIGNED);
            let answer = ask(&contract, &signing.router, request).await;
            assert_eq!(answer.status().as_u16(), status);
        }
    }
    assert_eq!(contract.unseen(), [""; 0]);
}
