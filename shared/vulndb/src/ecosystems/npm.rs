//! JavaScript: `SemVer` precedence, read leniently.
//!
//! Blanks, a leading `v` or `=`, missing parts, numbers of any length and a pre-release without its
//! hyphen are accepted, as node-semver's loose mode does; build metadata does not count.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query};
use crate::version::{Key, Version, digits, run};

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

    fn parse(&self, text: &str) -> Option<Version> {
        let text = text.trim_start_matches(|c: char| c == 'v' || c == '=' || c.is_whitespace());
        let (text, _build) = text.split_once('+').unwrap_or((text, ""));
        let (release, rest) = run(text, |c| c.is_ascii_digit() || c == '.');
        let mut key = Key::default();
        let mut parts = 0_usize;
        for part in release.split('.') {
            // More than three parts are no version of npm's.
            if part.is_empty() || parts >= 3 {
                return None;
            }
            key.number(part);
            parts = parts.saturating_add(1);
        }
        for _missing in parts..3 {
            key.number("");
        }
        if rest.is_empty() {
            key.byte(3);
            return Some(key.finish());
        }
        prerelease(rest.strip_prefix('-').unwrap_or(rest), &mut key)?;
        Some(key.finish())
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

/// Numbers sort before words, and fewer identifiers before more.
fn prerelease(text: &str, key: &mut Key) -> Option<()> {
    for identifier in text.split('.') {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if identifier.is_empty() || !identifier.chars().all(fits) {
            return None;
        }
        if digits(identifier).1.is_empty() {
            key.byte(1);
            key.number(identifier);
        } else {
            key.byte(2);
            key.text(identifier);
        }
    }
    key.byte(0);
    Some(())
}
