//! What a file is that was opened to be run: that says which file the kernel opens next.

use std::{fs::File, os::unix::fs::FileExt as _};

/// Bytes of a file's beginning that are looked at, and of its table of segments.
const HEAD_BYTES: usize = 512;
const SEGMENTS_BYTES_MAX: usize = 8 << 10;
/// A segment that names the loader (elf(5)).
const PT_INTERP: u64 = 3;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Machine code that runs as it is: a static program, or a loader.
    Static,
    /// Machine code that asks for a loader, which is opened next.
    Dynamic,
    /// `#!`: its interpreter is opened next.
    Script,
    /// Nothing that the kernel runs by itself. A shell may.
    Other,
}

/// Numbers as a file writes them.
struct Elf {
    is_wide: bool,
    is_little: bool,
}

// === impl Kind ===

impl Kind {
    pub(super) fn of(file: &File) -> Self {
        let mut head = [0; HEAD_BYTES];
        let count = file.read_at(&mut head, 0).unwrap_or(0);
        let head = head.get(..count).unwrap_or_default();
        if head.starts_with(b"#!") {
            return Self::Script;
        }
        if !head.starts_with(b"\x7fELF") {
            return Self::Other;
        }
        if asks_for_loader(file, head) == Some(true) {
            Self::Dynamic
        } else {
            Self::Static
        }
    }
}

/// `None` where the header is cut off: the kernel does not run that.
fn asks_for_loader(file: &File, head: &[u8]) -> Option<bool> {
    let elf = Elf {
        is_wide: *head.get(4)? == 2,
        is_little: *head.get(5)? != 2,
    };
    let (at, size, count) = if elf.is_wide {
        (
            elf.at(head, 32, 8)?,
            elf.at(head, 54, 2)?,
            elf.at(head, 56, 2)?,
        )
    } else {
        (
            elf.at(head, 28, 4)?,
            elf.at(head, 42, 2)?,
            elf.at(head, 44, 2)?,
        )
    };
    let size = usize::try_from(size).ok()?.max(4);
    let bytes = size.checked_mul(usize::try_from(count).ok()?)?;
    let mut segments = vec![0; bytes.min(SEGMENTS_BYTES_MAX)];
    let read = file.read_at(&mut segments, at).ok()?;
    let mut kinds = segments.get(..read)?.chunks(size);
    Some(kinds.any(|segment| elf.at(segment, 0, 4) == Some(PT_INTERP)))
}

// === impl Elf ===

impl Elf {
    fn at(&self, bytes: &[u8], at: usize, length: usize) -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(length)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.is_little {
            bytes.iter().rev().fold(0, add)
        } else {
            bytes.iter().fold(0, add)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn kind(bytes: &[u8]) -> Kind {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Kind::of(&file)
    }

    /// A program with two segments, of which the second is of this kind.
    fn elf(is_wide: bool, is_little: bool, segment: u8) -> Vec<u8> {
        let mut bytes = vec![0; 256];
        bytes[..6].copy_from_slice(b"\x7fELF\x01\x01");
        let mut put = |at: usize, length: usize, value: u8| {
            bytes[if is_little { at } else { at + length - 1 }] = value;
        };
        let size = if is_wide {
            put(32, 8, 64);
            put(54, 2, 56);
            put(56, 2, 2);
            56
        } else {
            put(28, 4, 64);
            put(42, 2, 32);
            put(44, 2, 2);
            32
        };
        put(64, 4, 1);
        put(64 + size, 4, segment);
        bytes[4] = if is_wide { 2 } else { 1 };
        bytes[5] = if is_little { 1 } else { 2 };
        bytes
    }

    #[test]
    fn a_file_is_known_by_how_it_begins() {
        assert_eq!(kind(b"#!/bin/sh\n"), Kind::Script);
        assert_eq!(kind(b"echo\n"), Kind::Other);
        assert_eq!(kind(b""), Kind::Other);
        for (is_wide, is_little) in [(true, true), (true, false), (false, true), (false, false)] {
            assert_eq!(kind(&elf(is_wide, is_little, 3)), Kind::Dynamic);
            assert_eq!(kind(&elf(is_wide, is_little, 2)), Kind::Static);
        }
        let own = File::open("/proc/self/exe").unwrap();
        assert_eq!(Kind::of(&own), Kind::Dynamic);
    }

    #[test]
    fn a_header_that_is_cut_off_or_lies_is_no_program_with_a_loader() {
        let whole = elf(true, true, 3);
        for end in 4..120 {
            assert_eq!(kind(&whole[..end]), Kind::Static, "{end}");
        }
        let mut lies = whole;
        lies[32..40].fill(0xff);
        lies[54..58].fill(0xff);
        assert_eq!(kind(&lies), Kind::Static);
    }
}
