//! Installed Python packages (Python packaging, "Core metadata specifications").

use archive::{Entry, Limits};
use model::{AnalyzerId, FoundPackage, PackageType};

use crate::{
    Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id,
    stanza::{Stanza, paragraphs},
};

/// Metadata hold the project's whole README.
const BYTES_MAX: u64 = 16 << 20;

/// Reads the metadata of installed distributions.
pub(crate) struct Python(AnalyzerId);

// === impl Python ===

impl Python {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id("python", 2, config, limits)))
    }
}

impl Analyzer for Python {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        if is_metadata(entry.path) {
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
            let text = file.text(BYTES_MAX)?;
            // Headers first; behind the first blank line follows the description.
            let Some(headers) = paragraphs(&text).next() else {
                return Err(Malformed::Format("the metadata are empty".to_owned()));
            };
            let (Some(name), Some(version)) = (headers.get("Name"), headers.get("Version")) else {
                return Err(Malformed::Format(
                    "there is no name or no version".to_owned(),
                ));
            };
            found.add_package(FoundPackage {
                licenses: licenses(&headers),
                depends_on: headers
                    .all("Requires-Dist")
                    .filter_map(requirement)
                    .collect(),
                ..FoundPackage::new(PackageType::Pypi, name, version, file.path())
            });
        }
        Ok(())
    }
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
    // What a package carries inside itself is not installed: no `pip` lists or upgrades it.
    is_it && path.split('/').all(|segment| segment != "_vendor")
}

fn licenses(headers: &Stanza<'_>) -> Vec<String> {
    if let Some(expression) = headers.get("License-Expression") {
        return vec![expression.to_owned()];
    }
    // Some put the whole text there; a name is short.
    let name = headers
        .get("License")
        .filter(|name| name.len() < 100 && *name != "UNKNOWN");
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
