//! `bun.lock`: JSON with comments and commas before closing brackets (bun.sh, "Lockfile").

use std::collections::BTreeMap;

use model::{FoundPackage, PackageType};
use serde::Deserialize;
use serde_json::Value;

use super::{
    BYTES_MAX, Format, Lock, Room, With, each, exactly, graph::Graph, integrity, yarn::split_name,
};
use crate::{File, Malformed, malformed};

pub(crate) static FORMAT: Format = Format {
    name: "bun-lock",
    version: 1,
    is_named: |name| name == "bun.lock",
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Npm, found, read),
};

/// Folders in folders that are gone through to find what a package means by a name.
const DEPTH_MAX: usize = 64;

/// Bytes of a package's place.
const PLACE_BYTES_MAX: usize = 4096;

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    workspaces: BTreeMap<String, Needs>,
    /// By place: `name`, or `name/name` of one in another's folder. What stands there is a list:
    /// `name@version`, registry, needs, integrity; of some kinds without one of these.
    #[serde(default)]
    packages: BTreeMap<String, Vec<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Needs {
    dependencies: BTreeMap<String, Value>,
    dev_dependencies: BTreeMap<String, Value>,
    optional_dependencies: BTreeMap<String, Value>,
    peer_dependencies: BTreeMap<String, Value>,
}

/// A package as read.
struct Entry {
    name: String,
    version: String,
    integrity: Option<String>,
    needs: Needs,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let text = file.text(BYTES_MAX)?;
    let document: Document = serde_json::from_str(&plain_json(&text))
        .map_err(|error| malformed(format!("it is no lock file: {error}")))?;
    let mut entries = BTreeMap::new();
    for (place, fields) in document.packages {
        if place.len() > PLACE_BYTES_MAX {
            continue;
        }
        match entry(fields) {
            Some(entry) => entries.insert(place, entry).map_or((), drop),
            None => lock.unresolved(&place),
        }
    }
    let room = Room::default();
    let mut graph = Graph::default();
    for (place, entry) in &entries {
        let from = graph.node(place);
        for needed in entry.needs.run_time() {
            if let Some((to, _)) = find(&entries, place, needed, &room) {
                let to = graph.node(to);
                graph.edge(from, to);
            }
        }
    }
    for workspace in document.workspaces.values() {
        let dev = workspace.dev_dependencies.keys().map(|name| (name, true));
        for (name, dev) in workspace.run_time().map(|name| (name, false)).chain(dev) {
            if let Some((to, _)) = find(&entries, "", name, &room) {
                let to = graph.node(to);
                graph.root(to, dev);
            }
        }
    }
    let development = graph.development();
    for (place, entry) in &entries {
        // The project's own parts.
        if entry.version.starts_with("workspace:") {
            continue;
        }
        let node = graph.node(place);
        let needs = entry.needs.run_time();
        let needs = needs.filter_map(|needed| find(&entries, place, needed, &room));
        let needs = needs.map(|(_, entry)| exactly(&entry.name, &entry.version));
        let package = FoundPackage {
            digests: entry
                .integrity
                .as_deref()
                .and_then(integrity)
                .into_iter()
                .collect(),
            depends_on: needs.collect(),
            direct: Some(graph.is_direct(node)),
            dev: Some(development.contains(&node)),
            ..lock.package(&entry.name, &entry.version)
        };
        lock.add(package);
    }
    room.note(lock);
    Ok(())
}

fn entry(fields: Vec<Value>) -> Option<Entry> {
    let mut fields = fields.into_iter();
    let id = fields.next()?;
    let (name, version) = split_name(id.as_str()?)?;
    let (mut needs, mut integrity) = (Needs::default(), None);
    for field in fields {
        match field {
            Value::Object(_) => needs = serde_json::from_value(field).unwrap_or_default(),
            Value::String(text) if text.starts_with("sha") => integrity = Some(text),
            _ => {}
        }
    }
    Some(Entry {
        name: name.to_owned(),
        version: version.to_owned(),
        integrity,
        needs,
    })
}

/// What a package at a place means by a name: one in its own folder, or in one above it.
fn find<'a>(
    entries: &'a BTreeMap<String, Entry>,
    place: &str,
    needed: &str,
    room: &Room,
) -> Option<(&'a String, &'a Entry)> {
    let mut directory = place;
    for _ in 0..DEPTH_MAX {
        if !room.take(directory.len().saturating_add(needed.len())) {
            return None;
        }
        if directory.is_empty() {
            return entries.get_key_value(needed);
        }
        if let Some(entry) = entries.get_key_value(&format!("{directory}/{needed}")) {
            return Some(entry);
        }
        let above = directory.rsplit_once('/').map_or("", |(above, _)| above);
        // A scope is no folder.
        let last = above.rsplit('/').next().unwrap_or(above);
        directory = if last.starts_with('@') {
            above
                .strip_suffix(last)
                .unwrap_or(above)
                .trim_end_matches('/')
        } else {
            above
        };
    }
    None
}

/// The same without comments and without commas before closing brackets.
fn plain_json(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut is_comma_due = false;
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => while chars.next_if(|c| *c != '\n').is_some() {},
            ',' => is_comma_due = true,
            c if c.is_whitespace() => {}
            c => {
                if is_comma_due && !matches!(c, ']' | '}') {
                    plain.push(',');
                }
                is_comma_due = false;
                plain.push(c);
                if c == '"' {
                    copy_string(&mut chars, &mut plain);
                }
            }
        }
    }
    plain
}

fn copy_string(chars: &mut impl Iterator<Item = char>, plain: &mut String) {
    while let Some(c) = chars.next() {
        plain.push(c);
        match c {
            '"' => return,
            '\\' => plain.extend(chars.next()),
            _ => {}
        }
    }
}

// === impl Needs ===

impl Needs {
    fn run_time(&self) -> impl Iterator<Item = &String> {
        let names = self
            .dependencies
            .keys()
            .chain(self.optional_dependencies.keys());
        names.chain(self.peer_dependencies.keys())
    }
}
