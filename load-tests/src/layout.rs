//! Images to push: the layers of an OCI layout, changed so that they are new to the server or not.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use flate2::{Compression, GzBuilder, write::GzEncoder};
use model::Digest;
use serde_json::{Value, json};

const JSON_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a layer that is read whole.
pub(crate) const LAYER_BYTES_MAX: u64 = 4 << 30;

/// A layer as it will be pushed.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// The blob.
    pub(crate) bytes: Vec<u8>,
    /// The digest of what it unpacks to.
    pub(crate) diff_id: String,
}

/// An image as it will be pushed.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Blobs: layers, then the config.
    pub(crate) blobs: Vec<Vec<u8>>,
    /// The manifest.
    pub(crate) manifest: Vec<u8>,
}

/// The gzip layers of the first image of an OCI layout.
pub(crate) fn layers(layout: &Path) -> anyhow::Result<Vec<Layer>> {
    let index = read_json(&layout.join("index.json"))?;
    let manifest = read_json(&blob(layout, &index["manifests"][0]["digest"])?)?;
    let config = read_json(&blob(layout, &manifest["config"]["digest"])?)?;
    let diff_ids = config["rootfs"]["diff_ids"]
        .as_array()
        .context("the config has no diffIDs")?;
    let layers = manifest["layers"]
        .as_array()
        .context("the manifest has no layers")?;
    let mut found = Vec::new();
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let bytes = read(&blob(layout, &layer["digest"])?, LAYER_BYTES_MAX)?;
        anyhow::ensure!(
            bytes.starts_with(&[0x1f, 0x8b]),
            "only gzip layers can be used"
        );
        let diff_id = diff_id.as_str().context("a diffID is not text")?.to_owned();
        found.push(Layer { bytes, diff_id });
    }
    Ok(found)
}

/// The files of the layers of a layout's first image, base first.
pub(crate) fn layer_files(layout: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let index = read_json(&layout.join("index.json"))?;
    let mut manifest = read_json(&blob(layout, &index["manifests"][0]["digest"])?)?;
    if manifest["manifests"].is_array() {
        // An index of platforms.
        manifest = read_json(&blob(layout, &manifest["manifests"][0]["digest"])?)?;
    }
    let layers = manifest["layers"]
        .as_array()
        .context("the manifest has no layers")?;
    layers
        .iter()
        .map(|layer| blob(layout, &layer["digest"]))
        .collect()
}

/// The file of a digest in a layout.
pub(crate) fn blob(layout: &Path, digest: &Value) -> anyhow::Result<PathBuf> {
    let digest: Digest = digest.as_str().context("no digest")?.parse()?;
    Ok(layout.join("blobs/sha256").join(digest.hex()))
}

/// Reads a JSON file.
pub(crate) fn read_json(path: &Path) -> anyhow::Result<Value> {
    let bytes = read(path, JSON_BYTES_MAX)?;
    serde_json::from_slice(&bytes).with_context(|| format!("reading `{}`", path.display()))
}

// === impl Layer ===

impl Layer {
    /// The same content under a digest that nobody has seen: one more gzip member, empty, whose
    /// header holds `number`.
    pub(crate) fn as_new(&self, number: u32) -> anyhow::Result<Self> {
        let mut bytes = self.bytes.clone();
        let member = GzBuilder::new()
            .mtime(number)
            .write(Vec::new(), Compression::fast());
        bytes.extend(member.finish()?);
        Ok(Self {
            bytes,
            diff_id: self.diff_id.clone(),
        })
    }

    /// A layer of one small file that says `text`.
    pub(crate) fn of_text(text: &str) -> anyhow::Result<Self> {
        let mut header = tar::Header::new_ustar();
        header.set_path("opt/load-test")?;
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header, text.as_bytes())?;
        let archive = archive.into_inner()?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&archive)?;
        Ok(Self {
            bytes: gzip.finish()?,
            diff_id: Digest::of(&archive).to_string(),
        })
    }
}

// === impl Image ===

impl Image {
    /// An image of these layers.
    pub(crate) fn of(layers: &[Layer]) -> anyhow::Result<Self> {
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {
                "type": "layers",
                "diff_ids": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>(),
            },
        }))?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers
                .iter()
                .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer.bytes))
                .collect::<Vec<_>>(),
        });
        let mut blobs: Vec<Vec<u8>> = layers.iter().map(|layer| layer.bytes.clone()).collect();
        blobs.push(config);
        Ok(Self {
            blobs,
            manifest: serde_json::to_vec(&manifest)?,
        })
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": Digest::of(bytes).to_string(),
        "size": bytes.len(),
    })
}

/// A whole file.
pub(crate) fn read(path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("opening `{}`", path.display()))?;
    let read = file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(
        read as u64 <= bytes_max,
        "`{}` is too large",
        path.display()
    );
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_layer_has_another_digest_and_the_same_content() {
        let layer = Layer::of_text("hello").unwrap();
        let one = layer.as_new(1).unwrap();
        let two = layer.as_new(2).unwrap();
        assert_ne!(Digest::of(&layer.bytes), Digest::of(&one.bytes));
        assert_ne!(Digest::of(&one.bytes), Digest::of(&two.bytes));
        assert_eq!(layer.diff_id, two.diff_id);
        assert!(two.bytes.starts_with(&layer.bytes));
    }

    #[test]
    fn an_image_names_its_blobs() {
        let layer = Layer::of_text("hello").unwrap();
        let image = Image::of(std::slice::from_ref(&layer)).unwrap();
        let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
        assert_eq!(
            manifest["layers"][0]["digest"],
            Digest::of(&layer.bytes).to_string()
        );
        assert_eq!(
            manifest["config"]["digest"],
            Digest::of(&image.blobs[1]).to_string()
        );
    }
}
