//! What is visible in the image, and since when.

use std::collections::{BTreeSet, HashMap, HashSet};

use model::{EntryKind, FoundPackage, LayerEntry, LayerReport, PackageType};

use super::{
    gaps,
    outline::{PreparedLayer, choose, hash, last},
    tree::{Node, Origin, Tree},
};
use crate::{apk, dpkg, os_release};

/// The layers, laid over each other.
pub(super) struct View<'a> {
    /// The layers, base first.
    pub(super) layers: Vec<&'a LayerReport>,
    /// The same with what is known of their entries.
    pub(super) prepared: &'a [&'a PreparedLayer],
    /// The image, as far as it matters to the report.
    pub(super) tree: Tree<'a>,
    /// In each layer, the last file at each path that a section speaks of.
    written: Vec<HashMap<&'a str, usize>>,
    /// Where the content of these files can be seen.
    seen: HashMap<Origin, String>,
    /// What was to be seen at each candidate's place, from which layer on.
    history: HashMap<&'a str, Vec<(usize, Option<Origin>)>>,
}

/// Places whose history decides since when a package is there: where the package manager looks,
/// or the file itself.
pub(super) fn candidates(layers: &[&PreparedLayer]) -> BTreeSet<String> {
    let sections = layers.iter().flat_map(|layer| &layer.report.sections);
    let packages = sections.flat_map(|section| &section.packages);
    let mut places: BTreeSet<String> = packages.flat_map(places).collect();
    places.extend(os_release::PLACES.iter().map(|place| (*place).to_owned()));
    places
}

/// Where a package's evidence has to be seen for it to be installed.
pub(super) fn places(package: &FoundPackage) -> Vec<String> {
    match package.kind {
        PackageType::Deb => vec![dpkg::place(&package.path)],
        PackageType::Apk => apk::PLACES
            .iter()
            .map(|place| (*place).to_owned())
            .collect(),
        _ => vec![package.path.clone()],
    }
}

// === impl View ===

impl<'a> View<'a> {
    pub(super) fn new(prepared: &'a [&'a PreparedLayer], candidates: &'a BTreeSet<String>) -> Self {
        let written: Vec<_> = prepared.iter().map(|layer| written(layer)).collect();
        let chosen = chosen(prepared, candidates, &written);
        Self::of(prepared, candidates, written, &chosen)
    }

    /// With every entry, for comparing.
    #[cfg(test)]
    pub(super) fn of_all(
        prepared: &'a [&'a PreparedLayer],
        candidates: &'a BTreeSet<String>,
    ) -> Self {
        let written: Vec<_> = prepared.iter().map(|layer| written(layer)).collect();
        let all = |layer: &&PreparedLayer| {
            let entries = layer.report.entries.entries.len();
            (0..u32::try_from(entries).unwrap()).collect()
        };
        let all: Vec<_> = prepared.iter().map(all).collect();
        Self::of(prepared, candidates, written, &all)
    }

    fn of(
        prepared: &'a [&'a PreparedLayer],
        candidates: &'a BTreeSet<String>,
        written: Vec<HashMap<&'a str, usize>>,
        chosen: &[Vec<u32>],
    ) -> Self {
        let layers: Vec<_> = prepared.iter().map(|layer| &layer.report).collect();
        let mut tree = Tree::new();
        let mut history: HashMap<&str, Vec<_>> = HashMap::new();
        for (number, (layer, chosen)) in layers.iter().zip(chosen).enumerate() {
            let entries = &layer.entries.entries;
            let chosen = chosen.iter().map(|number| *number as usize);
            tree.apply(
                number,
                chosen.filter_map(|number| Some((number, entries.get(number)?))),
            );
            for place in candidates {
                let origin = leaf(tree.find(place));
                let past = history.entry(place.as_str()).or_default();
                if past.last().is_none_or(|(_, before)| *before != origin) {
                    past.push((number, origin));
                }
            }
        }
        let interesting: HashSet<Origin> = written
            .iter()
            .enumerate()
            .flat_map(|(layer, files)| {
                files.values().map(move |entry| Origin {
                    layer,
                    entry: *entry,
                })
            })
            .collect();
        let mut seen: HashMap<Origin, String> = HashMap::new();
        tree.visit(|path, node| {
            let Some(origin) = leaf(Some(node)).filter(|origin| interesting.contains(origin))
            else {
                return;
            };
            let known = seen.entry(origin).or_insert_with(|| path.to_owned());
            if path < known.as_str() {
                path.clone_into(known);
            }
        });
        Self {
            layers,
            prepared,
            tree,
            written,
            seen,
            history,
        }
    }

    /// The entry that an origin names.
    pub(super) fn entry(&self, origin: Origin) -> Option<&'a LayerEntry> {
        self.layers
            .get(origin.layer)?
            .entries
            .entries
            .get(origin.entry)
    }

    /// The file that a section of a layer speaks of.
    pub(super) fn origin(&self, layer: usize, path: &str) -> Option<Origin> {
        let entry = *self.written.get(layer)?.get(path)?;
        Some(Origin { layer, entry })
    }

    /// Where a file can be seen; `None` if it is deleted.
    pub(super) fn path(&self, origin: Origin) -> Option<&str> {
        self.seen.get(&origin).map(String::as_str)
    }

    /// The file that can be seen at one of the candidates' places.
    pub(super) fn seen_at(&self, place: &str) -> Option<Origin> {
        self.history.get(place)?.last()?.1
    }

    /// The file at any path, by whatever links.
    pub(super) fn find(&self, path: &str) -> Option<Origin> {
        leaf(self.tree.find(path))
    }

    /// What was to be seen at a place, latest first, each with the layer that began it.
    pub(super) fn past(&self, place: &str) -> impl Iterator<Item = (usize, Option<Origin>)> {
        self.history.get(place).into_iter().flatten().rev().copied()
    }
}

/// Paths that sections of a layer speak of, and the file that is meant.
fn written(layer: &PreparedLayer) -> HashMap<&str, usize> {
    let entries = &layer.report.entries.entries;
    let mut files = HashMap::new();
    for section in &layer.report.sections {
        let paths = section.packages.iter().map(|package| package.path.as_str());
        let paths = paths.chain(section.os.iter().map(|os| os.path.as_str()));
        let paths = paths.chain(section.gaps.iter().filter_map(|gap| gap.path.as_deref()));
        let paths = paths.chain(section.findings.iter().filter_map(super::findings::path));
        files.extend(paths.map(|path| (path, usize::MAX)));
    }
    for (path, file) in &mut files {
        let is_it = |number: &usize| {
            let entry = entries.get(*number);
            entry.is_some_and(|entry| entry.kind == EntryKind::File && entry.path == *path)
        };
        let named = layer.outline.named(hash(last(path)));
        let last_of_it = named.map(|number| number as usize).filter(is_it).last();
        *file = last_of_it.unwrap_or(usize::MAX);
    }
    files
}

/// The entries of each layer that can matter.
fn chosen(
    layers: &[&PreparedLayer],
    candidates: &BTreeSet<String>,
    written: &[HashMap<&str, usize>],
) -> Vec<Vec<u32>> {
    let packages = layers.iter().flat_map(|layer| &layer.report.sections);
    let packages = packages.flat_map(|section| &section.packages);
    let proofs = packages.filter(|package| !package.kind.is_os());
    // Which package owns a proof is found by the paths of files with its name.
    let proofs: HashSet<&str> = proofs.map(|package| last(&package.path)).collect();
    let owned = layers.iter().flat_map(|layer| {
        let owned = proofs
            .iter()
            .flat_map(|name| layer.outline.owned(hash(name)));
        owned.filter_map(|(section, number)| layer.owned(section, number))
    });
    let mut places: Vec<&str> = candidates.iter().map(String::as_str).collect();
    for files in written {
        places.extend(files.keys());
    }
    for place in gaps::places() {
        places.push(place);
    }
    for owned in owned {
        places.push(&owned.path);
    }
    choose(layers, places, gaps::RECORDS_OF_THEIR_OWN)
}

fn leaf(node: Option<&Node<'_>>) -> Option<Origin> {
    match node? {
        Node::Leaf(origin) => Some(*origin),
        Node::Directory(_) | Node::Symlink(_) => None,
    }
}

/// What the layers together show, for comparing with other ways to unpack them.
#[cfg(test)]
pub(super) fn visible(tree: &Tree<'_>) -> std::collections::BTreeMap<String, String> {
    let mut all = std::collections::BTreeMap::new();
    tree.visit(|path, node| {
        let text = match node {
            Node::Directory(_) => "directory".to_owned(),
            Node::Symlink(target) => format!("-> {target}"),
            Node::Leaf(origin) => format!("{}.{}", origin.layer, origin.entry),
        };
        all.insert(path.to_owned(), text);
    });
    all
}
