//! `secrets`: the rules, keys, and baselines of accepted secrets.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use analyzers::SecretRule;
use anyhow::{Context as _, ensure};
use jiff::civil::Date;
use model::Report;
use report::{Cell, Column, Cut, Grid};
use serde_json::json;

use crate::{
    cli::{Format, SecretsCommand},
    commands::print,
    config::Config,
    exit::Exit,
    secrets, terminal,
};

/// Bytes of a report.
const REPORT_BYTES_MAX: u64 = 512 << 20;

pub(crate) fn run(config: &Config, command: SecretsCommand) -> anyhow::Result<Exit> {
    match command {
        SecretsCommand::Rules { format } => print(&rules(config, format)?)?,
        SecretsCommand::Key { file } => {
            let key = secrets::make_key(&file)?;
            print(&format!("{}\n", key.id()))?;
        }
        SecretsCommand::Baseline {
            report,
            reason,
            author,
            expires,
        } => {
            let report = read(&report)?;
            print(&baseline(&report, &reason, &author, expires))?;
        }
    }
    Ok(Exit::Ok)
}

fn rules(config: &Config, format: Format) -> anyhow::Result<String> {
    let settings = &config.scanner.analyzers.secrets;
    let built_in = analyzers::built_in_rules().map_err(anyhow::Error::msg)?;
    let is_replaced = |rule: &SecretRule| settings.rules.iter().any(|own| own.id == rule.id);
    let built_in = built_in.iter().filter(|rule| !is_replaced(rule));
    let all: Vec<_> = settings.rules.iter().chain(built_in).collect();
    if let Format::Json = format {
        let shown = all.iter().map(|rule| {
            json!({
                "id": rule.id,
                "title": rule.title,
                "severity": rule.severity,
                "advice": rule.advice,
                "disabled": settings.disable.contains(&rule.id),
            })
        });
        let shown = serde_json::to_string_pretty(&shown.collect::<Vec<_>>())?;
        return Ok(shown + "\n");
    }
    let column = |title, cut| Column { title, cut };
    let mut grid = Grid::new(&[
        column("RULE", Cut::Never),
        column("SEVERITY", Cut::Never),
        column("FINDS", Cut::End),
        column("TO REVOKE IT", Cut::End),
        column("NOTE", Cut::Never),
    ]);
    for rule in &all {
        let is_disabled = settings.disable.contains(&rule.id);
        grid.row([
            Cell::new(&rule.id),
            Cell::new(rule.severity.as_str()),
            Cell::new(&rule.title),
            Cell::new(&rule.advice),
            Cell::new(if is_disabled { "disabled" } else { "" }),
        ]);
    }
    let mut out = Vec::new();
    grid.write(terminal::width(), terminal::color_out(), &mut out)?;
    Ok(String::from_utf8(out)?)
}

fn read(file: &Path) -> anyhow::Result<Report> {
    let bytes = chassis::files::read_bounded(file, REPORT_BYTES_MAX)
        .with_context(|| format!("reading the report `{}`", file.display()))?;
    let report: Report = serde_json::from_slice(&bytes)
        .with_context(|| format!("in the report `{}`", file.display()))?;
    ensure!(
        report.schema == model::REPORT_SCHEMA,
        "`{}` is a `{}`, not a `{}`",
        file.display(),
        report.schema,
        model::REPORT_SCHEMA
    );
    Ok(report)
}

/// The secrets of a report, each once, as a baseline has them.
fn baseline(report: &Report, reason: &str, author: &str, expires: Date) -> String {
    let mut text = String::from("secrets:\n");
    let mut known = BTreeSet::new();
    for secret in &report.secrets {
        if !known.insert(&secret.fingerprint) {
            continue;
        }
        // Texts in JSON are texts in YAML, whatever is in them.
        let (reason, author) = (json!(reason), json!(author));
        let place = report::clean(&secret.path);
        writeln!(
            text,
            "  # {} in {place}:{}\n  - fingerprint: {}\n    reason: {reason}\n    author: {author}\n    \
             expires: {expires}",
            report::clean(&secret.rule),
            secret.line,
            json!(secret.fingerprint)
        )
        .expect("writing to a String cannot fail");
    }
    if known.is_empty() {
        return "secrets: []\n".to_owned();
    }
    text
}
