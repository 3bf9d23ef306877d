//! A value as an object's bytes: zstd of MessagePack with named fields.
//!
//! A value may lie in two frames, its own fields and those that it has in common with other values;
//! unpacked and put together they are one map. So what many values share is packed once, and known
//! again by the digest of its plain bytes.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use model::Digest;
use serde::{Serialize, de::DeserializeOwned};
use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe,
};

use crate::{
    envelope::{decode, encode},
    error::{DecodeError, EncodeError},
};

/// The first of the sixteen magic numbers of frames that a reader of zstd skips (RFC 8878, 3.1.2).
const SKIPPABLE: u32 = 0x184D_2A50;
/// A map of up to fifteen entries in MessagePack: the number is in the low half.
const MAP: u8 = 0x80;
const MAP_ENTRIES_MAX: u8 = 15;
/// Frames of an object: its own, the common one, the owner's.
const FRAMES_MAX: usize = 3;
/// Contexts of each kind that are kept; each has up to a few MB. Making one costs more than packing
/// a small value with it.
const CONTEXTS_MAX: usize = 4;

static COMPRESSORS: Contexts<Compressor<'static>> = Contexts(Mutex::new(Vec::new()));
static DECOMPRESSORS: Contexts<Decompressor<'static>> = Contexts(Mutex::new(Vec::new()));

/// Contexts of zstd that nobody uses just now.
struct Contexts<T>(Mutex<Vec<T>>);

/// Fields that values have in common, packed.
#[derive(Clone, Debug)]
pub struct Common {
    /// How many fields.
    fields: u8,
    packed: Bytes,
    content: Digest,
}

/// A value's bytes, unpacked.
pub(super) struct Plain {
    bytes: Vec<u8>,
    /// Where the fields begin that it has in common with others.
    common: Option<usize>,
}

/// Fields of a struct, without the header that counts them.
struct Fields {
    count: u8,
    bytes: Bytes,
}

/// Packs a value. The same value gives the same bytes.
pub(super) fn pack<T: Serialize>(value: &T) -> Result<Bytes, EncodeError> {
    compress(&encode(value)?)
}

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

/// Packs a value of which `common` is packed already.
pub(super) fn pack_with<T: Serialize>(own: &T, common: &Common) -> Result<Bytes, EncodeError> {
    let own = Fields::of(own)?;
    let count = own.count + common.fields;
    if count > MAP_ENTRIES_MAX {
        return Err(EncodeError(format!("{count} fields in two parts")));
    }
    let mut plain = Vec::with_capacity(own.bytes.len() + 1);
    plain.push(MAP | count);
    plain.extend_from_slice(&own.bytes);
    let mut bytes = Vec::from(compress(&plain)?);
    bytes.extend_from_slice(&common.packed);
    Ok(bytes.into())
}

/// Unpacks bytes that take at most `max` unpacked.
pub(super) fn unpack(bytes: &[u8], max: u64) -> Result<Plain, DecodeError> {
    let (mut plain, mut common) = (Vec::new(), None);
    for (number, frame) in frames(bytes)?.into_iter().enumerate() {
        let Ok(Some(size)) = zstd_safe::get_frame_content_size(frame) else {
            return Err(DecodeError("no zstd frame that says its size".to_owned()));
        };
        let all = size.saturating_add(plain.len() as u64);
        if all > max {
            return Err(DecodeError(format!("{all} bytes, at most {max} allowed")));
        }
        if size == 0 {
            continue;
        }
        let size = usize::try_from(size).map_err(|error| DecodeError(error.to_string()))?;
        let unpacked = DECOMPRESSORS
            .with(Decompressor::new, |context| context.decompress(frame, size))
            .map_err(|error| DecodeError(format!("zstd: {error}")))?;
        if number == 0 {
            plain = unpacked;
        } else {
            common.get_or_insert(plain.len());
            plain.extend_from_slice(&unpacked);
        }
    }
    Ok(Plain {
        bytes: plain,
        common,
    })
}

fn frames(bytes: &[u8]) -> Result<Vec<&[u8]>, DecodeError> {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        if frames.len() == FRAMES_MAX {
            return Err(DecodeError(format!("more than {FRAMES_MAX} frames")));
        }
        let size = zstd_safe::find_frame_compressed_size(rest);
        let parts = size.ok().and_then(|size| rest.split_at_checked(size));
        let Some((frame, after)) = parts.filter(|(frame, _)| !frame.is_empty()) else {
            return Err(DecodeError("no whole frame of zstd".to_owned()));
        };
        frames.push(frame);
        rest = after;
    }
    Ok(frames)
}

fn compress(plain: &[u8]) -> Result<Bytes, EncodeError> {
    COMPRESSORS
        .with(
            || Compressor::new(super::ZSTD_LEVEL),
            |context| context.compress(plain),
        )
        .map(Bytes::from)
        .map_err(|error| EncodeError(error.to_string()))
}

// === impl Contexts ===

impl<T> Contexts<T> {
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
        if kept.len() < CONTEXTS_MAX {
            kept.push(context);
        }
        Ok(done)
    }
}

// === impl Common ===

impl Common {
    /// Packs fields, unless `known` has them packed.
    pub(super) fn of<T: Serialize>(
        value: &T,
        known: impl FnOnce(&Digest) -> Option<Bytes>,
    ) -> Result<Self, EncodeError> {
        let Fields { count, bytes } = Fields::of(value)?;
        let content = Digest::of(&bytes);
        let packed = match known(&content) {
            Some(packed) => packed,
            None => compress(&bytes)?,
        };
        Ok(Self {
            fields: count,
            packed,
            content,
        })
    }

    /// The digest of the fields: the same for all who have the same.
    pub const fn content(&self) -> Digest {
        self.content
    }

    /// How many bytes it takes, packed.
    pub fn size(&self) -> usize {
        self.packed.len()
    }

    pub(super) const fn packed(&self) -> &Bytes {
        &self.packed
    }
}

// === impl Plain ===

impl Plain {
    /// The value.
    pub(super) fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        decode(&self.bytes)
    }

    /// The digest of the fields that it has in common with others, if it says which these are.
    pub(super) fn content(&self) -> Option<Digest> {
        self.bytes.get(self.common?..).map(Digest::of)
    }

    /// How large it is.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }
}

// === impl Fields ===

impl Fields {
    fn of<T: Serialize>(value: &T) -> Result<Self, EncodeError> {
        let bytes = encode(value)?;
        match bytes.first() {
            Some(header) if header & !MAP_ENTRIES_MAX == MAP => Ok(Self {
                count: header & MAP_ENTRIES_MAX,
                bytes: bytes.slice(1..),
            }),
            _ => Err(EncodeError("not a struct of a few fields".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Serialize)]
    struct Own<'a> {
        image: &'a str,
    }

    #[derive(Serialize)]
    struct Rest {
        packages: Vec<u32>,
        gaps: u32,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Whole {
        image: String,
        packages: Vec<u32>,
        gaps: u32,
    }

    fn whole(image: &str) -> Whole {
        Whole {
            image: image.to_owned(),
            packages: vec![7; 1000],
            gaps: 3,
        }
    }

    fn rest() -> Rest {
        let Whole { packages, gaps, .. } = whole("");
        Rest { packages, gaps }
    }

    fn value<T: DeserializeOwned>(bytes: &[u8], max: u64) -> Result<T, DecodeError> {
        unpack(bytes, max)?.decode()
    }

    #[test]
    fn one_value_of_two_owners_is_two_objects_that_read_the_same() {
        let packed = pack(&"value").unwrap();
        let (one, two) = (owned(&packed, "one"), owned(&packed, "two"));
        assert_ne!(one, two);
        for bytes in [one, two] {
            assert_eq!(value::<String>(&bytes, 1_000).unwrap(), "value");
        }
    }

    #[test]
    fn a_value_survives_and_a_bomb_does_not() {
        let numbers = vec![7_u32; 100_000];
        let packed = pack(&numbers).unwrap();
        assert!(packed.len() < 1_000);
        assert_eq!(value::<Vec<u32>>(&packed, 1_000_000).unwrap(), numbers);
        assert!(value::<Vec<u32>>(&packed, 1_000).is_err());
        assert!(value::<Vec<u32>>(b"not zstd", 1_000).is_err());
        assert!(value::<Vec<u32>>(&packed[..packed.len() - 1], 1_000_000).is_err());
        let many = packed.repeat(FRAMES_MAX + 1);
        assert!(value::<Vec<u32>>(&many, u64::MAX).is_err());
    }

    #[test]
    fn what_values_have_in_common_is_packed_once_and_known_again() {
        let common = Common::of(&rest(), |_| None).unwrap();
        for image in ["one", "two"] {
            let packed = owned(&pack_with(&Own { image }, &common).unwrap(), "tenant");
            let plain = unpack(&packed, 100_000).unwrap();
            assert_eq!(plain.decode::<Whole>().unwrap(), whole(image));
            assert_eq!(plain.content(), Some(common.content()));
        }
        let again = Common::of(&rest(), |content| {
            (*content == common.content()).then(|| common.packed().clone())
        });
        assert_eq!(again.unwrap().packed(), common.packed());
        // Written as one it reads the same, and nobody knows what of it is common.
        let plain = unpack(&pack(&whole("one")).unwrap(), 100_000).unwrap();
        assert_eq!(plain.decode::<Whole>().unwrap(), whole("one"));
        assert_eq!(plain.content(), None);
    }

    #[test]
    fn both_parts_together_count_against_the_limit() {
        let common = Common::of(&rest(), |_| None).unwrap();
        let packed = pack_with(&Own { image: "one" }, &common).unwrap();
        let size = unpack(&packed, 100_000).unwrap().size() as u64;
        assert!(unpack(&packed, size).is_ok());
        assert!(unpack(&packed, size - 1).is_err());
    }
}
