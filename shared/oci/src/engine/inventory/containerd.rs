//! containerd's own API: containers, tasks and images of its namespaces.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use model::runtime::{Container, ContainerState, ImageAtRest};
use prost::Message;
use reqwest::Client;
use serde_json::Value;

use super::{
    Asked, ENTRIES_MAX, EngineInventory, PARTS_MAX, build, docker::digest, labels, patient, quick,
    spec, text,
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
/// The label by which CRI marks a pod's own container, which runs nothing.
const KIND: &str = "io.cri-containerd.kind";

#[derive(Clone, PartialEq, Message)]
pub(super) struct VersionResponse {
    #[prost(string, tag = "1")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) containers: Vec<Listed>,
}

/// A container's record, but for what another one of its kind does not get: when it was changed.
#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Listed {
    #[prost(string, tag = "1")]
    pub(in crate::engine) id: String,
    #[prost(map = "string, string", tag = "2")]
    pub(in crate::engine) labels: HashMap<String, String>,
    #[prost(string, tag = "3")]
    pub(in crate::engine) image: String,
    #[prost(message, optional, tag = "4")]
    pub(in crate::engine) runtime: Option<Runtime>,
    #[prost(message, optional, tag = "5")]
    pub(in crate::engine) spec: Option<Any>,
    #[prost(string, tag = "6")]
    pub(in crate::engine) snapshotter: String,
    #[prost(string, tag = "7")]
    pub(in crate::engine) snapshot: String,
    #[prost(message, optional, tag = "8")]
    pub(in crate::engine) created_at: Option<Time>,
    #[prost(map = "string, message", tag = "10")]
    pub(in crate::engine) extensions: HashMap<String, Any>,
    #[prost(string, tag = "11")]
    pub(in crate::engine) sandbox: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Runtime {
    #[prost(string, tag = "1")]
    pub(in crate::engine) name: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::engine) options: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Any {
    #[prost(string, tag = "1")]
    pub(in crate::engine) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(in crate::engine) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Time {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct GetContainerRequest {
    #[prost(string, tag = "1")]
    pub(in crate::engine) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct GetContainerResponse {
    #[prost(message, optional, tag = "1")]
    pub(in crate::engine) container: Option<Listed>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct GetTaskRequest {
    #[prost(string, tag = "1")]
    pub(in crate::engine) container: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct GetTaskResponse {
    #[prost(message, optional, tag = "1")]
    pub(in crate::engine) task: Option<Task>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListTasksResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) tasks: Vec<Task>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Task {
    #[prost(string, tag = "1")]
    pub(in crate::engine) container: String,
    #[prost(string, tag = "2")]
    pub(in crate::engine) id: String,
    #[prost(uint32, tag = "3")]
    pub(in crate::engine) pid: u32,
    #[prost(int32, tag = "4")]
    pub(in crate::engine) status: i32,
    #[prost(string, tag = "6")]
    pub(in crate::engine) stdout: String,
    #[prost(string, tag = "7")]
    pub(in crate::engine) stderr: String,
    #[prost(bool, tag = "8")]
    pub(in crate::engine) terminal: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListImagesResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) images: Vec<Image>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "3")]
    pub(super) target: Option<Target>,
    #[prost(message, optional, tag = "7")]
    pub(super) created_at: Option<Time>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Target {
    #[prost(string, tag = "2")]
    pub(super) digest: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    pub(super) filters: Vec<String>,
}

/// An event of which nothing matters but that it came.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyEvent {}

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
        add(
            &mut found,
            asked.engine.as_str(),
            namespace,
            (listed, tasks, images),
        );
    }
    Ok(found)
}

/// What happens to containers and images, in all namespaces.
pub(super) async fn events(asked: &Asked<'_>) -> Result<grpc::Messages, OciError> {
    let client = build(patient(asked).http2_prior_knowledge())?;
    let request = SubscribeRequest {
        filters: [r#"topic~="^/(tasks|containers|images)/""#.to_owned()].into(),
    };
    let answer = grpc::call(asked, &client, "", SUBSCRIBE, &request).await?;
    answer.ok_or_else(|| asked.away("it has no events"))
}

async fn list<T: Message + Default>(
    asked: &Asked<'_>,
    client: &Client,
    namespace: &str,
    method: &str,
) -> Result<T, OciError> {
    let answer = grpc::one(asked, client, namespace, method, &Empty {}).await?;
    Ok(answer.unwrap_or_default())
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
        let request = GetImageRequest {
            name: listed.image.clone(),
        };
        let image: Option<GetImageResponse> =
            grpc::one(asked, &client, namespace, GET_IMAGE, &request).await?;
        let target = image.and_then(|image| image.image?.target);
        let runtime = asked.engine.as_str();
        let mut container = container(runtime, namespace, &listed, task.as_ref());
        container.image_id = target.and_then(|target| digest(&target.digest));
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

type Answers = (
    ListContainersResponse,
    ListTasksResponse,
    ListImagesResponse,
);

fn add(found: &mut EngineInventory, runtime: &str, namespace: &str, answers: Answers) {
    let (listed, tasks, images) = answers;
    let tasks: HashMap<&str, &Task> = tasks
        .tasks
        .iter()
        .map(|task| {
            let id = if task.container.is_empty() {
                &task.id
            } else {
                &task.container
            };
            (id.as_str(), task)
        })
        .collect();
    let mut by_digest: BTreeMap<&str, Vec<&Image>> = BTreeMap::new();
    for image in &images.images {
        let target = image.target.as_ref().map(|target| target.digest.as_str());
        by_digest
            .entry(target.unwrap_or_default())
            .or_default()
            .push(image);
    }
    for listed in &listed.containers {
        // A pod's own container: it holds the namespaces, and runs nothing.
        if listed
            .labels
            .get(KIND)
            .is_some_and(|kind| kind == "sandbox")
        {
            continue;
        }
        if found.containers.len() >= ENTRIES_MAX {
            found.left_out = found.left_out.saturating_add(1);
            continue;
        }
        let image = images
            .images
            .iter()
            .find(|image| image.name == listed.image);
        let task = tasks.get(listed.id.as_str()).copied();
        let mut container = container(runtime, namespace, listed, task);
        let target = image.and_then(|image| image.target.as_ref());
        container.image_id = target.and_then(|target| digest(&target.digest));
        found.containers.push(container);
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

fn container(runtime: &str, namespace: &str, listed: &Listed, task: Option<&Task>) -> Container {
    let value = listed.spec.as_ref().map(|spec| spec.value.as_slice());
    let spec: Value = value
        .and_then(|value| serde_json::from_slice(value).ok())
        .unwrap_or_default();
    let label = |name: &str| listed.labels.get(name).map(|value| text(value));
    let name = label("io.kubernetes.container.name").or_else(|| label("nerdctl/name"));
    Container {
        id: text(&listed.id),
        name: name.unwrap_or_else(|| text(&listed.id)),
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
        pod: label("io.kubernetes.pod.name"),
        namespace: label("io.kubernetes.pod.namespace")
            .or_else(|| Some(text(namespace)).filter(|name| name != "default")),
        owner: label("nerdctl/compose-project").or_else(|| label("com.docker.compose.project")),
        labels: labels(&listed.labels),
        ports: Vec::new(),
        addresses: Vec::new(),
        mounts: spec::mounts(&spec),
        security: spec::security(&spec),
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
