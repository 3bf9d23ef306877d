//! R: the order of `compareVersion`; `-` separates as `.` does.
//!
//! R's operators of `numeric_version` differ in that they take `1.0` and `1.0.0` for equal.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, dotted, query};
use crate::version::Version;

/// The Comprehensive R Archive Network, and Bioconductor.
pub(super) struct Cran;

// === impl Cran ===

impl Ecosystem for Cran {
    fn package_type(&self) -> PackageType {
        PackageType::Cran
    }

    fn names(&self) -> &'static [&'static str] {
        &["CRAN", "Bioconductor"]
    }

    fn parse(&self, text: &str) -> Option<Version> {
        dotted::numbers(text, &['.', '-'])
    }

    /// A name is in one of the two: Bioconductor takes none that CRAN has.
    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let ask = |&name: &&str| query(name, package.name.clone(), &package.version, "package");
        self.names().iter().map(ask).collect()
    }
}
