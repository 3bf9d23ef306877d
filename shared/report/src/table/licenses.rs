//! Licences, strictest first, each with the packages that are under it.

use std::{cmp::Reverse, collections::BTreeMap, io};

use model::License;

use super::page::{Page, count};
use crate::{Cell, Column, Cut, Grid};

/// Packages of one licence that are named.
const NAMED_MAX: usize = 8;

const COLUMNS: [Column; 4] = [
    Column {
        title: "LICENSE",
        cut: Cut::End,
    },
    Column {
        title: "KIND",
        cut: Cut::Never,
    },
    Column {
        title: "PACKAGES",
        cut: Cut::Never,
    },
    Column {
        title: "WHICH",
        cut: Cut::End,
    },
];

/// Lists the licences, where that was asked for.
pub(super) fn write(licenses: &[License], page: &mut Page<'_>) -> io::Result<()> {
    if !page.options.licenses || licenses.is_empty() {
        return Ok(());
    }
    let mut packages: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for license in licenses {
        let key = (Reverse(license.category), license.expression.as_str());
        packages.entry(key).or_default().push(&license.package);
    }
    let mut grid = Grid::new(&COLUMNS);
    let kinds = packages.len();
    for ((Reverse(category), expression), mut names) in packages {
        let installed = names.len();
        names.sort_unstable();
        names.dedup();
        let more = names.len().saturating_sub(NAMED_MAX);
        names.truncate(NAMED_MAX);
        let mut which = names.join(", ");
        if more > 0 {
            which = format!("{which} and {more} more");
        }
        grid.row([
            Cell::new(expression),
            Cell::new(category.as_str().replace('_', " ")),
            Cell::new(installed.to_string()),
            Cell::new(which),
        ]);
    }
    page.heading(&count(kinds, "license", "licenses"))?;
    page.grid(&grid)
}
