//! What a layer has tens of thousands of, in few pieces: its entries and the files that packages own.
//!
//! Texts stand one after the other in one text, and rows of numbers say where each begins. So a layer
//! that is kept is ready when its bytes are copied; one string and one row each, it took a hundred
//! thousand allocations, which was most of a scan of known layers. Of an entry only that is here what
//! a report can need: no owner, mode or size.

use std::fmt;

use model::{Digest, EntryKind, LayerEntry, Owned};
use serde::{
    Deserializer, Serializer,
    de::{Error, Visitor},
};

use super::{
    HashSet,
    index::Index,
    outline::{Name, hash, last},
    tampered::key,
};
use crate::checksums::may_be_owned;

/// In place of a length or number: there is none.
const NONE: u32 = u32::MAX;

/// The entries of a layer, in their order in the archive.
#[derive(Debug, Default)]
pub struct EntryList {
    texts: String,
    rows: Vec<Row>,
    digests: Vec<Digest>,
}

/// Where an entry's path begins, how long it and the link's target behind it are, and which digest
/// it has.
#[derive(Clone, Copy, Debug)]
struct Row {
    start: usize,
    path: u32,
    link: u32,
    digest: u32,
    kind: EntryKind,
}

/// One entry: see [`LayerEntry`].
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'a> {
    /// The path from the image's root.
    pub path: &'a str,
    /// What it is.
    pub kind: EntryKind,
    /// Where a link leads.
    pub link: Option<&'a str>,
    /// The sha256 of a file that can be run or loaded.
    pub digest: Option<&'a Digest>,
}

/// Files that packages own, as one section tells of them.
#[derive(Debug, Default)]
pub(super) struct OwnedList {
    texts: String,
    rows: Vec<OwnedRow>,
    owners: Vec<Owner>,
    /// Last name -> number.
    by_name: Index<u32>,
    /// Path -> number, of what is compared with the file that is there.
    records: Vec<(Name, u32)>,
}

/// A package, its architecture, and the first of its files.
type Owner = (String, (Option<String>, u32));

/// Where a file's path begins, how long it and the digest behind it are, and whose it is.
#[derive(Clone, Copy, Debug)]
struct OwnedRow {
    start: usize,
    path: u32,
    digest: u32,
    owner: u32,
}

/// One file that a package owns: see [`Owned`].
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnedRef<'a> {
    pub(super) package: &'a str,
    pub(super) arch: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) digest: Option<&'a str>,
}

// === impl EntryList ===

impl EntryList {
    pub(super) fn new(entries: &[LayerEntry]) -> Self {
        let mut list = Self::default();
        list.rows.reserve_exact(entries.len());
        let texts = |entry: &LayerEntry| {
            let link = entry.link.as_ref().map_or(0, String::len);
            entry.path.len().saturating_add(link)
        };
        let bytes = entries.iter().map(texts).fold(0, usize::saturating_add);
        list.texts.reserve_exact(bytes);
        for entry in entries {
            let digest = entry.digest.map_or(NONE, |digest| {
                list.digests.push(digest);
                number(list.digests.len().saturating_sub(1))
            });
            list.rows.push(Row {
                start: list.texts.len(),
                path: number(entry.path.len()),
                link: entry.link.as_ref().map_or(NONE, |link| number(link.len())),
                digest,
                kind: entry.kind,
            });
            list.texts.push_str(&entry.path);
            list.texts
                .push_str(entry.link.as_deref().unwrap_or_default());
        }
        list
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = EntryRef<'_>> + Clone {
        self.rows.iter().map(|row| self.entry(*row))
    }

    pub(super) fn get(&self, number: usize) -> Option<EntryRef<'_>> {
        self.rows.get(number).map(|row| self.entry(*row))
    }

    /// How many bytes it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let rows = self.rows.capacity().saturating_mul(size_of::<Row>());
        let digests = self.digests.capacity().saturating_mul(size_of::<Digest>());
        rows.saturating_add(digests)
            .saturating_add(self.texts.capacity())
    }

    /// Whether each row's texts are whole, and its digest is there.
    fn is_whole(&self) -> bool {
        self.rows.iter().all(|row| {
            let has_digest = row.digest == NONE || (row.digest as usize) < self.digests.len();
            has_digest && are_whole(&self.texts, row.start, row.path)
        })
    }

    fn entry(&self, row: Row) -> EntryRef<'_> {
        let (path, link) = two(&self.texts, row.start, row.path, row.link);
        EntryRef {
            path,
            kind: row.kind,
            link,
            digest: self.digests.get(row.digest as usize),
        }
    }
}

impl Pack for EntryList {
    const BYTES_MIN: usize = 48;

    fn pack(&self, out: &mut Vec<u8>) {
        let column = |of: fn(&Row) -> u32| self.rows.iter().map(of).collect::<Vec<u32>>();
        let kinds: Vec<u8> = self.rows.iter().map(|row| kind_number(row.kind)).collect();
        kinds.pack(out);
        column(|row| row.path).pack(out);
        column(|row| row.link).pack(out);
        column(|row| row.digest).pack(out);
        self.digests.pack(out);
        self.texts.pack(out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let kinds: Vec<u8> = Pack::unpack(bytes)?;
        let paths: Vec<u32> = Pack::unpack(bytes)?;
        let links: Vec<u32> = Pack::unpack(bytes)?;
        let digests_of: Vec<u32> = Pack::unpack(bytes)?;
        let mut list = Self {
            rows: Vec::with_capacity(kinds.len()),
            digests: Pack::unpack(bytes)?,
            texts: Pack::unpack(bytes)?,
        };
        let mut start = 0_usize;
        let lengths = paths.iter().zip(&links).zip(&digests_of);
        for (kind, ((path, link), digest)) in kinds.iter().zip(lengths) {
            list.rows.push(Row {
                start,
                path: *path,
                link: *link,
                digest: *digest,
                kind: kind_of(*kind)?,
            });
            start = behind(start, *path, *link)?;
        }
        let is_all = list.rows.len() == kinds.len() && start == list.texts.len();
        (is_all && list.is_whole()).then_some(list)
    }
}

// === impl OwnedList ===

impl OwnedList {
    pub(super) fn new(all: &[Owned]) -> Self {
        let mut list = Self::default();
        list.rows.reserve_exact(all.len());
        let (mut known, mut owner, mut before) = (HashSet::default(), 0, None);
        let mut by_name = Vec::with_capacity(all.len());
        for (at, owned) in (0..).zip(all) {
            let of = (owned.package.as_str(), owned.arch.as_deref());
            // One after the other; where a package comes again it is told of again.
            if before.replace(of) != Some(of) {
                owner = number(list.owners.len());
                let first = if known.insert(of) { at } else { NONE };
                let (package, arch) = of;
                let arch = arch.map(ToOwned::to_owned);
                list.owners.push((package.to_owned(), (arch, first)));
            }
            let digest = owned.digest.as_ref();
            list.rows.push(OwnedRow {
                start: list.texts.len(),
                path: number(owned.path.len()),
                digest: digest.map_or(NONE, |digest| number(digest.len())),
                owner,
            });
            list.texts.push_str(&owned.path);
            list.texts
                .push_str(digest.map(String::as_str).unwrap_or_default());
            by_name.push((hash(last(&owned.path)), at));
            if digest.is_some() && may_be_owned(&owned.path) {
                list.records.push((key(&owned.path), at));
            }
        }
        list.by_name = Index::new(by_name);
        list.records.sort_unstable();
        list
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = OwnedRef<'_>> {
        self.rows.iter().filter_map(|row| self.owned(*row))
    }

    pub(super) fn get(&self, number: u32) -> Option<OwnedRef<'_>> {
        self.owned(*self.rows.get(number as usize)?)
    }

    /// Those with this last name.
    pub(super) fn named(&self, name: Name) -> impl Iterator<Item = u32> {
        self.by_name.named(name).copied()
    }

    /// The first file of each package.
    pub(super) fn firsts(&self) -> impl Iterator<Item = OwnedRef<'_>> {
        let firsts = self.owners.iter().map(|(_, (_, first))| *first);
        firsts.filter_map(|first| self.get(first))
    }

    /// What is compared with the file that is there, by the hash of its path.
    pub(super) fn records(&self) -> impl Iterator<Item = (Name, OwnedRef<'_>)> {
        let records = self.records.iter();
        records.filter_map(|(path, number)| Some((*path, self.get(*number)?)))
    }

    /// As an analyzer found them.
    pub(super) fn to_vec(&self) -> Vec<Owned> {
        let owned = self.iter().map(|owned| Owned {
            package: owned.package.to_owned(),
            arch: owned.arch.map(ToOwned::to_owned),
            path: owned.path.to_owned(),
            digest: owned.digest.map(ToOwned::to_owned),
        });
        owned.collect()
    }

    /// How many bytes it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let rows = self.rows.len().saturating_mul(size_of::<OwnedRow>());
        let owners = self.owners.len().saturating_mul(size_of::<Owner>());
        let records = self.records.len().saturating_mul(16);
        rows.saturating_add(owners)
            .saturating_add(records)
            .saturating_add(self.by_name.bytes())
            .saturating_add(self.texts.capacity())
    }

    /// Whether each row's texts are whole, and its owner is there.
    fn is_whole(&self) -> bool {
        self.rows.iter().all(|row| {
            let has_owner = (row.owner as usize) < self.owners.len();
            has_owner && are_whole(&self.texts, row.start, row.path)
        })
    }

    fn owned(&self, row: OwnedRow) -> Option<OwnedRef<'_>> {
        let (package, (arch, _)) = self.owners.get(row.owner as usize)?;
        let (path, digest) = two(&self.texts, row.start, row.path, row.digest);
        Some(OwnedRef {
            package,
            arch: arch.as_deref(),
            path,
            digest,
        })
    }
}

impl Pack for OwnedList {
    const BYTES_MIN: usize = 40;

    fn pack(&self, out: &mut Vec<u8>) {
        let rows = self.rows.iter();
        let rows: Vec<_> = rows
            .map(|row| (row.path, (row.digest, row.owner)))
            .collect();
        rows.pack(out);
        self.owners.pack(out);
        self.by_name.pack(out);
        self.records.pack(out);
        self.texts.pack(out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let rows: Vec<(u32, (u32, u32))> = Pack::unpack(bytes)?;
        let mut list = Self {
            rows: Vec::with_capacity(rows.len()),
            owners: Pack::unpack(bytes)?,
            by_name: Pack::unpack(bytes)?,
            records: Pack::unpack(bytes)?,
            texts: Pack::unpack(bytes)?,
        };
        let mut start = 0_usize;
        for (path, (digest, owner)) in rows {
            list.rows.push(OwnedRow {
                start,
                path,
                digest,
                owner,
            });
            start = behind(start, path, digest)?;
        }
        (start == list.texts.len() && list.is_whole()).then_some(list)
    }
}

/// A length or a number of what the limits keep far below.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(NONE)
}

/// Where the next texts begin.
fn behind(start: usize, first: u32, second: u32) -> Option<usize> {
    let second = if second == NONE { 0 } else { second as usize };
    start.checked_add(first as usize)?.checked_add(second)
}

/// Whether two texts begin at letters: the end of the last one is the end of all.
fn are_whole(texts: &str, start: usize, first: u32) -> bool {
    let middle = start.saturating_add(first as usize);
    texts.is_char_boundary(start) && texts.is_char_boundary(middle)
}

/// Two texts that stand one behind the other.
fn two(texts: &str, start: usize, first: u32, second: u32) -> (&str, Option<&str>) {
    let middle = start.saturating_add(first as usize);
    let end = middle.saturating_add(second as usize);
    let first = texts.get(start..middle).unwrap_or_default();
    let second = (second != NONE).then(|| texts.get(middle..end).unwrap_or_default());
    (first, second)
}

const KINDS: [EntryKind; 7] = [
    EntryKind::File,
    EntryKind::Directory,
    EntryKind::Symlink,
    EntryKind::Hardlink,
    EntryKind::Special,
    EntryKind::Whiteout,
    EntryKind::Opaque,
];

fn kind_number(kind: EntryKind) -> u8 {
    let numbered = (0..).zip(KINDS);
    let mut same = numbered.filter(|(_, other)| *other == kind);
    same.next().map_or(u8::MAX, |(number, _)| number)
}

fn kind_of(number: u8) -> Option<EntryKind> {
    KINDS.get(usize::from(number)).copied()
}

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
        out.extend_from_slice(self.as_bytes());
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(Self::from_bytes(*first))
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

/// For `serde(with)`.
pub(super) fn serialize<T: Pack, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    value.pack(&mut bytes);
    serializer.serialize_bytes(&bytes)
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

        fn visit_bytes<E: Error>(self, mut bytes: &[u8]) -> Result<T, E> {
            let value = T::unpack(&mut bytes).filter(|_| bytes.is_empty());
            value.ok_or_else(|| E::custom("packed bytes are damaged"))
        }
    }

    deserializer.deserialize_bytes(Bytes(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind() -> impl Strategy<Value = EntryKind> {
        (0..KINDS.len()).prop_map(|at| KINDS[at])
    }

    proptest! {
        #[test]
        fn entries_come_back_as_they_were(
            entries: Vec<(String, Option<String>, Option<[u8; 32]>)>,
            kinds in prop::collection::vec(kind(), 100),
        ) {
            let entries = entries.into_iter().zip(kinds);
            let entries: Vec<_> = entries.map(|((path, link, digest), kind)| LayerEntry {
                path,
                kind,
                mode: 0,
                uid: 0,
                gid: 0,
                size: 0,
                link,
                capabilities: None,
                digest: digest.map(Digest::from_bytes),
            }).collect();
            let mut bytes = Vec::new();
            EntryList::new(&entries).pack(&mut bytes);
            let list = EntryList::unpack(&mut &bytes[..]).unwrap();
            prop_assert_eq!(list.len(), entries.len());
            for (packed, entry) in list.iter().zip(&entries) {
                prop_assert_eq!(packed.path, &entry.path);
                prop_assert_eq!(packed.kind, entry.kind);
                prop_assert_eq!(packed.link, entry.link.as_deref());
                prop_assert_eq!(packed.digest, entry.digest.as_ref());
            }
        }

        #[test]
        fn owned_files_come_back_as_they_were(
            all: Vec<(bool, Option<bool>, String, Option<String>)>,
        ) {
            let all: Vec<_> = all.into_iter().map(|(package, arch, path, digest)| Owned {
                package: package.to_string(),
                arch: arch.map(|arch| arch.to_string()),
                path,
                digest,
            }).collect();
            let mut bytes = Vec::new();
            OwnedList::new(&all).pack(&mut bytes);
            let list = OwnedList::unpack(&mut &bytes[..]).unwrap();
            prop_assert_eq!(&list.to_vec(), &all);
            let packages: HashSet<_> = all.iter().map(|one| (&one.package, &one.arch)).collect();
            prop_assert_eq!(list.firsts().count(), packages.len());
            for (number, owned) in (0..).zip(&all) {
                prop_assert!(list.named(hash(last(&owned.path))).any(|one| one == number));
            }
        }

        #[test]
        fn any_bytes_are_a_list_or_damaged(bytes: Vec<u8>) {
            for list in [EntryList::unpack(&mut &bytes[..])].into_iter().flatten() {
                prop_assert_eq!(list.iter().count(), list.len());
            }
            for list in [OwnedList::unpack(&mut &bytes[..])].into_iter().flatten() {
                prop_assert!(list.iter().count() <= list.rows.len());
            }
        }
    }

    #[test]
    fn a_list_whose_numbers_lead_nowhere_is_damaged() {
        let is_read = |path, link, digest| {
            let list = EntryList {
                texts: "aé".to_owned(),
                rows: vec![Row {
                    start: 0,
                    path,
                    link,
                    digest,
                    kind: EntryKind::File,
                }],
                digests: vec![Digest::of(b"")],
            };
            let mut bytes = Vec::new();
            list.pack(&mut bytes);
            EntryList::unpack(&mut &bytes[..]).is_some()
        };
        assert!(is_read(1, 2, 0) && is_read(3, NONE, NONE));
        assert!(!is_read(2, 1, 0), "within a letter");
        assert!(!is_read(1, 1, 0), "not to the end");
        assert!(!is_read(1, 2, 1), "a digest that is not there");
        let is_read = |owner| {
            let list = OwnedList {
                texts: "a".to_owned(),
                rows: vec![OwnedRow {
                    start: 0,
                    path: 1,
                    digest: NONE,
                    owner,
                }],
                owners: vec![("bash".to_owned(), (None, 0))],
                ..OwnedList::default()
            };
            let mut bytes = Vec::new();
            list.pack(&mut bytes);
            OwnedList::unpack(&mut &bytes[..]).is_some()
        };
        assert!(is_read(0) && !is_read(1));
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

    #[test]
    fn a_list_that_was_cut_is_damaged() {
        let owned = Owned {
            package: "bash".to_owned(),
            arch: None,
            path: "bin/bash".to_owned(),
            digest: Some("md5:0".to_owned()),
        };
        let mut bytes = Vec::new();
        OwnedList::new(&[owned.clone(), owned]).pack(&mut bytes);
        for end in 0..bytes.len() {
            assert!(OwnedList::unpack(&mut &bytes[..end]).is_none(), "{end}");
        }
    }
}
