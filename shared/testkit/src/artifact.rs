//! What is stored of an image or an index, and writing it where images lie.

use std::{fs, path::Path};

use model::Digest;
use serde_json::{Value, json};

use crate::{image::Image, layer::LayerBuilder};

/// An image or an index with everything that belongs to it.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The manifest or index.
    pub root: Document,
    /// The manifests that an index names.
    pub children: Vec<Document>,
    /// Configs and layers.
    pub blobs: Vec<StoredBlob>,
}

/// A manifest or an index.
#[derive(Clone, Debug)]
pub struct Document {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Bytes, and the digest that they are stored under, which may be a lie.
#[derive(Clone, Debug)]
pub struct StoredBlob {
    /// The digest.
    pub digest: Digest,
    /// The bytes.
    pub bytes: Vec<u8>,
}

// === impl Artifact ===

impl Artifact {
    /// Writes it into an OCI image layout, which is made where there is none, under a tag.
    pub fn write_layout(&self, dir: &Path, tag: &str) {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("the directory is writable");
        let put = |digest: Digest, bytes: &[u8]| {
            fs::write(blobs.join(digest.hex()), bytes).expect("the directory is writable");
        };
        for document in self.children.iter().chain([&self.root]) {
            put(document.digest, &document.bytes);
        }
        for blob in &self.blobs {
            put(blob.digest, &blob.bytes);
        }
        let path = dir.join("index.json");
        let mut manifests = read_manifests(&path);
        manifests.push(json!({
            "mediaType": self.root.media_type,
            "digest": self.root.digest.to_string(),
            "size": self.root.bytes.len(),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }));
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(path, index.to_string()).expect("the directory is writable");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("the directory is writable");
    }
}

impl Image {
    /// Writes a docker-archive, as `docker save` does: layers unpacked from gzip are what their
    /// builder packed, so give it layers with [`crate::Compression::Plain`].
    ///
    /// A layer that comes again is a symbolic link to the first, as old versions of Docker wrote it.
    pub fn write_docker_archive(&self, path: &Path, name: &str) {
        let mut archive = LayerBuilder::new();
        let mut names: Vec<String> = Vec::new();
        for (at, layer) in self.layers.iter().enumerate() {
            let first = self
                .layers
                .iter()
                .take(at)
                .position(|other| other.digest == layer.digest);
            let folder = format!("{at:064x}");
            let name = format!("{folder}/layer.tar");
            archive = archive.dir(&folder);
            archive = match first {
                Some(first) => archive.symlink(&name, &format!("../{first:064x}/layer.tar")),
                None => archive.file(&name, &layer.blob),
            };
            names.push(name);
        }
        let config = format!("{}.json", self.image_id.hex());
        let contents = json!([{"Config": config, "RepoTags": [name], "Layers": names}]);
        let archive = archive.file(&config, &self.config);
        let archive = archive.file("manifest.json", contents.to_string());
        fs::write(path, archive.tar()).expect("the directory is writable");
    }
}

#[expect(clippy::disallowed_methods, reason = "a file that this module wrote")]
fn read_manifests(path: &Path) -> Vec<Value> {
    let Ok(bytes) = fs::read(path) else {
        return Vec::new();
    };
    let index: Value = serde_json::from_slice(&bytes).expect("JSON");
    index["manifests"].as_array().expect("a list").clone()
}
