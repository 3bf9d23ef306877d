//! Values as bytes: MessagePack with named fields, their size in front, compressed with zstd where
//! they are large enough for that to be worth its time.
//!
//! Making a context of zstd costs more than packing a small value with it, so some are kept.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use serde::{Serialize, de::DeserializeOwned};

use zstd::bulk::{Compressor, Decompressor};

use crate::CacheError;

/// What a value may take when it is unpacked. Sections are bounded by the scanner's limits and
/// stay far below.
const UNPACKED_BYTES_MAX: usize = 1 << 30;
const LEVEL: i32 = 1;
const SIZE_BYTES: usize = 4;
/// Up to this many bytes a value is stored as it is.
const PLAIN_BYTES_MAX: usize = 512;
/// Set in the size of a value that is stored as it is.
const PLAIN: u32 = 1 << 31;
/// Contexts of each kind that are kept; each has up to a few MB.
const KEPT_MAX: usize = 8;

static COMPRESSORS: Kept<Compressor<'static>> = Kept(Mutex::new(Vec::new()));
static DECOMPRESSORS: Kept<Decompressor<'static>> = Kept(Mutex::new(Vec::new()));

/// Contexts that nobody uses just now.
struct Kept<T>(Mutex<Vec<T>>);

// === impl Kept ===

impl<T> Kept<T> {
    /// Works with a context that was kept, or with a new one.
    fn with<R>(
        &self,
        make: impl FnOnce() -> io::Result<T>,
        work: impl FnOnce(&mut T) -> io::Result<R>,
    ) -> io::Result<R> {
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept().pop();
        let mut context = found.map_or_else(make, Ok)?;
        // One that had an error is not used again.
        let done = work(&mut context)?;
        let mut kept = kept();
        if kept.len() < KEPT_MAX {
            kept.push(context);
        }
        Ok(done)
    }
}

/// A value as it is stored.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CacheError> {
    let packed =
        rmp_serde::to_vec_named(value).map_err(|error| CacheError::Encode(error.to_string()))?;
    let size = u32::try_from(packed.len())
        .ok()
        .filter(|_| packed.len() <= UNPACKED_BYTES_MAX);
    let size = size.ok_or_else(|| {
        CacheError::Encode(format!(
            "{} bytes, at most {UNPACKED_BYTES_MAX}",
            packed.len()
        ))
    })?;
    if packed.len() <= PLAIN_BYTES_MAX {
        return Ok([&(size | PLAIN).to_be_bytes()[..], &packed].concat());
    }
    let compressed = COMPRESSORS
        .with(|| Compressor::new(LEVEL), |one| one.compress(&packed))
        .map_err(|error| CacheError::Encode(error.to_string()))?;
    let mut bytes = Vec::with_capacity(SIZE_BYTES + compressed.len());
    bytes.extend_from_slice(&size.to_be_bytes());
    bytes.extend_from_slice(&compressed);
    Ok(bytes)
}

/// A value from how it is stored. The size in front bounds what unpacking may take.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CacheError> {
    let damaged = |why: &str| CacheError::Damaged(why.to_owned());
    let (size, compressed) = bytes
        .split_first_chunk::<SIZE_BYTES>()
        .ok_or_else(|| damaged("it is too short"))?;
    let size = u32::from_be_bytes(*size);
    let (size, is_plain) = ((size & !PLAIN) as usize, size & PLAIN != 0);
    if is_plain {
        if compressed.len() != size {
            return Err(damaged("its size is not the one in front"));
        }
        return unpack(compressed);
    }
    if size > UNPACKED_BYTES_MAX {
        return Err(CacheError::Damaged(format!("it claims {size} bytes")));
    }
    let packed = DECOMPRESSORS
        .with(Decompressor::new, |one| one.decompress(compressed, size))
        .map_err(|error| CacheError::Damaged(error.to_string()))?;
    if packed.len() != size {
        return Err(CacheError::Damaged(format!(
            "{} bytes instead of {size}",
            packed.len()
        )));
    }
    unpack(&packed)
}

fn unpack<T: DeserializeOwned>(packed: &[u8]) -> Result<T, CacheError> {
    rmp_serde::from_slice(packed).map_err(|error| CacheError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_round_trip(value: Vec<(String, Option<u64>)>) {
            prop_assert_eq!(decode::<Vec<(String, Option<u64>)>>(&encode(&value).unwrap()).unwrap(), value);
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes: Vec<u8>) {
            drop(decode::<Vec<String>>(&bytes));
        }
    }

    #[test]
    fn a_context_that_was_used_serves_the_next_value() {
        for length in [0, 10, 1 << 20, 3, 1 << 16] {
            let value = "x".repeat(length);
            let bytes = encode(&value).unwrap();
            assert!(decode::<String>(&bytes[..bytes.len() - 1]).is_err());
            assert_eq!(decode::<String>(&bytes).unwrap(), value);
        }
        let values: Vec<_> = (0..4_u32).map(|n| vec![n; 1000]).collect();
        std::thread::scope(|scope| {
            for value in &values {
                scope.spawn(move || {
                    for _ in 0..100 {
                        assert_eq!(decode::<Vec<u32>>(&encode(value).unwrap()).unwrap(), *value);
                    }
                });
            }
        });
    }

    #[test]
    fn a_value_that_unpacks_to_more_than_it_says_is_damaged() {
        let mut bytes = encode(&vec![0_u8; 10_000]).unwrap();
        bytes[..SIZE_BYTES].copy_from_slice(&100_u32.to_be_bytes());
        assert!(matches!(
            decode::<Vec<u8>>(&bytes),
            Err(CacheError::Damaged(_))
        ));
        bytes[..SIZE_BYTES].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(
            decode::<Vec<u8>>(&bytes),
            Err(CacheError::Damaged(_))
        ));
    }
}
