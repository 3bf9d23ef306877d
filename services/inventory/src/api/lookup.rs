//! Which images a question means: by reference, or by the digest of an image, index or config.

use std::collections::BTreeSet;

use cache::CacheError;
use chassis::http::ApiError;
use model::{Digest, ImageRef, Slug};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, bad_parameter};
use crate::view::{ImageView, Kind, View};

/// The images that a question means.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) kind: FoundBy,
    /// The index, where the question names one or the name leads to exactly one.
    pub(super) index: Option<Digest>,
    /// `registry/repository`, where the question names its images so.
    pub(super) repository: Option<String>,
    /// Sorted by platform.
    pub(super) images: Vec<(Digest, ImageView)>,
}

/// How a question named its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FoundBy {
    /// By a name.
    Reference,
    /// By its manifest's digest.
    Image,
    /// By an index's digest.
    Index,
    /// By its config's digest.
    Config,
}

/// A question's text.
enum Meant {
    Digest(Digest),
    Name(ImageRef),
}

// === impl Api ===

impl Api {
    /// The images that `text` means; 404 says what to do where there are none.
    pub(super) async fn find(&self, tenant: &Slug, text: &str) -> Result<Found, ApiError> {
        let meant = Meant::parse(text)?;
        let tenant = tenant.clone();
        let found = self.read(move |view| meant.find(view, &tenant)).await?;
        found.ok_or_else(|| {
            let shown: String = text.chars().take(300).collect();
            ApiError::not_found(format!("no image `{shown}` is known"))
                .hint("push it to a source, or ask for a scan: `POST /v1/scans {\"image\": …}`")
        })
    }
}

// === impl Meant ===

impl Meant {
    fn parse(text: &str) -> Result<Self, ApiError> {
        if text.starts_with("sha256:") {
            return text
                .parse()
                .map(Self::Digest)
                .map_err(|error| bad_parameter("image", error));
        }
        let reference: ImageRef = text
            .parse()
            .map_err(|error| bad_parameter("image", error))?;
        Ok(reference.digest.map_or(Self::Name(reference), Self::Digest))
    }

    fn find(&self, view: &View, tenant: &Slug) -> Result<Option<Found>, CacheError> {
        let (kind, named_index, images) = match self {
            Self::Name(name) => {
                let images = view.named(tenant, &name.name(), name.tag.as_deref())?;
                (FoundBy::Reference, None, images)
            }
            Self::Digest(digest) => match view.lead(tenant, *digest)? {
                Some((Kind::Image, images)) => (FoundBy::Image, None, images),
                Some((Kind::Index, images)) => (FoundBy::Index, Some(*digest), images),
                Some((Kind::Config, images)) => (FoundBy::Config, None, images),
                None => return Ok(None),
            },
        };
        let mut found = Vec::with_capacity(images.len());
        for digest in images {
            if let Some(image) = view.image(tenant, digest)? {
                found.push((digest, image));
            }
        }
        if found.is_empty() {
            return Ok(None);
        }
        found.sort_by_cached_key(|(digest, image)| (image.platform(), *digest));
        let index = named_index.or_else(|| common_index(kind, &found));
        let repository = match self {
            Self::Name(name) => Some(name.name()),
            Self::Digest(_) => None,
        };
        Ok(Some(Found {
            kind,
            index,
            repository,
            images: found,
        }))
    }
}

/// The one index that holds all images of a name.
fn common_index(kind: FoundBy, images: &[(Digest, ImageView)]) -> Option<Digest> {
    if kind != FoundBy::Reference {
        return None;
    }
    let indexes = |image: &ImageView| -> BTreeSet<Digest> {
        image
            .known
            .iter()
            .flat_map(|known| known.indexes.iter().copied())
            .collect()
    };
    let all = images.iter().map(|(_, image)| indexes(image));
    let common = all.reduce(|common, more| common.intersection(&more).copied().collect())?;
    let mut common = common.into_iter();
    common.next().filter(|_| common.next().is_none())
}
