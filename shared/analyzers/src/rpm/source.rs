//! Bytes of a database file at any place, and numbers in them.

use std::io::{Read as _, Seek as _, SeekFrom};

use archive::Reader;

use crate::{File, Malformed, malformed};

/// The largest real header, of a package with all of Linux's firmware, has 1 MB.
pub(super) const HEADER_BYTES_MAX: u64 = 64 << 20;

/// The content of a database file, which says where in it to read next.
pub(super) struct Source {
    reader: Reader,
    pub(super) size: u64,
    /// Bytes of headers that may still be read: real ones never overlap.
    room: u64,
}

/// How a file writes numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Big,
    Little,
}

// === impl Source ===

impl Source {
    pub(super) fn new(file: &File) -> Self {
        Self {
            reader: file.reader(),
            size: file.entry.size,
            room: file.entry.size,
        }
    }

    /// Lets headers take as much more room as another file has bytes.
    pub(super) fn add_room(&mut self, other: &Self) {
        self.room = self.room.saturating_add(other.size);
    }

    /// So many bytes from a place.
    pub(super) fn read(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, Malformed> {
        let end = offset.checked_add(length as u64);
        if end.is_none_or(|end| end > self.size) {
            let detail = format!(
                "{length} bytes at {offset} are beyond its {} bytes",
                self.size
            );
            return Err(malformed(detail));
        }
        let mut bytes = vec![0; length];
        let seeked = self.reader.seek(SeekFrom::Start(offset));
        seeked.map_err(Malformed::Spilled)?;
        let read = self.reader.read_exact(&mut bytes);
        read.map_err(Malformed::Spilled)?;
        Ok(bytes)
    }

    /// Takes the room for a header of so many bytes, before anything of it is read.
    pub(super) fn take_room(&mut self, bytes: u64) -> Result<usize, Malformed> {
        if bytes > HEADER_BYTES_MAX {
            return Err(Malformed::TooLarge(bytes, HEADER_BYTES_MAX));
        }
        let Some(room) = self.room.checked_sub(bytes) else {
            let detail = "its headers have more bytes together than the file";
            return Err(malformed(detail));
        };
        self.room = room;
        usize::try_from(bytes).map_err(|_| Malformed::TooLarge(bytes, HEADER_BYTES_MAX))
    }
}

// === impl Order ===

impl Order {
    pub(super) fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = array(bytes, at)?;
        Some(match self {
            Self::Big => u16::from_be_bytes(bytes),
            Self::Little => u16::from_le_bytes(bytes),
        })
    }

    pub(super) fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = array(bytes, at)?;
        Some(match self {
            Self::Big => u32::from_be_bytes(bytes),
            Self::Little => u32::from_le_bytes(bytes),
        })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
