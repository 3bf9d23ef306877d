//! Which entries can matter to an image's report: hundreds or a few thousand of a layer's tens of
//! thousands.
//!
//! A report speaks of a few places: files that prove packages, files with findings, where package
//! managers keep their records. What stands at a place depends on entries whose last name is one
//! of the names on the ways there, and on nothing else: an entry with another name changes
//! another name's meaning. So the names on those ways are collected, with those on the ways to
//! each entry chosen and those that chosen links lead through, until there are no new ones.
//!
//! Three things reach further than a name. A file has the names of all hard links to it, so those are
//! chosen with what they link to. An entry that replaces a lower layer's file through a lower
//! layer's link is a gap, whatever its name: of each layer those are chosen that have the name of a
//! link on their way and the last name of a file below. And a file gives way to a directory that is
//! needed by entries below it. So what lies below the name of a chosen file is chosen too, as far as
//! it can be the same place: what stands before both names is the same, or links lead from one to the
//! other (`Aliases`).
//!
//! Names are compared by their hashes. Two names with one hash are both chosen, which costs time and
//! changes nothing. A layer whose paths have more names than any honest one's is not prepared: of its
//! images all entries are looked at. Choosing takes steps of the image's limits like all else.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use model::EntryKind;

use super::{
    HashMap, HashSet,
    budget::Budget,
    directories::{Directories, NewDirectories},
    index::Index,
    packed::{EntryList, EntryRef, Pack},
    prepared::PreparedLayer,
};
use crate::python;

/// Entries whose last name ends so are chosen wherever they are.
const NAME_ENDS: &[&str] = &[python::NAME_END];

/// Names on the ways to the entries of one layer, and in the targets of its links.
const NAMES_MAX: usize = 2_000_000;

/// Where the names of a layer stand.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// Last name -> entry.
    by_name: Index<u32>,
    /// Name of a directory on the way to entries -> the name before it, and its number.
    steps: Index<(Name, u32)>,
    directories: Directories,
    /// Name that a link leads through, the name before it if that is certain -> the link's name.
    targets: Index<(Option<Name>, Name)>,
    /// Names of links, and the name before each.
    links: Vec<(Name, Name)>,
    /// The same of those that lead elsewhere than a merged `/usr` does.
    astray: Vec<(Name, Name)>,
    /// Names of links, and the last name of where each leads; `None` where that is at no name.
    ends: Vec<(Name, Option<Name>)>,
    /// Last name that a hard link leads to -> the link's entry.
    shares: Index<u32>,
    size: Size,
    /// Whether it has so many names that they are not all here.
    is_partial: bool,
    opaque: Vec<u32>,
    /// Last names that end with one of [`NAME_ENDS`].
    named_by_end: Vec<Name>,
}

/// An outline that is being made.
#[derive(Debug)]
struct Making {
    outline: Outline,
    by_name: Vec<(Name, u32)>,
    directories: NewDirectories,
    /// Which directory each entry names.
    of_entries: Vec<u32>,
    /// Names on the ways to the directories that entries name, one after the other.
    walked: usize,
    targets: Vec<(Name, (Option<Name>, Name))>,
    shares: Vec<(Name, u32)>,
    /// Paths of entries and of the directories on the way to them.
    made: Vec<Name>,
}

/// What a layer takes of an image's limits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// Entries, or the names that their paths make if those are more.
    pub(super) names: u64,
    /// Bytes of paths and link targets.
    pub(super) name_bytes: u64,
}

/// What [`choose`] is asked for.
#[derive(Debug)]
pub(super) struct Want<'a> {
    /// Places of which it has to be known what stands there; of a single name, wherever that is.
    pub(super) places: Vec<&'a str>,
    /// All that stands in directories of this name.
    pub(super) deep: &'a str,
}

/// A name's hash.
pub(super) type Name = u64;

/// Chooses the entries of an image.
struct Choice<'a> {
    layers: Vec<(&'a EntryList, &'a Outline)>,
    budget: &'a Budget,
    names: HashSet<Name>,
    aliases: Aliases,
    todo: Vec<Todo>,
    /// Of each layer, whether each of its entries is chosen.
    chosen: Vec<Vec<bool>>,
    /// Of each layer, whether the way to each directory that its entries name is.
    ways: Vec<Vec<bool>>,
    /// Names of files that give way, with what the name before is an alias of; `None`: whatever
    /// stands before.
    yielding: HashSet<(Name, Option<Name>)>,
    /// Directories of which everything is looked at.
    deep: HashSet<Name>,
}

/// Which names can be those of one directory: the name of a link, and the last one of where it leads.
/// Where a link stands does not count, so a name is an alias of more than it can be.
#[derive(Debug, Default)]
struct Aliases {
    /// Name -> what it is an alias of, the same for all that are aliases of each other. While links
    /// are added: one of these names, from where to go on.
    of: HashMap<Name, Name>,
    /// Names of links that end at no name, and so at any directory.
    any: HashSet<Name>,
}

enum Todo {
    Name(Name),
    Yields(Name, Option<Name>),
    Deep(Name),
}

// === impl Making ===

impl Making {
    fn new() -> Self {
        Self {
            outline: Outline::default(),
            by_name: Vec::new(),
            directories: NewDirectories::default(),
            of_entries: Vec::new(),
            walked: 0,
            targets: Vec::new(),
            shares: Vec::new(),
            made: Vec::new(),
        }
    }

    fn add(&mut self, number: u32, entry: &EntryRef<'_>) {
        let name = last(entry.path);
        self.by_name.push((hash(name), number));
        if NAME_ENDS.iter().any(|end| name.ends_with(end)) {
            self.outline.named_by_end.push(hash(name));
        }
        let link_bytes = entry.link.map_or(0, str::len);
        for bytes in [entry.path.len(), link_bytes] {
            let all = &mut self.outline.size.name_bytes;
            *all = all.saturating_add(bytes as u64);
        }
        if entry.kind == EntryKind::Opaque {
            self.outline.opaque.push(number);
        }
        self.made.push(hash(entry.path));
        self.add_link(number, entry);
    }

    /// Takes up a directory that entries name, with those on the way there, and says its number.
    fn add_directory(&mut self, path: &str) -> u32 {
        let mut at = 0;
        let mut end = 0_usize;
        for name in path.split('/') {
            end = end.saturating_add(name.len());
            let way = path.get(..end).unwrap_or(path);
            end = end.saturating_add(1);
            if is_no_name(name) {
                continue;
            }
            if !self.has_room() {
                break;
            }
            self.walked = self.walked.saturating_add(1);
            let (within, is_new) = self.directories.within(at, hash(name));
            if is_new {
                self.made.push(hash(way));
            }
            at = within;
        }
        at
    }

    /// Whether another name may be taken up.
    fn has_room(&mut self) -> bool {
        let names = self.walked.saturating_add(self.targets.len());
        self.outline.is_partial |= names >= NAMES_MAX;
        !self.outline.is_partial
    }

    fn add_link(&mut self, number: u32, entry: &EntryRef<'_>) {
        let Some(target) = target(entry) else {
            return;
        };
        let (parent, name) = split(entry.path);
        let link = (hash(name), hash(last(parent)));
        self.outline.links.push(link);
        let end = last(target);
        let end = (!is_no_name(end)).then(|| hash(end));
        self.outline.ends.push((link.0, end));
        // As the tree sees it.
        let merged = target.trim_start_matches('/').strip_prefix("usr/");
        let is_hard = entry.kind == EntryKind::Hardlink;
        if is_hard || !parent.is_empty() || merged != Some(name) {
            self.outline.astray.push(link);
        }
        if is_hard {
            let target = last(target.trim_end_matches('/'));
            self.shares.push((hash(target), number));
        }
        self.add_target(link.0, target, entry.kind);
    }

    fn add_target(&mut self, link: Name, target: &str, kind: EntryKind) {
        // Where a way begins that does not begin at the root is not known.
        let at_root = target.starts_with('/') || kind == EntryKind::Hardlink;
        let mut before = at_root.then(|| hash(""));
        for part in target.split('/').filter(|part| !matches!(*part, "" | ".")) {
            if !self.has_room() {
                return;
            }
            if part == ".." {
                before = None;
                continue;
            }
            self.targets.push((hash(part), (before, link)));
            before = Some(hash(part));
        }
    }

    fn finish(self) -> Outline {
        let Self {
            mut outline,
            mut made,
            ..
        } = self;
        made.sort_unstable();
        made.dedup();
        outline.size.names = made.len().max(self.of_entries.len()) as u64;
        for links in [&mut outline.links, &mut outline.astray] {
            links.sort_unstable();
            links.dedup();
        }
        outline.ends.sort_unstable();
        outline.ends.dedup();
        outline.named_by_end.sort_unstable();
        outline.named_by_end.dedup();
        let (directories, steps) = self.directories.finish(&self.of_entries);
        Outline {
            by_name: Index::new(self.by_name),
            steps: Index::new(steps),
            directories,
            targets: Index::new(self.targets),
            shares: Index::new(self.shares),
            ..outline
        }
    }
}

// === impl Outline ===

impl Outline {
    /// Looks at every entry once.
    pub(super) fn new(entries: &EntryList) -> Self {
        let mut making = Making::new();
        let mut known: HashMap<&str, u32> = HashMap::default();
        // An archive goes through its directories one after the other.
        let mut before = None;
        for (number, entry) in (0..).zip(entries.iter()) {
            let path = split(entry.path).0;
            let at = match before {
                Some((same, at)) if same == path => at,
                _ => *known
                    .entry(path)
                    .or_insert_with(|| making.add_directory(path)),
            };
            before = Some((path, at));
            making.of_entries.push(at);
            making.add(number, &entry);
        }
        making.finish()
    }

    /// What it takes of an image's limits.
    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// The numbers of all entries.
    pub(super) fn all(&self) -> impl Iterator<Item = u32> {
        self.directories.all_entries()
    }

    /// Entries with this last name.
    pub(super) fn named(&self, name: Name) -> impl Iterator<Item = u32> {
        self.by_name.named(name).copied()
    }

    /// About how many bytes it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let indexes = self.by_name.bytes().saturating_add(self.steps.bytes());
        let indexes = indexes.saturating_add(self.targets.bytes());
        // Links stand in two lists of 16 bytes for each, and in one of 24.
        let links = self.links.len().saturating_mul(32);
        let links = links.saturating_add(self.ends.len().saturating_mul(24));
        indexes
            .saturating_add(self.directories.bytes())
            .saturating_add(links)
    }
}

impl Pack for Outline {
    /// Eleven lists, two numbers and a word.
    const BYTES_MIN: usize = 105;

    fn pack(&self, out: &mut Vec<u8>) {
        self.by_name.pack(out);
        self.steps.pack(out);
        self.directories.pack(out);
        self.targets.pack(out);
        self.links.pack(out);
        self.astray.pack(out);
        self.ends.pack(out);
        self.shares.pack(out);
        self.size.names.pack(out);
        self.size.name_bytes.pack(out);
        self.is_partial.pack(out);
        self.opaque.pack(out);
        self.named_by_end.pack(out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            by_name: Pack::unpack(bytes)?,
            steps: Pack::unpack(bytes)?,
            directories: Pack::unpack(bytes)?,
            targets: Pack::unpack(bytes)?,
            links: Pack::unpack(bytes)?,
            astray: Pack::unpack(bytes)?,
            ends: Pack::unpack(bytes)?,
            shares: Pack::unpack(bytes)?,
            size: Size {
                names: Pack::unpack(bytes)?,
                name_bytes: Pack::unpack(bytes)?,
            },
            is_partial: Pack::unpack(bytes)?,
            opaque: Pack::unpack(bytes)?,
            named_by_end: Pack::unpack(bytes)?,
        })
    }
}

/// The entries of each layer that matter to what is wanted, in order.
pub(super) fn choose(layers: &[&PreparedLayer], want: Want<'_>, budget: &Budget) -> Vec<Vec<u32>> {
    if layers.iter().any(|layer| layer.entries.outline.is_partial) {
        let all = layers
            .iter()
            .map(|layer| layer.entries.outline.all().collect());
        return all.collect();
    }
    let deep = hash(want.deep);
    let mut choice = Choice {
        aliases: Aliases::of(layers),
        budget,
        layers: layers
            .iter()
            .map(|layer| (layer.entries.list(), &layer.entries.outline))
            .collect(),
        names: HashSet::default(),
        todo: vec![Todo::Deep(deep)],
        chosen: layers
            .iter()
            .map(|layer| vec![false; layer.entries.len()])
            .collect(),
        ways: layers
            .iter()
            .map(|layer| vec![false; layer.entries.outline.directories.len()])
            .collect(),
        yielding: HashSet::default(),
        deep: std::iter::once(deep).collect(),
    };
    for place in want.places {
        choice.add_way(place);
    }
    for layer in layers {
        for name in &layer.entries.outline.named_by_end {
            choice.add_name(*name);
        }
    }
    choice.add_replacing();
    choice.run();
    let numbers = choice.chosen.iter().map(|chosen| {
        let chosen = (0..).zip(chosen).filter(|(_, is_chosen)| **is_chosen);
        chosen.map(|(number, _)| number).collect()
    });
    numbers.collect()
}

// === impl Choice ===

impl Choice<'_> {
    fn run(&mut self) {
        for (at, (entries, outline)) in self.layers.clone().into_iter().enumerate() {
            for number in &outline.opaque {
                self.choose(at, *number);
                if let Some(entry) = entries.get(*number as usize) {
                    // It may name its directory by a link.
                    self.add_way(entry.path);
                }
            }
        }
        while let Some(todo) = self.todo.pop() {
            if !self.budget.step(self.layers.len()) {
                return;
            }
            match todo {
                Todo::Name(name) => self.by_name(name),
                Todo::Yields(name, before) => self.below(name, before),
                Todo::Deep(name) => self.everything_below(name),
            }
        }
    }

    /// Chooses what may replace a lower layer's file through a lower layer's link.
    fn add_replacing(&mut self) {
        let mut astray: HashMap<Name, HashSet<Option<Name>>> = HashMap::default();
        for (_, outline) in &self.layers {
            for (name, before) in &outline.astray {
                let before = self.aliases.find(*before);
                astray.entry(*name).or_default().insert(before);
            }
        }
        for at in 1..self.layers.len() {
            let Some((entries, outline)) = self.layers.get(at).copied() else {
                continue;
            };
            if !self.budget.step(outline.steps.len()) {
                return;
            }
            let steps = outline.steps.iter().filter(|(name, (before, _))| {
                astray.get(name).is_some_and(|links| {
                    let before = self.aliases.find(*before);
                    before.is_none() || links.contains(&before) || links.contains(&None)
                })
            });
            let directories = &outline.directories;
            let mut trees: Vec<_> = steps.map(|(_, (_, of))| directories.below(*of)).collect();
            trees.sort_unstable_by_key(|tree| tree.start);
            let mut gone = 0;
            let below = trees.into_iter().flat_map(|tree| {
                // One tree is in another, or beside it.
                let start = tree.start.max(gone);
                gone = tree.end.max(gone);
                directories.entries(start..tree.end.max(start))
            });
            for number in below {
                let name = entries.get(*number as usize).map(|entry| last(entry.path));
                let name = name.map(hash).filter(|name| self.is_file_up_to(*name, at));
                if let Some(name) = name {
                    self.choose(at, *number);
                    self.add_name(name);
                }
            }
        }
    }

    /// Whether a layer below this one has a file or link of this name, or this one a hard link, which
    /// may be to a lower file.
    fn is_file_up_to(&self, name: Name, at: usize) -> bool {
        let mut layers = self.layers.iter().enumerate().take(at.saturating_add(1));
        self.budget.step(at)
            && layers.any(|(layer, (entries, outline))| {
                let named = outline.named(name);
                let mut named = named.filter_map(|number| entries.get(number as usize));
                named.any(|entry| match entry.kind {
                    EntryKind::Hardlink => true,
                    EntryKind::File | EntryKind::Special | EntryKind::Symlink => layer < at,
                    _ => false,
                })
            })
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
                if let Some(target) = target(&entry) {
                    self.add_way(target);
                }
                let is_file = matches!(
                    entry.kind,
                    EntryKind::File | EntryKind::Special | EntryKind::Hardlink
                );
                if is_file {
                    let before = hash(split(split(entry.path).0).1);
                    self.add_yielding(name, self.aliases.find(before));
                }
            }
            // Other names of the same file.
            for link in outline.shares.named(name) {
                if let Some(entry) = entries.get(*link as usize) {
                    self.choose(at, *link);
                    self.add_name(hash(last(entry.path)));
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
            for (other, directory) in outline.steps.named(name) {
                if self.aliases.may_be_same(before, Some(*other)) {
                    self.choose_below(at, *directory, false);
                }
            }
            for (other, link) in outline.targets.named(name) {
                if self.aliases.may_be_same(before, *other) {
                    for (_, before) in range(&outline.links, |(name, _)| *name, *link) {
                        self.add_yielding(*link, self.aliases.find(*before));
                    }
                }
            }
        }
    }

    fn everything_below(&mut self, name: Name) {
        for (at, (_, outline)) in self.layers.clone().into_iter().enumerate() {
            for (_, directory) in outline.steps.named(name) {
                self.choose_below(at, *directory, true);
            }
            for (_, link) in outline.targets.named(name) {
                if self.deep.insert(*link) {
                    self.todo.push(Todo::Deep(*link));
                }
            }
        }
    }

    fn choose_below(&mut self, layer: usize, directory: u32, with_names: bool) {
        let Some((entries, outline)) = self.layers.get(layer).copied() else {
            return;
        };
        let directories = &outline.directories;
        for number in directories.entries(directories.below(directory)) {
            self.choose(layer, *number);
            if let Some(entry) = entries.get(*number as usize).filter(|_| with_names) {
                self.add_name(hash(split(entry.path).1));
            }
        }
    }

    fn choose(&mut self, layer: usize, number: u32) {
        let chosen = self.chosen.get_mut(layer);
        let is_chosen = chosen.and_then(|chosen| chosen.get_mut(number as usize));
        let (Some(is_chosen @ false), Some((entries, outline))) =
            (is_chosen, self.layers.get(layer).copied())
        else {
            return;
        };
        *is_chosen = true;
        let directory = outline.directories.of_entry(number);
        let way = self.ways.get_mut(layer).zip(directory);
        let way = way.and_then(|(ways, directory)| ways.get_mut(directory as usize));
        if let (Some(is_gone @ false), Some(entry)) = (way, entries.get(number as usize)) {
            *is_gone = true;
            self.add_way(split(entry.path).0);
        }
    }
}

// === impl Aliases ===

impl Aliases {
    fn of(layers: &[&PreparedLayer]) -> Self {
        let mut aliases = Self::default();
        aliases.any.extend([".", ".."].map(hash));
        for (link, end) in layers.iter().flat_map(|layer| &layer.entries.outline.ends) {
            match end {
                Some(end) => aliases.join(*link, *end),
                None => {
                    aliases.any.insert(*link);
                }
            }
        }
        // An alias of what may be any directory may be any, too.
        let any: Vec<Name> = aliases.any.iter().copied().collect();
        let any: Vec<Name> = any.into_iter().map(|name| aliases.end(name)).collect();
        aliases.any.extend(any);
        let names: Vec<Name> = aliases.of.keys().copied().collect();
        for name in names {
            let end = aliases.end(name);
            aliases.of.insert(name, end);
        }
        aliases
    }

    fn join(&mut self, one: Name, other: Name) {
        let (one, other) = (self.end(one), self.end(other));
        if one != other {
            self.of.insert(one, other);
        }
    }

    /// The name at the end of the way from this one. The way is half as long afterwards, or a chain of
    /// links would take a time that grows with its square.
    fn end(&mut self, mut name: Name) -> Name {
        while let Some(next) = self.of.get(&name).copied() {
            let Some(after) = self.of.get(&next).copied() else {
                return next;
            };
            self.of.insert(name, after);
            name = after;
        }
        name
    }

    /// What a name is an alias of, the same for all that may be one directory. `None`: of any.
    fn find(&self, name: Name) -> Option<Name> {
        let end = self.of.get(&name).copied().unwrap_or(name);
        (!self.any.contains(&end)).then_some(end)
    }

    /// Whether what this is an alias of can be the directory that has the other name; `None` can be
    /// any.
    fn may_be_same(&self, found: Option<Name>, other: Option<Name>) -> bool {
        let other = other.and_then(|other| self.find(other));
        found.zip(other).is_none_or(|(one, other)| one == other)
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
    path.split('/').filter(|name| !is_no_name(name)).map(hash)
}

fn is_no_name(name: &str) -> bool {
    matches!(name, "" | "." | "..")
}

fn target<'a>(entry: &EntryRef<'a>) -> Option<&'a str> {
    let is_link = matches!(entry.kind, EntryKind::Symlink | EntryKind::Hardlink);
    entry.link.filter(|_| is_link)
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Those of a sorted list that have a key.
pub(super) fn range<T>(
    sorted: &[T],
    key: impl Fn(&T) -> Name,
    wanted: Name,
) -> impl Iterator<Item = &T> {
    let start = sorted.partition_point(|item| key(item) < wanted);
    sorted
        .iter()
        .skip(start)
        .take_while(move |item| key(item) == wanted)
}
