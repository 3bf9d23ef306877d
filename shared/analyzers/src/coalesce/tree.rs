//! The files of an image, as a runtime would have unpacked them.

use std::collections::BTreeMap;

use model::EntryKind;

use super::{HashMap, budget::Budget, packed::EntryRef};

/// Links that are followed on one way, as in Linux.
const LINKS_MAX: u32 = 40;

/// Bytes of the longest path that is looked at: links in lower layers can make any path longer than
/// the one that an entry writes.
const PATH_BYTES_MAX: usize = 16 << 10;

/// The root's number.
const ROOT: NodeId = 0;

/// A node's number in the tree.
pub(super) type NodeId = usize;

/// The entry that a node's content came from: of a hard link, that of the file it links to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Origin {
    /// The layer's number.
    pub(super) layer: usize,
    /// The entry's number in the layer.
    pub(super) entry: usize,
}

/// Directories, files and links.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    /// Where the parents of entries were found, as long as nothing on a way there may have changed.
    parents: HashMap<&'a str, (u64, Place)>,
    /// How often something has.
    changes: u64,
    /// The layer that is being applied.
    layer: usize,
    /// What is left of the limits.
    pub(super) budget: Budget,
    /// Whether a name of the layer found no room.
    is_cut: bool,
    /// By layer, how many of its entries replace a file that they reach through a link of a lower
    /// layer, and the first of them.
    pub(super) through_links: BTreeMap<usize, (u64, &'a str)>,
}

/// Where a directory was found.
#[derive(Clone, Copy, Debug)]
struct Place {
    directory: NodeId,
    /// Whether a link of a lower layer led there.
    is_through_link: bool,
}

/// One name's meaning.
#[derive(Clone, Debug)]
pub(super) enum Node<'a> {
    /// A directory.
    Directory(BTreeMap<&'a str, NodeId>),
    /// A symbolic link.
    Symlink {
        /// Where it leads.
        target: &'a str,
        /// The layer that made it.
        layer: usize,
    },
    /// A file or device.
    Leaf(Origin),
}

/// A place on the way through the tree.
struct Cursor<'p> {
    /// Directories from the root to here.
    above: Vec<NodeId>,
    /// Segments that are still to go, the next one last.
    todo: Vec<&'p str>,
    links: u32,
    /// Whether one of the links is a lower layer's.
    is_through_link: bool,
}

/// Why a cursor stopped.
enum Stop<'p> {
    /// It is at its end, in a directory.
    Arrived,
    /// There is no such name in the directory.
    Missing(&'p str),
    /// The name is that of a file.
    Leaf(&'p str, NodeId),
    /// Links lead to links for ever, or further than the limits allow.
    Lost,
}

// === impl Tree ===

impl<'a> Tree<'a> {
    /// An empty root.
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            nodes: vec![Node::Directory(BTreeMap::new())],
            parents: HashMap::default(),
            changes: 0,
            layer: 0,
            budget,
            is_cut: false,
            through_links: BTreeMap::new(),
        }
    }

    /// Lays a layer over what is there. What it removes is removed of lower layers only, wherever
    /// in the archive that stands. Says whether all of it is there: names that its paths only imply
    /// are made as long as there is room.
    pub(super) fn apply(
        &mut self,
        layer: usize,
        entries: impl Iterator<Item = (usize, EntryRef<'a>)> + Clone,
    ) -> bool {
        self.forget_parents();
        self.layer = layer;
        for (_, entry) in entries.clone() {
            match entry.kind {
                EntryKind::Whiteout => self.remove(entry.path),
                EntryKind::Opaque => {
                    if let Some(directory) = self.plain_directory(entry.path) {
                        self.set(directory, Node::Directory(BTreeMap::new()));
                    }
                }
                _ => {}
            }
        }
        for (number, entry) in entries {
            self.place(
                Origin {
                    layer,
                    entry: number,
                },
                entry,
            );
        }
        !std::mem::take(&mut self.is_cut)
    }

    /// The node at a path, links followed to the end.
    pub(super) fn find(&self, path: &str) -> Option<&Node<'a>> {
        // Most ways have no link, and need no memory to be gone.
        let slashes = path.bytes().filter(|byte| *byte == b'/').count();
        if !self.budget.step(slashes.saturating_add(1)) {
            return None;
        }
        let mut here = ROOT;
        let mut names = path.split('/');
        while let Some(name) = names.next() {
            match name {
                "" | "." => continue,
                ".." => return self.find_by_links(path),
                _ => {}
            }
            let child = self.child(here, name)?;
            match self.nodes.get(child)? {
                Node::Directory(_) => here = child,
                Node::Symlink { .. } => return self.find_by_links(path),
                leaf @ Node::Leaf(_) => return names.next().is_none().then_some(leaf),
            }
        }
        self.nodes.get(here)
    }

    /// The same by whatever way; the steps of the path itself are taken.
    fn find_by_links(&self, path: &str) -> Option<&Node<'a>> {
        let mut cursor = Cursor::new(path);
        match self.advance(&mut cursor) {
            Stop::Arrived => self.nodes.get(cursor.here()),
            Stop::Leaf(_, node) if cursor.todo.is_empty() => self.nodes.get(node),
            _ => None,
        }
    }

    /// Calls `see` with the path and node of everything there is, the root left out. Says whether
    /// that was all: what is behind a path that is too long is not looked at.
    pub(super) fn visit(&self, mut see: impl FnMut(&str, &Node<'a>)) -> bool {
        let Some(Node::Directory(top)) = self.nodes.get(ROOT) else {
            return true;
        };
        let mut is_all = true;
        let mut path = String::new();
        let mut open = vec![(top.iter(), 0)];
        while let Some((children, length)) = open.last_mut() {
            path.truncate(*length);
            let Some((name, child)) = children.next() else {
                open.pop();
                continue;
            };
            let Some(node) = self.nodes.get(*child) else {
                continue;
            };
            if path.len().saturating_add(name.len()) >= PATH_BYTES_MAX {
                is_all = false;
                continue;
            }
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(name);
            see(&path, node);
            if let Node::Directory(children) = node {
                open.push((children.iter(), path.len()));
            }
        }
        is_all
    }

    fn place(&mut self, origin: Origin, entry: EntryRef<'a>) {
        let link = entry.link.unwrap_or_default();
        let node = match entry.kind {
            EntryKind::Whiteout | EntryKind::Opaque => return,
            EntryKind::Directory => Node::Directory(BTreeMap::new()),
            EntryKind::Symlink => Node::Symlink {
                target: link,
                layer: origin.layer,
            },
            EntryKind::File | EntryKind::Special => Node::Leaf(origin),
            // A link to nothing is a name of a file that nobody has read.
            EntryKind::Hardlink => self.linked(link).unwrap_or(Node::Leaf(origin)),
        };
        if entry.path.is_empty() {
            return;
        }
        let (parent, name) = split(entry.path);
        let Some(parent) = self.make_directory(parent) else {
            return;
        };
        let old = self.child(parent.directory, name);
        let is_lower = match (old.and_then(|old| self.nodes.get(old)), &node) {
            (Some(Node::Directory(_)), Node::Directory(_)) => return,
            (Some(Node::Directory(_)), _) => {
                self.forget_parents();
                false
            }
            (Some(Node::Symlink { layer, .. }), _) => {
                let is_lower = *layer < origin.layer;
                self.forget_parents();
                is_lower
            }
            (Some(Node::Leaf(old)), _) => old.layer < origin.layer,
            (None, _) => false,
        };
        if is_lower && parent.is_through_link {
            let noted = self.through_links.entry(origin.layer);
            let (count, _) = noted.or_insert((0, entry.path));
            *count = count.saturating_add(1);
        }
        self.insert(parent.directory, name, node);
    }

    /// Removes what stands at a path. A link on the way is a lower layer's: in the directory that
    /// runtimes unpack this layer into there is none, so nothing behind it is removed.
    fn remove(&mut self, path: &'a str) {
        let (parent, name) = split(path);
        let Some(parent) = self.plain_directory(parent) else {
            return;
        };
        if let Some(Node::Directory(children)) = self.nodes.get_mut(parent) {
            children.remove(name);
        }
    }

    /// The file or link that a hard link shares; directories have none.
    fn linked(&self, target: &str) -> Option<Node<'a>> {
        let (parent, name) = split(target.trim_end_matches('/'));
        let node = self.nodes.get(self.child(self.directory(parent)?, name)?)?;
        (!matches!(node, Node::Directory(_))).then(|| node.clone())
    }

    /// The directory at a path, links followed.
    fn directory(&self, path: &str) -> Option<NodeId> {
        let mut cursor = self.cursor(path)?;
        matches!(self.advance(&mut cursor), Stop::Arrived).then(|| cursor.here())
    }

    /// The directory at a path, if there is no link on the way.
    fn plain_directory(&self, path: &str) -> Option<NodeId> {
        let mut here = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if !self.budget.step(1) {
                return None;
            }
            here = self.child(here, name)?;
        }
        matches!(self.nodes.get(here), Some(Node::Directory(_))).then_some(here)
    }

    /// The directory at a path, links followed. What is missing on the way is made, and a file in
    /// the way gives way.
    fn make_directory(&mut self, path: &'a str) -> Option<Place> {
        if let Some(known) = self.known_parent(path) {
            return Some(known);
        }
        let mut cursor = self.cursor(path)?;
        loop {
            match self.advance(&mut cursor) {
                Stop::Arrived => break,
                Stop::Missing(name) | Stop::Leaf(name, _) => {
                    let empty = Node::Directory(BTreeMap::new());
                    let made = self.insert(cursor.here(), name, empty)?;
                    cursor.above.push(made);
                }
                Stop::Lost => return None,
            }
        }
        let place = Place {
            directory: cursor.here(),
            is_through_link: cursor.is_through_link,
        };
        self.parents.insert(path, (self.changes, place));
        Some(place)
    }

    /// The directory at a path, if it or the one above was found before. It takes fewer steps than it
    /// would without.
    fn known_parent(&mut self, path: &'a str) -> Option<Place> {
        let changes = self.changes;
        let known = |path: &str| {
            let known = self.parents.get(path);
            known.filter(|(since, _)| *since == changes).copied()
        };
        if let Some((_, place)) = known(path) {
            return Some(place);
        }
        let (above, name) = split(path);
        let (_, above) = known(above).filter(|_| !matches!(name, "" | "." | ".."))?;
        let child = self.child(above.directory, name)?;
        if !self.budget.step(1) || !matches!(self.nodes.get(child)?, Node::Directory(_)) {
            return None;
        }
        let place = Place {
            directory: child,
            ..above
        };
        self.parents.insert(path, (changes, place));
        Some(place)
    }

    /// Something on the way to directories may have changed.
    fn forget_parents(&mut self) {
        self.changes = self.changes.saturating_add(1);
    }

    /// A way from the root, if there are steps for it.
    fn cursor<'p>(&self, path: &'p str) -> Option<Cursor<'p>> {
        let cursor = Cursor::new(path);
        self.budget.step(cursor.todo.len()).then_some(cursor)
    }

    /// Goes on as far as there are directories.
    fn advance<'p>(&self, cursor: &mut Cursor<'p>) -> Stop<'p>
    where
        'a: 'p,
    {
        while let Some(name) = cursor.todo.pop() {
            match name {
                "" | "." => continue,
                ".." => {
                    cursor.leave();
                    continue;
                }
                _ => {}
            }
            let Some(child) = self.child(cursor.here(), name) else {
                return Stop::Missing(name);
            };
            match self.nodes.get(child) {
                Some(Node::Directory(_)) => cursor.above.push(child),
                Some(Node::Symlink { target, layer }) => {
                    // With a merged `/usr` everybody means the same by `lib/x` and `usr/lib/x`.
                    let is_merged = cursor.above.len() == 1
                        && target.trim_start_matches('/').strip_prefix("usr/") == Some(name);
                    cursor.is_through_link |= *layer < self.layer && !is_merged;
                    let before = cursor.todo.len();
                    let is_fine = cursor.follow(target);
                    let added = cursor.todo.len().saturating_sub(before);
                    if !is_fine || !self.budget.step(added) {
                        return Stop::Lost;
                    }
                }
                _ => return Stop::Leaf(name, child),
            }
        }
        Stop::Arrived
    }

    fn child(&self, directory: NodeId, name: &str) -> Option<NodeId> {
        match self.nodes.get(directory)? {
            Node::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    /// Gives a name a meaning, in the place of the one it had: no other name shares that.
    fn insert(&mut self, directory: NodeId, name: &'a str, node: Node<'a>) -> Option<NodeId> {
        if let Some(old) = self.child(directory, name) {
            self.set(old, node);
            return Some(old);
        }
        if !self.budget.take_node() {
            self.is_cut = true;
            return None;
        }
        let id = self.nodes.len();
        self.nodes.push(node);
        if let Some(Node::Directory(children)) = self.nodes.get_mut(directory) {
            children.insert(name, id);
        }
        Some(id)
    }

    fn set(&mut self, id: NodeId, node: Node<'a>) {
        if let Some(old) = self.nodes.get_mut(id) {
            *old = node;
        }
    }
}

// === impl Cursor ===

impl<'p> Cursor<'p> {
    fn new(path: &'p str) -> Self {
        Self {
            above: vec![ROOT],
            todo: path.split('/').rev().collect(),
            links: 0,
            is_through_link: false,
        }
    }

    fn here(&self) -> NodeId {
        self.above.last().copied().unwrap_or(ROOT)
    }

    /// One directory up; the root is above itself.
    fn leave(&mut self) {
        if self.above.len() > 1 {
            self.above.pop();
        }
    }

    /// Whether that is not one link too many.
    fn follow(&mut self, target: &'p str) -> bool {
        self.links = self.links.saturating_add(1);
        if target.starts_with('/') {
            self.above.truncate(1);
        }
        self.todo.extend(target.split('/').rev());
        self.links <= LINKS_MAX && !target.is_empty()
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
