//! Members of a ZIP archive, as Java finds them (PKWARE's APPNOTE; Java's `ZipFile`).
//!
//! The directory at the end decides, from whose place the start follows: a program may stand before
//! the archive. It is read as a stream, and only wanted members are kept, so that an archive of any
//! number of members takes little memory.

use std::io::{self, BufRead as _, BufReader, Read, Seek, SeekFrom};

use crate::{Malformed, malformed, unpack::Room};

const END_BYTES: u64 = 22;
const END_MAGIC: &[u8] = b"PK\x05\x06";
const END64_MAGIC: &[u8] = b"PK\x06\x06";
const LOCATOR_BYTES: u64 = 20;
const LOCATOR_MAGIC: &[u8] = b"PK\x06\x07";
const MEMBER_BYTES: usize = 46;
const MEMBER_MAGIC: &[u8] = b"PK\x01\x02";
const LOCAL_BYTES: u64 = 30;
const LOCAL_MAGIC: &[u8] = b"PK\x03\x04";
const COMMENT_BYTES_MAX: u64 = 65_535;

/// The tag of sizes and places of eight bytes.
const EXTRA64: u16 = 1;

const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// Members that are looked at. The largest archives of Java's have 100,000.
const MEMBERS_MAX: u64 = 1_000_000;

/// Members that are kept.
const KEPT_MAX: usize = 20_000;

/// What an archive is read from.
pub(crate) trait Source: Read + Seek {}

impl<T: Read + Seek> Source for T {}

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Bytes that it says it has.
    pub(crate) size: u64,
    packed: u64,
    method: u16,
    /// Where its local head is.
    at: u64,
}

/// Where the directory is.
struct Directory {
    at: u64,
    length: u64,
    /// What is added to each place that the archive names.
    shift: u64,
}

/// The members that are wanted by name.
pub(crate) fn members(
    source: &mut dyn Source,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Vec<Member>, Malformed> {
    let directory = find_directory(source)?;
    seek(source, directory.at)?;
    let mut rest = BufReader::new(source.take(directory.length));
    let mut members = Vec::new();
    for number in 0_u64.. {
        if rest.fill_buf().map_err(Malformed::Spilled)?.is_empty() {
            break;
        }
        if number >= MEMBERS_MAX || members.len() >= KEPT_MAX {
            return Err(malformed(format!(
                "it has more than {MEMBERS_MAX} members, or {KEPT_MAX} that matter"
            )));
        }
        let head = read(&mut rest, MEMBER_BYTES)?;
        if !head.starts_with(MEMBER_MAGIC) {
            return Err(malformed("its directory is damaged"));
        }
        let name = read(&mut rest, u16_at(&head, 28).into())?;
        let extra = read(&mut rest, u16_at(&head, 30).into())?;
        let _comment = read(&mut rest, u16_at(&head, 32).into())?;
        let name = String::from_utf8_lossy(&name).into_owned();
        if wanted(&name) {
            members.push(member(name, &head, &extra, directory.shift));
        }
    }
    Ok(members)
}

// === impl Member ===

impl Member {
    /// Its bytes, if they are not more than `bytes_max` and there is room for them. What it is
    /// unpacked to takes room also where that turns out to be too much, or damaged.
    pub(crate) fn read(
        &self,
        source: &mut dyn Source,
        bytes_max: u64,
        room: &mut Room,
    ) -> Result<Vec<u8>, Malformed> {
        if self.size > bytes_max {
            return Err(Malformed::TooLarge(self.size, bytes_max));
        }
        if self.size > room.left() {
            return Err(room.exceeded());
        }
        seek(source, self.at)?;
        let head = read(source, usize::try_from(LOCAL_BYTES).unwrap_or_default())?;
        if !head.starts_with(LOCAL_MAGIC) {
            return Err(malformed(format!(
                "there is no `{}` where it should be",
                self.name
            )));
        }
        let skip = u64::from(u16_at(&head, 26)).saturating_add(u16_at(&head, 28).into());
        seek(
            source,
            self.at.saturating_add(LOCAL_BYTES).saturating_add(skip),
        )?;
        let packed = source.take(self.packed);
        let most = bytes_max.min(room.left()).saturating_add(1);
        let mut bytes = Vec::new();
        let read = match self.method {
            STORED => packed.take(most).read_to_end(&mut bytes),
            DEFLATED => {
                let inflate = flate2::read::DeflateDecoder::new(packed);
                inflate.take(most).read_to_end(&mut bytes)
            }
            method => {
                let detail = format!("`{}` is packed by method {method}", self.name);
                return Err(malformed(detail));
            }
        };
        let length = bytes.len() as u64;
        let fits = length <= room.left();
        room.take(length);
        read.map_err(|error| malformed(format!("`{}`: {error}", self.name)))?;
        if length > bytes_max {
            return Err(Malformed::TooLarge(length, bytes_max));
        }
        if !fits {
            return Err(room.exceeded());
        }
        Ok(bytes)
    }
}

/// The last end whose comment reaches to the end of the file.
fn find_directory(source: &mut dyn Source) -> Result<Directory, Malformed> {
    let size = source.seek(SeekFrom::End(0)).map_err(Malformed::Spilled)?;
    let tail = size.min(END_BYTES.saturating_add(COMMENT_BYTES_MAX));
    let start = size.saturating_sub(tail);
    seek(source, start)?;
    let bytes = read(source, usize::try_from(tail).unwrap_or_default())?;
    let ends = memchr::memmem::rfind_iter(&bytes, END_MAGIC);
    let is_last = |at: &usize| {
        let comment = bytes
            .len()
            .checked_sub(*at)
            .and_then(|rest| rest.checked_sub(22));
        comment.is_some_and(|comment| {
            let end = bytes.get(*at..).unwrap_or_default();
            usize::from(u16_at(end, 20)) == comment
        })
    };
    let mut ends = ends;
    let Some(found) = ends.find(is_last) else {
        return Err(malformed("it is no ZIP archive, or its end is missing"));
    };
    let end = bytes.get(found..).unwrap_or_default();
    let end_at = start.saturating_add(found as u64);
    let (length, at) = (u32_at(end, 12), u32_at(end, 16));
    let is_full = u16_at(end, 10) == u16::MAX || length == u32::MAX || at == u32::MAX;
    if is_full && let Some(directory) = find_directory64(source, end_at)? {
        return Ok(directory);
    }
    directory(end_at, length.into(), at.into())
}

fn find_directory64(source: &mut dyn Source, end_at: u64) -> Result<Option<Directory>, Malformed> {
    let Some(locator_at) = end_at.checked_sub(LOCATOR_BYTES) else {
        return Ok(None);
    };
    seek(source, locator_at)?;
    let locator = read(source, 20)?;
    if !locator.starts_with(LOCATOR_MAGIC) {
        return Ok(None);
    }
    let end_at = u64_at(&locator, 8);
    if end_at > locator_at {
        return Err(malformed("its end is said to be behind its end"));
    }
    seek(source, end_at)?;
    let end = read(source, 56)?;
    if !end.starts_with(END64_MAGIC) {
        return Err(malformed("its end is missing"));
    }
    directory(end_at, u64_at(&end, 40), u64_at(&end, 48)).map(Some)
}

/// The directory ends where its end begins.
fn directory(end_at: u64, length: u64, said_at: u64) -> Result<Directory, Malformed> {
    let at = end_at.checked_sub(length);
    let shift = at.and_then(|at| at.checked_sub(said_at));
    match (at, shift) {
        (Some(at), Some(shift)) => Ok(Directory { at, length, shift }),
        _ => Err(malformed(
            "its directory is larger than what stands before its end",
        )),
    }
}

fn member(name: String, head: &[u8], extra: &[u8], shift: u64) -> Member {
    let mut fields = [u32_at(head, 24), u32_at(head, 20), u32_at(head, 42)].map(u64::from);
    // What does not fit stands in an extra field, in this order.
    let mut large = extra64(extra).chunks_exact(8);
    for field in &mut fields {
        if *field == u64::from(u32::MAX) {
            *field = large.next().map_or(*field, |bytes| u64_at(bytes, 0));
        }
    }
    let [size, packed, at] = fields;
    Member {
        name,
        size,
        packed,
        method: u16_at(head, 10),
        at: at.saturating_add(shift),
    }
}

fn extra64(mut extra: &[u8]) -> &[u8] {
    while let Some((head, rest)) = extra.split_at_checked(4) {
        let length = usize::from(u16_at(head, 2));
        let Some((value, next)) = rest.split_at_checked(length) else {
            break;
        };
        if u16_at(head, 0) == EXTRA64 {
            return value;
        }
        extra = next;
    }
    &[]
}

fn seek(source: &mut dyn Source, at: u64) -> Result<(), Malformed> {
    source
        .seek(SeekFrom::Start(at))
        .map_err(Malformed::Spilled)?;
    Ok(())
}

fn read(source: &mut (impl Read + ?Sized), length: usize) -> Result<Vec<u8>, Malformed> {
    let mut bytes = vec![0; length];
    match source.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(malformed("it ends too early"))
        }
        Err(error) => Err(Malformed::Spilled(error)),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    array(bytes, at).map_or(0, u64::from_le_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
