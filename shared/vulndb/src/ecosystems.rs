//! Ecosystems: how versions are compared, and under which names packages are looked up.

mod apk;
mod deb;
mod npm;
mod pypi;
#[cfg(test)]
mod tests;

use model::{Os, Package, PackageType};
use serde::{Deserialize, Serialize};

use crate::version::{VERSION_BYTES_MAX, Version};

/// A family of ecosystems that share a version order.
pub trait Ecosystem: Sync {
    /// The packages that belong to it.
    fn package_type(&self) -> PackageType;

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

    /// Under which names a package is looked up; none if its release is not known.
    fn queries(&self, package: &Package, os: Option<&Os>) -> Vec<Query>;
}

/// Every family: the visible list. What is not in it does not exist.
pub static ECOSYSTEMS: &[&dyn Ecosystem] = &[&deb::Deb, &apk::Apk, &pypi::Pypi, &npm::Npm];

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
    /// Which name it is: `source_package`, `origin` or `package`.
    pub method: &'static str,
}

/// The family of an OSV ecosystem; `None` for one that we cannot compare.
pub fn family(ecosystem: &str) -> Option<&'static dyn Ecosystem> {
    let base = base(ecosystem);
    ECOSYSTEMS
        .iter()
        .copied()
        .find(|family| family.names().contains(&base))
}

/// The family of a package.
pub(crate) fn family_of(package: &Package) -> Option<&'static dyn Ecosystem> {
    ECOSYSTEMS
        .iter()
        .copied()
        .find(|family| family.package_type() == package.kind)
}

/// The newest of some versions of a package; `None` where one of them cannot be read.
pub fn newest<'a>(kind: PackageType, versions: &[&'a str]) -> Option<&'a str> {
    let mut families = ECOSYSTEMS.iter().copied();
    let family = families.find(|family| family.package_type() == kind)?;
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
    if text.is_empty() || text.len() > VERSION_BYTES_MAX {
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
