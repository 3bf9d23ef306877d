//! Packages: what a package manager says it installed.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Digest;

/// The kind of a package: the type of its purl (package-url/purl-spec, "Known purl types").
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PackageType {
    /// Debian and derivatives.
    Deb,
    /// Alpine and derivatives.
    Apk,
    /// RPM distributions.
    Rpm,
    /// Python.
    Pypi,
    /// JavaScript.
    Npm,
    /// Java; the name is `group:artifact`.
    Maven,
    /// Go modules.
    Golang,
    /// Rust crates.
    Cargo,
    /// Ruby gems.
    Gem,
    /// PHP.
    Composer,
    /// .NET.
    Nuget,
    /// R.
    Cran,
    /// Erlang and Elixir.
    Hex,
    /// Applications that come with Erlang itself.
    Otp,
    /// Conda environments.
    Conda,
    /// Embedded distributions that use opkg.
    Opkg,
    /// Dart and Flutter.
    Pub,
    /// Objective-C and Swift, by `CocoaPods`.
    Cocoapods,
    /// Swift, by its package manager; the name is `host/path`.
    Swift,
    /// C and C++.
    Conan,
    /// Bitnami's applications.
    Bitnami,
    /// Anything else, and kinds that a newer writer knows.
    #[serde(other)]
    Generic,
}

/// Names a package inside one report: stable for the same package at the same place.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct PackageId(pub String);

/// A package URL (package-url/purl-spec).
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Purl(pub String);

/// How sure we are that the package is there as named.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// A guess, by file name or signature.
    Low,
    /// From metadata that need not be the package manager's.
    Medium,
    /// From the package manager's own records.
    #[default]
    High,
}

/// A package of a finished image report; the fields of the report's `packages[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Package {
    /// Its name inside this report.
    pub id: PackageId,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: PackageType,
    /// The name as its package manager prints it.
    pub name: String,
    /// The version as its package manager prints it, with epoch.
    pub version: String,
    /// The package URL.
    pub purl: Purl,
    /// The file that proves it.
    pub path: String,
    /// Where in that file it is, if the file is an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// The layer that brought it in: the blob's digest.
    pub layer: Digest,
    /// The architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The distribution, as `id-version_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distro: Option<String>,
    /// The source package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_name: Option<String>,
    /// The source package's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_version: Option<String>,
    /// Who built it, as its package manager says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// The module that it was built in: `name:stream:version:context` (Fedora Modularity).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modularity: Option<String>,
    /// Licences as declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
    /// Packages that it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<PackageId>,
    /// Digests of what was installed, as `algorithm:value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<String>,
    /// The operating system package that owns the file that proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned_by: Option<PackageId>,
    /// Whether somebody asked for it, and not another package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<bool>,
    /// Whether it is needed for development only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<bool>,
    /// How sure we are.
    pub confidence: Confidence,
}

/// A package of a layer that a later layer removed, or replaced by another version: a container does
/// not see it, and whoever has the image has it all the same. The report's `removed[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovedPackage {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: PackageType,
    /// The name as its package manager prints it.
    pub name: String,
    /// The version as its package manager prints it, with epoch.
    pub version: String,
    /// The package URL.
    pub purl: Purl,
    /// The file that proved it.
    pub path: String,
    /// The first layer that had it: the blob's digest.
    pub layer: Digest,
    /// The layer from which on it is no longer there.
    pub removed_by: Digest,
}

// === impl PackageType ===

impl PackageType {
    /// The kind with this purl type; [`Generic`](Self::Generic) for every other.
    pub fn of_purl(text: &str) -> Self {
        let all = [
            Self::Deb,
            Self::Apk,
            Self::Rpm,
            Self::Pypi,
            Self::Npm,
            Self::Maven,
            Self::Golang,
            Self::Cargo,
            Self::Gem,
            Self::Composer,
            Self::Nuget,
            Self::Cran,
            Self::Hex,
            Self::Otp,
            Self::Conda,
            Self::Opkg,
            Self::Pub,
            Self::Cocoapods,
            Self::Swift,
            Self::Conan,
            Self::Bitnami,
        ];
        let found = all.into_iter().find(|kind| kind.as_str() == text);
        found.unwrap_or(Self::Generic)
    }

    /// The purl type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Apk => "apk",
            Self::Rpm => "rpm",
            Self::Pypi => "pypi",
            Self::Npm => "npm",
            Self::Maven => "maven",
            Self::Golang => "golang",
            Self::Cargo => "cargo",
            Self::Gem => "gem",
            Self::Composer => "composer",
            Self::Nuget => "nuget",
            Self::Cran => "cran",
            Self::Hex => "hex",
            Self::Otp => "otp",
            Self::Conda => "conda",
            Self::Opkg => "opkg",
            Self::Pub => "pub",
            Self::Cocoapods => "cocoapods",
            Self::Swift => "swift",
            Self::Conan => "conan",
            Self::Bitnami => "bitnami",
            Self::Generic => "generic",
        }
    }

    /// Whether an operating system's package manager installs it.
    pub const fn is_os(self) -> bool {
        matches!(self, Self::Deb | Self::Apk | Self::Rpm | Self::Opkg)
    }
}

impl fmt::Display for PackageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl PackageId, Purl ===

impl fmt::Display for PackageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Purl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
