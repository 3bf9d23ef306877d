//! What is visible in the image, and since when.

use std::{borrow::Cow, collections::BTreeSet, rc::Rc};

use archive::Limits;
use model::{Digest, EntryKind, FoundPackage, PackageType};

use super::{
    HashMap, HashSet,
    budget::Budget,
    gaps,
    outline::{Want, choose, hash, last},
    packed::EntryRef,
    prepared::PreparedLayer,
    tree::{Node, Origin, Tree},
};
use crate::{apk, dpkg, links, npm, opkg, os_release, python, rpm};

/// The layers, laid over each other.
pub(super) struct View<'a> {
    /// The layers, base first.
    pub(super) layers: &'a [&'a PreparedLayer],
    /// The image, as far as it matters to the report.
    pub(super) tree: Tree<'a>,
    /// Layers that are not, or not whole, in the tree.
    pub(super) cut: Vec<usize>,
    /// Whether there are paths, of what matters, that are too long to be looked at.
    pub(super) has_long_paths: bool,
    /// Links to records of packages that nobody read as such: how many, and the first.
    pub(super) unread_links: Option<(u64, UnreadLink)>,
    /// What the sections of each layer speak of; the same layer twice shares it.
    written: Vec<Rc<Written<'a>>>,
    /// Where the content of these files can be seen.
    seen: HashMap<Origin, String>,
    /// Of the paths that sections speak of, those at which the file can be seen.
    exact: HashSet<(Origin, &'a str)>,
    /// Which layers' files can be seen.
    shown: HashSet<usize>,
    /// What was to be seen at each candidate's place, from which layer on.
    history: HashMap<&'a str, Vec<(usize, Option<Origin>)>>,
}

/// A name of a record of a package, and the file behind it.
#[derive(Debug)]
pub(super) struct UnreadLink {
    /// The name.
    pub(super) path: String,
    /// The file.
    pub(super) origin: Origin,
}

/// The files that sections of a layer speak of.
#[derive(Debug, Default)]
struct Written<'a> {
    /// The last file at each path. `usize::MAX` where it is not in the layer.
    files: HashMap<&'a str, usize>,
    /// The numbers of all of them.
    numbers: HashSet<usize>,
    /// The numbers of those that were read as records of packages.
    records: HashSet<usize>,
}

/// Places whose history decides since when a package is there: where the package manager looks,
/// or the file itself.
pub(super) fn candidates(layers: &[&PreparedLayer]) -> BTreeSet<String> {
    let mut known = HashSet::default();
    let layers = layers.iter().filter(|layer| known.insert(layer.blob));
    let sections = layers.flat_map(|layer| &layer.sections);
    let packages = sections.flat_map(|section| &section.packages);
    let mut places = BTreeSet::new();
    let mut before = None;
    for package in packages {
        // Most are told of by one file, one after the other.
        let of = (package.kind, package.path.as_str());
        if before.replace(of) != Some(of) {
            places.extend(self::places(package).map(Cow::into_owned));
        }
    }
    places.extend(os_release::places().map(ToOwned::to_owned));
    places
}

/// Where a package's evidence has to be seen for it to be installed.
pub(super) fn places(package: &FoundPackage) -> impl Iterator<Item = Cow<'_, str>> {
    let (named, rpm, own): (&[&str], &[String], _) = match package.kind {
        PackageType::Deb => (&[], &[], Some(dpkg::place(&package.path))),
        PackageType::Apk => (apk::PLACES, &[], None),
        PackageType::Rpm => (&[], rpm::places(), None),
        PackageType::Opkg => (opkg::PLACES, &[], None),
        _ => (&[], &[], Some(Cow::from(&package.path))),
    };
    let named = named.iter().copied().map(Cow::from);
    named.chain(rpm.iter().map(Cow::from)).chain(own)
}

// === impl View ===

impl<'a> View<'a> {
    pub(super) fn new(
        prepared: &'a [&'a PreparedLayer],
        candidates: &'a BTreeSet<String>,
        limits: &Limits,
    ) -> Self {
        Self::of(prepared, candidates, limits, chosen)
    }

    /// With every entry, for comparing.
    #[cfg(test)]
    pub(super) fn of_all(
        prepared: &'a [&'a PreparedLayer],
        candidates: &'a BTreeSet<String>,
        limits: &Limits,
    ) -> Self {
        Self::of(prepared, candidates, limits, |layers, _, _, _| {
            let all = layers
                .iter()
                .map(|layer| layer.entries.outline.all().collect());
            all.collect()
        })
    }

    fn of(
        prepared: &'a [&'a PreparedLayer],
        candidates: &'a BTreeSet<String>,
        limits: &Limits,
        chosen: impl FnOnce(
            &[&'a PreparedLayer],
            &BTreeSet<String>,
            &[Rc<Written<'a>>],
            &Budget,
        ) -> Vec<Vec<u32>>,
    ) -> Self {
        let mut budget = Budget::new(limits);
        let fits = prepared.iter().enumerate();
        let fits = fits.filter(|(_, layer)| budget.take_layer(layer.entries.outline.size()));
        let fits: Vec<usize> = fits.map(|(number, _)| number).collect();
        let mut by_blob: HashMap<Digest, Rc<Written<'a>>> = HashMap::default();
        let written = prepared.iter().map(|layer| {
            let known = by_blob.entry(layer.blob);
            Rc::clone(known.or_insert_with(|| Rc::new(Written::of(layer))))
        });
        let written: Vec<_> = written.collect();
        let fitting = fits.iter().filter_map(|number| prepared.get(*number));
        let fitting: Vec<&PreparedLayer> = fitting.copied().collect();
        let chosen = chosen(&fitting, candidates, &written, &budget);
        let mut chosen = fits.into_iter().zip(chosen).peekable();
        let mut view = Self {
            layers: prepared,
            written,
            tree: Tree::new(budget),
            cut: Vec::new(),
            has_long_paths: false,
            unread_links: None,
            seen: HashMap::default(),
            exact: HashSet::default(),
            shown: HashSet::default(),
            history: HashMap::default(),
        };
        for (number, layer) in prepared.iter().enumerate() {
            let all = &layer.entries;
            let of_it = chosen.next_if(|(of, _)| *of == number);
            let is_whole = of_it.is_some_and(|(_, chosen)| {
                let entries = chosen.iter().map(|entry| *entry as usize);
                let entries = entries.filter_map(|entry| Some((entry, all.get(entry)?)));
                view.tree.apply(number, entries)
            });
            if !is_whole {
                view.cut.push(number);
            }
            for place in candidates {
                let origin = leaf(view.tree.find(place));
                let past = view.history.entry(place.as_str()).or_default();
                if past.last().is_none_or(|(_, before)| *before != origin) {
                    past.push((number, origin));
                }
            }
        }
        view.look();
        view
    }

    /// Goes through all that is there.
    fn look(&mut self) {
        let (mut seen, mut exact) = (HashMap::<Origin, String>::default(), HashSet::default());
        let (mut unread, mut first) = (0_u64, None);
        let is_all = self.tree.visit(|path, node| {
            if let Some(origin) = self.unread_link(path, node) {
                unread = unread.saturating_add(1);
                first.get_or_insert_with(|| UnreadLink {
                    path: path.to_owned(),
                    origin,
                });
            }
            let Some(origin) = leaf(Some(node)) else {
                return;
            };
            let Some(written) = self.written.get(origin.layer) else {
                return;
            };
            if !written.numbers.contains(&origin.entry) {
                return;
            }
            let at = written.files.get_key_value(path);
            if let Some((path, _)) = at.filter(|(_, entry)| **entry == origin.entry) {
                exact.insert((origin, *path));
            }
            let known = seen.entry(origin).or_insert_with(|| path.to_owned());
            if path < known.as_str() {
                path.clone_into(known);
            }
        });
        self.shown = seen.keys().map(|origin| origin.layer).collect();
        self.has_long_paths = !is_all;
        self.unread_links = first.map(|first| (unread, first));
        self.seen = seen;
        self.exact = exact;
    }

    /// The file behind a link that package managers take for records of a package, where nobody
    /// read that file as such.
    fn unread_link(&self, path: &str, node: &Node<'a>) -> Option<Origin> {
        if !is_record(path) {
            return None;
        }
        let origin = match node {
            Node::Leaf(origin) => *origin,
            Node::Symlink { .. } => leaf(self.tree.find(path))?,
            Node::Directory(_) => return None,
        };
        let entry = self.entry(origin)?;
        let is_read = match entry.kind {
            EntryKind::File => {
                let written = self.written.get(origin.layer);
                is_record(entry.path)
                    || written.is_some_and(|written| written.records.contains(&origin.entry))
            }
            // A hard link to nothing is a file that nobody has.
            EntryKind::Hardlink => false,
            _ => true,
        };
        (!is_read).then_some(origin)
    }

    /// The entry that an origin names.
    pub(super) fn entry(&self, origin: Origin) -> Option<EntryRef<'a>> {
        self.layers.get(origin.layer)?.entries.get(origin.entry)
    }

    /// The file that a section of a layer speaks of.
    pub(super) fn origin(&self, layer: usize, path: &str) -> Option<Origin> {
        let entry = *self.written.get(layer)?.files.get(path)?;
        Some(Origin { layer, entry })
    }

    /// Where a file can be seen, if it can: at the path that its layer's sections speak of rather
    /// than by another name.
    pub(super) fn path_of(&self, origin: Origin, path: &'a str) -> Option<&str> {
        if self.exact.contains(&(origin, path)) {
            Some(path)
        } else {
            self.path(origin)
        }
    }

    /// Whether a file of this layer that a section speaks of can be seen.
    pub(super) fn shows(&self, layer: usize) -> bool {
        self.shown.contains(&layer)
    }

    /// Whether a directory is there as this layer made it, and none above made it anew.
    pub(super) fn shows_directory(&self, layer: usize, path: &str) -> bool {
        let is_there = matches!(self.tree.find(path), Some(Node::Directory(_)));
        let above = self.layers.get(layer.saturating_add(1)..);
        let is_made_anew = |one: &&PreparedLayer| {
            let named = one.named(std::iter::once(path)).into_iter();
            let mut same = named.filter(|(_, entry)| entry.path == path);
            same.any(|(_, entry)| entry.kind == EntryKind::Directory)
        };
        is_there && !above.unwrap_or_default().iter().any(is_made_anew)
    }

    /// Where a file can be seen, the first of its names; `None` if it is deleted.
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

/// Whether analyzers want a file at this path by itself, wherever it is.
fn is_record(path: &str) -> bool {
    npm::is_installed(path) || python::is_metadata(path)
}

// === impl Written ===

impl<'a> Written<'a> {
    fn of(layer: &'a PreparedLayer) -> Self {
        let mut written = Self::default();
        let mut of_records = HashSet::default();
        for section in &layer.sections {
            let paths = section.packages.iter().map(|package| package.path.as_str());
            let paths = paths.chain(section.gaps.iter().filter_map(|gap| gap.path.as_deref()));
            of_records.extend(paths);
            let paths = section.os.iter().map(|os| os.path.as_str());
            let paths = paths.chain(section.findings.iter().filter_map(super::findings::path));
            written.files.extend(paths.map(|path| (path, usize::MAX)));
        }
        let of_records_too = of_records.iter().map(|path| (*path, usize::MAX));
        written.files.extend(of_records_too);
        let of_records_named = layer.named(of_records.iter().copied());
        let mut targets: HashMap<String, usize> = of_records_named
            .into_iter()
            .filter(|(_, entry)| {
                entry.kind == EntryKind::Hardlink && of_records.contains(entry.path)
            })
            .filter_map(|(_, entry)| Some((links::target(entry.link?)?, usize::MAX)))
            .collect();
        let paths = written.files.keys().copied();
        let named = layer.named(paths.chain(targets.keys().map(String::as_str)));
        for (number, entry) in named {
            let number = match entry.kind {
                EntryKind::File => {
                    if let Some(target) = targets.get_mut(entry.path) {
                        *target = number;
                    }
                    Some(number)
                }
                // A file is read under the names of later links to it, too.
                EntryKind::Hardlink => entry
                    .link
                    .and_then(links::target)
                    .and_then(|target| targets.get(&target).copied())
                    .filter(|number| *number != usize::MAX),
                _ => None,
            };
            if let Some(number) = number
                && let Some(file) = written.files.get_mut(entry.path)
            {
                *file = number;
            }
        }
        let files = written.files.iter();
        let records = files.filter(|(path, _)| of_records.contains(*path));
        written.records = records.map(|(_, number)| *number).collect();
        written.numbers = written.files.values().copied().collect();
        written
    }
}

/// The entries of each layer that can matter.
fn chosen(
    layers: &[&PreparedLayer],
    candidates: &BTreeSet<String>,
    written: &[Rc<Written<'_>>],
    budget: &Budget,
) -> Vec<Vec<u32>> {
    let mut known = HashSet::default();
    let distinct = layers.iter().filter(|layer| known.insert(layer.blob));
    let distinct: Vec<_> = distinct.collect();
    let packages = distinct.iter().flat_map(|layer| &layer.sections);
    let packages = packages.flat_map(|section| &section.packages);
    let proofs = packages.filter(|package| !package.kind.is_os());
    // Which package owns a proof is found by the paths of files with its name.
    let proofs: HashSet<&str> = proofs.map(|package| last(&package.path)).collect();
    let mut places: Vec<&str> = candidates.iter().map(String::as_str).collect();
    for layer in distinct {
        if !layer.owns_any() || !budget.step(proofs.len()) {
            continue;
        }
        let owned = proofs.iter().flat_map(|name| layer.owned_named(hash(name)));
        let owned = owned.filter_map(|(section, number)| layer.owned(section, number));
        places.extend(owned.map(|owned| owned.path));
    }
    let mut known = HashSet::default();
    for written in written {
        if known.insert(Rc::as_ptr(written)) {
            places.extend(written.files.keys().copied());
        }
    }
    for place in gaps::places() {
        places.push(place);
    }
    places.extend(npm::NAMES.iter().chain(python::NAMES).copied());
    // In an order: where the steps do not suffice it counts.
    places.sort_unstable();
    places.dedup();
    let want = Want {
        places,
        deep: gaps::RECORDS_OF_THEIR_OWN,
    };
    choose(layers, want, budget)
}

fn leaf(node: Option<&Node<'_>>) -> Option<Origin> {
    match node? {
        Node::Leaf(origin) => Some(*origin),
        Node::Directory(_) | Node::Symlink { .. } => None,
    }
}

/// What the layers together show, for comparing with other ways to unpack them.
#[cfg(test)]
pub(super) fn visible(tree: &Tree<'_>) -> std::collections::BTreeMap<String, String> {
    let mut all = std::collections::BTreeMap::new();
    tree.visit(|path, node| {
        let text = match node {
            Node::Directory(_) => "directory".to_owned(),
            Node::Symlink { target, .. } => format!("-> {target}"),
            Node::Leaf(origin) => format!("{}.{}", origin.layer, origin.entry),
        };
        all.insert(path.to_owned(), text);
    });
    all
}
