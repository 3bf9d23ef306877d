use chassis::{CxLimits, FixedClock};
use model::runtime::IncidentState;

use super::*;
use crate::testing::Client;

const SHOP: &str =
    "name: shop\nmode: enforce\nrules: [{ name: cut, when: {}, then: [collect_evidence] }]\n";

struct World {
    store: Store,
    client: Client,
}

impl World {
    fn new() -> Self {
        let store = Store::memory();
        let (_, policies) = watch::channel(Arc::default());
        let api = Api {
            store: store.clone(),
            policies,
            census: Census::default(),
            cx: Cx::new(
                Arc::new(FixedClock::new("2026-03-01T12:00:00Z".parse().unwrap())),
                CxLimits {
                    compute_threads: 1,
                    blocking_threads: 1,
                },
            ),
        };
        Self {
            store,
            client: Client::new(router(api), &operations()),
        }
    }

    async fn ask(&self, scopes: &[&str], request: &str, body: &str) -> (u16, String) {
        self.client.ask(scopes, request, body).await
    }

    async fn happened(&self, id: &str, at: &str) {
        let at = at.parse().unwrap();
        let incident = Incident {
            id: id.to_owned(),
            state: IncidentState::Closed,
            severity: model::Severity::High,
            title: "a shell".to_owned(),
            node: "n1".parse().unwrap(),
            container: "c1".to_owned(),
            container_name: "web".to_owned(),
            image_name: "r.example/web:1".to_owned(),
            image: None,
            namespace: None,
            pod: None,
            host: String::new(),
            rules: Vec::new(),
            detections: 1,
            left_out: 0,
            tactics: Vec::new(),
            timeline: None,
            surroundings: None,
            first_at: at,
            last_at: at,
        };
        let key = format!("default.{id}");
        self.store
            .put(INCIDENTS, &key, &incident, None)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_response_policy_is_put_read_and_deleted_by_an_administrator() {
    let world = World::new();
    let path = "/v1/response-policies/shop";
    for (scopes, status) in [([].as_slice(), 401), (&["read"], 403), (&["respond"], 403)] {
        let asked = world.ask(scopes, &format!("PUT {path}"), SHOP).await.0;
        assert_eq!(asked, status, "{scopes:?}");
    }
    let (status, body) = world.ask(&["admin"], &format!("PUT {path}"), SHOP).await;
    assert_eq!(status, 200, "{body}");
    let read = world.ask(&["read"], &format!("GET {path}"), "").await;
    assert_eq!(read, (200, SHOP.to_owned()));
    assert_eq!(
        world.ask(&["admin"], &format!("DELETE {path}"), "").await.0,
        204
    );
    assert_eq!(
        world.ask(&["read"], &format!("GET {path}"), "").await.0,
        404
    );
    let builtin = world
        .ask(&["read"], "GET /v1/response-policies/default", "")
        .await
        .1;
    assert_eq!(builtin, crate::BUILTIN_RESPONSES);
}

#[tokio::test]
async fn a_replay_takes_the_incidents_of_the_last_days_and_changes_nothing() {
    let world = World::new();
    world.happened("a", "2026-02-28T12:00:00Z").await;
    world.happened("b", "2026-02-01T12:00:00Z").await;
    let ask = async |query: &str, yaml: &str| {
        let request = format!("POST /v1/response-replays{query}");
        let (status, body) = world.ask(&["read"], &request, yaml).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<serde_json::Value>(&body).unwrap()
    };
    let found = ask("", SHOP).await;
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    assert_eq!(found["items"][0]["responses"][0]["stage"], "ordered");
    let all = ask("?days=60", SHOP).await;
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    let in_force = ask("", "").await;
    assert_eq!(in_force["items"][0]["responses"][0]["stage"], "observed");
    let records = world
        .store
        .list::<serde_json::Value>(model::runtime::RESPONSE_RECORDS, "")
        .await;
    assert!(records.unwrap().is_empty());
}

#[tokio::test]
async fn a_replay_asks_where_images_come_from() {
    let world = World::new();
    let image = Digest::of(b"image");
    world.happened("a", "2026-02-28T12:00:00Z").await;
    let key = "default.a";
    let stored = world.store.get::<Incident>(INCIDENTS, key).await;
    let mut incident = stored.unwrap().unwrap().body;
    incident.image = Some(image);
    world
        .store
        .put(INCIDENTS, key, &incident, None)
        .await
        .unwrap();
    let seen = model::SeenReference {
        source: "main".parse().unwrap(),
        registry: "r.example".to_owned(),
        repository: "web".to_owned(),
        tag: None,
        since: incident.first_at,
        gone_at: None,
    };
    let known = model::Known {
        references: vec![seen],
        ..model::Known::default()
    };
    let key = model::RecordKey::new(&Slug::default_tenant(), image, model::What::Known);
    world.store.put_record(&key, &known, 0).await.unwrap();
    for (source, count) in [("main", 1), ("other", 0)] {
        let yaml = format!(
            "name: shop\nmode: enforce\n\
             rules: [{{ name: cut, when: {{ sources: [{source}] }}, then: [collect_evidence] }}]\n"
        );
        let (_, body) = world
            .ask(&["read"], "POST /v1/response-replays", &yaml)
            .await;
        let found: serde_json::Value = serde_json::from_str(&body).unwrap();
        let responses = found["items"][0]["responses"].as_array().unwrap();
        assert_eq!(responses.len(), count, "{source}: {body}");
    }
}

#[tokio::test]
async fn every_answer_that_is_described_is_given() {
    let world = World::new();
    let large = "x".repeat(DOCUMENT_BYTES_MAX + 1);
    let all = ["read", "admin"];
    for request in [
        "GET /v1/response-policies",
        "GET /v1/response-policies/shop",
        "PUT /v1/response-policies/shop",
        "DELETE /v1/response-policies/shop",
        "POST /v1/response-replays",
    ] {
        world.ask(&[], request, SHOP).await;
        world.ask(&["scan"], request, SHOP).await;
        world.ask(&all, &request.replace("shop", "UP"), SHOP).await;
    }
    for (request, body) in [
        ("GET /v1/response-policies?limit=0", ""),
        ("GET /v1/response-policies", ""),
        ("GET /v1/response-policies if not *", ""),
        ("GET /v1/response-policies/none", ""),
        ("PUT /v1/response-policies/shop", SHOP),
        ("PUT /v1/response-policies/other", SHOP),
        ("PUT /v1/response-policies/shop", &*large),
        ("GET /v1/response-policies/shop", ""),
        ("GET /v1/response-policies/shop if not *", ""),
        ("DELETE /v1/response-policies/shop", ""),
        ("POST /v1/response-replays", "name: ["),
        ("POST /v1/response-replays?days=0", ""),
        ("POST /v1/response-replays", &*large),
    ] {
        world.ask(&all, request, body).await;
    }
    assert_eq!(world.client.unseen(), [""; 0]);
}
