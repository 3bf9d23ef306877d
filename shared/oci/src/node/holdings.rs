//! Who answers on a node: images of its engines, and the host itself.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chassis::Cx;
use model::{
    Digest, Platform,
    runtime::{NodeAnswer, NodeQuestion, PART_BYTES_MAX},
};
use tokio::time::Instant;

use crate::{
    Directory, DockerArchive, Engines, OciError, Platforms, Skip, Source as _, Wanted,
    directory::config_bytes,
    engine::{Containerd, Holding},
    manifest::written,
    source::{Descriptor, Manifest},
    tarball,
};

/// Images that are laid out at a time; who asks for another one waits.
const OPEN_MAX: usize = 4;
/// An image that nobody read for so long makes room where there is none.
const QUIET: Duration = Duration::from_secs(15);
/// One that nobody read for so long is let go.
const FORGOTTEN: Duration = Duration::from_mins(2);
/// How long the reason counts why an image could not be laid out.
const FAILED: Duration = Duration::from_secs(5);
const BUFFER_BYTES: usize = 256 << 10;

/// What a node hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldingsConfig {
    /// Bytes of an image of Docker or podman, or of the host's files, that is laid out on the disk.
    pub image_bytes_max: u64,
    /// The host's own files.
    pub host: HostFiles,
}

/// Files of the host that are told as an image of one layer, and no others ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFiles {
    /// Where the host's file system is.
    pub root: PathBuf,
    /// Files and directories, from there on, without a leading slash. None: the host is not told of.
    pub paths: Vec<String>,
}

/// The answers of a node.
pub struct Holdings {
    cx: Cx,
    engines: Engines,
    config: HoldingsConfig,
    open: Mutex<HashMap<Digest, Open>>,
    /// The host's files as they were last told of: what their file system said, and the image.
    host: Mutex<Option<(Digest, Digest)>>,
}

/// An image that somebody asked for.
struct Open {
    used: Instant,
    state: State,
}

#[derive(Clone)]
enum State {
    Preparing,
    Ready(Arc<Laid>),
    Failed(NodeAnswer),
}

/// An image that is laid out.
struct Laid {
    digest: Digest,
    /// The manifest, where it was written for the image.
    written: Option<Vec<u8>>,
    content: Content,
}

enum Content {
    Archive(DockerArchive),
    Containerd(Box<Containerd>),
    Host {
        config: Vec<u8>,
        config_digest: Digest,
        layer: Descriptor,
        file: Arc<File>,
    },
}

// === impl HostFiles ===

impl HostFiles {
    /// Leaves out everything but these, and the directories that lead to them.
    fn skip(&self) -> Skip {
        let paths: Vec<String> = self
            .paths
            .iter()
            .map(|path| path.trim_matches('/').to_owned())
            .filter(|path| !path.is_empty())
            .collect();
        let is_below = |path: &str, dir: &str| {
            path.strip_prefix(dir)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        Arc::new(move |path, is_dir| {
            let is_wanted =
                |wanted: &String| is_below(path, wanted) || (is_dir && is_below(wanted, path));
            !paths.iter().any(is_wanted)
        })
    }
}

// === impl Holdings ===

impl Holdings {
    /// What engines of this machine have, and the host.
    pub fn new(cx: &Cx, engines: Engines, config: HoldingsConfig) -> Self {
        Self {
            cx: cx.clone(),
            engines,
            config,
            open: Mutex::default(),
            host: Mutex::default(),
        }
    }

    /// The digest of the host's own files as an image; `None` where they are not told of. They are
    /// read only where their file system says that one of them changed.
    pub async fn host(&self) -> Result<Option<Digest>, OciError> {
        if self.config.host.paths.is_empty() {
            return Ok(None);
        }
        let files = self.host_files();
        let signature = files.signature().await?;
        let known = *self.host.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, image)) = known
            && before == signature
        {
            return Ok(Some(image));
        }
        let image = only(files.resolve(&Wanted::default()).await?.images)?;
        let mut known = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((signature, image.image_id));
        Ok(Some(image.image_id))
    }

    /// Answers a question.
    pub async fn answer(self: &Arc<Self>, question: NodeQuestion) -> NodeAnswer {
        match question {
            NodeQuestion::Find { image } => match self.state(image) {
                State::Ready(laid) => NodeAnswer::Found {
                    manifest: laid.digest,
                    written: laid.written.is_some(),
                },
                State::Preparing => NodeAnswer::Preparing,
                State::Failed(answer) => answer,
            },
            NodeQuestion::Read {
                image,
                blob,
                offset,
                bytes_max,
            } => match self.state(image) {
                State::Ready(laid) => {
                    let bytes_max = bytes_max.min(PART_BYTES_MAX);
                    match laid.read(&self.cx, blob, offset, bytes_max).await {
                        Ok((bytes, size)) => NodeAnswer::Part { bytes, size },
                        Err(error) => unable(&error),
                    }
                }
                State::Preparing => NodeAnswer::Preparing,
                State::Failed(answer) => answer,
            },
        }
    }

    /// How far an image is; one that nobody asked for before begins to be laid out, if there is room.
    fn state(self: &Arc<Self>, image: Digest) -> State {
        let now = Instant::now();
        let mut open = self.images();
        open.retain(|_, open| {
            let quiet = now.saturating_duration_since(open.used);
            match open.state {
                State::Preparing => true,
                State::Ready(_) => quiet < FORGOTTEN,
                State::Failed(_) => quiet < FAILED,
            }
        });
        if let Some(known) = open.get_mut(&image) {
            // A reason ages whether somebody asks or not.
            if !matches!(known.state, State::Failed(_)) {
                known.used = now;
            }
            return known.state.clone();
        }
        if open.len() >= OPEN_MAX {
            let quiet = |open: &Open| now.saturating_duration_since(open.used);
            let idle = open
                .iter()
                .filter(|(_, open)| !matches!(open.state, State::Preparing) && quiet(open) >= QUIET)
                .min_by_key(|(_, open)| open.used)
                .map(|(image, _)| *image);
            let Some(idle) = idle else {
                return State::Preparing;
            };
            open.remove(&idle);
        }
        open.insert(
            image,
            Open {
                used: now,
                state: State::Preparing,
            },
        );
        drop(open);
        let here = Arc::clone(self);
        self.cx.spawn("image for the fabric", async move {
            let state = match here.lay_out(image).await {
                Ok(laid) => State::Ready(Arc::new(laid)),
                Err(error) => {
                    tracing::info!(%error, "image {image} cannot be handed out: {error}");
                    State::Failed(unable(&error))
                }
            };
            let used = Instant::now();
            here.images().insert(image, Open { used, state });
        });
        State::Preparing
    }

    fn images(&self) -> MutexGuard<'_, HashMap<Digest, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lay_out(&self, image: Digest) -> Result<Laid, OciError> {
        if self.host().await? == Some(image) {
            return self.lay_host_out(image).await;
        }
        let bytes_max = self.config.image_bytes_max;
        match self.engines.holding(&self.cx, image, bytes_max).await? {
            Some(Holding::Archive(archive)) => {
                let found = archive.only().await?;
                if found.image_id != image {
                    let what = format!("image `{image}` of its engine");
                    return Err(OciError::malformed(what, "it has another config"));
                }
                Ok(Laid {
                    digest: found.digest,
                    written: Some(written::bytes(&found.manifest)?),
                    content: Content::Archive(archive),
                })
            }
            Some(Holding::Content(containerd)) => {
                let wanted = Wanted {
                    digest: Some(image),
                    platforms: Platforms::Prefer(here()),
                    skip_configs: true,
                    ..Wanted::default()
                };
                let found = only(containerd.resolve(&wanted).await?.images)?;
                Ok(Laid {
                    digest: found.digest,
                    written: None,
                    content: Content::Containerd(containerd),
                })
            }
            None => Err(OciError::NotFound {
                what: image.to_string(),
                place: "the engines of this node".to_owned(),
            }),
        }
    }

    /// The host's files as they are now, in a file without a name: what is read stays what was told.
    async fn lay_host_out(&self, wanted: Digest) -> Result<Laid, OciError> {
        let files = self.host_files();
        let image = only(files.resolve(&Wanted::default()).await?.images)?;
        let layer = image.manifest.layers.first().cloned();
        let layer = layer.ok_or_else(|| OciError::Internal("a host without a layer".to_owned()))?;
        if image.image_id != wanted {
            return Err(OciError::NotFound {
                what: wanted.to_string(),
                place: "the host, whose files have changed".to_owned(),
            });
        }
        let mut reader = files.open_blob("", &layer).await?;
        let (cx, bytes_max) = (self.cx.clone(), self.config.image_bytes_max);
        let kept = self.cx.blocking(move || {
            let temporary = |error: std::io::Error| OciError::io(&std::env::temp_dir(), &error);
            let mut file = tempfile::tempfile().map_err(temporary)?;
            let mut buffer = vec![0; BUFFER_BYTES];
            let mut left = bytes_max;
            loop {
                tarball::stop(&cx)?;
                let read = reader.read(&mut buffer);
                let count = read.map_err(|error| OciError::io(Path::new("/"), &error))?;
                if count == 0 {
                    return Ok::<_, OciError>(file);
                }
                let (part, _) = buffer.split_at(count);
                left = left
                    .checked_sub(count as u64)
                    .ok_or_else(|| OciError::too_large("the host's files", bytes_max))?;
                file.write_all(part).map_err(temporary)?;
            }
        });
        Ok(Laid {
            digest: image.digest,
            written: Some(written::bytes(&Manifest {
                config: image.manifest.config.clone(),
                layers: vec![layer.clone()],
            })?),
            content: Content::Host {
                config: config_bytes(layer.digest),
                config_digest: image.manifest.config.digest,
                layer,
                file: Arc::new(kept.await??),
            },
        })
    }

    fn host_files(&self) -> Directory {
        let HostFiles { root, .. } = &self.config.host;
        Directory::new(&self.cx, root, Some(self.config.host.skip()))
    }
}

impl std::fmt::Debug for Holdings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holdings")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

// === impl Laid ===

impl Laid {
    /// A part of a blob, and how many bytes that has where that is known.
    async fn read(
        &self,
        cx: &Cx,
        blob: Digest,
        offset: u64,
        bytes_max: u32,
    ) -> Result<(Vec<u8>, Option<u64>), OciError> {
        if blob == self.digest
            && let Some(manifest) = &self.written
        {
            return Ok(slice(manifest, offset, bytes_max));
        }
        match &self.content {
            Content::Archive(archive) => {
                let (bytes, size) = archive.read_at(blob, offset, bytes_max).await?;
                Ok((bytes, Some(size)))
            }
            Content::Containerd(containerd) => {
                Ok((containerd.read_at(blob, offset, bytes_max).await?, None))
            }
            Content::Host {
                config,
                config_digest,
                ..
            } if blob == *config_digest => Ok(slice(config, offset, bytes_max)),
            Content::Host { layer, file, .. } if blob == layer.digest => {
                let (file, size) = (Arc::clone(file), layer.size);
                let count = size.saturating_sub(offset).min(u64::from(bytes_max));
                let mut bytes = vec![0; usize::try_from(count).unwrap_or_default()];
                let read = cx.blocking(move || {
                    let read = file.read_exact_at(&mut bytes, offset);
                    read.map(|()| bytes)
                });
                let bytes = read.await?;
                let bytes = bytes.map_err(|error| OciError::io(&std::env::temp_dir(), &error))?;
                Ok((bytes, Some(size)))
            }
            Content::Host { .. } => Err(OciError::NotFound {
                what: blob.to_string(),
                place: "the host".to_owned(),
            }),
        }
    }
}

fn slice(whole: &[u8], offset: u64, bytes_max: u32) -> (Vec<u8>, Option<u64>) {
    let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
    let room = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let bytes = whole.iter().skip(skipped).take(room).copied().collect();
    (bytes, Some(whole.len() as u64))
}

/// What an error is to who asked.
fn unable(error: &OciError) -> NodeAnswer {
    let why = error.to_string();
    if error.is_not_found() {
        NodeAnswer::Missing { why }
    } else if error.is_transient() {
        NodeAnswer::Away { why }
    } else {
        NodeAnswer::Refused { why }
    }
}

fn only(images: Vec<crate::Image>) -> Result<crate::Image, OciError> {
    let first = images.into_iter().next();
    first.ok_or_else(|| OciError::Internal("an image without an image".to_owned()))
}

/// The platform of this machine, as images name it.
fn here() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        ..Platform::default()
    }
}
