//! An OCI image layout (OCI image-spec, "Image Layout"): in a directory, or in a tar file, as
//! `skopeo copy … oci-archive:` and `docker buildx build --output type=oci` write it.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use chassis::Cx;
use futures::future::BoxFuture;
use model::Digest;

use crate::{
    Limits, Missing, OciError,
    manifest::{Document, IndexEntry},
    reader::RangeReader,
    resolve::{self, Blobs, Documents as _, Fetched},
    source::{BlobReader, Descriptor, Resolved, Source, Wanted, verify},
    tarball::Tarball,
};

/// `oci-layout`, `index.json` and `blobs/`, in a directory or a tar file.
#[derive(Debug)]
pub struct OciLayout {
    cx: Cx,
    files: Files,
    limits: Limits,
    index: Vec<u8>,
}

/// Where the files of a layout are.
#[derive(Clone, Debug)]
enum Files {
    Directory(PathBuf),
    Tarball(Arc<Tarball>),
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
    /// Opens the layout in a directory and reads its index.
    pub async fn open(cx: &Cx, dir: &Path) -> Result<Self, OciError> {
        let (files, inner) = (Files::Directory(dir.to_owned()), cx.clone());
        cx.blocking(move || Self::of(&inner, files)).await?
    }

    /// Opens the layout in a tar file.
    pub async fn open_archive(cx: &Cx, path: &Path) -> Result<Self, OciError> {
        let (path, inner) = (path.to_owned(), cx.clone());
        cx.blocking(move || {
            let tarball = Tarball::open(&inner, &path, &Limits::default())?;
            Self::in_tarball(&inner, tarball)
        })
        .await?
    }

    /// The layout in a tar file that is open already.
    pub(crate) fn in_tarball(cx: &Cx, tarball: Tarball) -> Result<Self, OciError> {
        Self::of(cx, Files::Tarball(Arc::new(tarball)))
    }

    fn of(cx: &Cx, files: Files) -> Result<Self, OciError> {
        let limits = Limits::default();
        files.read("oci-layout", limits.manifest_bytes_max)?;
        let index = files.read("index.json", limits.manifest_bytes_max)?;
        Ok(Self {
            cx: cx.clone(),
            files,
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
            let what = format!("`index.json` of `{}`", self.files);
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
                place: format!("`{}`, which has: {}", self.files, names(&entries)),
                missing: Missing::Unsaid,
            })
    }

    async fn read(&self, digest: Digest, bytes_max: u64) -> Result<Vec<u8>, OciError> {
        let files = self.files.clone();
        let bytes = self
            .cx
            .blocking(move || files.read(&blob_path(digest), bytes_max))
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
            let reference = format!("{}{}", self.files.reference(), wanted.name());
            resolve::follow(self, wanted, reference, root).await
        })
    }

    fn open_blob<'a>(
        &'a self,
        _repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobReader, OciError>> {
        let (files, path) = (self.files.clone(), blob_path(blob.digest));
        let limit = blob.size.saturating_add(1);
        Box::pin(async move {
            let opened = self.cx.blocking(move || files.stream(&path, limit));
            opened.await?
        })
    }
}

impl Blobs for OciLayout {
    fn read_blob(
        &self,
        digest: Digest,
        bytes_max: u64,
    ) -> BoxFuture<'_, Result<Vec<u8>, OciError>> {
        Box::pin(self.read(digest, bytes_max))
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

// === impl Files ===

impl Files {
    fn read(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, OciError> {
        match self {
            Self::Directory(dir) => read_file(&dir.join(path), bytes_max),
            Self::Tarball(tarball) => {
                let span = tarball.find(path).ok_or_else(|| self.missing(path))?;
                tarball.read(span, bytes_max)
            }
        }
    }

    fn stream(&self, path: &str, bytes_max: u64) -> Result<BlobReader, OciError> {
        match self {
            Self::Directory(dir) => {
                let file = Arc::new(open_file(&dir.join(path))?);
                Ok(Box::new(RangeReader::new(file, 0, bytes_max)))
            }
            Self::Tarball(tarball) => {
                let span = tarball.find(path).ok_or_else(|| self.missing(path))?;
                Ok(tarball.stream(span, bytes_max))
            }
        }
    }

    fn missing(&self, path: &str) -> OciError {
        OciError::NotFound {
            what: path.to_owned(),
            place: format!("`{self}`"),
            missing: Missing::Unsaid,
        }
    }

    fn reference(&self) -> String {
        match self {
            Self::Directory(dir) => format!("oci:{}", dir.display()),
            Self::Tarball(tarball) => format!("oci-archive:{}", tarball.name),
        }
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(dir) => dir.display().fmt(f),
            Self::Tarball(tarball) => tarball.name.fmt(f),
        }
    }
}

fn blob_path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
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
