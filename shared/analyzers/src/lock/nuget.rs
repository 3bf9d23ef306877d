//! `NuGet`'s `packages.lock.json`: packages by target framework.

use std::collections::{BTreeMap, HashMap};

use model::{FoundPackage, PackageType};
use serde::Deserialize;

use super::{Format, Lock, With, base64, each, exactly, json};
use crate::{File, Malformed};

pub(crate) static FORMAT: Format = Format {
    name: "nuget-lock",
    version: 1,
    is_named: |name| {
        name == "packages.lock.json"
            || name.starts_with("packages.") && name.ends_with(".lock.json")
    },
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Nuget, found, read),
};

#[derive(Deserialize)]
struct Document {
    dependencies: BTreeMap<String, BTreeMap<String, Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    resolved: String,
    /// The base64 of a SHA-512.
    content_hash: Option<String>,
    #[serde(default)]
    dependencies: BTreeMap<String, String>,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let document: Document = json(file)?;
    for packages in document.dependencies.into_values() {
        let lower = packages.iter();
        let lower = lower.map(|(name, entry)| (name.to_ascii_lowercase(), (name, entry)));
        let by_name: HashMap<String, (&String, &Entry)> = lower.collect();
        for (name, entry) in packages.iter().filter(|(_, entry)| entry.kind != "Project") {
            let needs = entry.dependencies.keys().filter_map(|needed| {
                let (name, entry) = by_name.get(&needed.to_ascii_lowercase())?;
                (!entry.resolved.is_empty()).then(|| exactly(name, &entry.resolved))
            });
            let digest = entry.content_hash.as_deref().and_then(base64);
            let digest = digest.map(|bytes| format!("sha512:{}", model::hex(&bytes)));
            lock.add(FoundPackage {
                depends_on: needs.collect(),
                digests: digest.into_iter().collect(),
                direct: Some(entry.kind == "Direct"),
                ..lock.package(name, &entry.resolved)
            });
        }
    }
    Ok(())
}
