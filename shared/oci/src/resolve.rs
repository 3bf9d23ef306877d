//! From a tag or digest to images: through indexes, past attestations, to the platforms wanted.

use std::{collections::BTreeSet, future};

use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use model::{Digest, Gap, ImageConfig, Platform};

use crate::{
    Limits, OciError, config,
    manifest::{Document, ImageDocument, IndexEntry},
    source::{Descriptor, Image, Platforms, Resolved, Unreadable, Wanted},
};

/// Documents of a source, by digest: all that following an index needs.
pub(crate) trait Documents: Send + Sync {
    /// A manifest or index; its bytes have the digest.
    fn manifest<'a>(
        &'a self,
        repository: &'a str,
        digest: Digest,
    ) -> BoxFuture<'a, Result<Fetched, OciError>>;

    /// A config; its bytes have the digest.
    fn config<'a>(
        &'a self,
        repository: &'a str,
        config: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<u8>, OciError>>;

    /// The limits.
    fn limits(&self) -> &Limits;
}

/// A source that knows no repositories, and has its documents among its blobs.
pub(crate) trait Blobs: Send + Sync {
    /// A blob of at most so many bytes, which have the digest.
    fn read_blob(&self, digest: Digest, bytes_max: u64)
    -> BoxFuture<'_, Result<Vec<u8>, OciError>>;

    /// The limits.
    fn limits(&self) -> &Limits;
}

/// The bytes of a manifest or index.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// Their digest, computed.
    pub(crate) digest: Digest,
    /// What the source calls them.
    pub(crate) content_type: Option<String>,
}

/// What several steps of one resolution need.
struct Resolution<'a> {
    documents: &'a dyn Documents,
    wanted: &'a Wanted,
    reference: String,
}

/// Follows `root` to its images.
pub(crate) async fn follow(
    documents: &dyn Documents,
    wanted: &Wanted,
    reference: String,
    root: Fetched,
) -> Result<Resolved, OciError> {
    let resolution = Resolution {
        documents,
        wanted,
        reference,
    };
    match root.parse(documents.limits())? {
        Document::Image(document) => {
            let image = resolution.image(root.digest, *document, None, None).await?;
            check_platform(&image, &wanted.platforms)?;
            Ok(Resolved {
                index: None,
                images: vec![image],
                unreadable: Vec::new(),
            })
        }
        Document::Index(entries) => resolution.index(root.digest, entries).await,
    }
}

impl<T: Blobs> Documents for T {
    fn manifest<'a>(
        &'a self,
        _repository: &'a str,
        digest: Digest,
    ) -> BoxFuture<'a, Result<Fetched, OciError>> {
        Box::pin(async move {
            let bytes_max = Blobs::limits(self).manifest_bytes_max;
            let bytes = self.read_blob(digest, bytes_max).await?;
            Ok(Fetched {
                bytes,
                digest,
                content_type: None,
            })
        })
    }

    fn config<'a>(
        &'a self,
        _repository: &'a str,
        config: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<u8>, OciError>> {
        self.read_blob(config.digest, Blobs::limits(self).config_bytes_max)
    }

    fn limits(&self) -> &Limits {
        Blobs::limits(self)
    }
}

// === impl Fetched ===

impl Fetched {
    fn parse(&self, limits: &Limits) -> Result<Document, OciError> {
        Document::parse(
            &self.bytes,
            self.content_type.as_deref(),
            self.digest,
            limits,
        )
    }
}

// === impl Resolution ===

impl Resolution<'_> {
    async fn index(&self, index: Digest, entries: Vec<IndexEntry>) -> Result<Resolved, OciError> {
        let (candidates, unreadable) = self.flatten(entries).await?;
        let mut resolved = Resolved {
            index: Some(index),
            images: Vec::new(),
            unreadable,
        };
        if candidates.is_empty() {
            let first = resolved
                .unreadable
                .into_iter()
                .next()
                .map(|unreadable| unreadable.error);
            return Err(first.unwrap_or_else(|| {
                OciError::unsupported(format!("index `{index}`"), "it names no image")
            }));
        }
        match self.wanted.platforms.platform() {
            None => self.all(index, candidates, &mut resolved).await?,
            Some(platform) => {
                resolved
                    .images
                    .push(self.one(index, candidates, platform).await?);
                resolved.unreadable.clear();
            }
        }
        Ok(resolved)
    }

    /// The entries of an index and of the indexes in it, in order, each once, without
    /// attestations.
    async fn flatten(
        &self,
        entries: Vec<IndexEntry>,
    ) -> Result<(Vec<IndexEntry>, Vec<Unreadable>), OciError> {
        let limits = self.documents.limits();
        let (mut found, mut unreadable, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut open: Vec<_> = entries
            .into_iter()
            .rev()
            .map(|entry| (entry, 1_usize))
            .collect();
        while let Some((entry, depth)) = open.pop() {
            let digest = entry.descriptor.digest;
            if entry.is_attestation || !seen.insert(digest) {
                continue;
            }
            if seen.len() > limits.platforms_max.saturating_mul(4)
                || found.len() >= limits.platforms_max
            {
                let limit = format!("{} platforms", limits.platforms_max);
                return Err(OciError::TooLarge {
                    what: format!("`{}`", self.reference),
                    limit,
                });
            }
            if !entry.is_index() {
                found.push(entry);
                continue;
            }
            match self.inner_index(digest, depth).await {
                Ok(inner) => open.extend(
                    inner
                        .into_iter()
                        .rev()
                        .map(|inner| (inner, depth.saturating_add(1))),
                ),
                Err(error) => unreadable.push(skip(digest, None, error)?),
            }
        }
        Ok((found, unreadable))
    }

    async fn inner_index(&self, digest: Digest, depth: usize) -> Result<Vec<IndexEntry>, OciError> {
        let limits = self.documents.limits();
        if depth >= limits.index_depth_max {
            return Err(OciError::TooLarge {
                what: format!("`{}`", self.reference),
                limit: format!("indexes {} deep", limits.index_depth_max),
            });
        }
        match self
            .documents
            .manifest(&self.wanted.repository, digest)
            .await?
            .parse(limits)?
        {
            Document::Index(entries) => Ok(entries),
            Document::Image(_) => Err(OciError::malformed(
                format!("index `{digest}`"),
                "it is the manifest of an image",
            )),
        }
    }

    async fn all(
        &self,
        index: Digest,
        candidates: Vec<IndexEntry>,
        resolved: &mut Resolved,
    ) -> Result<(), OciError> {
        let parallel = self.documents.limits().parallel_max.max(1);
        let mut loaded = stream::iter(candidates)
            .map(|entry| async move {
                let image = self.load(index, &entry).await;
                (entry, image)
            })
            .buffered(parallel);
        let mut first_error = None;
        while let Some((entry, image)) = loaded.next().await {
            match image {
                Ok(image) => resolved.images.push(image),
                Err(error) => {
                    first_error.get_or_insert_with(|| error.clone());
                    let skipped = skip(entry.descriptor.digest, entry.platform, error)?;
                    resolved.unreadable.push(skipped);
                }
            }
        }
        match first_error {
            Some(error) if resolved.images.is_empty() => Err(error),
            _ => Ok(()),
        }
    }

    /// The image for one platform: by what the index claims, else by what configs say.
    async fn one(
        &self,
        index: Digest,
        candidates: Vec<IndexEntry>,
        platform: &Platform,
    ) -> Result<Image, OciError> {
        let claimed = candidates
            .iter()
            .filter(|entry| {
                entry
                    .platform
                    .as_ref()
                    .is_some_and(|claim| fits(claim, platform))
            })
            .max_by_key(|entry| entry.platform.as_ref() == Some(platform));
        if let Some(entry) = claimed {
            return self.load(index, entry).await;
        }
        let silent = candidates.iter().filter(|entry| entry.platform.is_none());
        let found = stream::iter(silent)
            .then(|entry| self.load(index, entry))
            .try_filter(|image| future::ready(fits(&image.platform, platform)))
            .boxed()
            .try_next()
            .await?;
        match (found, &self.wanted.platforms, candidates.first()) {
            (Some(image), _, _) => Ok(image),
            (None, Platforms::Prefer(_), Some(first)) => self.load(index, first).await,
            _ => Err(OciError::NoPlatform {
                reference: self.reference.clone(),
                wanted: platform.clone(),
                available: available(&candidates),
            }),
        }
    }

    async fn load(&self, index: Digest, entry: &IndexEntry) -> Result<Image, OciError> {
        let digest = entry.descriptor.digest;
        let fetched = self
            .documents
            .manifest(&self.wanted.repository, digest)
            .await?;
        match fetched.parse(self.documents.limits())? {
            Document::Image(document) => {
                self.image(digest, *document, Some(index), entry.platform.clone())
                    .await
            }
            Document::Index(_) => Err(OciError::malformed(
                format!("manifest `{digest}`"),
                "it is an index",
            )),
        }
    }

    async fn image(
        &self,
        digest: Digest,
        document: ImageDocument,
        index: Option<Digest>,
        claimed: Option<Platform>,
    ) -> Result<Image, OciError> {
        let ImageDocument { manifest, mut gaps } = document;
        let config = self.config(&manifest.config, &mut gaps).await?;
        let platform = match (config.platform.os.is_empty(), claimed) {
            (true, Some(claimed)) => claimed,
            _ => config.platform.clone(),
        };
        Ok(Image {
            digest,
            reference: self.reference.clone(),
            repository: self.wanted.repository.clone(),
            platform,
            image_id: manifest.config.digest,
            manifest,
            config,
            has_registry_manifest: true,
            index,
            gaps,
        })
    }

    async fn config(
        &self,
        config: &Descriptor,
        gaps: &mut Vec<Gap>,
    ) -> Result<ImageConfig, OciError> {
        if self.wanted.skip_configs {
            return Ok(ImageConfig::default());
        }
        match self.documents.config(&self.wanted.repository, config).await {
            Ok(bytes) => {
                let (config, found) = config::parse(&bytes, self.documents.limits());
                gaps.extend(found);
                Ok(config)
            }
            Err(error) if error.is_transient() || error.is_auth() => Err(error),
            Err(error) => {
                gaps.push(config::unreadable(&error));
                Ok(ImageConfig::default())
            }
        }
    }
}

/// An image of an index may be missing or broken without the others being so; a source that does
/// not answer says nothing about the image.
fn skip(
    digest: Digest,
    platform: Option<Platform>,
    error: OciError,
) -> Result<Unreadable, OciError> {
    if error.is_transient() || error.is_auth() {
        return Err(error);
    }
    Ok(Unreadable {
        digest,
        platform,
        error,
    })
}

/// Whether an image for `offered` is what was asked for. arm64 is v8 where nothing else is said.
fn fits(offered: &Platform, wanted: &Platform) -> bool {
    let variant = |platform: &Platform| {
        let default = (platform.architecture == "arm64").then(|| "v8".to_owned());
        platform.variant.clone().or(default)
    };
    offered.os == wanted.os
        && offered.architecture == wanted.architecture
        && (wanted.variant.is_none() || variant(offered) == variant(wanted))
}

/// An image that is in no index, yet says that it is for another platform than the one asked for, is
/// not what was asked for.
pub(crate) fn check_platform(image: &Image, wanted: &Platforms) -> Result<(), OciError> {
    match wanted {
        Platforms::Only(platform)
            if !image.platform.os.is_empty() && !fits(&image.platform, platform) =>
        {
            Err(OciError::NoPlatform {
                reference: image.reference.clone(),
                wanted: platform.clone(),
                available: image.platform.to_string(),
            })
        }
        _ => Ok(()),
    }
}

fn available(candidates: &[IndexEntry]) -> String {
    let platforms = candidates
        .iter()
        .filter_map(|entry| entry.platform.as_ref());
    let platforms: BTreeSet<_> = platforms.map(ToString::to_string).collect();
    if platforms.is_empty() {
        return "images without a platform".to_owned();
    }
    platforms
        .into_iter()
        .take(20)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests;
