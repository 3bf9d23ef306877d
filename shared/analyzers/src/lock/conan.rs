//! `conan.lock`: of Conan 1 a graph, of Conan 2 lists of references `name/version@user/channel#…`.

use std::collections::{BTreeMap, HashSet};

use model::{FoundPackage, PackageType};
use serde::Deserialize;

use super::{Format, Lock, With, each, exactly, json};
use crate::{File, Malformed, malformed};

pub(crate) static FORMAT: Format = Format {
    name: "conan-lock",
    version: 1,
    is_named: |name| name == "conan.lock",
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Conan, found, read),
};

#[derive(Deserialize)]
struct Document {
    graph_lock: Option<Graph>,
    requires: Option<Vec<String>>,
    #[serde(default)]
    build_requires: Vec<String>,
    #[serde(default)]
    python_requires: Vec<String>,
}

#[derive(Deserialize)]
struct Graph {
    nodes: BTreeMap<String, Node>,
}

#[derive(Deserialize)]
struct Node {
    #[serde(rename = "ref", default)]
    reference: String,
    /// Of the project itself.
    path: Option<String>,
    #[serde(default)]
    requires: Vec<String>,
    #[serde(default)]
    build_requires: Vec<String>,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let document: Document = json(file)?;
    if let Some(graph) = &document.graph_lock {
        read_graph(graph, lock);
        return Ok(());
    }
    let Some(requires) = &document.requires else {
        return Err(malformed("it is no lock file of Conan"));
    };
    let run_time = requires.iter().map(|text| (text, false));
    let build = document
        .build_requires
        .iter()
        .chain(&document.python_requires);
    for (text, dev) in run_time.chain(build.map(|text| (text, true))) {
        let Some((name, version)) = name_version(text) else {
            lock.unresolved(text);
            continue;
        };
        lock.add(FoundPackage {
            dev: Some(dev),
            ..lock.package(name, version)
        });
    }
    Ok(())
}

fn read_graph(graph: &Graph, lock: &mut Lock) {
    let own = graph.nodes.values().filter(|node| node.is_own());
    let own = own.flat_map(|node| node.requires.iter().chain(&node.build_requires));
    let direct: HashSet<&String> = own.collect();
    let builds = graph.nodes.values().flat_map(|node| &node.build_requires);
    let builds: HashSet<&String> = builds.collect();
    for (id, node) in graph.nodes.iter().filter(|(_, node)| !node.is_own()) {
        let Some((name, version)) = name_version(&node.reference) else {
            lock.unresolved(&node.reference);
            continue;
        };
        let needs = node.requires.iter().filter_map(|id| {
            let (name, version) = name_version(&graph.nodes.get(id)?.reference)?;
            Some(exactly(name, version))
        });
        lock.add(FoundPackage {
            depends_on: needs.collect(),
            direct: Some(direct.contains(id)),
            dev: Some(builds.contains(id)),
            ..lock.package(name, version)
        });
    }
}

/// Name and version of a reference; what follows says where it comes from.
fn name_version(reference: &str) -> Option<(&str, &str)> {
    let (name, rest) = reference.split_once('/')?;
    let version = rest.split(['@', '#', ':', '%']).next()?;
    (!name.is_empty() && !version.is_empty()).then_some((name, version))
}

impl Node {
    /// Whether it is the project itself.
    fn is_own(&self) -> bool {
        self.reference.is_empty() || self.path.is_some()
    }
}
