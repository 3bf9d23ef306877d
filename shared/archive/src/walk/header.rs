//! The fixed header block of a tar entry: ustar, GNU and the oldest form.

use std::ops::Range;

use model::EntryKind;

use crate::ArchiveError;

/// Tar comes in blocks of this size.
pub(super) const BLOCK_BYTES: usize = 512;

/// A block.
pub(super) type Block = [u8; BLOCK_BYTES];

/// What the type flag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    File,
    /// A file of the oldest form, or a directory if its name ends in a slash.
    OldFile,
    Hardlink,
    Symlink,
    Special,
    Directory,
    GnuSparse,
    Pax,
    PaxGlobal,
    GnuName,
    GnuLink,
}

/// A header, before extended headers change it.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) kind: Type,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
}

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: Range<usize> = 156..157;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const DEVICE_MAJOR: Range<usize> = 329..337;
const DEVICE_MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_TRAILER: Range<usize> = 508..512;
const GNU_ATIME: Range<usize> = 345..357;
const GNU_CTIME: Range<usize> = 357..369;
/// The first places of a sparse file's map, in its header.
pub(super) const GNU_MAP: Range<usize> = 386..482;
/// The places of a block with more of the map.
pub(super) const MORE_MAP: Range<usize> = 0..504;
const GNU_IS_EXTENDED: Range<usize> = 482..483;
const GNU_REAL_SIZE: Range<usize> = 483..495;
const MAP_IS_EXTENDED: Range<usize> = 504..505;

// === impl Type ===

impl Type {
    fn of(flag: u8) -> Self {
        match flag {
            0 => Self::OldFile,
            b'1' => Self::Hardlink,
            b'2' => Self::Symlink,
            b'3' | b'4' | b'6' => Self::Special,
            b'5' => Self::Directory,
            b'S' => Self::GnuSparse,
            b'x' => Self::Pax,
            b'g' => Self::PaxGlobal,
            b'L' => Self::GnuName,
            b'K' => Self::GnuLink,
            // POSIX: what a reader does not know is a file.
            _ => Self::File,
        }
    }

    /// Whether the size field tells of bytes that follow. For the others it is ignored, whatever
    /// it says: a reader that believes it loses its place.
    pub(super) fn has_content(self) -> bool {
        !matches!(
            self,
            Self::Hardlink | Self::Symlink | Self::Special | Self::Directory
        )
    }

    pub(super) fn entry_kind(self, is_directory: bool) -> EntryKind {
        match self {
            _ if is_directory => EntryKind::Directory,
            Self::Hardlink => EntryKind::Hardlink,
            Self::Symlink => EntryKind::Symlink,
            Self::Special => EntryKind::Special,
            _ => EntryKind::File,
        }
    }
}

// === impl Header ===

impl Header {
    pub(super) fn parse(block: &Block) -> Result<Self, ArchiveError> {
        check_sum(block)?;
        let magic = field(block, MAGIC);
        let (is_gnu, is_ustar) = (magic == b"ustar  \0", magic.starts_with(b"ustar\0"));
        if is_ustar || is_gnu {
            // Not used here, but an unpacker stops at them.
            number(field(block, DEVICE_MAJOR))?;
            number(field(block, DEVICE_MINOR))?;
        }
        number(field(block, MTIME))?;
        let prefix = if is_ustar && field(block, STAR_TRAILER) == b"tar\0" {
            text(field(block, STAR_PREFIX))
        } else if is_ustar || (is_gnu && !has_gnu_times(block)) {
            text(field(block, PREFIX))
        } else {
            b""
        };
        let prefix = if is_gnu && !prefix.is_ascii() {
            b""
        } else {
            prefix
        };
        let mut name = Vec::with_capacity(256);
        if !prefix.is_empty() {
            name.extend_from_slice(prefix);
            name.push(b'/');
        }
        name.extend_from_slice(text(field(block, NAME)));
        let size = number(field(block, SIZE))?;
        Ok(Self {
            kind: Type::of(field(block, TYPE).first().copied().unwrap_or_default()),
            name,
            link: text(field(block, LINK)).to_vec(),
            mode: u32::try_from(number(field(block, MODE))? & 0o7777).unwrap_or_default(),
            uid: number(field(block, UID))?.cast_unsigned(),
            gid: number(field(block, GID))?.cast_unsigned(),
            size: u64::try_from(size)
                .map_err(|_| ArchiveError::BadHeader("the size of an entry is negative"))?,
        })
    }
}

/// A number of a sparse file's map.
pub(super) fn unsigned(field: &[u8]) -> Option<u64> {
    u64::try_from(number(field).ok()?).ok()
}

/// The size of a sparse file with its holes.
pub(super) fn real_size(block: &Block) -> Result<u64, ArchiveError> {
    let size = number(field(block, GNU_REAL_SIZE))?;
    u64::try_from(size).map_err(|_| ArchiveError::BadHeader("the size of an entry is negative"))
}

/// Whether blocks of a sparse map follow the header.
pub(super) fn has_sparse_map(block: &Block) -> bool {
    field(block, GNU_IS_EXTENDED) != b"\0"
}

/// Whether another block of the sparse map follows this one.
pub(super) fn sparse_map_goes_on(block: &Block) -> bool {
    field(block, MAP_IS_EXTENDED) != b"\0"
}

fn field(block: &Block, range: Range<usize>) -> &[u8] {
    block.get(range).unwrap_or_default()
}

/// Text up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Old writers of the GNU form put a prefix where the times belong; readers notice because it is
/// no number, and take it for a prefix.
fn has_gnu_times(block: &Block) -> bool {
    [GNU_ATIME, GNU_CTIME].into_iter().all(|range| {
        let time = field(block, range);
        time.first() == Some(&0) || number(time).is_ok()
    })
}

/// The sum over the block with the checksum itself taken as blanks, of unsigned or of signed bytes.
fn check_sum(block: &Block) -> Result<(), ArchiveError> {
    const BLANKS: u32 = 8 * b' ' as u32;
    let bytes = block
        .iter()
        .enumerate()
        .filter(|(at, _)| !CHECKSUM.contains(at));
    let (unsigned, high) = bytes.fold((BLANKS, 0_u32), |(sum, high), (_, byte)| {
        let is_high = u32::from(*byte >= 0x80);
        (
            sum.saturating_add(u32::from(*byte)),
            high.saturating_add(is_high),
        )
    });
    let signed = i64::from(unsigned).saturating_sub(i64::from(high).saturating_mul(256));
    let expected = number(field(block, CHECKSUM))?;
    if expected == i64::from(unsigned) || expected == signed {
        Ok(())
    } else {
        Err(ArchiveError::BadHeader(
            "the checksum of a header does not fit",
        ))
    }
}

/// A number, octal or in base 256.
fn number(field: &[u8]) -> Result<i64, ArchiveError> {
    let bad = || ArchiveError::BadHeader("a number in a header cannot be read");
    let Some(first) = field.first().copied() else {
        return Ok(0);
    };
    if first & 0x80 == 0 {
        let start = field.iter().position(|byte| !matches!(byte, b' ' | 0));
        let Some(start) = start else { return Ok(0) };
        let end = field
            .iter()
            .rposition(|byte| !matches!(byte, b' ' | 0))
            .unwrap_or(start);
        let digits = field.get(start..=end).unwrap_or_default();
        // Bytes behind a NUL belong to nobody; readers stop there.
        let digits = text(digits);
        return digits.iter().try_fold(0_i64, |value, digit| match digit {
            b'0'..=b'7' => value
                .checked_mul(8)
                .and_then(|value| value.checked_add(i64::from(digit & 7)))
                .ok_or_else(bad),
            _ => Err(bad()),
        });
    }
    // Two's complement; the highest bit only marks the form, the next one is the sign.
    let negative = first & 0x40 != 0;
    let start = if negative { -1_i64 } else { 0 };
    let mut value = start;
    for (at, byte) in field.iter().enumerate() {
        let byte = match at {
            0 if negative => *byte | 0x80,
            0 => *byte & 0x7f,
            _ => *byte,
        };
        let shifted = value.checked_mul(256).ok_or_else(bad)?;
        value = shifted | i64::from(byte);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        let check = |field: &[u8], expected: Option<i64>| {
            assert_eq!(number(field).ok(), expected, "{field:?}");
        };
        check(b"0000644\0", Some(0o644));
        check(b" 644 \0\0\0", Some(0o644));
        check(b"\0\0\0\0", Some(0));
        check(b"12\0x", Some(0o12));
        check(b"0000648\0", None);
        check(b"-1\0", None);
        check(b"\x80\0\0\0\0\0\x01\0", Some(256));
        check(&[0xff; 12], Some(-1));
        check(
            b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
            Some(i64::MAX),
        );
        check(b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None);
        check(&[b'7'; 24], None);
    }
}
