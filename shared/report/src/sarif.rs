//! SARIF 2.1.0, as code scanning services take it.
//!
//! A run is an image of one platform. A rule is a vulnerability, a secret's pattern, a check; a
//! result is one of them at one place. What makes an upload useful, and is easily got wrong:
//!
//! - **Limits** of GitHub's code scanning are kept here, the worst first, so that nothing is cut
//!   by who reads it: 20 runs, 5,000 results of a run that it shows. What is left out is said in a
//!   notification of the run.
//! - **Fingerprints** are those of the findings: the same over rebuilds and new versions of the
//!   package, so that an alert is not closed and opened again. GitHub looks only at
//!   `primaryLocationLineHash`, which is therefore the same value.
//! - **Severity**: `security-severity` decides between critical, high, medium and low. It is the
//!   CVSS score where that is of our severity's band, else a score of that band: the two never
//!   disagree with the verdict.
//! - **Category**: `automationDetails.id` is the repository and the platform, so that one image's
//!   upload does not replace another's.
//! - What waivers or VEX documents accept is left out, because GitHub would open an alert for it;
//!   `show_suppressed` gives it with its `suppressions`.

mod document;
mod item;
mod rules;
mod run;
mod text;

use std::io;

use model::{Report, Reports};

use self::{
    document::{Log, Run},
    run::run,
};
use crate::{Options, json};

/// Where the schema is.
const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json";

/// Runs that one upload may have.
const RUNS_MAX: usize = 20;

/// Results of a run that are shown; there may be 25,000, of which the rest would not be.
const RESULTS_MAX: usize = 5_000;

pub(crate) fn render(
    report: &Report,
    options: &Options,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    write(vec![run(report, options, RESULTS_MAX)], out)
}

pub(crate) fn render_all(
    reports: &Reports,
    options: &Options,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    // Each image that is left out could be the worst one: the verdicts decide.
    let mut sorted: Vec<&Report> = reports.reports.iter().collect();
    sorted.sort_by_key(|report| std::cmp::Reverse(report.verdict.decision));
    let left_out = sorted.split_off(sorted.len().min(RUNS_MAX));
    let mut runs: Vec<Run<'_>> = sorted
        .into_iter()
        .map(|report| run(report, options, RESULTS_MAX))
        .collect();
    if let Some(last) = runs.last_mut().filter(|_| !left_out.is_empty()) {
        let names: Vec<_> = left_out
            .iter()
            .map(|report| report.target.platform.to_string())
            .collect();
        last.say(format!(
            "truncated: {} more platforms are not in this file, which may have {RUNS_MAX}: {}",
            names.len(),
            names.join(", ")
        ));
    }
    write(runs, out)
}

fn write(runs: Vec<Run<'_>>, out: &mut dyn io::Write) -> io::Result<()> {
    let log = Log {
        schema: SCHEMA,
        version: "2.1.0",
        runs,
    };
    json::write(&log, out)
}

#[cfg(test)]
mod tests;
