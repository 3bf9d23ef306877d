//! .NET: the order of `NuGet.Versioning`.
//!
//! One to four numbers, of which trailing zeros do not count; a pre-release by `SemVer`'s rules, but
//! without regard to case, and with numbers that do not fit 32 bits as words; no metadata.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query, semver};
use crate::version::{Key, Version, is_number};

/// The gallery of .NET packages.
pub(super) struct Nuget;

// === impl Nuget ===

impl Ecosystem for Nuget {
    fn package_type(&self) -> PackageType {
        PackageType::Nuget
    }

    fn names(&self) -> &'static [&'static str] {
        &["NuGet"]
    }

    fn normalize(&self, name: &str) -> String {
        name.to_lowercase()
    }

    fn parse(&self, text: &str) -> Option<Version> {
        let (text, _metadata) = text.split_once('+').unwrap_or((text, ""));
        let (release, labels) = match text.split_once('-') {
            Some((release, labels)) => (release, Some(semver::identifiers(labels)?)),
            None => (text, None),
        };
        let numbers: Vec<&str> = release.split('.').collect();
        if numbers.len() > 4 || !numbers.iter().all(|number| is_number(number)) {
            return None;
        }
        let mut key = Key::default();
        key.release(numbers);
        let Some(labels) = labels else {
            key.byte(9);
            return Some(key.finish());
        };
        key.byte(1);
        for label in labels {
            if is_number(label) && label.parse::<i32>().is_ok() {
                key.byte(2);
                key.number(label);
            } else {
                key.byte(3);
                key.text(&label.to_ascii_lowercase());
            }
        }
        key.byte(0);
        Some(key.finish())
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let name = self.normalize(&package.name);
        vec![query("NuGet", name, &package.version, "package")]
    }
}
