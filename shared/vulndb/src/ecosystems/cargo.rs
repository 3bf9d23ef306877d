//! Rust: `SemVer` precedence; build metadata does not count.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query, semver};
use crate::version::Version;

/// The crates.io registry.
pub(super) struct Cargo;

// === impl Cargo ===

impl Ecosystem for Cargo {
    fn package_type(&self) -> PackageType {
        PackageType::Cargo
    }

    fn names(&self) -> &'static [&'static str] {
        &["crates.io"]
    }

    fn parse(&self, text: &str) -> Option<Version> {
        semver::precedence(text, 3)
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let name = package.name.clone();
        vec![query("crates.io", name, &package.version, "package")]
    }
}
