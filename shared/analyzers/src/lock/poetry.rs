//! `poetry.lock`: TOML, a list of packages.

use std::collections::{BTreeMap, HashMap};

use model::{FoundPackage, PackageType};
use serde::Deserialize;
use toml::Value;

use super::{Format, Lock, With, each, exactly, toml};
use crate::{File, Malformed};

pub(crate) static FORMAT: Format = Format {
    name: "poetry-lock",
    version: 1,
    is_named: |name| name == "poetry.lock",
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Pypi, found, read),
};

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    package: Vec<Entry>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    /// Where they stood before the packages had files of their own.
    #[serde(default)]
    files: BTreeMap<String, Vec<Hashed>>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    #[serde(default)]
    version: String,
    /// Until Poetry 1.5: `main` or `dev`.
    category: Option<String>,
    /// Since Poetry 2.
    groups: Option<Vec<String>>,
    #[serde(default)]
    dependencies: BTreeMap<String, Value>,
    #[serde(default)]
    files: Vec<Hashed>,
    source: Option<Source>,
}

#[derive(Deserialize)]
struct Hashed {
    hash: String,
}

#[derive(Deserialize)]
struct Source {
    #[serde(rename = "type")]
    kind: Option<String>,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let mut document: Document = toml(file)?;
    let mut files = std::mem::take(&mut document.metadata.files);
    let names = document
        .package
        .iter()
        .map(|entry| (entry.name.as_str(), entry));
    let names: HashMap<&str, &Entry> = names.collect();
    for entry in document.package.iter().filter(|entry| !entry.is_own()) {
        let needs = entry
            .dependencies
            .keys()
            .filter_map(|name| names.get(name.as_str()));
        let old = files.remove(&entry.name).unwrap_or_default();
        let category = entry.category.as_deref().map(|category| category == "dev");
        let groups = entry.groups.as_ref();
        let groups = groups.map(|groups| !groups.iter().any(|group| group == "main"));
        lock.add(FoundPackage {
            depends_on: needs.map(|of| exactly(&of.name, &of.version)).collect(),
            digests: entry
                .files
                .iter()
                .chain(&old)
                .map(|of| of.hash.clone())
                .collect(),
            dev: groups.or(category),
            ..lock.package(&entry.name, &entry.version)
        });
    }
    Ok(())
}

impl Entry {
    /// Whether it is a directory of the project itself.
    fn is_own(&self) -> bool {
        let kind = self
            .source
            .as_ref()
            .and_then(|source| source.kind.as_deref());
        kind == Some("directory")
    }
}
