//! Packages, where there is nothing else to say of them.

use std::io;

use model::Report;

use super::page::Page;
use crate::{Cell, Column, Cut, Grid};

const COLUMNS: [Column; 4] = [
    Column {
        title: "PACKAGE",
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
        title: "WHERE",
        cut: Cut::Start,
    },
];

/// Lists every package, where vulnerabilities were not looked for.
pub(super) fn write(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    if !report.advisories.feeds.is_empty() || report.packages.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<_> = report.packages.iter().collect();
    packages.sort_by(|a, b| (&a.name, &a.version, &a.path).cmp(&(&b.name, &b.version, &b.path)));
    let mut grid = Grid::new(&COLUMNS);
    for package in packages {
        grid.row([
            Cell::new(&package.name),
            Cell::new(&package.version),
            Cell::new(package.kind.as_str()),
            Cell::new(&package.path),
        ]);
    }
    page.blank()?;
    page.grid(&grid)
}
