//! Where each file of a tar archive lies: random access without unpacking.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt as _, path::Path};

use crate::{Limits, OciError};

const BLOCK: u64 = 512;
/// Bytes of a long name or a PAX header; the longest real ones hold a path of 4096.
const EXTENSION_BYTES_MAX: u64 = 64 << 10;
/// Links that lead to links.
const LINKS_MAX: usize = 8;

/// The files of an archive by path.
#[derive(Debug, Default)]
pub(crate) struct Index(HashMap<String, Place>);

/// A range of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    /// The first byte.
    pub(crate) at: u64,
    /// How many.
    pub(crate) length: u64,
}

#[derive(Debug)]
enum Place {
    File(Span),
    /// The path that a link leads to, from the archive's root.
    Link(String),
}

/// What extension headers say of the entry that follows them.
#[derive(Debug, Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

/// Reads one archive from its start to its end, without the content of files.
struct Walk<'a> {
    file: &'a File,
    name: &'a str,
    at: u64,
    end: u64,
    extension: Extension,
}

// === impl Index ===

impl Index {
    /// Reads the headers of a tar file, which has this name in messages.
    pub(super) fn read(file: &File, name: &str, limits: &Limits) -> Result<Self, OciError> {
        let metadata = file.metadata();
        let end = metadata.map_err(|error| unreadable(name, &error))?.len();
        let mut walk = Walk {
            file,
            name,
            at: 0,
            end,
            extension: Extension::default(),
        };
        let mut index = Self::default();
        let mut entries = 0_usize;
        while let Some(header) = walk.header()? {
            entries = entries.saturating_add(1);
            if entries > limits.archive_entries_max {
                let limit = format!("{} entries", limits.archive_entries_max);
                return Err(OciError::TooLarge {
                    what: walk.what(),
                    limit,
                });
            }
            walk.entry(&header, &mut index)?;
        }
        Ok(index)
    }

    /// Where a file lies, through links.
    pub(super) fn find(&self, path: &str) -> Option<Span> {
        let mut path = normal("", path);
        for _ in 0..LINKS_MAX {
            match self.0.get(&path)? {
                Place::File(span) => return Some(*span),
                Place::Link(target) => path.clone_from(target),
            }
        }
        None
    }
}

// === impl Walk ===

impl Walk<'_> {
    fn what(&self) -> String {
        format!("`{}`", self.name)
    }

    fn malformed(&self, detail: &str) -> OciError {
        OciError::malformed(self.what(), format!("{detail} at byte {}", self.at))
    }

    fn bytes(&self, at: u64, length: u64) -> Result<Vec<u8>, OciError> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_err(|error| unreadable(self.name, &error))?;
        Ok(bytes)
    }

    /// The next header; `None` at the end, which may lack its two blocks of zeros.
    fn header(&self) -> Result<Option<tar::Header>, OciError> {
        if self.end.saturating_sub(self.at) < BLOCK {
            return Ok(None);
        }
        let bytes = self.bytes(self.at, BLOCK)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = tar::Header::from_byte_slice(&bytes).clone();
        let sum = header
            .cksum()
            .map_err(|_| self.malformed("no tar header"))?;
        if sum != checksum(&bytes) {
            return Err(self.malformed("no tar header"));
        }
        Ok(Some(header))
    }

    /// Takes an entry up and steps over it.
    fn entry(&mut self, header: &tar::Header, index: &mut Index) -> Result<(), OciError> {
        let kind = header.entry_type();
        let is_extension =
            kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions();
        let size = header.entry_size().map_err(|_| self.malformed("no size"))?;
        let size = self
            .extension
            .size
            .filter(|_| !is_extension)
            .unwrap_or(size);
        let start = self.at.saturating_add(BLOCK);
        // A link has no content, whatever its size field says.
        let stored = if kind.is_symlink() || kind.is_hard_link() {
            0
        } else {
            size
        };
        let end = start.checked_add(stored).filter(|end| *end <= self.end);
        let end = end.ok_or_else(|| self.malformed("an entry that ends after the archive"))?;
        if is_extension {
            self.extend(header, start, size)?;
        } else {
            let extension = std::mem::take(&mut self.extension);
            let path = extension
                .path
                .unwrap_or_else(|| header.path_bytes().into_owned());
            let path = normal("", &String::from_utf8_lossy(&path));
            let link = extension
                .link
                .or_else(|| header.link_name_bytes().map(Into::into));
            let link = link.map(|link| String::from_utf8_lossy(&link).into_owned());
            if let Some(place) = place(
                kind,
                &path,
                link,
                Span {
                    at: start,
                    length: size,
                },
            ) {
                index.0.insert(path, place);
            }
        }
        self.at = end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
        Ok(())
    }

    fn extend(&mut self, header: &tar::Header, at: u64, size: u64) -> Result<(), OciError> {
        if size > EXTENSION_BYTES_MAX {
            return Err(OciError::too_large(
                "a long name in the archive",
                EXTENSION_BYTES_MAX,
            ));
        }
        let mut bytes = self.bytes(at, size)?;
        let kind = header.entry_type();
        if kind.is_pax_local_extensions() {
            for record in tar::PaxExtensions::new(&bytes).flatten() {
                match record.key() {
                    Ok("path") => self.extension.path = Some(record.value_bytes().to_vec()),
                    Ok("linkpath") => self.extension.link = Some(record.value_bytes().to_vec()),
                    Ok("size") => {
                        self.extension.size = record.value().ok().and_then(|v| v.parse().ok());
                    }
                    _ => {}
                }
            }
            return Ok(());
        }
        let end = bytes
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(bytes.len());
        bytes.truncate(end);
        if kind.is_gnu_longname() {
            self.extension.path = Some(bytes);
        } else {
            self.extension.link = Some(bytes);
        }
        Ok(())
    }
}

fn unreadable(name: &str, error: &io::Error) -> OciError {
    OciError::io(Path::new(name), error)
}

fn place(kind: tar::EntryType, path: &str, link: Option<String>, span: Span) -> Option<Place> {
    match kind {
        tar::EntryType::Regular | tar::EntryType::Continuous => Some(Place::File(span)),
        tar::EntryType::Symlink => {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            Some(Place::Link(normal(folder, &link?)))
        }
        tar::EntryType::Link => Some(Place::Link(normal("", &link?))),
        _ => None,
    }
}

/// A path from the archive's root; `..` never leads above it.
fn normal(folder: &str, path: &str) -> String {
    let folder = if path.starts_with('/') { "" } else { folder };
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The sum of a header's bytes, with its own field counted as blanks.
fn checksum(header: &[u8]) -> u32 {
    let bytes = header.iter().enumerate();
    bytes
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                u32::from(b' ')
            } else {
                u32::from(*byte)
            }
        })
        .fold(0, u32::wrapping_add)
}
