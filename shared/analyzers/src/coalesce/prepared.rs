//! A layer as images are put together of it, and as it is kept.

use std::{ops::Deref, sync::Arc, thread};

use model::{Digest, Gap, LayerReport, Section};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{
    HashSet,
    outline::{Name, Outline, hash, last},
    packed::{self, EntryList, EntryRef, OwnedList, OwnedRef, SumsList},
    purl::Purls,
    tampered::Tops,
};

/// What a package URL takes in memory, about.
const PURL_BYTES: usize = 120;

/// Packed bytes of an outline from which on a thread is worth it: they take a third of a millisecond.
const APART_BYTES_MIN: usize = 256 << 10;

/// A layer, made ready for images that have it: what [`super::coalesce_prepared`] needs in order
/// not to look at all its entries each time.
#[derive(Debug)]
pub struct PreparedLayer {
    /// The blob's digest.
    pub blob: Digest,
    /// Its entries.
    pub entries: KeptEntries,
    /// One section per analyzer, in the order of the analyzer list.
    pub sections: Vec<Arc<KeptSection>>,
    /// Gaps of the attempt to read it: never kept.
    pub transient_gaps: Vec<Gap>,
    pub(super) tops: Tops,
    pub(super) purls: Purls,
}

/// The `entries` section as it is kept: with all that is found out about it by going through it, and
/// without what no report needs.
#[derive(Debug, Serialize)]
pub struct KeptEntries {
    /// The digest of the uncompressed layer; `None` where it could not be read to its end.
    pub diff_id: Option<Digest>,
    /// Bytes of the blob.
    pub compressed_bytes: u64,
    /// What could not be read of the layer itself.
    pub gaps: Vec<Gap>,
    #[serde(with = "packed")]
    list: EntryList,
    #[serde(with = "packed")]
    pub(super) outline: Outline,
}

/// The same, not unpacked yet.
#[derive(Deserialize)]
struct PackedEntries<'a> {
    diff_id: Option<Digest>,
    compressed_bytes: u64,
    gaps: Vec<Gap>,
    list: &'a [u8],
    outline: &'a [u8],
}

/// A section as it is kept: with the files that packages own and the digests of files in one piece
/// each.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeptSection {
    /// Without files that packages own, and digests.
    section: Section,
    #[serde(default, with = "packed", skip_serializing_if = "OwnedList::is_empty")]
    pub(super) owned: OwnedList,
    #[serde(default, with = "packed", skip_serializing_if = "SumsList::is_empty")]
    pub(super) sums: SumsList,
}

// === impl PreparedLayer ===

impl PreparedLayer {
    /// Looks at every entry once.
    pub fn new(report: LayerReport) -> Self {
        let LayerReport {
            blob,
            entries,
            sections,
            transient_gaps,
        } = report;
        let list = EntryList::new(&entries.entries);
        let sections = sections.into_iter();
        let sections = sections.map(|section| Arc::new(KeptSection::new(section, &list)));
        let sections = sections.collect();
        let entries = KeptEntries {
            diff_id: entries.diff_id,
            compressed_bytes: entries.compressed_bytes,
            gaps: entries.gaps.clone(),
            outline: Outline::new(&list),
            list,
        };
        Self {
            transient_gaps,
            ..Self::of_kept(blob, entries, sections)
        }
    }

    /// The layer of which these sections are kept.
    pub fn of_kept(blob: Digest, entries: KeptEntries, sections: Vec<Arc<KeptSection>>) -> Self {
        let tops = Tops::new(&entries, &sections);
        Self {
            blob,
            entries,
            sections,
            transient_gaps: Vec::new(),
            tops,
            purls: Purls::default(),
        }
    }

    /// A file that a package owns.
    pub(super) fn owned(&self, section: u32, number: u32) -> Option<OwnedRef<'_>> {
        self.sections.get(section as usize)?.owned.get(number)
    }

    /// Files with this last name that packages own, as section and number.
    pub(super) fn owned_named(&self, name: Name) -> impl Iterator<Item = (u32, u32)> {
        let sections = (0..).zip(&self.sections);
        sections.flat_map(move |(at, section)| {
            let named = section.owned.named(name);
            named.map(move |number| (at, number))
        })
    }

    /// The first file of each package that owns some.
    pub(super) fn owners(&self) -> impl Iterator<Item = OwnedRef<'_>> {
        let sections = self.sections.iter();
        sections.flat_map(|section| section.owned.firsts())
    }

    /// Whether packages own files of it.
    pub(super) fn owns_any(&self) -> bool {
        let mut sections = self.sections.iter();
        sections.any(|section| !section.owned.is_empty())
    }

    /// Entries with the last names of these paths, in order.
    pub(crate) fn named<'p>(
        &self,
        paths: impl Iterator<Item = &'p str>,
    ) -> Vec<(usize, EntryRef<'_>)> {
        let lasts: HashSet<Name> = paths.map(|path| hash(last(path))).collect();
        let outline = &self.entries.outline;
        let numbers = lasts.into_iter().flat_map(|name| outline.named(name));
        let mut numbers: Vec<usize> = numbers.map(|number| number as usize).collect();
        numbers.sort_unstable();
        numbers
            .into_iter()
            .filter_map(|number| Some((number, self.entries.get(number)?)))
            .collect()
    }

    /// About how many bytes of memory its entries and the files that packages own take, with what is
    /// known of them.
    pub fn packed_bytes(&self) -> usize {
        let entries = self.entries.list.bytes();
        let outline = self.entries.outline.bytes();
        let owned = self.sections.iter().map(|section| {
            let sums = section.sums.bytes();
            section.owned.bytes().saturating_add(sums)
        });
        let owned = owned.fold(0, usize::saturating_add);
        let packages = self.sections.iter().map(|section| section.packages.len());
        let purls = packages.fold(0_usize, usize::saturating_add);
        entries
            .saturating_add(outline)
            .saturating_add(owned)
            .saturating_add(purls.saturating_mul(PURL_BYTES))
            .saturating_add(self.tops.bytes())
    }
}

// === impl KeptEntries ===

impl KeptEntries {
    /// How a stable number is made of a name: other ones make no sense of what is kept.
    pub(crate) fn naming() -> u64 {
        hash("usr/share/doc")
    }

    pub(super) fn list(&self) -> &EntryList {
        &self.list
    }
}

impl<'de> Deserialize<'de> for KeptEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let packed = PackedEntries::deserialize(deserializer)?;
        let unpacked = packed.unpack();
        unpacked.ok_or_else(|| D::Error::custom("packed entries are damaged"))
    }
}

impl Deref for KeptEntries {
    type Target = EntryList;

    fn deref(&self) -> &EntryList {
        &self.list
    }
}

// === impl PackedEntries ===

impl PackedEntries<'_> {
    /// Both parts side by side: who scans a known layer waits for them more than for anything else.
    fn unpack(self) -> Option<KeptEntries> {
        let (list, outline) = if self.outline.len() < APART_BYTES_MIN {
            (packed::unpack(self.list), packed::unpack(self.outline))
        } else {
            thread::scope(|scope| {
                let outline = scope.spawn(|| packed::unpack(self.outline));
                let list = packed::unpack(self.list);
                let outline = outline.join();
                let outline = outline.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                (list, outline)
            })
        };
        Some(KeptEntries {
            diff_id: self.diff_id,
            compressed_bytes: self.compressed_bytes,
            gaps: self.gaps,
            list: list?,
            outline: outline?,
        })
    }
}

// === impl KeptSection ===

impl KeptSection {
    fn new(section: Arc<Section>, entries: &EntryList) -> Self {
        let mut section = Arc::unwrap_or_clone(section);
        let owned = OwnedList::new(&std::mem::take(&mut section.owned));
        let sums = SumsList::new(&std::mem::take(&mut section.sums), entries);
        Self {
            section,
            owned,
            sums,
        }
    }

    /// As its analyzer made it, in a layer with these entries.
    pub fn to_section(&self, entries: &KeptEntries) -> Section {
        Section {
            owned: self.owned.to_vec(),
            sums: self.sums.to_vec(entries),
            ..self.section.clone()
        }
    }
}

impl Deref for KeptSection {
    type Target = Section;

    fn deref(&self) -> &Section {
        &self.section
    }
}
