//! Pods as containerd 1.6 answered for them over its own API and over that of kubelet: one of a
//! network of its own with four containers in all states, and one of the host's with a privileged
//! container that bears no labels.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    super::containerd::messages::{
        GetContainerRequest, GetContainerResponse, GetTaskRequest, GetTaskResponse, Runtime,
    },
    *,
};
use crate::engine::containerd::{GetImageRequest, GetImageResponse, StoredImage};

#[derive(Deserialize)]
struct Recorded {
    containers: Vec<OfPod>,
    pods: Vec<Own>,
    images: Vec<Stored>,
}

/// A container.
#[derive(Clone, Deserialize)]
struct OfPod {
    id: String,
    pod: String,
    name: String,
    image: String,
    image_ref: String,
    state: i32,
    created_at: i64,
    labels: HashMap<String, String>,
    annotations: HashMap<String, String>,
    status: Told,
    info: Value,
}

#[derive(Clone, Deserialize)]
struct Told {
    started_at: i64,
    image: String,
}

/// A pod's own container.
#[derive(Clone, Deserialize)]
struct Own {
    id: String,
    name: String,
    namespace: String,
    labels: HashMap<String, String>,
    info: Value,
}

#[derive(Deserialize)]
struct Stored {
    id: String,
    tags: Vec<String>,
    digests: Vec<String>,
    size: u64,
    /// The digest by which containerd's own API knows it.
    target: String,
}

fn recorded() -> Recorded {
    serde_json::from_str(include_str!("../testdata/containerd-pods.json")).unwrap()
}

/// What a request says, without what says how long it is.
fn asked<T: prost::Message + Default>(body: &Bytes) -> T {
    T::decode(body.slice(5..)).unwrap()
}

fn info(info: &Value) -> HashMap<String, String> {
    [("info".to_owned(), info.to_string())].into()
}

/// Over the interface of kubelet.
fn over_cri(
    Recorded {
        containers,
        pods,
        images,
    }: Recorded,
    method: &str,
    body: &Bytes,
) -> Option<Vec<u8>> {
    Some(match method {
        "RuntimeService/Version" => frame(&cri::VersionResponse {
            name: "containerd".to_owned(),
            version: "1.6.20".to_owned(),
        }),
        "RuntimeService/ListContainers" => frame(&cri::ListContainersResponse {
            containers: containers.into_iter().map(OfPod::listed).collect(),
        }),
        "RuntimeService/ListPodSandbox" => frame(&cri::ListSandboxesResponse {
            sandboxes: pods.into_iter().map(Own::listed).collect(),
        }),
        "RuntimeService/ContainerStatus" => {
            let id = asked::<cri::StatusRequest>(body).id;
            let one = containers.into_iter().find(|one| one.id == id)?;
            frame(&cri::StatusResponse {
                status: Some(cri::Status {
                    started_at_ns: one.status.started_at,
                    image: Some(cri::ImageSpec {
                        image: one.status.image,
                        ..cri::ImageSpec::default()
                    }),
                }),
                info: info(&one.info),
            })
        }
        "RuntimeService/PodSandboxStatus" => {
            let id = asked::<cri::StatusRequest>(body).id;
            let own = pods.into_iter().find(|own| own.id == id)?;
            frame(&cri::SandboxStatusResponse {
                info: info(&own.info),
            })
        }
        "ImageService/ListImages" => frame(&cri::ListImagesResponse {
            images: images.into_iter().map(Stored::listed).collect(),
        }),
        _ => return None,
    })
}

/// Over containerd's own API.
fn over_own(
    Recorded {
        containers,
        pods,
        images,
    }: Recorded,
    method: &str,
    body: &Bytes,
) -> Option<Vec<u8>> {
    let records = containers.iter().cloned().map(OfPod::record);
    let mut records = records.chain(pods.iter().cloned().map(Own::record));
    Some(match method {
        "version.v1.Version/Version" => frame(&VersionResponse {
            version: "1.6.20".to_owned(),
        }),
        "containers.v1.Containers/List" => frame(&ListContainersResponse {
            containers: records.collect(),
        }),
        "containers.v1.Containers/Get" => {
            let id = asked::<GetContainerRequest>(body).id;
            frame(&GetContainerResponse {
                container: Some(records.find(|record| record.id == id)?),
            })
        }
        "tasks.v1.Tasks/List" => {
            let own = pods.iter().map(|own| task(&own.id, &own.info));
            let of_pods = containers.iter().map(|one| task(&one.id, &one.info));
            frame(&ListTasksResponse {
                tasks: own.chain(of_pods).flatten().collect(),
            })
        }
        "tasks.v1.Tasks/Get" => {
            let id = asked::<GetTaskRequest>(body).container;
            let mut found = containers.iter().filter(|one| one.id == id);
            let task = found.find_map(|one| task(&one.id, &one.info))?;
            frame(&GetTaskResponse { task: Some(task) })
        }
        "images.v1.Images/List" => frame(&ListImagesResponse {
            images: images.iter().flat_map(Stored::records).collect(),
        }),
        "images.v1.Images/Get" => {
            let name = asked::<GetImageRequest>(body).name;
            let mut records = images.iter().flat_map(Stored::records);
            let digest = records.find(|record| record.name == name)?.target?.digest;
            frame(&GetImageResponse {
                image: Some(StoredImage {
                    target: Some(Target { digest }),
                }),
            })
        }
        _ => return None,
    })
}

/// What runs of a container, if it does.
fn task(id: &str, info: &Value) -> Option<Task> {
    let pid = u32::try_from(info["pid"].as_u64().unwrap()).unwrap();
    (pid > 0).then(|| Task {
        id: id.to_owned(),
        pid,
        status: 2,
        ..Task::default()
    })
}

/// containerd that holds this, at whose socket CRI may answer, too.
fn served(held: fn() -> Recorded, with_cri: bool) -> Router {
    Router::new().fallback(async move |uri: Uri, body: Bytes| {
        let path = uri.path();
        let found = path
            .strip_prefix("/containerd.services.")
            .map(|method| over_own(held(), method, &body));
        let found = found.or_else(|| {
            let method = path.strip_prefix("/runtime.v1.")?;
            with_cri.then(|| over_cri(held(), method, &body))
        });
        match found {
            Some(Some(body)) => grpc_answer("", body),
            Some(None) => grpc_answer("5", Vec::new()),
            None => grpc_answer("12", Vec::new()),
        }
    })
}

// === impl OfPod, Own, Stored ===

impl OfPod {
    fn listed(self) -> cri::Listed {
        cri::Listed {
            id: self.id,
            sandbox: self.pod,
            metadata: Some(cri::Named { name: self.name }),
            image: Some(cri::ImageSpec {
                image: self.image,
                ..cri::ImageSpec::default()
            }),
            image_ref: self.image_ref,
            state: self.state,
            created_at_ns: self.created_at,
            labels: self.labels,
            annotations: self.annotations,
            image_id: String::new(),
        }
    }

    fn record(self) -> Listed {
        let kept = json!({
            "SandboxID": self.pod, "Config": self.info["config"], "ImageRef": self.image_ref,
        });
        let kind = (KIND.to_owned(), "container".to_owned());
        Listed {
            id: self.id,
            labels: self.labels.into_iter().chain([kind]).collect(),
            image: self.info["runtimeSpec"]["annotations"]["io.kubernetes.cri.image-name"]
                .as_str()
                .unwrap()
                .to_owned(),
            created_at: Some(Time {
                seconds: self.created_at / 1_000_000_000,
                nanos: i32::try_from(self.created_at % 1_000_000_000).unwrap(),
            }),
            ..record("container", &kept, &self.info)
        }
    }
}

impl Own {
    fn listed(self) -> cri::Sandbox {
        cri::Sandbox {
            id: self.id,
            metadata: Some(cri::PodNamed {
                name: self.name,
                namespace: self.namespace,
            }),
        }
    }

    fn record(self) -> Listed {
        let kind = (KIND.to_owned(), "sandbox".to_owned());
        Listed {
            id: self.id,
            labels: self.labels.into_iter().chain([kind]).collect(),
            image: "localhost/pause:1".to_owned(),
            ..record(
                "sandbox",
                &json!({ "Config": self.info["config"] }),
                &self.info,
            )
        }
    }
}

impl Stored {
    fn listed(self) -> cri::Image {
        cri::Image {
            id: self.id,
            tags: self.tags,
            digests: self.digests,
            bytes: self.size,
        }
    }

    /// containerd has a record for each of its names.
    fn records(&self) -> Vec<Image> {
        let names = self.tags.iter().chain(&self.digests).chain([&self.id]);
        let record = |name: &String| Image {
            name: name.clone(),
            target: Some(Target {
                digest: self.target.clone(),
            }),
            created_at: None,
        };
        names.map(record).collect()
    }
}

const KIND: &str = "io.cri-containerd.kind";

/// What is alike in the records of pods and of their containers.
fn record(kind: &str, kept: &Value, info: &Value) -> Listed {
    let any = |value: &Value| Any {
        type_url: String::new(),
        value: value.to_string().into_bytes(),
    };
    let kept = any(&json!({ "Version": "v1", "Metadata": kept }));
    Listed {
        spec: Some(any(&info["runtimeSpec"])),
        runtime: Some(Runtime {
            name: "io.containerd.runc.v2".to_owned(),
            options: None,
        }),
        extensions: [(format!("io.cri-containerd.{kind}.metadata"), kept)].into(),
        ..Listed::default()
    }
}

fn named<'a>(found: &'a EngineInventory, name: &str) -> &'a Container {
    let mut containers = found.containers.iter();
    let found = containers.find(|container| container.name == name);
    found.unwrap_or_else(|| panic!("no container `{name}`"))
}

#[tokio::test]
async fn containers_of_pods_are_told_as_kubelet_asked_for_them() {
    let found = inventory(served(recorded, true), Engine::Cri)
        .await
        .unwrap();
    insta::assert_json_snapshot!(found.containers);
    insta::assert_json_snapshot!(found.images);
    assert_eq!((&*found.version, found.left_out), ("containerd 1.6.20", 0));
}

#[tokio::test]
async fn both_interfaces_of_containerd_tell_the_same_of_a_pod() {
    let of_kubelet = inventory(served(recorded, true), Engine::Cri)
        .await
        .unwrap();
    let served = Served::new(served(recorded, true));
    let (engines, cx) = (engines(), Cx::for_tests());
    let socket = served.socket();
    let at = (Engine::Containerd, socket.as_path());
    let own = engines.inventory(&cx, at.0, at.1).await.unwrap();
    assert_eq!(own.containers.len(), of_kubelet.containers.len());
    for container in &of_kubelet.containers {
        let mut expected = container.clone();
        let found = named(&own, &container.name).clone();
        // One knows images by their configs, the other by manifests and indexes.
        let mut images = of_kubelet.images.iter();
        let image = images.find(|image| Some(image.id) == expected.image_id);
        let digests = &image.unwrap().repo_digests;
        let manifest = digests[0].rsplit_once('@').unwrap().1.parse().unwrap();
        assert_eq!(found.image_id, Some(manifest));
        assert!(own.images.iter().any(|image| image.id == manifest));
        expected.image_id = found.image_id;
        expected.repo_digests.clear();
        // It is in no record of containerd's.
        expected.started_at = None;
        expected.runtime = "containerd".to_owned();
        let mut labels = found.labels.clone();
        assert_eq!(labels.remove(KIND).as_deref(), Some("container"));
        let told = Container {
            labels,
            ..found.clone()
        };
        assert_eq!(told, expected);
        // Asked for alone it is the same, but for what CRI says.
        let alone = engines.container(&cx, at, &found.id).await.unwrap();
        let alone = Container {
            state: found.state,
            ..alone.unwrap()
        };
        assert_eq!(alone, found);
    }
}

#[tokio::test]
async fn a_pod_of_the_host_network_gives_it_to_its_containers() {
    for engine in [Engine::Cri, Engine::Containerd] {
        let served = Served::new(served(recorded, true));
        let (engines, cx) = (engines(), Cx::for_tests());
        let socket = served.socket();
        let find = async |id: &str| {
            let found = engines.container(&cx, (engine, &socket), id).await;
            found.unwrap().unwrap()
        };
        let recorded = recorded();
        let [web, .., all] = recorded.containers.as_slice() else {
            panic!("there are more");
        };
        let security = find(&all.id).await.security;
        assert!(security.host_network && security.host_pid && security.host_ipc);
        assert!(security.host_uts && security.privileged, "{security:?}");
        let security = find(&web.id).await.security;
        assert!(!security.host_network && !security.host_pid && !security.host_ipc);
        assert!(!security.host_uts && !security.privileged, "{security:?}");
    }
}

#[tokio::test]
async fn without_cri_containerd_does_not_say_what_became_of_a_container() {
    let found = inventory(served(recorded, false), Engine::Containerd)
        .await
        .unwrap();
    let state = |name: &str| named(&found, name).state;
    assert_eq!(state("web"), ContainerState::Running);
    assert_eq!(state("broken"), ContainerState::Created);
    assert_eq!(state("waiting"), ContainerState::Created);
}

#[tokio::test]
async fn a_container_that_was_removed_meanwhile_is_left_out() {
    let gone = recorded().containers[0].id.clone();
    let router = Router::new().fallback(async move |uri: Uri, body: Bytes| {
        let method = uri.path().strip_prefix("/runtime.v1.").unwrap();
        let is_status = method == "RuntimeService/ContainerStatus";
        if is_status && asked::<cri::StatusRequest>(&body).id == gone {
            return grpc_answer("5", Vec::new());
        }
        grpc_answer("", over_cri(recorded(), method, &body).unwrap())
    });
    let found = inventory(router, Engine::Cri).await.unwrap();
    let names: Vec<_> = found
        .containers
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["broken", "waiting", "tight", "all"]);
}

/// The web's image was removed while it runs, but for its name, which is another's now.
fn moved() -> Recorded {
    let mut held = recorded();
    let web = held
        .images
        .iter_mut()
        .find(|image| image.tags[0].contains("web"));
    let web = web.unwrap();
    let digest = Digest::of(b"another").to_string();
    web.id = Digest::of(b"its config").to_string();
    web.digests = vec![format!("registry.example/shop/web@{digest}")];
    web.target = digest;
    for one in &mut held.containers {
        if one.image_ref == recorded().containers[0].image_ref {
            one.status.image.clone_from(&one.image_ref);
        }
    }
    held
}

#[tokio::test]
async fn a_container_keeps_its_image_when_the_name_is_another_s() {
    for engine in [Engine::Cri, Engine::Containerd] {
        let served = Served::new(served(moved, true));
        let (engines, cx) = (engines(), Cx::for_tests());
        let (socket, web) = (served.socket(), &recorded().containers[0]);
        let told = engines.inventory(&cx, engine, &socket).await.unwrap();
        let found = engines.container(&cx, (engine, &socket), &web.id).await;
        for container in [named(&told, "web"), &found.unwrap().unwrap()] {
            assert_eq!(container.image_id, web.image_ref.parse().ok());
            assert_eq!(container.image, "registry.example/shop/web:3.15");
            assert!(container.repo_digests.is_empty());
        }
    }
}

fn parsed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[test]
fn ports_are_the_container_own_or_else_the_pod() {
    let config = json!({ "port_mappings": [
        { "container_port": 80, "host_port": 18080 },
        { "protocol": 1, "container_port": 53, "host_port": 53, "host_ip": "127.0.0.1" },
        { "container_port": 81 },
        { "protocol": 9, "container_port": 82, "host_port": 82 },
        { "container_port": 83, "host_port": 70000 },
        null,
    ] });
    let pod = pod::Pod::new(&config, &Value::Null);
    let tcp = json!({ "host_port": 18080, "container_port": 80, "protocol": "tcp" });
    let udp = json!({
        "host_address": "127.0.0.1", "host_port": 53, "container_port": 53, "protocol": "udp",
    });
    assert_eq!(
        pod::ports(None, Some(&pod)),
        parsed::<Vec<_>>(json!([tcp, udp]))
    );
    assert_eq!((&pod.name, pod.of_host), (&None, None));
    let noted = r#"[{"hostPort": 18080, "containerPort": 80, "protocol": "TCP", "hostIP": "0.0.0.0"},
        {"containerPort": 81, "protocol": "TCP"}, 7]"#;
    assert_eq!(
        pod::ports(Some(noted), None),
        parsed::<Vec<_>>(json!([tcp]))
    );
    assert_eq!(pod::ports(Some("no list"), None), []);
    assert_eq!(pod::ports(None, None), []);
    // A container of kubelet's without ports, in a pod that has some.
    let noted = pod::noted(|name| name.contains(".hash").then_some("1"));
    assert_eq!(pod::ports(noted, Some(&pod)), []);
    assert_eq!(pod::noted(|_| None), None);
}
