//! Whether an image holds a content: its layers are there, below the container's own.
//!
//! The lower directories of the container's overlay are the image, as the node has it. What lies
//! there is found by its size and compared by its digest, so a copy of the image's own program runs
//! wherever it lies, and nothing else does.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use model::{Digest, Hasher};

/// Files of an image that are known by their size; of more the rest is not found.
const FILES_MAX: usize = 400_000;
const DEPTH_MAX: usize = 64;
const PIECE_BYTES: usize = 256 << 10;
/// The largest file that is compared.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 30;
/// Files of one size that are compared.
const SAME_SIZE_MAX: usize = 64;

/// The files of an image, by size.
#[derive(Debug, Default)]
pub(crate) struct ImageFiles {
    by_size: HashMap<u64, Vec<PathBuf>>,
    digests: HashMap<PathBuf, Digest>,
}

// === impl ImageFiles ===

impl ImageFiles {
    /// Lists the files of an image's layers.
    pub(crate) fn list(layers: &[PathBuf]) -> Self {
        let (mut by_size, mut left) = (HashMap::new(), FILES_MAX);
        for layer in layers {
            list(layer, DEPTH_MAX, &mut left, &mut by_size);
        }
        Self {
            by_size,
            digests: HashMap::new(),
        }
    }

    /// Whether it holds a content.
    pub(crate) fn holds(&mut self, size: u64, digest: Digest) -> bool {
        let Some(same) = self.by_size.get(&size) else {
            return false;
        };
        for path in same.iter().take(SAME_SIZE_MAX) {
            let known = self.digests.get(path).copied();
            let found = known.or_else(|| digest_of(File::open(path).ok()?).ok());
            if let Some(found) = found {
                self.digests.insert(path.clone(), found);
                if found == digest {
                    return true;
                }
            }
        }
        false
    }
}

fn list(dir: &Path, depth: usize, left: &mut usize, by_size: &mut HashMap<u64, Vec<PathBuf>>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let Some(rest) = left.checked_sub(1) else {
            return;
        };
        *left = rest;
        // Links are not followed: they may lead out of the image.
        let Ok(found) = entry.metadata() else {
            continue;
        };
        if found.is_dir() && depth > 0 {
            list(&entry.path(), depth - 1, left, by_size);
        } else if found.is_file() && found.size() > 0 {
            by_size.entry(found.size()).or_default().push(entry.path());
        }
    }
}

/// The digest of a file of bounded size.
pub(crate) fn digest_of(file: File) -> io::Result<Digest> {
    let mut file = file.take(FILE_BYTES_MAX.saturating_add(1));
    let (mut hasher, mut piece, mut read) = (Hasher::default(), vec![0; PIECE_BYTES], 0_u64);
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            return Ok(hasher.finish());
        }
        read = read.saturating_add(length as u64);
        if read > FILE_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        hasher.update(piece.get(..length).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_holds_a_content_wherever_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        fs::create_dir_all(layer.join("usr/bin")).unwrap();
        fs::write(layer.join("usr/bin/a"), b"aaaa").unwrap();
        fs::write(dir.path().join("out"), b"outside").unwrap();
        std::os::unix::fs::symlink(dir.path().join("out"), layer.join("link")).unwrap();
        let mut files = ImageFiles::list(&[layer]);
        assert!(files.holds(4, Digest::of(b"aaaa")));
        assert!(files.holds(4, Digest::of(b"aaaa")), "it is kept");
        assert!(!files.holds(4, Digest::of(b"bbbb")));
        assert!(!files.holds(7, Digest::of(b"outside")));
    }
}
