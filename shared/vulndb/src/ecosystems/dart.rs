//! Dart: `SemVer` precedence, and build metadata orders what is equal otherwise (`pub_semver`).

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query, semver};
use crate::version::{Key, Version};

/// The pub.dev registry.
pub(super) struct Dart;

// === impl Dart ===

impl Ecosystem for Dart {
    fn package_type(&self) -> PackageType {
        PackageType::Generic
    }

    fn purl_type(&self) -> &'static str {
        "pub"
    }

    fn names(&self) -> &'static [&'static str] {
        &["Pub"]
    }

    fn parse(&self, text: &str) -> Option<Version> {
        let parts = semver::parts(text, 3)?;
        let build = match parts.build {
            Some(build) => Some(semver::identifiers(build)?),
            None => None,
        };
        let mut key = Key::default();
        semver::put_precedence(&parts, &mut key);
        semver::put_identifiers(build.into_iter().flatten(), &mut key);
        Some(key.finish())
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let name = package.name.clone();
        vec![query("Pub", name, &package.version, "package")]
    }
}
