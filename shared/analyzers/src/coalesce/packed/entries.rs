//! The entries of a layer.

use model::{Digest, EntryKind, LayerEntry};

use super::{
    Pack,
    texts::{NONE, Texts, is_whole, number, pack_like, pack_plain, two},
};

/// The entries of a layer, in their order in the archive.
#[derive(Debug, Default)]
pub struct EntryList {
    texts: String,
    rows: Vec<Row>,
    /// Those of the entries that have one, in their order.
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

/// In the first byte of a packed entry, beside its kind: a link's target follows its path.
const HAS_LINK: u8 = 0x40;
/// The same: it has the next digest.
const HAS_DIGEST: u8 = 0x80;
/// The first byte, and the two numbers of its path.
const ENTRY_BYTES_MIN: usize = 3;

const KINDS: [EntryKind; 7] = [
    EntryKind::File,
    EntryKind::Directory,
    EntryKind::Symlink,
    EntryKind::Hardlink,
    EntryKind::Special,
    EntryKind::Whiteout,
    EntryKind::Opaque,
];

// === impl EntryList ===

impl EntryList {
    pub(in crate::coalesce) fn new(entries: &[LayerEntry]) -> Self {
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

    /// Links to paths, with their numbers.
    pub(in crate::coalesce) fn symlinks(&self) -> impl Iterator<Item = (u32, EntryRef<'_>)> {
        let rows = (0..).zip(&self.rows);
        let links = rows.filter(|(_, row)| row.kind == EntryKind::Symlink);
        links.map(|(number, row)| (number, self.entry(*row)))
    }

    pub(in crate::coalesce) fn get(&self, number: usize) -> Option<EntryRef<'_>> {
        self.rows.get(number).map(|row| self.entry(*row))
    }

    /// How many bytes it takes in memory.
    pub(in crate::coalesce) fn bytes(&self) -> usize {
        let rows = self.rows.capacity().saturating_mul(size_of::<Row>());
        let digests = self.digests.capacity().saturating_mul(size_of::<Digest>());
        rows.saturating_add(digests)
            .saturating_add(self.texts.capacity())
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
    /// Two counts, and the length of all texts.
    const BYTES_MIN: usize = 24;

    fn pack(&self, out: &mut Vec<u8>) {
        (self.len() as u64).pack(out);
        (self.texts.len() as u64).pack(out);
        let mut before = "";
        for entry in self.iter() {
            let link = entry.link.map_or(0, |_| HAS_LINK);
            let digest = entry.digest.map_or(0, |_| HAS_DIGEST);
            out.push(kind_number(entry.kind) | link | digest);
            pack_like(before, entry.path, out);
            if let Some(link) = entry.link {
                pack_plain(link, out);
            }
            before = entry.path;
        }
        self.digests.pack(out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let count = usize::try_from(u64::unpack(bytes)?).ok()?;
        if count > bytes.len() / ENTRY_BYTES_MIN {
            return None;
        }
        let mut texts = Texts::begin(bytes)?;
        let mut rows = Vec::with_capacity(count);
        let mut digests = 0_u32;
        for _ in 0..count {
            let first = u8::unpack(bytes)?;
            let start = texts.len();
            let path = texts.unpack_like(bytes)?;
            let link = if first & HAS_LINK == 0 {
                NONE
            } else {
                texts.unpack_plain(bytes)?
            };
            let digest = if first & HAS_DIGEST == 0 {
                NONE
            } else {
                digests = digests.saturating_add(1);
                digests.saturating_sub(1)
            };
            rows.push(Row {
                start,
                path,
                link,
                digest,
                kind: kind_of(first & !(HAS_LINK | HAS_DIGEST))?,
            });
        }
        let list = Self {
            texts: texts.finish()?,
            rows,
            digests: Pack::unpack(bytes)?,
        };
        let are_whole = list
            .rows
            .iter()
            .all(|row| is_whole(&list.texts, row.start, row.path));
        (are_whole && number(list.digests.len()) == digests).then_some(list)
    }
}

fn kind_number(kind: EntryKind) -> u8 {
    let numbered = (0..).zip(KINDS);
    let mut same = numbered.filter(|(_, other)| *other == kind);
    same.next().map_or(u8::MAX, |(number, _)| number)
}

fn kind_of(number: u8) -> Option<EntryKind> {
    KINDS.get(usize::from(number)).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind() -> impl Strategy<Value = EntryKind> {
        (0..KINDS.len()).prop_map(|at| KINDS[at])
    }

    fn of(path: &str, kind: EntryKind, link: Option<&str>, digest: Option<[u8; 32]>) -> LayerEntry {
        LayerEntry {
            path: path.to_owned(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            link: link.map(ToOwned::to_owned),
            capabilities: None,
            digest: digest.map(Digest::from_bytes),
        }
    }

    fn packed(entries: &[LayerEntry]) -> Vec<u8> {
        let mut bytes = Vec::new();
        EntryList::new(entries).pack(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn entries_come_back_as_they_were(
            entries: Vec<(String, Option<String>, Option<[u8; 32]>)>,
            kinds in prop::collection::vec(kind(), 100),
        ) {
            let entries = entries.iter().zip(kinds);
            let entries: Vec<_> = entries
                .map(|((path, link, digest), kind)| of(path, kind, link.as_deref(), *digest))
                .collect();
            let list = EntryList::unpack(&mut &packed(&entries)[..]).unwrap();
            prop_assert_eq!(list.len(), entries.len());
            for (packed, entry) in list.iter().zip(&entries) {
                prop_assert_eq!(packed.path, &entry.path);
                prop_assert_eq!(packed.kind, entry.kind);
                prop_assert_eq!(packed.link, entry.link.as_deref());
                prop_assert_eq!(packed.digest, entry.digest.as_ref());
            }
        }

        #[test]
        fn any_bytes_are_a_list_or_damaged(mut bytes: Vec<u8>, count in 0..4_u8) {
            bytes.splice(0..0, [count, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
            for list in [EntryList::unpack(&mut &bytes[..])].into_iter().flatten() {
                prop_assert_eq!(list.iter().count(), usize::from(count));
            }
        }
    }

    #[test]
    fn a_list_that_was_cut_or_changed_is_damaged() {
        let entries = [
            of("usr/bin/a", EntryKind::File, None, Some([1; 32])),
            of("usr/bin/é", EntryKind::Symlink, Some("a"), None),
        ];
        let bytes = packed(&entries);
        for end in 0..bytes.len() {
            assert!(EntryList::unpack(&mut &bytes[..end]).is_none(), "{end}");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            EntryList::unpack(&mut &bytes[..])
        };
        let (first, second) = (16, 28);
        assert_eq!((bytes[first], bytes[second]), (HAS_DIGEST, 2 | HAS_LINK));
        assert!(with(first, 7 | HAS_DIGEST).is_none(), "no such kind");
        assert!(with(first, 0).is_none(), "a digest that nothing has");
        assert!(
            with(second, 2 | HAS_LINK | HAS_DIGEST).is_none(),
            "no digest"
        );
        assert!(
            with(second + 1, 10).is_none(),
            "more than the path before has"
        );
        assert!(with(second + 3, b'a').is_none(), "within a letter");
        assert!(with(second + 1, 0).is_some_and(|list| list.get(1).unwrap().path == "é"));
    }
}
