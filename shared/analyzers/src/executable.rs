//! Programs and libraries: what stands in which section or at which address.

use std::io::{Seek as _, SeekFrom};

use archive::{Entry, Reader};
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ReadCache, ReadRef as _};

use crate::File;

/// No program that carries a list of its modules is smaller: their run times alone are larger.
const BYTES_MIN: u64 = 16 << 10;

/// A program whose head was understood.
pub(crate) struct Executable<'a> {
    content: &'a ReadCache<Reader>,
    file: object::File<'a, &'a ReadCache<Reader>>,
}

/// Whether a file begins as ELF, PE or Mach-O.
pub(crate) fn is_program(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
        || head.starts_with(b"MZ")
        || [
            b"\xfe\xed\xfa\xce",
            b"\xfe\xed\xfa\xcf",
            b"\xce\xfa\xed\xfe",
            b"\xcf\xfa\xed\xfe",
        ]
        .iter()
        .any(|magic| head.starts_with(*magic))
}

/// Whether a file may carry a list of what it was built from.
pub(crate) fn may_carry_list(entry: &Entry<'_>, head: &[u8]) -> bool {
    is_program(head) && entry.size >= BYTES_MIN
}

/// The content of a file, of which only what is asked for is read.
pub(crate) fn content(file: &File) -> ReadCache<Reader> {
    let mut reader = file.reader();
    // A reader of a file of ours begins at its start; seeking there cannot go wrong.
    let _start = reader.seek(SeekFrom::Start(0));
    ReadCache::new(reader)
}

// === impl Executable ===

impl<'a> Executable<'a> {
    /// `None` where it only begins as one.
    pub(crate) fn parse(content: &'a ReadCache<Reader>) -> Option<Self> {
        let file = object::File::parse(content).ok()?;
        Some(Self { content, file })
    }

    /// Where the first section of one of these names is, and how long.
    pub(crate) fn section(&self, names: &[&str]) -> Option<(u64, u64)> {
        let section = names
            .iter()
            .find_map(|name| self.file.section_by_name(name))?;
        Some((section.address(), section.size()))
    }

    /// The content of a section of one of these names, if it is not longer than a limit.
    pub(crate) fn section_data(&self, names: &[&str], bytes_max: u64) -> Option<&'a [u8]> {
        let section = names
            .iter()
            .find_map(|name| self.file.section_by_name(name))?;
        let is_small = section.size() <= bytes_max;
        is_small.then(|| section.data().ok()).flatten()
    }

    /// So many bytes from an address. Asked for them itself, the segment would be read whole.
    pub(crate) fn at(&self, address: u64, length: u64) -> Option<&'a [u8]> {
        self.file.segments().find_map(|segment| {
            let (start, size) = segment.file_range();
            let within = address.checked_sub(segment.address())?;
            let is_inside = within.checked_add(length)? <= size;
            let at = start.checked_add(within).filter(|_| is_inside)?;
            self.content.read_bytes_at(at, length).ok()
        })
    }
}
