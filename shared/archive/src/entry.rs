//! A tar entry as analyzers see it.

use model::{EntryKind, LayerEntry};

/// A tar entry, borrowed: what an analyzer decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The path from the image's root, as in [`LayerEntry`].
    pub path: &'a str,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Bytes of content.
    pub size: u64,
    /// Where a link leads, as written.
    pub link: Option<&'a str>,
    /// The `security.capability` attribute, hex.
    pub capabilities: Option<&'a str>,
}

// === impl Entry ===

impl<'a> Entry<'a> {
    /// The last segment of the path.
    pub fn name(&self) -> &'a str {
        self.path
            .rsplit_once('/')
            .map_or(self.path, |(_, name)| name)
    }

    /// The path without its last segment; empty at the root.
    pub fn directory(&self) -> &'a str {
        self.path
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory)
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == EntryKind::File
    }
}

impl<'a> From<&'a LayerEntry> for Entry<'a> {
    fn from(entry: &'a LayerEntry) -> Self {
        Self {
            path: &entry.path,
            kind: entry.kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size: entry.size,
            link: entry.link.as_deref(),
            capabilities: entry.capabilities.as_deref(),
        }
    }
}
