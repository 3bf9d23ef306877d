//! `Cargo.lock`, of all its versions: TOML, a list of packages.

use std::collections::{BTreeMap, HashMap, HashSet};

use model::{FoundPackage, PackageType};
use serde::Deserialize;

use super::{Format, Lock, With, each, exactly, toml};
use crate::{File, Malformed};

pub(crate) static FORMAT: Format = Format {
    name: "cargo-lock",
    version: 1,
    is_named: |name| name == "Cargo.lock",
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Cargo, found, read),
};

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    package: Vec<Entry>,
    /// Until version 1: `checksum NAME VERSION (SOURCE)`.
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    version: String,
    /// What has none stands in the workspace.
    source: Option<String>,
    checksum: Option<String>,
    /// `name`, `name version` where there are several, `name version (source)` where that is not
    /// enough.
    #[serde(default)]
    dependencies: Vec<String>,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let document: Document = toml(file)?;
    let mut versions: HashMap<&str, &str> = HashMap::new();
    for entry in &document.package {
        versions.insert(&entry.name, &entry.version);
    }
    let needs = |entry: &Entry| -> Vec<String> {
        let needs = entry.dependencies.iter().filter_map(|text| {
            let mut words = text.split(' ');
            let name = words.next()?;
            let version = words.next().or_else(|| versions.get(name).copied())?;
            Some(exactly(name, version))
        });
        needs.collect()
    };
    let own = document
        .package
        .iter()
        .filter(|entry| entry.source.is_none());
    let direct: HashSet<String> = own.flat_map(needs).collect();
    for entry in &document.package {
        let Some(source) = &entry.source else {
            continue;
        };
        let Entry { name, version, .. } = entry;
        let old = || {
            document
                .metadata
                .get(&format!("checksum {name} {version} ({source})"))
        };
        let checksum = entry.checksum.as_ref().or_else(old);
        let checksum = checksum.filter(|text| *text != "<none>");
        lock.add(FoundPackage {
            depends_on: needs(entry),
            digests: checksum
                .map(|text| format!("sha256:{text}"))
                .into_iter()
                .collect(),
            direct: (!direct.is_empty()).then(|| direct.contains(&exactly(name, version))),
            ..lock.package(name, version)
        });
    }
    Ok(())
}
