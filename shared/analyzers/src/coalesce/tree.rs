//! The files of an image, as a runtime would have unpacked them.

use std::collections::BTreeMap;

use model::{EntryKind, LayerEntry};

/// Links that are followed on one way, as in Linux.
const LINKS_MAX: u32 = 40;

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
    /// Where the parent of the entry before was found.
    parent: Option<(&'a str, NodeId)>,
}

/// One name's meaning.
#[derive(Clone, Debug)]
pub(super) enum Node<'a> {
    /// A directory.
    Directory(BTreeMap<&'a str, NodeId>),
    /// A symbolic link and where it leads.
    Symlink(&'a str),
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
}

/// Why a cursor stopped.
enum Stop<'p> {
    /// It is at its end, in a directory.
    Arrived,
    /// There is no such name in the directory.
    Missing(&'p str),
    /// The name is that of a file.
    Leaf(&'p str, NodeId),
    /// Links lead to links for ever.
    Lost,
}

// === impl Tree ===

impl<'a> Tree<'a> {
    /// An empty root.
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Node::Directory(BTreeMap::new())],
            parent: None,
        }
    }

    /// Lays a layer over what is there. What it removes is removed of lower layers only, wherever
    /// in the archive that stands.
    pub(super) fn apply(
        &mut self,
        layer: usize,
        entries: impl Iterator<Item = (usize, &'a LayerEntry)> + Clone,
    ) {
        self.parent = None;
        for (_, entry) in entries.clone() {
            match entry.kind {
                EntryKind::Whiteout => self.remove(&entry.path),
                EntryKind::Opaque => {
                    if let Some(directory) = self.directory(&entry.path) {
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
        self.parent = None;
    }

    /// The node at a path, links followed to the end.
    pub(super) fn find(&self, path: &str) -> Option<&Node<'a>> {
        let mut cursor = Cursor::new(path);
        match self.advance(&mut cursor) {
            Stop::Arrived => self.nodes.get(cursor.here()),
            Stop::Leaf(_, node) if cursor.todo.is_empty() => self.nodes.get(node),
            _ => None,
        }
    }

    /// Calls `see` with the path and node of everything there is, the root left out.
    pub(super) fn visit(&self, mut see: impl FnMut(&str, &Node<'a>)) {
        let mut todo = vec![(String::new(), ROOT)];
        while let Some((path, id)) = todo.pop() {
            let Some(Node::Directory(children)) = self.nodes.get(id) else {
                continue;
            };
            for (name, child) in children {
                let path = if path.is_empty() {
                    (*name).to_owned()
                } else {
                    format!("{path}/{name}")
                };
                let Some(node) = self.nodes.get(*child) else {
                    continue;
                };
                see(&path, node);
                if matches!(node, Node::Directory(_)) {
                    todo.push((path, *child));
                }
            }
        }
    }

    fn place(&mut self, origin: Origin, entry: &'a LayerEntry) {
        let link = entry.link.as_deref().unwrap_or_default();
        let node = match entry.kind {
            EntryKind::Whiteout | EntryKind::Opaque => return,
            EntryKind::Directory => Node::Directory(BTreeMap::new()),
            EntryKind::Symlink => Node::Symlink(link),
            EntryKind::File | EntryKind::Special => Node::Leaf(origin),
            // A link to nothing is a name of a file that nobody has read.
            EntryKind::Hardlink => self.linked(link).unwrap_or(Node::Leaf(origin)),
        };
        if entry.path.is_empty() {
            return;
        }
        let (parent, name) = split(&entry.path);
        let Some(parent) = self.make_directory(parent) else {
            return;
        };
        let old = self.child(parent, name).and_then(|old| self.nodes.get(old));
        match (old, &node) {
            (Some(Node::Directory(_)), Node::Directory(_)) => return,
            (Some(Node::Directory(_) | Node::Symlink(_)), _) => self.parent = None,
            _ => {}
        }
        self.insert(parent, name, node);
    }

    fn remove(&mut self, path: &'a str) {
        let (parent, name) = split(path);
        let Some(parent) = self.directory(parent) else {
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
        let mut cursor = Cursor::new(path);
        matches!(self.advance(&mut cursor), Stop::Arrived).then(|| cursor.here())
    }

    /// The directory at a path, links followed. What is missing on the way is made, and a file in
    /// the way gives way.
    fn make_directory(&mut self, path: &'a str) -> Option<NodeId> {
        if let Some((_, known)) = self.parent.filter(|(known, _)| *known == path) {
            return Some(known);
        }
        let mut cursor = Cursor::new(path);
        loop {
            match self.advance(&mut cursor) {
                Stop::Arrived => break,
                Stop::Missing(name) | Stop::Leaf(name, _) => {
                    let empty = Node::Directory(BTreeMap::new());
                    let made = self.insert(cursor.here(), name, empty);
                    cursor.above.push(made);
                }
                Stop::Lost => return None,
            }
        }
        self.parent = Some((path, cursor.here()));
        Some(cursor.here())
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
                Some(Node::Symlink(target)) => {
                    if !cursor.follow(target) {
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

    fn insert(&mut self, directory: NodeId, name: &'a str, node: Node<'a>) -> NodeId {
        let id = self.nodes.len();
        self.nodes.push(node);
        if let Some(Node::Directory(children)) = self.nodes.get_mut(directory) {
            children.insert(name, id);
        }
        id
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
