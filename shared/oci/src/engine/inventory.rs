//! What an engine holds, running or not: containers with their settings, images on its disk.
//!
//! Docker and podman answer the same requests. containerd is asked over its own API, which knows the
//! containers of Kubernetes as well (namespace `k8s.io`); CRI-O over the interface of kubelet. All
//! of it is hostile: lists, texts and bodies are bounded here, and what does not parse is left out of
//! its container, not the container out of the list.

pub(super) mod containerd;
mod cri;
mod docker;
mod pod;
mod spec;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Duration,
};

use chassis::Cx;
use model::runtime::{Container, ImageAtRest};
use reqwest::Response;

use super::{
    Asked, build,
    grpc::{self, Messages},
};
use crate::{Engine, Engines, Limits, OciError};

/// How many containers and images of one engine are told; what is beyond is counted.
const ENTRIES_MAX: usize = 5_000;
/// Characters of a name, a label, a path.
const TEXT_MAX: usize = 512;
/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Parts of a list within a container: mounts, ports, labels, names.
const PARTS_MAX: usize = 128;
/// How long an engine may take over one answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// What an engine holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineInventory {
    /// The engine's version.
    pub version: String,
    /// Its containers, running or not.
    pub containers: Vec<Container>,
    /// Its images.
    pub images: Vec<ImageAtRest>,
    /// Containers and images beyond what is told of one engine.
    pub left_out: usize,
}

/// What an engine tells while it happens; see [`Engines::changes`].
pub struct Changes(Stream);

enum Stream {
    Lines(Response),
    Messages(Messages),
}

// === impl Engines ===

impl Engines {
    /// Everything that the engine behind a socket holds.
    pub async fn inventory(
        &self,
        cx: &Cx,
        engine: Engine,
        socket: &Path,
    ) -> Result<EngineInventory, OciError> {
        let asked = asked(cx, engine, socket);
        match engine {
            Engine::Docker | Engine::Podman => docker::inventory(&asked).await,
            Engine::Containerd => containerd::inventory(&asked, &self.namespaces).await,
            Engine::Cri => cri::inventory(&asked).await,
        }
    }

    /// A container that containerd or another runtime of Kubernetes knows, by its whole id; `None`
    /// where it knows none. Docker and podman tell more when they are asked with
    /// [`call`](Self::call).
    pub async fn container(
        &self,
        cx: &Cx,
        (engine, socket): (Engine, &Path),
        id: &str,
    ) -> Result<Option<Container>, OciError> {
        let asked = asked(cx, engine, socket);
        match engine {
            Engine::Docker | Engine::Podman => Ok(None),
            Engine::Containerd => containerd::find(&asked, &self.namespaces, id).await,
            Engine::Cri => cri::find(&asked, id).await,
        }
    }

    /// Says when something changed in an engine, as long as the connection lives.
    pub async fn changes(
        &self,
        cx: &Cx,
        engine: Engine,
        socket: &Path,
    ) -> Result<Changes, OciError> {
        let asked = asked(cx, engine, socket);
        let stream = match engine {
            Engine::Docker | Engine::Podman => Stream::Lines(docker::events(&asked).await?),
            Engine::Containerd => Stream::Messages(containerd::events(&asked).await?),
            Engine::Cri => Stream::Messages(cri::events(&asked).await?),
        };
        Ok(Changes(stream))
    }
}

pub(super) fn asked<'a>(cx: &'a Cx, engine: Engine, socket: &'a Path) -> Asked<'a> {
    Asked {
        cx,
        engine,
        socket,
        limits: Limits::default(),
    }
}

// === impl Changes ===

impl Changes {
    /// Waits until something changes; an error is the end of it.
    pub async fn next(&mut self) -> Result<(), OciError> {
        let ended = || OciError::malformed("the engine's events", "they end");
        match &mut self.0 {
            Stream::Lines(response) => match response.chunk().await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(ended()),
                Err(error) => Err(OciError::malformed("the engine's events", error)),
            },
            Stream::Messages(messages) => {
                let message = messages.next::<grpc::Empty>().await?;
                message.map(|_| ()).ok_or_else(ended)
            }
        }
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

/// A client for answers that come at once.
pub(super) fn quick(asked: &Asked<'_>) -> reqwest::ClientBuilder {
    asked.client().read_timeout(PATIENCE)
}

/// A client for answers that come when something happens.
fn patient(asked: &Asked<'_>) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .unix_socket(asked.socket)
        .user_agent(crate::registry::USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(asked.limits.connect_timeout)
}

/// What a service of gRPC tells while it happens.
async fn told(
    asked: &Asked<'_>,
    method: &str,
    request: &impl prost::Message,
) -> Result<Messages, OciError> {
    let client = build(patient(asked).http2_prior_knowledge())?;
    let answer = grpc::call(asked, &client, "", method, request).await?;
    answer.ok_or_else(|| asked.away("it has no events"))
}

/// A text of an engine, shortened and without control characters.
fn text(text: &str) -> String {
    let shown = text.chars().take(TEXT_MAX);
    shown
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// As many texts of a list as are told.
fn texts(given: &[String]) -> Vec<String> {
    given.iter().take(PARTS_MAX).map(|one| text(one)).collect()
}

/// Labels of a container, as many as are told.
fn labels(given: &HashMap<String, String>) -> BTreeMap<String, String> {
    let labels = given.iter().map(|(name, value)| (text(name), text(value)));
    let sorted: BTreeMap<String, String> = labels.collect();
    sorted.into_iter().take(PARTS_MAX).collect()
}
