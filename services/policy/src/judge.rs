//! Judging: a policy and the facts in, a verdict out. No clock, no store, no order of rules.

use jiff::{SignedDuration, Timestamp};
use model::{
    Counts, Decision, Facts, Findings, Fingerprint, Misconfiguration, Verdict, Vulnerability,
    Waived,
};

use std::{cmp::Reverse, collections::BTreeMap};

use crate::{checks, defaults, document::Policy, evidence::Standing, waivers::InForce};

/// What a policy says of an image, and what is needed to keep it right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict, with its reasons, gravest first.
    pub verdict: Verdict,
    /// What each accepted finding is marked with.
    pub waived: BTreeMap<Fingerprint, Waived>,
    /// How many vulnerabilities count after waivers.
    pub counts: Counts,
    /// When the first waiver in force ends.
    pub waivers_end: Option<Timestamp>,
    /// When the operating system's security updates end, if they have not yet.
    pub os_ends: Option<Timestamp>,
    /// When the image gets as old as a rule or check asks about, if it is not yet.
    pub ages_at: Option<Timestamp>,
    /// The greatest age of advisory data that the policy allows, seconds.
    pub data_age_s_max: Option<i64>,
    /// Failed checks that nobody knew before: the policy's own, and that the operating system has ended.
    /// A report has them beside those of the scan.
    pub checks: Vec<Misconfiguration>,
}

/// Judges an image.
///
/// `repositories` are the image's names under this policy, as `registry/repository`; `data_at` is
/// when the oldest advisory data behind the facts were fetched.
pub fn judge(
    policy: &Policy,
    facts: &Facts<'_>,
    repositories: &[String],
    now: Timestamp,
    data_at: Option<Timestamp>,
) -> Judgement {
    let data_age = data_at.map(|at| now.duration_since(at));
    let mut checks = checks::of_time(facts, now);
    if !policy.checks.is_empty() {
        let waivers = InForce::new(policy, facts, &checks, repositories, now);
        let standing = Standing::new(facts, &checks, &waivers, data_age, now);
        let failed = checks::failed(&policy.checks, &standing);
        checks.extend(failed);
    }
    let waivers = InForce::new(policy, facts, &checks, repositories, now);
    let standing = Standing::new(facts, &checks, &waivers, data_age, now);
    let os_ends = facts.assessment.os_ends.filter(|ends| *ends > now);
    let mut reasons = Vec::new();
    defaults::reasons(&policy.defaults, &standing, &mut reasons);
    for rule in &policy.rules {
        let Some(evidence) = rule.when.evidence(&standing) else {
            continue;
        };
        let message = rule.message.as_ref().map(|text| text.0.as_str());
        let remediation = rule.remediation.as_ref().map(|text| text.0.as_str());
        reasons.push(evidence.into_reason(rule.name.as_str(), rule.then, message, remediation));
    }
    reasons.extend(waivers.expired_reason());
    reasons.sort_by_key(|reason| Reverse(reason.decision));
    let ages_at = policy
        .conditions()
        .filter_map(|condition| condition.holds_from(facts.target, now))
        .min();
    let ends = [waivers.end, os_ends, ages_at].into_iter().flatten();
    let age_max = policy.age_max().map(|age| age.0);
    let verdict = Verdict {
        decision: reasons
            .first()
            .map_or(Decision::Allow, |reason| reason.decision),
        reasons,
        policy: policy.name.clone(),
        policy_revision: policy.revision,
        advisory_revision: facts.assessment.advisories.revision,
        evaluated_at: now,
        valid_until: model::valid_until(data_at, age_max, ends),
    };
    Judgement {
        counts: Counts::of(standing.vulnerabilities.iter().copied()),
        waived: waivers.marks,
        waivers_end: waivers.end,
        os_ends,
        ages_at,
        data_age_s_max: age_max.map(|age: SignedDuration| age.as_secs()),
        verdict,
        checks,
    }
}

// === impl Judgement ===

impl Judgement {
    /// Adds the failed checks to the findings of a scan, and marks what is accepted, so that reports show
    /// who accepted it.
    pub fn complete(&self, vulnerabilities: &mut [Vulnerability], findings: &mut Findings) {
        let checks = self.checks.iter().cloned();
        findings.misconfigurations.extend(checks);
        let mark = |fingerprint: &Fingerprint, waived: &mut Option<Waived>| {
            if let Some(waiver) = self.waived.get(fingerprint) {
                *waived = Some(waiver.clone());
            }
        };
        for found in vulnerabilities {
            mark(&found.fingerprint, &mut found.waived);
        }
        for found in &mut findings.secrets {
            mark(&found.fingerprint, &mut found.waived);
        }
        for found in &mut findings.misconfigurations {
            mark(&found.fingerprint, &mut found.waived);
        }
        for found in &mut findings.malware {
            mark(&found.fingerprint, &mut found.waived);
        }
        for found in &mut findings.licenses {
            mark(&found.fingerprint, &mut found.waived);
        }
    }
}

#[cfg(test)]
mod tests;
