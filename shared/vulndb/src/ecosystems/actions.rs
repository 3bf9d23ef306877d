//! GitHub Actions: `SemVer` precedence of tags, actions by `owner/repository`.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, purl_name, query, semver};
use crate::version::Version;

/// Actions that workflows use.
pub(super) struct Actions;

// === impl Actions ===

impl Ecosystem for Actions {
    fn package_type(&self) -> PackageType {
        PackageType::Generic
    }

    fn purl_type(&self) -> &'static str {
        "github"
    }

    fn names(&self) -> &'static [&'static str] {
        &["GitHub Actions"]
    }

    fn normalize(&self, name: &str) -> String {
        name.to_lowercase()
    }

    fn parse(&self, text: &str) -> Option<Version> {
        semver::precedence(text, 3)
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let name = self.normalize(&purl_name(package));
        vec![query("GitHub Actions", name, &package.version, "package")]
    }
}
