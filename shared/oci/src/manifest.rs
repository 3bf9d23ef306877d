//! Manifests and indexes: what their bytes say (OCI image-spec; Docker "Image Manifest V 2,
//! Schema 2").

pub(crate) mod written;

use std::collections::BTreeMap;

use model::{Digest, Gap, GapCode, Hides, Platform};
use oci_distribution::manifest as media;
use serde::Deserialize;

use crate::{
    Limits, OciError,
    keys::{self, ANY, Keys},
    source::{Descriptor, Manifest},
};

/// Media types that we ask a registry for, in one header.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// What runtimes look for in a manifest or an index.
const DOCUMENT_KEYS: Keys = Keys(&[
    ("schemaVersion", ANY),
    ("mediaType", ANY),
    ("config", &DESCRIPTOR_KEYS),
    ("layers", &DESCRIPTOR_KEYS),
    ("manifests", &DESCRIPTOR_KEYS),
    ("fsLayers", ANY),
]);

const DESCRIPTOR_KEYS: Keys = Keys(&[
    ("mediaType", ANY),
    ("digest", ANY),
    ("size", ANY),
    ("platform", &PLATFORM_KEYS),
    ("annotations", ANY),
    ("urls", ANY),
    ("data", ANY),
]);

const PLATFORM_KEYS: Keys = Keys(&[("os", ANY), ("architecture", ANY), ("variant", ANY)]);

const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// What builders call its attestations, beside giving them a platform on which nothing runs.
const ATTESTATION: &str = "attestation-manifest";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A manifest or an index.
#[derive(Debug)]
pub(crate) enum Document {
    /// One image.
    Image(Box<ImageDocument>),
    /// Several.
    Index(Vec<IndexEntry>),
}

/// One image's manifest.
#[derive(Debug)]
pub(crate) struct ImageDocument {
    /// Its parts.
    pub(crate) manifest: Manifest,
    /// Layers beyond the limit.
    pub(crate) gaps: Vec<Gap>,
}

/// An entry of an index.
#[derive(Clone, Debug)]
pub(crate) struct IndexEntry {
    /// What it leads to.
    pub(crate) descriptor: Descriptor,
    /// The platform that it claims.
    pub(crate) platform: Option<Platform>,
    /// Names that a layout's index gives it.
    pub(crate) names: Vec<String>,
    /// Whether it speaks about another entry (provenance, SBOM) and is no image.
    pub(crate) is_attestation: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default)]
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<RawDescriptor>,
    #[serde(default)]
    layers: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    manifests: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    platform: Option<RawPlatform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

// === impl Document ===

impl Document {
    /// Reads a manifest or an index. `content_type` is what the source calls it; the bytes' own
    /// word is stronger, and where both are silent the fields decide.
    pub(crate) fn parse(
        bytes: &[u8],
        content_type: Option<&str>,
        digest: Digest,
        limits: &Limits,
    ) -> Result<Self, OciError> {
        let what = || format!("manifest `{digest}`");
        let raw: RawDocument = keys::check(bytes, &DOCUMENT_KEYS)
            .and_then(|()| serde_json::from_slice(bytes))
            .map_err(|error| OciError::malformed(what(), error))?;
        let media_type = raw
            .media_type
            .as_deref()
            .or(content_type)
            .unwrap_or_default();
        if raw.schema_version == 1 || raw.fs_layers.is_some() {
            return Err(OciError::unsupported(
                format!("{} of Docker schema 1", what()),
                "it carries no verifiable digests; push the image again with a current builder",
            ));
        }
        if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
            // Readers that look at one half only would see two different images.
            return Err(OciError::malformed(
                what(),
                "it is a manifest and an index at once",
            ));
        }
        match (raw.manifests, raw.config) {
            (Some(entries), _) => Self::index(entries, &what(), limits),
            (None, Some(config)) => {
                Self::image(&config, &raw.layers.unwrap_or_default(), &what(), limits)
            }
            (None, None) => {
                let shown: String = media_type.chars().take(100).collect();
                Err(OciError::malformed(
                    what(),
                    format!("it (`{shown}`) names neither a config nor manifests"),
                ))
            }
        }
    }

    fn index(entries: Vec<RawDescriptor>, what: &str, limits: &Limits) -> Result<Self, OciError> {
        // Attestations double the entries of an index made by BuildKit.
        let entries_max = limits.platforms_max.saturating_mul(4);
        if entries.len() > entries_max {
            let limit = format!("{entries_max} entries");
            return Err(OciError::TooLarge {
                what: what.to_owned(),
                limit,
            });
        }
        entries
            .into_iter()
            .map(|raw| raw.into_entry(what))
            .collect::<Result<_, _>>()
            .map(Self::Index)
    }

    fn image(
        config: &RawDescriptor,
        layers: &[RawDescriptor],
        what: &str,
        limits: &Limits,
    ) -> Result<Self, OciError> {
        let config = config.to_descriptor(what)?;
        let mut gaps = Vec::new();
        if layers.len() > limits.layers_max {
            let detail = format!(
                "the manifest names {} layers, only the first {} are read",
                layers.len(),
                limits.layers_max
            );
            gaps.push(Gap::new(GapCode::LimitLayers, Hides::Entries, detail));
        }
        let layers = layers
            .iter()
            .take(limits.layers_max)
            .map(|layer| layer.to_descriptor(what))
            .collect::<Result<Vec<_>, _>>()?;
        if !is_image(&config, &layers) {
            let kind: String = config.media_type.chars().take(100).collect();
            return Err(OciError::unsupported(
                what,
                format!("it is an artifact with config `{kind}`, not a container image"),
            ));
        }
        Ok(Self::Image(Box::new(ImageDocument {
            manifest: Manifest { config, layers },
            gaps,
        })))
    }
}

/// Whether a runtime could take it for an image. A config of an unknown type does not excuse layers
/// of a known one: nobody hides an image by renaming its config.
fn is_image(config: &Descriptor, layers: &[Descriptor]) -> bool {
    let known = [
        media::IMAGE_CONFIG_MEDIA_TYPE,
        media::IMAGE_DOCKER_CONFIG_MEDIA_TYPE,
        "application/octet-stream",
        "",
    ];
    known.contains(&config.media_type.as_str()) || layers.iter().any(Descriptor::is_image_layer)
}

// === impl IndexEntry ===

impl IndexEntry {
    /// Whether it leads to another index.
    pub(crate) fn is_index(&self) -> bool {
        [
            media::OCI_IMAGE_INDEX_MEDIA_TYPE,
            media::IMAGE_MANIFEST_LIST_MEDIA_TYPE,
        ]
        .contains(&self.descriptor.media_type.as_str())
    }

    /// Whether a layout's index calls it so: by its whole name or by its tag.
    pub(crate) fn is_named(&self, tag: &str) -> bool {
        self.names
            .iter()
            .any(|name| name == tag || name.rsplit_once(':').is_some_and(|(_, end)| end == tag))
    }
}

// === impl RawDescriptor ===

impl RawDescriptor {
    fn to_descriptor(&self, what: &str) -> Result<Descriptor, OciError> {
        let digest = self
            .digest
            .parse()
            .map_err(|error| OciError::malformed(what, error))?;
        let media_type = self.media_type.chars().take(200).collect();
        Ok(Descriptor {
            digest,
            size: self.size,
            media_type,
        })
    }

    fn into_entry(self, what: &str) -> Result<IndexEntry, OciError> {
        let descriptor = self.to_descriptor(what)?;
        let annotations = self.annotations.unwrap_or_default();
        // Both marks together: an image that a runtime would choose is never left out because
        // somebody wrote a word beside it.
        let runs_nowhere = self
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "unknown" && platform.architecture == "unknown");
        let is_attestation = runs_nowhere
            && annotations
                .get(REFERENCE_TYPE)
                .is_some_and(|kind| kind == ATTESTATION);
        let platform = self.platform.and_then(RawPlatform::into_platform);
        let names = [CONTAINERD_NAME, REF_NAME]
            .iter()
            .filter_map(|name| annotations.get(*name).cloned())
            .collect();
        Ok(IndexEntry {
            descriptor,
            platform,
            names,
            is_attestation,
        })
    }
}

impl RawPlatform {
    fn into_platform(self) -> Option<Platform> {
        platform(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// A platform from the words of an index or a config; `None` where they are not one.
pub(crate) fn platform(os: &str, architecture: &str, variant: Option<&str>) -> Option<Platform> {
    let variant = variant.filter(|variant| !variant.is_empty());
    let text = match variant {
        Some(variant) => format!("{os}/{architecture}/{variant}"),
        None => format!("{os}/{architecture}"),
    };
    text.parse().ok()
}

// === impl Descriptor ===

impl Descriptor {
    /// Whether it is a layer of an image, as its media type says.
    pub(crate) fn is_image_layer(&self) -> bool {
        self.media_type
            .starts_with("application/vnd.oci.image.layer.")
            || self
                .media_type
                .starts_with("application/vnd.docker.image.rootfs.")
    }
}

#[cfg(test)]
mod tests;
