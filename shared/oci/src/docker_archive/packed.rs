//! The images of an archive: what `manifest.json` says, and the OCI manifest written for each.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path, sync::OnceLock};

use chassis::Cx;
use model::{Digest, Gap, Hasher, ImageConfig};
use oci_distribution::manifest as media;
use serde::{Deserialize, Serialize};

use super::index::{Index, Span};
use crate::{
    Limits, OciError, config,
    keys::{self, ANY, Keys},
    source::{Descriptor, Image, Manifest},
};

/// What runtimes look for in `manifest.json`.
const KEYS: Keys = Keys(&[("Config", ANY), ("RepoTags", ANY), ("Layers", ANY)]);

const BUFFER_BYTES: usize = 256 << 10;

/// An image as `manifest.json` names it, and where its parts lie.
#[derive(Debug)]
pub(super) struct Packed {
    /// `RepoTags`.
    pub(super) names: Vec<String>,
    config: Span,
    layers: Vec<Span>,
    /// Its digests, once somebody asked.
    pub(super) unpacked: OnceLock<Unpacked>,
}

/// An image whose parts are hashed.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// The digest of the manifest that we write.
    pub(super) digest: Digest,
    manifest: Manifest,
    config: ImageConfig,
    gaps: Vec<Gap>,
    spans: Vec<(Digest, Span)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The manifest that we write; the order of fields is part of the digest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenManifest<'a> {
    schema_version: u8,
    media_type: &'a str,
    config: WrittenDescriptor<'a>,
    layers: Vec<WrittenDescriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenDescriptor<'a> {
    media_type: &'a str,
    digest: Digest,
    size: u64,
}

/// Reads `manifest.json`.
pub(super) fn read_images(
    file: &File,
    index: &Index,
    path: &Path,
    limits: &Limits,
) -> Result<Vec<Packed>, OciError> {
    let what = format!("`{}`", path.display());
    let Some(listed) = index.find("manifest.json") else {
        if index.find("oci-layout").is_some() {
            let advice = "unpack it and name the directory as `oci:DIR`";
            return Err(OciError::unsupported(
                format!("the OCI archive {what}"),
                advice,
            ));
        }
        return Err(OciError::malformed(what, "it has no `manifest.json`"));
    };
    let bytes = read_span(file, path, listed, limits.manifest_bytes_max)?;
    let raw: Vec<RawImage> = keys::check(&bytes, &KEYS)
        .and_then(|()| serde_json::from_slice(&bytes))
        .map_err(|error| OciError::malformed(format!("`manifest.json` of {what}"), error))?;
    if raw.is_empty() {
        return Err(OciError::malformed(
            what,
            "its `manifest.json` names no image",
        ));
    }
    raw.into_iter()
        .map(|image| image.locate(index, &what, limits))
        .collect()
}

// === impl RawImage ===

impl RawImage {
    fn locate(self, index: &Index, what: &str, limits: &Limits) -> Result<Packed, OciError> {
        let locate = |name: &String| {
            index.find(name).ok_or_else(|| {
                let name: String = name.chars().take(200).collect();
                OciError::malformed(what, format!("it names `{name}`, which is not in it"))
            })
        };
        let layers = self.layers.unwrap_or_default();
        if layers.len() > limits.layers_max {
            let limit = format!("{} layers", limits.layers_max);
            return Err(OciError::TooLarge {
                what: what.to_owned(),
                limit,
            });
        }
        Ok(Packed {
            names: self.repo_tags.unwrap_or_default(),
            config: locate(&self.config)?,
            layers: layers.iter().map(locate).collect::<Result<_, _>>()?,
            unpacked: OnceLock::new(),
        })
    }
}

// === impl Packed ===

impl Packed {
    /// Whether it has this name, with or without `:latest` and `docker.io/library/`.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let whole = |name: &str| name.parse::<model::ImageRef>().ok();
        let wanted = whole(name);
        self.names
            .iter()
            .any(|known| known == name || (wanted.is_some() && whole(known) == wanted))
    }

    /// Hashes all parts and writes the manifest.
    pub(super) fn unpack(
        &self,
        cx: &Cx,
        file: &File,
        path: &Path,
        limits: &Limits,
    ) -> Result<Unpacked, OciError> {
        let config = read_span(file, path, self.config, limits.config_bytes_max)?;
        let config_descriptor = Descriptor {
            digest: Digest::of(&config),
            size: self.config.length,
            media_type: media::IMAGE_CONFIG_MEDIA_TYPE.to_owned(),
        };
        let mut spans = vec![(config_descriptor.digest, self.config)];
        let mut layers: Vec<Descriptor> = Vec::new();
        for (at, span) in self.layers.iter().enumerate() {
            // The same layer twice is one range that two links lead to.
            let same = self.layers.iter().take(at).position(|other| other == span);
            let layer = match same.and_then(|same| layers.get(same)) {
                Some(known) => known.clone(),
                None => hash_layer(cx, file, path, *span)?,
            };
            spans.push((layer.digest, *span));
            layers.push(layer);
        }
        let (config, gaps) = config::parse(&config, limits);
        let manifest = Manifest {
            config: config_descriptor,
            layers,
        };
        Ok(Unpacked {
            digest: written_digest(&manifest)?,
            manifest,
            config,
            gaps,
            spans,
        })
    }
}

// === impl Unpacked ===

impl Unpacked {
    /// Where a part lies.
    pub(super) fn span(&self, digest: Digest) -> Option<Span> {
        self.spans
            .iter()
            .find(|(known, _)| *known == digest)
            .map(|(_, span)| *span)
    }

    /// The image.
    pub(super) fn image(&self, reference: String) -> Image {
        Image {
            digest: self.digest,
            reference,
            repository: String::new(),
            platform: self.config.platform.clone(),
            manifest: self.manifest.clone(),
            config: self.config.clone(),
            image_id: self.manifest.config.digest,
            has_registry_manifest: false,
            index: None,
            gaps: self.gaps.clone(),
        }
    }
}

fn written_digest(manifest: &Manifest) -> Result<Digest, OciError> {
    let written = WrittenManifest {
        schema_version: 2,
        media_type: media::OCI_IMAGE_MEDIA_TYPE,
        config: (&manifest.config).into(),
        layers: manifest.layers.iter().map(Into::into).collect(),
    };
    let bytes = serde_json::to_vec(&written)
        .map_err(|error| OciError::Internal(format!("writing a manifest: {error}")))?;
    Ok(Digest::of(&bytes))
}

impl<'a> From<&'a Descriptor> for WrittenDescriptor<'a> {
    fn from(descriptor: &'a Descriptor) -> Self {
        let Descriptor {
            digest,
            size,
            media_type,
        } = descriptor;
        Self {
            media_type,
            digest: *digest,
            size: *size,
        }
    }
}

fn hash_layer(cx: &Cx, file: &File, path: &Path, span: Span) -> Result<Descriptor, OciError> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut head = Vec::new();
    let (mut at, mut left) = (span.at, span.length);
    while left > 0 {
        if cx.is_stopping() {
            return Err(OciError::Internal(
                "stopped while reading an archive".to_owned(),
            ));
        }
        let count = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(BUFFER_BYTES);
        let (part, _) = buffer.split_at_mut(count);
        file.read_exact_at(part, at)
            .map_err(|error| OciError::io(path, &error))?;
        if head.is_empty() {
            head = part.iter().copied().take(4).collect();
        }
        hasher.update(part);
        at = at.saturating_add(count as u64);
        left = left.saturating_sub(count as u64);
    }
    let media_type = match head.as_slice() {
        [0x1f, 0x8b, ..] => media::IMAGE_LAYER_GZIP_MEDIA_TYPE,
        [0x28, 0xb5, 0x2f, 0xfd] => "application/vnd.oci.image.layer.v1.tar+zstd",
        _ => media::IMAGE_LAYER_MEDIA_TYPE,
    };
    let (digest, size) = (hasher.finish(), span.length);
    Ok(Descriptor {
        digest,
        size,
        media_type: media_type.to_owned(),
    })
}

fn read_span(file: &File, path: &Path, span: Span, bytes_max: u64) -> Result<Vec<u8>, OciError> {
    if span.length > bytes_max {
        let what = format!("a document in `{}`", path.display());
        return Err(OciError::too_large(what, bytes_max));
    }
    let mut bytes = vec![0; usize::try_from(span.length).unwrap_or_default()];
    file.read_exact_at(&mut bytes, span.at)
        .map_err(|error| OciError::io(path, &error))?;
    Ok(bytes)
}
