//! The verdict: why, what to do, and one line at the end.

use std::io;

use anstyle::Style;
use model::{Decision, Reason, Verdict};
use unicode_width::UnicodeWidthStr as _;

use super::page::{Page, count, decision_style};
use crate::{Cut, clean, grid::cut};

const REASONS_SHOWN: usize = 10;
/// A shorter beginning of a message, as `1 gap`, says nothing.
const GIST_BYTES_MIN: usize = 16;

pub(super) fn write(verdict: &Verdict, page: &mut Page<'_>) -> io::Result<()> {
    let reasons = worst_first(&verdict.reasons);
    page.blank()?;
    for reason in reasons.iter().take(REASONS_SHOWN) {
        let text = format!("{} ({}): {}", reason.decision, reason.rule, reason.message);
        page.wrapped("- ", &text, Style::new())?;
        if !reason.remediation.is_empty() {
            page.wrapped("  → ", &reason.remediation, Style::new())?;
        }
    }
    if reasons.len() > REASONS_SHOWN {
        let more = count(reasons.len() - REASONS_SHOWN, "more reason", "more reasons");
        page.line(&format!("  and {more}: --format json has all"))?;
    }
    let last = clean(&last_line(verdict, page.options.width)).into_owned();
    page.styled(&last, decision_style(verdict.decision))
}

fn worst_first(reasons: &[Reason]) -> Vec<&Reason> {
    let mut reasons: Vec<_> = reasons.iter().collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.decision));
    reasons
}

/// The verdict and why, in one line; what does not fit the terminal stands above it anyway.
pub(super) fn last_line(verdict: &Verdict, width: Option<usize>) -> String {
    let word = match verdict.decision {
        Decision::Allow => "ALLOW",
        Decision::Warn => "WARN",
        Decision::Incomplete => "INCOMPLETE",
        Decision::Deny => "DENY",
    };
    let same = |reason: &&&Reason| reason.decision == verdict.decision;
    let reasons = worst_first(&verdict.reasons);
    let reasons: Vec<_> = reasons.iter().filter(same).collect();
    let why = match reasons.first() {
        Some(first) => gist(&first.message),
        None if verdict.decision == Decision::Allow => "nothing that the policy refuses",
        None => "see above",
    };
    let others = reasons.len().saturating_sub(1);
    let others = format!(", and {}", count(others, "other reason", "other reasons"));
    let others = (reasons.len() > 1).then_some(others);
    let policy = format!(" · policy {}", verdict.policy);
    let until = verdict
        .valid_until
        .map(|until| format!(" · holds until {}", until.strftime("%Y-%m-%d %H:%M UTC")));
    let mut line = format!("{word}: {why}");
    for part in [others, Some(policy), until].into_iter().flatten() {
        if width.is_some_and(|width| line.width() + part.width() > width) {
            break;
        }
        line.push_str(&part);
    }
    width.map_or(line.clone(), |width| cut(&line, width, Cut::End))
}

/// What a message says before it lists what it found.
fn gist(message: &str) -> &str {
    let ends = message.match_indices(": ").map(|(at, _)| at);
    let end = ends.into_iter().find(|end| *end >= GIST_BYTES_MIN);
    end.and_then(|end| message.get(..end)).unwrap_or(message)
}
