//! `uv.lock`: TOML, a list of packages with those of the project itself among them.

use std::collections::{BTreeMap, HashMap};

use model::{FoundPackage, PackageType};
use serde::Deserialize;

use super::{Format, Lock, With, each, exactly, graph::Graph, toml};
use crate::{File, Malformed};

pub(crate) static FORMAT: Format = Format {
    name: "uv-lock",
    version: 1,
    is_named: |name| name == "uv.lock",
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Pypi, found, read),
};

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    package: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    source: BTreeMap<String, toml::Value>,
    #[serde(default)]
    dependencies: Vec<Needed>,
    #[serde(default)]
    optional_dependencies: BTreeMap<String, Vec<Needed>>,
    #[serde(default)]
    dev_dependencies: BTreeMap<String, Vec<Needed>>,
    sdist: Option<Hashed>,
    #[serde(default)]
    wheels: Vec<Hashed>,
}

#[derive(Deserialize)]
struct Needed {
    name: String,
    /// Where there are several of this name.
    version: Option<String>,
}

#[derive(Deserialize)]
struct Hashed {
    hash: Option<String>,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let document: Document = toml(file)?;
    let mut first: HashMap<&str, &Entry> = HashMap::new();
    for entry in &document.package {
        first.entry(&entry.name).or_insert(entry);
    }
    let key = |needed: &Needed| {
        let version = needed.version.as_deref();
        let version = version.or_else(|| Some(first.get(needed.name.as_str())?.version.as_str()));
        Some(exactly(&needed.name, version?))
    };
    let mut graph = Graph::default();
    for entry in &document.package {
        let from = graph.node(&exactly(&entry.name, &entry.version));
        let optional = entry.optional_dependencies.values().flatten();
        for to in entry.dependencies.iter().chain(optional).filter_map(key) {
            let to = graph.node(&to);
            graph.edge(from, to);
            if entry.is_own() {
                graph.root(to, false);
            }
        }
        for to in entry.dev_dependencies.values().flatten().filter_map(key) {
            let to = graph.node(&to);
            graph.root(to, true);
        }
    }
    let development = graph.development();
    for entry in document.package.iter().filter(|entry| !entry.is_own()) {
        let node = graph.node(&exactly(&entry.name, &entry.version));
        let hashed = entry.sdist.iter().chain(&entry.wheels);
        lock.add(FoundPackage {
            depends_on: entry.dependencies.iter().filter_map(key).collect(),
            digests: hashed.filter_map(|of| of.hash.clone()).collect(),
            direct: Some(graph.is_direct(node)),
            dev: Some(development.contains(&node)),
            ..lock.package(&entry.name, &entry.version)
        });
    }
    Ok(())
}

impl Entry {
    /// Whether it is the project, or a directory of it.
    fn is_own(&self) -> bool {
        let kinds = ["virtual", "editable", "directory"];
        kinds.iter().any(|kind| self.source.contains_key(*kind))
    }
}
