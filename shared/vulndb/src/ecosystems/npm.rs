//! JavaScript: `SemVer` precedence, read as leniently as node-semver does.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query, semver};
use crate::version::Version;

/// The npm registry.
pub(super) struct Npm;

// === impl Npm ===

impl Ecosystem for Npm {
    fn package_type(&self) -> PackageType {
        PackageType::Npm
    }

    fn names(&self) -> &'static [&'static str] {
        &["npm"]
    }

    /// More than three numbers are no version of npm's.
    fn parse(&self, text: &str) -> Option<Version> {
        semver::precedence(text, 3)
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        vec![query(
            "npm",
            package.name.clone(),
            &package.version,
            "package",
        )]
    }
}
