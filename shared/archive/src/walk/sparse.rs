//! Sparse files: data with holes between them, in the four forms that GNU tar has had.
//!
//! A map says where the data stand that the archive stores one after the other; what is between
//! them, and behind them up to the file's size, is zeros (GNU tar manual, "Storing Sparse Files";
//! Go's `archive/tar`, which runtimes unpack layers with, reads the same forms).

use std::{collections::VecDeque, ops::Range};

use super::header::{self, Block};

/// A number of a map in a block.
const NUMBER_BYTES: usize = 12;

/// Zeros that are lent as the content of holes.
pub(super) static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Data at an offset, so many bytes.
pub(super) type Segment = (u64, u64);

/// What comes next in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// Zeros that the archive does not store.
    Hole(u64),
    /// Bytes that it stores.
    Data(u64),
}

/// A file of so many bytes, of which the archive stores so many, piece by piece; `None` where the
/// map does not fit them.
pub(super) fn spans(segments: &[Segment], size: u64, stored: u64) -> Option<VecDeque<Span>> {
    let mut spans = VecDeque::with_capacity(segments.len().saturating_mul(2).saturating_add(1));
    let (mut at, mut data) = (0_u64, 0_u64);
    let mut add = |span: Span| {
        if !matches!(span, Span::Hole(0) | Span::Data(0)) {
            spans.push_back(span);
        }
    };
    for (offset, length) in segments {
        add(Span::Hole(offset.checked_sub(at)?));
        add(Span::Data(*length));
        at = offset.checked_add(*length)?;
        data = data.checked_add(*length)?;
    }
    add(Span::Hole(size.checked_sub(at)?));
    (data == stored).then_some(spans)
}

/// Appends the segments that stand in a part of a block; `None` where a number cannot be read. The
/// first empty place ends the map.
pub(super) fn add_from_block(
    segments: &mut Vec<Segment>,
    block: &Block,
    places: Range<usize>,
) -> Option<()> {
    for place in block
        .get(places)?
        .chunks_exact(NUMBER_BYTES.saturating_mul(2))
    {
        let (offset, length) = place.split_at_checked(NUMBER_BYTES)?;
        if offset.first() == Some(&0) {
            break;
        }
        segments.push((header::unsigned(offset)?, header::unsigned(length)?));
    }
    Some(())
}

/// The segments of a list `offset,length,offset,length`.
pub(super) fn of_list(list: &[u8]) -> Option<Vec<Segment>> {
    if list.is_empty() {
        return Some(Vec::new());
    }
    pairs(list.split(|byte| *byte == b','))
}

/// How many lines a map at the start of a file's content has: how many segments there are, then
/// each offset and length, a line each.
pub(super) fn lines(text: &[u8]) -> Option<usize> {
    let first = text.split(|byte| *byte == b'\n').next()?;
    let segments = usize::try_from(decimal(first)?).ok()?;
    segments.checked_mul(2)?.checked_add(1)
}

/// The segments of such a map.
pub(super) fn of_lines(text: &[u8]) -> Option<Vec<Segment>> {
    let numbers = lines(text)?.checked_sub(1)?;
    let lines = text.split(|byte| *byte == b'\n').skip(1);
    pairs(lines.take(numbers))
}

fn pairs<'a>(mut numbers: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Segment>> {
    let mut pairs = Vec::new();
    while let Some(offset) = numbers.next() {
        pairs.push((decimal(offset)?, decimal(numbers.next()?)?));
    }
    Some(pairs)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let are_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits)
        .ok()
        .filter(|_| are_digits)?
        .parse()
        .ok()
}
