//! What lies in a directory, in a fixed order.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
    fs::{self, File, Metadata},
    io,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use chassis::Cx;
use model::{Digest, Gap, GapCode, Hasher, Hides};

use super::{Skip, mounts};
use crate::{Limits, OciError, layout::open_file, tarball};

/// The files of a directory, each before what is in it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) root: PathBuf,
    pub(super) nodes: Vec<Node>,
    /// What could not be read.
    pub(super) gaps: Vec<Gap>,
}

/// One file, directory or link.
#[derive(Debug)]
pub(super) struct Node {
    /// From the root on.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) user: u32,
    pub(super) group: u32,
}

#[derive(Debug)]
pub(super) enum Kind {
    Directory,
    /// The inode, so that nothing else is read in its place later.
    File {
        size: u64,
        inode: Inode,
    },
    Symlink(Vec<u8>),
    /// Another name of a file that came before.
    Hardlink(Vec<u8>),
}

/// Names a file on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Inode {
    device: u64,
    number: u64,
}

/// A tree that is being read.
struct Reading<'a> {
    limits: &'a Limits,
    skip: Option<&'a Skip>,
    left_out: BTreeSet<PathBuf>,
    tree: Tree,
    /// First names of files that have several.
    names: HashMap<Inode, Vec<u8>>,
    name_bytes: usize,
    /// Gaps beyond those that are named.
    more_gaps: usize,
}

// === impl Tree ===

impl Tree {
    /// Lists a directory with all that is below it.
    pub(super) fn read(
        cx: &Cx,
        root: &Path,
        limits: &Limits,
        skip: Option<&Skip>,
    ) -> Result<Self, OciError> {
        let root = fs::canonicalize(root).map_err(|error| OciError::io(root, &error))?;
        let mut reading = Reading {
            limits,
            skip,
            left_out: mounts::left_out(&root),
            tree: Self {
                root: root.clone(),
                ..Self::default()
            },
            names: HashMap::new(),
            name_bytes: 0,
            more_gaps: 0,
        };
        // Only the root's own failure is an error: what cannot be read below it is a gap.
        let mut open = children(&root).map_err(|error| OciError::io(&root, &error))?;
        while let Some(path) = open.pop() {
            tarball::stop(cx)?;
            open.extend(reading.take(&path)?);
        }
        Ok(reading.finish())
    }
}

impl Tree {
    /// The digest of what the file system says of each file, and of no content.
    pub(super) fn signature(&self) -> Digest {
        let mut hasher = Hasher::default();
        for node in &self.nodes {
            let path = self.root.join(OsString::from_vec(node.path.clone()));
            let Ok(metadata) = fs::symlink_metadata(path) else {
                continue;
            };
            hasher.update(&node.path);
            for number in [
                metadata.ino().cast_signed(),
                metadata.size().cast_signed(),
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.ctime(),
                metadata.ctime_nsec(),
            ] {
                hasher.update(&number.to_le_bytes());
            }
        }
        hasher.finish()
    }
}

// === impl Reading ===

impl Reading<'_> {
    /// Takes a file up; the children of a directory are to be taken next.
    fn take(&mut self, path: &Path) -> Result<Vec<PathBuf>, OciError> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            // It went away while the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                self.unreadable(path, &error);
                return Ok(Vec::new());
            }
        };
        let name = path.strip_prefix(&self.tree.root).unwrap_or(path);
        let name = name.as_os_str().as_bytes().to_vec();
        let is_skipped = self
            .skip
            .is_some_and(|skip| skip(&String::from_utf8_lossy(&name), metadata.is_dir()));
        if is_skipped || self.left_out.contains(path) {
            return Ok(Vec::new());
        }
        if metadata.is_dir() {
            self.add(name, Kind::Directory, &metadata)?;
            return Ok(children(path).unwrap_or_else(|error| {
                self.unreadable(path, &error);
                Vec::new()
            }));
        }
        if metadata.is_symlink() {
            match fs::read_link(path) {
                Ok(target) => {
                    let target = target.into_os_string().into_vec();
                    self.add(name, Kind::Symlink(target), &metadata)?;
                }
                Err(error) => self.unreadable(path, &error),
            }
        } else if metadata.is_file() {
            self.file(path, name, &metadata)?;
        }
        // Pipes, sockets and devices hold nothing.
        Ok(Vec::new())
    }

    fn file(&mut self, path: &Path, name: Vec<u8>, metadata: &Metadata) -> Result<(), OciError> {
        let inode = Inode::of(metadata);
        if metadata.nlink() > 1 {
            if let Some(first) = self.names.get(&inode) {
                return self.add(name, Kind::Hardlink(first.clone()), metadata);
            }
            self.names.insert(inode, name.clone());
        }
        let mut size = metadata.len();
        if size > self.limits.directory_file_bytes_max {
            let max = self.limits.directory_file_bytes_max;
            let detail = format!("the file has {size} bytes, {max} are read");
            self.gap(GapCode::LimitFile, path, detail);
            size = 0;
        } else if let Err(error) = File::open(path) {
            self.unreadable(path, &error);
            size = 0;
        }
        self.add(name, Kind::File { size, inode }, metadata)
    }

    fn add(&mut self, path: Vec<u8>, kind: Kind, metadata: &Metadata) -> Result<(), OciError> {
        let target = match &kind {
            Kind::Symlink(target) | Kind::Hardlink(target) => target.len(),
            Kind::Directory | Kind::File { .. } => 0,
        };
        let bytes = path.len().saturating_add(target);
        self.name_bytes = self.name_bytes.saturating_add(bytes);
        let limits = self.limits;
        let limit = if self.tree.nodes.len() >= limits.directory_entries_max {
            format!("{} files", limits.directory_entries_max)
        } else if self.name_bytes > limits.directory_name_bytes_max {
            format!("{} bytes of names", limits.directory_name_bytes_max)
        } else {
            self.tree.nodes.push(Node {
                path,
                kind,
                mode: metadata.mode() & 0o7777,
                user: metadata.uid(),
                group: metadata.gid(),
            });
            return Ok(());
        };
        Err(OciError::TooLarge {
            what: format!("directory `{}`", self.tree.root.display()),
            limit: format!("{limit}; name a part of it, or leave some out with --skip-dirs"),
        })
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.gap(GapCode::LayerUnavailable, path, error.to_string());
    }

    fn gap(&mut self, code: GapCode, path: &Path, detail: String) {
        if self.tree.gaps.len() >= self.limits.directory_gaps_max {
            self.more_gaps = self.more_gaps.saturating_add(1);
            return;
        }
        let name = path.strip_prefix(&self.tree.root).unwrap_or(path);
        let gap = Gap::new(code, Hides::Entries, detail);
        self.tree.gaps.push(gap.at(name.to_string_lossy()));
    }

    fn finish(mut self) -> Tree {
        if self.more_gaps > 0 {
            let detail = format!("{} more files could not be read", self.more_gaps);
            let gap = Gap::new(GapCode::LayerUnavailable, Hides::Entries, detail);
            self.tree.gaps.push(gap);
        }
        self.tree
    }
}

// === impl Node ===

impl Node {
    /// Opens a file again, if it is still the same one.
    pub(super) fn open(&self, root: &Path) -> Option<File> {
        let Kind::File { inode, .. } = self.kind else {
            return None;
        };
        let path = root.join(OsString::from_vec(self.path.clone()));
        let file = open_file(&path).ok()?;
        let metadata = file.metadata().ok()?;
        (Inode::of(&metadata) == inode).then_some(file)
    }
}

// === impl Inode ===

impl Inode {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            number: metadata.ino(),
        }
    }
}

/// What is in a directory, the last first.
fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        paths.push(entry?.path());
    }
    paths.sort_by(|one, other| other.as_os_str().as_bytes().cmp(one.as_os_str().as_bytes()));
    Ok(paths)
}
