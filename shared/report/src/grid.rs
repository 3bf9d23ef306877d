//! Tables without borders that fit a terminal.

use std::io;

use anstyle::Style;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::clean;

const GAP: usize = 2;
/// A column that may be cut keeps its heading and this much.
const KEPT: usize = 14;
/// On narrow terminals it keeps this much, and of its heading as well.
const KEPT_NARROW: usize = 6;

/// A table: columns, and rows of cells.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// A column of a [`Grid`].
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The heading.
    pub title: &'static str,
    /// Where its cells may be cut.
    pub cut: Cut,
}

/// Where the cells of a column may be cut when the terminal is too narrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nowhere.
    Never,
    /// At the end.
    End,
    /// At the beginning, as suits paths.
    Start,
    /// At the end, when nothing is left to cut in the others: for ids that people copy.
    Last,
}

/// A cell of a [`Grid`]; its text is [`clean`].
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    style: Style,
}

// === impl Grid ===

impl Grid {
    /// A table without rows.
    pub fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, one cell for each column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the table with its headings. Columns in which nothing stands are left out.
    pub fn write(
        &self,
        width: Option<usize>,
        color: bool,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let mut widths = self.natural_widths();
        if let Some(width) = width {
            self.fit(&mut widths, width);
        }
        let heading: Vec<_> = self
            .columns
            .iter()
            .map(|c| Cell::styled(c.title, Style::new().bold()))
            .collect();
        for row in std::iter::once(&heading).chain(&self.rows) {
            let line = self.line(row, &widths, color);
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    /// The width of each column; 0 for one in which nothing stands.
    fn natural_widths(&self) -> Vec<usize> {
        let width = |(index, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            let widest = cells
                .map(|cell| cell.text.width())
                .max()
                .unwrap_or_default();
            if widest == 0 {
                0
            } else {
                widest.max(column.title.width())
            }
        };
        self.columns.iter().enumerate().map(width).collect()
    }

    /// Takes from the widest columns that may be cut, until the table fits or nothing is left to
    /// take.
    fn fit(&self, widths: &mut [usize], limit: usize) {
        let wide = |column: &Column| KEPT.max(column.title.width());
        let narrow = |_: &Column| KEPT_NARROW;
        self.take(widths, limit, wide, &[Cut::End, Cut::Start]);
        self.take(widths, limit, narrow, &[Cut::End, Cut::Start]);
        self.take(widths, limit, narrow, &[Cut::Last]);
    }

    fn take(
        &self,
        widths: &mut [usize],
        limit: usize,
        kept: impl Fn(&Column) -> usize,
        cuts: &[Cut],
    ) {
        while total(widths) > limit {
            let cuttable = widths
                .iter_mut()
                .zip(&self.columns)
                .filter(|(width, column)| cuts.contains(&column.cut) && **width > kept(column));
            let Some((widest, _)) = cuttable.max_by_key(|(width, _)| **width) else {
                break;
            };
            *widest -= 1;
        }
    }

    fn line(&self, row: &[Cell], widths: &[usize], color: bool) -> String {
        let mut line = String::new();
        let mut column_start = 0;
        let mut at = 0;
        for ((cell, width), column) in row.iter().zip(widths).zip(&self.columns) {
            if *width == 0 {
                continue;
            }
            let text = cut(&cell.text, *width, column.cut);
            if !text.is_empty() {
                line.extend(std::iter::repeat_n(' ', column_start - at));
                at = column_start + text.width();
                line.push_str(&paint(&text, cell.style, color));
            }
            column_start = at.max(column_start + width) + GAP;
        }
        line
    }
}

// === impl Cell ===

impl Cell {
    /// A cell without style.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self::styled(text, Style::new())
    }

    /// A cell with a style, for terminals with color.
    pub fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self {
            text: clean(text.as_ref()).into_owned(),
            style,
        }
    }
}

/// The text with its style, if styles are wanted.
pub(crate) fn paint(text: &str, style: Style, color: bool) -> String {
    if color && style != Style::new() {
        format!("{style}{text}{style:#}")
    } else {
        text.to_owned()
    }
}

fn total(widths: &[usize]) -> usize {
    let columns = widths.iter().filter(|width| **width > 0).count();
    widths.iter().sum::<usize>() + GAP * columns.saturating_sub(1)
}

/// The text, cut to a width where its place allows that.
pub(crate) fn cut(text: &str, width: usize, place: Cut) -> String {
    if place == Cut::Never || text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let mut taken = 0;
    let mut fits = |c: &char| {
        taken += c.width().unwrap_or_default();
        taken <= room
    };
    if place == Cut::Start {
        let kept: Vec<char> = text.chars().rev().take_while(&mut fits).collect();
        std::iter::once('…').chain(kept.into_iter().rev()).collect()
    } else {
        text.chars().take_while(&mut fits).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(width: Option<usize>) -> String {
        let mut grid = Grid::new(&[
            Column {
                title: "NAME",
                cut: Cut::End,
            },
            Column {
                title: "EMPTY",
                cut: Cut::Never,
            },
            Column {
                title: "PATH",
                cut: Cut::Start,
            },
            Column {
                title: "ID",
                cut: Cut::Never,
            },
        ]);
        let row = |texts: [&str; 4]| texts.map(Cell::new);
        grid.row(row([
            "a-rather-long-name-of-a-package",
            "",
            "usr/lib/python3/x/METADATA",
            "CVE-1",
        ]));
        grid.row(row(["", "", "漢字漢字漢字漢字漢字漢字漢字漢字", "CVE-22"]));
        let mut out = Vec::new();
        grid.write(width, false, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn wide_tables_are_as_wide_as_they_are() {
        insta::assert_snapshot!(check(None), @r#"
        NAME                             PATH                              ID
        a-rather-long-name-of-a-package  usr/lib/python3/x/METADATA        CVE-1
                                         漢字漢字漢字漢字漢字漢字漢字漢字  CVE-22
        "#);
    }

    #[test]
    fn narrow_ones_are_cut_where_it_hurts_least() {
        let text = check(Some(50));
        assert!(text.lines().all(|line| line.width() <= 50), "{text}");
        insta::assert_snapshot!(text, @r#"
        NAME                  PATH                  ID
        a-rather-long-name-…  …/python3/x/METADATA  CVE-1
                              …字漢字漢字漢字漢字   CVE-22
        "#);
        assert!(check(Some(28)).lines().all(|line| line.width() <= 28));
    }
}
