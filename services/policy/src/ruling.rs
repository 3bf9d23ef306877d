//! A ruling: the verdict of one policy that shall hold from here on, what it replaces, what it
//! tells.
//!
//! News are computed from the verdict's own `previous`, so whoever meets the verdict again, after a
//! crash between writing and telling, tells the same under the same message id.

use std::collections::BTreeMap;

use bus::Stored;
use jiff::{SignedDuration, Timestamp};
use model::{Counts, Decision, Judged, Reason, RecordKey, Verdict, event::ImageJudged};

use crate::{document::Policy, metrics};

/// The rule of verdicts under a policy that an image no longer selects.
const NOT_SELECTED: &str = "not-selected";
/// News of a verdict this young are given again when it is met again, for whoever wrote it may have
/// died before he told. The stream drops what it has had within the same time.
const TELL_AGAIN: SignedDuration = SignedDuration::from_mins(10);

/// What shall be done about the verdict of one policy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ruling {
    /// The verdict's key.
    pub(crate) key: RecordKey,
    /// The verdict that holds from here on.
    pub(crate) judged: Judged,
    /// The revision that it replaces; `None` where it stands already.
    pub(crate) replaces: Option<u64>,
    /// What to tell.
    pub(crate) news: Option<ImageJudged>,
}

// === impl Ruling ===

impl Ruling {
    /// A line for the log, with the values as fields.
    pub(crate) fn log(&self) {
        let Judged { verdict, .. } = &self.judged;
        if self.replaces.is_none() {
            return;
        }
        metrics::verdict_written(verdict.decision);
        let (image, policy, decision) = (self.key.image, &verdict.policy, verdict.decision);
        tracing::info!(
            image.digest = %image,
            policy.name = %policy,
            policy.revision = verdict.policy_revision,
            decision = %decision,
            "image {image} is judged `{decision}` by policy `{policy}`"
        );
    }
}

/// A verdict that takes another's place.
pub(crate) fn replacing(
    key: RecordKey,
    mut judged: Judged,
    known: Option<Stored<Judged>>,
    now: Timestamp,
) -> Ruling {
    judged.decided_at = Some(judged.verdict.evaluated_at);
    let Some(Stored {
        revision,
        body: old,
    }) = known
    else {
        let news = news(&key, &judged);
        return Ruling {
            key,
            judged,
            replaces: Some(0),
            news,
        };
    };
    let basis = |judged: &Judged| (judged.assessed, judged.verdict.policy_revision);
    let same = old.verdict.decision == judged.verdict.decision;
    // On the same basis with the same decision it is the same piece of news, told or not.
    if same && basis(&old) == basis(&judged) {
        judged.previous = old.previous;
        judged.decided_at = Some(decided_at(&old));
    } else {
        judged.previous = Some(old.verdict.decision);
    }
    let news = if same {
        young_news(&key, &old, now)
    } else {
        news(&key, &judged)
    };
    Ruling {
        key,
        judged,
        replaces: Some(revision),
        news,
    }
}

/// A verdict that stays as it is. `again`: who wrote it may have died before he told.
pub(crate) fn standing(key: RecordKey, judged: Judged, again: bool, now: Timestamp) -> Ruling {
    let news = if again {
        news(&key, &judged)
    } else {
        young_news(&key, &judged, now)
    };
    Ruling {
        key,
        judged,
        replaces: None,
        news,
    }
}

/// The end of a verdict under a policy that has no say any more: `allow`, for it has no objection.
pub(crate) fn retired(
    key: RecordKey,
    known: Stored<Judged>,
    policy_revision: Option<u64>,
    now: Timestamp,
) -> Option<Ruling> {
    let old = &known.body;
    if is_retired(old) {
        return None;
    }
    let Verdict {
        policy,
        policy_revision: judged_at,
        advisory_revision,
        ..
    } = &old.verdict;
    let reason = Reason {
        rule: NOT_SELECTED.to_owned(),
        decision: Decision::Allow,
        fingerprints: Vec::new(),
        message: format!("no name of the image selects policy `{policy}` any more"),
        remediation: String::new(),
    };
    let judged = Judged {
        verdict: Verdict {
            decision: Decision::Allow,
            reasons: vec![reason],
            policy: policy.clone(),
            policy_revision: policy_revision.unwrap_or_default().max(*judged_at),
            advisory_revision: *advisory_revision,
            evaluated_at: now,
            valid_until: None,
        },
        previous: None,
        decided_at: None,
        counts: Counts::default(),
        waivers_end: None,
        os_ends: None,
        ages_at: None,
        data_age_s_max: None,
        repositories: Vec::new(),
        waived: BTreeMap::new(),
        checks: Vec::new(),
        ..old.clone()
    };
    Some(replacing(key, judged, Some(known), now))
}

pub(crate) fn is_retired(judged: &Judged) -> bool {
    judged
        .verdict
        .reasons
        .iter()
        .any(|reason| reason.rule == NOT_SELECTED)
}

/// Whether newer advisory data may change a verdict, though the assessment stays.
pub(crate) fn waits_for_data(judged: &Judged, policy: &Policy) -> bool {
    judged.verdict.advisory_revision == 0
        || judged
            .verdict
            .reasons
            .iter()
            .any(|one| policy.age_limit_of(&one.rule).is_some())
}

/// What a verdict tells: that it is the first, or another than before.
fn news(key: &RecordKey, judged: &Judged) -> Option<ImageJudged> {
    let Judged {
        assessed,
        verdict,
        previous,
        counts,
        references,
        ..
    } = judged;
    if *previous == Some(verdict.decision) {
        return None;
    }
    Some(ImageJudged {
        image: key.image,
        policy: verdict.policy.clone(),
        decision: verdict.decision,
        previous: *previous,
        reasons: verdict
            .reasons
            .iter()
            .map(|reason| reason.message.clone())
            .collect(),
        counts: *counts,
        references: references.clone(),
        assessed: *assessed,
        policy_revision: verdict.policy_revision,
        judged_at: decided_at(judged),
    })
}

/// When a verdict's decision was made. Judging again with the same result leaves it as it is, so
/// that news of it have one id however often they are told.
fn decided_at(judged: &Judged) -> Timestamp {
    judged.decided_at.unwrap_or(judged.verdict.evaluated_at)
}

fn young_news(key: &RecordKey, judged: &Judged, now: Timestamp) -> Option<ImageJudged> {
    let age = now.duration_since(judged.verdict.evaluated_at);
    (age < TELL_AGAIN).then(|| news(key, judged)).flatten()
}
