mod pods;

use std::collections::HashMap;

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Response, Uri},
    routing::post,
};
use model::{Digest, runtime::ContainerState};
use prost::Message as _;

use super::{
    containerd::messages::{
        Any, Image, ListContainersResponse, ListImagesResponse, ListTasksResponse, Listed, Task,
        Time, VersionResponse,
    },
    cri::messages as cri,
    *,
};
use crate::engine::{
    containerd::Target,
    grpc::Empty,
    tests::{Served, frame, grpc_answer},
};

const ID: &str = "9927f49113033b6a04e376219116410e7ab272b8717ce2a43979d4c52e220d87";

fn json(text: &'static str) -> Response<Body> {
    Response::new(Body::from(text))
}

fn not_found() -> Response<Body> {
    let answer = Response::builder().status(404);
    answer.body(Body::from(r#"{"message": "gone"}"#)).unwrap()
}

/// podman 4.3 with one container and two images, as it answered.
fn podman() -> Router {
    Router::new().fallback(async |uri: Uri| match uri.path() {
        "/version" => json(r#"{"Version": "4.3.1", "Components": []}"#),
        "/containers/json" => json(include_str!("testdata/podman-containers.json")),
        "/containers/9927f49113033b6a04e376219116410e7ab272b8717ce2a43979d4c52e220d87/json" => {
            json(include_str!("testdata/podman-container.json"))
        }
        "/images/json" => json(include_str!("testdata/podman-images.json")),
        "/events" => json("{\"Action\": \"start\"}\n"),
        _ => not_found(),
    })
}

fn engines() -> Engines {
    Engines {
        sockets: Vec::new(),
        namespaces: vec!["k8s.io".to_owned()],
    }
}

async fn inventory(router: Router, engine: Engine) -> Result<EngineInventory, OciError> {
    let served = Served::new(router);
    engines()
        .inventory(&Cx::for_tests(), engine, &served.socket())
        .await
}

#[tokio::test]
async fn podman_tells_its_containers_and_images() {
    let found = inventory(podman(), Engine::Podman).await.unwrap();
    insta::assert_json_snapshot!(found.containers);
    insta::assert_json_snapshot!(found.images);
    assert_eq!((found.version.as_str(), found.left_out), ("4.3.1", 0));
}

#[tokio::test]
async fn what_an_engine_leaves_out_or_calls_null_is_no_mistake() {
    let router = Router::new().fallback(async |uri: Uri| match uri.path() {
        "/containers/json" => json(r#"[{"Id": "aa"}, {"Id": "gone"}, {"Id": "../x"}]"#),
        "/containers/aa/json" => json(
            r#"{"Id": "aa", "Image": "no digest", "State": null, "Config": {"User": null},
                "HostConfig": {"SecurityOpt": null, "Devices": null}, "Mounts": null}"#,
        ),
        "/images/json" => json(r#"[{"Id": "no digest", "RepoTags": null}]"#),
        _ => not_found(),
    });
    let found = inventory(router, Engine::Docker).await.unwrap();
    let [container] = found.containers.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!((container.id.as_str(), container.image_id), ("aa", None));
    assert_eq!(container.state, ContainerState::Unknown);
    assert!(found.images.is_empty() && found.version.is_empty());
}

#[tokio::test]
async fn dangerous_settings_are_seen() {
    let router = Router::new().fallback(async |uri: Uri| match uri.path() {
        "/containers/json" => json(r#"[{"Id": "aa"}]"#),
        "/containers/aa/json" => json(
            r#"{"Id": "aa", "Image": "", "HostConfig": {
                "Privileged": true, "NetworkMode": "host", "PidMode": "host", "IpcMode": "host",
                "UTSMode": "host", "UsernsMode": "host", "ReadonlyRootfs": true,
                "SecurityOpt": ["seccomp=unconfined", "no-new-privileges"],
                "Memory": 1000, "PidsLimit": 5, "CpuQuota": 50000, "CpuPeriod": 100000,
                "Devices": [{"PathOnHost": "/dev/sda"}],
                "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
                "Config": {"Healthcheck": {"Test": ["CMD", "true"]}}}"#,
        ),
        _ => json("[]"),
    });
    let found = inventory(router, Engine::Docker).await.unwrap();
    let security = &found.containers[0].security;
    assert!(security.privileged && security.host_network && security.host_pid);
    assert!(security.host_ipc && security.host_uts && security.host_users);
    assert!(security.read_only_root && !security.new_privileges);
    assert_eq!(security.seccomp.as_deref(), Some("unconfined"));
    assert_eq!(security.memory_bytes_max, Some(1_000));
    assert_eq!(
        (security.pids_max, security.cpu_millis_max),
        (Some(5), Some(500))
    );
    assert_eq!(security.devices, ["/dev/sda"]);
    assert_eq!(security.restart.as_deref(), Some("on-failure:3"));
    assert_eq!(
        (security.health_check, security.capabilities.len()),
        (Some(true), 1)
    );
}

#[tokio::test]
async fn an_endless_list_is_refused_and_a_long_one_cut() {
    let long = |count: usize| {
        let list: Vec<String> = (0..count)
            .map(|id| format!(r#"{{"Id": "{id}x"}}"#))
            .collect();
        format!("[{}]", list.join(","))
    };
    let answer = move |uri: Uri| {
        let body = match uri.path() {
            "/containers/json" => long(ENTRIES_MAX + 1),
            "/version" => "{}".to_owned(),
            "/images/json" => "[]".to_owned(),
            path => format!(
                r#"{{"Id": "{}", "Image": ""}}"#,
                path.split('/').nth(2).unwrap()
            ),
        };
        async move { body }
    };
    let found = inventory(Router::new().fallback(answer), Engine::Docker)
        .await
        .unwrap();
    assert_eq!((found.containers.len(), found.left_out), (ENTRIES_MAX, 1));
    let endless = async || vec![b' '; ANSWER_BYTES_MAX + 1];
    let error = inventory(Router::new().fallback(endless), Engine::Docker)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[tokio::test]
async fn events_wake_and_their_end_is_an_error() {
    let served = Served::new(podman());
    let (engines, cx) = (Engines::default(), Cx::for_tests());
    let socket = served.socket();
    let mut changes = engines.changes(&cx, Engine::Podman, &socket).await.unwrap();
    changes.next().await.unwrap();
    assert!(changes.next().await.is_err());
}

/// containerd with a pod's container, the pod's own, and an image that nothing runs.
#[expect(
    clippy::too_many_lines,
    reason = "it is a list of answers, each a few lines of JSON"
)]
fn containerd() -> Router {
    let spec = serde_json::json!({
        "process": {
            "user": {"uid": 1000, "gid": 1000},
            "noNewPrivileges": true,
            "capabilities": {"effective": ["CAP_NET_ADMIN"]},
        },
        "root": {"readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}],
            "resources": {"memory": {"limit": 1000}, "cpu": {"quota": 20000, "period": 100_000}},
            "seccomp": {},
        },
    });
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let listed = |id: &str, labels: HashMap<String, String>| Listed {
        id: id.to_owned(),
        labels,
        image: "example.org/app:1".to_owned(),
        spec: Some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned(),
            value: spec.to_string().into_bytes(),
        }),
        created_at: Some(Time {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        ..Listed::default()
    };
    let image = |name: &str, content: &[u8]| Image {
        name: name.to_owned(),
        target: Some(Target {
            digest: Digest::of(content).to_string(),
        }),
        created_at: None,
    };
    let containers = ListContainersResponse {
        containers: vec![
            listed(
                ID,
                [
                    label("io.kubernetes.pod.name", "web-1"),
                    label("io.kubernetes.pod.namespace", "shop"),
                    label("io.kubernetes.container.name", "web"),
                ]
                .into(),
            ),
            listed("pause", [label("io.cri-containerd.kind", "sandbox")].into()),
        ],
    };
    let tasks = ListTasksResponse {
        tasks: vec![Task {
            container: String::new(),
            id: ID.to_owned(),
            pid: 77,
            status: 2,
            ..Task::default()
        }],
    };
    let images = ListImagesResponse {
        images: vec![
            image("example.org/app:1", b"app"),
            image("example.org/app@sha256:00", b"app"),
            image("example.org/latent:1", b"latent"),
        ],
    };
    let version = VersionResponse {
        version: "1.6.20".to_owned(),
    };
    Router::new().fallback(async move |uri: Uri, _: Bytes| {
        let body = match uri.path().rsplit_once('.').map(|(_, method)| method) {
            Some("Version/Version") => frame(&version),
            Some("Containers/List") => frame(&containers),
            Some("Tasks/List") => frame(&tasks),
            Some("Images/List") => frame(&images),
            Some("Events/Subscribe") => frame(&Empty {}),
            _ => return grpc_answer("12", Vec::new()),
        };
        grpc_answer("", body)
    })
}

#[tokio::test]
async fn containerd_tells_containers_with_their_pods_and_latent_images() {
    let found = inventory(containerd(), Engine::Containerd).await.unwrap();
    insta::assert_json_snapshot!(found.containers);
    let names: Vec<_> = found
        .images
        .iter()
        .map(|image| (&image.names, &image.repo_digests))
        .collect();
    assert_eq!(names.len(), 2);
    let app = found
        .images
        .iter()
        .find(|image| image.id == Digest::of(b"app"));
    let app = app.unwrap();
    assert_eq!(app.names, ["example.org/app:1"]);
    assert_eq!(app.repo_digests, ["example.org/app@sha256:00"]);
    assert_eq!(found.version, "1.6.20");
}

#[tokio::test]
async fn events_of_containerd_wake() {
    let served = Served::new(containerd());
    let (engines, cx) = (Engines::default(), Cx::for_tests());
    let socket = served.socket();
    let mut changes = engines
        .changes(&cx, Engine::Containerd, &socket)
        .await
        .unwrap();
    changes.next().await.unwrap();
    assert!(changes.next().await.is_err());
}

/// A container of that pod.
fn of_pod(id: &str, state: i32) -> cri::Listed {
    cri::Listed {
        id: id.to_owned(),
        sandbox: "pod-1".to_owned(),
        metadata: Some(cri::Named {
            name: "web".to_owned(),
        }),
        image: Some(cri::ImageSpec {
            image: "example.org/app:1".to_owned(),
            ..cri::ImageSpec::default()
        }),
        image_ref: format!("example.org/app@{}", Digest::of(b"manifest")),
        state,
        created_at_ns: 1_700_000_000_000_000_000,
        labels: [("app".to_owned(), "shop".to_owned())].into(),
        annotations: HashMap::new(),
        image_id: String::new(),
    }
}

/// A runtime of Kubernetes with a pod of one container that runs, and one that never did.
fn runtime_of_kubernetes() -> Router {
    let spec = r#"{"pid": 4711, "runtimeSpec": {"process": {"user": {"uid": 7, "gid": 8},
        "capabilities": {"effective": ["CAP_CHOWN"]}}, "root": {"readonly": true},
        "linux": {"namespaces": [{"type": "pid"}], "seccomp": {}},
        "mounts": [{"destination": "/data", "type": "bind", "source": "/srv", "options": ["ro"]}]}}"#;
    let image = Digest::of(b"app");
    let answers: Vec<(&str, Vec<u8>)> = vec![
        (
            "RuntimeService/Version",
            frame(&cri::VersionResponse {
                name: "cri-o".to_owned(),
                version: "1.30.0".to_owned(),
            }),
        ),
        (
            "RuntimeService/ListContainers",
            frame(&cri::ListContainersResponse {
                containers: vec![of_pod("c1", 1), of_pod("c2", 0)],
            }),
        ),
        (
            "RuntimeService/ListPodSandbox",
            frame(&cri::ListSandboxesResponse {
                sandboxes: vec![cri::Sandbox {
                    id: "pod-1".to_owned(),
                    metadata: Some(cri::PodNamed {
                        name: "web-0".to_owned(),
                        namespace: "shop".to_owned(),
                    }),
                }],
            }),
        ),
        (
            "RuntimeService/ContainerStatus",
            frame(&cri::StatusResponse {
                status: Some(cri::Status {
                    started_at_ns: 1_700_000_001_000_000_000,
                    image: None,
                }),
                info: [("info".to_owned(), spec.to_owned())].into(),
            }),
        ),
        (
            "RuntimeService/PodSandboxStatus",
            frame(&cri::SandboxStatusResponse::default()),
        ),
        ("RuntimeService/GetContainerEvents", frame(&Empty {})),
        (
            "ImageService/ListImages",
            frame(&cri::ListImagesResponse {
                images: vec![cri::Image {
                    id: image.hex(),
                    tags: vec!["example.org/app:1".to_owned()],
                    digests: vec![format!("example.org/app@{}", Digest::of(b"manifest"))],
                    bytes: 5,
                }],
            }),
        ),
    ];
    let answer = |router: Router, (method, body): (&str, Vec<u8>)| {
        let answer = move || async move { grpc_answer("", body) };
        router.route(&format!("/runtime.v1.{method}"), post(answer))
    };
    answers.into_iter().fold(Router::new(), answer)
}

#[tokio::test]
async fn a_runtime_of_kubernetes_tells_containers_with_their_pods_and_images() {
    let found = inventory(runtime_of_kubernetes(), Engine::Cri)
        .await
        .unwrap();
    assert_eq!(found.version, "cri-o 1.30.0");
    let [running, created] = found.containers.as_slice() else {
        panic!("two containers, not {:?}", found.containers);
    };
    assert_eq!(
        (running.state, running.pid),
        (ContainerState::Running, 4711)
    );
    assert_eq!((created.state, created.pid), (ContainerState::Created, 0));
    assert_eq!(running.name, "web");
    assert_eq!(running.pod.as_deref(), Some("web-0"));
    assert_eq!(running.namespace.as_deref(), Some("shop"));
    assert_eq!(running.image_id, Some(Digest::of(b"app")));
    assert_eq!(running.security.capabilities, ["CAP_CHOWN"]);
    assert_eq!(running.security.user, "7:8");
    assert!(running.security.read_only_root && running.security.host_network);
    assert!(!running.mounts[0].writable);
    assert_eq!(running.started_at.unwrap().as_second(), 1_700_000_001);
    let image = &found.images[0];
    assert_eq!((image.id, image.bytes), (Digest::of(b"app"), 5));
}

#[tokio::test]
async fn events_of_a_runtime_of_kubernetes_wake() {
    let served = Served::new(runtime_of_kubernetes());
    let (engines, cx) = (Engines::default(), Cx::for_tests());
    let socket = served.socket();
    let changes = engines.changes(&cx, Engine::Cri, &socket);
    changes.await.unwrap().next().await.unwrap();
}

#[test]
fn texts_of_engines_are_bounded_and_have_no_control_characters() {
    assert_eq!(text("a\nb"), "a b");
    assert_eq!(text(&"ä".repeat(TEXT_MAX)).chars().count(), TEXT_MAX);
    assert_eq!(text(&"ä".repeat(TEXT_MAX + 1)).chars().count(), TEXT_MAX);
    let empty = ListTasksResponse::decode(&[][..]).unwrap();
    assert!(empty.tasks.is_empty());
}

#[tokio::test]
async fn a_container_of_a_pod_is_found_by_its_whole_id() {
    let served = Served::new(runtime_of_kubernetes());
    let (engines, cx) = (Engines::default(), Cx::for_tests());
    let socket = served.socket();
    let find = async |id: &str| {
        let place = (Engine::Cri, socket.as_path());
        engines.container(&cx, place, id).await.unwrap()
    };
    let found = find("c1").await.unwrap();
    assert_eq!(
        (found.name.as_str(), found.pod.as_deref()),
        ("web", Some("web-0"))
    );
    assert_eq!(found.image_id, Some(Digest::of(b"app")));
    assert_eq!(find("c").await, None);
}
