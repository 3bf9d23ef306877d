//! Package URLs (package-url/purl-spec).

use std::sync::OnceLock;

use model::{FoundPackage, Os, PackageType, Purl};
use packageurl::PackageUrl;

use super::prepared::PreparedLayer;

/// The package URLs of a layer's packages on the operating system that they were first wanted for:
/// images that share a layer mostly share that, too.
#[derive(Debug, Default)]
pub(super) struct Purls(OnceLock<Known>);

/// All of a layer's.
#[derive(Debug)]
struct Known {
    /// The operating system's id and version.
    os: Option<(String, String)>,
    purls: Vec<Purl>,
}

// === impl Purls ===

impl Purls {
    /// Those of all packages of the layer, in order; `None` where they are known for another
    /// operating system.
    pub(super) fn of(&self, layer: &PreparedLayer, os: Option<&Os>) -> Option<&[Purl]> {
        let known = self.0.get_or_init(|| {
            let packages = layer.sections.iter().flat_map(|section| &section.packages);
            Known {
                os: os.map(|os| (os.id.clone(), os.version_id.clone())),
                purls: packages.map(|found| purl(found, os)).collect(),
            }
        });
        let is_same = match (&known.os, os) {
            (Some((id, version)), Some(os)) => *id == os.id && *version == os.version_id,
            (None, None) => true,
            _ => false,
        };
        is_same.then_some(&known.purls)
    }
}

/// `debian-12`; `None` where the operating system is unknown.
pub(crate) fn distro(os: Option<&Os>) -> Option<String> {
    let os = os?;
    let is_known = !os.version_id.is_empty();
    Some(if is_known {
        format!("{}-{}", os.id, os.version_id)
    } else {
        os.id.clone()
    })
}

/// A Python package's name as indexes compare it (PEP 503).
pub(crate) fn normalized(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for part in name.split(['-', '_', '.']).filter(|part| !part.is_empty()) {
        if !text.is_empty() {
            text.push('-');
        }
        text.push_str(&part.to_ascii_lowercase());
    }
    text
}

/// The package URL of a package on this operating system.
pub(super) fn purl(found: &FoundPackage, os: Option<&Os>) -> Purl {
    let made = make(found, os).map(|purl| purl.to_string());
    // Only a name that is empty, or all slashes, is refused.
    Purl(made.unwrap_or_else(|_| format!("pkg:generic/{}", found.kind)))
}

fn make<'a>(
    found: &'a FoundPackage,
    os: Option<&'a Os>,
) -> Result<PackageUrl<'a>, packageurl::Error> {
    let kind = found.kind.as_str();
    let mut purl = match found.kind {
        PackageType::Pypi => PackageUrl::new(kind, normalized(&found.name))?,
        PackageType::Npm => namespaced(kind, found.name.split_once('/'), &found.name)?,
        PackageType::Maven => namespaced(kind, found.name.split_once(':'), &found.name)?,
        PackageType::Golang | PackageType::Composer | PackageType::Generic | PackageType::Swift => {
            namespaced(kind, found.name.rsplit_once('/'), &found.name)?
        }
        _ => PackageUrl::new(kind, found.name.as_str())?,
    };
    purl.with_version(version(found))?;
    if found.kind.is_os() {
        if let Some(os) = os {
            purl.with_namespace(os.id.as_str())?;
        }
        if let Some(arch) = &found.arch {
            purl.add_qualifier("arch", arch.as_str())?;
        }
        if let Some((epoch, _)) = epoch(found) {
            purl.add_qualifier("epoch", epoch)?;
        }
        if let Some(label) = &found.modularity {
            purl.add_qualifier("rpmmod", label.as_str())?;
        }
        if let Some(distro) = distro(os) {
            purl.add_qualifier("distro", distro)?;
        }
    }
    Ok(purl)
}

fn namespaced<'a>(
    kind: &'a str,
    parts: Option<(&'a str, &'a str)>,
    whole: &'a str,
) -> Result<PackageUrl<'a>, packageurl::Error> {
    let Some((namespace, name)) = parts else {
        return PackageUrl::new(kind, whole);
    };
    let mut purl = PackageUrl::new(kind, name)?;
    purl.with_namespace(namespace)?;
    Ok(purl)
}

/// Of an RPM package's version, the epoch is a qualifier (purl-spec, `types/rpm-definition.json`).
fn version(found: &FoundPackage) -> &str {
    epoch(found).map_or(found.version.as_str(), |(_, version)| version)
}

fn epoch(found: &FoundPackage) -> Option<(&str, &str)> {
    let version = found.version.split_once(':');
    version.filter(|_| found.kind == PackageType::Rpm)
}
