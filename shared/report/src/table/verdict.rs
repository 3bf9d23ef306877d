//! The verdict: why, what to do, and one line at the end.

use std::io;

use anstyle::Style;
use model::{Decision, Reason, Verdict};

use super::page::{Page, count, decision_style};

const REASONS_SHOWN: usize = 10;

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
    page.styled(&last_line(verdict), decision_style(verdict.decision))
}

fn worst_first(reasons: &[Reason]) -> Vec<&Reason> {
    let mut reasons: Vec<_> = reasons.iter().collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.decision));
    reasons
}

/// The verdict and why.
pub(super) fn last_line(verdict: &Verdict) -> String {
    let reasons = worst_first(&verdict.reasons);
    let word = match verdict.decision {
        Decision::Allow => "ALLOW",
        Decision::Warn => "WARN",
        Decision::Incomplete => "INCOMPLETE",
        Decision::Deny => "DENY",
    };
    let why: Vec<_> = reasons
        .iter()
        .filter(|reason| reason.decision == verdict.decision)
        .collect();
    let why = match why.as_slice() {
        [] if verdict.decision == Decision::Allow => "nothing that the policy refuses".to_owned(),
        [] => "see above".to_owned(),
        [one] => one.message.clone(),
        [first, rest @ ..] => {
            format!(
                "{}, and {}",
                first.message,
                count(rest.len(), "other reason", "other reasons")
            )
        }
    };
    let until = verdict
        .valid_until
        .map(|until| format!(", holds until {until}"));
    format!(
        "{word}: {why} (policy {}{})",
        verdict.policy,
        until.unwrap_or_default()
    )
}
