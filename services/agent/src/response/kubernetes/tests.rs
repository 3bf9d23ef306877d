use std::{
    fs,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    response::{IntoResponse as _, Response},
};
use chassis::{
    Cx,
    http::{Server, Tls, TlsFiles},
};
use testkit::{Authority, TempDir};
use tokio::net::TcpListener;

use super::*;

const CONTAINER: &str = "9927f49113033b6a04e376219116410e7ab272b8717ce2a43979d4c52e220d87";
const SOON: Duration = Duration::from_secs(20);

/// What was asked: verb, path, content type, token, body.
type Asked = (String, String, String, String, Value);

/// An API server that has one pod, and the folder with what a service account has.
struct World {
    cx: Cx,
    dir: TempDir,
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    pod: Arc<Mutex<Value>>,
}

impl World {
    async fn start(pod: Value) -> Self {
        let (cx, dir) = (Cx::for_tests(), testkit::temp_dir());
        let authority = Authority::new("cluster");
        let (certificate_file, key_file) = authority.server().write(dir.path(), "server");
        authority.write(&dir.path().join("ca.crt"));
        let files = TlsFiles {
            certificate_file,
            key_file,
            client_ca_file: None,
        };
        let tls = Some(Tls::open(&cx, files).await.unwrap());
        let server = Server {
            tls,
            ..Server::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, pod) = (Arc::default(), Arc::new(Mutex::new(pod)));
        let router = Router::new().fallback({
            let (asked, pod) = (Arc::clone(&asked), Arc::clone(&pod));
            move |request: Request| answer(request, Arc::clone(&asked), Arc::clone(&pod))
        });
        let of_server = cx.clone();
        cx.spawn("api server", async move {
            server.serve(&of_server, listener, router).await;
        });
        let world = Self {
            cx,
            dir,
            port,
            asked,
            pod,
        };
        world.token("first");
        world
    }

    fn token(&self, token: &str) {
        fs::write(self.dir.path().join("token"), format!("{token}\n")).unwrap();
    }

    fn cluster(&self) -> Cluster {
        let config = KubernetesConfig {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            token_file: self.dir.path().join("token"),
            ca_file: self.dir.path().join("ca.crt"),
        };
        Cluster::of(&config).unwrap().unwrap()
    }

    fn taken(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    async fn end(self) {
        self.cx.stop();
        assert!(self.cx.finish(SOON).await);
    }
}

async fn answer(
    request: Request,
    asked: Arc<Mutex<Vec<Asked>>>,
    pod: Arc<Mutex<Value>>,
) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let header = |name: &str| {
        let value = parts.headers.get(name);
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    let path = parts.uri.path().to_owned();
    let method = parts.method.to_string();
    let (kind, token) = (header("content-type"), header("authorization"));
    let entry = (
        method.clone(),
        path.clone(),
        kind,
        token.clone(),
        body.clone(),
    );
    asked.lock().unwrap().push(entry);
    let refused = |status: u16, why: &str| {
        let body = Body::from(json!({ "kind": "Status", "message": why }).to_string());
        Response::builder().status(status).body(body).unwrap()
    };
    if token.ends_with("stale") {
        return refused(401, "Unauthorized");
    }
    if token.ends_with("poor") {
        return refused(403, "pods \"web-1\" is forbidden");
    }
    if token.ends_with("huge") {
        return vec![b' '; ANSWER_BYTES_MAX + 1].into_response();
    }
    if path != "/api/v1/namespaces/shop/pods/web-1" {
        return refused(404, "not found");
    }
    let mut pod = pod.lock().unwrap();
    if method == "PATCH" {
        if body["metadata"]["resourceVersion"] != pod["metadata"]["resourceVersion"] {
            return refused(409, "the object has been modified");
        }
        merge(&mut pod, &body);
        pod["metadata"]["resourceVersion"] = json!("8");
    }
    pod.to_string().into_response()
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

fn pod() -> Value {
    json!({
        "metadata": {
            "name": "web-1", "namespace": "shop", "uid": "u-1", "resourceVersion": "7",
            "labels": { "app": "web", "pod-template-hash": "5d8" },
            "annotations": { "note": "kept" },
            "ownerReferences": [{ "kind": "ReplicaSet", "name": "web-5d8", "controller": true }],
        },
        "spec": { "containers": [{ "name": "web", "livenessProbe": {} }, { "name": "proxy" }] },
        "status": { "containerStatuses": [{ "containerID": format!("containerd://{CONTAINER}") }] },
    })
}

fn name() -> PodName {
    PodName {
        namespace: "shop".to_owned(),
        name: "web-1".to_owned(),
        container: CONTAINER.to_owned(),
    }
}

#[tokio::test]
async fn a_pod_that_is_replaced_loses_its_labels_once_and_is_never_deleted() {
    let world = World::start(pod()).await;
    let cluster = world.cluster();
    let found = cluster.pod(name()).await.unwrap();
    let owner = cluster.let_go(&found).await.unwrap();
    assert_eq!(owner, "ReplicaSet `web-5d8`");
    let at = "/api/v1/namespaces/shop/pods/web-1".to_owned();
    let patch = json!({ "metadata": {
        "uid": "u-1",
        "resourceVersion": "7",
        "labels": {
            "app": null, "pod-template-hash": null, "tidewaiter.io/quarantine": "true",
        },
        "annotations": {
            "tidewaiter.io/labels": r#"{"app":"web","pod-template-hash":"5d8"}"#,
        },
    } });
    let merge = "application/merge-patch+json".to_owned();
    let token = "Bearer first".to_owned();
    let get = (
        "GET".to_owned(),
        at.clone(),
        String::new(),
        token.clone(),
        Value::Null,
    );
    let expected = [get, ("PATCH".to_owned(), at, merge, token, patch)];
    assert_eq!(world.taken(), expected);
    let labels = world.pod.lock().unwrap()["metadata"]["labels"].clone();
    assert_eq!(labels, json!({ "tidewaiter.io/quarantine": "true" }));

    // Whoever was stopped then does it again: its owner has let go of it meanwhile.
    world.pod.lock().unwrap()["metadata"]["ownerReferences"] = json!([]);
    world.token("second");
    let found = cluster.pod(name()).await.unwrap();
    assert_eq!(cluster.let_go(&found).await.unwrap(), "its owner");
    cluster.mark(&found, false).await.unwrap();
    let asked = world.taken();
    let [(verb, .., token, _)] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert_eq!((verb.as_str(), token.as_str()), ("GET", "Bearer second"));
    world.end().await;
}

#[tokio::test]
async fn a_pod_is_marked_and_not_any_more() {
    let world = World::start(pod()).await;
    let cluster = world.cluster();
    let labels = || world.pod.lock().unwrap()["metadata"]["labels"].clone();
    for round in [true, false] {
        let found = cluster.pod(name()).await.unwrap();
        cluster.mark(&found, round).await.unwrap();
        let mut expected = json!({ "app": "web", "pod-template-hash": "5d8" });
        if round {
            expected[QUARANTINE] = json!("true");
        }
        assert_eq!(labels(), expected);
    }
    world.taken();
    let found = cluster.pod(name()).await.unwrap();
    cluster.mark(&found, false).await.unwrap();
    assert_eq!(world.taken().len(), 1, "it is so already");
    // Somebody else changed it since.
    world.pod.lock().unwrap()["metadata"]["resourceVersion"] = json!("9");
    let error = cluster.mark(&found, true).await.unwrap_err();
    assert!(format!("{error:#}").contains("409"), "{error:#}");
    world.end().await;
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told_and_nothing_without_bounds_is_read() {
    let world = World::start(pod()).await;
    let cluster = world.cluster();
    for (token, expected) in [
        ("stale", "401"),
        ("poor", "agent-replace.yaml"),
        ("huge", "more than"),
    ] {
        world.token(token);
        let error = cluster.pod(name()).await.unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{error:#}");
    }
    world.token("first");
    let gone = PodName {
        name: "web-2".to_owned(),
        ..name()
    };
    let error = cluster.pod(gone).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("no pod `shop/web-2`"),
        "{error:#}"
    );
    // A container that says it is of a pod, and is not.
    let other = PodName {
        container: "0".repeat(64),
        ..name()
    };
    let error = cluster.pod(other).await.unwrap_err();
    assert!(format!("{error:#}").contains("does not have"), "{error:#}");
    // Another authority.
    Authority::new("another").write(&world.dir.path().join("ca.crt"));
    assert!(cluster.pod(name()).await.is_err());
    world.end().await;
}

#[test]
fn only_owners_that_make_another_one_are_left_without_it() {
    let owner = |change: &dyn Fn(&mut Value)| {
        let mut value = pod();
        change(&mut value);
        let name = name();
        Pod { name, value }.owner()
    };
    let kind = |kind: &str| {
        let kind = kind.to_owned();
        move |pod: &mut Value| pod["metadata"]["ownerReferences"][0]["kind"] = json!(kind)
    };
    assert!(owner(&|_| {}).is_ok());
    assert!(owner(&kind("Job")).is_ok() && owner(&kind("DaemonSet")).is_ok());
    for other in ["StatefulSet", "Node", "Something"] {
        assert!(owner(&kind(other)).unwrap_err().contains(other));
    }
    let ports = |pod: &mut Value| {
        kind("DaemonSet")(pod);
        pod["spec"]["containers"][0]["ports"] = json!([{ "hostPort": 80 }]);
    };
    assert!(owner(&ports).unwrap_err().contains("ports"));
    assert!(owner(&|pod| pod["metadata"]["ownerReferences"] = json!([])).is_err());
    // The note alone does not make it nobody's.
    let noted = |pod: &mut Value| {
        pod["metadata"]["ownerReferences"] = json!([]);
        pod["metadata"]["annotations"][LABELS] = json!("{}");
    };
    assert!(owner(&noted).is_err());
    let remarks = Pod {
        name: name(),
        value: pod(),
    }
    .remarks();
    assert!(
        remarks.contains("1 other") && remarks.contains("liveness"),
        "{remarks}"
    );
}

#[test]
fn names_that_are_none_lead_nowhere() {
    let of = |namespace: &str, name: &str| {
        let labels = json!({
            "io.kubernetes.pod.namespace": namespace,
            "io.kubernetes.pod.name": name,
        });
        let found = Found {
            inspected: json!({ "Config": { "Labels": labels } }),
            ..Found::default()
        };
        PodName::of(&found, CONTAINER)
    };
    assert!(of("shop", "web-1.a").is_some());
    for name in ["", "..", "a/b", "A", "-a", "a?b", "a%2f", &"a".repeat(254)] {
        assert_eq!(of("shop", name), None, "{name}");
        assert_eq!(of(name, "web"), None, "{name}");
    }
}
