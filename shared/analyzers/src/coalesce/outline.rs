//! Which entries can matter to an image's report: a few hundred of a layer's tens of thousands.
//!
//! A report speaks of a few places: files that prove packages, files with findings, where package
//! managers keep their records. What stands at a place depends on entries whose last name is one
//! of the names on the ways there, and on nothing else: an entry with another name changes
//! another name's meaning. So the names on those ways are collected, with those on the ways to
//! each entry chosen and those that chosen links lead through, until there are no new ones.
//!
//! One thing is done to a name by entries below it: a file gives way to a directory that is
//! needed. So what lies below the name of a chosen file is chosen too, as far as it can be the same
//! place: what stands before both names is the same, or a link.
//!
//! Names are compared by their hashes. Two names with one hash are both chosen, which costs time and
//! changes nothing.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use model::{EntryKind, LayerEntry, LayerReport, Owned};

/// A layer, made ready for images that have it: what [`super::coalesce_prepared`] needs in order
/// not to look at all its entries each time.
#[derive(Debug)]
pub struct PreparedLayer {
    /// The layer.
    pub report: LayerReport,
    pub(super) outline: Outline,
}

/// Where the names of a layer stand.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// Last name -> entry.
    by_name: Vec<(Name, u32)>,
    /// Name of a directory on the way to entries, the name before it -> number in `parents`.
    steps: Vec<(Name, Name, u32)>,
    /// Entries by the directory that their path names.
    parents: Vec<Vec<u32>>,
    /// Name that a link leads through, the name before it if that is certain -> the link's name.
    targets: Vec<(Name, Option<Name>, Name)>,
    /// Names of links.
    links: Vec<Name>,
    opaque: Vec<u32>,
    /// Name of an owned file -> section, number in the section.
    owned: Vec<(Name, u32, u32)>,
    /// The first file of each package that owns some: section, number in the section.
    owners: Vec<(u32, u32)>,
}

/// A name's hash.
pub(super) type Name = u64;

/// Chooses the entries of an image.
struct Choice<'a> {
    layers: Vec<(&'a [LayerEntry], &'a Outline)>,
    names: HashSet<Name>,
    todo: Vec<Todo>,
    chosen: Vec<HashSet<u32>>,
    /// Names of files that give way, with the name before; `None`: whatever stands before.
    yielding: HashSet<(Name, Option<Name>)>,
    /// Directories of which everything is looked at.
    deep: HashSet<Name>,
}

enum Todo {
    Name(Name),
    Yields(Name, Option<Name>),
    Deep(Name),
}

// === impl PreparedLayer ===

impl PreparedLayer {
    /// Looks at every entry once.
    pub fn new(report: LayerReport) -> Self {
        let outline = Outline::new(&report);
        Self { report, outline }
    }

    /// A file that a package owns.
    pub(super) fn owned(&self, section: u32, number: u32) -> Option<&Owned> {
        let section = self.report.sections.get(section as usize)?;
        section.owned.get(number as usize)
    }

    /// About how many bytes the preparation takes in memory, the report not counted.
    pub fn outline_bytes(&self) -> usize {
        let Outline {
            by_name,
            steps,
            parents,
            targets,
            owned,
            ..
        } = &self.outline;
        let entries = by_name.len().saturating_mul(24);
        let steps = steps.len().saturating_mul(24);
        let others = parents.len().saturating_add(targets.len());
        let others = others.saturating_add(owned.len()).saturating_mul(32);
        entries.saturating_add(steps).saturating_add(others)
    }
}

// === impl Outline ===

impl Outline {
    fn new(report: &LayerReport) -> Self {
        let mut outline = Self::default();
        let mut parents: HashMap<&str, u32> = HashMap::new();
        for (number, entry) in (0..).zip(&report.entries.entries) {
            let (parent, last) = split(&entry.path);
            outline.by_name.push((hash(last), number));
            if entry.kind == EntryKind::Opaque {
                outline.opaque.push(number);
            }
            if let Some(target) = target(entry) {
                outline.links.push(hash(last));
                outline.add_target(hash(last), target, entry.kind);
            }
            let at = *parents.entry(parent).or_insert_with(|| {
                let at = u32::try_from(outline.parents.len()).unwrap_or(u32::MAX);
                let mut before = hash("");
                for name in names(parent) {
                    outline.steps.push((name, before, at));
                    before = name;
                }
                outline.parents.push(Vec::new());
                at
            });
            if let Some(below) = outline.parents.get_mut(at as usize) {
                below.push(number);
            }
        }
        outline.add_owned(report);
        outline.by_name.sort_unstable();
        outline.steps.sort_unstable();
        outline.targets.sort_unstable();
        outline.links.sort_unstable();
        outline.links.dedup();
        outline.owned.sort_unstable();
        outline
    }

    fn add_target(&mut self, link: Name, target: &str, kind: EntryKind) {
        // Where a way begins that does not begin at the root is not known.
        let at_root = target.starts_with('/') || kind == EntryKind::Hardlink;
        let mut before = at_root.then(|| hash(""));
        for part in target.split('/').filter(|part| !matches!(*part, "" | ".")) {
            if part == ".." {
                before = None;
                continue;
            }
            self.targets.push((hash(part), before, link));
            before = Some(hash(part));
        }
    }

    fn add_owned(&mut self, report: &LayerReport) {
        let mut owners = HashSet::new();
        for (at, section) in (0..).zip(&report.sections) {
            for (number, owned) in (0..).zip(&section.owned) {
                self.owned.push((hash(split(&owned.path).1), at, number));
                if owners.insert((&owned.package, &owned.arch)) {
                    self.owners.push((at, number));
                }
            }
        }
    }

    /// Entries with this last name.
    pub(super) fn named(&self, name: Name) -> impl Iterator<Item = u32> {
        range(&self.by_name, |item| item.0, name).map(|(_, entry)| *entry)
    }

    /// Files with this last name that packages own, as section and number.
    pub(super) fn owned(&self, name: Name) -> impl Iterator<Item = (u32, u32)> {
        range(&self.owned, |item| item.0, name).map(|(_, section, number)| (*section, *number))
    }

    /// The first file of each package that owns some.
    pub(super) fn owners(&self) -> &[(u32, u32)] {
        &self.owners
    }
}

/// The entries of each layer that matter to what stands at these places, in order; of `deep` also
/// all that stands in directories of this name.
pub(super) fn choose(layers: &[&PreparedLayer], places: Vec<&str>, deep: &str) -> Vec<Vec<u32>> {
    let mut choice = Choice {
        layers: layers
            .iter()
            .map(|layer| (layer.report.entries.entries.as_slice(), &layer.outline))
            .collect(),
        names: HashSet::new(),
        todo: vec![Todo::Deep(hash(deep))],
        chosen: vec![HashSet::new(); layers.len()],
        yielding: HashSet::new(),
        deep: HashSet::from([hash(deep)]),
    };
    for place in places {
        choice.add_way(place);
    }
    choice.run();
    let sorted = choice.chosen.into_iter().map(|chosen| {
        let mut entries: Vec<u32> = chosen.into_iter().collect();
        entries.sort_unstable();
        entries
    });
    sorted.collect()
}

// === impl Choice ===

impl Choice<'_> {
    fn run(&mut self) {
        for (at, (entries, outline)) in self.layers.clone().into_iter().enumerate() {
            for number in &outline.opaque {
                self.choose(at, *number);
                if let Some(entry) = entries.get(*number as usize) {
                    // It may name its directory by a link.
                    self.add_way(&entry.path);
                }
            }
        }
        while let Some(todo) = self.todo.pop() {
            match todo {
                Todo::Name(name) => self.by_name(name),
                Todo::Yields(name, before) => self.below(name, before),
                Todo::Deep(name) => self.everything_below(name),
            }
        }
    }

    fn add_way(&mut self, path: &str) {
        for name in names(path) {
            self.add_name(name);
        }
    }

    fn add_name(&mut self, name: Name) {
        if self.names.insert(name) {
            self.todo.push(Todo::Name(name));
        }
    }

    fn by_name(&mut self, name: Name) {
        for (at, (entries, outline)) in self.layers.clone().into_iter().enumerate() {
            for number in outline.named(name) {
                let Some(entry) = entries.get(number as usize) else {
                    continue;
                };
                self.choose(at, number);
                if let Some(target) = target(entry) {
                    self.add_way(target);
                }
                let is_file = matches!(
                    entry.kind,
                    EntryKind::File | EntryKind::Special | EntryKind::Hardlink
                );
                if is_file {
                    let before = hash(split(split(&entry.path).0).1);
                    let before = Some(before).filter(|before| !self.is_link(*before));
                    self.add_yielding(name, before);
                }
            }
        }
    }

    fn add_yielding(&mut self, name: Name, before: Option<Name>) {
        if self.yielding.insert((name, before)) {
            self.todo.push(Todo::Yields(name, before));
        }
    }

    /// Chooses what lies below directories that can be the same place as a file.
    fn below(&mut self, name: Name, before: Option<Name>) {
        for (at, (_, outline)) in self.layers.clone().into_iter().enumerate() {
            for (_, other, parent) in range(&outline.steps, |item| item.0, name) {
                if before.is_none_or(|before| before == *other) || self.is_link(*other) {
                    self.choose_below(at, *parent, false);
                }
            }
            for (_, other, link) in range(&outline.targets, |item| item.0, name) {
                let can_differ =
                    |(before, other): (Name, Name)| before != other && !self.is_link(other);
                if !before.zip(*other).is_some_and(can_differ) {
                    self.add_yielding(*link, None);
                }
            }
        }
    }

    fn everything_below(&mut self, name: Name) {
        for (at, (_, outline)) in self.layers.clone().into_iter().enumerate() {
            for (_, _, parent) in range(&outline.steps, |item| item.0, name) {
                self.choose_below(at, *parent, true);
            }
            for (_, _, link) in range(&outline.targets, |item| item.0, name) {
                if self.deep.insert(*link) {
                    self.todo.push(Todo::Deep(*link));
                }
            }
        }
    }

    fn choose_below(&mut self, layer: usize, parent: u32, with_names: bool) {
        let Some((entries, outline)) = self.layers.get(layer).copied() else {
            return;
        };
        for number in outline.parents.get(parent as usize).into_iter().flatten() {
            self.choose(layer, *number);
            if let Some(entry) = entries.get(*number as usize).filter(|_| with_names) {
                self.add_name(hash(split(&entry.path).1));
            }
        }
    }

    fn choose(&mut self, layer: usize, number: u32) {
        let is_new = self
            .chosen
            .get_mut(layer)
            .is_some_and(|chosen| chosen.insert(number));
        let entries = self.layers.get(layer).map(|(entries, _)| *entries);
        let entry = entries.and_then(|entries| entries.get(number as usize));
        if let Some(entry) = entry.filter(|_| is_new) {
            self.add_way(split(&entry.path).0);
        }
    }

    /// Whether a link of any layer has this name.
    fn is_link(&self, name: Name) -> bool {
        self.layers
            .iter()
            .any(|(_, outline)| outline.links.binary_search(&name).is_ok())
    }
}

pub(super) fn hash(name: &str) -> Name {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// The last name of a path.
pub(super) fn last(path: &str) -> &str {
    split(path).1
}

/// Names on a way, but those that lead nowhere or up.
fn names(path: &str) -> impl Iterator<Item = Name> {
    path.split('/')
        .filter(|name| !matches!(*name, "" | "." | ".."))
        .map(hash)
}

fn target(entry: &LayerEntry) -> Option<&str> {
    let is_link = matches!(entry.kind, EntryKind::Symlink | EntryKind::Hardlink);
    entry.link.as_deref().filter(|_| is_link)
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Those of a sorted list that have a key.
fn range<T>(sorted: &[T], key: impl Fn(&T) -> Name, wanted: Name) -> impl Iterator<Item = &T> {
    let start = sorted.partition_point(|item| key(item) < wanted);
    sorted
        .iter()
        .skip(start)
        .take_while(move |item| key(item) == wanted)
}
