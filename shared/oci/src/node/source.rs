//! Who asks a node: an image there, read as from a registry.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use chassis::Cx;
use futures::future::BoxFuture;
use model::{
    Digest, Slug,
    runtime::{NodeAnswer, NodeQuestion, OnNode, PART_BYTES_MAX},
};

use super::NodeLine;
use crate::{
    Limits, OciError,
    directory::config_bytes,
    manifest::Document,
    reader::{self, Feed},
    resolve::{self, Blobs, Documents as _},
    source::{BlobReader, Descriptor, Image, Resolved, Source, Wanted, verify},
};

/// How long a node may take to lay an image out: an engine packs it first.
const PREPARING_MAX: Duration = Duration::from_mins(10);
/// The first wait for it; it doubles.
const PREPARING_PAUSE: Duration = Duration::from_millis(100);
/// The longest.
const PREPARING_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Characters of what a node says that are passed on.
const WHY_CHARS_MAX: usize = 300;

/// An image on a node.
#[derive(Clone)]
pub struct NodeSource {
    cx: Cx,
    line: Arc<dyn NodeLine>,
    tenant: Slug,
    at: OnNode,
    limits: Limits,
}

/// What a node says of where an image begins.
struct Begin {
    manifest: Digest,
    written: bool,
}

// === impl NodeSource ===

impl NodeSource {
    /// An image on a node of a tenant; nothing is asked yet.
    pub fn new(cx: &Cx, line: Arc<dyn NodeLine>, tenant: &Slug, at: OnNode) -> Self {
        Self {
            cx: cx.clone(),
            line,
            tenant: tenant.clone(),
            at,
            limits: Limits::default(),
        }
    }

    async fn ask(&self, question: &NodeQuestion) -> Result<NodeAnswer, OciError> {
        self.line.ask(&self.tenant, &self.at.node, question).await
    }

    /// Waits until the node has laid the image out.
    async fn find(&self) -> Result<Begin, OciError> {
        let question = NodeQuestion::Find { image: self.at.id };
        let (mut pause, mut waited) = (PREPARING_PAUSE, Duration::ZERO);
        loop {
            match self.patiently(&question).await? {
                NodeAnswer::Found { manifest, written } => return Ok(Begin { manifest, written }),
                NodeAnswer::Preparing if waited < PREPARING_MAX => {}
                NodeAnswer::Preparing => return Err(self.away("it still lays the image out")),
                other => return Err(self.unwanted(other)),
            }
            if !self.cx.sleep(pause).await {
                return Err(OciError::Internal(
                    "stopped while a node prepares".to_owned(),
                ));
            }
            waited = waited.saturating_add(pause);
            pause = pause.saturating_mul(2).min(PREPARING_PAUSE_MAX);
        }
    }

    /// Asks again for a while where there is no answer, or the node's engine is away.
    async fn patiently(&self, question: &NodeQuestion) -> Result<NodeAnswer, OciError> {
        let mut pause = self.limits.retry_wait;
        for left in (0..=self.limits.blob_resumes_max).rev() {
            let error = match self.ask(question).await {
                Ok(NodeAnswer::Away { why }) => self.away(&shown(&why)),
                Err(error) if error.is_transient() => error,
                said => return said,
            };
            if left == 0 || !self.cx.sleep(pause).await {
                return Err(error);
            }
            pause = pause.saturating_mul(2);
        }
        Err(self.away("it was not asked"))
    }

    /// A part of a blob, and how many bytes that has, as far as the node says.
    async fn part(&self, blob: Digest, offset: u64) -> Result<(Vec<u8>, Option<u64>), OciError> {
        let question = NodeQuestion::Read {
            image: self.at.id,
            blob,
            offset,
            bytes_max: PART_BYTES_MAX,
        };
        for _ in 0..=self.limits.blob_resumes_max {
            match self.patiently(&question).await? {
                NodeAnswer::Part { bytes, size } => {
                    let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    if count > u64::from(PART_BYTES_MAX) {
                        let limit = u64::from(PART_BYTES_MAX);
                        return Err(OciError::too_large(self.what("an answer"), limit));
                    }
                    return Ok((bytes, size));
                }
                // Its agent started again, and holds the image no more.
                NodeAnswer::Preparing => {
                    self.find().await?;
                }
                other => return Err(self.unwanted(other)),
            }
        }
        Err(self.away("it loses the image again and again"))
    }

    /// Whether the manifest is that of what the node was asked for: the image itself, one with this
    /// config, or one that the index names.
    async fn check(&self, manifest: Digest, config: Digest) -> Result<(), OciError> {
        let id = self.at.id;
        if id == manifest || id == config {
            return Ok(());
        }
        let bytes = self.read(id, self.limits.manifest_bytes_max).await?;
        if let Document::Index(entries) = Document::parse(&bytes, None, id, &self.limits)?
            && entries
                .iter()
                .any(|entry| entry.descriptor.digest == manifest)
        {
            return Ok(());
        }
        Err(OciError::malformed(
            self.what(&format!("image `{id}`")),
            format!("it does not lead to `{manifest}`"),
        ))
    }

    /// A small blob, which has its digest.
    async fn read(&self, digest: Digest, bytes_max: u64) -> Result<Vec<u8>, OciError> {
        let mut whole = Vec::new();
        loop {
            let read = u64::try_from(whole.len()).unwrap_or(u64::MAX);
            if read > bytes_max {
                return Err(OciError::too_large(format!("blob `{digest}`"), bytes_max));
            }
            let (bytes, size) = self.part(digest, read).await?;
            let is_last = bytes.is_empty();
            whole.extend(bytes);
            if is_last || size.is_some_and(|size| whole.len() as u64 >= size) {
                return verify(whole, digest, &format!("blob `{digest}`"));
            }
        }
    }

    fn what(&self, what: &str) -> String {
        format!("{what} of node `{}`", self.at.node)
    }

    fn away(&self, detail: &str) -> OciError {
        OciError::Unavailable {
            host: format!("node {}", self.at.node),
            detail: detail.to_owned(),
            retry_after: None,
        }
    }

    /// What an answer means that is not the one that was wanted.
    fn unwanted(&self, answer: NodeAnswer) -> OciError {
        match answer {
            NodeAnswer::Missing { why } => OciError::NotFound {
                what: shown(&why),
                place: format!("node `{}`", self.at.node),
                missing: crate::Missing::Unsaid,
            },
            NodeAnswer::Refused { why } => {
                OciError::unsupported(self.what("an image"), shown(&why))
            }
            NodeAnswer::Away { why } => self.away(&shown(&why)),
            NodeAnswer::Found { .. } | NodeAnswer::Preparing | NodeAnswer::Part { .. } => {
                OciError::malformed(self.what("an answer"), "it answers another question")
            }
        }
    }
}

impl Source for NodeSource {
    /// The one image; a digest that is asked for must be its manifest's.
    fn resolve<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Resolved, OciError>> {
        Box::pin(async move {
            let Begin { manifest, written } = self.find().await?;
            if wanted.digest.is_some_and(|digest| digest != manifest) {
                return Err(OciError::NotFound {
                    what: wanted.name(),
                    place: format!("node `{}`", self.at.node),
                    missing: crate::Missing::Unsaid,
                });
            }
            let root = self.manifest("", manifest).await?;
            let reference = format!("node:{}/{}", self.at.node, self.at.id);
            let mut resolved = resolve::follow(self, wanted, reference, root).await?;
            for image in &mut resolved.images {
                self.check(image.digest, image.image_id).await?;
                image.has_registry_manifest = !written;
                image.config.is_written = written && is_of_directory(image);
            }
            Ok(resolved)
        })
    }

    fn open_blob<'a>(
        &'a self,
        _repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobReader, OciError>> {
        Box::pin(async move {
            let first = self.part(blob.digest, 0).await?;
            let (feed, reader) = reader::channel();
            let (source, blob) = (self.clone(), blob.clone());
            let pumped = async move { source.pump(&blob, first, feed).await };
            self.cx.spawn("blob of a node", pumped);
            Ok(Box::new(reader) as BlobReader)
        })
    }
}

impl NodeSource {
    /// Hands a blob on, at most one byte more than it should have.
    async fn pump(&self, blob: &Descriptor, first: (Vec<u8>, Option<u64>), feed: Feed) {
        let limit = blob.size.saturating_add(1);
        let (mut at, mut part) = (0_u64, Ok(first));
        loop {
            let (bytes, size) = match part {
                Ok(part) => part,
                Err(error) => {
                    // Nobody reads any more.
                    drop(feed.send(Err(error)).await);
                    return;
                }
            };
            let room = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX);
            let mut bytes = Bytes::from(bytes);
            bytes.truncate(room);
            let is_last = bytes.is_empty();
            at = at.saturating_add(bytes.len() as u64);
            if !is_last && feed.send(Ok(Some(bytes))).await.is_err() {
                return;
            }
            if is_last || at >= limit || size.is_some_and(|size| at >= size) {
                drop(feed.send(Ok(None)).await);
                return;
            }
            part = self.part(blob.digest, at).await;
        }
    }
}

impl Blobs for NodeSource {
    fn read_blob(
        &self,
        digest: Digest,
        bytes_max: u64,
    ) -> BoxFuture<'_, Result<Vec<u8>, OciError>> {
        Box::pin(self.read(digest, bytes_max))
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl fmt::Debug for NodeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeSource")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// Whether its config is the one that is written for a directory, as the host's files are.
fn is_of_directory(image: &Image) -> bool {
    let layers = image.manifest.layers.as_slice();
    matches!(layers, [layer] if image.image_id == Digest::of(&config_bytes(layer.digest)))
}

/// What a node says, shortened and on one line.
fn shown(why: &str) -> String {
    let shown = why.chars().take(WHY_CHARS_MAX);
    shown
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
