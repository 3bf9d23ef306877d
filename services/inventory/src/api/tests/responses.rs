//! What is done about incidents: orders, evidence, replacements.

use axum::body::Bytes;
use model::runtime::{
    Action, ActionKind, EvidenceObject, Mode, Order, ProposedResponse, RESPONSE_RECORDS,
    ResponseId, ResponseRecord, Stage, forensic_objects,
};
use serde_json::json;

use super::*;

const ORDERS: &str = "/v1/incidents/i1/orders";
const EVIDENCE: &[u8] = b"what was there";

fn evidence_path(digest: impl std::fmt::Display) -> String {
    format!("/v1/responses/i1/evidence/{digest}")
}

/// Incident `i1` has an answer that waits, with evidence.
pub(super) async fn answered(world: &mut World) {
    let node = "node-1".parse().unwrap();
    let store = world.api.store.clone();
    let bucket = forensic_objects(&tenant(), &node);
    let stored = store
        .put_object_bytes(&bucket, Bytes::from_static(EVIDENCE))
        .await;
    let response = ProposedResponse {
        id: ResponseId::of("i1", ActionKind::Pause, ("aa1", None), 0),
        rule: Some("shop/cut".to_owned()),
        action: Action::Pause,
        mode: Mode::Enforced,
        container_started_at: None,
        stage: Stage::Proposed,
        reason: "a shell".to_owned(),
        guards: Vec::new(),
        approval: None,
        proposed_at: time(NOW),
        valid_for_s: 60,
        renewals_left: 0,
        expires_at: None,
        evidence: vec![EvidenceObject {
            digest: stored.unwrap(),
            bytes: 14,
            media_type: String::new(),
        }],
        before: None,
        after: None,
        round: 0,
        steps: Vec::new(),
    };
    let record = ResponseRecord {
        incident: "i1".to_owned(),
        node,
        container: "aa1".to_owned(),
        container_name: "app".to_owned(),
        image_name: "r.example/team/app:1".to_owned(),
        image: None,
        responses: vec![response],
        orders: Vec::new(),
        updated_at: time(NOW),
    };
    let key = ResponseRecord::key(&tenant(), "i1");
    store
        .put(RESPONSE_RECORDS, &key, &record, None)
        .await
        .unwrap();
    world.answers(record);
    let ledger = model::runtime::ResponseLedger::default();
    let key = model::runtime::ResponseLedger::key(&tenant());
    store
        .put(RESPONSE_RECORDS, &key, &ledger, None)
        .await
        .unwrap();
}

impl World {
    /// The view takes up the answer to an incident.
    fn answers(&mut self, record: ResponseRecord) {
        let key = ResponseRecord::key(&tenant(), &record.incident).parse();
        let told = Told::Response(key.unwrap(), Some(Box::new(record)));
        self.tell(RESPONSE_RECORDS, told);
    }
}

/// Requests that bring every answer about responses.
pub(super) async fn ask_everything(world: &World) {
    let evidence = evidence_path(Digest::of(EVIDENCE));
    for scopes in [None, Some(["scan"].as_slice()), Some(&["read"])] {
        world.ask(&evidence, scopes, "").await;
        world.ask(&evidence, scopes, "*").await;
    }
    for path in [
        "/v1/responses?limit=0",
        "/v1/responses/none",
        "/v1/replacements?limit=0",
        &evidence_path("sha256:ff"),
        &evidence_path(digest("other")),
    ] {
        world.ask(path, Some(&["read"]), "").await;
    }
    let release = json!({ "order": "release" }).to_string();
    for path in [ORDERS, "/v1/containers/aa1/orders"] {
        for scopes in [None, Some(["read"].as_slice()), Some(&["respond"])] {
            world.post(path, scopes, &release).await;
        }
        world
            .post(path, Some(&["respond"]), r#"{"order":"act"}"#)
            .await;
        world
            .post(path, Some(&["respond"]), r#"{"order":"dance"}"#)
            .await;
        world.post(path, Some(&["respond"]), "{").await;
        world.post(path, Some(&["respond"]), "plain").await;
        let large = format!(r#"{{"order":"act","reason":"{}"}}"#, "x".repeat(4 << 20));
        world.post(path, Some(&["respond"]), &large).await;
    }
    for path in [
        "/v1/incidents/none/orders",
        "/v1/containers/none/orders",
        "/v1/containers/a/orders",
    ] {
        world.post(path, Some(&["respond"]), &release).await;
    }
}

async fn world() -> World {
    let mut world = World::new();
    let container = |id: &str| runtime::container(id, "app", digest("a config"));
    world.reported("node-1", &[container("aa1"), container("ab1")], &[]);
    world.happened(runtime::incident("i1", "aa1", 1));
    answered(&mut world).await;
    world
}

#[tokio::test]
async fn an_incident_carries_its_response() {
    let world = world().await;
    let incident = world.ok("/v1/incidents/i1").await;
    assert_eq!(incident["response"]["responses"][0]["stage"], "proposed");
    let waiting = world.ok("/v1/responses?waiting=true").await;
    assert_eq!(waiting["items"].as_array().unwrap().len(), 1);
    let active = world.ok("/v1/responses?active=true").await;
    assert_eq!(active["items"], json!([]));
}

/// The answer to an incident whose one response is so far.
fn answer(incident: &str, stage: Stage, second: i64) -> ResponseRecord {
    let node = if second % 2 == 0 { "node-2" } else { "node-1" };
    let at = Timestamp::from_second(second).unwrap();
    serde_json::from_value(json!({
        "incident": incident, "node": node, "container": "aa1", "updated_at": at,
        "responses": [{
            "id": incident, "action": "pause", "mode": "enforced", "stage": stage,
            "proposed_at": at, "valid_for_s": 60,
        }],
    }))
    .unwrap()
}

/// The incidents of a list, page by page.
async fn listed(world: &World, query: &str) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.ok(&format!("/v1/responses?{query}{cursor}")).await;
        let items = page["items"].as_array().unwrap();
        let names = items.iter().map(|one| one["incident"].as_str().unwrap());
        all.extend(names.map(ToOwned::to_owned));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[tokio::test]
async fn answers_are_listed_in_pages_what_changed_last_first() {
    let mut world = World::new();
    for (second, stage) in [
        (1, Stage::Proposed),
        (2, Stage::Held),
        (3, Stage::Done),
        (4, Stage::Denied),
        (5, Stage::Observed),
    ] {
        world.answers(answer(&format!("i{second}"), stage, second));
    }
    let all = ["i5", "i4", "i3", "i2", "i1"];
    for limit in [1, 2, 5, 500] {
        assert_eq!(listed(&world, &format!("limit={limit}")).await, all);
    }
    assert_eq!(listed(&world, "limit=1&waiting=true").await, ["i2", "i1"]);
    assert_eq!(
        listed(&world, "limit=1&waiting=false").await,
        ["i5", "i4", "i3"]
    );
    assert_eq!(listed(&world, "limit=1&active=true").await, ["i3"]);
    assert_eq!(listed(&world, "limit=1&node=node-2").await, ["i4", "i2"]);
    // What changes moves to the front, and is there once.
    world.answers(answer("i2", Stage::Done, 6));
    let now = listed(&world, "limit=2").await;
    assert_eq!(now, ["i2", "i5", "i4", "i3", "i1"]);
    assert_eq!(listed(&world, "waiting=true").await, ["i1"]);
    let key = "default.i2".parse().unwrap();
    world.tell(RESPONSE_RECORDS, Told::Response(key, None));
    assert_eq!(listed(&world, "active=true").await, ["i3"]);
    let view = Arc::clone(&world.api.view);
    view.begin(RESPONSE_RECORDS, 100, "then").unwrap();
    view.begin(RESPONSE_RECORDS, 100, "now").unwrap();
    assert_eq!(listed(&world, "").await, [""; 0]);
}

#[tokio::test]
async fn a_page_looks_at_so_many_answers_and_goes_on_at_the_next() {
    let mut world = World::new();
    world.api.rows_examined_max = 3;
    for second in 0..10 {
        let stage = if second == 0 {
            Stage::Proposed
        } else {
            Stage::Done
        };
        world.answers(answer(&format!("i{second}"), stage, second));
    }
    let page = world.ok("/v1/responses?waiting=true").await;
    assert_eq!(page["items"], json!([]));
    assert!(page["next"].is_string());
    assert_eq!(listed(&world, "waiting=true").await, ["i0"]);
}

#[tokio::test]
async fn a_cursor_is_the_clients_word() {
    let mut world = World::new();
    world.answers(answer("i1", Stage::Done, 1));
    let other = "other.i9".parse().unwrap();
    let theirs = answer("i9", Stage::Done, 9);
    let told = Told::Response(other, Some(Box::new(theirs)));
    world.tell(RESPONSE_RECORDS, told);
    assert_eq!(listed(&world, "").await, ["i1"]);
    let of = |key: &[u8]| PageQuery::cursor(key);
    let long = "00".repeat(5_000);
    let foreign = [of(b"other\0"), of(b"default")];
    for cursor in ["", "zz", "0", "%00", &long, &foreign[0], &foreign[1]] {
        let asked = world.get(&format!("/v1/responses?cursor={cursor}")).await;
        assert_eq!(asked.0, StatusCode::BAD_REQUEST, "{cursor}");
    }
    // One that no page had leads nowhere else than into this list.
    for key in [&b"default\0"[..], b"default\0\0", b"default\0i1"] {
        let found = listed(&world, &format!("cursor={}", of(key))).await;
        assert_eq!(found, ["i1"], "{key:?}");
    }
    let end = of(&[b"default\0".as_slice(), &[0xff; 2_000]].concat());
    let found = listed(&world, &format!("cursor={end}")).await;
    assert_eq!(found, [""; 0]);
}

#[tokio::test]
async fn an_order_says_who_what_and_on_which_container_and_comes_once() {
    let world = world().await;
    let body = json!({
        "order": "act", "action": "quarantine", "allow": ["10.0.0.53:53"],
        "valid_for_s": 60, "force": true, "reason": "seen",
    });
    let respond = Some(["respond"].as_slice());
    let (status, taken) = world.post(ORDERS, respond, &body.to_string()).await;
    assert_eq!(
        (status, &taken["incident"]),
        (StatusCode::ACCEPTED, &json!("i1"))
    );
    let (_, again) = world.post(ORDERS, respond, &body.to_string()).await;
    assert_eq!(again["id"], taken["id"]);
    let (_, by_hand) = world
        .post("/v1/containers/ab/orders", respond, &body.to_string())
        .await;
    let orders = world.orders.lock().unwrap().clone();
    let first = &orders[0];
    assert_eq!(
        (&*first.by, first.node.as_str(), &*first.container),
        ("alice", "node-1", "aa1")
    );
    assert!(first.force && first.incident.as_deref() == Some("i1"));
    let expected = Order::Act {
        action: Action::Quarantine {
            allow: vec!["10.0.0.53:53".parse().unwrap()],
        },
        valid_for_s: 60,
        dry_run: false,
    };
    assert_eq!(first.order, expected);
    assert_eq!(orders[1].id, first.id);
    let mut gentle = body.clone();
    gentle["force"] = json!(false);
    let (_, other) = world.post(ORDERS, respond, &gentle.to_string()).await;
    assert_ne!(other["id"], taken["id"]);
    assert_eq!((&*orders[2].container, &orders[2].incident), ("ab1", &None));
    assert_eq!(by_hand["incident"], ResponseRecord::by_hand("ab1"));
}

#[tokio::test]
async fn an_order_that_means_nothing_is_refused() {
    let world = world().await;
    for body in [
        json!({ "order": "approve" }),
        json!({ "order": "act" }),
        json!({ "order": "act", "action": "pause", "allow": ["10.0.0.1"] }),
        json!({ "order": "act", "action": "pause", "valid_for_s": 0 }),
        json!({ "order": "act", "action": "pause", "valid_for_s": 2_592_001 }),
        json!({ "order": "act", "action": "quarantine", "allow": vec!["10.0.0.1"; 65] }),
        json!({ "order": "act", "action": "pause", "response": "00ff" }),
        json!({ "order": "release", "dry_run": true }),
        json!({ "order": "release", "force": true }),
        json!({ "order": "release", "action": "kill" }),
        json!({ "order": "deny", "response": "00ff", "valid_for_s": 60 }),
        json!({ "order": "approve", "response": "00ff", "allow": ["10.0.0.1"] }),
    ] {
        let (status, answer) = world
            .post(ORDERS, Some(&["respond"]), &body.to_string())
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
    }
    assert!(world.orders.lock().unwrap().is_empty());
}

#[tokio::test]
async fn evidence_is_given_to_who_names_it_by_its_incident() {
    let world = world().await;
    let (status, body) = world.get(&evidence_path(Digest::of(EVIDENCE))).await;
    assert_eq!((status, body), (StatusCode::OK, json!("what was there")));
    let (status, _) = world.get(&evidence_path(digest("other"))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_image_whose_tag_leads_to_a_better_one_is_to_be_replaced() {
    let mut world = World::new();
    for (image, decision) in [("old", Decision::Deny), ("new", Decision::Allow)] {
        // Only the new one has the tag.
        let tag = if image == "old" { "0" } else { "1" };
        world.known(image, tag, None, "linux/amd64").await;
        let scan = world.assessed(image, Vec::new()).await;
        world.judged(image, "default", decision, scan).await;
        world.swept(image, NOW).await;
    }
    let runs = |id: &str, image: &str| {
        let config = digest(&format!("{image} config"));
        runtime::container(id, "r.example/team/app:1", config)
    };
    world.reported("node-1", &[runs("aa1", "old"), runs("ab1", "new")], &[]);
    world.reported("node-2", &[runs("ac1", "new")], &[]);
    let found = world.ok("/v1/replacements").await;
    let [one] = found["items"].as_array().unwrap().as_slice() else {
        panic!("{found}");
    };
    assert_eq!(one["old"], digest("old").to_string());
    assert_eq!(one["new"], digest("new").to_string());
    assert_eq!(
        (&one["old_running"], &one["new_running"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(one["old_nodes"], json!(["node-1"]));
    assert_eq!(one["done_nodes"], json!(["node-2"]));
    assert_eq!(one["containers"][0]["id"], "aa1");
    // Once it is replaced, nothing is left.
    world.reported("node-1", &[runs("ab1", "new")], &[]);
    assert_eq!(world.ok("/v1/replacements").await["items"], json!([]));
}

/// Every replacement, page by page, as `image old`.
async fn pages(world: &World, limit: usize) -> Vec<Vec<String>> {
    let (mut pages, mut query) = (Vec::new(), format!("/v1/replacements?limit={limit}"));
    loop {
        let found = world.ok(&query).await;
        let rows = found["items"].as_array().unwrap().iter();
        let names = rows.map(|row| format!("{} {}", row["image"], row["old"]));
        pages.push(names.collect::<Vec<_>>());
        match found["next"].as_str() {
            Some(next) => query = format!("/v1/replacements?limit={limit}&cursor={next}"),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn every_replacement_is_on_one_page_however_pages_are_bounded() {
    let mut world = World::new();
    for (image, tags, decision) in [
        ("old", &["0"][..], Decision::Deny),
        ("older", &["0"], Decision::Deny),
        ("new", &["1", "1-slim"], Decision::Allow),
    ] {
        world.tagged(image, tags, None, "linux/amd64").await;
        let scan = world.assessed(image, Vec::new()).await;
        world.judged(image, "default", decision, scan).await;
        world.swept(image, NOW).await;
    }
    let runs = |id: &str, tag: &str, image: &str| {
        let config = digest(&format!("{image} config"));
        runtime::container(id, &format!("r.example/team/app:{tag}"), config)
    };
    let all = [
        runs("a1", "1", "old"),
        runs("a2", "1", "older"),
        // One text is the beginning of the other.
        runs("b1", "1-slim", "old"),
        runs("b2", "1-slim", "older"),
        runs("c1", "1", "new"),
    ];
    world.reported("node-1", &all, &[]);
    let whole = pages(&world, 500).await;
    assert_eq!((whole.len(), whole[0].len()), (1, 4), "{whole:?}");
    for limit in [1, 2, 3] {
        assert_eq!(pages(&world, limit).await.concat(), whole[0], "{limit}");
    }
    // A page looks at one container, and then at no other name.
    world.api.rows_examined_max = 1;
    let bounded = pages(&world, 500).await;
    assert_eq!((bounded.len(), bounded.concat()), (2, whole.concat()));
    for cursor in [
        "64656661756c74",
        "64656661756c740061",
        "64656661756c74006100ff",
        "6f7468657200",
    ] {
        let (status, _) = world
            .get(&format!("/v1/replacements?cursor={cursor}"))
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{cursor}");
    }
}
