//! A docker-archive: the tar file that `docker save` and `skopeo copy … docker-archive:` write.
//!
//! It has no manifest that a registry could serve, and its layers lie in it uncompressed, some as
//! links to each other. So the layers are hashed where they lie, and an OCI manifest is written for
//! the image: the same archive always gives the same digest.

mod packed;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

use chassis::Cx;
use futures::future::BoxFuture;
use model::Digest;

use self::packed::{Packed, Unpacked};
use crate::{
    Limits, Missing, OciError, resolve,
    source::{BlobReader, Descriptor, Image, Resolved, Source, Wanted},
    tarball::{Span, Tarball},
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
    tarball: Tarball,
    limits: Limits,
    images: Vec<Packed>,
}

// === impl DockerArchive ===

impl DockerArchive {
    /// Opens an archive and reads its table of contents.
    pub async fn open(cx: &Cx, path: &Path) -> Result<Self, OciError> {
        let (path, limits, inner) = (path.to_owned(), Limits::default(), cx.clone());
        let archive = cx
            .blocking(move || Archive::new(Tarball::open(&inner, &path, &limits)?, limits))
            .await??;
        Ok(Self::of(cx, archive))
    }

    /// The archive in a tar file that is open already.
    pub(crate) fn in_tarball(cx: &Cx, tarball: Tarball) -> Result<Self, OciError> {
        Ok(Self::of(cx, Archive::new(tarball, Limits::default())?))
    }

    fn of(cx: &Cx, archive: Archive) -> Self {
        Self {
            cx: cx.clone(),
            archive: Arc::new(archive),
        }
    }

    /// The only image in it.
    pub(crate) async fn only(&self) -> Result<Image, OciError> {
        let found = self.with(|archive, cx| archive.image(cx, &Wanted::default()));
        found.await
    }

    /// A part of one of its blobs, and how many bytes that has.
    pub(crate) async fn read_at(
        &self,
        blob: Digest,
        offset: u64,
        bytes_max: u32,
    ) -> Result<(Vec<u8>, u64), OciError> {
        let read = self.with(move |archive, cx| archive.read_at(cx, blob, offset, bytes_max));
        read.await
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
    fn new(tarball: Tarball, limits: Limits) -> Result<Self, OciError> {
        let images = packed::read_images(&tarball, &limits)?;
        Ok(Self {
            tarball,
            limits,
            images,
        })
    }

    fn image(&self, cx: &Cx, wanted: &Wanted) -> Result<Image, OciError> {
        let packed = self.find(cx, wanted)?;
        let name = wanted.tag.as_ref().or(packed.names.first());
        let name = name.map(|name| format!(":{name}")).unwrap_or_default();
        let reference = format!("docker-archive:{}{name}", self.tarball.name);
        let image = self.unpacked(cx, packed)?.image(reference);
        resolve::check_platform(&image, &wanted.platforms)?;
        Ok(image)
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
        let unpacked = packed.unpack(cx, &self.tarball, &self.limits)?;
        Ok(packed.unpacked.get_or_init(|| unpacked))
    }

    fn open_blob(&self, cx: &Cx, blob: &Descriptor) -> Result<BlobReader, OciError> {
        let span = self.span(cx, blob.digest)?;
        Ok(self.tarball.stream(span, blob.size.saturating_add(1)))
    }

    fn read_at(
        &self,
        cx: &Cx,
        blob: Digest,
        offset: u64,
        bytes_max: u32,
    ) -> Result<(Vec<u8>, u64), OciError> {
        let whole = self.span(cx, blob)?;
        let left = whole.length.saturating_sub(offset);
        let part = Span {
            at: whole.at.saturating_add(offset),
            length: left.min(u64::from(bytes_max)),
        };
        let bytes = self.tarball.read(part, u64::from(bytes_max))?;
        Ok((bytes, whole.length))
    }

    /// Where a blob lies.
    fn span(&self, cx: &Cx, blob: Digest) -> Result<Span, OciError> {
        let mut hashed = self
            .images
            .iter()
            .filter_map(|packed| packed.unpacked.get());
        let mut span = hashed.find_map(|unpacked| unpacked.span(blob));
        if span.is_none() {
            for packed in &self.images {
                span = span.or(self.unpacked(cx, packed)?.span(blob));
            }
        }
        span.ok_or_else(|| self.not_found(blob.to_string()))
    }

    fn not_found(&self, what: String) -> OciError {
        let names = self
            .images
            .iter()
            .flat_map(|image| image.names.iter().cloned());
        let names = names.take(20).collect::<Vec<_>>().join(", ");
        OciError::NotFound {
            what,
            place: format!("`{}`, which has: {names}", self.tarball.name),
            missing: Missing::Unsaid,
        }
    }
}
