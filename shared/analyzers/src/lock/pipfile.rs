//! `Pipfile.lock` of Pipenv: JSON, packages in groups.

use std::collections::BTreeMap;

use model::{FoundPackage, PackageType};
use serde::Deserialize;
use serde_json::Value;

use super::{Format, Lock, With, each, json};
use crate::{File, Malformed, malformed};

pub(crate) static FORMAT: Format = Format {
    name: "pipfile-lock",
    version: 1,
    is_named: |name| name == "Pipfile.lock",
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Pypi, found, read),
};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// `==1.0`; of what comes from elsewhere than an index there is none.
    version: String,
    hashes: Vec<String>,
    /// Of what stands in the project.
    path: Option<String>,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let document: BTreeMap<String, Value> = json(file)?;
    if !document.contains_key("_meta") {
        return Err(malformed("it is no lock file of Pipenv"));
    }
    // `default`, `develop`, and categories that a project names as it likes.
    for (group, packages) in document {
        if group == "_meta" {
            continue;
        }
        let packages: BTreeMap<String, Entry> = serde_json::from_value(packages)
            .map_err(|error| malformed(format!("`{group}` is no list of packages: {error}")))?;
        for (name, entry) in packages
            .into_iter()
            .filter(|(_, entry)| entry.path.is_none())
        {
            let package = FoundPackage {
                digests: entry.hashes,
                dev: Some(group == "develop"),
                ..lock.package(&name, entry.version.trim_start_matches('='))
            };
            lock.add(package);
        }
    }
    Ok(())
}
