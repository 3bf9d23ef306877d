//! A directory as an image of one layer: a root file system, an unpacked image, an application.
//!
//! It is packed as a tar stream and never copied: once to learn the layer's digest, and again for
//! whoever looks into it. The same content gives the same digest wherever it lies, so times are left
//! out. A file that changes between the two makes the bytes others than the digest says, which the
//! reader sees; the layout of the stream stays what it was.
//!
//! Links are not followed, and nothing outside the directory is read. Kernel file systems (`/proc`,
//! `/sys`, …) and the mounted images of containers that lie in it are left out. Of extended
//! attributes nothing is read: capabilities of files are not seen.

mod mounts;
mod stream;
#[cfg(test)]
mod tests;
mod tree;

use std::{
    fmt,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use chassis::Cx;
use futures::future::BoxFuture;
use model::{Digest, Gap, Hasher};
use oci_distribution::manifest as media;
use serde_json::json;

use self::{stream::TarStream, tree::Tree};
use crate::{
    Limits, OciError, config,
    manifest::written,
    source::{BlobReader, Descriptor, Image, Manifest, Resolved, Source, Wanted},
    tarball,
};

/// Whether a path, from the directory on, is left out. The second argument tells directories.
pub type Skip = Arc<dyn Fn(&str, bool) -> bool + Send + Sync>;

/// A directory.
pub struct Directory {
    cx: Cx,
    dir: PathBuf,
    limits: Limits,
    skip: Option<Skip>,
    packed: OnceLock<Packed>,
}

/// A directory that was read once.
struct Packed {
    tree: Arc<Tree>,
    image: Image,
}

// === impl Directory ===

impl Directory {
    /// A directory; nothing is read yet.
    pub fn new(cx: &Cx, dir: &Path, skip: Option<Skip>) -> Self {
        Self {
            cx: cx.clone(),
            dir: dir.to_owned(),
            limits: Limits::default(),
            skip,
            packed: OnceLock::new(),
        }
    }

    /// What tells, without reading any file, whether something in it changed.
    pub(crate) async fn signature(&self) -> Result<Digest, OciError> {
        let (cx, dir) = (self.cx.clone(), self.dir.clone());
        let (limits, skip) = (self.limits.clone(), self.skip.clone());
        let work = move || Ok(Tree::read(&cx, &dir, &limits, skip.as_ref())?.signature());
        self.cx.blocking(work).await?
    }

    async fn packed(&self) -> Result<&Packed, OciError> {
        if let Some(packed) = self.packed.get() {
            return Ok(packed);
        }
        let (cx, dir) = (self.cx.clone(), self.dir.clone());
        let (limits, skip) = (self.limits.clone(), self.skip.clone());
        let work = move || pack(&cx, &dir, &limits, skip.as_ref());
        let packed = self.cx.blocking(work).await??;
        Ok(self.packed.get_or_init(|| packed))
    }
}

impl Source for Directory {
    fn resolve<'a>(&'a self, _wanted: &'a Wanted) -> BoxFuture<'a, Result<Resolved, OciError>> {
        Box::pin(async move {
            let packed = self.packed().await?;
            Ok(Resolved {
                index: None,
                images: vec![packed.image.clone()],
                unreadable: Vec::new(),
            })
        })
    }

    fn open_blob<'a>(
        &'a self,
        _repository: &'a str,
        _blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobReader, OciError>> {
        Box::pin(async move {
            let tree = Arc::clone(&self.packed().await?.tree);
            Ok(Box::new(TarStream::new(tree)) as BlobReader)
        })
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Directory").field(&self.dir).finish()
    }
}

/// Reads a directory to know its digest.
fn pack(cx: &Cx, dir: &Path, limits: &Limits, skip: Option<&Skip>) -> Result<Packed, OciError> {
    let tree = Arc::new(Tree::read(cx, dir, limits, skip)?);
    let mut hasher = Hasher::default();
    let mut stream = TarStream::new(Arc::clone(&tree));
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0_u64;
    loop {
        tarball::stop(cx)?;
        let read = stream.read(&mut buffer);
        let count = read.map_err(|error| OciError::io(dir, &error))?;
        if count == 0 {
            break;
        }
        let (part, _) = buffer.split_at(count);
        hasher.update(part);
        size = size.saturating_add(count as u64);
    }
    let layer = Descriptor {
        digest: hasher.finish(),
        size,
        media_type: media::IMAGE_LAYER_MEDIA_TYPE.to_owned(),
    };
    let image = image(dir, layer, tree.gaps.clone(), limits)?;
    Ok(Packed { tree, image })
}

/// The config that is written for a directory. Nobody says what machine it is for, and guessing would
/// change the digest from host to host.
pub(crate) fn config_bytes(layer: Digest) -> Vec<u8> {
    let config = json!({
        "architecture": "unknown",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    });
    config.to_string().into_bytes()
}

fn image(
    dir: &Path,
    layer: Descriptor,
    mut gaps: Vec<Gap>,
    limits: &Limits,
) -> Result<Image, OciError> {
    let bytes = config_bytes(layer.digest);
    let (mut config, found) = config::parse(&bytes, limits);
    config.is_written = true;
    gaps.extend(found);
    let manifest = Manifest {
        config: Descriptor {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            media_type: media::IMAGE_CONFIG_MEDIA_TYPE.to_owned(),
        },
        layers: vec![layer],
    };
    Ok(Image {
        digest: written::digest(&manifest)?,
        reference: format!("dir:{}", dir.display()),
        repository: String::new(),
        platform: config.platform.clone(),
        image_id: manifest.config.digest,
        manifest,
        config,
        has_registry_manifest: false,
        index: None,
        gaps,
    })
}
