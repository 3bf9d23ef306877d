//! Which clauses of a benchmark a target meets, and which of the policy's own checks it passes, for people
//! and for programs.

use std::io::Write as _;

use analyzers::{Benchmark, Status};
use anstyle::{AnsiColor, Style};
use anyhow::bail;
use model::{Hides, Report};
use policy::{OwnCheck, Policy};
use report::{Cell, Column, Cut, Format, Grid, Options};
use serde_json::{Value, json};

use super::output::Document;

const SCHEMA: &str = "tidewaiter.compliance/1";

/// Pieces of evidence that a table shows of one clause.
const EVIDENCE_MAX: usize = 3;

/// How a target did in one of the policy's own checks.
struct OwnOutcome<'a> {
    check: &'a OwnCheck,
    status: Status,
    evidence: Vec<String>,
}

/// All targets' clauses, and the policy's own checks.
pub(super) fn render(
    (benchmark, policy): (Benchmark, &Policy),
    format: Format,
    options: &Options,
    documents: &[Document],
) -> anyhow::Result<Vec<u8>> {
    let reports = documents.iter().flat_map(Document::reports);
    let mut out = Vec::new();
    for report in reports {
        match format {
            Format::Table => {
                table(benchmark, report, options, &mut out)?;
                own_table(policy, report, options, &mut out)?;
            }
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, &document(benchmark, policy, report))?;
                out.push(b'\n');
            }
            other => bail!(
                "--compliance is printed as table or json, not as {}",
                other.as_str()
            ),
        }
    }
    Ok(out)
}

fn table(
    benchmark: Benchmark,
    report: &Report,
    options: &Options,
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    let column = |title, cut| Column { title, cut };
    let mut grid = Grid::new(&[
        column("CLAUSE", Cut::Never),
        column("STATUS", Cut::Never),
        column("WHAT", Cut::End),
        column("WHY", Cut::End),
    ]);
    let outcomes = benchmark.outcomes(report);
    for one in &outcomes {
        grid.row([
            Cell::new(one.clause),
            Cell::styled(one.status.as_str(), style(one.status)),
            Cell::new(one.title),
            Cell::new(evidence(&one.evidence)),
        ]);
    }
    let count = |status| outcomes.iter().filter(|one| one.status == status).count();
    writeln!(
        out,
        "{}: {}\n{} pass, {} fail, {} not applicable",
        report::clean(&report.target.reference),
        benchmark.title(),
        count(Status::Pass),
        count(Status::Fail),
        count(Status::NotApplicable),
    )?;
    grid.write(options.width, options.color, out)?;
    writeln!(out)
}

/// The policy's own checks, where it has some.
fn own_table(
    policy: &Policy,
    report: &Report,
    options: &Options,
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    let outcomes = own_outcomes(&policy.checks, report);
    if outcomes.is_empty() {
        return Ok(());
    }
    let column = |title, cut| Column { title, cut };
    let mut grid = Grid::new(&[
        column("CHECK", Cut::Never),
        column("STATUS", Cut::Never),
        column("FAILS WHERE", Cut::End),
        column("WHY", Cut::End),
    ]);
    for one in &outcomes {
        grid.row([
            Cell::new(one.check.id.as_str()),
            Cell::styled(one.status.as_str(), style(one.status)),
            Cell::new(one.check.title.to_string()),
            Cell::new(evidence(&one.evidence)),
        ]);
    }
    writeln!(out, "Checks of the policy `{}`", policy.name)?;
    grid.write(options.width, options.color, out)?;
    writeln!(out)
}

/// How a report did in each. What somebody accepted does not speak against it.
fn own_outcomes<'a>(checks: &'a [OwnCheck], report: &Report) -> Vec<OwnOutcome<'a>> {
    let gap = report.gaps.iter().find(|gap| gap.hides != Hides::Nothing);
    let outcome = |check: &'a OwnCheck| {
        let id = check.id.as_str();
        let mut found = report.misconfigurations.iter();
        let failed = found.find(|one| one.id == id && one.waived.is_none());
        let (status, evidence) = match (failed, gap) {
            (Some(found), _) => (Status::Fail, vec![found.evidence.clone()]),
            (None, Some(gap)) => {
                let why = format!("a gap may hide something: {}", gap.detail);
                (Status::NotApplicable, vec![why])
            }
            (None, None) => (Status::Pass, Vec::new()),
        };
        OwnOutcome {
            check,
            status,
            evidence,
        }
    };
    checks.iter().map(outcome).collect()
}

fn evidence(pieces: &[String]) -> String {
    let shown: Vec<_> = pieces
        .iter()
        .take(EVIDENCE_MAX)
        .map(String::as_str)
        .collect();
    let more = pieces.len().saturating_sub(EVIDENCE_MAX);
    let more = if more > 0 {
        format!("; and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", shown.join("; "))
}

fn document(benchmark: Benchmark, policy: &Policy, report: &Report) -> Value {
    let clauses = benchmark.outcomes(report);
    let clauses = clauses.iter().map(|one| {
        json!({
            "clause": one.clause,
            "title": one.title,
            "status": one.status.as_str(),
            "evidence": one.evidence,
        })
    });
    let checks = own_outcomes(&policy.checks, report);
    let checks = checks.iter().map(|one| {
        json!({
            "id": one.check.id,
            "title": one.check.title.to_string(),
            "severity": one.check.severity.0,
            "clauses": one.check.clauses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "status": one.status.as_str(),
            "evidence": one.evidence,
        })
    });
    json!({
        "schema": SCHEMA,
        "benchmark": benchmark.as_str(),
        "reference": report.target.reference,
        "image_id": report.target.image_id,
        "clauses": clauses.collect::<Vec<_>>(),
        "checks": checks.collect::<Vec<_>>(),
    })
}

const fn style(status: Status) -> Style {
    match status {
        Status::Pass => AnsiColor::Green.on_default(),
        Status::Fail => AnsiColor::Red.on_default(),
        Status::NotApplicable => Style::new(),
    }
}
