//! What could not be looked at, and what that hides.

use std::io;

use anstyle::AnsiColor;
use model::{Gap, GapCode, Hides};

use super::page::{Page, count};
use crate::{Cell, Column, Cut, Grid};

const SHOWN: usize = 20;

pub(super) fn write(gaps: &[Gap], page: &mut Page<'_>) -> io::Result<()> {
    if gaps.is_empty() {
        return Ok(());
    }
    page.heading(&format!(
        "{} that could not be looked at",
        count(gaps.len(), "thing", "things")
    ))?;
    let mut grid = Grid::new(&[
        Column {
            title: "GAP",
            cut: Cut::Never,
        },
        Column {
            title: "MAY HIDE",
            cut: Cut::Never,
        },
        Column {
            title: "WHERE",
            cut: Cut::Start,
        },
        Column {
            title: "WHAT HAPPENED",
            cut: Cut::End,
        },
    ]);
    for gap in worst_first(gaps).into_iter().take(SHOWN) {
        grid.row([
            Cell::styled(code(gap.code), AnsiColor::Yellow.on_default()),
            Cell::new(hides(gap.hides)),
            Cell::new(place(gap)),
            Cell::new(&gap.detail),
        ]);
    }
    page.grid(&grid)?;
    if gaps.len() > SHOWN {
        page.line(&format!(
            "and {} more: --format json has all",
            gaps.len() - SHOWN
        ))?;
    }
    Ok(())
}

fn worst_first(gaps: &[Gap]) -> Vec<&Gap> {
    let rank = |hides| match hides {
        Hides::Entries => 0,
        Hides::Packages => 1,
        Hides::Malware => 2,
        Hides::Secrets => 3,
        Hides::Nothing => 4,
    };
    let mut gaps: Vec<_> = gaps.iter().collect();
    gaps.sort_by_key(|gap| rank(gap.hides));
    gaps
}

const fn hides(hides: Hides) -> &'static str {
    match hides {
        Hides::Packages => "packages",
        Hides::Secrets => "secrets",
        Hides::Malware => "malware",
        Hides::Entries => "everything",
        Hides::Nothing => "nothing",
    }
}

/// The code as JSON writes it.
fn code(code: GapCode) -> String {
    let text = serde_json::to_value(code).ok();
    text.and_then(|text| text.as_str().map(ToOwned::to_owned))
        .unwrap_or_default()
}

fn place(gap: &Gap) -> String {
    match (&gap.path, &gap.layer) {
        (Some(path), _) => path.clone(),
        (None, Some(layer)) => format!("layer {}", layer.short()),
        (None, None) => String::new(),
    }
}
