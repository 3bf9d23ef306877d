//! The digests of files' content that package managers record.

use model::{EntryKind, FileSums};

use super::{Pack, entries::EntryList};
use crate::coalesce::{HashMap, outline::Name, tampered::key};

/// The digests of files, as one section tells of them: sorted by path, and then in the order of the
/// entries.
#[derive(Debug, Default)]
pub(in crate::coalesce) struct SumsList(Vec<SumsRow>);

/// The digests of one file: see [`FileSums`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::coalesce) struct SumsRow {
    /// The path's hash.
    pub(in crate::coalesce) path: Name,
    /// The entry.
    pub(in crate::coalesce) entry: u32,
    pub(in crate::coalesce) md5: [u8; 16],
    pub(in crate::coalesce) sha1: [u8; 20],
}

// === impl SumsList ===

impl SumsList {
    /// Of a layer's files, whose entries these are.
    pub(in crate::coalesce) fn new(all: &[FileSums], entries: &EntryList) -> Self {
        if all.is_empty() {
            return Self::default();
        }
        // Of two digests of one path the later ones count.
        let by_path = all.iter().map(|sums| (sums.path.as_str(), sums));
        let by_path: HashMap<&str, &FileSums> = by_path.collect();
        let files = (0..).zip(entries.iter());
        let files = files.filter(|(_, entry)| entry.kind == EntryKind::File);
        let rows = files.filter_map(|(number, entry)| {
            let sums = by_path.get(entry.path)?;
            Some(SumsRow {
                path: key(entry.path),
                entry: number,
                md5: sums.md5,
                sha1: sums.sha1,
            })
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        Self(rows)
    }

    pub(in crate::coalesce) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::coalesce) fn iter(&self) -> impl Iterator<Item = &SumsRow> {
        self.0.iter()
    }

    pub(in crate::coalesce) fn get(&self, number: u32) -> Option<&SumsRow> {
        self.0.get(number as usize)
    }

    /// As an analyzer found them, in the order of the entries.
    pub(in crate::coalesce) fn to_vec(&self, entries: &EntryList) -> Vec<FileSums> {
        let mut rows: Vec<_> = self.iter().collect();
        rows.sort_unstable_by_key(|row| row.entry);
        let all = rows.into_iter().filter_map(|row| {
            Some(FileSums {
                path: entries.get(row.entry as usize)?.path.to_owned(),
                md5: row.md5,
                sha1: row.sha1,
            })
        });
        all.collect()
    }

    /// How many bytes it takes in memory.
    pub(in crate::coalesce) fn bytes(&self) -> usize {
        self.0.capacity().saturating_mul(size_of::<SumsRow>())
    }
}

impl Pack for SumsList {
    const BYTES_MIN: usize = 8;

    fn pack(&self, out: &mut Vec<u8>) {
        self.0.pack(out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        Pack::unpack(bytes).map(Self)
    }
}

impl Pack for SumsRow {
    const BYTES_MIN: usize = 48;

    fn pack(&self, out: &mut Vec<u8>) {
        self.path.pack(out);
        self.entry.pack(out);
        self.md5.pack(out);
        self.sha1.pack(out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            path: Pack::unpack(bytes)?,
            entry: Pack::unpack(bytes)?,
            md5: Pack::unpack(bytes)?,
            sha1: Pack::unpack(bytes)?,
        })
    }
}
