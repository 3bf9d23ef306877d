//! A tar file that can be read at any place: as it lies on the disk, or, where it came compressed or
//! as a stream, in a file without a name that is gone with the process.
//!
//! Only then are layers written to a disk, for an archive names its parts at its end.

mod index;

use std::{fs::File, io::Read, os::unix::fs::FileExt as _, path::Path, sync::Arc};

use archive::{ArchiveError, Inflate};
use chassis::Cx;

use self::index::Index;
pub(crate) use self::index::Span;
use crate::{Limits, OciError, layout::open_file, reader::RangeReader, source::BlobReader};

const BUFFER_BYTES: usize = 256 << 10;

/// An open archive with its table of contents.
#[derive(Debug)]
pub(crate) struct Tarball {
    /// What it is called in messages.
    pub(crate) name: String,
    file: Arc<File>,
    index: Index,
}

// === impl Tarball ===

impl Tarball {
    /// Opens a file, which may be compressed, and reads its table of contents.
    pub(crate) fn open(cx: &Cx, path: &Path, limits: &Limits) -> Result<Self, OciError> {
        let file = open_file(path)?;
        let fail = |error| OciError::io(path, &error);
        let name = path.display().to_string();
        let bytes = file.metadata().map_err(fail)?.len();
        if bytes > limits.archive_bytes_max {
            return Err(OciError::too_large(
                format!("`{name}`"),
                limits.archive_bytes_max,
            ));
        }
        let mut head = [0; 4];
        let read = file.read_at(&mut head, 0).map_err(fail)?;
        if is_compressed(head.split_at(read).0) {
            return Self::unpacked(cx, name, file, limits);
        }
        Self::indexed(name, file, limits)
    }

    /// Takes a stream, which may be compressed, into a file without a name.
    pub(crate) fn unpacked(
        cx: &Cx,
        name: String,
        stream: impl Read,
        limits: &Limits,
    ) -> Result<Self, OciError> {
        let temporary = |error: std::io::Error| OciError::Io {
            path: std::env::temp_dir().display().to_string(),
            detail: format!("{error}; archives are unpacked there, TMPDIR names another directory"),
        };
        let mut file = tempfile::tempfile().map_err(temporary)?;
        let unreadable = |error: ArchiveError| unreadable(&name, error);
        let bounds = archive::Limits {
            compressed_bytes_max: limits.archive_bytes_max,
            uncompressed_bytes_max: limits.unpacked_bytes_max,
            ..archive::Limits::default()
        };
        let mut inflate = Inflate::open(stream, &bounds).map_err(unreadable)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            stop(cx)?;
            let count = inflate.fill(&mut buffer).map_err(unreadable)?;
            if count == 0 {
                break;
            }
            let (part, _) = buffer.split_at(count);
            std::io::Write::write_all(&mut file, part).map_err(temporary)?;
        }
        Self::indexed(name, file, limits)
    }

    fn indexed(name: String, file: File, limits: &Limits) -> Result<Self, OciError> {
        let index = Index::read(&file, &name, limits)?;
        let file = Arc::new(file);
        Ok(Self { name, file, index })
    }

    /// Where a file lies, through links.
    pub(crate) fn find(&self, path: &str) -> Option<Span> {
        self.index.find(path)
    }

    /// A whole document.
    pub(crate) fn read(&self, span: Span, bytes_max: u64) -> Result<Vec<u8>, OciError> {
        if span.length > bytes_max {
            let what = format!("a document in `{}`", self.name);
            return Err(OciError::too_large(what, bytes_max));
        }
        let mut bytes = vec![0; usize::try_from(span.length).unwrap_or_default()];
        self.fill(&mut bytes, span.at)?;
        Ok(bytes)
    }

    /// A blob of at most so many bytes.
    pub(crate) fn stream(&self, span: Span, bytes_max: u64) -> BlobReader {
        let length = span.length.min(bytes_max);
        Box::new(RangeReader::new(Arc::clone(&self.file), span.at, length))
    }

    /// Hands a range to `take`, part by part.
    pub(crate) fn each_part(
        &self,
        cx: &Cx,
        span: Span,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), OciError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let (mut at, mut left) = (span.at, span.length);
        while left > 0 {
            stop(cx)?;
            let count = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(BUFFER_BYTES);
            let (part, _) = buffer.split_at_mut(count);
            self.fill(part, at)?;
            take(part);
            at = at.saturating_add(count as u64);
            left = left.saturating_sub(count as u64);
        }
        Ok(())
    }

    fn fill(&self, bytes: &mut [u8], at: u64) -> Result<(), OciError> {
        let read = self.file.read_exact_at(bytes, at);
        read.map_err(|error| OciError::io(Path::new(&self.name), &error))
    }
}

/// By the magic of what [`Inflate`] reads, or refuses with a reason.
const fn is_compressed(head: &[u8]) -> bool {
    matches!(
        head,
        [0x1f, 0x8b, ..]
            | [0x28, 0xb5, 0x2f, 0xfd]
            | [0x50..=0x5f, 0x2a, 0x4d, 0x18]
            | [b'B', b'Z', b'h', b'1'..=b'9']
            | [0xfd, b'7', b'z', b'X']
    )
}

/// Somebody who gave up must not wait for the rest of an archive.
pub(crate) fn stop(cx: &Cx) -> Result<(), OciError> {
    if cx.is_stopping() {
        let stopped = "stopped while reading an archive or a directory".to_owned();
        return Err(OciError::Internal(stopped));
    }
    Ok(())
}

fn unreadable(name: &str, error: ArchiveError) -> OciError {
    match error {
        ArchiveError::Source(error) => match OciError::from_read(&error) {
            Some(known) => known.clone(),
            None => OciError::io(Path::new(name), &error),
        },
        other => OciError::malformed(format!("`{name}`"), other),
    }
}
