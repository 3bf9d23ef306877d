//! Installed npm packages: each `package.json` that stands where Node.js looks for a package.

use archive::{Entry, Limits};
use model::{AnalyzerId, FoundPackage, PackageType};
use serde_json::{Map, Value};

use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id};

/// A large one has 100 KB. What is parsed takes several times as much memory.
const BYTES_MAX: u64 = 4 << 20;

/// Reads `package.json` files of installed packages.
pub(crate) struct Npm(AnalyzerId);

// === impl Npm ===

impl Npm {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id("npm", 2, config, limits)))
    }
}

impl Analyzer for Npm {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        if is_installed(entry.path) {
            Wanted::Alone
        } else {
            Wanted::No
        }
    }

    fn recognizes(&self, head: &[u8]) -> bool {
        const NAME: &[u8] = b"\"name\"";
        let json = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
        json.trim_ascii_start().starts_with(b"{")
            && json.windows(NAME.len()).any(|window| window == NAME)
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            let bytes = file.bytes(BYTES_MAX)?;
            let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
            let manifest: Map<String, Value> = serde_json::from_slice(json)
                .map_err(|error| Malformed::Format(format!("it is not a JSON object: {error}")))?;
            let text = |key: &str| manifest.get(key).and_then(Value::as_str).map(str::trim);
            let (Some(name), Some(version)) = (text("name"), text("version")) else {
                continue;
            };
            if name.is_empty() || version.is_empty() {
                continue;
            }
            found.add_package(FoundPackage {
                licenses: licenses(&manifest),
                depends_on: dependencies(&manifest),
                ..FoundPackage::new(PackageType::Npm, name, version, file.path())
            });
        }
        Ok(())
    }
}

/// Names of paths that [`is_installed`] takes.
pub(crate) const NAMES: &[&str] = &["package.json"];

/// Whether it is the `package.json` of a package itself: `node_modules/NAME/package.json` or
/// `node_modules/@SCOPE/NAME/package.json`, and not one in a folder of a package.
pub(crate) fn is_installed(path: &str) -> bool {
    let Some(directory) = path.strip_suffix("/package.json") else {
        return false;
    };
    let mut above = directory.rsplit('/');
    let (Some(name), Some(parent)) = (above.next(), above.next()) else {
        return false;
    };
    if name.starts_with(['.', '@']) {
        return false;
    }
    parent == "node_modules" || (parent.starts_with('@') && above.next() == Some("node_modules"))
}

/// `license` as text or object, or the `licenses` of old times.
fn licenses(manifest: &Map<String, Value>) -> Vec<String> {
    let name = |value: &Value| {
        let name = value.as_str().or_else(|| value.get("type")?.as_str())?;
        (!name.is_empty()).then(|| name.to_owned())
    };
    match (manifest.get("license"), manifest.get("licenses")) {
        (Some(license), _) => name(license).into_iter().collect(),
        (None, Some(Value::Array(all))) => all.iter().filter_map(name).collect(),
        _ => Vec::new(),
    }
}

fn dependencies(manifest: &Map<String, Value>) -> Vec<String> {
    let keys = ["dependencies", "optionalDependencies"];
    let tables = keys
        .iter()
        .filter_map(|key| manifest.get(*key)?.as_object());
    let mut names: Vec<String> = tables.flat_map(Map::keys).cloned().collect();
    names.sort();
    names.dedup();
    names
}
