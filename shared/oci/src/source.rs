//! Where images come from, and what is known of an image before a layer is read.

use std::io::Read;

use chassis::Cx;
use futures::future::BoxFuture;
use model::{Digest, Gap, Hasher, ImageConfig, Platform};

use crate::{Kept, OciError};

/// Something that has images: a registry, a layout directory, an archive, a node.
pub trait Source: Send + Sync {
    /// Follows a tag or digest to its images, through indexes, and reads their configs.
    fn resolve<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Resolved, OciError>>;

    /// [`Source::resolve`] of a digest whose manifest may be among these: then only what it names
    /// is read.
    fn resolve_from<'a>(
        &'a self,
        wanted: &'a Wanted,
        _kept: &'a Kept,
    ) -> BoxFuture<'a, Result<Resolved, OciError>> {
        self.resolve(wanted)
    }

    /// Opens a blob as a blocking reader, to be read on a blocking thread.
    ///
    /// The reader delivers what the source holds, up to one byte more than `blob.size`, and
    /// verifies nothing: whoever reads computes the digest and sees both a short and a long blob.
    /// A stream that breaks ends with an error whose cause is [`OciError::from_read`].
    fn open_blob<'a>(
        &'a self,
        repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobReader, OciError>>;
}

/// A blob as a blocking stream.
pub type BlobReader = Box<dyn Read + Send>;

/// What to look up in a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The repository; empty for a layout or an archive.
    pub repository: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest of a manifest or index; where both are given it wins.
    pub digest: Option<Digest>,
    /// Which images of an index.
    pub platforms: Platforms,
    /// Leaves out the configs, which are blobs: enough to learn digests, and nothing but manifests
    /// is fetched. The platform is then what the index says, and the image's config is empty.
    pub skip_configs: bool,
}

/// Which images of an index are wanted. An image that is in no index is the one, unless it says that it
/// is for another platform than the only one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Platforms {
    /// All of them.
    #[default]
    All,
    /// The one for this platform, or an error.
    Only(Platform),
    /// The one for this platform, else the first.
    Prefer(Platform),
}

/// What a tag or digest leads to.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The index, where it led to one.
    pub index: Option<Digest>,
    /// The images, in the order of the index.
    pub images: Vec<Image>,
    /// Images that the index names and that cannot be had.
    pub unreadable: Vec<Unreadable>,
}

/// An image that an index names and that cannot be had from its source.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Its manifest's digest.
    pub digest: Digest,
    /// Its platform, as the index says.
    pub platform: Option<Platform>,
    /// Why.
    pub error: OciError,
}

/// One image of one platform: everything but its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of its manifest, or of the manifest that we write for it.
    pub digest: Digest,
    /// What was asked for, for a person.
    pub reference: String,
    /// The repository; empty for a layout or an archive.
    pub repository: String,
    /// The platform: what the config says, else what the index says.
    pub platform: Platform,
    /// Its parts.
    pub manifest: Manifest,
    /// Its config; with what could be read of it where `gaps` names it.
    pub config: ImageConfig,
    /// The config's digest: what runtimes call the image id.
    pub image_id: Digest,
    /// Whether a registry could serve the manifest; false where we wrote it.
    pub has_registry_manifest: bool,
    /// The index that led here.
    pub index: Option<Digest>,
    /// What could not be read of manifest and config.
    pub gaps: Vec<Gap>,
}

/// The parts of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The config.
    pub config: Descriptor,
    /// The layers, base first.
    pub layers: Vec<Descriptor>,
}

/// Names a blob.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Descriptor {
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many bytes it is said to have.
    pub size: u64,
    /// What it is said to be.
    pub media_type: String,
}

/// Reads a small blob whole and verifies size and digest.
pub async fn read_verified(
    cx: &Cx,
    source: &dyn Source,
    repository: &str,
    blob: &Descriptor,
    bytes_max: u64,
) -> Result<Vec<u8>, OciError> {
    let what = format!("blob `{}`", blob.digest);
    if blob.size > bytes_max {
        return Err(OciError::too_large(what, bytes_max));
    }
    let reader = source.open_blob(repository, blob).await?;
    let (expected, limit) = (blob.digest, blob.size.saturating_add(1));
    cx.blocking(move || read_whole(reader, limit, expected, &what))
        .await?
}

fn read_whole(
    reader: BlobReader,
    limit: u64,
    expected: Digest,
    what: &str,
) -> Result<Vec<u8>, OciError> {
    let mut bytes = Vec::new();
    reader
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| {
            OciError::from_read(&error)
                .cloned()
                .unwrap_or_else(|| OciError::malformed(what, &error))
        })?;
    verify(bytes, expected, what)
}

/// The bytes, if they have the digest.
pub(crate) fn verify(bytes: Vec<u8>, expected: Digest, what: &str) -> Result<Vec<u8>, OciError> {
    let mut hasher = Hasher::default();
    hasher.update(&bytes);
    let actual = hasher.finish();
    if actual == expected {
        Ok(bytes)
    } else {
        Err(OciError::DigestMismatch {
            what: what.to_owned(),
            expected,
            actual,
        })
    }
}

// === impl Wanted ===

impl Wanted {
    /// An image by digest.
    pub fn by_digest(repository: impl Into<String>, digest: Digest) -> Self {
        Self {
            repository: repository.into(),
            digest: Some(digest),
            ..Self::default()
        }
    }

    /// `tag@digest`, whatever of it there is, for a person.
    pub(crate) fn name(&self) -> String {
        let tag = self
            .tag
            .as_ref()
            .map(|tag| format!(":{tag}"))
            .unwrap_or_default();
        let digest = self
            .digest
            .map(|digest| format!("@{digest}"))
            .unwrap_or_default();
        format!("{}{tag}{digest}", self.repository)
    }
}

impl From<&model::ImageRef> for Wanted {
    fn from(reference: &model::ImageRef) -> Self {
        Self {
            repository: reference.repository.clone(),
            tag: reference.tag.clone(),
            digest: reference.digest,
            ..Self::default()
        }
    }
}

// === impl Platforms ===

impl Platforms {
    /// The platform that is asked for.
    pub(crate) const fn platform(&self) -> Option<&Platform> {
        match self {
            Self::All => None,
            Self::Only(platform) | Self::Prefer(platform) => Some(platform),
        }
    }
}

// === impl Descriptor ===

impl Descriptor {
    /// Whether it is a layer that its maker does not let registries hand out.
    pub fn is_foreign(&self) -> bool {
        self.media_type.contains(".foreign.") || self.media_type.contains(".nondistributable.")
    }
}
