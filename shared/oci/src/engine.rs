//! Container engines on this machine, asked over the socket that their own clients use.
//!
//! Docker and podman speak HTTP and hand out an image as a docker-archive, which is kept in a file
//! without a name while it is scanned. containerd speaks gRPC and hands out blobs as a registry does,
//! so nothing is kept. What an engine says is hostile input as a registry's answers are.

mod containerd;
mod control;
mod docker;
mod grpc;
mod inventory;
mod remake;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use chassis::Cx;
use model::{Digest, ImageRef};
use reqwest::{Client, ClientBuilder};

use crate::{
    DockerArchive, Engine, Limits, OciError, Source,
    registry::USER_AGENT,
    source::{Platforms, Wanted},
};

pub(crate) use self::containerd::Containerd;
pub use self::{
    control::{EngineCall, EngineVerb},
    inventory::{Changes, EngineInventory},
    remake::Blueprint,
};

/// Where engines may listen. The environment is the caller's to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engines {
    /// Sockets, in the order in which they are tried.
    pub sockets: Vec<(Engine, PathBuf)>,
    /// Namespaces of containerd, in the order in which an image is looked for.
    pub namespaces: Vec<String>,
}

/// An image that an engine has.
pub(crate) struct FoundImage {
    pub(crate) source: Arc<dyn Source>,
    /// What to look up in it.
    pub(crate) wanted: Wanted,
    pub(crate) socket: PathBuf,
}

/// An image that an engine knows by a digest, and how its parts are read.
pub(crate) enum Holding {
    /// In a file without a name, as Docker and podman hand it out.
    Archive(DockerArchive),
    /// In containerd, blob by blob.
    Content(Box<Containerd>),
}

/// An engine's client.
struct Asked<'a> {
    cx: &'a Cx,
    engine: Engine,
    socket: &'a Path,
    limits: Limits,
}

// === impl Engines ===

impl Engines {
    /// The sockets that are there.
    pub fn present(&self) -> impl Iterator<Item = &(Engine, PathBuf)> {
        self.sockets.iter().filter(|(_, socket)| socket.exists())
    }

    /// The image that an engine of this machine knows by a digest; `None` where none does. An
    /// archive has at most so many bytes. An engine that cannot be asked counts where no other has
    /// the image.
    pub(crate) async fn holding(
        &self,
        cx: &Cx,
        id: Digest,
        archive_bytes_max: u64,
    ) -> Result<Option<Holding>, OciError> {
        let limits = Limits {
            unpacked_bytes_max: archive_bytes_max,
            ..Limits::default()
        };
        let mut away = None;
        for (engine, socket) in self.present() {
            let asked = Asked {
                cx,
                engine: *engine,
                socket,
                limits: limits.clone(),
            };
            let found = match engine {
                Engine::Docker | Engine::Podman => {
                    let archive = asked.exported(&id.hex(), &Platforms::All).await;
                    archive.map(|found| found.map(Holding::Archive))
                }
                Engine::Containerd => {
                    let content = containerd::holding(&asked, &self.namespaces, id).await;
                    content.map(|found| found.map(|found| Holding::Content(Box::new(found))))
                }
                Engine::Cri => Ok(None),
            };
            match found {
                Ok(None) => {}
                Err(error) if error.is_transient() => away = Some(error),
                other => return other,
            }
        }
        away.map_or(Ok(None), Err)
    }

    /// Looks for an image in an engine; `None` where that does not have it.
    pub(crate) async fn find(
        &self,
        cx: &Cx,
        engine: Engine,
        reference: &ImageRef,
        platforms: &Platforms,
    ) -> Result<Option<FoundImage>, OciError> {
        let mut is_there = false;
        for (_, socket) in self.present().filter(|(other, _)| *other == engine) {
            is_there = true;
            let asked = Asked {
                cx,
                engine,
                socket,
                limits: Limits::default(),
            };
            let found = match engine {
                Engine::Docker | Engine::Podman => asked.export(reference, platforms).await?,
                Engine::Containerd => {
                    containerd::find(&asked, &self.namespaces, reference, platforms).await?
                }
                Engine::Cri => None,
            };
            if let Some((source, wanted)) = found {
                let socket = socket.clone();
                return Ok(Some(FoundImage {
                    source,
                    wanted,
                    socket,
                }));
            }
        }
        if is_there {
            return Ok(None);
        }
        let tried = self.sockets.iter().filter(|(other, _)| *other == engine);
        let tried: Vec<_> = tried.map(|(_, at)| at.display().to_string()).collect();
        let detail = if tried.is_empty() {
            "only sockets of this machine are asked, as unix:///run/docker.sock".to_owned()
        } else {
            format!("there is no socket at {}; is it running?", tried.join(", "))
        };
        Err(OciError::Unavailable {
            host: engine.to_string(),
            detail,
            retry_after: None,
        })
    }
}

// === impl Asked ===

impl Asked<'_> {
    fn client(&self) -> ClientBuilder {
        Client::builder()
            .unix_socket(self.socket)
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.limits.connect_timeout)
            .read_timeout(self.limits.engine_idle_timeout)
    }

    fn place(&self) -> String {
        format!("{} at {}", self.engine, self.socket.display())
    }

    fn away(&self, detail: impl Into<String>) -> OciError {
        OciError::Unavailable {
            host: self.place(),
            detail: detail.into(),
            retry_after: None,
        }
    }

    /// An engine that could not be asked.
    fn unreachable(&self, error: &reqwest::Error) -> OciError {
        let causes = std::iter::successors(error.source(), |cause| (*cause).source());
        let kind = causes
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .map(io::Error::kind)
            .last();
        let last = std::iter::successors(error.source(), |cause| (*cause).source()).last();
        let why = last.map_or_else(|| error.to_string(), ToString::to_string);
        match kind {
            Some(io::ErrorKind::PermissionDenied) => {
                self.away(format!("{why}; run as a user who may use {}", self.engine))
            }
            Some(io::ErrorKind::ConnectionRefused) => self.away(format!("{why}; is it running?")),
            _ => self.away(why),
        }
    }
}

fn build(builder: ClientBuilder) -> Result<Client, OciError> {
    builder
        .build()
        .map_err(|error| OciError::Internal(format!("making a client: {error}")))
}
