//! What one layer holds: sections, one per analyzer, and the list of its entries.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Confidence, Digest, Gap, Misconfiguration, PackageType, Severity};

/// Names an analyzer and everything its output depends on: its part of the section's key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AnalyzerId {
    /// Its name.
    pub name: String,
    /// The version of its output; raised when the output changes for the same input.
    pub version: u32,
    /// The digest of its configuration and of the `Limits` it runs under.
    pub config: Digest,
}

/// The key of a section: nothing else may decide what is read from a cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SectionKey {
    /// The cache domain: one per installation; hostile tenants get their own.
    pub domain: crate::Slug,
    /// The layer's blob digest.
    pub blob: Digest,
    /// The analyzer.
    pub analyzer: AnalyzerId,
}

/// Everything known of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerReport {
    /// The blob's digest, verified by reading it.
    pub blob: Digest,
    /// The `entries` section.
    pub entries: Arc<Entries>,
    /// One section per analyzer, in the order of the analyzer list.
    pub sections: Vec<Arc<Section>>,
    /// Gaps of this very attempt (time, memory, network): never stored.
    pub transient_gaps: Vec<Gap>,
}

/// The `entries` section: each tar entry of the layer, in its order in the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// The digest of the uncompressed layer, computed while reading. `None` where the stream
    /// could not be read to its end.
    pub diff_id: Option<Digest>,
    /// Bytes of the blob.
    pub compressed_bytes: u64,
    /// Bytes of the uncompressed layer.
    pub uncompressed_bytes: u64,
    /// The entries.
    pub entries: Vec<LayerEntry>,
    /// What could not be read of the layer itself, from content and limits.
    pub gaps: Vec<Gap>,
}

/// One tar entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerEntry {
    /// The path from the image's root, without a leading slash; `.` segments removed. Bytes that
    /// are not UTF-8 are written as U+FFFD and two hex digits.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Bytes of content.
    pub size: u64,
    /// Where a symbolic or hard link leads, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The `security.capability` attribute, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<String>,
    /// The sha256 of a file that can be run or loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// What a tar entry is, in a layer (OCI image-spec, "Image Layer Filesystem Changeset").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A hard link to an entry of the same layer or of one below.
    Hardlink,
    /// A device or pipe.
    Special,
    /// `.wh.NAME`: removes `path`, which is written here without the prefix.
    Whiteout,
    /// `.wh..wh..opq`: removes what lower layers hold in the directory `path`.
    Opaque,
}

/// What one analyzer found in one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Who found it.
    pub analyzer: AnalyzerId,
    /// The operating system, from os-release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub os: Vec<FoundOs>,
    /// Packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<FoundPackage>,
    /// Which package owns which file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owned: Vec<Owned>,
    /// Digests by which package managers know their files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sums: Vec<FileSums>,
    /// Files that packages own and that stand elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diversions: Vec<Diversion>,
    /// Licences of packages, where a file of its own tells of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<FoundLicenses>,
    /// Findings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<FoundFinding>,
    /// What could not be read, from content and limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// An os-release file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundOs {
    /// The file.
    pub path: String,
    /// `ID`, lower case.
    pub id: String,
    /// `VERSION_ID`, empty where absent.
    pub version_id: String,
    /// `VERSION_CODENAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codename: Option<String>,
    /// `PRETTY_NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretty_name: Option<String>,
    /// `ID_LIKE`, split at blanks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub id_like: Vec<String>,
}

/// A package as one file of one layer tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundPackage {
    /// Its kind.
    pub kind: PackageType,
    /// The name as its package manager prints it.
    pub name: String,
    /// The version as its package manager prints it, with epoch.
    pub version: String,
    /// The architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The source package's name.
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
    /// Names of packages that it needs, as written in its metadata; `name@version` of those that a
    /// lock file names exactly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// The file that proves it. The package exists while this very file is visible.
    pub path: String,
    /// Where in that file it is, if the file is an archive: `lib/a.war!/WEB-INF/lib/b.jar`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Digests of what was installed, as `algorithm:value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<String>,
    /// Whether somebody asked for it, and not another package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<bool>,
    /// Whether it is needed for development only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<bool>,
    /// How sure we are.
    pub confidence: Confidence,
}

/// A file that a package manager says a package owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// The package's name.
    pub package: String,
    /// The package's architecture, where names repeat (multi-arch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The file, from the image's root.
    pub path: String,
    /// The digest that was recorded at installation, as `algorithm:value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A path at which packages put their files elsewhere, so that another file may stand there
/// (dpkg-divert).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diversion {
    /// The path that the packages record.
    pub path: String,
    /// Where their files are.
    pub to: String,
    /// The package whose own file stays at the path; none where the administrator puts one there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
}

/// The digests of a file's content that package managers record, beside the sha256 of its entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSums {
    /// The file.
    pub path: String,
    /// As dpkg records it.
    #[serde(with = "crate::digest::as_hex")]
    pub md5: [u8; 16],
    /// As apk records it.
    #[serde(with = "crate::digest::as_hex")]
    pub sha1: [u8; 20],
}

/// What a file says of the licences of an operating system's package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundLicenses {
    /// The package: the name of the directory that the file is in.
    pub package: String,
    /// Licences as the file names them.
    pub licenses: Vec<String>,
}

/// A finding in one file of one layer; whether a later layer deleted the file is for `coalesce`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum FoundFinding {
    /// A secret, already masked.
    Secret(FoundSecret),
    /// Malware.
    Malware(FoundMalware),
    /// A setting or file that a check refuses.
    Misconfiguration(Misconfiguration),
    /// A finding that a newer writer knows.
    #[serde(other)]
    Unknown,
}

/// A secret in a file; the secret itself is not in here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundSecret {
    /// The rule that fired.
    pub rule: String,
    /// What it is, for a person.
    pub title: String,
    /// How bad.
    pub severity: Severity,
    /// The file.
    pub path: String,
    /// First line, from 1.
    pub line: u32,
    /// First column, from 1.
    pub column: u32,
    /// Last line.
    pub end_line: u32,
    /// The excerpt with the secret masked.
    pub masked: String,
    /// What to do.
    pub advice: String,
    /// When it ends by its own words, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// A keyed digest of the secret.
    pub fingerprint: String,
    /// Digests of the file, as `algorithm:value`: a file that is as its package made it holds
    /// nobody's secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub file_digests: Vec<String>,
}

/// Malware in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundMalware {
    /// The rule that fired.
    pub rule: String,
    /// The rule set it comes from.
    pub ruleset: String,
    /// How bad.
    pub severity: Severity,
    /// The file.
    pub path: String,
    /// The file's digest.
    pub digest: Digest,
}

// === impl FoundPackage ===

impl FoundPackage {
    /// A package of which nothing else is known.
    pub fn new(
        kind: PackageType,
        name: impl Into<String>,
        version: impl Into<String>,
        path: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            name: name.into(),
            version: version.into(),
            arch: None,
            source_name: None,
            source_version: None,
            vendor: None,
            modularity: None,
            licenses: Vec::new(),
            depends_on: Vec::new(),
            path: path.into(),
            within: None,
            digests: Vec::new(),
            direct: None,
            dev: None,
            confidence: Confidence::High,
        }
    }
}
