//! containerd's API (`containerd.services.images.v1`, `containerd.services.content.v1`): a name
//! leads to a manifest, and content is had by its digest.

use std::{path::PathBuf, sync::Arc};

use chassis::Cx;
use futures::future::BoxFuture;
use model::{Digest, ImageRef};
use prost::Message;
use reqwest::Client;

use super::{Asked, grpc};
use crate::{
    Engine, Limits, Missing, OciError,
    reader::{self, Feed},
    resolve::{self, Blobs, Documents as _},
    source::{BlobReader, Descriptor, Platforms, Resolved, Source, Wanted, verify},
};

const GET_IMAGE: &str = "containerd.services.images.v1.Images/Get";
const READ_CONTENT: &str = "containerd.services.content.v1.Content/Read";

/// An image's content in one namespace of containerd.
#[derive(Clone, Debug)]
pub(crate) struct Containerd {
    cx: Cx,
    client: Client,
    socket: PathBuf,
    namespace: String,
    limits: Limits,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetImageRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetImageResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<StoredImage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredImage {
    #[prost(message, optional, tag = "3")]
    pub(super) target: Option<Target>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Target {
    #[prost(string, tag = "2")]
    pub(super) digest: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ReadContentRequest {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
    #[prost(int64, tag = "2")]
    pub(super) offset: i64,
    /// How much; 0 is all of it.
    #[prost(int64, tag = "3")]
    pub(super) size: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ReadContentResponse {
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) data: bytes::Bytes,
}

/// Looks for an image in the namespaces; the first that has it is the one.
pub(super) async fn find(
    asked: &Asked<'_>,
    namespaces: &[String],
    reference: &ImageRef,
    platforms: &Platforms,
) -> Result<Option<(Arc<dyn Source>, Wanted)>, OciError> {
    let client = super::build(asked.client().http2_prior_knowledge())?;
    let request = GetImageRequest {
        name: reference.to_string(),
    };
    for namespace in namespaces {
        let answer = grpc::call(asked, &client, namespace, GET_IMAGE, &request).await?;
        let Some(mut messages) = answer else {
            continue;
        };
        let image: Option<GetImageResponse> = messages.next().await?;
        let target = image.and_then(|image| image.image?.target);
        let Some(target) = target else { continue };
        let digest = target.digest.parse();
        let digest: Digest = digest.map_err(|error| {
            OciError::malformed(format!("the digest of `{}`", request.name), error)
        })?;
        let source = Containerd {
            cx: asked.cx.clone(),
            client: client.clone(),
            socket: asked.socket.to_owned(),
            namespace: namespace.clone(),
            limits: asked.limits.clone(),
        };
        let wanted = Wanted {
            digest: Some(digest),
            platforms: platforms.clone(),
            ..Wanted::default()
        };
        return Ok(Some((Arc::new(source), wanted)));
    }
    Ok(None)
}

/// Content by its digest, in the first namespace that has it.
pub(super) async fn holding(
    asked: &Asked<'_>,
    namespaces: &[String],
    digest: Digest,
) -> Result<Option<Containerd>, OciError> {
    let client = super::build(asked.client().http2_prior_knowledge())?;
    for namespace in namespaces {
        let containerd = Containerd {
            cx: asked.cx.clone(),
            client: client.clone(),
            socket: asked.socket.to_owned(),
            namespace: namespace.clone(),
            limits: asked.limits.clone(),
        };
        match containerd.read_at(digest, 0, 1).await {
            Ok(_) => return Ok(Some(containerd)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

// === impl Containerd ===

impl Containerd {
    fn asked(&self) -> Asked<'_> {
        Asked {
            cx: &self.cx,
            engine: Engine::Containerd,
            socket: &self.socket,
            limits: self.limits.clone(),
        }
    }

    async fn open(&self, digest: Digest) -> Result<grpc::Messages, OciError> {
        self.open_at(digest, 0, 0).await
    }

    async fn open_at(
        &self,
        digest: Digest,
        offset: u64,
        bytes_max: u32,
    ) -> Result<grpc::Messages, OciError> {
        let (asked, namespace) = (self.asked(), &self.namespace);
        let request = ReadContentRequest {
            digest: digest.to_string(),
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            size: i64::from(bytes_max),
        };
        let answer = grpc::call(&asked, &self.client, namespace, READ_CONTENT, &request).await?;
        answer.ok_or_else(|| OciError::NotFound {
            what: digest.to_string(),
            place: format!("namespace `{namespace}` of {}", asked.place()),
            missing: Missing::Unsaid,
        })
    }

    /// A part of a blob.
    pub(crate) async fn read_at(
        &self,
        digest: Digest,
        offset: u64,
        bytes_max: u32,
    ) -> Result<Vec<u8>, OciError> {
        let room = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let mut messages = self.open_at(digest, offset, bytes_max.max(1)).await?;
        let mut bytes = Vec::new();
        while let Some(part) = messages.next::<ReadContentResponse>().await? {
            bytes.extend_from_slice(&part.data);
            if bytes.len() >= room {
                bytes.truncate(room);
                break;
            }
        }
        Ok(bytes)
    }

    async fn read(&self, digest: Digest, bytes_max: u64) -> Result<Vec<u8>, OciError> {
        let mut messages = self.open(digest).await?;
        let mut bytes = Vec::new();
        while let Some(part) = messages.next::<ReadContentResponse>().await? {
            bytes.extend_from_slice(&part.data);
            if bytes.len() as u64 > bytes_max {
                return Err(OciError::too_large(format!("blob `{digest}`"), bytes_max));
            }
        }
        verify(bytes, digest, &format!("blob `{digest}`"))
    }
}

impl Source for Containerd {
    fn resolve<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Resolved, OciError>> {
        Box::pin(async move {
            let digest = wanted.digest.ok_or_else(|| {
                OciError::Internal("an image of containerd is asked for by digest".to_owned())
            })?;
            let root = self.manifest("", digest).await?;
            let reference = format!("{}:{}", Engine::Containerd, wanted.name());
            resolve::follow(self, wanted, reference, root).await
        })
    }

    fn open_blob<'a>(
        &'a self,
        _repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobReader, OciError>> {
        Box::pin(async move {
            let messages = self.open(blob.digest).await?;
            let (feed, reader) = reader::channel();
            let limit = blob.size.saturating_add(1);
            self.cx
                .spawn("blob of containerd", pump(messages, feed, limit));
            Ok(Box::new(reader) as BlobReader)
        })
    }
}

impl Blobs for Containerd {
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

/// Hands content on, at most so many bytes of it.
async fn pump(mut messages: grpc::Messages, feed: Feed, mut left: u64) {
    loop {
        let part = match messages.next::<ReadContentResponse>().await {
            Ok(Some(mut part)) if left > 0 => {
                let room = usize::try_from(left).unwrap_or(usize::MAX);
                part.data.truncate(room);
                left = left.saturating_sub(part.data.len() as u64);
                Ok(Some(part.data))
            }
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        };
        let is_last = !matches!(part, Ok(Some(_)));
        if feed.send(part).await.is_err() || is_last {
            return;
        }
    }
}
