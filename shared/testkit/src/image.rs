//! Images and indexes, in the formats of OCI and of Docker.

use model::{Digest, Platform};
use serde_json::{Value, json};

use crate::{
    artifact::{Artifact, Document, StoredBlob},
    layer::Layer,
};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Puts an image together.
#[derive(Clone, Debug, Default)]
pub struct ImageBuilder {
    platform: Platform,
    layers: Vec<Layer>,
    history: Vec<Value>,
    runtime: Value,
    diff_ids: Option<Vec<Digest>>,
    raw_config: Option<Vec<u8>>,
    docker: bool,
}

/// An image of one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The config's digest: what runtimes call the image id.
    pub image_id: Digest,
    /// The config's bytes.
    pub config: Vec<u8>,
    /// The platform.
    pub platform: Platform,
    /// The layers, base first.
    pub layers: Vec<Layer>,
    /// Whether the formats are Docker's.
    pub docker: bool,
}

/// An index of images.
#[derive(Clone, Debug)]
pub struct Index {
    /// The index's digest.
    pub digest: Digest,
    /// The index's bytes.
    pub bytes: Vec<u8>,
    /// Its images.
    pub images: Vec<Image>,
    media_type: &'static str,
}

/// An index of images, one per platform; a Docker manifest list where the first one is Docker's.
pub fn index(images: Vec<Image>) -> Index {
    let docker = images.first().is_some_and(|image| image.docker);
    let media_type = if docker { DOCKER_INDEX } else { OCI_INDEX };
    let manifests: Vec<Value> = images
        .iter()
        .map(|image| {
            let mut platform = json!({
                "architecture": image.platform.architecture,
                "os": image.platform.os,
            });
            if let Some(variant) = &image.platform.variant {
                platform["variant"] = json!(variant);
            }
            json!({
                "mediaType": image.media_type(),
                "digest": image.digest.to_string(),
                "size": image.manifest.len(),
                "platform": platform,
            })
        })
        .collect();
    let value = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
    let bytes = serde_json::to_vec(&value).expect("JSON");
    Index {
        digest: Digest::of(&bytes),
        bytes,
        images,
        media_type,
    }
}

// === impl ImageBuilder ===

impl ImageBuilder {
    /// An image for `linux/amd64` without layers.
    pub fn new() -> Self {
        Self::for_platform("linux/amd64")
    }

    /// An image for another platform, as `linux/arm64`.
    pub fn for_platform(platform: &str) -> Self {
        let platform = platform.parse().expect("a platform");
        Self {
            platform,
            runtime: json!({}),
            ..Self::default()
        }
    }

    /// A layer, with the instruction that the history names for it.
    #[must_use]
    pub fn layer(mut self, layer: Layer, created_by: &str) -> Self {
        self.layers.push(layer);
        self.history
            .push(json!({"created": "1970-01-01T00:00:00Z", "created_by": created_by}));
        self
    }

    /// A step of the history that made no layer.
    #[must_use]
    pub fn step(mut self, created_by: &str) -> Self {
        self.history
            .push(json!({"created_by": created_by, "empty_layer": true}));
        self
    }

    /// What a container runs with: the config's `config` object, as
    /// `json!({"User": "app", "Cmd": ["serve"]})`.
    #[must_use]
    pub fn runtime(mut self, runtime: Value) -> Self {
        self.runtime = runtime;
        self
    }

    /// The diffIDs that the config claims, instead of those of the layers.
    #[must_use]
    pub fn diff_ids(mut self, diff_ids: Vec<Digest>) -> Self {
        self.diff_ids = Some(diff_ids);
        self
    }

    /// The config's bytes, whatever they are.
    #[must_use]
    pub fn raw_config(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.raw_config = Some(bytes.into());
        self
    }

    /// Docker's formats (Image Manifest V 2, Schema 2) instead of OCI's.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// The image. The same parts give the same digests.
    pub fn build(self) -> Image {
        let config = self.raw_config.clone().unwrap_or_else(|| self.config());
        let types = if self.docker {
            (DOCKER_MANIFEST, DOCKER_CONFIG)
        } else {
            (OCI_MANIFEST, OCI_CONFIG)
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| {
                json!({
                    "mediaType": layer.media_type(self.docker),
                    "digest": layer.digest.to_string(),
                    "size": layer.size,
                })
            })
            .collect();
        let image_id = Digest::of(&config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": types.0,
            "config": {
                "mediaType": types.1,
                "digest": image_id.to_string(),
                "size": config.len(),
            },
            "layers": layers,
        });
        let manifest = serde_json::to_vec(&manifest).expect("JSON");
        Image {
            digest: Digest::of(&manifest),
            manifest,
            image_id,
            config,
            platform: self.platform,
            layers: self.layers,
            docker: self.docker,
        }
    }

    fn config(&self) -> Vec<u8> {
        let own = self.layers.iter().map(|layer| layer.diff_id).collect();
        let diff_ids: Vec<Digest> = self.diff_ids.clone().unwrap_or(own);
        let diff_ids: Vec<String> = diff_ids.iter().map(ToString::to_string).collect();
        let mut config = json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "config": self.runtime,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": self.history,
        });
        if let Some(variant) = &self.platform.variant {
            config["variant"] = json!(variant);
        }
        serde_json::to_vec(&config).expect("JSON")
    }
}

// === impl Image ===

impl Image {
    /// The diffIDs of the layers, base first.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }

    /// The manifest's media type.
    pub fn media_type(&self) -> &'static str {
        if self.docker {
            DOCKER_MANIFEST
        } else {
            OCI_MANIFEST
        }
    }

    fn document(&self) -> Document {
        Document {
            digest: self.digest,
            media_type: self.media_type().to_owned(),
            bytes: self.manifest.clone(),
        }
    }

    fn blobs(&self) -> impl Iterator<Item = StoredBlob> {
        let config = StoredBlob {
            digest: self.image_id,
            bytes: self.config.clone(),
        };
        let layers = self.layers.iter().map(|layer| StoredBlob {
            digest: layer.digest,
            bytes: layer.blob.clone(),
        });
        std::iter::once(config).chain(layers)
    }
}

impl From<&Image> for Artifact {
    fn from(image: &Image) -> Self {
        Self {
            root: image.document(),
            children: Vec::new(),
            blobs: image.blobs().collect(),
        }
    }
}

// === impl Index ===

impl From<&Index> for Artifact {
    fn from(index: &Index) -> Self {
        Self {
            root: Document {
                digest: index.digest,
                media_type: index.media_type.to_owned(),
                bytes: index.bytes.clone(),
            },
            children: index.images.iter().map(Image::document).collect(),
            blobs: index.images.iter().flat_map(Image::blobs).collect(),
        }
    }
}

impl From<Image> for Artifact {
    fn from(image: Image) -> Self {
        Self::from(&image)
    }
}

impl From<Index> for Artifact {
    fn from(index: Index) -> Self {
        Self::from(&index)
    }
}
