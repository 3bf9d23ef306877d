//! A directory as the bytes of a tar archive.

use std::{
    fs::File,
    io::{self, Read},
    sync::Arc,
};

use super::tree::{Kind, Node, Tree};

const BLOCK: u64 = 512;
/// A path that is longer stands before its entry (GNU tar).
const NAME_BYTES: usize = 100;

/// Writes the archive as it is read. Its layout follows from the tree alone: a file that has become
/// shorter is filled up with zeros, and of a longer one only the beginning is read.
pub(super) struct TarStream {
    tree: Arc<Tree>,
    /// The number of the node that comes next.
    next: usize,
    /// Headers and padding that wait to be read.
    waiting: io::Cursor<Vec<u8>>,
    content: Option<Content>,
    is_ended: bool,
}

/// The content of a file that is being read.
struct Content {
    /// `None` where it is not there any more.
    file: Option<File>,
    left: u64,
    padding: u64,
}

// === impl TarStream ===

impl TarStream {
    pub(super) fn new(tree: Arc<Tree>) -> Self {
        Self {
            tree,
            next: 0,
            waiting: io::Cursor::default(),
            content: None,
            is_ended: false,
        }
    }

    /// Goes on to the next node, or to the end.
    fn advance(&mut self) -> io::Result<()> {
        let tree = Arc::clone(&self.tree);
        let Some(node) = tree.nodes.get(self.next) else {
            self.is_ended = true;
            self.wait(zeros(BLOCK.saturating_mul(2)));
            return Ok(());
        };
        self.next = self.next.saturating_add(1);
        self.wait(headers(node)?);
        if let Kind::File { size, .. } = node.kind
            && size > 0
        {
            let whole = size.checked_next_multiple_of(BLOCK).unwrap_or(size);
            self.content = Some(Content {
                file: node.open(&tree.root),
                left: size,
                padding: whole.saturating_sub(size),
            });
        }
        Ok(())
    }

    fn wait(&mut self, bytes: Vec<u8>) {
        self.waiting = io::Cursor::new(bytes);
    }
}

impl Read for TarStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = self.waiting.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            match &mut self.content {
                Some(content) if content.left > 0 => return Ok(content.read(buffer)),
                Some(content) => {
                    let padding = zeros(content.padding);
                    self.content = None;
                    self.wait(padding);
                }
                None if self.is_ended => return Ok(0),
                None => self.advance()?,
            }
        }
    }
}

// === impl Content ===

impl Content {
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX);
        let wanted = wanted.min(buffer.len());
        let (part, _) = buffer.split_at_mut(wanted);
        let read = loop {
            match self.file.as_mut().map(|file| file.read(part)) {
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(Ok(count)) => break count,
                Some(Err(_)) | None => break 0,
            }
        };
        let mut count = read;
        if read == 0 {
            self.file = None;
            part.fill(0);
            count = wanted;
        }
        self.left = self.left.saturating_sub(count as u64);
        count
    }
}

fn headers(node: &Node) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut header = tar::Header::new_gnu();
    let (kind, size, link) = match &node.kind {
        Kind::Directory => (tar::EntryType::Directory, 0, None),
        Kind::File { size, .. } => (tar::EntryType::Regular, *size, None),
        Kind::Symlink(target) => (tar::EntryType::Symlink, 0, Some(target)),
        Kind::Hardlink(target) => (tar::EntryType::Link, 0, Some(target)),
    };
    name(
        &mut bytes,
        &node.path,
        tar::EntryType::GNULongName,
        &mut header.as_old_mut().name,
    )?;
    if let Some(link) = link {
        name(
            &mut bytes,
            link,
            tar::EntryType::GNULongLink,
            &mut header.as_old_mut().linkname,
        )?;
    }
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(node.mode);
    header.set_uid(u64::from(node.user));
    header.set_gid(u64::from(node.group));
    header.set_mtime(0);
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    Ok(bytes)
}

/// Puts a name into its field, or before the entry where it is too long.
fn name(
    bytes: &mut Vec<u8>,
    text: &[u8],
    long: tar::EntryType,
    field: &mut [u8; NAME_BYTES],
) -> io::Result<()> {
    let (short, _) = text.split_at(text.len().min(NAME_BYTES));
    let (start, _) = field.split_at_mut(short.len());
    start.copy_from_slice(short);
    if text.len() <= NAME_BYTES {
        return Ok(());
    }
    let mut header = tar::Header::new_gnu();
    header.set_path("././@LongLink")?;
    header.set_entry_type(long);
    let size = (text.len() as u64).saturating_add(1);
    header.set_size(size);
    header.set_mode(0);
    header.set_mtime(0);
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(text);
    let whole = size.checked_next_multiple_of(BLOCK).unwrap_or(size);
    bytes.extend(zeros(whole.saturating_sub(text.len() as u64)));
    Ok(())
}

fn zeros(count: u64) -> Vec<u8> {
    vec![0; usize::try_from(count).unwrap_or_default()]
}
