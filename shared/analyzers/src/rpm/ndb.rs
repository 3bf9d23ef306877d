//! `Packages.db` of SUSE: slots that say where headers are (rpm, `lib/backend/ndb/rpmpkg.c`).
//!
//! 32 bytes of head, then slots of 16 bytes up to the end of the pages meant for them, then headers
//! in blocks of 16 bytes, each with a head of its own that repeats the slot's number.

use super::source::{Order, Source};
use crate::{Malformed, malformed};

const MAGIC: &[u8] = b"RpmP";
const SLOT_MAGIC: &[u8] = b"Slot";
const HEADER_MAGIC: &[u8] = b"BlbS";
const HEAD_BYTES: usize = 32;
const SLOT_BYTES: usize = 16;
const BLOCK_BYTES: u64 = 16;
const PAGE_BYTES: u64 = 4096;

/// A slot page holds 256; an installation of 200,000 packages is none.
const SLOT_PAGES_MAX: u32 = 1_000;

/// Whether a file begins as such a database.
pub(super) fn recognizes(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// Hands out each header.
pub(super) fn read(source: &mut Source, each: &mut dyn FnMut(&[u8])) -> Result<(), Malformed> {
    let head = source.read(0, HEAD_BYTES)?;
    let version = Order::Little.u32(&head, 4);
    if !recognizes(&head) || version != Some(0) {
        return Err(malformed(
            "it is no database of rpm's, or of an unknown version",
        ));
    }
    let pages = Order::Little.u32(&head, 12).unwrap_or_default();
    if pages > SLOT_PAGES_MAX {
        return Err(malformed(format!(
            "it has {pages} pages of slots, more than {SLOT_PAGES_MAX}"
        )));
    }
    let slots_end = u64::from(pages).saturating_mul(PAGE_BYTES);
    let length = usize::try_from(slots_end).unwrap_or_default();
    let slots = source.read(HEAD_BYTES as u64, length.saturating_sub(HEAD_BYTES))?;
    for slot in slots.chunks_exact(SLOT_BYTES) {
        let number = Order::Little.u32(slot, 4).unwrap_or_default();
        if !slot.starts_with(SLOT_MAGIC) {
            return Err(malformed("a slot does not begin as one"));
        }
        if number != 0 {
            let header = read_header(source, slot, number)?;
            each(&header);
        }
    }
    Ok(())
}

fn read_header(source: &mut Source, slot: &[u8], number: u32) -> Result<Vec<u8>, Malformed> {
    let block = Order::Little.u32(slot, 8).unwrap_or_default();
    let blocks = Order::Little.u32(slot, 12).unwrap_or_default();
    let offset = u64::from(block).saturating_mul(BLOCK_BYTES);
    let head = source.read(offset, SLOT_BYTES)?;
    let is_its = head.starts_with(HEADER_MAGIC) && Order::Little.u32(&head, 4) == Some(number);
    let length = u64::from(Order::Little.u32(&head, 12).unwrap_or_default());
    if !is_its || length > u64::from(blocks).saturating_mul(BLOCK_BYTES) {
        return Err(malformed(format!(
            "slot {number} does not lead to its header"
        )));
    }
    let length = source.take_room(length)?;
    source.read(offset.saturating_add(SLOT_BYTES as u64), length)
}
