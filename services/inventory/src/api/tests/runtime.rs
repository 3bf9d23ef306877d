//! Nodes, containers and incidents.

use jiff::SignedDuration;
use model::{
    event::{EVIDENCE_OBJECTS, INCIDENTS, NODES, REFS},
    runtime::{Incident, NodeRecord, SightedImages, SightedRecord, Unserved},
};
use serde_json::json;

use super::*;

/// A container as its runtime tells of it.
pub(super) fn container(id: &str, image: &str, image_id: Digest) -> Value {
    json!({
        "id": id, "name": format!("name-{id}"), "runtime": "podman", "state": "running",
        "image": image, "image_id": image_id,
    })
}

pub(super) fn incident(id: &str, container: &str, second: u32) -> Incident {
    let at = format!("2026-03-01T11:00:{second:02}Z");
    serde_json::from_value(json!({
        "id": id, "state": "open", "severity": "high", "title": "something ran",
        "node": "node-1", "container": container, "rules": ["drift/added-executable"],
        "detections": 1, "first_at": at, "last_at": at,
    }))
    .unwrap()
}

fn incident_on(node: &str, id: &str, container: &str, second: u32) -> Incident {
    Incident {
        node: node.parse().unwrap(),
        ..incident(id, container, second)
    }
}

impl World {
    /// A node of x86-64 reports containers and images.
    pub(super) fn reported(&mut self, node: &str, containers: &[Value], images: &[Value]) {
        let record: NodeRecord = serde_json::from_value(json!({
            "report": {
                "node": node, "boot": "b1", "sequence": 1, "at": NOW, "agent": "0.1.0",
                "host": {"name": "host-1", "machine": "x86_64", "runtimes": [{"name": "podman"}]},
                "sensors": {"tier": "bpf"}, "containers": containers, "images": images,
            },
            "received_at": NOW,
        }))
        .unwrap();
        let key = format!("default.{node}.reported").parse().unwrap();
        self.tell(NODES, Told::Node(key, Some(Box::new(record))));
    }

    /// A node's containers speak with others.
    fn connected(&mut self, node: &str, seen: Value) {
        let record: model::runtime::NodeConnections = serde_json::from_value(seen).unwrap();
        let key = crate::view::NodeKey::of(&format!("default.{node}.connections"), "connections");
        self.tell(
            NODES,
            Told::Connections(key.unwrap(), Some(Box::new(record))),
        );
    }

    pub(super) fn happened(&mut self, incident: Incident) {
        let key = format!("default.{}", incident.id).parse().unwrap();
        self.tell(INCIDENTS, Told::Incident(key, Some(Box::new(incident))));
    }

    pub(super) fn tell(&mut self, bucket: &str, told: Told) {
        self.sequence += 1;
        let write = Write {
            bucket: bucket.to_owned(),
            sequence: self.sequence,
            told: Some(told),
        };
        self.api.view.apply(&write).unwrap();
    }

    /// The ids of the containers in a list.
    async fn ids(&self, path: &str) -> Vec<String> {
        let answer = self.ok(path).await;
        let items = answer["items"].as_array().unwrap();
        let ids = items.iter().map(|item| item["id"].as_str().unwrap());
        ids.map(ToOwned::to_owned).collect()
    }
}

/// An index `both` with `b` for this machine and `c` for another; `a` is denied, `x` unknown.
async fn fleet() -> World {
    let mut world = World::new();
    world.known("a", "1", None, "linux/amd64").await;
    world.known("b", "2", Some("both"), "linux/amd64").await;
    world.known("c", "2", Some("both"), "linux/arm64").await;
    let critical = || vec![vulnerability("CVE-2026-1", "critical")];
    let scan = world.assessed("a", critical()).await;
    world.judged("a", "default", Decision::Deny, scan).await;
    let low = vec![vulnerability("CVE-2026-2", "low")];
    world.assessed("b", low).await;
    world.assessed("c", critical()).await;
    let mut by_config = container("aa1", "r.example/team/app:1", digest("a config"));
    by_config["ports"] = json!([{"host_port": 8080, "container_port": 80, "protocol": "tcp"}]);
    by_config["namespace"] = json!("shop");
    let by_index = container("bb1", "r.example/team/app:2", digest("both"));
    let mut named = container("bb2", "r.example/team/app:2", digest("nobody knows"));
    named["repo_digests"] = json!([format!("r.example/team/app@{}", digest("b"))]);
    named["state"] = json!("stopped");
    let mut unknown = container("xx1", "elsewhere.example/x:1", digest("x"));
    unknown["security"] = json!({"privileged": true});
    let at_rest = json!({"runtime": "podman", "id": digest("a config"), "bytes": 5});
    let latent =
        json!({"runtime": "podman", "id": digest("b config"), "names": ["r.example/team/app:2"]});
    world.reported("node-1", &[by_config, by_index], &[at_rest]);
    world.reported("node-2", &[named, unknown], &[latent]);
    world
}

#[tokio::test]
async fn containers_are_joined_with_their_images_by_every_digest_there_is() {
    let world = fleet().await;
    let answer = world.ok("/v1/containers").await;
    let rows = answer["items"].as_array().unwrap();
    let joined: Vec<_> = rows
        .iter()
        .map(|row| (row["id"].as_str().unwrap(), row["image_digest"].clone()))
        .collect();
    let image = |name: &str| json!(digest(name));
    assert_eq!(
        joined,
        [
            ("aa1", image("a")),
            ("bb1", image("b")),
            ("bb2", image("b")),
            ("xx1", Value::Null)
        ]
    );
    insta::assert_json_snapshot!(rows[0]);
}

#[tokio::test]
async fn filters_choose_containers() {
    let world = fleet().await;
    let check = async |query: &str, expected: &[&str]| {
        let found = world.ids(&format!("/v1/containers?{query}")).await;
        assert_eq!(found, expected, "{query}");
    };
    check("node=node-1", &["aa1", "bb1"]).await;
    check("image=team/app:2", &["bb1", "bb2"]).await;
    check(&format!("image={}", digest("b")), &["bb1", "bb2"]).await;
    check(&format!("image={}", digest("both")), &["bb1"]).await;
    check("namespace=shop", &["aa1"]).await;
    check("state=stopped", &["bb2"]).await;
    check("unauthorized=true", &["aa1", "xx1"]).await;
    check("unauthorised=true", &["aa1", "xx1"]).await;
    check("unauthorized=false", &["bb1", "bb2"]).await;
    check("vulnerable=true", &["aa1", "bb1", "bb2"]).await;
    check("vulnerable=false", &["xx1"]).await;
    check("severity=high", &["aa1"]).await;
    check("exposed=true", &["aa1"]).await;
    check("check=privileged", &["xx1"]).await;
    check("unauthorized=true&node=node-2", &["xx1"]).await;
    let (status, answer) = world.get("/v1/containers?check=nothing").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
}

#[tokio::test]
async fn pages_of_containers_follow_each_other() {
    let world = fleet().await;
    let (mut path, mut seen) = ("/v1/containers?limit=1".to_owned(), Vec::new());
    loop {
        let page = world.ok(&path).await;
        for item in page["items"].as_array().unwrap() {
            seen.push(item["id"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/containers?limit=1&cursor={next}");
        assert!(seen.len() < 10, "it never ends");
    }
    assert_eq!(seen, ["aa1", "bb1", "bb2", "xx1"]);
}

#[tokio::test]
async fn an_unauthorized_container_says_why() {
    let world = fleet().await;
    let why = async |id: &str| {
        let answer = world.ok(&format!("/v1/containers/{id}")).await;
        answer["unauthorized"].clone()
    };
    assert_eq!(why("aa1").await["reason"], "denied");
    assert_eq!(why("bb1").await, Value::Null);
    assert_eq!(why("xx1").await["reason"], "unknown");
    let record = SightedRecord {
        references: vec!["elsewhere.example/x:1".to_owned()],
        why: Unserved::NoSource,
        detail: None,
        node: "node-2".parse().unwrap(),
        sighted_at: time(NOW),
    };
    let key = SightedImages::key(&tenant(), &record.node, digest("x"));
    let mut sighted = SightedImages::default();
    sighted.note(digest("x"), record);
    let store = &world.api.store;
    store.put(REFS, &key, &sighted, None).await.unwrap();
    assert_eq!(why("xx1").await["reason"], "no_source");
    let listed = world.ok("/v1/containers?unauthorized=true").await;
    assert_eq!(listed["items"][1]["unauthorized"]["reason"], "no_source");
}

#[tokio::test]
async fn an_image_that_only_nodes_have_is_scanned_and_still_from_no_source() {
    let mut world = fleet().await;
    world.known_on_node("n", "node-1", "localhost/built").await;
    let scan = world
        .assessed("n", vec![vulnerability("CVE-2026-3", "high")])
        .await;
    world.judged("n", "default", Decision::Allow, scan).await;
    let built = container("nn1", "localhost/built:1", digest("n config"));
    world.reported("node-1", &[built], &[]);
    let answer = world.ok("/v1/containers/nn1").await;
    assert_eq!(answer["image_digest"], json!(digest("n")));
    assert_eq!(answer["counts"]["high"], 1);
    assert_eq!(answer["unauthorized"]["reason"], "unknown");
}

#[tokio::test]
async fn a_host_is_shown_beside_the_images_of_its_node() {
    let mut world = fleet().await;
    world.known_on_node("h", "node-1", "host").await;
    world
        .assessed("h", vec![vulnerability("CVE-2026-3", "high")])
        .await;
    let host = json!({
        "runtime": "host", "id": digest("h config"),
        "names": ["node.invalid/node-1/host:current"],
    });
    let other = json!({"runtime": "podman", "id": digest("b config")});
    world.reported("node-1", &[], &[host, other]);
    let node = world.ok("/v1/nodes/node-1").await;
    assert_eq!(node["host_image"]["image_digest"], json!(digest("h")));
    assert_eq!(node["host_image"]["counts"]["high"], 1);
    assert_eq!(node["images_on_disk"].as_array().unwrap().len(), 1);
    assert_eq!((&node["images"], &node["latent"]), (&json!(1), &json!(1)));
    let silent = world.ok("/v1/nodes/node-2").await;
    assert_eq!(silent["host_image"], Value::Null);
}

#[tokio::test]
async fn a_container_has_its_incidents_however_many_others_have_newer_ones() {
    let mut world = fleet().await;
    world.happened(incident_on("node-2", "i1", "xx1", 1));
    world.happened(incident_on("node-2", "i2", "xx1", 2));
    for number in 0..2_100 {
        world.happened(incident(&format!("n{number}"), "zz9", 10));
    }
    let of = async |world: &World| {
        let answer = world.ok("/v1/containers/xx1").await;
        let found = answer["incidents"].as_array().unwrap().iter();
        let found = found.map(|one| one["id"].as_str().unwrap().to_owned());
        found.collect::<Vec<_>>()
    };
    assert_eq!(of(&world).await, ["i2", "i1"]);
    // What happened again is first, and what is forgotten is gone.
    world.happened(incident_on("node-2", "i1", "xx1", 20));
    assert_eq!(of(&world).await, ["i1", "i2"]);
    let key = "default.i1".parse().unwrap();
    world.tell(INCIDENTS, Told::Incident(key, None));
    assert_eq!(of(&world).await, ["i2"]);
    // The same id on another node is another container.
    world.happened(incident_on("node-9", "i3", "xx1", 30));
    assert_eq!(of(&world).await, ["i2"]);
}

#[tokio::test]
async fn a_container_is_found_by_enough_of_its_id() {
    let mut world = fleet().await;
    world.happened(incident_on("node-2", "i1", "xx1", 1));
    let answer = world.ok("/v1/containers/x").await;
    assert_eq!(answer["id"], "xx1");
    assert_eq!(answer["incidents"][0]["id"], "i1");
    let found = answer["misconfigurations"].as_array().unwrap();
    assert_eq!(found[0]["id"], "privileged");
    assert_eq!(answer["settings_failed"], found.len());
    let (status, _) = world.get("/v1/containers/bb").await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, _) = world.get("/v1/containers/zz").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_a_node_no_longer_has_is_gone_from_every_list() {
    let mut world = fleet().await;
    let left = container("bb2", "r.example/team/app:2", digest("b config"));
    world.reported("node-2", &[left], &[]);
    assert_eq!(world.ids("/v1/containers?node=node-2").await, ["bb2"]);
    assert_eq!(
        world.get("/v1/containers/xx1").await.0,
        StatusCode::NOT_FOUND
    );
    let path = format!("/v1/images/{}/containers", digest("b"));
    assert_eq!(world.ids(&path).await, ["bb1", "bb2"]);
    let key: crate::view::NodeKey = "default.node-2.reported".parse().unwrap();
    world.tell(NODES, Told::Node(key, None));
    assert_eq!(world.ids(&path).await, ["bb1"]);
    assert_eq!(world.get("/v1/nodes/node-2").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn images_are_active_latent_or_nowhere() {
    let world = fleet().await;
    let check = async |query: &str, expected: &[&str]| {
        let answer = world.ok(&format!("/v1/images?{query}")).await;
        let items = answer["items"].as_array().unwrap();
        let images: Vec<_> = items.iter().map(|item| item["image"].clone()).collect();
        let expected: Vec<_> = expected.iter().map(|name| json!(digest(name))).collect();
        assert_eq!(images, expected, "{query}");
    };
    check("active=true", &["a", "b"]).await;
    check("active=false", &["c"]).await;
    check("latent=true", &[]).await;

    let answer = world
        .ok(&format!("/v1/images/{}/containers", digest("both")))
        .await;
    assert_eq!(answer["total"], 2);
    assert_eq!(answer["at_rest"], json!(["node-2"]), "it is stopped there");
    let node = world.ok("/v1/nodes/node-2").await;
    assert_eq!(
        (&node["latent"], &node["containers"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        node["images_on_disk"][0]["image_digest"],
        json!(digest("b"))
    );
    let node = world.ok("/v1/nodes/node-1").await;
    assert_eq!(node["latent"], 0);
    assert_eq!(node["images_on_disk"][0]["active"], true);
}

#[tokio::test]
async fn where_a_vulnerability_runs_is_told_with_node_and_exposure() {
    let world = fleet().await;
    let answer = world
        .ok("/v1/vulnerabilities/GHSA-CVE-2026-1/containers")
        .await;
    // `c` has it too, and runs nowhere: the index leads to `b` on this machine.
    insta::assert_json_snapshot!(answer);
    let answer = world.ok("/v1/vulnerabilities/CVE-2026-2/containers").await;
    assert_eq!(
        answer["items"][0]["containers"], 1,
        "the other one is stopped"
    );
    assert_eq!(answer["items"][0]["exposed"], false);
}

#[tokio::test]
async fn nodes_that_are_not_heard_of_are_silent() {
    let mut world = fleet().await;
    let states = async |world: &World| {
        let answer = world.ok("/v1/nodes?limit=2").await;
        let items = answer["items"].as_array().unwrap();
        let states = items.iter().map(|item| item["state"].as_str().unwrap());
        states.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(states(&world).await, ["reporting", "reporting"]);
    for (minutes, expected) in [(3, "reporting"), (4, "silent")] {
        let now = time(NOW) + SignedDuration::from_mins(minutes);
        world.api.cx = Cx::new(
            Arc::new(FixedClock::new(now)),
            CxLimits {
                compute_threads: 1,
                blocking_threads: 2,
            },
        );
        assert_eq!(states(&world).await, [expected, expected]);
    }
    let counted = crate::census::count(&world.api.view, time(NOW)).unwrap();
    let silent = crate::census::count(&world.api.view, world.api.now()).unwrap();
    assert_eq!((counted.reporting, counted.silent), (2, 0));
    assert_eq!(
        (counted.containers_running, counted.containers_other),
        (3, 1)
    );
    assert_eq!((silent.reporting, silent.silent), (0, 2));
    assert_eq!((silent.containers_running, silent.containers_other), (0, 0));
    let first = world.ok("/v1/nodes?limit=1").await;
    let next = first["next"].as_str().expect("there is another");
    let second = world.ok(&format!("/v1/nodes?limit=1&cursor={next}")).await;
    assert_eq!(second["items"][0]["node"], "node-2");
    assert_eq!(second["next"], Value::Null);
}

#[tokio::test]
async fn incidents_are_listed_the_latest_first_and_have_a_timeline() {
    let mut world = fleet().await;
    let detection = json!([{
        "id": "d1", "rule": "drift/added-executable", "kind": "drift", "severity": "high",
        "title": "tmp/x is not of the image", "advice": "look", "node": "node-2",
        "container": "xx1", "process": {"path": "tmp/x"}, "at": NOW,
    }]);
    let timeline: Vec<model::runtime::Detection> = serde_json::from_value(detection).unwrap();
    let object = world.api.store.put_object(EVIDENCE_OBJECTS, &timeline);
    let object = object.await.unwrap();
    world.happened(incident("i1", "aa1", 1));
    world.happened(incident("i2", "bb1", 2));
    let mut grown = incident("i1", "aa1", 3);
    grown.timeline = Some(object);
    grown.image = Some(digest("a"));
    let around: model::runtime::Surroundings = serde_json::from_value(json!({
        "incident": "i1", "detections": 1, "files": ["etc/shadow"],
        "flows": [{"transport": "tcp", "address": "192.0.2.1", "port": 443}],
    }))
    .unwrap();
    let object = world.api.store.put_object(EVIDENCE_OBJECTS, &around);
    grown.surroundings = Some(object.await.unwrap());
    world.happened(grown);
    let mut closed = incident("i3", "xx1", 0);
    closed.state = model::runtime::IncidentState::Closed;
    closed.severity = model::Severity::Low;
    world.happened(closed);

    let check = async |query: &str, expected: &[&str]| {
        let found = world.ids(&format!("/v1/incidents?{query}")).await;
        assert_eq!(found, expected, "{query}");
    };
    check("", &["i1", "i2", "i3"]).await;
    check("state=open", &["i1", "i2"]).await;
    check("severity=high", &["i1", "i2"]).await;
    check("container=bb", &["i2"]).await;
    check("node=node-2", &[]).await;
    check("rule=drift/added-executable&state=closed", &["i3"]).await;
    check("namespace=shop", &[]).await;
    assert_eq!(world.api.view.open_incidents().unwrap(), 2);

    let answer = world.ok("/v1/incidents/i1").await;
    assert_eq!(answer["events"][0]["title"], "tmp/x is not of the image");
    assert_eq!(answer["container_now"]["id"], "aa1");
    assert_eq!(answer["around"]["flows"][0]["address"], "192.0.2.1");
    assert_eq!(answer["around"]["files"], json!(["etc/shadow"]));
    assert_eq!(answer["image_now"]["digest"], json!(digest("a")));
    assert_eq!(answer["image_now"]["decision"], "deny");
    assert_eq!(answer["image_now"]["counts"]["critical"], 1);
    assert_eq!(answer["host_now"]["name"], "host-1");
    // Its container is gone, and nothing was kept of it.
    world.reported("node-1", &[], &[]);
    let answer = world.ok("/v1/incidents/i2").await;
    assert_eq!(
        (&answer["events"], &answer["around"]),
        (&json!([]), &Value::Null)
    );
    assert_eq!(
        (&answer["container_now"], &answer["image_now"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(world.get("/v1/incidents/i9").await.0, StatusCode::NOT_FOUND);
}

/// Two containers of one node with addresses, a pod of another node, and one without anything.
fn talking() -> World {
    let mut world = World::new();
    let at = |id: &str, addresses: &[&str]| {
        let mut one = container(id, "r.example/team/app:1", digest("a config"));
        one["addresses"] = json!(addresses);
        one
    };
    let mut web = at("web", &["10.88.0.2"]);
    web["ports"] = json!([{"host_port": 443, "container_port": 8080, "protocol": "tcp"}]);
    let mut pod = at("pod", &["10.1.0.5"]);
    pod["pod"] = json!("db-0");
    pod["namespace"] = json!("shop");
    // Its bridge has the same addresses as that of node-1.
    let twin = at("twin", &["10.88.0.3"]);
    world.reported(
        "node-1",
        &[web, at("db", &["10.88.0.3"]), at("idle", &[])],
        &[],
    );
    world.reported("node-2", &[pod, twin], &[]);
    let flow = |address: &str| json!({"transport": "tcp", "address": address, "port": 5432});
    let seen = json!({"at": NOW, "containers": {
        "web": {"flows": [flow("10.88.0.3"), flow("10.1.0.5"), flow("192.0.2.1")]},
        "db": {"listens": [{"transport": "tcp", "address": "0.0.0.0", "port": 5432}]},
        "gone": {"flows": [flow("192.0.2.1")]},
    }});
    world.connected("node-1", seen);
    let seen = json!({"at": NOW, "containers": {"pod": {"flows": [flow("10.88.0.2")]}}});
    world.connected("node-2", seen);
    world
}

#[tokio::test]
async fn an_address_that_every_node_has_is_that_of_the_node_which_speaks() {
    let mut world = World::new();
    let at = |id: String, address: &str| {
        let mut one = container(&id, "r.example/team/app:1", digest("a config"));
        one["addresses"] = json!([address]);
        one
    };
    for node in 100..180 {
        let containers = [
            at(format!("web-{node}"), "172.17.0.2"),
            at(format!("db-{node}"), "172.17.0.3"),
        ];
        world.reported(&format!("node-{node}"), &containers, &[]);
    }
    let flow = json!({"transport": "tcp", "address": "172.17.0.3", "port": 5432});
    let seen = json!({"at": NOW, "containers": {"web-179": {"flows": [flow]}}});
    world.connected("node-179", seen);
    let answer = world.ok("/v1/connections").await;
    let peer = &answer["items"][0]["connects_to"][0];
    assert_eq!(peer["container"]["id"], "db-179");
}

#[tokio::test]
async fn that_more_hold_an_image_than_were_looked_at_is_said() {
    let mut world = fleet().await;
    // A disk has it, and a container runs it.
    let path = format!("/v1/images/{}/containers", digest("a"));
    for (max, is_cut, total) in [(1, true, 0), (2, false, 1)] {
        world.api.rows_examined_max = max;
        let answer = world.ok(&path).await;
        let said = (&answer["is_cut"], &answer["total"]);
        assert_eq!(said, (&json!(is_cut), &json!(total)));
    }
    let places = world.ok("/v1/vulnerabilities/CVE-2026-1/containers").await;
    assert_eq!(places["items"][0]["is_cut"], false);
}

#[tokio::test]
async fn a_whole_id_is_one_container_unless_two_nodes_have_it() {
    let mut world = fleet().await;
    let one = |id: &str| container(id, "r.example/team/app:1", digest("a config"));
    // A node calls one like the beginning of another.
    world.reported("node-8", &[one("victim"), one("victim-2")], &[]);
    let order = r#"{ "order": "act", "action": "pause", "reason": "seen" }"#;
    let path = "/v1/containers/victim/orders";
    let scopes = Some(&["respond"][..]);
    assert_eq!(world.ok("/v1/containers/victim").await["id"], "victim");
    let (status, body) = world.post(path, scopes, order).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    world.reported("node-9", &[one("victim")], &[]);
    let (status, body) = world.get("/v1/containers/victim").await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    let (status, body) = world.post(path, scopes, order).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains("`node-8` and `node-9`"),
        "{body}"
    );
}

#[tokio::test]
async fn who_talks_to_whom_is_told_by_the_addresses_of_containers() {
    let world = talking();
    let answer = world.ok("/v1/connections").await;
    let rows = answer["items"].as_array().unwrap();
    let told = |row: &Value| {
        let peers = row["connects_to"].as_array().unwrap().iter();
        let peers = peers.map(|peer| {
            let to = &peer["container"]["id"];
            format!(
                "{} {}",
                peer["address"].as_str().unwrap(),
                to.as_str().unwrap_or("?")
            )
        });
        format!(
            "{} to [{}]",
            row["id"].as_str().unwrap(),
            peers.collect::<Vec<_>>().join(", ")
        )
    };
    let told: Vec<String> = rows.iter().map(told).collect();
    // The node's own bridge is meant, pods are reached from everywhere, and another node's bridge
    // from nowhere.
    assert_eq!(
        told,
        [
            "db to []",
            "web to [10.88.0.3 db, 10.1.0.5 pod, 192.0.2.1 ?]",
            "pod to [10.88.0.2 ?]",
        ]
    );
    assert_eq!(rows[0]["listens"][0]["port"], 5432);
    assert_eq!(
        (&rows[0]["exposed"], &rows[1]["exposed"]),
        (&json!(false), &json!(true))
    );
    for (query, expected) in [
        ("node=node-2", &["pod"][..]),
        ("namespace=shop", &["pod"]),
        ("exposed=true", &["web"]),
        ("exposed=true&node=node-2", &[]),
    ] {
        assert_eq!(
            world.ids(&format!("/v1/connections?{query}")).await,
            expected,
            "{query}"
        );
    }
    assert_eq!(
        world.get("/v1/connections?node=A/B").await.0,
        StatusCode::BAD_REQUEST
    );
    let (mut path, mut seen) = ("/v1/connections?limit=1".to_owned(), 0);
    loop {
        let page = world.ok(&path).await;
        seen += page["items"].as_array().unwrap().len();
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/connections?limit=1&cursor={next}");
    }
    assert_eq!(seen, 3);
}

#[tokio::test]
async fn an_address_that_is_given_away_leads_to_its_new_container() {
    let mut world = talking();
    let mut new = container("new", "app", digest("a config"));
    new["addresses"] = json!(["10.88.0.3"]);
    world.reported(
        "node-1",
        &[container("web", "app", digest("a config")), new],
        &[],
    );
    let answer = world.ok("/v1/connections?node=node-1").await;
    assert_eq!(
        answer["items"][0]["id"], "web",
        "who is gone is not told of: {answer}"
    );
    assert_eq!(
        answer["items"][0]["connects_to"][0]["container"]["id"],
        "new"
    );
    world.connected("node-1", json!({"at": NOW, "containers": {}}));
    assert_eq!(
        world.ok("/v1/connections?node=node-1").await["items"],
        json!([])
    );
}

#[tokio::test]
async fn another_tenant_sees_nothing_of_it() {
    let mut world = fleet().await;
    world.happened(incident("i1", "aa1", 1));
    for path in [
        "/v1/nodes",
        "/v1/containers",
        "/v1/incidents",
        "/v1/responses",
    ] {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(Grant {
            name: "other".to_owned(),
            tenant: "other".to_owned(),
            scopes: ["read".to_owned()].into_iter().collect(),
        });
        let routes = chassis::http::wrap(routes(world.api.clone()), &Limits::default());
        let answer = routes.oneshot(request).await.unwrap();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["items"], json!([]), "{path}");
    }
}

#[tokio::test]
async fn a_bucket_that_is_made_anew_forgets_what_was_in_it() {
    let mut world = fleet().await;
    world.happened(incident("i1", "aa1", 1));
    let seen = json!({"transport": "tcp", "address": "192.0.2.1", "port": 443});
    world.connected(
        "node-1",
        json!({"at": NOW, "containers": {"aa1": {"flows": [seen]}}}),
    );
    let view = Arc::clone(&world.api.view);
    for bucket in [NODES, INCIDENTS] {
        view.begin(bucket, 100, "then").unwrap();
        assert_eq!(view.begin(bucket, 100, "now").unwrap(), 0);
    }
    for path in [
        "/v1/nodes",
        "/v1/containers",
        "/v1/incidents",
        "/v1/connections",
    ] {
        assert_eq!(world.ok(path).await["items"], json!([]), "{path}");
    }
    let path = format!("/v1/images/{}/containers", digest("a"));
    let answer = world.ok(&path).await;
    assert_eq!(
        (&answer["total"], &answer["at_rest"]),
        (&json!(0), &json!([]))
    );
}
