//! Findings that need no advisories: secrets, misconfigurations, malware, changed files.

use std::io;

use anstyle::AnsiColor;
use model::{Malware, Misconfiguration, RemovedPackage, Secret, Severity, Tampered, Waived};

use super::page::{Page, count, severity_style};
use crate::{Cell, Column, Cut, Grid};

const TAMPERED_SHOWN: usize = 20;
const SEVERITY: Column = Column {
    title: "SEVERITY",
    cut: Cut::Never,
};
const NOTE: Column = Column {
    title: "NOTE",
    cut: Cut::End,
};

/// Of what a later layer deletes.
const DELETED: &str = "deleted by a later layer, still in the image";

pub(super) fn secrets(secrets: &[Secret], page: &mut Page<'_>) -> io::Result<()> {
    let mut grid = Grid::new(&[
        Column {
            title: "SECRET",
            cut: Cut::End,
        },
        SEVERITY,
        Column {
            title: "WHERE",
            cut: Cut::Start,
        },
        Column {
            title: "LAYER",
            cut: Cut::Never,
        },
        Column {
            title: "FOUND",
            cut: Cut::End,
        },
        NOTE,
    ]);
    for found in by_severity(
        secrets,
        |found| (found.severity, found.waived.as_ref()),
        page,
    ) {
        let mut notes = waiver(found.waived.as_ref());
        if found.deleted_later {
            notes.insert(0, DELETED.to_owned());
        }
        if let Some(end) = found.expires_at {
            notes.push(format!("ends {}", end.strftime("%Y-%m-%d")));
        }
        notes.push(found.advice.clone());
        grid.row([
            Cell::new(&found.title),
            severity(found.severity),
            Cell::new(format!("{}:{}", found.path, found.line)),
            Cell::new(found.layer.short()),
            Cell::new(&found.masked),
            Cell::styled(notes.join(", "), AnsiColor::Yellow.on_default()),
        ]);
    }
    write(secrets.len(), ["secret", "secrets"], &grid, page)
}

pub(super) fn misconfigurations(found: &[Misconfiguration], page: &mut Page<'_>) -> io::Result<()> {
    let mut grid = Grid::new(&[
        Column {
            title: "CHECK",
            cut: Cut::Never,
        },
        SEVERITY,
        Column {
            title: "WHAT",
            cut: Cut::End,
        },
        Column {
            title: "WHERE",
            cut: Cut::Start,
        },
        Column {
            title: "DO",
            cut: Cut::End,
        },
        NOTE,
    ]);
    for one in by_severity(found, |found| (found.severity, found.waived.as_ref()), page) {
        let line = one.line.map(|line| format!(":{line}")).unwrap_or_default();
        let place = one
            .path
            .as_ref()
            .map(|path| format!("{path}{line}"))
            .unwrap_or_default();
        grid.row([
            Cell::new(&one.id),
            severity(one.severity),
            Cell::new(&one.title),
            Cell::new(place),
            Cell::new(&one.remediation),
            Cell::new(waiver(one.waived.as_ref()).join(", ")),
        ]);
    }
    write(
        found.len(),
        ["misconfiguration", "misconfigurations"],
        &grid,
        page,
    )
}

pub(super) fn malware(found: &[Malware], page: &mut Page<'_>) -> io::Result<()> {
    let mut grid = Grid::new(&[
        Column {
            title: "MALWARE",
            cut: Cut::End,
        },
        SEVERITY,
        Column {
            title: "WHERE",
            cut: Cut::Start,
        },
        Column {
            title: "LAYER",
            cut: Cut::Never,
        },
        Column {
            title: "FILE",
            cut: Cut::Never,
        },
        NOTE,
    ]);
    for one in by_severity(found, |found| (found.severity, found.waived.as_ref()), page) {
        let mut notes = waiver(one.waived.as_ref());
        if one.deleted_later {
            notes.insert(0, DELETED.to_owned());
        }
        grid.row([
            Cell::new(format!("{} ({})", one.rule, one.ruleset)),
            severity(one.severity),
            Cell::new(&one.path),
            Cell::new(one.layer.short()),
            Cell::new(one.digest.short()),
            Cell::new(notes.join(", ")),
        ]);
    }
    write(
        found.len(),
        ["malicious file", "malicious files"],
        &grid,
        page,
    )
}

pub(super) fn tampered(found: &[Tampered], page: &mut Page<'_>) -> io::Result<()> {
    let mut grid = Grid::new(&[
        Column {
            title: "CHANGED FILE",
            cut: Cut::Start,
        },
        Column {
            title: "PACKAGE",
            cut: Cut::End,
        },
        Column {
            title: "LAYER",
            cut: Cut::Never,
        },
    ]);
    for one in found.iter().take(TAMPERED_SHOWN) {
        let layer = Cell::new(one.layer.short());
        grid.row([
            Cell::new(&one.path),
            Cell::new(one.package_id.to_string()),
            layer,
        ]);
    }
    let words = [
        "file is not as its package made it",
        "files are not as their packages made them",
    ];
    write(found.len(), words, &grid, page)
}

pub(super) fn removed(found: &[RemovedPackage], page: &mut Page<'_>) -> io::Result<()> {
    let mut grid = Grid::new(&[
        Column {
            title: "REMOVED PACKAGE",
            cut: Cut::End,
        },
        Column {
            title: "VERSION",
            cut: Cut::End,
        },
        Column {
            title: "TYPE",
            cut: Cut::Never,
        },
        Column {
            title: "LAYER",
            cut: Cut::Never,
        },
        Column {
            title: "REMOVED BY",
            cut: Cut::Never,
        },
    ]);
    for one in found {
        grid.row([
            Cell::new(&one.name),
            Cell::new(&one.version),
            Cell::new(one.kind.to_string()),
            Cell::new(one.layer.short()),
            Cell::new(one.removed_by.short()),
        ]);
    }
    let words = [
        "package was removed or replaced by a later layer",
        "packages were removed or replaced by later layers",
    ];
    write(found.len(), words, &grid, page)
}

/// A heading with the number of all, and those that are shown.
fn write(all: usize, words: [&str; 2], grid: &Grid, page: &mut Page<'_>) -> io::Result<()> {
    if all == 0 {
        return Ok(());
    }
    let [one, many] = words;
    page.heading(&count(all, one, many))?;
    match grid.len() {
        0 => {
            return page.line("none of them is shown here; the verdict counts them as policy says");
        }
        shown if shown < all => page.line(&format!(
            "{shown} of them {} shown here; the verdict counts all as policy says",
            if shown == 1 { "is" } else { "are" }
        ))?,
        _ => {}
    }
    page.grid(grid)
}

/// What the options show, worst first.
fn by_severity<'a, T>(
    all: &'a [T],
    facts: impl Fn(&T) -> (Severity, Option<&Waived>),
    page: &Page<'_>,
) -> Vec<&'a T> {
    let options = page.options;
    let mut shown: Vec<_> = all
        .iter()
        .filter(|found| {
            let (severity, waived) = facts(found);
            options.shows(severity) && (options.show_suppressed || waived.is_none())
        })
        .collect();
    shown.sort_by_key(|found| std::cmp::Reverse(facts(found).0));
    shown
}

fn severity(severity: Severity) -> Cell {
    Cell::styled(severity.as_str(), severity_style(severity))
}

fn waiver(waived: Option<&Waived>) -> Vec<String> {
    let note = |waived: &Waived| format!("waived until {}: {}", waived.expires, waived.reason);
    waived.map(note).into_iter().collect()
}
