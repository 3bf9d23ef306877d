//! `pdm.lock`: TOML, a list of packages with the groups that need them.

use std::collections::HashMap;

use model::{FoundPackage, PackageType};
use serde::Deserialize;

use super::{Format, Lock, With, each, exactly, toml};
use crate::{File, Malformed};

pub(crate) static FORMAT: Format = Format {
    name: "pdm-lock",
    version: 1,
    is_named: |name| name == "pdm.lock",
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Pypi, found, read),
};

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    package: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    #[serde(default)]
    version: String,
    /// `default`, `dev`, and what a project names as it likes.
    groups: Option<Vec<String>>,
    /// As in metadata: `name[extra]>=1.0; marker`.
    #[serde(default)]
    dependencies: Vec<String>,
    #[serde(default)]
    files: Vec<Hashed>,
    /// Of what stands in the project.
    path: Option<String>,
}

#[derive(Deserialize)]
struct Hashed {
    hash: String,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let document: Document = toml(file)?;
    let names = document
        .package
        .iter()
        .map(|entry| (entry.name.as_str(), entry));
    let names: HashMap<&str, &Entry> = names.collect();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    for entry in document.package.iter().filter(|entry| entry.path.is_none()) {
        let needs = entry.dependencies.iter();
        let needs = needs.filter_map(|text| text.split(|c| !is_name(c)).next());
        let needs = needs.filter_map(|name| names.get(name));
        let groups = entry.groups.as_ref();
        lock.add(FoundPackage {
            depends_on: needs.map(|of| exactly(&of.name, &of.version)).collect(),
            digests: entry.files.iter().map(|of| of.hash.clone()).collect(),
            dev: groups.map(|groups| groups.iter().all(|group| group == "dev")),
            ..lock.package(&entry.name, &entry.version)
        });
    }
    Ok(())
}
