//! containerd's own API: containers, tasks and images of its namespaces.

pub(in crate::engine) mod messages;

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use model::runtime::{Container, ContainerState, ImageAtRest};
use prost::Message;
use reqwest::Client;
use serde_json::Value;

use self::messages::{
    GetContainerRequest, GetContainerResponse, GetTaskRequest, GetTaskResponse, Image,
    ListContainersResponse, ListImagesResponse, ListTasksResponse, Listed, SubscribeRequest, Task,
    Time, VersionResponse,
};
use super::{
    Asked, ENTRIES_MAX, EngineInventory, PARTS_MAX, build, cri,
    docker::digest,
    labels,
    pod::{self, Pod},
    quick, spec, text, told,
};
use crate::{
    OciError,
    engine::{
        containerd::{GetImageRequest, GetImageResponse},
        grpc::{self, Empty},
    },
};

const VERSION: &str = "containerd.services.version.v1.Version/Version";
const LIST_CONTAINERS: &str = "containerd.services.containers.v1.Containers/List";
const GET_CONTAINER: &str = "containerd.services.containers.v1.Containers/Get";
const LIST_TASKS: &str = "containerd.services.tasks.v1.Tasks/List";
const GET_TASK: &str = "containerd.services.tasks.v1.Tasks/Get";
const LIST_IMAGES: &str = "containerd.services.images.v1.Images/List";
const GET_IMAGE: &str = "containerd.services.images.v1.Images/Get";
const SUBSCRIBE: &str = "containerd.services.events.v1.Events/Subscribe";
/// The label by which CRI marks its containers: those of a pod, and a pod's own, which runs nothing.
const KIND: &str = "io.cri-containerd.kind";
/// What CRI keeps of a container and of a pod, in the record of the container and of the pod's own.
const OF_CONTAINER: &str = "io.cri-containerd.container.metadata";
const OF_POD: &str = "io.cri-containerd.sandbox.metadata";

pub(super) async fn inventory(
    asked: &Asked<'_>,
    namespaces: &[String],
) -> Result<EngineInventory, OciError> {
    let client = build(quick(asked).http2_prior_knowledge())?;
    let version = list::<VersionResponse>(asked, &client, "", VERSION).await?;
    let mut found = EngineInventory {
        version: text(&version.version),
        ..EngineInventory::default()
    };
    for namespace in namespaces {
        let listed: ListContainersResponse =
            list(asked, &client, namespace, LIST_CONTAINERS).await?;
        let tasks: ListTasksResponse = list(asked, &client, namespace, LIST_TASKS).await?;
        let images: ListImagesResponse = list(asked, &client, namespace, LIST_IMAGES).await?;
        let mut held = Held::new(&listed, &tasks, &images);
        if held.has_idle_of_pods() {
            match cri::states(asked, &client).await {
                Ok(states) => held.states = states,
                // CRI is a part of containerd that may be switched off.
                Err(error) => tracing::debug!(%error, "what became of containers: {error}"),
            }
        }
        held.tell(asked.engine.as_str(), namespace, &mut found);
    }
    Ok(found)
}

/// What happens to containers and images, in all namespaces.
pub(super) async fn events(asked: &Asked<'_>) -> Result<grpc::Messages, OciError> {
    let request = SubscribeRequest {
        filters: [r#"topic~="^/(tasks|containers|images)/""#.to_owned()].into(),
    };
    told(asked, SUBSCRIBE, &request).await
}

async fn list<T: Message + Default>(
    asked: &Asked<'_>,
    client: &Client,
    namespace: &str,
    method: &str,
) -> Result<T, OciError> {
    grpc::one_or_empty(asked, client, namespace, method, &Empty {}).await
}

/// A container by its id, in the first namespace that has it.
pub(super) async fn find(
    asked: &Asked<'_>,
    namespaces: &[String],
    id: &str,
) -> Result<Option<Container>, OciError> {
    let client = build(quick(asked).http2_prior_knowledge())?;
    for namespace in namespaces {
        let Some(listed) = record(asked, &client, namespace, id).await? else {
            continue;
        };
        let task = task(asked, &client, namespace, id).await?;
        let kept = Kept::of(&listed);
        let request = GetImageRequest {
            name: kept.image(&listed).to_owned(),
        };
        let image: Option<GetImageResponse> =
            grpc::one(asked, &client, namespace, GET_IMAGE, &request).await?;
        let target = image.and_then(|image| image.image?.target);
        let pod = match kept.sandbox() {
            Some(id) => record(asked, &client, namespace, id).await?,
            None => None,
        };
        let pod = pod.as_ref().map(of_pod);
        let of = Of {
            kept: &kept,
            pod: pod.as_ref(),
            task: task.as_ref(),
        };
        let mut container = container(asked.engine.as_str(), namespace, &listed, &of);
        container.image_id = target
            .and_then(|target| digest(&target.digest))
            .or_else(|| digest(&request.name));
        return Ok(Some(container));
    }
    Ok(None)
}

/// A container's record in a namespace.
pub(in crate::engine) async fn record(
    asked: &Asked<'_>,
    client: &Client,
    namespace: &str,
    id: &str,
) -> Result<Option<Listed>, OciError> {
    let request = GetContainerRequest { id: id.to_owned() };
    let answer: Option<GetContainerResponse> =
        grpc::one(asked, client, namespace, GET_CONTAINER, &request).await?;
    Ok(answer.and_then(|answer| answer.container))
}

/// What runs of a container.
pub(in crate::engine) async fn task(
    asked: &Asked<'_>,
    client: &Client,
    namespace: &str,
    id: &str,
) -> Result<Option<Task>, OciError> {
    let request = GetTaskRequest {
        container: id.to_owned(),
    };
    let answer: Option<GetTaskResponse> =
        grpc::one(asked, client, namespace, GET_TASK, &request).await?;
    Ok(answer.and_then(|answer| answer.task))
}

/// What a namespace holds.
struct Held<'a> {
    listed: Vec<(&'a Listed, Kept)>,
    /// By the ids of the pods' own containers.
    pods: HashMap<&'a str, Pod>,
    /// By the ids of containers.
    tasks: HashMap<&'a str, &'a Task>,
    /// What CRI says of containers.
    states: HashMap<String, ContainerState>,
    images: &'a [Image],
}

/// What CRI keeps of a container; null where that is none of CRI's.
struct Kept(Value);

/// What is known of a container beside its record.
struct Of<'a> {
    kept: &'a Kept,
    pod: Option<&'a Pod>,
    task: Option<&'a Task>,
}

// === impl Held ===

impl<'a> Held<'a> {
    fn new(
        listed: &'a ListContainersResponse,
        tasks: &'a ListTasksResponse,
        images: &'a ListImagesResponse,
    ) -> Self {
        // A pod's own container holds the namespaces, and runs nothing.
        let is_of_pod = |one: &&Listed| one.labels.get(KIND).is_some_and(|kind| kind == "sandbox");
        let listed = listed.containers.iter();
        let (pods, listed): (Vec<_>, Vec<_>) = listed.partition(is_of_pod);
        let tasks = tasks.tasks.iter().map(|task| {
            let id = if task.container.is_empty() {
                &task.id
            } else {
                &task.container
            };
            (id.as_str(), task)
        });
        let pods = pods.into_iter();
        Self {
            listed: listed.into_iter().map(|one| (one, Kept::of(one))).collect(),
            pods: pods.map(|own| (own.id.as_str(), of_pod(own))).collect(),
            tasks: tasks.collect(),
            states: HashMap::new(),
            images: &images.images,
        }
    }

    /// Whether a container of a pod has no task: CRI takes that away when it ends, so it has either
    /// not been started or ended.
    fn has_idle_of_pods(&self) -> bool {
        let mut listed = self.listed.iter();
        listed.any(|(one, kept)| kept.sandbox().is_some() && !self.tasks.contains_key(&*one.id))
    }

    fn tell(&self, runtime: &str, namespace: &str, found: &mut EngineInventory) {
        for (listed, kept) in &self.listed {
            if found.containers.len() >= ENTRIES_MAX {
                found.left_out = found.left_out.saturating_add(1);
                continue;
            }
            let of = Of {
                kept,
                pod: kept.sandbox().and_then(|id| self.pods.get(id)),
                task: self.tasks.get(listed.id.as_str()).copied(),
            };
            let mut container = container(runtime, namespace, listed, &of);
            if let (None, Some(state)) = (of.task, self.states.get(&listed.id)) {
                container.state = *state;
            }
            let (name, mut images) = (kept.image(listed), self.images.iter());
            let image = images.find(|image| image.name == name);
            let target = image.and_then(|image| image.target.as_ref());
            container.image_id = target
                .and_then(|target| digest(&target.digest))
                .or_else(|| digest(name));
            found.containers.push(container);
        }
        let mut by_digest: BTreeMap<&str, Vec<&Image>> = BTreeMap::new();
        for image in self.images {
            let target = image.target.as_ref().map(|target| target.digest.as_str());
            let names = by_digest.entry(target.unwrap_or_default());
            names.or_default().push(image);
        }
        for (target, images) in by_digest {
            let Some(id) = digest(target) else { continue };
            if found.images.len() >= ENTRIES_MAX {
                found.left_out = found.left_out.saturating_add(1);
                continue;
            }
            found.images.push(at_rest(runtime, id, &images));
        }
    }
}

// === impl Kept ===

impl Kept {
    fn of(listed: &Listed) -> Self {
        Self(kept(listed, OF_CONTAINER))
    }

    /// The id of the pod's own container.
    fn sandbox(&self) -> Option<&str> {
        self.text("/SandboxID")
    }

    fn text(&self, pointer: &str) -> Option<&str> {
        let found = self.0.pointer(pointer).and_then(Value::as_str);
        found.filter(|text| !text.is_empty())
    }

    /// By what containerd knows the image: CRI has a record for the id that a container keeps,
    /// whatever becomes of the name that it was made of.
    fn image<'a>(&'a self, listed: &'a Listed) -> &'a str {
        self.text("/ImageRef").unwrap_or(&listed.image)
    }

    /// What kubelet notes of its ports.
    fn ports(&self) -> Option<&str> {
        let annotations = self.0.pointer("/Config/annotations")?;
        pod::noted(|name| annotations.get(name)?.as_str())
    }
}

fn kept(listed: &Listed, name: &str) -> Value {
    let bytes = listed
        .extensions
        .get(name)
        .map(|kept| kept.value.as_slice());
    let kept: Value = bytes
        .and_then(|bytes| serde_json::from_slice(bytes).ok())
        .unwrap_or_default();
    kept.get("Metadata").cloned().unwrap_or_default()
}

fn spec_of(listed: &Listed) -> Value {
    let bytes = listed.spec.as_ref().map(|spec| spec.value.as_slice());
    let spec = bytes.and_then(|bytes| serde_json::from_slice(bytes).ok());
    spec.unwrap_or_default()
}

/// A pod, by the record of its own container.
fn of_pod(own: &Listed) -> Pod {
    let kept = kept(own, OF_POD);
    Pod::new(kept.get("Config").unwrap_or(&Value::Null), &spec_of(own))
}

fn container(runtime: &str, namespace: &str, listed: &Listed, of: &Of<'_>) -> Container {
    let (Of { kept, task, .. }, pod) = (of, of.pod);
    let spec = spec_of(listed);
    let label = |name: &str| listed.labels.get(name).map(|value| text(value));
    let own = kept.text("/Config/metadata/name").map(text);
    let name = label("io.kubernetes.container.name").or_else(|| label("nerdctl/name"));
    let of_pod = |field: fn(&Pod) -> &Option<String>| pod.and_then(|pod| field(pod).clone());
    let sandbox = kept.sandbox().unwrap_or_default();
    Container {
        id: text(&listed.id),
        name: name.or(own).unwrap_or_else(|| text(&listed.id)),
        runtime: runtime.to_owned(),
        image: text(&listed.image),
        image_id: None,
        repo_digests: Vec::new(),
        // containerd.v1.types.Status
        state: match task.map(|task| task.status) {
            None | Some(1) => ContainerState::Created,
            Some(2) => ContainerState::Running,
            Some(3) => ContainerState::Stopped,
            Some(4 | 5) => ContainerState::Paused,
            Some(_) => ContainerState::Unknown,
        },
        created_at: listed.created_at.as_ref().and_then(timestamp),
        started_at: None,
        pid: task.map_or(0, |task| task.pid),
        cgroup: None,
        pod: label("io.kubernetes.pod.name").or_else(|| of_pod(|pod| &pod.name)),
        namespace: label("io.kubernetes.pod.namespace")
            .or_else(|| of_pod(|pod| &pod.namespace))
            .or_else(|| Some(text(namespace)).filter(|name| name != "default")),
        owner: label("nerdctl/compose-project").or_else(|| label("com.docker.compose.project")),
        labels: labels(&listed.labels),
        ports: pod::ports(kept.ports(), pod),
        addresses: Vec::new(),
        mounts: spec::mounts(&spec, [&listed.id, sandbox]),
        security: spec::security(&spec, pod.and_then(|pod| pod.of_host)),
    }
}

fn at_rest(runtime: &str, id: model::Digest, images: &[&Image]) -> ImageAtRest {
    let names = images.iter().map(|image| text(&image.name));
    let names = names.filter(|name| !name.starts_with("sha256:") && !name.starts_with("import-"));
    let (digests, tags): (Vec<String>, Vec<String>) =
        names.take(PARTS_MAX).partition(|name| name.contains('@'));
    let created = images.first().and_then(|image| image.created_at.as_ref());
    ImageAtRest {
        runtime: runtime.to_owned(),
        id,
        names: tags,
        repo_digests: digests,
        // It is not among what the list tells: the size there is the manifest's own.
        bytes: 0,
        created_at: created.and_then(timestamp),
    }
}

fn timestamp(time: &Time) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos)
        .ok()
        .filter(|time| time.as_second() > 0)
}
