//! `pubspec.lock` of Dart and Flutter: YAML, packages by name.

use std::collections::BTreeMap;

use model::{FoundPackage, PackageType};
use serde::Deserialize;
use serde_json::Value;

use super::{BYTES_MAX, Format, Lock, With, each, yaml};
use crate::{File, Malformed};

pub(crate) static FORMAT: Format = Format {
    name: "pubspec-lock",
    version: 1,
    is_named: |name| name == "pubspec.lock",
    with: With::Nothing,
    read: |files, found| each(files, PackageType::Pub, found, read),
};

#[derive(Deserialize)]
struct Document {
    packages: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    /// `direct main`, `direct dev`, `direct overridden` or `transitive`.
    dependency: String,
    /// Of a hosted one: with the archive's `sha256`.
    #[serde(default)]
    description: Value,
    /// `hosted`, `git`, `path` or `sdk`.
    source: String,
    version: String,
}

fn read(file: &File, lock: &mut Lock) -> Result<(), Malformed> {
    let document: Document = yaml(&file.text(BYTES_MAX)?)?;
    for (name, entry) in document.packages {
        // Directories of the project, and what has the version of Flutter itself.
        if matches!(entry.source.as_str(), "path" | "sdk") {
            continue;
        }
        let sha256 = entry.description.get("sha256").and_then(Value::as_str);
        let sha256 = sha256.filter(|text| !text.is_empty());
        let package = FoundPackage {
            digests: sha256
                .map(|text| format!("sha256:{text}"))
                .into_iter()
                .collect(),
            direct: Some(entry.dependency.starts_with("direct")),
            // What only others need may be needed by both.
            dev: match entry.dependency.as_str() {
                "direct dev" => Some(true),
                "direct main" => Some(false),
                _ => None,
            },
            ..lock.package(&name, &entry.version)
        };
        lock.add(package);
    }
    Ok(())
}
