//! PHP packages that Composer installed: its `installed.json`, of both versions.

use std::collections::HashSet;

use archive::Entry;
use model::{FoundPackage, PackageType};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{File, Found, Malformed, each::EachFile, malformed};

/// A large application's has 1 MB. What is parsed takes several times as much memory.
const BYTES_MAX: u64 = 16 << 20;

/// Reads what Composer installed.
pub(crate) struct Composer;

/// Version 1 writes the list alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Installed {
    Two {
        packages: Vec<Package>,
        #[serde(default, rename = "dev-package-names")]
        development: HashSet<String>,
    },
    One(Vec<Package>),
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    #[serde(default)]
    license: Value,
    #[serde(default)]
    require: Value,
}

// === impl Composer ===

impl EachFile for Composer {
    const NAME: &'static str = "composer";
    const VERSION: u32 = 1;
    const PIECES: &'static [&'static str] = &["/composer/installed.json/"];

    fn is_wanted(entry: &Entry<'_>, _head: &[u8]) -> bool {
        entry.path.ends_with("/composer/installed.json")
    }

    fn read(file: &File, found: &mut Found) -> Result<(), Malformed> {
        let bytes = file.bytes(BYTES_MAX)?;
        let installed = serde_json::from_slice(&bytes);
        let installed =
            installed.map_err(|error| malformed(format!("it is no list of packages: {error}")))?;
        let (packages, development) = match installed {
            Installed::Two {
                packages,
                development,
            } => (packages, Some(development)),
            Installed::One(packages) => (packages, None),
        };
        for package in packages {
            let is_dev = |names: &HashSet<String>| names.contains(&package.name);
            let needed = package.require.as_object().into_iter().flat_map(Map::keys);
            // What is no package has no slash: PHP itself, and its extensions.
            let needed = needed.filter(|name| name.contains('/'));
            found.add_package(FoundPackage {
                licenses: licenses(&package.license),
                depends_on: needed.cloned().collect(),
                dev: development.as_ref().map(is_dev),
                ..FoundPackage::new(
                    PackageType::Composer,
                    &package.name,
                    &package.version,
                    file.path(),
                )
            });
        }
        Ok(())
    }
}

/// One, or a list.
pub(crate) fn licenses(value: &Value) -> Vec<String> {
    let all = match value {
        Value::Array(all) => all.as_slice(),
        one => std::slice::from_ref(one),
    };
    let names = all.iter().filter_map(Value::as_str);
    names.map(ToOwned::to_owned).collect()
}
