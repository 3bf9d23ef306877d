//! Layers over each other show what unpacking them gives.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::coalesce::{
    budget::Budget,
    tree::{self, Origin, Tree},
    view,
};

/// Another way to unpack: a flat map from path to what is there.
#[derive(Default)]
struct Reference(BTreeMap<String, String>);

impl Reference {
    fn apply(&mut self, layer: usize, entries: &[LayerEntry]) {
        for entry in entries {
            let is_opaque = entry.kind == EntryKind::Opaque;
            if is_opaque {
                if let Some(directory) = self.plain(&entry.path) {
                    let below = if directory.is_empty() {
                        directory
                    } else {
                        directory + "/"
                    };
                    self.0.retain(|path, _| !path.starts_with(&below));
                }
            } else if entry.kind == EntryKind::Whiteout {
                let (parent, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
                if let Some(parent) = self.plain(parent) {
                    self.remove(&join(&parent, name));
                }
            }
        }
        for (number, entry) in entries.iter().enumerate() {
            let link = entry.link.clone().unwrap_or_default();
            let node = match entry.kind {
                EntryKind::Directory => "directory".to_owned(),
                EntryKind::Symlink => format!("-> {link}"),
                EntryKind::Hardlink => {
                    let (parent, name) = link.rsplit_once('/').unwrap_or(("", &link));
                    let parent = self.resolve(parent, false, &mut 40);
                    let target =
                        parent.and_then(|parent| self.0.get(&join(&parent, name)).cloned());
                    let target = target.filter(|target| target != "directory");
                    target.unwrap_or_else(|| format!("{layer}.{number}"))
                }
                EntryKind::File => format!("{layer}.{number}"),
                _ => continue,
            };
            let (parent, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
            let Some(parent) = self.resolve(parent, true, &mut 40) else {
                continue;
            };
            let path = join(&parent, name);
            if node != "directory" || self.0.get(&path) != Some(&node) {
                self.remove(&path);
                self.0.insert(path, node);
            }
        }
    }

    /// The path of a directory, if nothing on the way is a link.
    fn plain(&self, path: &str) -> Option<String> {
        let mut here = String::new();
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            here = join(&here, segment);
            if self.0.get(&here).map(String::as_str) != Some("directory") {
                return None;
            }
        }
        Some(here)
    }

    /// The real path of a directory.
    fn resolve(&mut self, path: &str, make: bool, links: &mut u32) -> Option<String> {
        let mut here = String::new();
        for segment in path
            .split('/')
            .filter(|segment| !matches!(*segment, "" | "."))
        {
            if segment == ".." {
                here = here
                    .rsplit_once('/')
                    .map_or("", |(above, _)| above)
                    .to_owned();
                continue;
            }
            let next = join(&here, segment);
            match self.0.get(&next).cloned().as_deref() {
                Some("directory") => here = next,
                Some(link) if link.starts_with("-> ") => {
                    let target = link.trim_start_matches("-> ");
                    *links = links.checked_sub(1)?;
                    let base = if target.starts_with('/') { "" } else { &here };
                    here = self.resolve(&format!("{base}/{target}"), make, links)?;
                }
                _ if make => {
                    self.0.insert(next.clone(), "directory".to_owned());
                    here = next;
                }
                _ => return None,
            }
        }
        Some(here)
    }

    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.0
            .retain(|known, _| known != path && !known.starts_with(&below));
    }
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        name.to_owned()
    } else {
        format!("{directory}/{name}")
    }
}

fn lines() -> impl Strategy<Value = String> {
    let target = prop_oneof![
        4 => "[abc](/[abc]){0,2}",
        1 => "/[abc](/[abc])?",
        1 => "\\.\\.(/[abc]){1,2}",
        1 => "[abc]/\\.\\./[abc]",
    ];
    prop_oneof![
        3 => "f [abc](/[abc]){0,3}",
        2 => "d [abc](/[abc]){0,2}",
        2 => ("l [abc](/[abc]){0,2}", target.clone()).prop_map(|(l, t)| format!("{l} -> {t}")),
        1 => ("h [abc](/[abc]){0,2}", "[abc](/[abc]){0,2}").prop_map(|(l, t)| format!("{l} -> {t}")),
        1 => "w [abc](/[abc]){0,2}",
        1 => "o ([abc](/[abc]){0,2})?",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn layers_show_what_unpacking_them_gives(
        layers in prop::collection::vec(prop::collection::vec(lines(), 0..8), 1..5),
    ) {
        let layers: Vec<Vec<LayerEntry>> =
            layers.iter().map(|lines| lines.iter().map(|line| entry(line)).collect()).collect();
        let packed: Vec<_> = layers.iter().map(|entries| EntryList::new(entries)).collect();
        let mut tree = Tree::new(Budget::new(&Limits::default()));
        let mut reference = Reference::default();
        for (number, entries) in layers.iter().enumerate() {
            tree.apply(number, packed[number].iter().enumerate());
            reference.apply(number, entries);
            prop_assert_eq!(view::visible(&tree), reference.0.clone());
        }
        for (path, what) in &reference.0 {
            if let Some((layer, entry)) = what.split_once('.').filter(|_| !what.starts_with("->")) {
                let origin =
                    Origin { layer: layer.parse().unwrap(), entry: entry.parse().unwrap() };
                let found = matches!(tree.find(path), Some(tree::Node::Leaf(found)) if *found == origin);
                prop_assert!(found, "{} is {}", path, what);
            }
        }
    }
}
