//! Findings: vulnerabilities, secrets, misconfigurations, malware. The fields are those of the report.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, civil::Date};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Confidence, Digest, PackageId, PackageType};

/// How bad a finding is.
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
pub enum Severity {
    /// Nobody rated it. Level 0.
    #[default]
    Unknown,
    /// By its source's policy not a security problem. Level 1.
    Negligible,
    /// Level 2.
    Low,
    /// Level 3.
    Medium,
    /// Level 4.
    High,
    /// Level 5.
    Critical,
}

/// Names a finding; stable over rebuilds of the image. Hex.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Fingerprint(pub String);

/// A known vulnerability of an installed package.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Vulnerability {
    /// The CVE id where there is one, else the advisory's.
    pub id: String,
    /// All other names of the same vulnerability.
    pub aliases: Vec<String>,
    /// The package's id in this report.
    pub package_id: PackageId,
    /// The package's name.
    pub package: String,
    /// The package's kind.
    #[serde(rename = "type")]
    pub kind: PackageType,
    /// The installed version.
    pub installed_version: String,
    /// Versions that fix it, best for this package first.
    pub fixed_versions: Vec<String>,
    /// Whether there is a fix.
    pub fix_state: FixState,
    /// How bad.
    pub severity: Severity,
    /// `severity` as 0 to 5, the scale of gates.
    pub severity_level: u8,
    /// Every rating known.
    #[serde(default)]
    pub cvss: Vec<Cvss>,
    /// Exploit prediction, 0 to 1 (FIRST EPSS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epss: Option<f64>,
    /// Whether it is in CISA's catalog of known exploited vulnerabilities.
    #[serde(default)]
    pub kev: bool,
    /// One line for a person; may be empty.
    pub title: String,
    /// Where to read on.
    pub url: String,
    /// Who says so: the feed.
    pub source: String,
    /// When it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub published: Option<Timestamp>,
    /// When its record changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub modified: Option<Timestamp>,
    /// The file that proves the package.
    pub path: String,
    /// The layer that brought the package in.
    pub layer: Digest,
    /// How it was matched and how sure that is.
    #[serde(rename = "match")]
    pub matched: Match,
    /// What a VEX document says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vex: Option<Vex>,
    /// The waiver that accepts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waived: Option<Waived>,
    /// Its name over rebuilds.
    pub fingerprint: Fingerprint,
}

/// Whether there is a fix.
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
#[serde(rename_all = "snake_case")]
pub enum FixState {
    /// In a version that is known.
    Fixed,
    /// Not yet.
    NotFixed,
    /// There will be none.
    WontFix,
    /// Somebody looks at it.
    Investigating,
    /// The package or distribution is out of support.
    EndOfLife,
    /// Nobody says.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A CVSS rating.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cvss {
    /// Who rated.
    pub source: String,
    /// `2.0`, `3.0`, `3.1` or `4.0`.
    pub version: String,
    /// The vector.
    pub vector: String,
    /// 0 to 10.
    pub score: f64,
}

/// How an advisory was matched with a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Match {
    /// `source_package`, `package`, …: which name was looked up.
    pub method: String,
    /// How sure that is.
    pub confidence: Confidence,
    /// Which advisories and ranges hit, one line each.
    pub evidence: Vec<String>,
}

/// What a VEX document says of a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Vex {
    /// `not_affected`, `affected`, `fixed` or `under_investigation`.
    pub status: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub justification: Option<String>,
    /// Whose document.
    pub source: String,
}

/// A waiver in force on a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waived {
    /// Why it is accepted.
    pub reason: String,
    /// Who accepted it.
    pub author: String,
    /// The last day on which it holds (UTC).
    #[schemars(with = "crate::schema::Day")]
    pub expires: Date,
    /// Where the waiver is written.
    pub source: String,
}

/// A secret in the image; the report's `secrets[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Secret {
    /// The rule that fired.
    pub rule: String,
    /// What it is.
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
    /// The layer.
    pub layer: Digest,
    /// The instruction that made the layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// A later layer deleted the file; the secret is still in the image.
    pub deleted_later: bool,
    /// The excerpt with the secret masked.
    pub masked: String,
    /// What to do.
    pub advice: String,
    /// When it ends by its own words, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub expires_at: Option<Timestamp>,
    /// The waiver that accepts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waived: Option<Waived>,
    /// Its name over rebuilds.
    pub fingerprint: Fingerprint,
}

/// A setting or file that a check refuses; the report's `misconfigurations[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Misconfiguration {
    /// The check.
    pub id: String,
    /// What is wrong.
    pub title: String,
    /// How bad.
    pub severity: Severity,
    /// Clauses of benchmarks, as `CIS Docker 4.8`.
    pub clauses: Vec<String>,
    /// What proves it.
    pub evidence: String,
    /// The file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What to do.
    pub remediation: String,
    /// The waiver that accepts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waived: Option<Waived>,
    /// Its name over rebuilds.
    pub fingerprint: Fingerprint,
}

/// Malware in the image; the report's `malware[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Malware {
    /// The rule that fired.
    pub rule: String,
    /// The rule set it comes from.
    pub ruleset: String,
    /// How bad.
    pub severity: Severity,
    /// The file.
    pub path: String,
    /// The layer.
    pub layer: Digest,
    /// The file's digest.
    pub digest: Digest,
    /// Whether a later layer deletes or replaces the file; it is still in the image.
    #[serde(default)]
    pub deleted_later: bool,
    /// The waiver that accepts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waived: Option<Waived>,
    /// Its name over rebuilds.
    pub fingerprint: Fingerprint,
}

/// What kind of licence one is, mildest first: what it asks of who passes the package on.
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
#[serde(rename_all = "snake_case")]
pub enum LicenseCategory {
    /// Nothing.
    PublicDomain,
    /// To be named.
    Permissive,
    /// The source of changes to the package itself.
    WeakCopyleft,
    /// The source of all that is made with it.
    Copyleft,
    /// That too where it is only reached over a network.
    NetworkCopyleft,
    /// The source can be seen; some uses are forbidden.
    SourceAvailable,
    /// A contract.
    Proprietary,
    /// Nobody knows.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A package's licence; the report's `licenses[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct License {
    /// The package.
    pub package_id: PackageId,
    /// Its name.
    #[serde(default)]
    pub package: String,
    /// Its kind.
    #[serde(rename = "type", default = "generic")]
    pub kind: PackageType,
    /// An SPDX expression; `NOASSERTION` where the package declares nothing.
    pub expression: String,
    /// What kind of licence it is; of a choice the mildest.
    pub category: LicenseCategory,
    /// The waiver that accepts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waived: Option<Waived>,
    /// Its name over rebuilds and versions: kind, name and expression.
    #[serde(default = "nameless")]
    pub fingerprint: Fingerprint,
}

/// A file that is not as its package installed it; the report's `tampered[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tampered {
    /// The file.
    pub path: String,
    /// The package that owns it.
    pub package_id: PackageId,
    /// The layer that changed it.
    pub layer: Digest,
}

fn generic() -> PackageType {
    PackageType::Generic
}

fn nameless() -> Fingerprint {
    Fingerprint(String::new())
}

// === impl LicenseCategory ===

impl LicenseCategory {
    /// All categories, mildest first.
    pub const ALL: [Self; 8] = [
        Self::PublicDomain,
        Self::Permissive,
        Self::WeakCopyleft,
        Self::Copyleft,
        Self::NetworkCopyleft,
        Self::SourceAvailable,
        Self::Proprietary,
        Self::Unknown,
    ];

    /// As in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PublicDomain => "public_domain",
            Self::Permissive => "permissive",
            Self::WeakCopyleft => "weak_copyleft",
            Self::Copyleft => "copyleft",
            Self::NetworkCopyleft => "network_copyleft",
            Self::SourceAvailable => "source_available",
            Self::Proprietary => "proprietary",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for LicenseCategory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

// === impl Severity ===

impl Severity {
    /// All severities, worst first.
    pub const ALL: [Self; 6] = [
        Self::Critical,
        Self::High,
        Self::Medium,
        Self::Low,
        Self::Negligible,
        Self::Unknown,
    ];

    /// 5 for critical down to 0 for unknown: the scale of gates.
    pub const fn level(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Negligible => 1,
            Self::Low => 2,
            Self::Medium => 3,
            Self::High => 4,
            Self::Critical => 5,
        }
    }

    /// The severity of a CVSS base score (v3 bands; v2 has no official words).
    pub fn from_score(score: f64) -> Self {
        match score {
            s if s >= 9.0 => Self::Critical,
            s if s >= 7.0 => Self::High,
            s if s >= 4.0 => Self::Medium,
            s if s > 0.0 => Self::Low,
            _ => Self::Negligible,
        }
    }

    /// As in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Negligible => "negligible",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = String;

    /// Reads the words of reports in any case, `moderate`, and the levels 0 to 5.
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "unknown" | "0" => Self::Unknown,
            "negligible" | "1" => Self::Negligible,
            "low" | "2" => Self::Low,
            "medium" | "moderate" | "3" => Self::Medium,
            "high" | "4" => Self::High,
            "critical" | "5" => Self::Critical,
            _ => {
                return Err(format!(
                    "`{text}` is not a severity: critical, high, medium, low, negligible, unknown, or a level 5 to 0"
                ));
            }
        })
    }
}

// === impl Fingerprint ===

impl Fingerprint {
    /// The fingerprint of a finding that these parts identify.
    pub fn of(parts: &[&str]) -> Self {
        let mut hasher = crate::Hasher::default();
        for part in parts {
            // The length keeps ("ab", "c") apart from ("a", "bc").
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let digest = hasher.finish();
        let (half, _) = digest.as_bytes().split_at(16);
        Self(crate::hex(half))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Vulnerability {
    /// Whether a newer version of the package would end it.
    pub fn is_fixable(&self) -> bool {
        self.fix_state == FixState::Fixed
    }
}
