//! An OCI image layout in a directory (OCI image-spec, "Image Layout").

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use chassis::Cx;
use futures::future::BoxFuture;
use model::Digest;

use crate::{
    Limits, OciError,
    manifest::{Document, IndexEntry},
    reader::RangeReader,
    resolve::{self, Documents, Fetched},
    source::{BlobReader, Descriptor, Resolved, Source, Wanted, verify},
};

/// A directory with `oci-layout`, `index.json` and `blobs/`.
#[derive(Debug)]
pub struct OciLayout {
    cx: Cx,
    dir: PathBuf,
    limits: Limits,
    index: Vec<u8>,
}

/// What `index.json` says of the image that is wanted.
enum Root {
    /// One of its entries, or a blob by digest.
    Blob(Digest),
    /// The file itself is the index.
    File,
}

// === impl OciLayout ===

impl OciLayout {
    /// Opens a layout and reads its index.
    pub async fn open(cx: &Cx, dir: &Path) -> Result<Self, OciError> {
        let limits = Limits::default();
        let (at, bytes_max) = (dir.to_owned(), limits.manifest_bytes_max);
        let index = cx
            .blocking(move || {
                read_file(&at.join("oci-layout"), bytes_max)?;
                read_file(&at.join("index.json"), bytes_max)
            })
            .await??;
        Ok(Self {
            cx: cx.clone(),
            dir: dir.to_owned(),
            limits,
            index,
        })
    }

    fn root(&self, wanted: &Wanted) -> Result<Root, OciError> {
        if let Some(digest) = wanted.digest {
            return Ok(Root::Blob(digest));
        }
        let digest = Digest::of(&self.index);
        let Document::Index(entries) = Document::parse(&self.index, None, digest, &self.limits)?
        else {
            let what = format!("`{}`", self.dir.join("index.json").display());
            return Err(OciError::malformed(what, "it is not an index"));
        };
        let entry = match &wanted.tag {
            Some(tag) => entries.iter().find(|entry| entry.is_named(tag)),
            None => match entries.as_slice() {
                [only] => Some(only),
                several if several.iter().all(|entry| entry.names.is_empty()) => {
                    return Ok(Root::File);
                }
                _ => None,
            },
        };
        entry
            .map(|entry| Root::Blob(entry.descriptor.digest))
            .ok_or_else(|| OciError::NotFound {
                what: wanted
                    .tag
                    .clone()
                    .unwrap_or_else(|| "an image without a name".to_owned()),
                place: format!("`{}`, which has: {}", self.dir.display(), names(&entries)),
            })
    }

    fn blob_path(&self, digest: Digest) -> PathBuf {
        self.dir.join("blobs").join("sha256").join(digest.hex())
    }

    async fn read(&self, digest: Digest, bytes_max: u64) -> Result<Vec<u8>, OciError> {
        let path = self.blob_path(digest);
        let bytes = self
            .cx
            .blocking(move || read_file(&path, bytes_max))
            .await??;
        verify(bytes, digest, &format!("blob `{digest}`"))
    }
}

impl Source for OciLayout {
    fn resolve<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Resolved, OciError>> {
        Box::pin(async move {
            let root = match self.root(wanted)? {
                Root::Blob(digest) => self.manifest("", digest).await?,
                Root::File => {
                    let digest = Digest::of(&self.index);
                    Fetched {
                        bytes: self.index.clone(),
                        digest,
                        content_type: None,
                    }
                }
            };
            let reference = format!("oci:{}{}", self.dir.display(), wanted.name());
            resolve::follow(self, wanted, reference, root).await
        })
    }

    fn open_blob<'a>(
        &'a self,
        _repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobReader, OciError>> {
        let (path, limit) = (self.blob_path(blob.digest), blob.size.saturating_add(1));
        Box::pin(async move {
            let file = self.cx.blocking(move || open_file(&path)).await??;
            Ok(Box::new(RangeReader::new(Arc::new(file), 0, limit)) as BlobReader)
        })
    }
}

impl Documents for OciLayout {
    fn manifest<'a>(
        &'a self,
        _repository: &'a str,
        digest: Digest,
    ) -> BoxFuture<'a, Result<Fetched, OciError>> {
        Box::pin(async move {
            let bytes = self.read(digest, self.limits.manifest_bytes_max).await?;
            Ok(Fetched {
                bytes,
                digest,
                content_type: None,
            })
        })
    }

    fn config<'a>(
        &'a self,
        _repository: &'a str,
        config: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<u8>, OciError>> {
        Box::pin(self.read(config.digest, self.limits.config_bytes_max))
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

fn names(entries: &[IndexEntry]) -> String {
    let names = entries
        .iter()
        .filter_map(|entry| entry.names.last().cloned());
    names.take(20).collect::<Vec<_>>().join(", ")
}

/// Opens a regular file: never a pipe or device, on which opening or reading may block for ever.
pub(crate) fn open_file(path: &Path) -> Result<File, OciError> {
    let regular = |is_file: bool| {
        if is_file {
            return Ok(());
        }
        let detail = "it is not a regular file".to_owned();
        Err(OciError::Io {
            path: path.display().to_string(),
            detail,
        })
    };
    let fail = |error: io::Error| OciError::io(path, &error);
    regular(std::fs::metadata(path).map_err(fail)?.is_file())?;
    let file = File::open(path).map_err(fail)?;
    regular(file.metadata().map_err(fail)?.is_file())?;
    Ok(file)
}

fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, OciError> {
    let mut bytes = Vec::new();
    open_file(path)?
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| OciError::io(path, &error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(OciError::too_large(
            format!("`{}`", path.display()),
            bytes_max,
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
