//! PAX extended headers: `length key=value` lines that change the entry behind them.

use super::sparse::{self, Segment};
use crate::ArchiveError;

/// What a PAX header says, as far as it matters here. An empty value takes a key back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) capabilities: Option<Vec<u8>>,
    sparse: Sparse,
}

/// What marks a sparse file, in the three forms that GNU tar has had.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sparse {
    major: Vec<u8>,
    minor: Vec<u8>,
    /// `GNU.sparse.map`.
    list: Option<Vec<u8>>,
    /// `GNU.sparse.offset` and `GNU.sparse.numbytes`, in turn.
    numbers: Vec<u64>,
    name: Vec<u8>,
    size: Option<u64>,
    real_size: Option<u64>,
}

// === impl Pax ===

impl Pax {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, ArchiveError> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes)
                .ok_or(ArchiveError::BadHeader("an extended header cannot be read"))?;
            pax.set(key, value)?;
            bytes = rest;
        }
        Ok(pax)
    }

    /// Whether the entry is a sparse file of a form that unpackers know.
    pub(super) fn is_sparse(&self) -> bool {
        match (&self.sparse.major[..], &self.sparse.minor[..]) {
            (b"0", b"0" | b"1") | (b"1", b"0") => true,
            (b"", b"") => self.sparse.list.is_some() || !self.sparse.numbers.is_empty(),
            _ => false,
        }
    }

    /// Whether a sparse file's map stands at the start of its content.
    pub(super) fn has_map_in_content(&self) -> bool {
        self.sparse.major == b"1"
    }

    /// The map of a sparse file, where it stands here; `None` where it cannot be read.
    pub(super) fn map(&self) -> Option<Vec<Segment>> {
        if let Some(list) = &self.sparse.list {
            return sparse::of_list(list);
        }
        let pairs = self.sparse.numbers.chunks(2);
        let pairs = pairs.map(|pair| match pair {
            [offset, length] => Some((*offset, *length)),
            _ => None,
        });
        pairs.collect()
    }

    /// The name of a sparse file.
    pub(super) fn sparse_name(&self) -> Option<&[u8]> {
        (self.is_sparse() && !self.sparse.name.is_empty()).then_some(&self.sparse.name)
    }

    /// The size of a sparse file with its holes.
    pub(super) fn sparse_size(&self) -> Option<u64> {
        let size = self.sparse.size.or(self.sparse.real_size);
        if self.is_sparse() { size } else { None }
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        let bytes = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = bytes(),
            b"linkpath" => self.link = bytes(),
            b"size" => self.size = unsigned(value)?,
            b"uid" => self.uid = signed(value)?.map(i64::cast_unsigned),
            b"gid" => self.gid = signed(value)?.map(i64::cast_unsigned),
            b"SCHILY.xattr.security.capability" => self.capabilities = bytes(),
            b"GNU.sparse.major" => self.sparse.major = value.to_vec(),
            b"GNU.sparse.minor" => self.sparse.minor = value.to_vec(),
            b"GNU.sparse.map" => self.sparse.list = Some(value.to_vec()),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let number = unsigned(value)?.unwrap_or_default();
                self.sparse.numbers.push(number);
            }
            b"GNU.sparse.name" => self.sparse.name = value.to_vec(),
            b"GNU.sparse.size" => self.sparse.size = unsigned(value)?,
            b"GNU.sparse.realsize" => self.sparse.real_size = unsigned(value)?,
            _ => {}
        }
        Ok(())
    }
}

/// The first record: its key, its value and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().position(|byte| *byte == b' ')?;
    let digits = bytes.get(..blank)?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(blank.checked_add(1)?..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = record.split_at_checked(equals)?;
    let is_fine = !key.is_empty() && !key.contains(&0);
    is_fine.then_some((key, value.strip_prefix(b"=")?, rest))
}

fn signed(value: &[u8]) -> Result<Option<i64>, ArchiveError> {
    if value.is_empty() {
        return Ok(None);
    }
    let number = std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok());
    number.map(Some).ok_or(ArchiveError::BadHeader(
        "a number in an extended header cannot be read",
    ))
}

fn unsigned(value: &[u8]) -> Result<Option<u64>, ArchiveError> {
    let bad = ArchiveError::BadHeader("a size in an extended header is negative");
    signed(value)?
        .map(|number| u64::try_from(number).map_err(|_| bad))
        .transpose()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_are_read_by_their_length() {
        let pax = Pax::parse(b"11 path=a\nb\n12 size=1234\n9 size=\n8 uid=7\n").unwrap_err();
        assert!(
            matches!(pax, ArchiveError::BadHeader(_)),
            "`12 size=1234` has 13 bytes"
        );
        let pax = Pax::parse(b"12 path=a\nb\n13 size=1234\n8 size=\n8 uid=-1\n").unwrap_err();
        assert!(
            matches!(pax, ArchiveError::BadHeader(_)),
            "`8 uid=-1` has 9 bytes"
        );
        let pax = Pax::parse(b"12 path=a\nb\n13 size=1234\n8 size=\n9 uid=-1\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!((pax.size, pax.uid), (None, Some(u64::MAX)));
    }

    #[test]
    fn broken_records_are_refused() {
        for bytes in [
            &b"x path=a\n"[..],
            b"99 path=a\n",
            b"10 patha\n\n",
            b"4 =\n",
            b"11 size=-1\n",
            b"0 a=b\n",
        ] {
            assert!(
                Pax::parse(bytes).is_err(),
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in "([0-9]{1,3} [a-zA-Z.=]{0,12}\n){0,4}") {
            let _pax = Pax::parse(bytes.as_bytes());
        }
    }
}
