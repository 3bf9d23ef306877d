//! `composer.lock`: JSON, two lists of packages.

use std::collections::{BTreeMap, HashMap};

use model::{FoundPackage, PackageType};
use serde::Deserialize;
use serde_json::Value;

use super::{Format, Lock, With, each, exactly, json};
use crate::{File, Malformed};

pub(crate) static FORMAT: Format = Format {
    name: "composer-lock",
    version: 1,
    is_named: |name| name == "composer.lock",
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Composer, found, read),
};

#[derive(Deserialize)]
struct Document {
    packages: Vec<Entry>,
    #[serde(default, rename = "packages-dev")]
    development: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    license: Value,
    #[serde(default)]
    require: Value,
    dist: Option<Dist>,
}

#[derive(Deserialize)]
struct Dist {
    /// Of the archive; often empty.
    shasum: Option<String>,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let document: Document = json(file)?;
    let development = document.development.unwrap_or_default();
    let run_time = document.packages.iter().map(|entry| (entry, false));
    let all = run_time.chain(development.iter().map(|entry| (entry, true)));
    let all: Vec<(&Entry, bool)> = all.collect();
    let versions = all
        .iter()
        .map(|(entry, _)| (entry.name.as_str(), entry.version.as_str()));
    let versions: HashMap<&str, &str> = versions.collect();
    for (entry, dev) in all {
        let required: BTreeMap<&String, &Value> =
            entry.require.as_object().into_iter().flatten().collect();
        let needs = required.into_keys().filter_map(|name| {
            let version = versions.get(name.as_str())?;
            Some(exactly(name, version))
        });
        let shasum = entry.dist.as_ref().and_then(|dist| dist.shasum.as_deref());
        let shasum = shasum.filter(|text| !text.is_empty());
        lock.add(FoundPackage {
            licenses: crate::composer::licenses(&entry.license),
            depends_on: needs.collect(),
            digests: shasum
                .map(|text| format!("sha1:{text}"))
                .into_iter()
                .collect(),
            dev: Some(dev),
            ..lock.package(&entry.name, &entry.version)
        });
    }
    Ok(())
}
