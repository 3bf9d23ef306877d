//! .NET packages of a published application, or of a shared framework: its `NAME.deps.json`
//! (dotnet/sdk, "runtime configuration file").

use std::collections::{BTreeMap, BTreeSet};

use archive::Entry;
use model::{FoundPackage, PackageType};
use serde::Deserialize;

use crate::{File, Found, Malformed, each::EachFile, malformed};

/// A large application's has 1 MB. What is parsed takes several times as much memory.
const BYTES_MAX: u64 = 16 << 20;

/// What has its own version and comes from a package source; the rest is the application.
const KINDS: &[&str] = &["package", "runtimepack"];

/// Reads which packages an application was published with.
pub(crate) struct Dotnet;

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
struct Target {
    #[serde(default)]
    dependencies: BTreeMap<String, String>,
}

// === impl Dotnet ===

impl EachFile for Dotnet {
    const NAME: &'static str = "dotnet";
    const VERSION: u32 = 1;
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
            let targets = targets.filter_map(|packages| packages.get(id));
            let needed: BTreeSet<&String> = targets
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
