//! Checks of the operator's own: conditions of a policy that fail as the built-in checks do, with an id,
//! a severity, clauses and a remedy. Rules ask for them, reports and benchmarks show them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use model::{Facts, Fingerprint, Misconfiguration, Slug};
use serde::Deserialize;

use crate::{
    condition::Condition,
    evidence::Standing,
    values::{Level, Text},
};

/// Checks of one policy: a report names each that fails.
const CHECKS_MAX: usize = 200;

/// A check: it fails where its condition holds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnCheck {
    /// Its id, which rules and reports give; not that of a built-in check.
    pub id: Slug,
    /// What is wrong where it fails.
    pub title: Text,
    /// How bad that is.
    pub severity: Level,
    /// Clauses that it is part of: of a benchmark, as `CIS Docker 4.2`, or of rules of the house.
    #[serde(default)]
    pub clauses: Vec<Text>,
    /// Where it fails.
    pub when: Condition,
    /// What to do.
    pub remediation: Text,
}

/// The failed checks that nobody knows before an image is judged, but for those of the policy.
pub(crate) fn of_time(facts: &Facts<'_>, now: Timestamp) -> Vec<Misconfiguration> {
    let ended = analyzers::end_of_life(facts.assessment, now);
    ended.into_iter().collect()
}

/// The checks of a policy that fail. They see what waivers leave, and not one another.
pub(crate) fn failed(checks: &[OwnCheck], facts: &Standing<'_>) -> Vec<Misconfiguration> {
    let failed = |check: &OwnCheck| Some(check.finding(check.when.evidence(facts)?.text()));
    checks.iter().filter_map(failed).collect()
}

/// What is wrong with the checks of a document.
pub(crate) fn misfit(checks: &[OwnCheck]) -> Option<String> {
    if checks.len() > CHECKS_MAX {
        return Some(format!("it has more than {CHECKS_MAX} checks"));
    }
    let mut ids = BTreeSet::new();
    for check in checks {
        let id = check.id.as_str();
        if analyzers::is_check(id) {
            return Some(format!("check `{id}`: a built-in check has this id"));
        }
        if !ids.insert(id) {
            return Some(format!("there are two checks `{id}`"));
        }
        if let Some(why) = check.when.misfit() {
            return Some(format!("check `{id}`: {why}"));
        }
    }
    None
}

// === impl OwnCheck ===

impl OwnCheck {
    fn finding(&self, evidence: String) -> Misconfiguration {
        let Self {
            id,
            title,
            severity: Level(severity),
            clauses,
            when: _,
            remediation,
        } = self;
        Misconfiguration {
            id: id.to_string(),
            title: title.0.clone(),
            severity: *severity,
            clauses: clauses.iter().map(ToString::to_string).collect(),
            evidence,
            path: None,
            line: None,
            remediation: remediation.0.clone(),
            waived: None,
            // An image has each of them once.
            fingerprint: Fingerprint::of(&["own-check", id.as_str()]),
        }
    }
}
