//! A page of lines that fit the terminal.

use std::io;

use anstyle::{AnsiColor, Style};
use model::{Decision, Severity};
use unicode_width::UnicodeWidthStr as _;

use crate::{Grid, Options, clean, grid::paint};

/// Where the table is written.
pub(super) struct Page<'a> {
    pub(super) options: &'a Options,
    out: &'a mut dyn io::Write,
}

// === impl Page ===

impl<'a> Page<'a> {
    pub(super) fn new(options: &'a Options, out: &'a mut dyn io::Write) -> Self {
        Self { options, out }
    }

    pub(super) fn blank(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    /// A line; what does not fit goes on in the next one.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.styled(text, Style::new())
    }

    pub(super) fn styled(&mut self, text: &str, style: Style) -> io::Result<()> {
        self.wrapped("", text, style)
    }

    /// A paragraph whose first line begins with `lead` and whose others are as far in.
    pub(super) fn wrapped(&mut self, lead: &str, text: &str, style: Style) -> io::Result<()> {
        let text = clean(text);
        let indent = lead.width();
        let room = self
            .options
            .width
            .map(|width| width.saturating_sub(indent).max(20));
        for (index, line) in wrap(&text, room).iter().enumerate() {
            let lead = if index == 0 {
                lead.to_owned()
            } else {
                " ".repeat(indent)
            };
            writeln!(self.out, "{lead}{}", paint(line, style, self.options.color))?;
        }
        Ok(())
    }

    /// A heading with a blank line before it.
    pub(super) fn heading(&mut self, text: &str) -> io::Result<()> {
        self.blank()?;
        self.styled(text, Style::new().bold())
    }

    pub(super) fn grid(&mut self, grid: &Grid) -> io::Result<()> {
        grid.write(self.options.width, self.options.color, self.out)
    }
}

/// Breaks at blanks; a word that is longer than a line stays whole.
fn wrap(text: &str, room: Option<usize>) -> Vec<String> {
    let Some(room) = room else {
        return vec![text.trim_end().to_owned()];
    };
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.width() + 1 + word.width() <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// `1 secret`, `2 secrets`.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

pub(super) const fn severity_style(severity: Severity) -> Style {
    match severity {
        Severity::Critical => AnsiColor::Red.on_default().bold(),
        Severity::High => AnsiColor::Red.on_default(),
        Severity::Medium => AnsiColor::Yellow.on_default(),
        Severity::Low => AnsiColor::Cyan.on_default(),
        Severity::Negligible | Severity::Unknown => Style::new().dimmed(),
    }
}

pub(super) const fn decision_style(decision: Decision) -> Style {
    match decision {
        Decision::Allow => AnsiColor::Green.on_default().bold(),
        Decision::Warn | Decision::Incomplete => AnsiColor::Yellow.on_default().bold(),
        Decision::Deny => AnsiColor::Red.on_default().bold(),
    }
}
