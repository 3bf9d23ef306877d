//! The files that packages own.

use std::fmt;

use model::{Digest, Owned, hex, unhex};

use super::{
    Pack,
    texts::{NONE, Texts, is_whole, number, pack_like, pack_plain, two},
};
use crate::{
    checksums::may_be_owned,
    coalesce::{
        HashSet,
        index::Index,
        outline::{Name, hash, last},
        tampered::key,
    },
};

/// Files that packages own, as one section tells of them.
#[derive(Debug, Default)]
pub(in crate::coalesce) struct OwnedList {
    /// Paths, each with the recorded digest behind it where that is none that we know.
    texts: String,
    rows: Vec<Row>,
    /// Recorded digests, one behind the other.
    digests: Vec<u8>,
    /// In the order of the files.
    owners: Vec<Owner>,
    /// Last name -> number.
    by_name: Index<u32>,
    /// Path -> number, of what is compared with the file that is there.
    records: Vec<(Name, u32)>,
}

/// A package, its architecture, and the first of its files.
type Owner = (String, (Option<String>, u32));

/// Where a file's path begins, how long it is, whose it is, and what was recorded.
#[derive(Clone, Copy, Debug)]
struct Row {
    start: usize,
    path: u32,
    owner: u32,
    /// Where the digest begins, or how long the text is.
    digest: u32,
    recorded: Kind,
}

/// What was recorded of a file, as the first byte of the packed file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nothing,
    Md5,
    Sha1,
    Sha256,
    Text,
}

/// In the first byte of a packed file, beside what was recorded: it is the first of its package's.
const IS_FIRST: u8 = 0x80;
/// The first byte, and the two numbers of its path.
const FILE_BYTES_MIN: usize = 3;

/// One file that a package owns: see [`Owned`].
#[derive(Clone, Copy, Debug)]
pub(in crate::coalesce) struct OwnedRef<'a> {
    pub(in crate::coalesce) package: &'a str,
    pub(in crate::coalesce) arch: Option<&'a str>,
    pub(in crate::coalesce) path: &'a str,
    pub(in crate::coalesce) digest: Option<Recorded<'a>>,
}

/// The digest that was recorded at installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::coalesce) enum Recorded<'a> {
    Md5([u8; 16]),
    Sha1([u8; 20]),
    Sha256(Digest),
    /// Whatever else: another algorithm's, or no digest at all.
    Text(&'a str),
}

// === impl Recorded ===

impl<'a> Recorded<'a> {
    /// What a package manager wrote, or `algorithm:value` as everybody writes it.
    pub(in crate::coalesce) fn of(text: &'a str) -> Self {
        let known = match text.split_once(':') {
            Some(("md5", value)) => unhex(value).map(Self::Md5),
            Some(("sha1", value)) => unhex(value).map(Self::Sha1),
            Some(("sha256", value)) => Digest::from_hex(value).map(Self::Sha256),
            _ => None,
        };
        known.unwrap_or(Self::Text(text))
    }
}

impl fmt::Display for Recorded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Md5(value) => write!(f, "md5:{}", hex(value)),
            Self::Sha1(value) => write!(f, "sha1:{}", hex(value)),
            Self::Sha256(value) => write!(f, "sha256:{}", value.hex()),
            Self::Text(text) => f.write_str(text),
        }
    }
}

// === impl Kind ===

impl Kind {
    const ALL: [Self; 5] = [
        Self::Nothing,
        Self::Md5,
        Self::Sha1,
        Self::Sha256,
        Self::Text,
    ];

    /// Bytes among the digests.
    fn bytes(self) -> usize {
        match self {
            Self::Nothing | Self::Text => 0,
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    fn number(self) -> u8 {
        let numbered = (0..).zip(Self::ALL);
        let mut same = numbered.filter(|(_, other)| *other == self);
        same.next().map_or(u8::MAX, |(number, _)| number)
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

// === impl OwnedList ===

impl OwnedList {
    pub(in crate::coalesce) fn new(all: &[Owned]) -> Self {
        let mut list = Self::default();
        list.rows.reserve_exact(all.len());
        let (mut known, mut before) = (HashSet::default(), None);
        let mut by_name = Vec::with_capacity(all.len());
        for (at, owned) in (0..).zip(all) {
            let of = (owned.package.as_str(), owned.arch.as_deref());
            // One after the other; where a package comes again it is told of again.
            if before.replace(of) != Some(of) {
                let first = if known.insert(of) { at } else { NONE };
                let (package, arch) = of;
                let arch = arch.map(ToOwned::to_owned);
                list.owners.push((package.to_owned(), (arch, first)));
            }
            list.add(owned);
            by_name.push((hash(last(&owned.path)), at));
            if owned.digest.is_some() && may_be_owned(&owned.path) {
                list.records.push((key(&owned.path), at));
            }
        }
        list.by_name = Index::new(by_name);
        list.records.sort_unstable();
        list
    }

    /// Adds a file of the last of the owners.
    fn add(&mut self, owned: &Owned) {
        let start = self.texts.len();
        self.texts.push_str(&owned.path);
        let begin = number(self.digests.len());
        let recorded = owned.digest.as_deref().map(Recorded::of);
        let (recorded, digest) = match recorded {
            None => (Kind::Nothing, NONE),
            Some(Recorded::Md5(value)) => {
                self.digests.extend(value);
                (Kind::Md5, begin)
            }
            Some(Recorded::Sha1(value)) => {
                self.digests.extend(value);
                (Kind::Sha1, begin)
            }
            Some(Recorded::Sha256(value)) => {
                self.digests.extend(value.as_bytes());
                (Kind::Sha256, begin)
            }
            Some(Recorded::Text(text)) => {
                self.texts.push_str(text);
                (Kind::Text, number(text.len()))
            }
        };
        self.rows.push(Row {
            start,
            path: number(owned.path.len()),
            owner: number(self.owners.len().saturating_sub(1)),
            digest,
            recorded,
        });
    }

    pub(in crate::coalesce) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(in crate::coalesce) fn iter(&self) -> impl Iterator<Item = OwnedRef<'_>> {
        self.rows.iter().filter_map(|row| self.owned(*row))
    }

    pub(in crate::coalesce) fn get(&self, number: u32) -> Option<OwnedRef<'_>> {
        self.owned(*self.rows.get(number as usize)?)
    }

    /// Those with this last name.
    pub(in crate::coalesce) fn named(&self, name: Name) -> impl Iterator<Item = u32> {
        self.by_name.named(name).copied()
    }

    /// The first file of each package.
    pub(in crate::coalesce) fn firsts(&self) -> impl Iterator<Item = OwnedRef<'_>> {
        let firsts = self.owners.iter().map(|(_, (_, first))| *first);
        firsts.filter_map(|first| self.get(first))
    }

    /// What is compared with the file that is there: the hash of its path, and its number.
    pub(in crate::coalesce) fn records(&self) -> impl Iterator<Item = (Name, u32)> {
        self.records.iter().copied()
    }

    /// As an analyzer found them.
    pub(in crate::coalesce) fn to_vec(&self) -> Vec<Owned> {
        let owned = self.iter().map(|owned| Owned {
            package: owned.package.to_owned(),
            arch: owned.arch.map(ToOwned::to_owned),
            path: owned.path.to_owned(),
            digest: owned.digest.map(|digest| digest.to_string()),
        });
        owned.collect()
    }

    /// How many bytes it takes in memory.
    pub(in crate::coalesce) fn bytes(&self) -> usize {
        let rows = self.rows.capacity().saturating_mul(size_of::<Row>());
        let owners = self.owners.len().saturating_mul(size_of::<Owner>());
        let records = self.records.len().saturating_mul(16);
        rows.saturating_add(owners)
            .saturating_add(records)
            .saturating_add(self.by_name.bytes())
            .saturating_add(self.digests.capacity())
            .saturating_add(self.texts.capacity())
    }

    fn owned(&self, row: Row) -> Option<OwnedRef<'_>> {
        let (package, (arch, _)) = self.owners.get(row.owner as usize)?;
        let text = match row.recorded {
            Kind::Text => row.digest,
            _ => NONE,
        };
        let (path, text) = two(&self.texts, row.start, row.path, text);
        let begin = row.digest as usize;
        let bytes = || {
            self.digests
                .get(begin..begin.saturating_add(row.recorded.bytes()))
        };
        let digest = match row.recorded {
            Kind::Nothing => None,
            Kind::Md5 => Some(Recorded::Md5(bytes()?.try_into().ok()?)),
            Kind::Sha1 => Some(Recorded::Sha1(bytes()?.try_into().ok()?)),
            Kind::Sha256 => {
                let value = bytes()?.try_into().ok()?;
                Some(Recorded::Sha256(Digest::from_bytes(value)))
            }
            Kind::Text => text.map(Recorded::Text),
        };
        Some(OwnedRef {
            package,
            arch: arch.as_deref(),
            path,
            digest,
        })
    }
}

impl Pack for OwnedList {
    /// Five counts, and the length of all texts.
    const BYTES_MIN: usize = 48;

    fn pack(&self, out: &mut Vec<u8>) {
        (self.rows.len() as u64).pack(out);
        (self.texts.len() as u64).pack(out);
        let (mut owner, mut before) = (None, "");
        for row in &self.rows {
            let is_first = owner.replace(row.owner) != Some(row.owner);
            let first = if is_first { IS_FIRST } else { 0 };
            out.push(row.recorded.number() | first);
            let text = match row.recorded {
                Kind::Text => row.digest,
                _ => NONE,
            };
            let (path, text) = two(&self.texts, row.start, row.path, text);
            pack_like(before, path, out);
            if let Some(text) = text {
                pack_plain(text, out);
            }
            before = path;
        }
        self.digests.pack(out);
        self.owners.pack(out);
        self.by_name.pack(out);
        self.records.pack(out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let count = usize::try_from(u64::unpack(bytes)?).ok()?;
        if count > bytes.len() / FILE_BYTES_MIN {
            return None;
        }
        let mut texts = Texts::begin(bytes)?;
        let mut rows = Vec::with_capacity(count);
        let (mut owners, mut digests) = (0_usize, 0_usize);
        for _ in 0..count {
            let first = u8::unpack(bytes)?;
            if first & IS_FIRST != 0 {
                owners = owners.saturating_add(1);
            }
            let recorded = Kind::of(first & !IS_FIRST)?;
            let start = texts.len();
            let path = texts.unpack_like(bytes)?;
            let digest = match recorded {
                Kind::Nothing => NONE,
                Kind::Text => texts.unpack_plain(bytes)?,
                _ => number(digests),
            };
            digests = digests.saturating_add(recorded.bytes());
            rows.push(Row {
                start,
                path,
                owner: number(owners.checked_sub(1)?),
                digest,
                recorded,
            });
        }
        let list = Self {
            texts: texts.finish()?,
            rows,
            digests: unpack_bytes(bytes)?,
            owners: Pack::unpack(bytes)?,
            by_name: Pack::unpack(bytes)?,
            records: Pack::unpack(bytes)?,
        };
        let are_whole = list
            .rows
            .iter()
            .all(|row| is_whole(&list.texts, row.start, row.path));
        let is_all = list.digests.len() == digests && list.owners.len() == owners;
        (are_whole && is_all).then_some(list)
    }
}

/// A list of bytes, at once.
fn unpack_bytes(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(u64::unpack(bytes)?).ok()?;
    let (all, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(all.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owned(package: &str, arch: Option<&str>, path: &str, digest: Option<&str>) -> Owned {
        Owned {
            package: package.to_owned(),
            arch: arch.map(ToOwned::to_owned),
            path: path.to_owned(),
            digest: digest.map(ToOwned::to_owned),
        }
    }

    fn packed(all: &[Owned]) -> Vec<u8> {
        let mut bytes = Vec::new();
        OwnedList::new(all).pack(&mut bytes);
        bytes
    }

    fn digest() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "(md5|sha1|sha256|sha512):[0-9a-f]{0,3}",
            "md5:[0-9a-f]{32}",
            "md5:[0-9A-F]{32}",
            "sha1:[0-9a-f]{40}",
            "sha256:[0-9a-f]{64}",
        ]
    }

    proptest! {
        #[test]
        fn owned_files_come_back_as_they_were(
            all: Vec<(bool, Option<bool>, String)>,
            digests in prop::collection::vec(prop::option::of(digest()), 100),
        ) {
            let all: Vec<_> = all.into_iter().zip(&digests).map(|((package, arch, path), digest)| {
                let arch = arch.map(|arch| arch.to_string());
                owned(&package.to_string(), arch.as_deref(), &path, digest.as_deref())
            }).collect();
            let list = OwnedList::unpack(&mut &packed(&all)[..]).unwrap();
            prop_assert_eq!(&list.to_vec(), &all);
            let packages: HashSet<_> = all.iter().map(|one| (&one.package, &one.arch)).collect();
            prop_assert_eq!(list.firsts().count(), packages.len());
            for (number, owned) in (0..).zip(&all) {
                prop_assert!(list.named(hash(last(&owned.path))).any(|one| one == number));
            }
        }

        #[test]
        fn any_bytes_are_a_list_or_damaged(mut bytes: Vec<u8>, count in 0..4_u8) {
            bytes.splice(0..0, [count, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
            for list in [OwnedList::unpack(&mut &bytes[..])].into_iter().flatten() {
                prop_assert!(list.iter().count() <= list.rows.len());
            }
        }
    }

    #[test]
    fn a_list_that_was_cut_or_changed_is_damaged() {
        let md5 = format!("md5:{}", "0".repeat(32));
        let bytes = packed(&[
            owned("bash", None, "bin/bash", Some(&md5)),
            owned("bash", None, "bin/sh", None),
        ]);
        for end in 0..bytes.len() {
            assert!(OwnedList::unpack(&mut &bytes[..end]).is_none(), "{end}");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            OwnedList::unpack(&mut &bytes[..])
        };
        let (first, second) = (16, 27);
        assert_eq!((bytes[first], bytes[second]), (1 | IS_FIRST, 0));
        assert!(with(first, 1).is_none(), "nobody's");
        assert!(
            with(first, 2 | IS_FIRST).is_none(),
            "more digests than there are"
        );
        assert!(with(first, 5 | IS_FIRST).is_none(), "no such kind");
        assert!(
            with(second, IS_FIRST).is_none(),
            "an owner that is not there"
        );
    }
}
