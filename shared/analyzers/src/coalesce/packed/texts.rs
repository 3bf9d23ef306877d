//! Texts that stand one behind the other, packed as what each does not share with the one before.

use std::ops::Range;

use super::{Pack as _, pack_number, unpack_number};

/// Bytes of the texts of one list: what a section of the cache may take when it is unpacked.
const BYTES_MAX: usize = 1 << 30;

/// For how many times as many bytes as there are packed room is made at once.
const ROOM_MAX: usize = 16;

/// In place of a length or number: there is none.
pub(super) const NONE: u32 = u32::MAX;

/// Texts that are being unpacked.
#[derive(Debug)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    /// How many there may be.
    bytes_max: usize,
    /// The text that the next one shares its beginning with.
    before: Range<usize>,
}

// === impl Texts ===

impl Texts {
    /// With room for all of them, whose length is taken off the front. One that lies costs no more
    /// than [`ROOM_MAX`] times what is there.
    pub(super) fn begin(packed: &mut &[u8]) -> Option<Self> {
        let length = usize::try_from(u64::unpack(packed)?).ok()?;
        let most = packed.len().saturating_mul(ROOM_MAX).min(BYTES_MAX);
        Some(Self::with_room_for(length.min(most)))
    }

    fn with_room_for(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            bytes_max: BYTES_MAX,
            before: 0..0,
        }
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes a text off the front that [`pack_like`] packed; its length.
    pub(super) fn unpack_like(&mut self, bytes: &mut &[u8]) -> Option<u32> {
        let shared = unpack_number(bytes)? as usize;
        let start = self.bytes.len();
        let end = self.before.start.checked_add(shared)?;
        if end > self.before.end || start.saturating_add(shared) > self.bytes_max {
            return None;
        }
        self.bytes.extend_from_within(self.before.start..end);
        self.unpack_plain(bytes)?;
        self.before = start..self.bytes.len();
        u32::try_from(self.before.len()).ok()
    }

    /// Takes a text off the front that [`pack_plain`] packed; its length.
    pub(super) fn unpack_plain(&mut self, bytes: &mut &[u8]) -> Option<u32> {
        let length = unpack_number(bytes)?;
        let (text, rest) = bytes.split_at_checked(length as usize)?;
        *bytes = rest;
        self.bytes.extend_from_slice(text);
        Some(length)
    }

    /// All of them, if they are texts.
    pub(super) fn finish(mut self) -> Option<String> {
        // What is kept in memory is counted by its room.
        self.bytes.shrink_to_fit();
        String::from_utf8(self.bytes).ok()
    }
}

/// Packs a text as what it does not share with the one before.
pub(super) fn pack_like(before: &str, text: &str, out: &mut Vec<u8>) {
    let same = before.bytes().zip(text.bytes());
    let shared = same.take_while(|(one, other)| one == other).count();
    let shared = text.floor_char_boundary(shared);
    pack_number(number(shared), out);
    pack_plain(text.get(shared..).unwrap_or_default(), out);
}

/// Packs a text with its length in front.
pub(super) fn pack_plain(text: &str, out: &mut Vec<u8>) {
    pack_number(number(text.len()), out);
    out.extend_from_slice(text.as_bytes());
}

/// A length or a number of what the limits keep far below.
pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(NONE)
}

/// Two texts that stand one behind the other.
pub(super) fn two(texts: &str, start: usize, first: u32, second: u32) -> (&str, Option<&str>) {
    let middle = start.saturating_add(first as usize);
    let end = middle.saturating_add(second as usize);
    let first = texts.get(start..middle).unwrap_or_default();
    let second = (second != NONE).then(|| texts.get(middle..end).unwrap_or_default());
    (first, second)
}

/// Whether a text begins and ends at letters.
pub(super) fn is_whole(texts: &str, start: usize, length: u32) -> bool {
    let end = start.saturating_add(length as usize);
    texts.is_char_boundary(start) && texts.is_char_boundary(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_come_back_as_they_were(all: Vec<(String, bool)>) {
            let mut packed = Vec::new();
            let mut before = "";
            for (text, is_like) in &all {
                if *is_like {
                    pack_like(before, text, &mut packed);
                    before = text;
                } else {
                    pack_plain(text, &mut packed);
                }
            }
            let (mut rest, mut texts) = (&packed[..], Texts::with_room_for(0));
            for (text, is_like) in &all {
                let length = if *is_like {
                    texts.unpack_like(&mut rest)
                } else {
                    texts.unpack_plain(&mut rest)
                };
                prop_assert_eq!(length, Some(number(text.len())));
            }
            prop_assert!(rest.is_empty());
            let whole: String = all.iter().map(|(text, _)| text.as_str()).collect();
            prop_assert_eq!(texts.finish(), Some(whole));
        }
    }

    #[test]
    fn what_is_shared_is_of_the_text_before() {
        let mut texts = Texts::with_room_for(0);
        assert_eq!(texts.unpack_like(&mut &[0, 2, b'a', b'b'][..]), Some(2));
        assert_eq!(texts.unpack_plain(&mut &[1, b'c'][..]), Some(1));
        assert_eq!(
            texts.unpack_like(&mut &[3, 0][..]),
            None,
            "more than it has"
        );
        assert_eq!(texts.unpack_like(&mut &[2, 1, b'd'][..]), Some(3));
        assert_eq!(texts.finish().as_deref(), Some("abcabd"));
    }

    #[test]
    fn a_length_that_lies_takes_little_memory() {
        let begun = |length: u64| {
            let packed = [&length.to_le_bytes()[..], b"abc"].concat();
            Texts::begin(&mut &packed[..]).unwrap().bytes.capacity()
        };
        assert_eq!(begun(2), 2);
        assert_eq!(begun(u64::MAX), 3 * ROOM_MAX);
        assert!(Texts::begin(&mut &[0; 7][..]).is_none());
    }

    #[test]
    fn little_that_would_become_much_is_damaged() {
        let mut texts = Texts {
            bytes_max: 10,
            ..Texts::with_room_for(0)
        };
        assert_eq!(
            texts.unpack_like(&mut &[0, 4, b'a', b'b', b'c', b'd'][..]),
            Some(4)
        );
        assert_eq!(texts.unpack_like(&mut &[4, 0][..]), Some(4));
        assert_eq!(texts.unpack_like(&mut &[4, 0][..]), None);
    }
}
