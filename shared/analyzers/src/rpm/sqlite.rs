//! `rpmdb.sqlite`: the table `Packages` of an `SQLite` database (its "Database File Format").
//!
//! A library would bring all of SQL to hostile bytes, views and triggers with it. Three things are
//! needed here: the pages, of which a write-ahead log may hold newer ones; the tree of a table; and
//! the values of a row.

use std::collections::{HashMap, HashSet};

use super::source::{Order, Source};
use crate::{Malformed, malformed};

const MAGIC: &[u8] = b"SQLite format 3\0";
const FILE_HEAD: usize = 100;
const INTERIOR: u8 = 5;
const LEAF: u8 = 13;

/// A tree of pages of 512 bytes that holds 2^32 rows has fewer levels.
const DEPTH_MAX: usize = 32;

/// Columns that are looked at: those of `sqlite_schema`.
const COLUMNS_MAX: usize = 5;

const LOG_HEAD: usize = 32;
const FRAME_HEAD: usize = 24;

/// A file's pages, as its log has them.
struct Pages {
    source: Source,
    log: Option<Source>,
    /// Pages that the log replaces: where in the log.
    newer: HashMap<u32, u64>,
    page_bytes: usize,
    /// Bytes of a page that hold something.
    usable: usize,
}

/// A value of a row, of the kinds that matter here.
enum Value<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Whether a file begins as such a database.
pub(super) fn recognizes(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// Hands out each header of the table `Packages`.
pub(super) fn read(
    source: Source,
    log: Option<Source>,
    each: &mut dyn FnMut(&[u8]),
) -> Result<(), Malformed> {
    let mut pages = Pages::open(source, log)?;
    let mut root = None;
    pages.walk(1, &mut |row| {
        if let [
            Value::Bytes(b"table"),
            Value::Bytes(b"Packages"),
            _,
            Value::Integer(page),
            ..,
        ] = row
        {
            root = u32::try_from(*page).ok();
        }
    })?;
    let root = root.ok_or_else(|| malformed("it has no table `Packages`"))?;
    pages.walk(root, &mut |row| {
        if let [_, Value::Bytes(header), ..] = row {
            each(header);
        }
    })
}

// === impl Pages ===

impl Pages {
    fn open(mut source: Source, log: Option<Source>) -> Result<Self, Malformed> {
        if let Some(log) = &log {
            source.add_room(log);
        }
        let mut pages = Self {
            source,
            log,
            newer: HashMap::new(),
            page_bytes: FILE_HEAD,
            usable: 0,
        };
        pages.read_log()?;
        let head = pages.page(1)?;
        if !recognizes(&head) {
            return Err(malformed("it is no SQLite database"));
        }
        let page_bytes = match Order::Big.u16(&head, 16).unwrap_or_default() {
            1 => 65_536,
            bytes => usize::from(bytes),
        };
        if !(512..=65_536).contains(&page_bytes) || !page_bytes.is_power_of_two() {
            return Err(malformed(format!("its pages have {page_bytes} bytes")));
        }
        if !pages.newer.is_empty() && page_bytes != pages.page_bytes {
            return Err(malformed("its log has pages of another size"));
        }
        let reserved = head.get(20).copied().map_or(0, usize::from);
        pages.page_bytes = page_bytes;
        pages.usable = page_bytes.saturating_sub(reserved);
        if pages.usable < 480 {
            return Err(malformed(format!(
                "{reserved} bytes of each page are reserved"
            )));
        }
        Ok(pages)
    }

    fn page(&mut self, number: u32) -> Result<Vec<u8>, Malformed> {
        if let (Some(offset), Some(log)) = (self.newer.get(&number), &mut self.log) {
            return log.read(*offset, self.page_bytes);
        }
        let before = u64::from(number).checked_sub(1);
        let before = before.ok_or_else(|| malformed("there is no page 0"))?;
        let offset = before.saturating_mul(self.page_bytes as u64);
        self.source.read(offset, self.page_bytes)
    }

    /// Which pages the log replaces: those of whole transactions, as their checksums tell.
    fn read_log(&mut self) -> Result<(), Malformed> {
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        if log.size < LOG_HEAD as u64 {
            return Ok(());
        }
        let head = log.read(0, LOG_HEAD)?;
        let order = match Order::Big.u32(&head, 0) {
            Some(0x377f_0682) => Order::Little,
            Some(0x377f_0683) => Order::Big,
            _ => return Err(malformed("its log does not begin as one")),
        };
        let page_bytes = Order::Big.u32(&head, 8).unwrap_or_default();
        let page_bytes = usize::try_from(page_bytes).unwrap_or_default();
        if !(512..=65_536).contains(&page_bytes) {
            return Err(malformed(format!(
                "its log has pages of {page_bytes} bytes"
            )));
        }
        let mut sums = sum(order, (0, 0), head.get(..24).unwrap_or_default());
        if !agrees(&head, 24, sums) {
            return Ok(());
        }
        let mut pending = Vec::new();
        let frame_bytes = FRAME_HEAD.saturating_add(page_bytes);
        let mut offset = LOG_HEAD as u64;
        while offset.saturating_add(frame_bytes as u64) <= log.size {
            let frame = log.read(offset, frame_bytes)?;
            let (Some(start), Some(page)) = (frame.get(..8), frame.get(FRAME_HEAD..)) else {
                break;
            };
            sums = sum(order, sum(order, sums, start), page);
            if frame.get(8..16) != head.get(16..24) || !agrees(&frame, 16, sums) {
                break;
            }
            let number = Order::Big.u32(&frame, 0).unwrap_or_default();
            pending.push((number, offset.saturating_add(FRAME_HEAD as u64)));
            // The database's size stands in the last frame of a transaction.
            if Order::Big.u32(&frame, 4).is_some_and(|pages| pages != 0) {
                self.newer.extend(pending.drain(..));
            }
            offset = offset.saturating_add(frame_bytes as u64);
        }
        if !self.newer.is_empty() {
            self.page_bytes = page_bytes;
        }
        Ok(())
    }

    /// Hands out the rows of a table, each page of its tree once.
    fn walk(&mut self, root: u32, each: &mut dyn FnMut(&[Value<'_>])) -> Result<(), Malformed> {
        let mut visited = HashSet::new();
        let mut ahead = vec![(root, 0_usize)];
        while let Some((number, depth)) = ahead.pop() {
            if depth > DEPTH_MAX || !visited.insert(number) {
                return Err(malformed(format!(
                    "page {number} is reached twice, or too deep"
                )));
            }
            let page = self.page(number)?;
            let head = if number == 1 { FILE_HEAD } else { 0 };
            let cells = usize::from(Order::Big.u16(&page, head.saturating_add(3)).unwrap_or(0));
            let kind = page.get(head).copied();
            let list = head.saturating_add(if kind == Some(INTERIOR) { 12 } else { 8 });
            let cell = |index: usize| {
                let at = index.saturating_mul(2).saturating_add(list);
                let at = Order::Big.u16(&page, at).map(usize::from);
                at.ok_or_else(|| malformed(format!("page {number} has fewer cells than it says")))
            };
            match kind {
                Some(INTERIOR) => {
                    let right = Order::Big.u32(&page, head.saturating_add(8));
                    ahead.extend(right.map(|page| (page, depth.saturating_add(1))));
                    for index in (0..cells).rev() {
                        let left = Order::Big.u32(&page, cell(index)?);
                        let left = left.ok_or_else(|| malformed("a cell is cut off"))?;
                        ahead.push((left, depth.saturating_add(1)));
                    }
                }
                Some(LEAF) => {
                    for index in 0..cells {
                        let at = cell(index)?;
                        let payload = self.payload(page.get(at..).unwrap_or_default())?;
                        each(&row(&payload).ok_or_else(|| malformed("a row is cut off"))?);
                    }
                }
                _ => return Err(malformed(format!("page {number} is no part of a table"))),
            }
        }
        Ok(())
    }

    /// A row's bytes: what does not fit into its page stands in a chain of others.
    fn payload(&mut self, cell: &[u8]) -> Result<Vec<u8>, Malformed> {
        let cut = || malformed("a cell is cut off");
        let (length, rest) = varint(cell).ok_or_else(cut)?;
        let (_row, rest) = varint(rest).ok_or_else(cut)?;
        let local = self.local_bytes(length);
        let length = self.source.take_room(length)?;
        let mut payload = rest.get(..local.min(length)).ok_or_else(cut)?.to_vec();
        let mut next = Order::Big.u32(rest, local).unwrap_or_default();
        while payload.len() < length {
            if next == 0 {
                return Err(cut());
            }
            let page = self.page(next)?;
            let missing = length.saturating_sub(payload.len());
            let bytes = page.get(4..self.usable).unwrap_or_default();
            payload.extend_from_slice(bytes.get(..missing).unwrap_or(bytes));
            next = Order::Big.u32(&page, 0).unwrap_or_default();
        }
        Ok(payload)
    }

    /// How much of a row stands in its own page ("B-tree Cell Format").
    fn local_bytes(&self, length: u64) -> usize {
        let all = usize::try_from(length).unwrap_or(usize::MAX);
        let most = self.usable.saturating_sub(35);
        if all <= most {
            return all;
        }
        let per_page = self.usable.saturating_sub(4);
        let least = self.usable.saturating_sub(12).saturating_mul(32);
        let least = least
            .checked_div(255)
            .unwrap_or_default()
            .saturating_sub(23);
        let rest = all.saturating_sub(least).checked_rem(per_page);
        let local = least.saturating_add(rest.unwrap_or_default());
        if local <= most { local } else { least }
    }
}

/// The first values of a row; `None` where it is cut off.
fn row(payload: &[u8]) -> Option<Vec<Value<'_>>> {
    let (head, rest) = varint(payload)?;
    let types_bytes = payload.len().checked_sub(rest.len())?;
    let head = usize::try_from(head).ok()?;
    let mut types = payload.get(types_bytes..head)?;
    let mut body = payload.get(head..)?;
    let mut values = Vec::new();
    while !types.is_empty() && values.len() < COLUMNS_MAX {
        let (kind, more) = varint(types)?;
        types = more;
        let length = match kind {
            0 | 8 | 9 | 10 | 11 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            _ => kind.checked_sub(12)?.checked_div(2)?,
        };
        let (value, more) = body.split_at_checked(usize::try_from(length).ok()?)?;
        body = more;
        values.push(match kind {
            1..=6 => {
                let bytes = value.iter();
                Value::Integer(bytes.fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
            }
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            12.. => Value::Bytes(value),
            _ => Value::Other,
        });
    }
    Some(values)
}

/// Seven bits a byte, and eight in the ninth.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        let rest = bytes.get(index.saturating_add(1)..)?;
        if index == 8 {
            return Some(((value << 8) | u64::from(*byte), rest));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

/// The log's checksum ("Checksum Algorithm").
fn sum(order: Order, sums: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let (mut first, mut second) = sums;
    for pair in bytes.chunks_exact(8) {
        let (one, two) = (order.u32(pair, 0), order.u32(pair, 4));
        first = first.wrapping_add(one.unwrap_or(0)).wrapping_add(second);
        second = second.wrapping_add(two.unwrap_or(0)).wrapping_add(first);
    }
    (first, second)
}

fn agrees(bytes: &[u8], at: usize, sums: (u32, u32)) -> bool {
    Order::Big.u32(bytes, at) == Some(sums.0)
        && Order::Big.u32(bytes, at.saturating_add(4)) == Some(sums.1)
}
