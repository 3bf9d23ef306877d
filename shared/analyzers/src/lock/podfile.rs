//! `Podfile.lock` of `CocoaPods`: YAML, a list of pods. A part of a pod, `Pod/Part`, is that pod.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use model::{FoundPackage, PackageType};
use serde::Deserialize;

use super::{BYTES_MAX, Format, Lock, With, each, exactly, yaml};
use crate::{File, Malformed};

pub(crate) static FORMAT: Format = Format {
    name: "podfile-lock",
    version: 1,
    is_named: |name| name == "Podfile.lock",
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Cocoapods, found, read),
};

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "PODS", default)]
    pods: Vec<Pod>,
    #[serde(rename = "DEPENDENCIES", default)]
    dependencies: Vec<String>,
    #[serde(rename = "SPEC CHECKSUMS", default)]
    checksums: BTreeMap<String, String>,
}

/// `Name (1.0)`, alone or with what it needs.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pod {
    Alone(String),
    Needing(BTreeMap<String, Vec<String>>),
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let document: Document = yaml(&file.text(BYTES_MAX)?)?;
    let mut versions: HashMap<&str, &str> = HashMap::new();
    let mut needs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for pod in &document.pods {
        let (pods, needed): (Vec<&String>, &[String]) = match pod {
            Pod::Alone(text) => (vec![text], &[]),
            Pod::Needing(map) => (
                map.keys().collect(),
                map.values().next().map_or(&[], |of| of),
            ),
        };
        for text in pods {
            let (name, version) = text.split_once(" (").unwrap_or((text, ""));
            versions.insert(root(name), version.trim_end_matches(')'));
            let of_pod = needs.entry(root(name)).or_default();
            of_pod.extend(needed.iter().map(|needed| root(needed)));
        }
    }
    let direct: HashSet<&str> = document
        .dependencies
        .iter()
        .map(|text| root(text))
        .collect();
    for (name, needed) in needs {
        let version = versions.get(name).copied().unwrap_or_default();
        let needed = needed.into_iter().filter(|needed| *needed != name);
        let needed = needed.filter_map(|needed| Some(exactly(needed, versions.get(needed)?)));
        let checksum = document.checksums.get(name);
        lock.add(FoundPackage {
            depends_on: needed.collect(),
            digests: checksum
                .map(|text| format!("sha1:{text}"))
                .into_iter()
                .collect(),
            direct: Some(direct.contains(name)),
            ..lock.package(name, version)
        });
    }
    Ok(())
}

/// The pod in `Pod/Part (~> 1.0)`.
fn root(text: &str) -> &str {
    text.split([' ', '/']).next().unwrap_or(text)
}
