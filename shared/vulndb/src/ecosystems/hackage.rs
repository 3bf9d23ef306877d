//! Haskell: the order of `Data.Version` without its tags, which nothing on Hackage has.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, dotted, query};
use crate::version::Version;

/// Hackage, and the compiler.
pub(super) struct Hackage;

// === impl Hackage ===

impl Ecosystem for Hackage {
    fn package_type(&self) -> PackageType {
        PackageType::Generic
    }

    fn purl_type(&self) -> &'static str {
        "hackage"
    }

    fn names(&self) -> &'static [&'static str] {
        &["Hackage", "GHC"]
    }

    fn parse(&self, text: &str) -> Option<Version> {
        dotted::numbers(text, &['.'])
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let ask = |&name: &&str| query(name, package.name.clone(), &package.version, "package");
        self.names().iter().map(ask).collect()
    }
}
