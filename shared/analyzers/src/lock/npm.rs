//! npm's `package-lock.json`, of versions 1 to 3 (docs.npmjs.com, "package-lock.json").

use std::collections::{BTreeMap, BTreeSet};

use model::{FoundPackage, PackageType};
use serde::Deserialize;
use serde_json::Value;

use super::{Format, Lock, Room, With, each, exactly, integrity, json};
use crate::{File, Malformed};

pub(crate) static FORMAT: Format = Format {
    name: "package-lock",
    version: 1,
    is_named: |name| matches!(name, "package-lock.json" | "npm-shrinkwrap.json"),
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Npm, found, read),
};

/// Folders in folders that are gone through to find what a package means by a name.
const DEPTH_MAX: usize = 64;

/// Bytes of a package's place; the file system allows no more.
const PLACE_BYTES_MAX: usize = 4096;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    /// Of versions 2 and 3: by place.
    packages: Option<BTreeMap<String, Entry>>,
    /// Of version 1: by name, each with those in its own folder.
    #[serde(default)]
    dependencies: BTreeMap<String, Old>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    name: Option<String>,
    version: Option<String>,
    integrity: Option<String>,
    license: Option<Value>,
    dev: bool,
    link: bool,
    dependencies: BTreeMap<String, Value>,
    dev_dependencies: BTreeMap<String, Value>,
    optional_dependencies: BTreeMap<String, Value>,
    peer_dependencies: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Old {
    version: String,
    integrity: Option<String>,
    dev: bool,
    /// A list by name, or `true`.
    requires: Value,
    dependencies: BTreeMap<String, Old>,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let document: Document = json(file)?;
    let is_old = document.packages.is_none();
    let entries = document.packages.unwrap_or_else(|| {
        let mut entries = BTreeMap::new();
        flatten("", document.dependencies, &mut entries);
        entries
    });
    let room = Room::default();
    let direct = direct(&entries, &room);
    for (place, entry) in &entries {
        let Some(name) = name(place, entry).filter(|_| !entry.link) else {
            continue;
        };
        let Some(version) = &entry.version else {
            lock.unresolved(name);
            continue;
        };
        let needs = entry
            .dependencies
            .keys()
            .chain(entry.optional_dependencies.keys());
        let needs = needs.chain(entry.peer_dependencies.keys());
        let needs = needs.filter_map(|needed| resolve(&entries, place, needed, &room));
        let package = FoundPackage {
            digests: entry
                .integrity
                .as_deref()
                .and_then(integrity)
                .into_iter()
                .collect(),
            licenses: license(entry),
            depends_on: needs
                .map(|(name, version)| exactly(name, version))
                .collect(),
            // Version 1 does not say what the project itself asks for.
            direct: (!is_old).then(|| direct.contains(place.as_str())),
            dev: Some(entry.dev),
            ..lock.package(name, version)
        };
        lock.add(package);
    }
    room.note(lock);
    Ok(())
}

/// Version 1 in the shape of its successors. JSON is not nested deeper than its reader allows.
fn flatten(above: &str, packages: BTreeMap<String, Old>, entries: &mut BTreeMap<String, Entry>) {
    for (key, package) in packages {
        let place = if above.is_empty() {
            format!("node_modules/{key}")
        } else {
            format!("{above}/node_modules/{key}")
        };
        if place.len() > PLACE_BYTES_MAX {
            continue;
        }
        flatten(&place, package.dependencies, entries);
        let (mut name, mut version) = (None, package.version);
        if let Some(alias) = version.strip_prefix("npm:") {
            let (real, of_it) = super::yarn::split_name(alias).unwrap_or((alias, ""));
            (name, version) = (Some(real.to_owned()), of_it.to_owned());
        }
        let requires = match package.requires {
            Value::Object(requires) => requires.into_iter().collect(),
            _ => BTreeMap::new(),
        };
        let entry = Entry {
            // A directory beside this one is no package.
            link: version.starts_with("file:"),
            name,
            version: Some(version),
            integrity: package.integrity,
            dev: package.dev,
            dependencies: requires,
            ..Entry::default()
        };
        entries.insert(place, entry);
    }
}

/// The name of an installed package; `None` for the project and its workspaces.
fn name<'a>(place: &'a str, entry: &'a Entry) -> Option<&'a str> {
    let (_, folder) = place.rsplit_once("node_modules/")?;
    Some(entry.name.as_deref().unwrap_or(folder))
}

fn license(entry: &Entry) -> Vec<String> {
    let license = entry.license.as_ref().and_then(Value::as_str);
    license.map(ToOwned::to_owned).into_iter().collect()
}

/// Places of what the project and its workspaces ask for.
fn direct<'a>(entries: &'a BTreeMap<String, Entry>, room: &Room) -> BTreeSet<&'a str> {
    let own = entries
        .iter()
        .filter(|(place, _)| !place.contains("node_modules/"));
    let mut places = BTreeSet::new();
    for (place, entry) in own {
        let asked = [
            &entry.dependencies,
            &entry.dev_dependencies,
            &entry.optional_dependencies,
            &entry.peer_dependencies,
        ];
        for name in asked.into_iter().flat_map(BTreeMap::keys) {
            places.extend(find(entries, place, name, room).map(|(place, _)| place.as_str()));
        }
    }
    places
}

/// Name and version of what a package at a place means by a name.
fn resolve<'a>(
    entries: &'a BTreeMap<String, Entry>,
    place: &str,
    needed: &str,
    room: &Room,
) -> Option<(&'a str, &'a str)> {
    let (at, entry) = find(entries, place, needed, room)?;
    Some((name(at, entry)?, entry.version.as_deref()?))
}

/// Where Node.js would find it: in the package's own folder, or in one above it.
fn find<'a>(
    entries: &'a BTreeMap<String, Entry>,
    place: &str,
    needed: &str,
    room: &Room,
) -> Option<(&'a String, &'a Entry)> {
    let mut directory = place;
    if place.len() > PLACE_BYTES_MAX || needed.len() > PLACE_BYTES_MAX {
        return None;
    }
    for _ in 0..DEPTH_MAX {
        let key = if directory.is_empty() {
            format!("node_modules/{needed}")
        } else {
            format!("{directory}/node_modules/{needed}")
        };
        if !room.take(key.len()) {
            return None;
        }
        if let Some(entry) = entries.get_key_value(&key) {
            return Some(entry);
        }
        if directory.is_empty() {
            return None;
        }
        // Out of the package's own folder, or of the workspace's directory.
        let above = directory
            .rsplit_once("node_modules/")
            .map_or("", |(above, _)| above);
        directory = above.trim_end_matches('/');
    }
    None
}
