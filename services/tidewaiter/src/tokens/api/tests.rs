use std::sync::Arc;

use axum::{
    Extension,
    body::{Body, to_bytes},
    http::Request,
};
use bus::Store;
use chassis::{
    Clock as _, Cx, CxLimits, FixedClock,
    http::{
        Limits, Tokens,
        openapi::{Info, document},
    },
};
use jiff::SignedDuration;
use serde_json::{Value, json};
use testkit::{Answered, Contract};
use tower::ServiceExt as _;

use super::{super::StoredTokens, *};

const NOW: &str = "2026-03-01T12:00:00Z";

/// An API in memory, as a process serves it; the token `root` is the installation's first.
struct World {
    clock: Arc<FixedClock>,
    store: Store,
    router: Router,
    contract: Contract,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(FixedClock::new(NOW.parse().unwrap()));
        let limits = CxLimits {
            compute_threads: 1,
            blocking_threads: 1,
        };
        let cx = Cx::new(Arc::<FixedClock>::clone(&clock), limits);
        let store = Store::memory();
        let stored = StoredTokens::new(&cx, store.clone(), || true);
        let tokens: Arc<dyn Tokens> = Arc::new(stored);
        let ledger = Ledger::new(store.clone(), cx.clock());
        let router = routes(ledger).layer(Extension(tokens));
        let info = Info {
            title: "tokens",
            version: "1",
            description: "who may ask",
        };
        let world = Self {
            clock,
            store,
            router: chassis::http::wrap(router, &Limits::default()),
            contract: Contract::new(document(info, &operations())),
        };
        world
            .put(
                "root",
                "default",
                &[Scope::Read, Scope::Scan, Scope::Admin],
                None,
            )
            .await;
        world
    }

    async fn put(&self, token: &str, tenant: &str, scopes: &[Scope], expires_at: Option<&str>) {
        let record = TokenRecord {
            name: token.to_owned(),
            scopes: scopes.to_vec(),
            tenant: tenant.parse().unwrap(),
            created_at: self.clock.now(),
            expires_at: expires_at.map(|at| at.parse().unwrap()),
            created_by: None,
        };
        let key = key(&token_digest(token));
        self.store.put(CONFIG, &key, &record, None).await.unwrap();
    }

    async fn ask(&self, token: &str, request: &str, body: Value) -> (u16, Value) {
        let (method, path) = request.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !body.is_null() {
            request = request.header("content-type", "application/json");
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let response = self
            .router
            .clone()
            .oneshot(request.body(body).unwrap())
            .await
            .unwrap();
        let (head, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        let media = head.headers.get(header::CONTENT_TYPE);
        self.contract.check(&Answered {
            method,
            path: path.split('?').next().unwrap(),
            status: head.status.as_u16(),
            media: media.map(|media| media.to_str().unwrap()),
            body: &body,
        });
        (
            head.status.as_u16(),
            serde_json::from_slice(&body).unwrap_or_default(),
        )
    }

    async fn make(&self, maker: &str, body: Value) -> (u16, Value) {
        self.ask(maker, "POST /v1/tokens", body).await
    }

    async fn names(&self, token: &str) -> Vec<String> {
        let (status, page) = self.ask(token, "GET /v1/tokens", Value::Null).await;
        assert_eq!(status, 200, "{page}");
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    }

    async fn id(&self, name: &str) -> String {
        let (_, page) = self.ask("root", "GET /v1/tokens", Value::Null).await;
        let mut items = page["items"].as_array().unwrap().iter();
        let found = items.find(|item| item["name"] == name).unwrap();
        found["id"].as_str().unwrap().to_owned()
    }

    async fn revoke(&self, token: &str, id: &str) -> (u16, Value) {
        self.ask(token, &format!("DELETE /v1/tokens/{id}"), Value::Null)
            .await
    }
}

#[tokio::test]
async fn a_token_is_made_used_listed_and_revoked() {
    let world = World::new().await;
    let body = json!({"name": "github", "role": "ci", "expires_at": "2026-06-01T00:00:00Z"});
    let (status, made) = world.make("root", body).await;
    assert_eq!(status, 201, "{made}");
    let secret = made["token"].as_str().unwrap().to_owned();
    assert_eq!(made["scopes"], json!(["read", "scan"]));
    assert_eq!(
        (&made["role"], &made["created_by"]),
        (&"ci".into(), &"root".into())
    );
    // It is known at once, and may not do this.
    assert_eq!(
        world.ask(&secret, "GET /v1/tokens", Value::Null).await.0,
        403
    );
    assert_eq!(world.names("root").await, ["github", "root"]);
    // Neither the list nor the store has the secret.
    let (_, page) = world.ask("root", "GET /v1/tokens", Value::Null).await;
    assert!(!page.to_string().contains(&secret));
    let id = made["id"].as_str().unwrap();
    assert_eq!(world.revoke("root", id).await.0, 204);
    assert_eq!(
        world.ask(&secret, "GET /v1/tokens", Value::Null).await.0,
        401
    );
    assert_eq!(world.revoke("root", id).await.0, 404);
}

#[tokio::test]
async fn a_token_ends_when_it_says() {
    let world = World::new().await;
    let body = json!({"name": "brief", "scopes": ["admin"], "expires_at": "2026-03-01T13:00:00Z"});
    let (_, made) = world.make("root", body).await;
    let secret = made["token"].as_str().unwrap();
    assert_eq!(
        world.ask(secret, "GET /v1/tokens", Value::Null).await.0,
        200
    );
    world.clock.advance(SignedDuration::from_hours(1));
    assert_eq!(
        world.ask(secret, "GET /v1/tokens", Value::Null).await.0,
        401
    );
    let (_, page) = world.ask("root", "GET /v1/tokens", Value::Null).await;
    assert_eq!(page["items"][0]["is_expired"], true);
}

#[tokio::test]
async fn a_token_grants_no_more_than_its_maker_has() {
    let world = World::new().await;
    let end = "2026-04-01T00:00:00Z";
    world.put("narrow", "default", &[Scope::Admin], None).await;
    world
        .put("brief", "default", &[Scope::Read, Scope::Admin], Some(end))
        .await;
    world
        .put("team", "team", &[Scope::Read, Scope::Admin], None)
        .await;
    let named = |more: Value| {
        let mut body = json!({"name": "new", "scopes": ["admin"]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    };
    for (maker, more, why) in [
        (
            "narrow",
            json!({"scopes": ["read"]}),
            "itself lacks the scope `read`",
        ),
        (
            "narrow",
            json!({"scopes": ["admin", "scan"]}),
            "itself lacks the scope `scan`",
        ),
        (
            "brief",
            json!({"expires_at": "2026-04-01T00:00:01Z"}),
            "itself ends at",
        ),
        (
            "team",
            json!({"tenant": "default"}),
            "is of the tenant `team`",
        ),
        (
            "team",
            json!({"tenant": "other"}),
            "is of the tenant `team`",
        ),
    ] {
        let (status, refused) = world.make(maker, named(more)).await;
        assert_eq!(status, 403, "{maker}: {refused}");
        assert!(
            refused["detail"].as_str().unwrap().contains(why),
            "{refused}"
        );
    }
    // What is not said is not more either.
    let (_, made) = world.make("brief", named(json!({}))).await;
    assert_eq!(made["expires_at"], end);
    let (_, made) = world.make("team", named(json!({}))).await;
    assert_eq!(made["tenant"], "team");
    // The installation's administrators administer all tenants; others see their own.
    let (status, made) = world
        .make("root", json!({"name": "t", "role": "ci", "tenant": "team"}))
        .await;
    assert_eq!((status, &made["tenant"]), (201, &"team".into()));
    assert_eq!(world.names("team").await, ["new", "t", "team"]);
    let foreign = world.id("root").await;
    assert_eq!(world.revoke("team", &foreign).await.0, 404);
}

#[tokio::test]
async fn what_makes_no_token_is_refused() {
    let world = World::new().await;
    for (body, status) in [
        (json!({"name": "x"}), 422),
        (json!({"name": "x", "role": "ci", "scopes": ["read"]}), 422),
        (json!({"name": "x", "role": "king"}), 422),
        (json!({"name": "Not a name", "role": "ci"}), 422),
        (json!({"name": "x", "role": "ci", "expires_at": NOW}), 422),
        (json!({"name": "root", "role": "ci"}), 409),
    ] {
        let (answered, refused) = world.make("root", body.clone()).await;
        assert_eq!(answered, status, "{body}: {refused}");
    }
    assert_eq!(world.names("root").await, ["root"]);
}

#[tokio::test]
async fn the_last_administrator_stays_unless_somebody_insists() {
    let world = World::new().await;
    let root = world.id("root").await;
    let (status, refused) = world.revoke("root", &root).await;
    assert_eq!(status, 409, "{refused}");
    // One that ends, and one of another tenant, do not take its place.
    world
        .put(
            "brief",
            "default",
            &[Scope::Admin],
            Some("2026-04-01T00:00:00Z"),
        )
        .await;
    world.put("team", "team", &[Scope::Admin], None).await;
    let (status, refused) = world.revoke("root", &root).await;
    assert_eq!(status, 409);
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("that does not expire"),
        "{refused}"
    );
    let brief = world.id("brief").await;
    assert_eq!(world.revoke("root", &brief).await.0, 204);
    // Another one does.
    world.put("second", "default", &[Scope::Admin], None).await;
    assert_eq!(world.revoke("second", &root).await.0, 204);
    let (_, page) = world.ask("second", "GET /v1/tokens", Value::Null).await;
    let second = page["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(world.revoke("second", &second).await.0, 409);
    assert_eq!(
        world
            .revoke("second", &format!("{second}?force=true"))
            .await
            .0,
        204
    );
    assert_eq!(
        world.ask("second", "GET /v1/tokens", Value::Null).await.0,
        401
    );
}

#[tokio::test]
async fn two_administrators_cannot_revoke_each_other() {
    for _ in 0..20 {
        let world = World::new().await;
        world.put("second", "default", &[Scope::Admin], None).await;
        let (root, second) = (world.id("root").await, world.id("second").await);
        let (one, two) = tokio::join!(world.revoke("second", &root), world.revoke("root", &second));
        let stored = world
            .store
            .list::<TokenRecord>(CONFIG, super::super::KEYS)
            .await
            .unwrap();
        assert!(!stored.is_empty(), "{one:?} {two:?}");
    }
}

#[tokio::test]
async fn lists_have_pages() {
    let world = World::new().await;
    for number in 0..5 {
        world
            .put(&format!("t{number}"), "default", &[Scope::Read], None)
            .await;
    }
    let (mut path, mut names) = ("GET /v1/tokens?limit=2".to_owned(), Vec::new());
    loop {
        let (_, page) = world.ask("root", &path, Value::Null).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(
            items
                .iter()
                .map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("GET /v1/tokens?limit=2&cursor={next}");
    }
    assert_eq!(names, ["root", "t0", "t1", "t2", "t3", "t4"]);
}

#[tokio::test]
async fn every_answer_that_is_described_is_given() {
    let world = World::new().await;
    world.put("reader", "default", &[Scope::Read], None).await;
    let some = json!({"name": "x", "role": "ci"});
    for request in [
        "GET /v1/tokens",
        "POST /v1/tokens",
        "DELETE /v1/tokens/none",
    ] {
        for token in ["", "guess", "reader", "root"] {
            let body = if request.starts_with("POST") {
                some.clone()
            } else {
                Value::Null
            };
            world.ask(token, request, body).await;
        }
    }
    let known = Request::get("/v1/tokens").header("authorization", "Bearer root");
    let known = known
        .header("if-none-match", "*")
        .body(Body::empty())
        .unwrap();
    let unchanged = world.router.clone().oneshot(known).await.unwrap();
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
    world.contract.check(&Answered {
        method: "GET",
        path: "/v1/tokens",
        status: 304,
        media: None,
        body: b"",
    });
    let root = world.id("root").await;
    world.revoke("root", &root).await;
    world.revoke("root", &world.id("x").await).await;
    world
        .make("root", json!({"name": "root", "role": "ci"}))
        .await;
    world.make("root", json!({"name": 1})).await;
    world
        .make("root", json!({"name": "x".repeat(BODY_BYTES_MAX)}))
        .await;
    world
        .ask("root", "GET /v1/tokens?limit=0", Value::Null)
        .await;
    world
        .ask("root", "DELETE /v1/tokens/x?force=maybe", Value::Null)
        .await;
    let plain = Request::post("/v1/tokens").header("authorization", "Bearer root");
    let plain = world
        .router
        .clone()
        .oneshot(plain.body(Body::from("{}")).unwrap())
        .await
        .unwrap();
    assert_eq!(plain.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let broken = Request::post("/v1/tokens").header("authorization", "Bearer root");
    let broken = broken
        .header("content-type", "application/json")
        .body(Body::from("{"))
        .unwrap();
    assert_eq!(
        world.router.clone().oneshot(broken).await.unwrap().status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        world.contract.unseen(),
        ["POST /v1/tokens 400", "POST /v1/tokens 415"]
    );
}

#[tokio::test]
async fn the_list_says_when_a_token_was_used_last() {
    let world = World::new().await;
    // A use is noted beside the request that it belongs to.
    for _ in 0..1_000 {
        let (_, page) = world.ask("root", "GET /v1/tokens", Value::Null).await;
        if page["items"][0]["last_used_at"] == NOW {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the use was not noted");
}
