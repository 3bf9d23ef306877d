//! The thread that writes: recovers what is there, appends in groups, unlinks what is delivered.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    Shared, SpoolError,
    segment::{self, At, HEADER, Records},
    signed,
};
use crate::metrics::metrics;

/// At most so much goes to disk at once.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
const GROUP_ITEMS_MAX: usize = 1_024;

/// What the thread is asked to do.
pub(super) enum Command {
    Append {
        item: Bytes,
        reply: Reply,
    },
    /// The cursor moved.
    Commit,
}

type Reply = oneshot::Sender<Result<u64, SpoolError>>;

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// The segment that is written.
    file: File,
    first: u64,
    size: u64,
    /// A write went wrong and could not be taken back: the segment ends here.
    spoiled: bool,
    /// The sequence of the next item.
    next: u64,
    cursor: File,
    cursor_written: u64,
}

// === impl Writer ===

impl Writer {
    /// Reads what a former process left.
    pub(super) fn recover(shared: Arc<Shared>) -> Result<Self, SpoolError> {
        let dir = shared.dir.clone();
        let mut cursor = open(&dir.join("cursor"))?;
        let delivered = read_cursor(&mut cursor)?;
        let mut firsts = Vec::new();
        for entry in fs::read_dir(&dir)? {
            firsts.extend(entry?.file_name().to_str().and_then(segment::first_of));
        }
        firsts.sort_unstable();
        let mut next = delivered + 1;
        for first in &firsts {
            let path = segment::path(&dir, *first);
            // Only the last file can end in the middle of a write; others are looked at when they
            // are read.
            if Some(first) == firsts.last() {
                next = next.max(recover_last(&path, *first)?);
            }
            let size = fs::metadata(&path)?.len();
            shared.segments().insert(*first, size);
            shared.bytes.fetch_add(size, Ordering::AcqRel);
        }
        // What stands before the first file was delivered, even if the cursor was not written.
        let delivered = delivered.max(firsts.first().map_or(0, |first| first - 1));
        shared.cursor.store(delivered, Ordering::Release);
        shared.durable.send_replace(next - 1);
        Ok(Self {
            file: begin(&shared, next)?,
            first: next,
            size: 0,
            spoiled: false,
            next,
            cursor,
            cursor_written: 0,
            shared,
        })
    }

    pub(super) fn run(mut self, mut incoming: mpsc::Receiver<Command>) {
        self.clear();
        while let Some(command) = incoming.blocking_recv() {
            let (mut group, mut bytes, mut commit) = (Vec::new(), 0, false);
            let mut next = Some(command);
            while let Some(command) = next {
                match command {
                    Command::Append { item, reply } => {
                        bytes += item.len();
                        group.push((item, reply));
                    }
                    Command::Commit => commit = true,
                }
                let more = group.len() < GROUP_ITEMS_MAX && bytes < GROUP_BYTES_MAX;
                next = more.then(|| incoming.try_recv().ok()).flatten();
            }
            if !group.is_empty() {
                self.append(group);
            }
            if commit {
                self.clear();
            }
        }
    }

    /// Writes a group, syncs once, and answers all.
    fn append(&mut self, group: Vec<(Bytes, Reply)>) {
        let mut out = Vec::new();
        for (sequence, (item, _)) in (self.next..).zip(&group) {
            segment::push(&mut out, sequence, item);
        }
        let size = out.len() as u64;
        let count = group.len() as u64;
        if let Err(error) = self.write(&out) {
            self.shared.give_back(size);
            let kind = error.kind();
            tracing::debug!(%error, "spool: cannot write: {error}");
            for (_, reply) in group {
                // Who asked may be gone.
                let _gone = reply
                    .send(Err(io::Error::new(kind, error.to_string()).into()))
                    .is_err();
            }
            return;
        }
        let first = self.next;
        self.next += count;
        self.size += size;
        self.shared.segments().insert(self.first, self.size);
        self.shared.durable.send_replace(self.next - 1);
        for (sequence, (_, reply)) in (first..).zip(group) {
            let _gone = reply.send(Ok(sequence)).is_err();
        }
    }

    fn write(&mut self, out: &[u8]) -> io::Result<()> {
        let full = self.size > 0 && self.size + out.len() as u64 > self.shared.segment_bytes;
        if full || self.spoiled {
            self.roll()?;
        }
        let written = self
            .file
            .write_all(out)
            .and_then(|()| self.file.sync_data());
        if written.is_err() {
            // What is there of it must not stand before what comes next.
            let taken_back = self
                .file
                .set_len(self.size)
                .and_then(|()| self.file.seek(SeekFrom::Start(self.size)));
            self.spoiled = taken_back.is_err();
        }
        written
    }

    fn roll(&mut self) -> io::Result<()> {
        self.file = begin(&self.shared, self.next)?;
        (self.first, self.size, self.spoiled) = (self.next, 0, false);
        Ok(())
    }

    fn clear(&mut self) {
        if let Err(error) = self.try_clear() {
            tracing::warn!(%error, "spool: clearing delivered items: {error}");
        }
    }

    /// Unlinks segments that are delivered as a whole, and writes the cursor. In this order, since a
    /// full disk takes no cursor before something is unlinked; what stands before the first segment
    /// was delivered in any case.
    fn try_clear(&mut self) -> io::Result<()> {
        let cursor = self.shared.cursor.load(Ordering::Acquire);
        self.unlink(cursor)?;
        if cursor + 1 >= self.next && self.size > 0 {
            self.roll()?;
            self.unlink(cursor)?;
        }
        if cursor != self.cursor_written {
            write_cursor(&mut self.cursor, cursor)?;
            self.cursor_written = cursor;
        }
        Ok(())
    }

    fn unlink(&self, cursor: u64) -> io::Result<()> {
        let delivered: Vec<(u64, u64)> = {
            let segments = self.shared.segments();
            let ends = segments.keys().skip(1).map(|first| first - 1);
            let whole = segments.iter().zip(ends).filter(|(_, end)| *end <= cursor);
            whole.map(|((first, size), _)| (*first, *size)).collect()
        };
        for (first, size) in delivered {
            fs::remove_file(segment::path(&self.shared.dir, first))?;
            self.shared.segments().remove(&first);
            self.shared.give_back(size);
            metrics().spool(0, -signed(size));
        }
        Ok(())
    }
}

/// Begins a segment. A file of that name holds nothing that was acknowledged.
fn begin(shared: &Shared, first: u64) -> io::Result<File> {
    let file = open(&segment::path(&shared.dir, first))?;
    file.set_len(0)?;
    File::open(&shared.dir)?.sync_all()?;
    shared.segments().insert(first, 0);
    Ok(file)
}

/// Reads the last file to its end and cuts off what is no record. Gives the next sequence.
fn recover_last(path: &Path, first: u64) -> io::Result<u64> {
    let mut records = Records::open(path)?;
    let mut next = first;
    loop {
        match records.next(next)? {
            At::Item(_) => next += 1,
            At::End => return Ok(next),
            At::Broken => break,
        }
    }
    let good = records.offset;
    let last = set_aside(path, good, next, true)?;
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(good)?;
    file.sync_all()?;
    Ok(last.max(next))
}

/// Keeps what stands from an offset on if there are records in it; says so. At the end of the last
/// file there usually is none: a write was cut off. Gives a sequence above all that was seen.
pub(super) fn set_aside(path: &Path, from: u64, expected: u64, last: bool) -> io::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut rest = Vec::new();
    file.take(2 * super::SEGMENT_BYTES).read_to_end(&mut rest)?;
    if last && !segment::holds_record(&rest, expected) {
        tracing::info!("spool: `{}` ended in the middle of a write", path.display());
        return Ok(expected);
    }
    let aside = path.with_extension(format!("{from}.corrupt"));
    fs::write(&aside, &rest)?;
    tracing::error!(
        "spool: `{}` is damaged at {from}; {} bytes from there on are not delivered and kept in \
         `{}`",
        path.display(),
        rest.len(),
        aside.display()
    );
    Ok(expected + rest.len() as u64 / HEADER)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// A cursor that is not whole counts as none: items come again, none is lost.
fn read_cursor(file: &mut File) -> io::Result<u64> {
    let mut bytes = Vec::new();
    file.take(16).read_to_end(&mut bytes)?;
    let Some((cursor, sum)) = bytes.split_first_chunk::<8>() else {
        return Ok(0);
    };
    let whole = sum == crc32fast::hash(cursor).to_le_bytes();
    Ok(if whole {
        u64::from_le_bytes(*cursor)
    } else {
        0
    })
}

/// Not synced: an old cursor costs a second delivery under the same id and nothing else.
fn write_cursor(file: &mut File, cursor: u64) -> io::Result<()> {
    let bytes = cursor.to_le_bytes();
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&[bytes.as_slice(), &crc32fast::hash(&bytes).to_le_bytes()].concat())
}
