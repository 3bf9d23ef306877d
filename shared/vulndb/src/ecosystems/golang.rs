//! Go: `SemVer` precedence with Go's own spellings.
//!
//! Pseudo-versions are pre-releases, and `+incompatible` is build metadata: neither needs a rule.
//! The standard library and the toolchain have the release's name, `go1.21rc2`, which advisories
//! spell `1.21.0-rc.2`.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, query, semver};
use crate::version::{Key, Version, digits, run};

/// Go modules, the standard library and the toolchain.
pub(super) struct Golang;

// === impl Golang ===

impl Ecosystem for Golang {
    fn package_type(&self) -> PackageType {
        PackageType::Golang
    }

    /// Kubernetes' own advisories have its releases' numbers, which its modules have not: they are
    /// compared, and no module is looked up there.
    fn names(&self) -> &'static [&'static str] {
        &["Go", "Kubernetes"]
    }

    fn parse(&self, text: &str) -> Option<Version> {
        let release = text.strip_prefix("go").unwrap_or(text);
        toolchain(release, release.len() < text.len()).or_else(|| semver::precedence(text, 3))
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let name = package.name.clone();
        vec![query("Go", name, &package.version, "package")]
    }
}

/// `1.21rc2`, and with the `go` in front also what vendors append: `1.22.1 X:loopvar`,
/// `1.20.3-fips`, `1.18.5b7` (`BoringCrypto`).
fn toolchain(text: &str, is_tagged: bool) -> Option<Version> {
    let (release, rest) = run(text, |c| c.is_ascii_digit() || c == '.');
    let numbers = release.split('.');
    if !(2..=3).contains(&numbers.clone().count()) || numbers.clone().any(str::is_empty) {
        return None;
    }
    let (word, tail) = run(rest, |c| c.is_ascii_lowercase());
    let (number, tail) = digits(tail);
    let is_prerelease = matches!(word, "alpha" | "beta" | "rc") && !number.is_empty();
    let is_ended = match () {
        () if is_tagged => {
            let is_vendors = word.is_empty() && number.is_empty() || word == "b";
            (is_prerelease || is_vendors) && (tail.is_empty() || tail.starts_with([' ', '-', '+']))
        }
        () => is_prerelease && tail.is_empty(),
    };
    if !is_ended {
        return None;
    }
    let mut key = Key::default();
    key.release(numbers);
    semver::put_prerelease(is_prerelease.then_some([word, number]), &mut key);
    Some(key.finish())
}
