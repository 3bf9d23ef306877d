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
        Box::new(Self(analyzer_id("npm", 3, config, limits)))
    }
}

impl Analyzer for Npm {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn pieces(&self) -> Vec<&str> {
        vec!["/package.json/"]
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

/// Where Debian's Node.js looks for packages, beside `node_modules`; those for one architecture are
/// in `usr/lib/TRIPLET/nodejs`.
const ROOTS: &[&str] = &["usr/share/nodejs", "usr/lib/nodejs"];

/// Whether it is the `package.json` of a package itself: `node_modules/NAME/package.json` or
/// `node_modules/@SCOPE/NAME/package.json`, and not one in a folder of a package.
pub(crate) fn is_installed(path: &str) -> bool {
    let Some(directory) = path.strip_suffix("/package.json") else {
        return false;
    };
    let Some((root, name)) = directory.rsplit_once('/') else {
        return false;
    };
    if name.starts_with(['.', '@']) {
        return false;
    }
    let root = match root.rsplit_once('/') {
        Some((above, scope)) if scope.starts_with('@') => above,
        _ => root,
    };
    root == "node_modules" || root.ends_with("/node_modules") || is_debians(root)
}

/// What `require` calls the package in a directory.
pub(crate) fn required_as(directory: &str) -> &str {
    let after = |root: &str| directory.strip_prefix(root)?.strip_prefix('/');
    let debians = ROOTS.iter().find_map(|root| after(root));
    let name = directory.rsplit("node_modules/").next();
    name.filter(|name| *name != directory)
        .or(debians)
        .unwrap_or(directory)
}

/// Where Debian's Node.js looks for a package that is in no `node_modules`.
pub(crate) fn debians(name: &str) -> impl Iterator<Item = String> {
    ROOTS.iter().map(move |root| format!("{root}/{name}"))
}

fn is_debians(root: &str) -> bool {
    let triplet = root
        .strip_prefix("usr/lib/")
        .and_then(|rest| rest.strip_suffix("/nodejs"));
    ROOTS.contains(&root) || triplet.is_some_and(|triplet| !triplet.contains('/'))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_stand_where_node_looks_for_them() {
        let check = |directory: &str, expected: bool| {
            let path = format!("{directory}/package.json");
            assert_eq!(is_installed(&path), expected, "{path}");
        };
        check("node_modules/a", true);
        check("app/node_modules/@s/a", true);
        check("app/node_modules/@s", false);
        check("app/node_modules/a/lib", false);
        check("app/node_modules/.bin", false);
        check("node_modules/@s/a/node_modules/b", true);
        check("usr/share/nodejs/semver", true);
        check("usr/share/nodejs/@types/node", true);
        check("usr/share/nodejs/semver/bin", false);
        check("usr/lib/x86_64-linux-gnu/nodejs/iconv", true);
        check("usr/lib/a/b/nodejs/iconv", false);
        check("srv/usr/share/nodejs/semver", false);
        check("a", false);
    }

    #[test]
    fn packages_are_required_by_their_folder() {
        let check = |directory: &str, expected: &str| assert_eq!(required_as(directory), expected);
        check("app/node_modules/a/node_modules/@s/b", "@s/b");
        check("usr/share/nodejs/@types/node", "@types/node");
        check("usr/share/nodejs/a/node_modules/b", "b");
        check("elsewhere/a", "elsewhere/a");
    }
}
