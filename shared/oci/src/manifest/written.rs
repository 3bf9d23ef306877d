//! Manifests that we write for images that come without one. The digest names the image's records in
//! stores: what is written here, and in which order, never changes.

use model::Digest;
use oci_distribution::manifest as media;
use serde::Serialize;

use crate::{
    OciError,
    source::{Descriptor, Manifest},
};

/// The order of fields is part of the digest.
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

/// The digest of the manifest that is written for an image with these parts.
pub(crate) fn digest(manifest: &Manifest) -> Result<Digest, OciError> {
    Ok(Digest::of(&bytes(manifest)?))
}

/// The manifest that is written for an image with these parts.
pub(crate) fn bytes(manifest: &Manifest) -> Result<Vec<u8>, OciError> {
    let written = WrittenManifest {
        schema_version: 2,
        media_type: media::OCI_IMAGE_MEDIA_TYPE,
        config: (&manifest.config).into(),
        layers: manifest.layers.iter().map(Into::into).collect(),
    };
    serde_json::to_vec(&written)
        .map_err(|error| OciError::Internal(format!("writing a manifest: {error}")))
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
