//! A wanted file: collected once, shared by all who want it.

use std::{borrow::Cow, fmt, io::Read as _, sync::Arc};

use archive::{ReadAt, Reader, Spill};
use model::{FileSums, LayerEntry};

use crate::Malformed;

/// A file that an analyzer asked for.
#[derive(Clone)]
pub struct File {
    /// Its entry. The digest that it may have is made while the file is analyzed, and not in it.
    pub entry: Arc<LayerEntry>,
    content: Content,
}

/// Where a file's bytes are.
#[derive(Clone)]
pub(crate) enum Content {
    /// Nobody asked for them.
    None,
    /// In memory.
    Held(Arc<Held>),
    /// In a temporary file.
    Spilled(Arc<Spill>),
    /// Summed up while they passed.
    Summed(Sums),
}

/// The digests of a file that package managers record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) md5: [u8; 16],
    pub(crate) sha1: [u8; 20],
}

/// Bytes in memory.
pub(crate) struct Held(pub(crate) Vec<u8>);

// === impl File ===

impl File {
    pub(crate) fn new(entry: Arc<LayerEntry>, content: Content) -> Self {
        Self { entry, content }
    }

    /// A program of this content.
    #[cfg(test)]
    pub(crate) fn of(path: &str, bytes: &[u8]) -> Self {
        let entry = LayerEntry {
            path: path.to_owned(),
            kind: model::EntryKind::File,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: bytes.len() as u64,
            link: None,
            capabilities: None,
            digest: None,
        };
        let content = Content::Held(Arc::new(Held(bytes.to_vec())));
        Self::new(Arc::new(entry), content)
    }

    /// The path from the image's root.
    pub fn path(&self) -> &str {
        &self.entry.path
    }

    /// Its digests, where these were asked for.
    pub fn sums(&self) -> Option<FileSums> {
        let Content::Summed(sums) = &self.content else {
            return None;
        };
        Some(FileSums {
            path: self.path().to_owned(),
            md5: sums.md5,
            sha1: sums.sha1,
        })
    }

    /// Bytes of its content that are in memory.
    pub(crate) fn held_bytes(&self) -> u64 {
        match &self.content {
            Content::Held(held) => held.size(),
            Content::None | Content::Spilled(_) | Content::Summed(_) => 0,
        }
    }

    /// `Read` and `Seek` over the content; empty where only the entry was asked for.
    pub fn reader(&self) -> Reader {
        match &self.content {
            Content::None | Content::Summed(_) => Reader::new(Arc::new(Held(Vec::new()))),
            Content::Held(held) => Reader::new(Arc::clone(held) as Arc<dyn ReadAt>),
            Content::Spilled(spill) => Reader::new(Arc::clone(spill) as Arc<dyn ReadAt>),
        }
    }

    /// All bytes, if they are not more than `bytes_max`.
    pub fn bytes(&self, bytes_max: u64) -> Result<Cow<'_, [u8]>, Malformed> {
        if self.entry.size > bytes_max {
            return Err(Malformed::TooLarge(self.entry.size, bytes_max));
        }
        match &self.content {
            Content::None | Content::Summed(_) => Ok(Cow::Borrowed(&[])),
            Content::Held(held) => Ok(Cow::Borrowed(&held.0)),
            Content::Spilled(_) => {
                let mut bytes = Vec::new();
                let read = self.reader().take(bytes_max).read_to_end(&mut bytes);
                read.map_err(Malformed::Spilled)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// All bytes as text, if they are not more than `bytes_max`; what is not UTF-8 is replaced.
    pub fn text(&self, bytes_max: u64) -> Result<Cow<'_, str>, Malformed> {
        Ok(match self.bytes(bytes_max)? {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        })
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({}, {} bytes)", self.entry.path, self.entry.size)
    }
}

// === impl Held ===

impl ReadAt for Held {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn size(&self) -> u64 {
        self.0.size()
    }
}
