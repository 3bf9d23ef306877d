//! Bitnami: `SemVer` precedence of what upstream released; the revision of Bitnami's own build does
//! not count.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query, semver};
use crate::version::{Version, is_number};

/// Applications that Bitnami builds.
pub(super) struct Bitnami;

// === impl Bitnami ===

impl Ecosystem for Bitnami {
    fn package_type(&self) -> PackageType {
        PackageType::Generic
    }

    fn purl_type(&self) -> &'static str {
        "bitnami"
    }

    fn names(&self) -> &'static [&'static str] {
        &["Bitnami", "bitnami"]
    }

    /// Some upstreams count with four numbers.
    fn parse(&self, text: &str) -> Option<Version> {
        semver::precedence(text, 4)
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let version = without_revision(&package.version);
        vec![query("Bitnami", package.name.clone(), version, "package")]
    }
}

/// `8.0.32` of `8.0.32-4` and of `8.0.32-r4`; a number alone is no pre-release of anybody's.
fn without_revision(version: &str) -> &str {
    let Some((release, revision)) = version.rsplit_once('-') else {
        return version;
    };
    let number = revision.strip_prefix('r').unwrap_or(revision);
    if is_number(number) { release } else { version }
}
