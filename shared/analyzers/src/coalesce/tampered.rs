//! Files that a package owns and that are not as it brought them: replaced by another layer,
//! changed by a build, or by somebody else.
//!
//! Most layers do not touch what packages of other layers own. So each layer is prepared once: its
//! files with their digests, and what its packages recorded, both by path. For an image the
//! uppermost file at each path is compared with the record, and only the few that differ are looked
//! up in the tree, which knows what is really to be seen there.
//!
//! It is no tampering where a package is free to be changed: below `etc`, in what rpm calls
//! configuration, and where any package that owns the path recorded the content that is there. What
//! dpkg was told to put elsewhere (`dpkg-divert`) is compared there.

use std::{collections::BTreeMap, sync::Arc};

use archive::Limits;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use model::{Digest, Diversion, EntryKind, Gap, GapCode, Hides, Package, PackageId, Tampered};

use super::{
    HashMap, HashSet,
    index::Index,
    outline::{Name, hash, range},
    packed::{EntryRef, OwnedRef, Recorded, SumsRow},
    prepared::{KeptEntries, KeptSection, PreparedLayer},
    view::View,
};
use crate::{checksums::may_be_owned, dpkg};

/// Files that are looked up; an image of which more were changed is another system.
const SUSPECTS_MAX: usize = 1000;

/// What of a layer is compared: path -> entry, and of a file the section and number of its digests.
#[derive(Debug, Default)]
pub(super) struct Tops(Vec<(Name, u32, Option<At>)>);

/// Section, and number in it.
type At = (u32, u32);

/// Files that seem to be changed.
#[derive(Debug, Default)]
pub(super) struct Suspects<'a> {
    /// What was recorded of them, by path.
    list: BTreeMap<&'a str, Vec<OwnedRef<'a>>>,
    /// How many more there are.
    more: usize,
}

// === impl Tops ===

impl Tops {
    pub(super) fn new(entries: &KeptEntries, sections: &[Arc<KeptSection>]) -> Self {
        let mut tops = Vec::new();
        for (at, section) in (0..).zip(sections) {
            for (number, sums) in (0..).zip(section.sums.iter()) {
                let entry = entries.get(sums.entry as usize);
                // What is kept may be damaged in ways that only this tells.
                let is_its = entry.is_some_and(|entry| {
                    entry.kind == EntryKind::File && key(entry.path) == sums.path
                });
                if is_its {
                    tops.push((sums.path, sums.entry, Some((at, number))));
                }
            }
        }
        // Where nobody summed up files, nothing is compared.
        if tops.is_empty() {
            return Self(tops);
        }
        let links = entries.list().symlinks();
        let links = links.filter(|(_, entry)| may_be_owned(entry.path));
        tops.extend(links.map(|(number, entry)| (key(entry.path), number, None)));
        // Two runs that are sorted, or nearly: a stable sort makes use of it.
        tops.sort();
        // Of two digests of one file the later ones count.
        tops.dedup_by(|later, before| {
            let is_same = (later.0, later.1) == (before.0, before.1);
            if is_same {
                *before = *later;
            }
            is_same
        });
        Self(tops)
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.0.len().saturating_mul(24)
    }
}

// === impl Suspects ===

impl<'a> Suspects<'a> {
    /// Compares the uppermost file at each path with what was recorded.
    pub(super) fn new(layers: &[&'a PreparedLayer], limits: &Limits) -> Self {
        let layers = fitting(layers, limits);
        let tops = tops(&layers);
        let mut suspects = Self::default();
        if tops.len() == 0 {
            return suspects;
        }
        let (latest, diverted) = (latest(&layers), Diverted::new(&layers));
        let is_latest = |owned: &OwnedRef<'a>, layer: &PreparedLayer| {
            latest.get(&owner(owned)) == Some(&layer.blob)
        };
        let mut names = HashSet::default();
        for (path, top, owned, layer) in records(&layers, &tops, &diverted) {
            if !top.fits(&owned) && is_latest(&owned, layer) {
                suspects.list.entry(path).or_default().push(owned);
                names.insert(key(path));
            }
        }
        if names.is_empty() {
            return suspects;
        }
        // What is there is what another package recorded.
        let others = records(&layers, &tops, &diverted);
        let others = others.filter(|(path, ..)| names.contains(&key(path)));
        let fine =
            others.filter(|(_, top, owned, layer)| top.fits(owned) && is_latest(owned, layer));
        let fine: HashSet<Name> = fine.map(|(path, ..)| key(path)).collect();
        suspects.list.retain(|path, _| !fine.contains(&key(path)));
        suspects.cut();
        suspects
    }

    /// Where they are.
    pub(super) fn places(&self) -> impl Iterator<Item = String> {
        self.list.keys().map(|path| (*path).to_owned())
    }

    /// The gap of those that are too many to be looked up.
    pub(super) fn gap(&self) -> Option<Gap> {
        let detail = format!(
            "more than {SUSPECTS_MAX} files seem to be changed since they were installed: {} more \
             are not listed",
            self.more
        );
        (self.more > 0).then(|| Gap::new(GapCode::LimitResults, Hides::Nothing, detail))
    }

    /// Those that can be seen, and differ from all that was recorded of them.
    pub(super) fn tampered(&self, view: &View<'_>, packages: &[Package]) -> Vec<Tampered> {
        let (mut systems, mut any_arch) = (HashMap::default(), HashMap::default());
        for package in packages.iter().filter(|package| package.kind.is_os()) {
            let name = package.name.as_str();
            let key = (name, package.arch.as_deref());
            systems.entry(key).or_insert(&package.id);
            any_arch.entry(name).or_insert(&package.id);
        }
        let mut all = Vec::new();
        for (path, records) in &self.list {
            let Some((since, Some(origin))) = view.past(path).next() else {
                continue;
            };
            let layer = view.layers.get(origin.layer);
            let entry = view.entry(origin);
            let (Some(layer), Some(entry)) = (layer, entry) else {
                continue;
            };
            let sums = sums_of(layer, origin.entry, &entry);
            let (Some(sums), Some(changed)) = (sums, view.layers.get(since)) else {
                continue;
            };
            let owners = records.iter().map(owner);
            let mut owners = owners.filter_map(|owner| {
                let id = systems.get(&owner).or_else(|| any_arch.get(owner.0));
                id.map(|id| PackageId::clone(id))
            });
            let is_as_recorded = records.iter().any(|owned| is_content(owned, sums, &entry));
            if let Some(package_id) = owners.next().filter(|_| !is_as_recorded) {
                // The package may write the path as it was before `/usr` was merged.
                let is_same = key(path) == key(entry.path);
                let path = if is_same { entry.path } else { *path };
                all.push(Tampered {
                    path: path.to_owned(),
                    package_id,
                    layer: changed.blob,
                });
            }
        }
        all.sort_by(|a, b| (&a.path, &a.package_id).cmp(&(&b.path, &b.package_id)));
        all.dedup();
        all
    }

    fn cut(&mut self) {
        let last = self.list.keys().nth(SUSPECTS_MAX).copied();
        if let Some(last) = last {
            self.more = self.list.split_off(last).len();
        }
    }
}

/// Which package recorded it.
type Owner<'a> = (&'a str, Option<&'a str>);

fn owner<'a>(owned: &OwnedRef<'a>) -> Owner<'a> {
    (owned.package, owned.arch)
}

/// The layers that are within an image's limits: what it takes to compare them is, too.
fn fitting<'a>(layers: &[&'a PreparedLayer], limits: &Limits) -> Vec<&'a PreparedLayer> {
    let mut left = Some(limits.image_entries_max);
    let fits = |layer: &&&PreparedLayer| {
        left = left.and_then(|left| left.checked_sub(layer.entries.outline.size().names));
        left.is_some()
    };
    layers.iter().take_while(fits).copied().collect()
}

/// What stands uppermost at a path.
#[derive(Clone, Copy, Debug)]
struct Top<'a> {
    entry: EntryRef<'a>,
    /// `None` where it is a link.
    sums: Option<&'a SumsRow>,
}

fn tops<'a>(layers: &[&'a PreparedLayer]) -> Index<Top<'a>> {
    let of_layers = layers.iter().flat_map(|layer| {
        let of_layer = layer.tops.0.iter();
        of_layer.filter_map(|(path, number, sums)| {
            let entry = layer.entries.get(*number as usize)?;
            let sums = sums.and_then(|sums| find_sums(layer, sums));
            Some((*path, Top { entry, sums }))
        })
    });
    let mut tops: Vec<_> = of_layers.collect();
    // Stable: of one path the uppermost stays the last.
    tops.sort_by_key(|(path, _)| *path);
    tops.dedup_by(|later, before| {
        let is_same = later.0 == before.0;
        if is_same {
            *before = *later;
        }
        is_same
    });
    Index::of_sorted(tops)
}

/// The layer in which each package's files are listed last: each list is of all its files.
fn latest<'a>(layers: &[&'a PreparedLayer]) -> HashMap<Owner<'a>, Digest> {
    let mut latest = HashMap::default();
    for layer in layers {
        latest.extend(layer.owners().map(|owned| (owner(&owned), layer.blob)));
    }
    latest
}

/// What dpkg was told to put elsewhere, by the path that packages record.
struct Diverted<'a>(HashMap<Name, &'a Diversion>);

// === impl Diverted ===

impl<'a> Diverted<'a> {
    /// The uppermost list counts.
    fn new(layers: &[&'a PreparedLayer]) -> Self {
        let has_list = |layer: &&&'a PreparedLayer| {
            let mut named = layer.named(std::iter::once(dpkg::DIVERSIONS)).into_iter();
            named.any(|(_, entry)| entry.path == dpkg::DIVERSIONS)
        };
        let layer = layers.iter().rev().find(has_list);
        let sections = layer.into_iter().flat_map(|layer| &layer.sections);
        let all = sections.flat_map(|section| &section.diversions);
        Self(all.map(|of| (key(&of.path), of)).collect())
    }

    /// Where the file that a package recorded stands instead.
    fn find(&self, name: Name, owned: &OwnedRef<'_>) -> Option<&'a Diversion> {
        let diversion = self.0.get(&name).copied();
        diversion.filter(|of| of.package.as_deref() != Some(owned.package))
    }
}

/// What was recorded of all that there is, with the path at which it is: each layer once.
fn records<'a, 'l>(
    layers: &'l [&'a PreparedLayer],
    tops: &'l Index<Top<'a>>,
    diverted: &'l Diverted<'a>,
) -> impl Iterator<Item = (&'a str, Top<'a>, OwnedRef<'a>, &'a PreparedLayer)> + use<'a, 'l> {
    let mut known = HashSet::default();
    let layers = layers.iter().copied();
    let layers = layers.filter(move |layer| known.insert(layer.blob));
    layers.flat_map(move |layer| {
        let sections = layer.sections.iter();
        let records = sections.flat_map(|section| {
            let owned = &section.owned;
            owned.records().map(move |record| (owned, record))
        });
        records.filter_map(move |(owned, (path, number))| {
            // Most have nothing that could be compared.
            let top = tops.named(path).next();
            if top.is_none() && !diverted.0.contains_key(&path) {
                return None;
            }
            let owned = owned.get(number)?;
            match diverted.find(path, &owned) {
                Some(moved) => {
                    let top = tops.named(key(&moved.to)).next()?;
                    Some((moved.to.as_str(), *top, owned, layer))
                }
                None => Some((owned.path, *top?, owned, layer)),
            }
        })
    })
}

// === impl Top ===

impl Top<'_> {
    /// Whether it is what was recorded.
    fn fits(&self, owned: &OwnedRef<'_>) -> bool {
        match self.sums {
            Some(sums) => is_content(owned, sums, &self.entry),
            None => is_target(owned, &self.entry),
        }
    }
}

fn find_sums(layer: &PreparedLayer, (section, number): At) -> Option<&SumsRow> {
    layer.sections.get(section as usize)?.sums.get(number)
}

/// The digests of the file that an entry of a layer is.
fn sums_of<'a>(
    layer: &'a PreparedLayer,
    number: usize,
    entry: &EntryRef<'_>,
) -> Option<&'a SumsRow> {
    let mut tops = range(&layer.tops.0, |top| top.0, key(entry.path));
    let (_, _, sums) = tops.find(|(_, of, _)| *of as usize == number)?;
    find_sums(layer, (*sums)?)
}

/// Whether a file has the content that was recorded. What is recorded in a way that we cannot check
/// is believed.
fn is_content(owned: &OwnedRef<'_>, sums: &SumsRow, entry: &EntryRef<'_>) -> bool {
    match owned.digest {
        Some(Recorded::Md5(recorded)) => sums.md5 == recorded,
        Some(Recorded::Sha1(recorded)) => sums.sha1 == recorded,
        Some(Recorded::Sha256(recorded)) => entry.digest.is_none_or(|digest| *digest == recorded),
        // No digest of these has such a value.
        Some(Recorded::Text(text)) => {
            let algorithm = text.split_once(':').map(|(algorithm, _)| algorithm);
            !matches!(algorithm, Some("md5" | "sha1" | "sha256"))
        }
        None => true,
    }
}

/// Whether a link leads where it was recorded to lead: apk does that, by the digest of its text. For
/// others a link is not what was recorded of a file.
fn is_target(owned: &OwnedRef<'_>, entry: &EntryRef<'_>) -> bool {
    let (Some(Recorded::Sha1(recorded)), Some(target)) = (owned.digest, entry.link) else {
        return false;
    };
    digest(&SHA1_FOR_LEGACY_USE_ONLY, target.as_bytes()).as_ref() == recorded
}

/// A path's hash, the same for `bin/x` and `usr/bin/x`: which of the two a package and a layer write
/// depends on when `/usr` was merged.
pub(super) fn key(path: &str) -> Name {
    let merged = path.strip_prefix("usr/").filter(|rest| {
        let top = rest.split('/').next().unwrap_or_default();
        matches!(top, "bin" | "sbin") || top.starts_with("lib")
    });
    hash(merged.unwrap_or(path))
}
