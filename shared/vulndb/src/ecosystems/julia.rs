//! Julia: the order of `VersionNumber` (Julia, `base/version.jl`).
//!
//! It is `SemVer`'s, and build numbers order what is equal otherwise: packages of binaries count
//! with them. A hyphen with nothing behind it is before all pre-releases, a `+` with nothing behind
//! it after all builds.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query, semver};
use crate::version::{Key, Version};

/// Julia's general registry.
pub(super) struct Julia;

const LOWEST: u8 = 0;
const PRERELEASE: u8 = 1;
const RELEASE: u8 = 9;
const HIGHEST_BUILD: u8 = 9;

// === impl Julia ===

impl Ecosystem for Julia {
    fn package_type(&self) -> PackageType {
        PackageType::Generic
    }

    fn purl_type(&self) -> &'static str {
        "julia"
    }

    fn names(&self) -> &'static [&'static str] {
        &["Julia"]
    }

    fn parse(&self, text: &str) -> Option<Version> {
        let (precedence, build) = match text.split_once('+') {
            Some((precedence, build)) => (precedence, Some(build)),
            None => (text, None),
        };
        let (release, is_lowest) = match precedence.strip_suffix('-') {
            Some(release) => (release, true),
            None => (precedence, false),
        };
        let parts = semver::parts(release, 3)?;
        if is_lowest && parts.prerelease.is_some() {
            return None;
        }
        let mut key = Key::default();
        key.release(parts.release.split('.'));
        match parts.prerelease {
            _ if is_lowest => key.byte(LOWEST),
            Some(identifiers) => {
                key.byte(PRERELEASE);
                semver::put_identifiers(identifiers.split('.'), &mut key);
            }
            None => key.byte(RELEASE),
        }
        match build {
            Some("") => key.byte(HIGHEST_BUILD),
            Some(build) => semver::put_identifiers(semver::identifiers(build)?, &mut key),
            None => semver::put_identifiers([], &mut key),
        }
        Some(key.finish())
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let name = package.name.clone();
        vec![query("Julia", name, &package.version, "package")]
    }
}
