//! The form of a segment file: records one after another, each `length` (4 bytes), `checksum`
//! (4, over sequence and item), `sequence` (8), item; little endian.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;

pub(super) const HEADER: u64 = 16;
/// No item is larger: NATS would not take it.
pub(super) const ITEM_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) sequence: u64,
    pub(crate) body: Bytes,
}

/// What stands before an item.
struct Header {
    length: usize,
    sum: u32,
    sequence: u64,
}

/// Reads the records of a file.
#[derive(Debug)]
pub(super) struct Records {
    file: BufReader<File>,
    /// Where the next record starts.
    pub(super) offset: u64,
}

/// What stands at an offset.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum At {
    Item(Item),
    /// The end of the file, exactly.
    End,
    /// Something that is no record.
    Broken,
}

/// The file of a segment whose first record is `first`.
pub(super) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.seg"))
}

/// The first sequence of a segment file's name.
pub(super) fn first_of(name: &str) -> Option<u64> {
    name.strip_suffix(".seg")?.parse().ok()
}

/// Appends a record to a buffer.
pub(super) fn push(out: &mut Vec<u8>, sequence: u64, body: &[u8]) {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&checksum(sequence, body).to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(body);
}

fn checksum(sequence: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

// === impl Header ===

impl Header {
    fn parse(bytes: [u8; 16]) -> Self {
        // Four numbers of four bytes; the sequence is the last two.
        let (numbers, _) = bytes.as_chunks::<4>();
        let number = |at: usize| {
            numbers
                .get(at)
                .map_or(0, |number| u32::from_le_bytes(*number))
        };
        Self {
            length: number(0) as usize,
            sum: number(1),
            sequence: u64::from(number(3)) << 32 | u64::from(number(2)),
        }
    }
}

// === impl Records ===

impl Records {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: BufReader::with_capacity(256 * 1024, File::open(path)?),
            offset: 0,
        })
    }

    /// The record that must have sequence `expected`. After `Broken` the position is undefined.
    pub(super) fn next(&mut self, expected: u64) -> io::Result<At> {
        let mut header = [0; 16];
        match fill(&mut self.file, &mut header)? {
            0 => return Ok(At::End),
            16 => {}
            _ => return Ok(At::Broken),
        }
        let Header {
            length,
            sum,
            sequence,
        } = Header::parse(header);
        if length > ITEM_BYTES_MAX || sequence != expected {
            return Ok(At::Broken);
        }
        let mut body = vec![0; length];
        if fill(&mut self.file, &mut body)? != length || checksum(sequence, &body) != sum {
            return Ok(At::Broken);
        }
        self.offset += HEADER + length as u64;
        Ok(At::Item(Item {
            sequence,
            body: body.into(),
        }))
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Whether a whole record stands anywhere in `bytes`: then what is broken before it is damage, and
/// not the end of a write that a crash cut off.
pub(super) fn holds_record(bytes: &[u8], above: u64) -> bool {
    (0..bytes.len()).any(|start| {
        let Some(rest) = bytes.get(start..) else {
            return false;
        };
        let Some((header, rest)) = rest.split_first_chunk::<16>() else {
            return false;
        };
        let Header {
            length,
            sum,
            sequence,
        } = Header::parse(*header);
        let plausible = sequence > above && sequence - above < 1 << 32 && length <= ITEM_BYTES_MAX;
        plausible
            && rest
                .get(..length)
                .is_some_and(|body| checksum(sequence, body) == sum)
    })
}
