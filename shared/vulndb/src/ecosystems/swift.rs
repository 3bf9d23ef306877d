//! Swift: `SemVer` precedence of Git tags, packages by the address of their repository.

use model::{Os, Package, PackageType};

use super::{Ecosystem, Query, purl_name, query, semver};
use crate::version::Version;

/// Packages of the Swift package manager.
pub(super) struct Swift;

// === impl Swift ===

impl Ecosystem for Swift {
    fn package_type(&self) -> PackageType {
        PackageType::Generic
    }

    fn purl_type(&self) -> &'static str {
        "swift"
    }

    fn names(&self) -> &'static [&'static str] {
        &["SwiftURL"]
    }

    /// `github.com/apple/swift-nio` of any spelling of its address; hosts of repositories do not
    /// distinguish case.
    fn normalize(&self, name: &str) -> String {
        let name = name.split_once("://").map_or(name, |(_, address)| address);
        let name = name.rsplit_once('@').map_or(name, |(_, address)| address);
        let name = name.trim_end_matches('/');
        let name = name.strip_suffix(".git").unwrap_or(name);
        name.replace(':', "/").to_lowercase()
    }

    fn parse(&self, text: &str) -> Option<Version> {
        semver::precedence(text, 3)
    }

    fn queries(&self, package: &Package, _os: Option<&Os>) -> Vec<Query> {
        let name = self.normalize(&purl_name(package));
        vec![query("SwiftURL", name, &package.version, "package")]
    }
}
