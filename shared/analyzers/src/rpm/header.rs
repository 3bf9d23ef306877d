//! A package's header (rpm, `docs/manual/format_v4.md`): an index of tags, then their values.
//!
//! Two big-endian numbers say how many entries the index has and how many bytes the values. An
//! entry is four numbers: tag, type, offset among the values, count.

use std::collections::HashMap;

use super::source::Order;
use crate::{Malformed, malformed};

const ENTRY_BYTES: usize = 16;

/// Types of values.
const INT16: u32 = 3;
const INT32: u32 = 4;
const STRING: u32 = 6;
const STRINGS: u32 = 8;
const TRANSLATED: u32 = 9;

/// What a value means (rpm, `include/rpm/rpmtag.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub(super) enum Tag {
    Name = 1000,
    Version = 1001,
    Release = 1002,
    Epoch = 1003,
    Vendor = 1011,
    License = 1014,
    Arch = 1022,
    OldFileNames = 1027,
    FileModes = 1030,
    FileDigests = 1035,
    FileFlags = 1037,
    SourceRpm = 1044,
    FileVerifyFlags = 1045,
    ProvideName = 1047,
    RequireName = 1049,
    DirIndexes = 1116,
    BaseNames = 1117,
    DirNames = 1118,
    FileDigestAlgo = 5011,
    ModularityLabel = 5096,
}

const TAGS: &[Tag] = &[
    Tag::Name,
    Tag::Version,
    Tag::Release,
    Tag::Epoch,
    Tag::Vendor,
    Tag::License,
    Tag::Arch,
    Tag::OldFileNames,
    Tag::FileModes,
    Tag::FileDigests,
    Tag::FileFlags,
    Tag::SourceRpm,
    Tag::FileVerifyFlags,
    Tag::ProvideName,
    Tag::RequireName,
    Tag::DirIndexes,
    Tag::BaseNames,
    Tag::DirNames,
    Tag::FileDigestAlgo,
    Tag::ModularityLabel,
];

/// A header whose index was read.
pub(super) struct Header<'a> {
    entries: HashMap<u32, Entry<'a>>,
}

struct Entry<'a> {
    kind: u32,
    count: usize,
    /// The values, and all that follows them.
    values: &'a [u8],
}

// === impl Header ===

impl<'a> Header<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let count = Order::Big.u32(bytes, 0).unwrap_or_default() as usize;
        let index = count.saturating_mul(ENTRY_BYTES);
        let rest = bytes.get(8..).unwrap_or_default();
        let Some((index, values)) = rest.split_at_checked(index) else {
            return Err(malformed(format!(
                "a header has no room for its {count} entries"
            )));
        };
        let length = Order::Big.u32(bytes, 4).unwrap_or_default() as usize;
        let Some(values) = values.get(..length) else {
            return Err(malformed(format!(
                "a header has no room for {length} bytes of values"
            )));
        };
        let mut entries = HashMap::new();
        for entry in index.chunks_exact(ENTRY_BYTES) {
            let field = |at| Order::Big.u32(entry, at).unwrap_or_default();
            let tag = field(0);
            if !TAGS.iter().any(|known| *known as u32 == tag) {
                continue;
            }
            let Some(values) = values.get(field(8) as usize..) else {
                return Err(malformed(format!("tag {tag} is beyond its header")));
            };
            let entry = Entry {
                kind: field(4),
                count: field(12) as usize,
                values,
            };
            entries.entry(tag).or_insert(entry);
        }
        Ok(Self { entries })
    }

    /// A text; what is not UTF-8 is replaced.
    pub(super) fn text(&self, tag: Tag) -> Result<Option<String>, Malformed> {
        let texts = self.texts(tag)?;
        Ok(texts.into_iter().next().filter(|text| !text.is_empty()))
    }

    /// A list of texts, empty where there is none.
    pub(super) fn texts(&self, tag: Tag) -> Result<Vec<String>, Malformed> {
        let Some(entry) = self.entries.get(&(tag as u32)) else {
            return Ok(Vec::new());
        };
        if !matches!(entry.kind, STRING | STRINGS | TRANSLATED) {
            return Err(malformed(format!(
                "{tag:?} is no text but of type {}",
                entry.kind
            )));
        }
        let mut texts = Vec::new();
        let mut rest = entry.values;
        for _ in 0..entry.count {
            let end = memchr::memchr(0, rest);
            let text = end.and_then(|end| rest.split_at_checked(end));
            let Some((text, more)) = text else {
                return Err(malformed(format!("{tag:?} is beyond its header")));
            };
            texts.push(String::from_utf8_lossy(text).into_owned());
            rest = more.get(1..).unwrap_or_default();
        }
        Ok(texts)
    }

    /// A number.
    pub(super) fn number(&self, tag: Tag) -> Result<Option<u32>, Malformed> {
        Ok(self.numbers(tag)?.first().copied())
    }

    /// A list of numbers, empty where there is none.
    pub(super) fn numbers(&self, tag: Tag) -> Result<Vec<u32>, Malformed> {
        let Some(entry) = self.entries.get(&(tag as u32)) else {
            return Ok(Vec::new());
        };
        let width = match entry.kind {
            INT16 => 2,
            INT32 => 4,
            kind => {
                return Err(malformed(format!(
                    "{tag:?} is no number but of type {kind}"
                )));
            }
        };
        let bytes = entry.values.get(..entry.count.saturating_mul(width));
        let bytes = bytes.ok_or_else(|| malformed(format!("{tag:?} is beyond its header")))?;
        let number = |bytes: &[u8]| match width {
            2 => Order::Big.u16(bytes, 0).map(u32::from),
            _ => Order::Big.u32(bytes, 0),
        };
        Ok(bytes.chunks_exact(width).filter_map(number).collect())
    }
}
