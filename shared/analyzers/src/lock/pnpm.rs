//! `pnpm-lock.yaml`, of versions 5 to 9 (pnpm/spec, "lockfile").

use std::collections::BTreeMap;

use model::{FoundPackage, PackageType};
use serde::Deserialize;

use super::{
    BYTES_MAX, Format, Lock, With, each, exactly, graph::Graph, integrity, yaml, yarn::split_name,
};
use crate::{File, Malformed, malformed};

pub(crate) static FORMAT: Format = Format {
    name: "pnpm-lock",
    version: 1,
    is_named: |name| name == "pnpm-lock.yaml",
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Npm, found, read),
};

/// A file whose projects say what they ask for as `D`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound = "D: Deserialize<'de>")]
struct Document<D> {
    #[serde(default)]
    importers: BTreeMap<String, Importer<D>>,
    // Of the only project, where there are no importers. Not flattened: what serde keeps aside for
    // that has forgotten whether `1.10` was a number.
    dependencies: Option<BTreeMap<String, D>>,
    dev_dependencies: Option<BTreeMap<String, D>>,
    optional_dependencies: Option<BTreeMap<String, D>>,
    #[serde(default)]
    packages: BTreeMap<String, Entry>,
    /// Since version 9: what needs what.
    #[serde(default)]
    snapshots: BTreeMap<String, Snapshot>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound = "D: Deserialize<'de>")]
struct Importer<D> {
    dependencies: Option<BTreeMap<String, D>>,
    dev_dependencies: Option<BTreeMap<String, D>>,
    optional_dependencies: Option<BTreeMap<String, D>>,
}

/// What a project asks for, since version 6.
#[derive(Deserialize)]
struct Asked {
    version: String,
}

/// What it was before.
#[derive(Deserialize)]
#[serde(transparent)]
struct AskedPlainly(String);

trait Version {
    fn version(&self) -> &str;
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    resolution: Resolution,
    /// Where the key does not say them: of what is no registry's.
    name: Option<String>,
    version: Option<String>,
    dev: Option<bool>,
    #[serde(default)]
    dependencies: BTreeMap<String, String>,
    #[serde(default)]
    optional_dependencies: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Resolution {
    integrity: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Snapshot {
    dependencies: BTreeMap<String, String>,
    optional_dependencies: BTreeMap<String, String>,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let text = file.text(BYTES_MAX)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("lockfileVersion:"));
    let version = line.ok_or_else(|| malformed("it does not say its version"))?;
    let version = version.trim().trim_matches(['\'', '"']);
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    match major {
        Some(0..=5) => list(&yaml::<Document<AskedPlainly>>(&text)?, true, lock),
        Some(6_u32..) => list(&yaml::<Document<Asked>>(&text)?, false, lock),
        None => return Err(malformed(format!("its version is `{version}`"))),
    }
    Ok(())
}

fn list<D: Version>(document: &Document<D>, is_old: bool, lock: &mut Lock) {
    let keys = Keys {
        packages: &document.packages,
        snapshots: &document.snapshots,
        is_old,
    };
    let mut graph = Graph::default();
    let mut needs = keys.needs(&mut graph);
    for (lists, dev) in document.asked() {
        for (name, asked) in lists {
            if let Some(id) = keys.resolve(name, asked.version()) {
                let node = graph.node(&id);
                graph.root(node, dev);
            }
        }
    }
    let development = graph.development();
    for (key, entry) in &document.packages {
        let Some((name, version)) = keys.name_version(key) else {
            lock.unresolved(key);
            continue;
        };
        let id = exactly(name, version);
        let node = graph.node(&id);
        let integrity = entry.resolution.integrity.as_deref().and_then(integrity);
        lock.add(FoundPackage {
            digests: integrity.into_iter().collect(),
            depends_on: needs.remove(&id).unwrap_or_default(),
            direct: Some(graph.is_direct(node)),
            dev: Some(entry.dev.unwrap_or_else(|| development.contains(&node))),
            ..lock.package(name, version)
        });
    }
}

/// What the keys of a document mean. Since version 9 a package stands once in `packages` and, with
/// each set of peers, in `snapshots`; all of those are one here.
struct Keys<'a> {
    packages: &'a BTreeMap<String, Entry>,
    snapshots: &'a BTreeMap<String, Snapshot>,
    is_old: bool,
}

impl<'a> Keys<'a> {
    fn name_version(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let (name, version) = name_version(key, self.is_old)?;
        let of_package = || self.packages.get(plain(key));
        let entry = self.packages.get(key).or_else(of_package);
        let own_name = entry.and_then(|entry| entry.name.as_deref());
        let own_version = entry.and_then(|entry| entry.version.as_deref());
        Some((own_name.unwrap_or(name), own_version.unwrap_or(version)))
    }

    /// What a package or a project means by a name and a version.
    fn resolve(&self, name: &str, version: &str) -> Option<String> {
        let keys = [
            version.to_owned(),
            format!("{name}@{version}"),
            format!("/{name}@{version}"),
            format!("/{name}/{version}"),
        ];
        keys.iter().find_map(|key| {
            let package = self.packages.get_key_value(key).map(|(key, _)| key);
            let snapshot = || Some(self.snapshots.get_key_value(key)?.0);
            let (name, version) = self.name_version(package.or_else(snapshot)?)?;
            Some(exactly(name, version))
        })
    }

    /// What each needs.
    fn needs(&self, graph: &mut Graph) -> BTreeMap<String, Vec<String>> {
        let packages = self.packages.iter();
        let packages = packages.map(|(key, of)| (key, &of.dependencies, &of.optional_dependencies));
        let snapshots = self.snapshots.iter();
        let snapshots =
            snapshots.map(|(key, of)| (key, &of.dependencies, &of.optional_dependencies));
        let mut needs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, needed, optional) in packages.chain(snapshots) {
            let Some((name, version)) = self.name_version(key) else {
                continue;
            };
            let from = exactly(name, version);
            let node = graph.node(&from);
            for (name, version) in needed.iter().chain(optional) {
                let Some(to) = self.resolve(name, version) else {
                    continue;
                };
                let number = graph.node(&to);
                graph.edge(node, number);
                needs.entry(from.clone()).or_default().push(to);
            }
        }
        needs
    }
}

impl<D> Document<D> {
    /// What the projects ask for, and whether for development only.
    fn asked(&self) -> impl Iterator<Item = (impl Iterator<Item = (&String, &D)>, bool)> {
        let projects = self.importers.values().map(|project| {
            [
                (&project.dependencies, false),
                (&project.optional_dependencies, false),
                (&project.dev_dependencies, true),
            ]
        });
        let only = [
            (&self.dependencies, false),
            (&self.optional_dependencies, false),
            (&self.dev_dependencies, true),
        ];
        let all = projects.chain([only]).flatten();
        all.map(|(list, dev)| (list.iter().flatten(), dev))
    }
}

/// A key without the peers that the package was installed beside: `name@1.0.0(peer@2.0.0)`.
fn plain(key: &str) -> &str {
    key.split_once('(').map_or(key, |(plain, _)| plain)
}

/// Before version 6: `/name/1.0.0_peer@2.0.0`; then `/name@1.0.0`, and without the slash since 9.
fn name_version(key: &str, is_old: bool) -> Option<(&str, &str)> {
    let key = plain(key);
    if !is_old {
        return split_name(key.strip_prefix('/').unwrap_or(key));
    }
    let key = key.strip_prefix('/').unwrap_or(key);
    let slashes = usize::from(key.starts_with('@'));
    let (at, _) = key.match_indices('/').nth(slashes)?;
    let (name, version) = key.split_at_checked(at)?;
    let version = version.strip_prefix('/')?;
    Some((name, version.split('_').next().unwrap_or(version)))
}

impl Version for Asked {
    fn version(&self) -> &str {
        &self.version
    }
}

impl Version for AskedPlainly {
    fn version(&self) -> &str {
        &self.0
    }
}
