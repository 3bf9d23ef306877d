//! What a layer has tens of thousands of, in few pieces: its entries, the files that packages own, and
//! the digests that these are compared with.
//!
//! Texts stand one after the other in one text, and rows of numbers say where each begins. So a layer
//! that is kept is ready when its bytes are copied; one string and one row each, it took a hundred
//! thousand allocations, which was most of a scan of known layers. Of an entry only that is here what
//! a report can need: no owner, mode or size.
//!
//! Packed, a path is what it does not share with the one before it, for most of a layer's bytes are
//! the names of the same directories again and again.

mod entries;
mod owned;
mod sums;
mod texts;

use std::fmt;

use model::Digest;
use serde::{
    Deserializer, Serializer,
    de::{Error, Visitor},
};

pub use self::entries::{EntryList, EntryRef};
pub(super) use self::{
    owned::{OwnedList, OwnedRef, Recorded},
    sums::{SumsList, SumsRow},
};

/// As bytes that are read back by copying them.
pub(super) trait Pack: Sized {
    /// No value takes fewer.
    const BYTES_MIN: usize;

    fn pack(&self, out: &mut Vec<u8>);

    /// Takes a value off the front; `None` where it is damaged.
    fn unpack(bytes: &mut &[u8]) -> Option<Self>;
}

macro_rules! pack_number {
    ($number:ty) => {
        impl Pack for $number {
            const BYTES_MIN: usize = size_of::<$number>();

            fn pack(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn unpack(bytes: &mut &[u8]) -> Option<Self> {
                let (first, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(Self::from_le_bytes(*first))
            }
        }
    };
}

pack_number!(u8);
pack_number!(u32);
pack_number!(u64);

impl Pack for bool {
    const BYTES_MIN: usize = 1;

    fn pack(&self, out: &mut Vec<u8>) {
        u8::from(*self).pack(out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        match u8::unpack(bytes)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Pack for Digest {
    const BYTES_MIN: usize = 32;

    fn pack(&self, out: &mut Vec<u8>) {
        self.as_bytes().pack(out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        <[u8; 32]>::unpack(bytes).map(Self::from_bytes)
    }
}

impl Pack for String {
    const BYTES_MIN: usize = 8;

    fn pack(&self, out: &mut Vec<u8>) {
        (self.len() as u64).pack(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let length = usize::try_from(u64::unpack(bytes)?).ok()?;
        let (text, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(std::str::from_utf8(text).ok()?.to_owned())
    }
}

impl<const N: usize> Pack for [u8; N] {
    const BYTES_MIN: usize = N;

    fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*first)
    }
}

impl<T: Pack> Pack for Option<T> {
    const BYTES_MIN: usize = 1;

    fn pack(&self, out: &mut Vec<u8>) {
        self.is_some().pack(out);
        if let Some(value) = self {
            value.pack(out);
        }
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        if bool::unpack(bytes)? {
            T::unpack(bytes).map(Some)
        } else {
            Some(None)
        }
    }
}

impl<A: Pack, B: Pack> Pack for (A, B) {
    const BYTES_MIN: usize = A::BYTES_MIN.saturating_add(B::BYTES_MIN);

    fn pack(&self, out: &mut Vec<u8>) {
        self.0.pack(out);
        self.1.pack(out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::unpack(bytes)?, B::unpack(bytes)?))
    }
}

impl<T: Pack> Pack for Vec<T> {
    const BYTES_MIN: usize = 8;

    fn pack(&self, out: &mut Vec<u8>) {
        (self.len() as u64).pack(out);
        for item in self {
            item.pack(out);
        }
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let count = usize::try_from(u64::unpack(bytes)?).ok()?;
        // A count that lies costs no more than what is there: in memory none of them takes more than
        // five times its bytes.
        let most = bytes.len().checked_div(T::BYTES_MIN).unwrap_or_default();
        if count > most {
            return None;
        }
        let mut all = Self::with_capacity(count);
        for _ in 0..count {
            all.push(T::unpack(bytes)?);
        }
        Some(all)
    }
}

/// Seven bits to a byte, the lowest first, with a bit that says whether there are more (LEB128).
pub(super) fn pack_number(mut number: u32, out: &mut Vec<u8>) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Takes a number off the front that [`pack_number`] packed.
pub(super) fn unpack_number(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0;
    for shift in [0, 7, 14, 21, 28] {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u32::from(first & 0x7f);
        // The fifth byte has room for four bits.
        if shift == 28 && bits > 0xf {
            return None;
        }
        number |= bits << shift;
        if *first < 0x80 {
            return Some(number);
        }
    }
    None
}

/// For `serde(with)`.
pub(super) fn serialize<T: Pack, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    value.pack(&mut bytes);
    serializer.serialize_bytes(&bytes)
}

/// The value of which these are all the bytes.
pub(super) fn unpack<T: Pack>(mut bytes: &[u8]) -> Option<T> {
    T::unpack(&mut bytes).filter(|_| bytes.is_empty())
}

/// For `serde(with)`.
pub(super) fn deserialize<'de, T: Pack, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    struct Bytes<T>(std::marker::PhantomData<T>);

    impl<T: Pack> Visitor<'_> for Bytes<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("packed bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<T, E> {
            unpack(bytes).ok_or_else(|| E::custom("packed bytes are damaged"))
        }
    }

    deserializer.deserialize_bytes(Bytes(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back_as_they_were(number: u32, shift in 0..32_u32) {
            let number = number >> shift;
            let mut packed = Vec::new();
            pack_number(number, &mut packed);
            prop_assert_eq!(unpack_number(&mut &packed[..]), Some(number));
            packed.pop();
            prop_assert_eq!(unpack_number(&mut &packed[..]), None);
        }
    }

    #[test]
    fn a_number_of_more_bits_is_damaged() {
        assert_eq!(
            unpack_number(&mut &[0xff, 0xff, 0xff, 0xff, 0x0f][..]),
            Some(u32::MAX)
        );
        assert_eq!(
            unpack_number(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]),
            None
        );
        assert_eq!(
            unpack_number(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0][..]),
            None
        );
    }

    #[test]
    fn a_count_that_lies_takes_no_memory() {
        let list = |count: u64| {
            let mut bytes = count.to_le_bytes().to_vec();
            bytes.extend([0; 8]);
            <Vec<u32> as Pack>::unpack(&mut &bytes[..])
        };
        assert_eq!(list(2), Some(vec![0, 0]));
        assert_eq!(list(3), None);
        assert_eq!(list(u64::MAX), None);
    }
}
