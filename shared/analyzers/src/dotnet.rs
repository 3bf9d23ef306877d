//! .NET packages of a published application, or of a shared framework: its `NAME.deps.json`
//! (dotnet/sdk, "runtime configuration file").
//!
//! It lists all that the build resolved: what only builds, and what is a part of the framework and left
//! out for that. Of these it names no files, and they are not installed.
#![expect(
    clippy::zero_sized_map_values,
    reason = "objects of JSON of which only the keys matter"
)]

use std::collections::{BTreeMap, BTreeSet};

use archive::Entry;
use model::{FoundPackage, PackageType};
use serde::{Deserialize, de::IgnoredAny};

use crate::{File, Found, Malformed, each::EachFile, malformed};

/// A large application's has 1 MB. What is parsed takes several times as much memory.
const BYTES_MAX: u64 = 16 << 20;

/// What has its own version and comes from a package source; the rest is the application.
const KINDS: &[&str] = &["package", "runtimepack"];

/// Reads which packages an application was published with.
pub(crate) struct Dotnet;

/// By path.
type Files = BTreeMap<String, IgnoredAny>;

#[derive(Deserialize)]
struct Application {
    #[serde(default)]
    libraries: BTreeMap<String, Library>,
    /// By run time, then by package.
    #[serde(default)]
    targets: BTreeMap<String, BTreeMap<String, Target>>,
}

#[derive(Deserialize)]
struct Library {
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    #[serde(default)]
    dependencies: BTreeMap<String, String>,
    #[serde(default)]
    runtime: Files,
    #[serde(default)]
    native: Files,
    #[serde(default)]
    resources: Files,
    #[serde(default)]
    runtime_targets: Files,
}

// === impl Target ===

impl Target {
    /// Whether something of it is there; `_._` stands where there is nothing for this framework.
    fn has_files(&self) -> bool {
        let kinds = [
            &self.runtime,
            &self.native,
            &self.resources,
            &self.runtime_targets,
        ];
        let mut files = kinds.into_iter().flat_map(BTreeMap::keys);
        files.any(|file| !file.ends_with("/_._"))
    }
}

// === impl Dotnet ===

impl EachFile for Dotnet {
    const NAME: &'static str = "dotnet";
    const VERSION: u32 = 2;
    const PIECES: &'static [&'static str] = &[".deps.json/"];

    fn is_wanted(entry: &Entry<'_>, _head: &[u8]) -> bool {
        entry.path.ends_with(".deps.json")
    }

    fn read(file: &File, found: &mut Found) -> Result<(), Malformed> {
        let bytes = file.bytes(BYTES_MAX)?;
        let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let application: Application = serde_json::from_slice(json)
            .map_err(|error| malformed(format!("it is no list of packages: {error}")))?;
        let packages = application.libraries.iter();
        for (id, _) in packages.filter(|(_, of)| KINDS.contains(&of.kind.as_str())) {
            let Some((name, version)) = id.split_once('/') else {
                found.malformed(file.path(), format!("`{id}` has no version"));
                continue;
            };
            let targets = application.targets.values();
            let targets: Vec<_> = targets.filter_map(|packages| packages.get(id)).collect();
            let has_files = targets.is_empty() || targets.iter().any(|target| target.has_files());
            // A shared framework lists itself, and its files under another name.
            if !has_files && !is_framework(file.path(), name) {
                continue;
            }
            let needed: BTreeSet<&String> = targets
                .into_iter()
                .flat_map(|target| target.dependencies.keys())
                .collect();
            let name = name.strip_prefix("runtimepack.").unwrap_or(name);
            found.add_package(FoundPackage {
                depends_on: needed.into_iter().cloned().collect(),
                ..FoundPackage::new(PackageType::Nuget, name, version, file.path())
            });
        }
        Ok(())
    }
}

/// Whether the file is the list of this very package.
fn is_framework(path: &str, name: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".deps.json") == Some(name)
}
