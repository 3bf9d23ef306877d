//! Erlang and Elixir: `SemVer` precedence, as Elixir's `Version` has it.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query, semver};
use crate::version::Version;

/// The Hex registry.
pub(super) struct Hex;

// === impl Hex ===

impl Ecosystem for Hex {
    fn package_type(&self) -> PackageType {
        PackageType::Hex
    }

    fn names(&self) -> &'static [&'static str] {
        &["Hex"]
    }

    fn parse(&self, text: &str) -> Option<Version> {
        semver::precedence(text, 3)
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let name = package.name.clone();
        vec![query("Hex", name, &package.version, "package")]
    }
}
