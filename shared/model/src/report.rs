//! The report: one JSON document per scan (architecture, section 12).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AdvisoryStamp, Assessment, Digest, Gap, ImageReport, License, Malware, Misconfiguration,
    Package, RemovedPackage, Secret, Tampered, Target, Verdict, Vulnerability,
};

/// The `schema` of [`Report`].
pub const REPORT_SCHEMA: &str = "tidewaiter.report/1";
/// The `schema` of [`Reports`].
pub const REPORTS_SCHEMA: &str = "tidewaiter.reports/1";

/// Everything that is known of one image, and the verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// [`REPORT_SCHEMA`].
    pub schema: String,
    /// Who wrote it.
    pub tool: Tool,
    /// When.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// What was scanned.
    pub target: Target,
    /// Who looked.
    pub analyzers: Vec<ReportAnalyzer>,
    /// The advisory data.
    pub advisories: AdvisoryStamp,
    /// Packages.
    pub packages: Vec<Package>,
    /// Vulnerabilities.
    pub vulnerabilities: Vec<Vulnerability>,
    /// Secrets.
    pub secrets: Vec<Secret>,
    /// Misconfigurations.
    pub misconfigurations: Vec<Misconfiguration>,
    /// Malware.
    pub malware: Vec<Malware>,
    /// Licences.
    pub licenses: Vec<License>,
    /// Files that are not as their package installed them.
    pub tampered: Vec<Tampered>,
    /// Packages that a later layer removed or replaced, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<RemovedPackage>,
    /// What could not be looked at.
    pub gaps: Vec<Gap>,
    /// What policy says.
    pub verdict: Verdict,
}

/// Reports of every platform of an index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reports {
    /// [`REPORTS_SCHEMA`].
    pub schema: String,
    /// The index.
    pub index_digest: Digest,
    /// One report per platform.
    pub reports: Vec<Report>,
    /// The worst of their verdicts.
    pub verdict: Verdict,
}

/// The program that wrote a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// `tidewaiter`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// An analyzer as reports name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportAnalyzer {
    /// Its name.
    pub name: String,
    /// The version of its output.
    pub version: u32,
}

// === impl Report ===

impl Report {
    /// Puts the parts of a report together.
    pub fn new(
        image: ImageReport,
        assessment: Assessment,
        verdict: Verdict,
        tool: Tool,
        created_at: Timestamp,
    ) -> Self {
        let mut target = image.target;
        target.os = assessment.os.or(target.os);
        Self {
            schema: REPORT_SCHEMA.to_owned(),
            tool,
            created_at,
            target,
            analyzers: image
                .analyzers
                .into_iter()
                .map(|id| ReportAnalyzer {
                    name: id.name,
                    version: id.version,
                })
                .collect(),
            advisories: assessment.advisories,
            packages: image.packages,
            vulnerabilities: assessment.vulnerabilities,
            secrets: image.findings.secrets,
            misconfigurations: image.findings.misconfigurations,
            malware: image.findings.malware,
            licenses: image.findings.licenses,
            tampered: image.findings.tampered,
            removed: image.findings.removed,
            gaps: assessment.gaps,
            verdict,
        }
    }
}

impl Tool {
    /// This program at `version`.
    pub fn tidewaiter(version: &str) -> Self {
        Self {
            name: "tidewaiter".to_owned(),
            version: version.to_owned(),
        }
    }
}
