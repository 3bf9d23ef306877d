//! Assessments and verdicts: what is wrong with an image, and what follows under a policy.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AdvisoryStamp, Digest, Findings, Fingerprint, Gap, Os, Severity, Slug, Target, Vulnerability,
};

/// What policy says. The order is the precedence: the greatest of several holds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Use it.
    Allow,
    /// Use it, but look at it.
    Warn,
    /// We do not know enough to allow it.
    Incomplete,
    /// Do not use it.
    Deny,
}

/// The vulnerabilities of an image at one advisory revision: the matcher's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// The image.
    pub image: Digest,
    /// The scan that it rests on: the KV revision of the `scanned` record; 0 without a broker.
    pub scan: u64,
    /// The advisory data that it rests on.
    pub advisories: AdvisoryStamp,
    /// The operating system, with what is known of its end of life.
    #[serde(default)]
    pub os: Option<Os>,
    /// From when on the operating system gets no security updates; `None` where we do not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_ends: Option<Timestamp>,
    /// Vulnerabilities, most urgent first.
    pub vulnerabilities: Vec<Vulnerability>,
    /// Gaps of the scan and of the matching.
    pub gaps: Vec<Gap>,
}

/// Everything that a policy may ask about an image.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The matcher's result.
    pub assessment: &'a Assessment,
    /// Findings that need no advisories.
    pub findings: &'a Findings,
    /// The image itself.
    pub target: &'a Target,
}

/// What a policy says of an image, and why; the report's `verdict`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// Why: one per rule that fired.
    pub reasons: Vec<Reason>,
    /// The policy.
    pub policy: Slug,
    /// The policy's KV revision; 0 for the built-in one and for files.
    pub policy_revision: u64,
    /// The advisory revision; 0 without advisories.
    pub advisory_revision: u64,
    /// When it was judged.
    #[schemars(with = "crate::schema::Time")]
    pub evaluated_at: Timestamp,
    /// Until when the answer holds; computed when asked. `None`: as long as nothing changes.
    #[serde(default)]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub valid_until: Option<Timestamp>,
}

/// A rule that fired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// The rule's name.
    pub rule: String,
    /// What it decides.
    pub decision: Decision,
    /// The findings it rests on.
    #[serde(default)]
    pub fingerprints: Vec<Fingerprint>,
    /// One sentence for a person, with the evidence.
    pub message: String,
    /// What to do.
    #[serde(default)]
    pub remediation: String,
}

/// How many findings there are of each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Level 5.
    pub critical: u32,
    /// Level 4.
    pub high: u32,
    /// Level 3.
    pub medium: u32,
    /// Level 2.
    pub low: u32,
    /// Level 1.
    pub negligible: u32,
    /// Level 0.
    pub unknown: u32,
    /// Of all of them, how many have a fix.
    pub fixable: u32,
}

/// Until when a verdict may be given as an answer (architecture, "How long").
///
/// `data_at` is when the advisory data behind it were fetched, `age_max` the policy's limit for
/// their age, `ends` when something else that it rests on ends: the first waiver in force, the
/// support of the operating system.
pub fn valid_until(
    data_at: Option<Timestamp>,
    age_max: Option<SignedDuration>,
    ends: impl IntoIterator<Item = Timestamp>,
) -> Option<Timestamp> {
    let data_ends = data_at
        .zip(age_max)
        .and_then(|(at, age)| at.checked_add(age).ok());
    data_ends.into_iter().chain(ends).min()
}

// === impl Decision ===

impl Decision {
    /// As in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Warn => "warn",
            Self::Incomplete => "incomplete",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

// === impl Counts ===

impl Counts {
    /// Counts vulnerabilities that no waiver accepts.
    pub fn of<'a>(vulnerabilities: impl IntoIterator<Item = &'a Vulnerability>) -> Self {
        let mut counts = Self::default();
        for found in vulnerabilities
            .into_iter()
            .filter(|found| found.waived.is_none())
        {
            *counts.of_severity_mut(found.severity) += 1;
            counts.fixable += u32::from(found.is_fixable());
        }
        counts
    }

    /// How many of one severity.
    pub const fn of_severity(&self, severity: Severity) -> u32 {
        match severity {
            Severity::Critical => self.critical,
            Severity::High => self.high,
            Severity::Medium => self.medium,
            Severity::Low => self.low,
            Severity::Negligible => self.negligible,
            Severity::Unknown => self.unknown,
        }
    }

    /// How many in all.
    pub const fn total(&self) -> u32 {
        self.critical + self.high + self.medium + self.low + self.negligible + self.unknown
    }

    fn of_severity_mut(&mut self, severity: Severity) -> &mut u32 {
        match severity {
            Severity::Critical => &mut self.critical,
            Severity::High => &mut self.high,
            Severity::Medium => &mut self.medium,
            Severity::Low => &mut self.low,
            Severity::Negligible => &mut self.negligible,
            Severity::Unknown => &mut self.unknown,
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// The verdict as an answer at `now`: past `valid_until` it reads as `incomplete`.
    #[must_use]
    pub fn as_of(&self, now: Timestamp) -> Self {
        let mut verdict = self.clone();
        let Some(until) = self.valid_until.filter(|until| *until <= now) else {
            return verdict;
        };
        verdict.decision = verdict.decision.max(Decision::Incomplete);
        verdict.reasons.push(Reason {
            rule: "verdict-expired".to_owned(),
            decision: Decision::Incomplete,
            fingerprints: Vec::new(),
            message: format!(
                "the verdict held until {until}: advisory data, a waiver or the operating system's \
                 support ran out"
            ),
            remediation:
                "update the advisories (`tidewaiter db update`), renew the waiver or move \
                          to a newer release"
                    .to_owned(),
        });
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_decision_is_the_one_that_holds() {
        use Decision::{Allow, Deny, Incomplete, Warn};
        assert_eq!(
            [Warn, Deny, Incomplete, Allow].into_iter().max(),
            Some(Deny)
        );
        assert_eq!([Warn, Incomplete].into_iter().max(), Some(Incomplete));
    }

    #[test]
    fn an_answer_holds_until_the_earlier_of_data_age_and_waivers() {
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let day = SignedDuration::from_hours(24);
        let waiver: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        assert_eq!(valid_until(Some(at), Some(day), None), Some(at + day));
        assert_eq!(valid_until(Some(at), Some(day), Some(waiver)), Some(waiver));
        assert_eq!(valid_until(Some(at), None, None), None);
        let ends = [waiver, at + SignedDuration::from_hours(6)];
        assert_eq!(valid_until(Some(at), Some(day), ends), Some(ends[1]));
    }

    #[test]
    fn an_expired_verdict_reads_as_incomplete() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let verdict = Verdict {
            decision: Decision::Allow,
            reasons: Vec::new(),
            policy: "default".parse().unwrap(),
            policy_revision: 0,
            advisory_revision: 1,
            evaluated_at: now,
            valid_until: Some(now),
        };
        assert_eq!(verdict.as_of(now).decision, Decision::Incomplete);
    }
}
