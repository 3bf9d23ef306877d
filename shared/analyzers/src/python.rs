//! Installed Python packages (Python packaging, "Core metadata specifications").

use archive::{Entry, Limits};
use model::{AnalyzerId, FoundPackage, PackageType};

use crate::{
    Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id,
    stanza::{Stanza, headers},
    zip,
};

/// Metadata hold the project's whole README.
const BYTES_MAX: u64 = 16 << 20;

/// Where the metadata of an egg are, in a directory and in an archive (setuptools, "The Internal
/// Structure of Python Eggs").
const IN_EGG: &str = "EGG-INFO/PKG-INFO";

/// Reads the metadata of installed distributions.
pub(crate) struct Python(AnalyzerId);

// === impl Python ===

impl Python {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id("python", 4, config, limits)))
    }
}

impl Analyzer for Python {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn pieces(&self) -> Vec<&str> {
        vec!["/METADATA/", "/PKG-INFO/", ".egg-info/", ".egg/"]
    }

    fn wants(&self, entry: &Entry<'_>, head: &[u8]) -> Wanted {
        let is_packed = is_egg(entry.path) && head.starts_with(b"PK");
        if is_metadata(entry.path) || is_packed && is_installed(entry.path) {
            Wanted::Alone
        } else {
            Wanted::No
        }
    }

    fn recognizes(&self, head: &[u8]) -> bool {
        head.starts_with(b"Metadata-Version:")
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            if is_egg(file.path()) {
                read_egg(file, found)?;
                continue;
            }
            let package = package(file.path(), &file.text(BYTES_MAX)?)?;
            found.add_package(package);
        }
        Ok(())
    }
}

fn is_egg(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, end)| end == "egg")
}

/// An egg that is an archive holds one distribution.
fn read_egg(file: &File, found: &mut Found) -> Result<(), Malformed> {
    let mut source = file.reader();
    let mut room = found.room_to_unpack(file.entry.size)?;
    let members = zip::members(&mut source, &|name| name == IN_EGG)?;
    for member in members {
        let text = member.read(&mut source, BYTES_MAX, &mut room)?;
        let package = package(file.path(), &String::from_utf8_lossy(&text))?;
        found.add_package(FoundPackage {
            within: Some(IN_EGG.to_owned()),
            ..package
        });
    }
    found.add_unpacked(&room);
    Ok(())
}

fn package(path: &str, text: &str) -> Result<FoundPackage, Malformed> {
    // Headers first; behind the first blank line follows the description.
    let Some(headers) = headers(text) else {
        return Err(Malformed::Format("the metadata are empty".to_owned()));
    };
    let (Some(name), Some(version)) = (headers.get("Name"), headers.get("Version")) else {
        return Err(Malformed::Format(
            "there is no name or no version".to_owned(),
        ));
    };
    Ok(FoundPackage {
        licenses: licenses(&headers),
        depends_on: headers
            .all("Requires-Dist")
            .filter_map(requirement)
            .collect(),
        ..FoundPackage::new(PackageType::Pypi, name, version, path)
    })
}

/// Names of paths that [`is_metadata`] takes.
pub(crate) const NAMES: &[&str] = &["METADATA", "PKG-INFO"];

/// What the other names end in.
pub(crate) const NAME_END: &str = ".egg-info";

/// Whether a file at this path holds the metadata of an installed distribution.
pub(crate) fn is_metadata(path: &str) -> bool {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_it = match name {
        "METADATA" => directory.ends_with(".dist-info"),
        "PKG-INFO" => directory.ends_with(".egg-info") || directory.ends_with(".egg/EGG-INFO"),
        name => name.ends_with(NAME_END),
    };
    is_it && is_installed(path)
}

/// What a package carries inside itself is not installed, no `pip` lists or upgrades it: copies of
/// others, and eggs to test with. Nor is what conda has unpacked into its cache,
/// `pkgs/NAME-VERSION-BUILD/`, to link it from there.
fn is_installed(path: &str) -> bool {
    let of_egg = path.split('/').any(is_egg);
    let is_inside = |segment: &str| match segment {
        "_vendor" => true,
        "test" | "tests" => of_egg,
        _ => false,
    };
    if path.split('/').any(is_inside) {
        return false;
    }
    let cached = path
        .match_indices("pkgs/")
        .filter(|(at, _)| *at == 0 || path.get(..*at).is_some_and(|before| before.ends_with('/')))
        .filter_map(|(at, cache)| path.get(at.saturating_add(cache.len())..));
    let mut in_package = cached.filter_map(|rest| Some(rest.split_once('/')?.1));
    !in_package.any(|rest| {
        rest.starts_with("site-packages/")
            || rest.starts_with("lib/python") && rest.contains("/site-packages/")
    })
}

fn licenses(headers: &Stanza<'_>) -> Vec<String> {
    if let Some(expression) = headers.get("License-Expression") {
        return vec![expression.to_owned()];
    }
    // Some put the whole text there; a name is short, and of one line.
    let name = headers
        .get("License")
        .filter(|name| name.len() < 100 && *name != "UNKNOWN" && !headers.goes_on("License"));
    if let Some(name) = name {
        return vec![name.to_owned()];
    }
    let classifiers = headers
        .all("Classifier")
        .filter(|line| line.starts_with("License ::"));
    let names = classifiers.filter_map(|line| line.rsplit("::").next());
    names.map(|name| name.trim().to_owned()).collect()
}

/// The name in `Requires-Dist: name[extra] (>=1.0) ; marker`; none for what only an extra asks for.
fn requirement(line: &str) -> Option<String> {
    let (requirement, marker) = line.split_once(';').unwrap_or((line, ""));
    if marker.contains("extra") {
        return None;
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = requirement
        .trim()
        .chars()
        .take_while(|c| is_name(*c))
        .collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_installed_where_python_finds_them() {
        let check = |path: &str, expected: bool| assert_eq!(is_metadata(path), expected, "{path}");
        let installed = "lib/python3.11/site-packages/idna-3.4.dist-info/METADATA";
        check(installed, true);
        check(&format!("opt/conda/{installed}"), true);
        check(
            &format!("opt/conda/pkgs/idna-3.4-py311_0/{installed}"),
            false,
        );
        check(
            "pkgs/idna-3.4-pyh_0/site-packages/idna-3.4.dist-info/METADATA",
            false,
        );
        check(
            "srv/mypkgs/idna/site-packages/idna-3.4.dist-info/METADATA",
            true,
        );
        check("srv/pkgs/idna-3.4.dist-info/METADATA", true);
        check("a/b-1.egg/EGG-INFO/PKG-INFO", true);
        check("lib/python3.11/test/data/b-1.egg/EGG-INFO/PKG-INFO", false);
        check("tests/b-1.dist-info/METADATA", true);
        check("a/_vendor/b-1.dist-info/METADATA", false);
    }
}
