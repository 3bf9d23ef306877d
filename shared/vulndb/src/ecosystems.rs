//! Ecosystems: how versions are compared, and under which names packages are looked up.

mod actions;
mod apk;
mod bitnami;
mod cargo;
mod composer;
mod conan;
mod cran;
mod dart;
mod deb;
mod dotted;
mod gem;
mod golang;
mod hackage;
mod hex;
mod julia;
mod maven;
mod npm;
mod nuget;
mod pypi;
mod rpm;
mod semver;
mod swift;
#[cfg(test)]
mod tests;

use std::{cmp::Ordering, str::FromStr as _};

use model::{Os, Package, PackageType};
use packageurl::PackageUrl;
use serde::{Deserialize, Serialize};

use crate::version::{VERSION_BYTES_MAX, Version};

/// The method of a question in the ecosystem of what subscribers get, for a package that is none of
/// theirs.
pub(crate) const FOR_SUBSCRIBERS: &str = "subscription";

/// A family of ecosystems that share a version order.
pub trait Ecosystem: Sync {
    /// The kind of its packages.
    fn package_type(&self) -> PackageType;

    /// The type of their purls, by which packages belong to it.
    fn purl_type(&self) -> &'static str {
        self.package_type().as_str()
    }

    /// Names of OSV ecosystems, without the suffix after a colon.
    fn names(&self) -> &'static [&'static str];

    /// Whether a distribution speaks about packages that it builds itself.
    fn is_distribution(&self) -> bool {
        self.package_type().is_os()
    }

    /// The name under which advisories are stored and looked up.
    fn normalize(&self, name: &str) -> String {
        name.to_owned()
    }

    /// The version as a key; `None` for what is not a version here.
    fn parse(&self, text: &str) -> Option<Version>;

    /// Whether advisories of its source do not speak about this package.
    fn is_exempt(&self, _package: &Package) -> bool {
        false
    }

    /// The OSV ecosystems of an operating system's release, if it is of this family.
    fn releases(&self, _os: &Os) -> Vec<String> {
        Vec::new()
    }

    /// Under which names a package is looked up; none if its release is not known.
    fn queries(&self, package: &Package, os: Option<&Os>) -> Vec<Query>;
}

/// Every family: the visible list. What is not in it does not exist.
pub static ECOSYSTEMS: &[&dyn Ecosystem] = &[
    &deb::Deb,
    &apk::Apk,
    &rpm::Rpm,
    &pypi::Pypi,
    &npm::Npm,
    &maven::Maven,
    &golang::Golang,
    &cargo::Cargo,
    &gem::Gem,
    &composer::Composer,
    &nuget::Nuget,
    &cran::Cran,
    &hex::Hex,
    &dart::Dart,
    &hackage::Hackage,
    &julia::Julia,
    &swift::Swift,
    &actions::Actions,
    &conan::Conan,
    &bitnami::Bitnami,
];

/// Names of version schemes beside those of purl types and of OSV ecosystems.
const SCHEMES: &[(&str, &str)] = &[
    ("dpkg", "deb"),
    ("generic", "conan"),
    ("githubactions", "github"),
    ("go", "golang"),
    ("pep440", "pypi"),
    ("semver", "cargo"),
];

/// Vendors that patch packages of other ecosystems: `TuxCare:Alpine:v3.16` has Alpine's versions.
const PATCHERS: &[&str] = &["Docker Hardened Images:", "Root:", "TuxCare:"];

/// A name that advisories about a package are found by; what the reverse index stores.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lookup {
    /// The OSV ecosystem with its suffix.
    pub ecosystem: String,
    /// The package's name there.
    pub name: String,
}

/// A question about a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Where to look.
    pub lookup: Lookup,
    /// The version to compare.
    pub version: String,
    /// Which name it is: `source_package`, `origin` or `package`; or that of a source package where
    /// only subscribers get a fix: `subscription`.
    pub method: &'static str,
}

/// Two versions cannot be compared.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incomparable {
    /// No such scheme.
    #[error("no version scheme `{0}`")]
    Scheme(String),
    /// Not a version there.
    #[error("`{1}` is no version of `{0}`")]
    Version(String, String),
}

/// Compares two versions of a scheme: a purl's type, as `deb`, or the name of an OSV ecosystem, as
/// `AlmaLinux:9`, or another name that is usual, as `pep440`.
pub fn compare(scheme: &str, a: &str, b: &str) -> Result<Ordering, Incomparable> {
    let usual = SCHEMES.iter().find(|(name, _)| *name == scheme);
    let purl_type = usual.map_or(scheme, |(_, purl_type)| *purl_type);
    let mut families = ECOSYSTEMS.iter().copied();
    let family = families
        .find(|family| family.purl_type() == purl_type)
        .or_else(|| family(scheme))
        .ok_or_else(|| Incomparable::Scheme(scheme.to_owned()))?;
    let read = |text: &str| {
        let unreadable = || Incomparable::Version(scheme.to_owned(), text.to_owned());
        version(family, text).ok_or_else(unreadable)
    };
    Ok(read(a)?.cmp(&read(b)?))
}

/// The names of version schemes that [`compare`] knows, beside those of OSV ecosystems.
pub fn schemes() -> Vec<&'static str> {
    let types = ECOSYSTEMS.iter().map(|family| family.purl_type());
    let mut names: Vec<&str> = types.chain(SCHEMES.iter().map(|(name, _)| *name)).collect();
    names.sort_unstable();
    names
}

/// The family of an OSV ecosystem; `None` for one that we cannot compare.
pub fn family(ecosystem: &str) -> Option<&'static dyn Ecosystem> {
    let patched = PATCHERS
        .iter()
        .find_map(|name| ecosystem.strip_prefix(name));
    let base = base(patched.unwrap_or(ecosystem));
    ECOSYSTEMS
        .iter()
        .copied()
        .find(|family| family.names().contains(&base))
}

/// The family of a package, by the type of its purl.
pub(crate) fn family_of(package: &Package) -> Option<&'static dyn Ecosystem> {
    let purl_type = match package.kind {
        PackageType::Generic => package.purl.0.strip_prefix("pkg:")?.split('/').next()?,
        kind => kind.as_str(),
    };
    let mut families = ECOSYSTEMS.iter().copied();
    families.find(|family| family.purl_type() == purl_type)
}

/// Whether there are rules for the packages of an operating system's release.
pub(crate) fn has_releases(os: &Os) -> bool {
    ECOSYSTEMS
        .iter()
        .any(|family| !family.releases(os).is_empty())
}

/// The newest of some versions of a package; `None` where one of them cannot be read.
pub fn newest<'a>(kind: PackageType, versions: &[&'a str]) -> Option<&'a str> {
    let mut families = ECOSYSTEMS.iter().copied();
    // By its purl type: a kind that is none of its own is of many families.
    let family = families.find(|family| family.purl_type() == kind.as_str())?;
    let keys = versions
        .iter()
        .map(|text| Some((version(family, text)?, *text)));
    let newest = keys.collect::<Option<Vec<_>>>()?.into_iter().max();
    newest.map(|(_, text)| text)
}

/// The names that advisories about a package are found by.
pub fn lookups(package: &Package, os: Option<&Os>) -> Vec<Lookup> {
    let queries = family_of(package).map(|family| family.queries(package, os));
    queries
        .unwrap_or_default()
        .into_iter()
        .map(|query| query.lookup)
        .collect()
}

/// An ecosystem without its suffix.
pub(crate) fn base(ecosystem: &str) -> &str {
    ecosystem.split(':').next().unwrap_or(ecosystem)
}

/// Reads a version within the length limit.
pub(crate) fn version(family: &dyn Ecosystem, text: &str) -> Option<Version> {
    let text = text.trim();
    if text.is_empty() || text.len() > VERSION_BYTES_MAX || text.contains(char::is_control) {
        return None;
    }
    family.parse(text)
}

fn query(ecosystem: &str, name: String, version: &str, method: &'static str) -> Query {
    let lookup = Lookup {
        ecosystem: ecosystem.to_owned(),
        name,
    };
    Query {
        lookup,
        version: version.to_owned(),
        method,
    }
}

/// `namespace/name` of a package's purl; its name where there is none.
fn purl_name(package: &Package) -> String {
    match PackageUrl::from_str(&package.purl.0) {
        Ok(purl) => match purl.namespace() {
            Some(namespace) => format!("{namespace}/{}", purl.name()),
            None => purl.name().to_owned(),
        },
        Err(_) => package.name.clone(),
    }
}
