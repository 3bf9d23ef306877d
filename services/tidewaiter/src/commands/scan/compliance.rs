//! Which clauses of a benchmark a target meets, for people and for programs.

use std::io::Write as _;

use analyzers::{Benchmark, Outcome, Status};
use anstyle::{AnsiColor, Style};
use anyhow::bail;
use model::Report;
use report::{Cell, Column, Cut, Format, Grid, Options};
use serde_json::{Value, json};

use super::output::Document;

const SCHEMA: &str = "tidewaiter.compliance/1";

/// Pieces of evidence that a table shows of one clause.
const EVIDENCE_MAX: usize = 3;

/// All targets' clauses.
pub(super) fn render(
    benchmark: Benchmark,
    format: Format,
    options: &Options,
    documents: &[Document],
) -> anyhow::Result<Vec<u8>> {
    let reports = documents.iter().flat_map(Document::reports);
    let mut out = Vec::new();
    for report in reports {
        match format {
            Format::Table => table(benchmark, report, options, &mut out)?,
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, &document(benchmark, report))?;
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
            Cell::new(evidence(one)),
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

fn evidence(outcome: &Outcome) -> String {
    let shown: Vec<_> = outcome
        .evidence
        .iter()
        .take(EVIDENCE_MAX)
        .map(String::as_str)
        .collect();
    let more = outcome.evidence.len().saturating_sub(EVIDENCE_MAX);
    let more = if more > 0 {
        format!("; and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", shown.join("; "))
}

fn document(benchmark: Benchmark, report: &Report) -> Value {
    let clauses = benchmark.outcomes(report);
    let clauses = clauses.iter().map(|one| {
        json!({
            "clause": one.clause,
            "title": one.title,
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
    })
}

const fn style(status: Status) -> Style {
    match status {
        Status::Pass => AnsiColor::Green.on_default(),
        Status::Fail => AnsiColor::Red.on_default(),
        Status::NotApplicable => Style::new(),
    }
}
