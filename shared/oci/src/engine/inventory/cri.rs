//! The container runtime interface (`runtime.v1`), by which kubelet speaks with CRI-O and others:
//! containers of pods, and images.
//!
//! It hands out no content of images, and tells of the container's process and its runtime spec only
//! in words meant for people (`info`), which CRI-O and containerd fill alike. containerd is asked over
//! its own API, which tells more; but for what became of a container that does not run, which only
//! this interface knows.

pub(super) mod messages;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use jiff::Timestamp;
use model::runtime::{Container, ContainerState, ImageAtRest};
use prost::Message;
use reqwest::Client;
use serde_json::Value;

use self::messages::{
    ContainerFilter, Image, ListContainersRequest, ListContainersResponse, ListImagesResponse,
    ListSandboxesResponse, Listed, SandboxStatusResponse, Status, StatusRequest, StatusResponse,
    VersionResponse,
};
use super::{
    Asked, ENTRIES_MAX, EngineInventory, build,
    docker::digest,
    labels,
    pod::{self, Pod},
    quick, spec, text, texts, told,
};
use crate::{
    OciError,
    engine::grpc::{self, Empty},
};

const VERSION: &str = "runtime.v1.RuntimeService/Version";
const LIST_CONTAINERS: &str = "runtime.v1.RuntimeService/ListContainers";
const CONTAINER_STATUS: &str = "runtime.v1.RuntimeService/ContainerStatus";
const LIST_SANDBOXES: &str = "runtime.v1.RuntimeService/ListPodSandbox";
const SANDBOX_STATUS: &str = "runtime.v1.RuntimeService/PodSandboxStatus";
const EVENTS: &str = "runtime.v1.RuntimeService/GetContainerEvents";
const LIST_IMAGES: &str = "runtime.v1.ImageService/ListImages";
/// What verbose answers call what they tell of a container or a pod.
const INFO: &str = "info";
/// What containerd notes in a spec.
const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";

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
    let images: ListImagesResponse = one(asked, &client, LIST_IMAGES, &Empty {}).await?;
    let beyond = |count: usize| count.saturating_sub(ENTRIES_MAX);
    let left_out = beyond(listed.containers.len()).saturating_add(beyond(images.images.len()));
    let listed = listed
        .containers
        .get(..ENTRIES_MAX)
        .unwrap_or(&listed.containers);
    let pods = pods(asked, &client, listed).await?;
    let runtime = asked.engine.as_str();
    let mut containers = Vec::new();
    for listed in listed {
        let request = verbose(&listed.id);
        let status: Option<StatusResponse> =
            grpc::one(asked, &client, "", CONTAINER_STATUS, &request).await?;
        // Without one it was removed since the list was made.
        let Some(status) = status else { continue };
        let pod = pods.get(listed.sandbox.as_str());
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

/// The pods of containers, by the ids of their own containers.
async fn pods(
    asked: &Asked<'_>,
    client: &Client,
    listed: &[Listed],
) -> Result<HashMap<String, Pod>, OciError> {
    let wanted: BTreeSet<&str> = listed.iter().map(|one| one.sandbox.as_str()).collect();
    let sandboxes: ListSandboxesResponse = one(asked, client, LIST_SANDBOXES, &Empty {}).await?;
    let mut pods = HashMap::new();
    for sandbox in sandboxes.sandboxes {
        if !wanted.contains(sandbox.id.as_str()) {
            continue;
        }
        let request = verbose(&sandbox.id);
        let status: SandboxStatusResponse = one(asked, client, SANDBOX_STATUS, &request).await?;
        let info = info(&status.info);
        let mut pod = Pod::new(part(&info, "config"), part(&info, "runtimeSpec"));
        let named = sandbox.metadata.unwrap_or_default();
        pod.name = pod::name(&named.name);
        pod.namespace = pod::name(&named.namespace);
        pods.insert(sandbox.id, pod);
    }
    Ok(pods)
}

/// What became of containers, by their ids.
pub(super) async fn states(
    asked: &Asked<'_>,
    client: &Client,
) -> Result<HashMap<String, ContainerState>, OciError> {
    let request = ListContainersRequest { filter: None };
    let listed: ListContainersResponse = one(asked, client, LIST_CONTAINERS, &request).await?;
    let listed = listed.containers.into_iter();
    Ok(listed
        .map(|listed| (listed.id, state(listed.state)))
        .collect())
}

/// What happens to containers, where the runtime tells of it.
pub(super) async fn events(asked: &Asked<'_>) -> Result<grpc::Messages, OciError> {
    told(asked, EVENTS, &Empty {}).await
}

async fn one<T: Message + Default>(
    asked: &Asked<'_>,
    client: &Client,
    method: &str,
    request: &impl Message,
) -> Result<T, OciError> {
    grpc::one_or_empty(asked, client, "", method, request).await
}

fn verbose(id: &str) -> StatusRequest {
    StatusRequest {
        id: id.to_owned(),
        verbose: true,
    }
}

/// What is meant for people; null where there is nothing, or something else than is usual.
fn info(info: &HashMap<String, String>) -> Value {
    let info = info.get(INFO).map(String::as_str).unwrap_or_default();
    serde_json::from_str(info).unwrap_or_default()
}

fn part<'a>(info: &'a Value, name: &str) -> &'a Value {
    info.get(name).unwrap_or(&Value::Null)
}

/// By what the runtime knows a container's image: an id, or a repository with a digest.
fn names(listed: &Listed) -> impl Iterator<Item = &str> {
    let names = [listed.image_id.as_str(), listed.image_ref.as_str()];
    names.into_iter().filter(|name| !name.is_empty())
}

/// Whether a container is of an image, by whichever of its names the runtime gives.
fn is_of(listed: &Listed, image: &Image) -> bool {
    names(listed).any(|name| {
        let id = digest(name);
        (id.is_some() && id == digest(&image.id)) || image.digests.iter().any(|own| own == name)
    })
}

fn container(
    runtime: &str,
    listed: &Listed,
    pod: Option<&Pod>,
    answer: &StatusResponse,
) -> Container {
    let info = info(&answer.info);
    let spec = part(&info, "runtimeSpec");
    let named = listed.metadata.as_ref();
    let status = answer.status.as_ref();
    let started = status.map_or(0, |status| status.started_at_ns);
    let pid = info.get("pid").and_then(Value::as_u64).unwrap_or_default();
    let state = state(listed.state);
    let is_running = state == ContainerState::Running;
    let noted = pod::noted(|name| listed.annotations.get(name).map(String::as_str));
    Container {
        id: text(&listed.id),
        name: named
            .and_then(|named| pod::name(&named.name))
            .unwrap_or_else(|| text(&listed.id)),
        runtime: runtime.to_owned(),
        image: image(listed, status, spec),
        // What is known of it where the image itself is gone; see `held`.
        image_id: names(listed).find_map(digest),
        repo_digests: names(listed)
            .filter(|name| name.contains('@'))
            .map(text)
            .collect(),
        state,
        created_at: timestamp(listed.created_at_ns),
        started_at: timestamp(started),
        pid: u32::try_from(pid).ok().filter(|_| is_running).unwrap_or(0),
        cgroup: None,
        pod: pod.and_then(|pod| pod.name.clone()),
        namespace: pod.and_then(|pod| pod.namespace.clone()),
        owner: None,
        labels: labels(&listed.labels),
        ports: pod::ports(noted, pod),
        addresses: Vec::new(),
        mounts: spec::mounts(spec, [&listed.id, &listed.sandbox]),
        security: spec::security(spec, pod.and_then(|pod| pod.of_host)),
    }
}

/// The image's name as it was asked for, or else as the runtime tells it: kubelet has containers made
/// of an image by its id, which is then all that the list has of it, and all that is left of an image
/// that was removed.
fn image(listed: &Listed, status: Option<&Status>, spec: &Value) -> String {
    let asked = listed.image.as_ref();
    let told = status.and_then(|status| status.image.as_ref());
    let when_made = part(spec, "annotations")
        .get(IMAGE_NAME)
        .and_then(Value::as_str);
    let names = [
        asked.map(|image| image.asked_for.as_str()),
        told.map(|image| image.image.as_str()),
        when_made,
        asked.map(|image| image.image.as_str()),
    ];
    let names = || names.into_iter().flatten().filter(|name| !name.is_empty());
    let name = names().find(|name| digest(name).is_none());
    name.or_else(|| names().next())
        .map(text)
        .unwrap_or_default()
}

/// `runtime.v1.ContainerState`
const fn state(number: i32) -> ContainerState {
    match number {
        0 => ContainerState::Created,
        1 => ContainerState::Running,
        2 => ContainerState::Stopped,
        _ => ContainerState::Unknown,
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

fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    let since = Duration::from_nanos(u64::try_from(nanoseconds).ok()?);
    let since = jiff::SignedDuration::try_from(since).ok()?;
    let at = Timestamp::UNIX_EPOCH.checked_add(since).ok()?;
    (at > Timestamp::UNIX_EPOCH).then_some(at)
}
