//! Archives inside of an image, and archives inside of those: their members, within a budget.

use std::io::{self, BufRead, Cursor, Read};

use archive::{ArchiveError, Inflate, Limits, Walk, Walked};
use model::{EntryKind, Gap, GapCode, Hides};

use crate::{Found, Malformed, malformed, unpack::Room, zip};

/// Bytes of an archive in an archive, which is unpacked in memory.
const INNER_BYTES_MAX: u64 = 64 << 20;

const BUFFER_BYTES: usize = 64 << 10;

const ENDS: &[&str] = &[
    ".zip", ".jar", ".war", ".ear", ".tar", ".tar.gz", ".tgz", ".tar.zst",
];

/// What is done with a member that is no archive: its path, its bytes.
type Members<'a> = dyn FnMut(&str, &[u8], &mut Found) + 'a;

/// One file with all archives in it.
#[derive(Debug)]
pub struct Archives<'a> {
    limits: &'a Limits,
    /// What is hidden when one cannot be read.
    hides: Hides,
    /// Bytes of a member.
    member_bytes_max: u64,
    /// Which members are unpacked, by their paths.
    is_wanted: fn(&str) -> bool,
    /// Levels that may still be opened.
    depth: u32,
    room: Room,
}

/// An inflated stream with a buffer.
struct Plain<R> {
    inflate: Inflate<R>,
    /// Bytes that may still pass.
    left: u64,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

// === impl Archives ===

impl<'a> Archives<'a> {
    /// Members of up to so many bytes whose path is wanted. What cannot be read hides `hides`.
    pub fn new(
        limits: &'a Limits,
        hides: Hides,
        member_bytes_max: u64,
        is_wanted: fn(&str) -> bool,
    ) -> Self {
        Self {
            limits,
            hides,
            member_bytes_max,
            is_wanted,
            depth: limits.nesting_max,
            room: Room::new(0),
        }
    }

    /// Hands on the members of an archive; what cannot be read of it is a gap.
    ///
    /// # Errors
    ///
    /// Where the archives before it in the layer took all that archives may.
    pub fn read(
        self,
        path: &str,
        bytes: &[u8],
        members: &mut Members<'_>,
        found: &mut Found,
    ) -> Result<(), Malformed> {
        let room = found.room_to_unpack(bytes.len() as u64)?;
        let room = self.read_within(room, (path, bytes), members, found);
        found.add_unpacked(&room);
        Ok(())
    }

    /// The same within a room; gives what is left of it.
    pub(crate) fn read_within(
        mut self,
        room: Room,
        (path, bytes): (&str, &[u8]),
        members: &mut Members<'_>,
        found: &mut Found,
    ) -> Room {
        self.room = room;
        self.archive(path, bytes, members, found);
        self.room
    }

    fn archive(&mut self, path: &str, bytes: &[u8], members: &mut Members<'_>, found: &mut Found) {
        let Some(depth) = self.depth.checked_sub(1) else {
            let detail = format!(
                "archives in archives, deeper than {}",
                self.limits.nesting_max
            );
            found.add_gap(Gap::new(GapCode::LimitNesting, self.hides, detail).at(path));
            return;
        };
        self.depth = depth;
        let read = if bytes.starts_with(b"PK") {
            self.zip(path, bytes, members, found)
        } else {
            self.tar(path, bytes, members, found)
        };
        self.depth = self.depth.saturating_add(1);
        if let Err(error) = read {
            let gap = Gap::new(error.gap_code(), self.hides, error.to_string());
            found.add_gap(gap.at(path));
        }
    }

    fn zip(
        &mut self,
        path: &str,
        bytes: &[u8],
        members: &mut Members<'_>,
        found: &mut Found,
    ) -> Result<(), Malformed> {
        let mut source = Cursor::new(bytes);
        let wanted = self.is_wanted;
        let is_wanted = |name: &str| is_archive(name) || wanted(name);
        for member in zip::members(&mut source, &is_wanted)? {
            if member.name.ends_with('/') {
                continue;
            }
            let most = if is_archive(&member.name) {
                INNER_BYTES_MAX
            } else {
                self.member_bytes_max
            };
            let inner = format!("{path}!/{}", member.name);
            match member.read(&mut source, most, &mut self.room) {
                Ok(bytes) => self.member(&inner, &bytes, members, found),
                Err(error) => {
                    let gap = Gap::new(error.gap_code(), self.hides, error.to_string());
                    found.add_gap(gap.at(inner));
                }
            }
        }
        Ok(())
    }

    fn tar(
        &mut self,
        path: &str,
        bytes: &[u8],
        members: &mut Members<'_>,
        found: &mut Found,
    ) -> Result<(), Malformed> {
        let inflate =
            Inflate::open(bytes, self.limits).map_err(|error| malformed(error.to_string()))?;
        let mut walk = Walk::new(Plain::new(inflate, self.room.left()), self.limits);
        loop {
            let walked = walk.next_entry();
            self.passed(&mut walk);
            let Some(walked) = walked.map_err(|error| self.damaged(&error))? else {
                return Ok(());
            };
            let Walked::Entry(entry) = walked else {
                continue;
            };
            let is_inner = is_archive(&entry.path);
            let most = if is_inner {
                INNER_BYTES_MAX
            } else {
                self.member_bytes_max
            };
            let is_wanted = is_inner || (self.is_wanted)(&entry.path);
            if entry.kind != EntryKind::File || !is_wanted {
                continue;
            }
            let inner = format!("{path}!/{}", entry.path);
            if entry.size > most {
                let error = Malformed::TooLarge(entry.size, most);
                found.add_gap(Gap::new(error.gap_code(), self.hides, error.to_string()).at(inner));
                continue;
            }
            let content = whole(&mut walk);
            self.passed(&mut walk);
            let content = content.map_err(|error| self.damaged(&error))?;
            self.member(&inner, &content, members, found);
            // Archives in it take of the same room.
            walk.reader_mut().left = self.room.left();
        }
    }

    /// What passed was unpacked, whether or not it is looked at.
    fn passed<R: Read>(&mut self, walk: &mut Walk<Plain<R>>) {
        let left = walk.reader_mut().left;
        self.room.take(self.room.left().saturating_sub(left));
    }

    fn damaged(&self, error: &ArchiveError) -> Malformed {
        if self.room.left() == 0 {
            self.room.exceeded()
        } else {
            malformed(error.to_string())
        }
    }

    fn member(&mut self, path: &str, bytes: &[u8], members: &mut Members<'_>, found: &mut Found) {
        let is_packed = [b"PK\x03\x04".as_slice(), b"\x1f\x8b", b"\x28\xb5\x2f\xfd"]
            .iter()
            .any(|magic| bytes.starts_with(magic));
        let head = bytes.get(..1024).unwrap_or(bytes);
        if is_archive(path) && (is_packed || head.get(257..262) == Some(b"ustar".as_slice())) {
            self.archive(path, bytes, members, found);
        } else {
            members(path, bytes, found);
        }
    }
}

/// The rest of the current entry.
fn whole(walk: &mut Walk<impl BufRead>) -> Result<Vec<u8>, ArchiveError> {
    let mut content = Vec::new();
    while let Some(chunk) = walk.chunk()? {
        content.extend_from_slice(chunk);
    }
    Ok(content)
}

fn is_archive(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    ENDS.iter().any(|end| path.ends_with(end))
}

// === impl Plain ===

impl<R: Read> Plain<R> {
    fn new(inflate: Inflate<R>, left: u64) -> Self {
        Self {
            inflate,
            left,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
        }
    }
}

impl<R: Read> BufRead for Plain<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start >= self.end {
            // One byte more than there may be tells whether there are more.
            let most = usize::try_from(self.left.saturating_add(1)).unwrap_or(BUFFER_BYTES);
            let buffer = self.buffer.get_mut(..most.min(BUFFER_BYTES));
            let filled = self.inflate.fill(buffer.unwrap_or_default());
            (self.start, self.end) = (0, filled.map_err(io::Error::other)?);
            let left = self.left.checked_sub(self.end as u64);
            self.left = left.unwrap_or_default();
            if left.is_none() {
                self.end = 0;
                return Err(io::Error::other("more than it may be unpacked to"));
            }
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, bytes: usize) {
        self.start = self.start.saturating_add(bytes).min(self.end);
    }
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(out)?;
        self.consume(length);
        Ok(length)
    }
}
