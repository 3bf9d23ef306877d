//! The images of an archive: what `manifest.json` says, and the OCI manifest written for each.

use std::sync::OnceLock;

use chassis::Cx;
use model::{Digest, Gap, Hasher, ImageConfig};
use oci_distribution::manifest as media;
use serde::Deserialize;

use crate::{
    Limits, OciError, config,
    keys::{self, ANY, Keys},
    manifest::written,
    source::{Descriptor, Image, Manifest},
    tarball::{Span, Tarball},
};

/// What runtimes look for in `manifest.json`.
const KEYS: Keys = Keys(&[("Config", ANY), ("RepoTags", ANY), ("Layers", ANY)]);

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

/// Reads `manifest.json`.
pub(super) fn read_images(tarball: &Tarball, limits: &Limits) -> Result<Vec<Packed>, OciError> {
    let what = format!("`{}`", tarball.name);
    let Some(listed) = tarball.find("manifest.json") else {
        let detail = "it has no `manifest.json`, so it holds no image of Docker's";
        return Err(OciError::malformed(what, detail));
    };
    let bytes = tarball.read(listed, limits.manifest_bytes_max)?;
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
        .map(|image| image.locate(tarball, &what, limits))
        .collect()
}

// === impl RawImage ===

impl RawImage {
    fn locate(self, tarball: &Tarball, what: &str, limits: &Limits) -> Result<Packed, OciError> {
        let locate = |name: &String| {
            tarball.find(name).ok_or_else(|| {
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
        tarball: &Tarball,
        limits: &Limits,
    ) -> Result<Unpacked, OciError> {
        let config = tarball.read(self.config, limits.config_bytes_max)?;
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
                None => hash_layer(cx, tarball, *span)?,
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
            digest: written::digest(&manifest)?,
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

fn hash_layer(cx: &Cx, tarball: &Tarball, span: Span) -> Result<Descriptor, OciError> {
    let mut hasher = Hasher::default();
    let mut head = Vec::new();
    tarball.each_part(cx, span, |part| {
        if head.is_empty() {
            head = part.iter().copied().take(4).collect();
        }
        hasher.update(part);
    })?;
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
