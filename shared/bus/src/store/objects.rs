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
    fn a_value_survives_and_a_bomb_does_not() {
        let value = vec![7_u32; 100_000];
        let packed = pack(&value).unwrap();
        assert!(packed.len() < 1_000);
        assert_eq!(unpack::<Vec<u32>>(&packed, 1_000_000).unwrap(), value);
        assert!(unpack::<Vec<u32>>(&packed, 1_000).is_err());
        assert!(unpack::<Vec<u32>>(b"not zstd", 1_000).is_err());
    }
}
