//! Tar entries from a stream of bytes.

mod header;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io::{self, BufRead},
};

use model::{EntryKind, Gap, GapCode, Hides, LayerEntry, hex};

use self::{
    header::{BLOCK_BYTES, Block, Header, Type},
    pax::Pax,
    sparse::{Segment, Span, ZEROS},
};
use crate::{ArchiveError, Limits, path};

/// The prefix of names that remove something of a lower layer.
const WHITEOUT: &str = ".wh.";
/// The name that removes what lower layers hold in its directory.
const OPAQUE: &str = ".wh..wh..opq";
/// The prefix of names that AUFS kept its own books under, at the root.
const AUFS: &str = ".wh..wh.";

/// Walks a tar archive, entry by entry, without ever copying content.
///
/// [`Walk::next_entry`] skips what is left of the entry before; [`Walk::chunk`] gives the current
/// entry's content piece by piece, straight from the reader's buffer; the holes of a sparse file as
/// zeros, which cost nothing unless they are asked for. Memory: one extended header or map
/// (`pax_bytes_max`) beside the reader's own buffer.
#[derive(Debug)]
pub struct Walk<R> {
    reader: R,
    limits: Limits,
    /// Bytes of the reader's buffer that were handed out and are to be consumed.
    lent: usize,
    /// Stored bytes of content that were not handed out yet.
    content: u64,
    /// What is left of a sparse file.
    spans: VecDeque<Span>,
    /// Bytes of holes that were handed out.
    holes: u64,
    /// Bytes behind the content up to the next block.
    padding: u64,
    entries: u64,
    name_bytes: u64,
    ended: bool,
}

/// What stands next in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Walked {
    /// An entry.
    Entry(LayerEntry),
    /// An entry whose content we do not read; it is listed, and this is what that hides.
    Unread(LayerEntry, Gap),
    /// An entry that no image may hold; it is left out.
    Ignored(Gap),
}

/// What extended headers said of the entry that follows them.
#[derive(Default)]
struct Extended {
    pax: Pax,
    gnu_name: Option<Vec<u8>>,
    gnu_link: Option<Vec<u8>>,
}

// === impl Walk ===

impl<R: BufRead> Walk<R> {
    /// A walk from the start of an archive.
    pub fn new(reader: R, limits: &Limits) -> Self {
        Self {
            reader,
            limits: limits.clone(),
            lent: 0,
            content: 0,
            spans: VecDeque::new(),
            holes: 0,
            padding: 0,
            entries: 0,
            name_bytes: 0,
            ended: false,
        }
    }

    /// The next entry; `None` at the end of the archive, and after an error.
    pub fn next_entry(&mut self) -> Result<Option<Walked>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        let next = self.read_entry();
        self.ended = !matches!(next, Ok(Some(_)));
        next
    }

    /// The next piece of the current entry's content; `None` at its end.
    pub fn chunk(&mut self) -> Result<Option<&[u8]>, ArchiveError> {
        self.take_back();
        let left = match self.spans.front_mut() {
            Some(Span::Hole(left)) => {
                let zeros = part(&ZEROS, *left);
                let length = zeros.len() as u64;
                *left = left.saturating_sub(length);
                if *left == 0 {
                    self.spans.pop_front();
                }
                self.holes = self.holes.saturating_add(length);
                let max = self.limits.uncompressed_bytes_max;
                if self.holes > max {
                    self.ended = true;
                    return Err(ArchiveError::UncompressedBytes(max));
                }
                return Ok(Some(zeros));
            }
            Some(Span::Data(left)) => *left,
            None => self.content,
        };
        if left == 0 {
            return Ok(None);
        }
        let length = part(fill(&mut self.reader)?, left).len();
        if length == 0 {
            self.ended = true;
            return Err(ArchiveError::TruncatedArchive);
        }
        self.lent = length;
        self.content = self.content.saturating_sub(length as u64);
        if let Some(Span::Data(left)) = self.spans.front_mut() {
            *left = left.saturating_sub(length as u64);
            if *left == 0 {
                self.spans.pop_front();
            }
        }
        Ok(fill(&mut self.reader)?.get(..length))
    }

    /// Whether the last piece was of a hole, and not of the reader's bytes.
    pub fn is_hole(&self) -> bool {
        self.lent == 0
    }

    /// The reader, somewhere behind what was walked.
    pub fn reader_mut(&mut self) -> &mut R {
        self.take_back();
        &mut self.reader
    }

    fn take_back(&mut self) {
        self.reader.consume(self.lent);
        self.lent = 0;
    }

    fn read_entry(&mut self) -> Result<Option<Walked>, ArchiveError> {
        let mut extended = Extended::default();
        loop {
            self.skip_rest()?;
            let Some(block) = self.read_header()? else {
                return Ok(None);
            };
            let header = Header::parse(&block)?;
            match header.kind {
                Type::Pax => {
                    let bytes = self.read_special(header.size)?;
                    extended.pax = Pax::parse(&bytes)?;
                }
                Type::PaxGlobal => {
                    // Unpackers hand it to their caller as an entry of its own: what stood before
                    // it is forgotten, and nothing of it reaches later entries.
                    self.read_special(header.size)?;
                    extended = Extended::default();
                }
                Type::GnuName => extended.gnu_name = Some(self.read_name(header.size)?),
                Type::GnuLink => extended.gnu_link = Some(self.read_name(header.size)?),
                _ => return self.entry(&block, header, extended).map(Some),
            }
        }
    }

    /// The entry that a plain header and the extended ones before it describe.
    fn entry(
        &mut self,
        block: &Block,
        header: Header,
        extended: Extended,
    ) -> Result<Walked, ArchiveError> {
        self.entries = self.entries.saturating_add(1);
        if self.entries > self.limits.entries_max {
            return Err(ArchiveError::Entries(self.limits.entries_max));
        }
        let Extended {
            mut pax,
            gnu_name,
            gnu_link,
        } = extended;
        let sparse_name = pax.sparse_name().map(ToOwned::to_owned);
        let name = sparse_name
            .or(gnu_name)
            .or(pax.path.take())
            .unwrap_or(header.name);
        let link = gnu_link.or(pax.link.take()).unwrap_or(header.link);
        let is_directory = header.kind == Type::Directory
            || (header.kind == Type::OldFile && name.last() == Some(&b'/'));
        let has_content = header.kind.has_content() && !is_directory;
        let stored = if has_content {
            pax.size.unwrap_or(header.size)
        } else {
            0
        };
        self.set_content(stored);
        let is_old_sparse = header.kind == Type::GnuSparse;
        let (size, map) = if is_old_sparse {
            (header::real_size(block)?, self.old_map(block)?)
        } else {
            let size = pax.sparse_size().unwrap_or(stored);
            let has_map_inside = pax.is_sparse() && pax.has_map_in_content();
            let map = if has_map_inside {
                self.map_in_content()?
            } else {
                pax.map()
            };
            (size, map)
        };
        let kind = header.kind.entry_kind(is_directory);
        let (path, kind, link) = match self.label(&name, &link, kind) {
            Ok(label) => label,
            Err(gap) => return Ok(Walked::Ignored(gap)),
        };
        let entry = LayerEntry {
            path,
            kind,
            mode: header.mode,
            uid: pax.uid.unwrap_or(header.uid),
            gid: pax.gid.unwrap_or(header.gid),
            size: if has_content { size } else { 0 },
            link,
            capabilities: pax.capabilities.as_deref().map(hex),
            digest: None,
        };
        self.count_names(&entry)?;
        if kind == EntryKind::File && (is_old_sparse || pax.is_sparse()) {
            let spans = map.and_then(|map| sparse::spans(&map, size, self.content));
            let Some(spans) = spans else {
                self.skip_rest()?;
                let detail = "the map of a sparse file cannot be read";
                let gap = Gap::new(GapCode::BadArchive, Hides::Entries, detail);
                let gap = gap.at(&entry.path);
                return Ok(Walked::Unread(entry, gap));
            };
            self.spans = spans;
        }
        Ok(Walked::Entry(entry))
    }

    /// Path, kind and link as they are reported, or why the entry is left out.
    fn label(
        &self,
        name: &[u8],
        link: &[u8],
        kind: EntryKind,
    ) -> Result<(String, EntryKind, Option<String>), Gap> {
        let length = name.len().max(link.len());
        if length > self.limits.path_bytes_max {
            let detail = format!("the path or link has {length} bytes");
            return Err(ignored(GapCode::LimitPath, name, detail));
        }
        let (path, kind) =
            place(name, kind).map_err(|why| ignored(GapCode::UnsafePath, name, why))?;
        let is_link = matches!(kind, EntryKind::Symlink | EntryKind::Hardlink);
        if is_link && (link.contains(&0) || (link.is_empty() && kind == EntryKind::Hardlink)) {
            return Err(ignored(
                GapCode::UnsafePath,
                name,
                "the link has no usable target",
            ));
        }
        Ok((path, kind, is_link.then(|| path::escape(link))))
    }

    fn count_names(&mut self, entry: &LayerEntry) -> Result<(), ArchiveError> {
        let texts = [
            Some(&entry.path),
            entry.link.as_ref(),
            entry.capabilities.as_ref(),
        ];
        let bytes: usize = texts.into_iter().flatten().map(String::len).sum();
        self.name_bytes = self.name_bytes.saturating_add(bytes as u64);
        if self.name_bytes > self.limits.name_bytes_max {
            return Err(ArchiveError::NameBytes(self.limits.name_bytes_max));
        }
        Ok(())
    }

    fn set_content(&mut self, size: u64) {
        self.content = size;
        // What is missing to the next multiple of the block size, which is a power of two.
        self.padding = size.wrapping_neg() & (BLOCK_BYTES as u64).saturating_sub(1);
    }

    /// Skips content and padding of the entry before.
    fn skip_rest(&mut self) -> Result<(), ArchiveError> {
        self.spans.clear();
        while self.chunk()?.is_some() {}
        self.content = std::mem::take(&mut self.padding);
        while self.chunk()?.is_some() {}
        Ok(())
    }

    /// The next header block; `None` at the end: two blocks of zeros, or nothing more.
    fn read_header(&mut self) -> Result<Option<Block>, ArchiveError> {
        let Some(block) = self.read_block()? else {
            return Ok(None);
        };
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some(block));
        }
        match self.read_block()? {
            Some(second) if second.iter().any(|byte| *byte != 0) => Err(ArchiveError::BadHeader(
                "a block of zeros stands between entries",
            )),
            _ => Ok(None),
        }
    }

    fn read_block(&mut self) -> Result<Option<Block>, ArchiveError> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled: usize = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let buffer = fill(&mut self.reader)?;
            let length = buffer.len().min(rest.len());
            match (rest.get_mut(..length), buffer.get(..length)) {
                (Some(to), Some(from)) if length > 0 => to.copy_from_slice(from),
                _ if filled == 0 => return Ok(None),
                _ => return Err(ArchiveError::TruncatedArchive),
            }
            self.reader.consume(length);
            filled = filled.saturating_add(length);
        }
        Ok(Some(block))
    }

    /// The content of an extended header.
    fn read_special(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > self.limits.pax_bytes_max {
            return Err(ArchiveError::Pax(self.limits.pax_bytes_max));
        }
        self.set_content(size);
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk()? {
            bytes.extend_from_slice(chunk);
        }
        Ok(bytes)
    }

    /// A GNU long name, which ends at the first NUL.
    fn read_name(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        let mut name = self.read_special(size)?;
        let end = name
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    /// The map of an old GNU sparse file: in its header, and in blocks between that and its content.
    /// `None` where it cannot be read.
    fn old_map(&mut self, block: &Block) -> Result<Option<Vec<Segment>>, ArchiveError> {
        let mut segments = Vec::new();
        let mut is_fine = sparse::add_from_block(&mut segments, block, header::GNU_MAP).is_some();
        let mut more = header::has_sparse_map(block);
        let mut read = 0_u64;
        while more {
            read = read.saturating_add(BLOCK_BYTES as u64);
            if read > self.limits.pax_bytes_max {
                return Err(ArchiveError::Pax(self.limits.pax_bytes_max));
            }
            let map = self.read_block()?.ok_or(ArchiveError::TruncatedArchive)?;
            is_fine &= sparse::add_from_block(&mut segments, &map, header::MORE_MAP).is_some();
            more = header::sparse_map_goes_on(&map);
        }
        Ok(is_fine.then_some(segments))
    }

    /// The map at the start of a sparse file's content, which whole blocks hold. `None` where it
    /// cannot be read.
    fn map_in_content(&mut self) -> Result<Option<Vec<Segment>>, ArchiveError> {
        let (mut text, mut lines) = (Vec::new(), 0_usize);
        loop {
            let Some(rest) = self.content.checked_sub(BLOCK_BYTES as u64) else {
                return Ok(None);
            };
            if text.len() as u64 >= self.limits.pax_bytes_max {
                return Err(ArchiveError::Pax(self.limits.pax_bytes_max));
            }
            let block = self.read_block()?.ok_or(ArchiveError::TruncatedArchive)?;
            self.content = rest;
            text.extend_from_slice(&block);
            let parts = block.split(|byte| *byte == b'\n').count();
            lines = lines.saturating_add(parts.saturating_sub(1));
            match sparse::lines(&text) {
                Some(wanted) if lines < wanted => {}
                _ => return Ok(sparse::of_lines(&text)),
            }
        }
    }
}

/// As much of it as is left.
fn part(bytes: &[u8], left: u64) -> &[u8] {
    let length = usize::try_from(left).unwrap_or(usize::MAX);
    bytes.get(..length).unwrap_or(bytes)
}

/// The path that an entry speaks of, and what it does there: whiteouts are recognized by name,
/// whatever the entry is.
fn place(name: &[u8], kind: EntryKind) -> Result<(String, EntryKind), &'static str> {
    let path = path::clean(name)?;
    if path.is_empty() {
        let root = kind == EntryKind::Directory;
        return if root {
            Ok((path, kind))
        } else {
            Err("the path is that of the root")
        };
    }
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let Some(removed) = name.strip_prefix(WHITEOUT) else {
        return Ok((path, kind));
    };
    if name == OPAQUE {
        return Ok((directory.to_owned(), EntryKind::Opaque));
    }
    if matches!(removed, "" | "." | "..") {
        return Err("the whiteout names no file");
    }
    if directory.is_empty() && name.starts_with(AUFS) {
        // Unpackers leave them out; nothing below them is an image's file.
        return Err("the name is one of AUFS's own books");
    }
    let removed = if directory.is_empty() {
        removed.to_owned()
    } else {
        format!("{directory}/{removed}")
    };
    Ok((removed, EntryKind::Whiteout))
}

fn ignored(code: GapCode, name: &[u8], detail: impl Into<String>) -> Gap {
    let shown: String = path::escape(name).chars().take(200).collect();
    Gap::new(code, Hides::Entries, detail).at(shown)
}

fn fill(reader: &mut impl BufRead) -> Result<&[u8], ArchiveError> {
    // An interrupted read is retried; asked again, a filled buffer costs nothing.
    loop {
        match reader.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ArchiveError::Source(error)),
        }
    }
    reader.fill_buf().map_err(ArchiveError::Source)
}
