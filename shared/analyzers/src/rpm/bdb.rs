//! `Packages` of Berkeley DB: a hash table whose values are headers (Berkeley DB, `dbinc/db_page.h`).
//!
//! A page begins with 26 bytes: log number, page number, previous, next, count of entries, first
//! free byte, level, type. Values too large for a page, as nearly all headers are, stand in a chain
//! of overflow pages.

use super::source::{Order, Source};
use crate::{Malformed, malformed};

const MAGIC: u32 = 0x0006_1561;
const PAGE_BYTES: std::ops::RangeInclusive<u32> = 512..=65_536;
const PAGE_HEAD: usize = 26;

/// Kinds of pages and of values.
const UNSORTED: u8 = 2;
const OVERFLOW: u8 = 7;
const SORTED: u8 = 13;
const INLINE: u8 = 1;
const OFF_PAGE: u8 = 3;

/// The value that is the next header's number, and no header.
const COUNTER_BYTES: usize = 4;

/// A database whose first page was understood.
struct Database<'a> {
    source: &'a mut Source,
    order: Order,
    page_bytes: u32,
}

/// Whether a file begins as such a database.
pub(super) fn recognizes(head: &[u8]) -> bool {
    [Order::Big, Order::Little]
        .iter()
        .any(|order| order.u32(head, 12) == Some(MAGIC))
}

/// Hands out each header.
pub(super) fn read(source: &mut Source, each: &mut dyn FnMut(&[u8])) -> Result<(), Malformed> {
    let head = source.read(0, 512)?;
    let orders = [Order::Little, Order::Big];
    let order = orders
        .into_iter()
        .find(|order| order.u32(&head, 12) == Some(MAGIC));
    let order = order.ok_or_else(|| malformed("it is no hash table of Berkeley DB"))?;
    let page_bytes = order.u32(&head, 20).unwrap_or_default();
    if !PAGE_BYTES.contains(&page_bytes) || !page_bytes.is_power_of_two() {
        return Err(malformed(format!("its pages have {page_bytes} bytes")));
    }
    if head.get(24).is_some_and(|algorithm| *algorithm != 0) {
        return Err(malformed("it is encrypted"));
    }
    let mut database = Database {
        source,
        order,
        page_bytes,
    };
    let last = order.u32(&head, 32).unwrap_or_default();
    let pages = database
        .source
        .size
        .checked_div(page_bytes.into())
        .unwrap_or_default();
    if u64::from(last) >= pages {
        return Err(malformed(format!(
            "it has {pages} pages, and the last is said to be {last}"
        )));
    }
    for number in 1..=last {
        let page = database.page(number)?;
        if matches!(page.get(25), Some(&(UNSORTED | SORTED))) {
            database.read_page(&page, each)?;
        }
    }
    Ok(())
}

// === impl Database ===

impl Database<'_> {
    fn page(&mut self, number: u32) -> Result<Vec<u8>, Malformed> {
        let offset = u64::from(number).saturating_mul(self.page_bytes.into());
        self.source.read(offset, self.page_bytes as usize)
    }

    /// Keys and values take turns; of the values' offsets the later is the smaller.
    fn read_page(&mut self, page: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<(), Malformed> {
        let count = usize::from(self.order.u16(page, 20).unwrap_or_default());
        let mut end = page.len();
        for index in 0..count {
            let at = index.saturating_mul(2).saturating_add(PAGE_HEAD);
            let start = self.order.u16(page, at).map(usize::from);
            let item = start.and_then(|start| page.get(start..end));
            let (Some(start), Some(item)) = (start, item) else {
                return Err(malformed("an entry reaches beyond its page"));
            };
            end = start;
            if index % 2 == 1 {
                self.read_value(item, each)?;
            }
        }
        Ok(())
    }

    fn read_value(&mut self, item: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<(), Malformed> {
        match item.split_first() {
            Some((&INLINE, value)) if value.len() > COUNTER_BYTES => {
                self.source.take_room(value.len() as u64)?;
                each(value);
            }
            Some((&INLINE, _)) => {}
            Some((&OFF_PAGE, _)) => {
                let first = self.order.u32(item, 4);
                let length = self.order.u32(item, 8);
                let (Some(first), Some(length)) = (first, length) else {
                    return Err(malformed("a value is cut off"));
                };
                let value = self.chain(first, length)?;
                each(&value);
            }
            kind => {
                let kind = kind.map(|(kind, _)| *kind);
                return Err(malformed(format!(
                    "a value is of the unknown kind {kind:?}"
                )));
            }
        }
        Ok(())
    }

    /// The bytes of a chain of overflow pages. It ends: each page gives at least one byte.
    fn chain(&mut self, first: u32, length: u32) -> Result<Vec<u8>, Malformed> {
        let length = self.source.take_room(length.into())?;
        let mut value = Vec::with_capacity(length.min(1 << 20));
        let mut next = first;
        while value.len() < length {
            let page = self.page(next)?;
            let used = usize::from(self.order.u16(&page, 22).unwrap_or_default());
            let bytes = page.get(PAGE_HEAD..PAGE_HEAD.saturating_add(used));
            let bytes = bytes.filter(|bytes| !bytes.is_empty() && page.get(25) == Some(&OVERFLOW));
            let Some(bytes) = bytes else {
                return Err(malformed(format!("page {next} is no part of a long value")));
            };
            value.extend_from_slice(bytes);
            next = self.order.u32(&page, 16).unwrap_or_default();
        }
        value.truncate(length);
        Ok(value)
    }
}
