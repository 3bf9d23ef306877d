//! Reading in order, from the first item that is not delivered.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Shared,
    segment::{self, At, Item, Records},
    writer::set_aside,
};

/// Reads ahead of the cursor.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    records: Option<Records>,
    /// The first sequence of the open segment.
    first: u64,
    next: u64,
    /// Looked broken once. A file that was read while a failed write was taken back does so, and
    /// is whole when it is opened again.
    suspect: Option<u64>,
}

// === impl Reader ===

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let next = shared.cursor.load(Ordering::Acquire) + 1;
        Self {
            shared,
            records: None,
            first: 0,
            next,
            suspect: None,
        }
    }

    /// The next items that are on disk, at most so many and about so many bytes. Blocks.
    pub(crate) fn read(&mut self, count: usize, bytes: usize) -> io::Result<Vec<Item>> {
        let durable = *self.shared.durable.borrow();
        let (mut items, mut size) = (Vec::new(), 0);
        while self.next <= durable && items.len() < count && size < bytes {
            if self.records.is_none() && !self.open()? {
                break;
            }
            let Some(records) = self.records.as_mut() else {
                break;
            };
            let offset = records.offset;
            match records.next(self.next)? {
                At::Item(item) => {
                    size += item.body.len();
                    self.next += 1;
                    items.push(item);
                }
                At::End => self.leave(),
                At::Broken if self.suspect != Some(self.next) => {
                    self.suspect = Some(self.next);
                    self.records = None;
                }
                At::Broken => {
                    let path = segment::path(&self.shared.dir, self.first);
                    set_aside(&path, offset, self.next, false)?;
                    self.leave();
                }
            }
        }
        Ok(items)
    }

    /// Opens the segment that holds the next item and goes to it. False: there is none.
    fn open(&mut self) -> io::Result<bool> {
        let found = {
            let segments = self.shared.segments();
            let holding = segments.range(..=self.next).next_back();
            let after = segments.range(self.next..).next();
            holding.or(after).map(|(first, _)| *first)
        };
        let Some(first) = found else { return Ok(false) };
        let mut records = Records::open(&segment::path(&self.shared.dir, first))?;
        self.next = self.next.max(first);
        self.first = first;
        for expected in first..self.next {
            let offset = records.offset;
            match records.next(expected)? {
                At::Item(_) => {}
                // Delivered items are missing: nobody needs them.
                At::End => break,
                At::Broken => {
                    let path = segment::path(&self.shared.dir, first);
                    set_aside(&path, offset, expected, false)?;
                    self.leave();
                    return Ok(true);
                }
            }
        }
        self.records = Some(records);
        Ok(true)
    }

    /// Goes on with the segment after the open one.
    fn leave(&mut self) {
        let segments = self.shared.segments();
        if let Some((first, _)) = segments.range(self.first + 1..).next() {
            self.next = self.next.max(*first);
        } else {
            // Nothing comes after it any more.
            self.next = self.next.max(*self.shared.durable.borrow() + 1);
        }
        self.records = None;
    }
}
