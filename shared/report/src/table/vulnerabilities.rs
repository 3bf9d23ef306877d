//! Vulnerabilities: the most urgent package first.

use std::{cmp::Ordering, collections::HashMap, io};

use anstyle::{AnsiColor, Style};
use model::{Counts, FixState, Hides, PackageType, Report, Severity, Vulnerability};

use super::page::{Page, count, severity_style};
use crate::{
    Cell, Column, Cut, Grid, Options,
    suppressed::{is_suppressed, vex_status},
};

/// Columns of a terminal from which on titles have room beside what decides.
const TITLES_FROM: usize = 120;

const COLUMNS: [Column; 8] = [
    Column {
        title: "PACKAGE",
        cut: Cut::End,
    },
    Column {
        title: "INSTALLED",
        cut: Cut::End,
    },
    Column {
        title: "FIXED IN",
        cut: Cut::End,
    },
    Column {
        title: "TYPE",
        cut: Cut::Never,
    },
    Column {
        title: "VULNERABILITY",
        cut: Cut::Last,
    },
    Column {
        title: "SEVERITY",
        cut: Cut::Never,
    },
    Column {
        title: "NOTE",
        cut: Cut::End,
    },
    Column {
        title: "TITLE",
        cut: Cut::End,
    },
];

pub(super) fn write(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let options = page.options;
    let all = &report.vulnerabilities;
    let shown = all.iter().filter(|found| {
        options.shows_vulnerability(found) && (options.show_suppressed || !is_suppressed(found))
    });
    let rows = sorted(shown.collect());
    if !rows.is_empty() {
        page.blank()?;
        let has_room = options.width.is_some_and(|width| width >= TITLES_FROM);
        page.grid(&grid(&rows, has_room))?;
    }
    page.blank()?;
    page.line(&totals(report))?;
    notes(all, rows.len(), page)
}

/// What makes two installed packages the same line group.
type Group<'a> = (&'a str, &'a str, PackageType);

fn group(found: &Vulnerability) -> Group<'_> {
    (&found.package, &found.installed_version, found.kind)
}

/// Packages by their worst finding, and findings by risk within a package.
fn sorted(mut rows: Vec<&Vulnerability>) -> Vec<&Vulnerability> {
    rows.sort_by(|a, b| by_risk(a, b));
    let mut rank = HashMap::new();
    for row in &rows {
        let next = rank.len();
        rank.entry(group(row)).or_insert(next);
    }
    // The sort is stable: within a package the order by risk stays.
    rows.sort_by_key(|row| rank.get(&group(row)).copied());
    rows
}

/// Known to be exploited, severe, likely to be exploited, fixable: in this order.
fn by_risk(a: &Vulnerability, b: &Vulnerability) -> Ordering {
    let epss = |found: &Vulnerability| found.epss.unwrap_or_default();
    let better = |a: &Vulnerability, b: &Vulnerability| {
        (a.kev, a.severity)
            .cmp(&(b.kev, b.severity))
            .then(epss(a).total_cmp(&epss(b)))
            .then(a.is_fixable().cmp(&b.is_fixable()))
    };
    let name =
        |found: &Vulnerability| (found.package.clone(), found.id.clone(), found.path.clone());
    better(b, a).then_with(|| name(a).cmp(&name(b)))
}

fn grid(rows: &[&Vulnerability], with_titles: bool) -> Grid {
    let mut grid = Grid::new(&COLUMNS);
    let mut before = None;
    for found in rows {
        // The same package again: its name stands above.
        let again = before == Some(group(found));
        let once = |text: &str| Cell::new(if again { "" } else { text });
        let style = severity_style(found.severity);
        grid.row([
            once(&found.package),
            once(&found.installed_version),
            fixed_in(found),
            once(found.kind.as_str()),
            Cell::new(&found.id),
            Cell::styled(found.severity.as_str(), style),
            note(found),
            Cell::new(if with_titles { &found.title } else { "" }),
        ]);
        before = Some(group(found));
    }
    grid
}

fn fixed_in(found: &Vulnerability) -> Cell {
    let dimmed = |text| Cell::styled(text, Style::new().dimmed());
    match (found.fixed_versions.is_empty(), found.fix_state) {
        (false, _) => Cell::styled(
            found.fixed_versions.join(", "),
            AnsiColor::Green.on_default(),
        ),
        (true, FixState::WontFix) => dimmed("(won't fix)"),
        (true, FixState::EndOfLife) => dimmed("(end of life)"),
        (true, FixState::Investigating) => dimmed("(investigated)"),
        (true, _) => dimmed("-"),
    }
}

fn note(found: &Vulnerability) -> Cell {
    let mut notes = Vec::new();
    if found.kev {
        notes.push("KEV".to_owned());
    }
    notes.extend(
        found
            .epss
            .filter(|epss| *epss >= 0.1)
            .map(|epss| format!("EPSS {:.0}%", epss * 100.0)),
    );
    notes.extend(
        found
            .waived
            .as_ref()
            .map(|waived| format!("waived until {}: {}", waived.expires, waived.reason)),
    );
    notes.extend(vex_status(found).map(|status| format!("VEX: {}", status.replace('_', " "))));
    let style = if found.kev {
        AnsiColor::Red.on_default().bold()
    } else {
        Style::new()
    };
    Cell::styled(notes.join(", "), style)
}

/// One line that never sounds better than it is.
fn totals(report: &Report) -> String {
    let open: Vec<_> = report
        .vulnerabilities
        .iter()
        .filter(|found| !is_suppressed(found))
        .cloned()
        .collect();
    let counts = Counts::of(&open);
    let hidden = |gap: &model::Gap| matches!(gap.hides, Hides::Packages | Hides::Entries);
    if report.advisories.feeds.is_empty() {
        return "vulnerabilities were not looked for: there are no advisories yet; `tidewaiter db update` gets them".to_owned();
    }
    if open.is_empty() {
        return if report.gaps.iter().any(hidden) {
            "no vulnerabilities found, but not everything could be looked at".to_owned()
        } else {
            "no known vulnerabilities".to_owned()
        };
    }
    let each = Severity::ALL
        .into_iter()
        .filter(|severity| counts.of_severity(*severity) > 0);
    let each: Vec<_> = each
        .map(|severity| format!("{} {severity}", counts.of_severity(severity)))
        .collect();
    let exploited = open.iter().filter(|found| found.kev).count();
    let mut line = format!(
        "{}: {} · {} with a fix",
        count(open.len(), "vulnerability", "vulnerabilities"),
        each.join(", "),
        counts.fixable
    );
    if exploited > 0 {
        line = format!("{line} · {exploited} known to be exploited (KEV)");
    }
    line
}

/// What is not in the table.
fn notes(all: &[Vulnerability], shown: usize, page: &mut Page<'_>) -> io::Result<()> {
    let waived = all.iter().filter(|found| found.waived.is_some()).count();
    let vex = all
        .iter()
        .filter(|found| found.waived.is_none() && vex_status(found).is_some())
        .count();
    let listed = if page.options.show_suppressed {
        ""
    } else {
        "; --show-suppressed lists them"
    };
    if waived > 0 {
        page.line(&format!(
            "{waived} not counted, accepted by waivers{listed}"
        ))?;
    }
    if vex > 0 {
        page.line(&format!(
            "{vex} not counted, not affected by VEX documents{listed}"
        ))?;
    }
    let suppressed = if page.options.show_suppressed {
        0
    } else {
        waived + vex
    };
    let filtered = all.len().saturating_sub(suppressed + shown);
    if filtered > 0 {
        page.line(&format!(
            "{} not listed, but counted: {}",
            count(filtered, "more is", "more are"),
            left_out_by(page.options)
        ))?;
    }
    Ok(())
}

/// Which filters leave vulnerabilities out of the list.
fn left_out_by(options: &Options) -> &'static str {
    match (options.severities.is_empty(), options.ignore_unfixed) {
        (false, true) => "they have other severities, or no fix",
        (true, true) => "they have no fix",
        (_, false) => "they have other severities",
    }
}
