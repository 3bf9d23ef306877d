//! A docker-archive: the tar file that `docker save` and `skopeo copy … docker-archive:` write.
//!
//! It has no manifest that a registry could serve, and its layers lie in it uncompressed, some as
//! links to each other. So the layers are hashed where they lie, and an OCI manifest is written for
//! the image: the same archive always gives the same digest.

mod index;
mod packed;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use chassis::Cx;
use futures::future::BoxFuture;

use self::{
    index::Index,
    packed::{Packed, Unpacked},
};
use crate::{
    Limits, OciError,
    layout::open_file,
    reader::RangeReader,
    source::{BlobReader, Descriptor, Image, Resolved, Source, Wanted},
};

/// A tar file with `manifest.json`.
#[derive(Debug)]
pub struct DockerArchive {
    cx: Cx,
    archive: Arc<Archive>,
}

/// An open archive with its table of contents.
#[derive(Debug)]
struct Archive {
    path: PathBuf,
    file: Arc<File>,
    limits: Limits,
    images: Vec<Packed>,
}

// === impl DockerArchive ===

impl DockerArchive {
    /// Opens an archive and reads its table of contents.
    pub async fn open(cx: &Cx, path: &Path) -> Result<Self, OciError> {
        let path = path.to_owned();
        let archive = cx
            .blocking(move || Archive::open(path, Limits::default()))
            .await??;
        Ok(Self {
            cx: cx.clone(),
            archive: Arc::new(archive),
        })
    }

    /// Does something with the archive on a blocking thread.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Archive, &Cx) -> Result<T, OciError> + Send + 'static,
    ) -> Result<T, OciError> {
        let (archive, cx) = (Arc::clone(&self.archive), self.cx.clone());
        self.cx.blocking(move || work(&archive, &cx)).await?
    }
}

impl Source for DockerArchive {
    fn resolve<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Resolved, OciError>> {
        let wanted = wanted.clone();
        Box::pin(async move {
            let image = self
                .with(move |archive, cx| archive.image(cx, &wanted))
                .await?;
            Ok(Resolved {
                index: None,
                images: vec![image],
                unreadable: Vec::new(),
            })
        })
    }

    fn open_blob<'a>(
        &'a self,
        _repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobReader, OciError>> {
        let blob = blob.clone();
        Box::pin(self.with(move |archive, cx| archive.open_blob(cx, &blob)))
    }
}

// === impl Archive ===

impl Archive {
    fn open(path: PathBuf, limits: Limits) -> Result<Self, OciError> {
        let file = open_file(&path)?;
        let index = Index::read(&file, &path, &limits)?;
        let images = packed::read_images(&file, &index, &path, &limits)?;
        Ok(Self {
            path,
            file: Arc::new(file),
            limits,
            images,
        })
    }

    fn image(&self, cx: &Cx, wanted: &Wanted) -> Result<Image, OciError> {
        let packed = self.find(cx, wanted)?;
        let name = wanted.tag.as_ref().or(packed.names.first());
        let name = name.map(|name| format!(":{name}")).unwrap_or_default();
        let reference = format!("docker-archive:{}{name}", self.path.display());
        Ok(self.unpacked(cx, packed)?.image(reference))
    }

    /// The image with that digest or name, or the only one.
    fn find(&self, cx: &Cx, wanted: &Wanted) -> Result<&Packed, OciError> {
        if let Some(digest) = wanted.digest {
            for packed in &self.images {
                if self.unpacked(cx, packed)?.digest == digest {
                    return Ok(packed);
                }
            }
            return Err(self.not_found(digest.to_string()));
        }
        let found = match (&wanted.tag, self.images.as_slice()) {
            (Some(name), images) => images.iter().find(|image| image.is_named(name)),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        found.ok_or_else(|| {
            let name = wanted.tag.clone();
            self.not_found(name.unwrap_or_else(|| "an image without a name".to_owned()))
        })
    }

    /// Images are hashed when they are first asked for, so that one image of an archive of many
    /// does not wait for the others.
    fn unpacked<'a>(&self, cx: &Cx, packed: &'a Packed) -> Result<&'a Unpacked, OciError> {
        if let Some(unpacked) = packed.unpacked.get() {
            return Ok(unpacked);
        }
        let unpacked = packed.unpack(cx, &self.file, &self.path, &self.limits)?;
        Ok(packed.unpacked.get_or_init(|| unpacked))
    }

    fn open_blob(&self, cx: &Cx, blob: &Descriptor) -> Result<BlobReader, OciError> {
        let mut hashed = self
            .images
            .iter()
            .filter_map(|packed| packed.unpacked.get());
        let mut span = hashed.find_map(|unpacked| unpacked.span(blob.digest));
        if span.is_none() {
            for packed in &self.images {
                span = span.or(self.unpacked(cx, packed)?.span(blob.digest));
            }
        }
        let span = span.ok_or_else(|| self.not_found(blob.digest.to_string()))?;
        let length = span.length.min(blob.size.saturating_add(1));
        Ok(Box::new(RangeReader::new(
            Arc::clone(&self.file),
            span.at,
            length,
        )))
    }

    fn not_found(&self, what: String) -> OciError {
        let names = self
            .images
            .iter()
            .flat_map(|image| image.names.iter().cloned());
        let names = names.take(20).collect::<Vec<_>>().join(", ");
        OciError::NotFound {
            what,
            place: format!("`{}`, which has: {names}", self.path.display()),
        }
    }
}
