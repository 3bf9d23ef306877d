//! The container runtime interface (`runtime.v1`), by which kubelet speaks with CRI-O and others:
//! containers of pods, and images.
//!
//! It hands out no content of images, and tells of the container's process and its runtime spec only
//! in words meant for people (`info`), which CRI-O and containerd fill alike. containerd is asked over
//! its own API, which tells more.

use std::{collections::HashMap, time::Duration};

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
    engine::grpc::{self, Empty},
};

const VERSION: &str = "runtime.v1.RuntimeService/Version";
const LIST_CONTAINERS: &str = "runtime.v1.RuntimeService/ListContainers";
const CONTAINER_STATUS: &str = "runtime.v1.RuntimeService/ContainerStatus";
const LIST_SANDBOXES: &str = "runtime.v1.RuntimeService/ListPodSandbox";
const EVENTS: &str = "runtime.v1.RuntimeService/GetContainerEvents";
const LIST_IMAGES: &str = "runtime.v1.ImageService/ListImages";
/// What verbose answers call what they tell of a container.
const INFO: &str = "info";

#[derive(Clone, PartialEq, Message)]
pub(super) struct VersionResponse {
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListContainersRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) filter: Option<ContainerFilter>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerFilter {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) containers: Vec<Listed>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Listed {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) sandbox: String,
    #[prost(message, optional, tag = "3")]
    pub(super) metadata: Option<Named>,
    #[prost(message, optional, tag = "4")]
    pub(super) image: Option<ImageSpec>,
    #[prost(string, tag = "5")]
    pub(super) image_ref: String,
    #[prost(int32, tag = "6")]
    pub(super) state: i32,
    #[prost(int64, tag = "7")]
    pub(super) created_at_ns: i64,
    #[prost(map = "string, string", tag = "8")]
    pub(super) labels: HashMap<String, String>,
    #[prost(string, tag = "10")]
    pub(super) image_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Named {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ImageSpec {
    #[prost(string, tag = "1")]
    pub(super) image: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusRequest {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(bool, tag = "2")]
    pub(super) verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(map = "string, string", tag = "2")]
    pub(super) info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int64, tag = "5")]
    pub(super) started_at_ns: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListSandboxesResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) sandboxes: Vec<Sandbox>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Sandbox {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) metadata: Option<Pod>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pod {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListImagesResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) images: Vec<Image>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) tags: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub(super) digests: Vec<String>,
    #[prost(uint64, tag = "4")]
    pub(super) bytes: u64,
}

pub(super) async fn inventory(asked: &Asked<'_>) -> Result<EngineInventory, OciError> {
    held(asked, None).await
}

/// A container by its id.
pub(super) async fn find(asked: &Asked<'_>, id: &str) -> Result<Option<Container>, OciError> {
    let only = ContainerFilter { id: id.to_owned() };
    let found = held(asked, Some(only)).await?;
    // A filter takes the beginning of an id, too.
    let mut containers = found.containers.into_iter();
    Ok(containers.find(|container| container.id == id))
}

/// What the runtime holds; of its containers perhaps only one.
async fn held(
    asked: &Asked<'_>,
    filter: Option<ContainerFilter>,
) -> Result<EngineInventory, OciError> {
    let client = build(quick(asked).http2_prior_knowledge())?;
    let version: VersionResponse = one(asked, &client, VERSION, &Empty {}).await?;
    let request = ListContainersRequest { filter };
    let listed: ListContainersResponse = one(asked, &client, LIST_CONTAINERS, &request).await?;
    let sandboxes: ListSandboxesResponse = one(asked, &client, LIST_SANDBOXES, &Empty {}).await?;
    let images: ListImagesResponse = one(asked, &client, LIST_IMAGES, &Empty {}).await?;
    let pods: HashMap<&str, &Pod> = sandboxes
        .sandboxes
        .iter()
        .filter_map(|sandbox| Some((sandbox.id.as_str(), sandbox.metadata.as_ref()?)))
        .collect();
    let beyond = |count: usize| count.saturating_sub(ENTRIES_MAX);
    let left_out = beyond(listed.containers.len()).saturating_add(beyond(images.images.len()));
    let runtime = asked.engine.as_str();
    let mut containers = Vec::new();
    for listed in listed.containers.iter().take(ENTRIES_MAX) {
        let request = StatusRequest {
            id: listed.id.clone(),
            verbose: true,
        };
        let status: StatusResponse = one(asked, &client, CONTAINER_STATUS, &request).await?;
        let pod = pods.get(listed.sandbox.as_str()).copied();
        let mut container = container(runtime, listed, pod, &status);
        let image = images.images.iter().find(|image| is_of(listed, image));
        if let Some(image) = image {
            container.image_id = digest(&image.id);
            container.repo_digests = texts(&image.digests);
        }
        containers.push(container);
    }
    let images = images.images.iter().take(ENTRIES_MAX);
    Ok(EngineInventory {
        version: text(format!("{} {}", version.name, version.version).trim()),
        containers,
        images: images.filter_map(|image| at_rest(runtime, image)).collect(),
        left_out,
    })
}

/// What happens to containers, where the runtime tells of it.
pub(super) async fn events(asked: &Asked<'_>) -> Result<grpc::Messages, OciError> {
    let client = build(patient(asked).http2_prior_knowledge())?;
    let answer = grpc::call(asked, &client, "", EVENTS, &Empty {}).await?;
    answer.ok_or_else(|| asked.away("it has no events"))
}

/// The one message of an answer; an empty one for what is gone by now.
async fn one<T: Message + Default>(
    asked: &Asked<'_>,
    client: &Client,
    method: &str,
    request: &impl Message,
) -> Result<T, OciError> {
    let answer = grpc::one(asked, client, "", method, request).await?;
    Ok(answer.unwrap_or_default())
}

/// Whether a container is of an image, by whichever of its names the runtime gives.
fn is_of(listed: &Listed, image: &Image) -> bool {
    let names = [listed.image_id.as_str(), listed.image_ref.as_str()];
    let mut names = names.into_iter().filter(|name| !name.is_empty());
    names.any(|name| {
        let id = digest(name);
        (id.is_some() && id == digest(&image.id)) || image.digests.iter().any(|own| own == name)
    })
}

fn container(
    runtime: &str,
    listed: &Listed,
    pod: Option<&Pod>,
    status: &StatusResponse,
) -> Container {
    let info = status.info.get(INFO);
    let info: Value = info
        .and_then(|info| serde_json::from_str(info).ok())
        .unwrap_or_default();
    let spec = info.get("runtimeSpec").unwrap_or(&Value::Null);
    let name = listed.metadata.as_ref().map(|named| text(&named.name));
    let started = status.status.as_ref().map_or(0, |at| at.started_at_ns);
    let pid = info.get("pid").and_then(Value::as_u64).unwrap_or_default();
    // runtime.v1.ContainerState
    let state = match listed.state {
        0 => ContainerState::Created,
        1 => ContainerState::Running,
        2 => ContainerState::Stopped,
        _ => ContainerState::Unknown,
    };
    let is_running = state == ContainerState::Running;
    Container {
        id: text(&listed.id),
        name: name
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| text(&listed.id)),
        runtime: runtime.to_owned(),
        image: listed
            .image
            .as_ref()
            .map(|image| text(&image.image))
            .unwrap_or_default(),
        image_id: None,
        repo_digests: Vec::new(),
        state,
        created_at: timestamp(listed.created_at_ns),
        started_at: timestamp(started),
        pid: u32::try_from(pid).ok().filter(|_| is_running).unwrap_or(0),
        cgroup: None,
        pod: pod.map(|pod| text(&pod.name)),
        namespace: pod.map(|pod| text(&pod.namespace)),
        owner: None,
        labels: labels(&listed.labels),
        ports: Vec::new(),
        addresses: Vec::new(),
        mounts: spec::mounts(spec),
        security: spec::security(spec),
    }
}

fn at_rest(runtime: &str, image: &Image) -> Option<ImageAtRest> {
    Some(ImageAtRest {
        runtime: runtime.to_owned(),
        id: digest(&image.id)?,
        names: texts(&image.tags),
        repo_digests: texts(&image.digests),
        bytes: image.bytes,
        created_at: None,
    })
}

fn texts(given: &[String]) -> Vec<String> {
    given.iter().take(PARTS_MAX).map(|one| text(one)).collect()
}

fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    let since = Duration::from_nanos(u64::try_from(nanoseconds).ok()?);
    let since = jiff::SignedDuration::try_from(since).ok()?;
    let at = Timestamp::UNIX_EPOCH.checked_add(since).ok()?;
    (at > Timestamp::UNIX_EPOCH).then_some(at)
}
