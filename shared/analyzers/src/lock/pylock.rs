//! `pylock.toml` and `pylock.NAME.toml` (Python packaging, "`pylock.toml` specification").

use std::collections::{BTreeMap, HashMap};

use model::{FoundPackage, PackageType};
use serde::Deserialize;

use super::{Format, Lock, With, each, exactly, toml};
use crate::{File, Malformed};

pub(crate) static FORMAT: Format = Format {
    name: "pylock",
    version: 1,
    is_named: |name| {
        name == "pylock.toml" || name.starts_with("pylock.") && name.strip_suffix(".toml").is_some()
    },
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Pypi, found, read),
};

#[derive(Deserialize)]
struct Document {
    packages: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    /// Of what is built from sources there need be none.
    #[serde(default)]
    version: String,
    #[serde(default)]
    dependencies: Vec<Needed>,
    /// Of what stands in the project.
    directory: Option<toml::Value>,
    sdist: Option<Hashed>,
    archive: Option<Hashed>,
    #[serde(default)]
    wheels: Vec<Hashed>,
}

#[derive(Deserialize)]
struct Needed {
    name: Option<String>,
    version: Option<String>,
}

#[derive(Deserialize)]
struct Hashed {
    #[serde(default)]
    hashes: BTreeMap<String, String>,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let document: Document = toml(file)?;
    let mut names: HashMap<&str, &str> = HashMap::new();
    for entry in &document.packages {
        names.entry(&entry.name).or_insert(&entry.version);
    }
    for entry in document
        .packages
        .iter()
        .filter(|entry| entry.directory.is_none())
    {
        let needs = entry.dependencies.iter().filter_map(|needed| {
            let name = needed.name.as_deref()?;
            let version = needed.version.as_deref();
            Some(exactly(name, version.or_else(|| names.get(name).copied())?))
        });
        let hashed = entry
            .sdist
            .iter()
            .chain(&entry.archive)
            .chain(&entry.wheels);
        let digests = hashed.flat_map(|of| &of.hashes);
        lock.add(FoundPackage {
            depends_on: needs.collect(),
            digests: digests
                .map(|(algorithm, value)| format!("{algorithm}:{value}"))
                .collect(),
            ..lock.package(&entry.name, &entry.version)
        });
    }
    Ok(())
}
