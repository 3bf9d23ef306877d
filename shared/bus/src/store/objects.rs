//! A value as an object's bytes: zstd of MessagePack with named fields.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    envelope::{decode, encode},
    error::{DecodeError, EncodeError},
};

/// Packs a value. The same value gives the same bytes.
pub(super) fn pack<T: Serialize>(value: &T) -> Result<Bytes, EncodeError> {
    let plain = encode(value)?;
    zstd::bulk::compress(&plain, super::ZSTD_LEVEL)
        .map(Bytes::from)
        .map_err(|error| EncodeError(error.to_string()))
}

/// The first of the sixteen magic numbers of frames that a reader of zstd skips (RFC 8878, 3.1.2).
const SKIPPABLE: u32 = 0x184D_2A50;

/// Adds a frame that names the owner and that unpacking skips, so that the bytes are his alone.
pub(super) fn owned(packed: &[u8], owner: &str) -> Bytes {
    let length = u32::try_from(owner.len()).unwrap_or_default();
    let mut bytes = Vec::with_capacity(packed.len() + 8 + owner.len());
    bytes.extend_from_slice(packed);
    bytes.extend_from_slice(&SKIPPABLE.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(owner.as_bytes());
    bytes.into()
}

/// Unpacks a value of at most `max` bytes.
pub(super) fn unpack<T: DeserializeOwned>(bytes: &[u8], max: u64) -> Result<T, DecodeError> {
    let size = match zstd::zstd_safe::get_frame_content_size(bytes) {
        Ok(Some(size)) if size <= max => size,
        Ok(Some(size)) => return Err(DecodeError(format!("{size} bytes, at most {max} allowed"))),
        _ => return Err(DecodeError("no zstd frame that says its size".to_owned())),
    };
    let size = usize::try_from(size).map_err(|error| DecodeError(error.to_string()))?;
    let plain = zstd::bulk::decompress(bytes, size)
        .map_err(|error| DecodeError(format!("zstd: {error}")))?;
    decode(&plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_of_two_owners_is_two_objects_that_read_the_same() {
        let packed = pack(&"value").unwrap();
        let (one, two) = (owned(&packed, "one"), owned(&packed, "two"));
        assert_ne!(one, two);
        for bytes in [one, two] {
            assert_eq!(unpack::<String>(&bytes, 1_000).unwrap(), "value");
        }
    }

    #[test]
    fn a_value_survives_and_a_bomb_does_not() {
        let value = vec![7_u32; 100_000];
        let packed = pack(&value).unwrap();
        assert!(packed.len() < 1_000);
        assert_eq!(unpack::<Vec<u32>>(&packed, 1_000_000).unwrap(), value);
        assert!(unpack::<Vec<u32>>(&packed, 1_000).is_err());
        assert!(unpack::<Vec<u32>>(b"not zstd", 1_000).is_err());
    }
}
