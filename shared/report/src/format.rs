//! The formats, and what they have in common.

use std::{borrow::Cow, fmt, io, str::FromStr};

use model::{Report, Reports, Severity, Vulnerability};

use crate::{cyclonedx, json, sarif, spdx, table};

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// For people, on a terminal.
    #[default]
    Table,
    /// For programs: the report as it is.
    Json,
    /// For code scanning services: SARIF 2.1.0.
    Sarif,
    /// For whoever keeps bills of materials: `CycloneDX` 1.6 as JSON.
    CycloneDx,
    /// The same as SPDX 2.3, as JSON.
    SpdxJson,
}

/// The text is not a format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a format: {formats}", formats = Format::names())]
pub struct FormatError(String);

/// What is shown, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line, and all of them are independent"
)]
pub struct Options {
    /// Columns of the terminal; `None` for a file or a pipe, where lines may be as long as they are.
    pub width: Option<usize>,
    /// Whether to color.
    pub color: bool,
    /// Severities to show; all if empty. The verdict rests on all of them anyway.
    pub severities: Vec<Severity>,
    /// Whether only vulnerabilities with a fix are shown.
    pub ignore_unfixed: bool,
    /// Whether what waivers and VEX documents accept is listed as well, in the table and in SARIF.
    pub show_suppressed: bool,
    /// Whether the table lists the licences of packages.
    pub licenses: bool,
}

/// Writes a report.
pub fn render(
    report: &Report,
    format: Format,
    options: &Options,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    match format {
        Format::Table => table::render(report, options, out),
        Format::Json => json::write(&*shown(report, options), out),
        Format::Sarif => sarif::render(report, options, out),
        Format::CycloneDx => cyclonedx::render(report, options, out),
        Format::SpdxJson => spdx::render(report, out),
    }
}

/// Writes the reports of every platform of an index.
pub fn render_all(
    reports: &Reports,
    format: Format,
    options: &Options,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    match format {
        Format::Table => table::render_all(reports, options, out),
        Format::Sarif => sarif::render_all(reports, options, out),
        Format::CycloneDx => cyclonedx::render_all(reports, options, out),
        Format::SpdxJson => spdx::render_all(reports, out),
        Format::Json => {
            let each = reports
                .reports
                .iter()
                .map(|report| shown(report, options).into_owned())
                .collect();
            json::write(
                &Reports {
                    reports: each,
                    ..reports.clone()
                },
                out,
            )
        }
    }
}

/// The report with the findings that are to be shown.
fn shown<'a>(report: &'a Report, options: &Options) -> Cow<'a, Report> {
    if options.severities.is_empty() && !options.ignore_unfixed {
        return Cow::Borrowed(report);
    }
    let mut report = report.clone();
    report
        .vulnerabilities
        .retain(|found| options.shows_vulnerability(found));
    report.secrets.retain(|found| options.shows(found.severity));
    report
        .misconfigurations
        .retain(|found| options.shows(found.severity));
    report.malware.retain(|found| options.shows(found.severity));
    Cow::Owned(report)
}

// === impl Format ===

impl Format {
    /// Every format.
    pub const ALL: &[Self] = &[
        Self::Table,
        Self::Json,
        Self::Sarif,
        Self::CycloneDx,
        Self::SpdxJson,
    ];

    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "json",
            Self::Sarif => "sarif",
            Self::CycloneDx => "cyclonedx",
            Self::SpdxJson => "spdx-json",
        }
    }

    fn names() -> String {
        Self::ALL
            .iter()
            .map(|format| format.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let found = Self::ALL
            .iter()
            .find(|format| format.as_str().eq_ignore_ascii_case(text));
        found
            .copied()
            .ok_or_else(|| FormatError(text.chars().take(40).collect()))
    }
}

// === impl Options ===

impl Options {
    /// Whether a vulnerability is shown.
    pub fn shows_vulnerability(&self, found: &Vulnerability) -> bool {
        self.shows(found.severity) && (!self.ignore_unfixed || found.is_fixable())
    }

    /// Whether findings of this severity are shown.
    pub fn shows(&self, severity: Severity) -> bool {
        self.severities.is_empty() || self.severities.contains(&severity)
    }
}
