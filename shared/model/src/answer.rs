//! Answers: which verdict a question asks for, and how it reads now. Pure.
//!
//! Who is asked over HTTP and who sends an answer by himself give the same one.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::{
    Digest, Fingerprint, ImageRef, Judged, Misconfiguration, ScanRequestRecord, Slug, SweptMark,
    Verdict, Waived, valid_until,
};

/// The rule of a verdict under a policy that no name of the image selects any more.
const NOT_SELECTED: &str = "not-selected";

/// A verdict with what it rests on.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As it reads now.
    pub verdict: Verdict,
    /// The scan under it: the KV revision of the `scanned` record.
    pub scan: u64,
    /// The findings that waivers accept.
    pub waived: BTreeMap<Fingerprint, Waived>,
    /// Failed checks that nobody knew before the image was judged.
    pub checks: Vec<Misconfiguration>,
    /// The repositories that select the policy.
    pub repositories: Vec<String>,
}

/// Whose verdict a question asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// The policy that it names.
    pub policy: Option<&'a Slug>,
    /// The `registry/repository` by which it names the image, which selects a policy.
    pub repository: Option<&'a str>,
}

/// What decides how long a verdict holds.
#[derive(Clone, Copy, Debug)]
pub struct Holds {
    /// The KV revision of the assessment under it.
    pub assessed: u64,
    /// When it was made.
    pub judged_at: Timestamp,
    /// When the first waiver in force ends.
    pub waivers_end: Option<Timestamp>,
    /// When the operating system's support ends.
    pub os_ends: Option<Timestamp>,
    /// When the image gets as old as a rule asks about.
    pub ages_at: Option<Timestamp>,
    /// The greatest age of advisory data that the policy allows, seconds.
    pub data_age_s_max: Option<i64>,
}

/// Whether a verdict's policy has no say any more. Such a verdict objects to nothing, and it is not
/// an answer either.
pub fn is_retired(judged: &Judged) -> bool {
    judged
        .verdict
        .reasons
        .iter()
        .any(|reason| reason.rule == NOT_SELECTED)
}

/// The verdicts on an image as they read now, one per policy that has a say. `assessed` is the KV
/// revision of the image's present assessment, `mark` that of its partition.
pub fn of_image(
    judged: impl IntoIterator<Item = Judged>,
    assessed: u64,
    mark: &SweptMark,
    now: Timestamp,
) -> Vec<Answer> {
    let live = judged.into_iter().filter(|judged| !is_retired(judged));
    let answers = live.map(|judged| {
        let until = Holds::of(&judged).until(mark, assessed);
        let Judged {
            verdict,
            scan,
            waived,
            checks,
            repositories,
            ..
        } = judged;
        let verdict = Verdict {
            valid_until: until,
            ..verdict
        };
        Answer {
            verdict: verdict.as_of(now),
            scan,
            waived,
            checks,
            repositories,
        }
    });
    answers.collect()
}

/// The verdict that a question asks for: of the policy that it names, else of the policy that the
/// repository selects, else the worst.
pub fn choose<'a>(answers: &'a [Answer], choice: Choice<'_>) -> Option<&'a Answer> {
    let of_policy = |answer: &&Answer| {
        choice
            .policy
            .is_none_or(|policy| answer.verdict.policy == *policy)
    };
    let selected = |answer: &&Answer| selects(&answer.repositories, choice.repository);
    let by_name = choice.policy.is_none() && answers.iter().any(|answer| selected(&answer));
    answers
        .iter()
        .filter(of_policy)
        .filter(|answer| !by_name || selected(answer))
        .reduce(|worst, answer| {
            if answer.verdict.decision > worst.verdict.decision {
                answer
            } else {
                worst
            }
        })
}

/// The answer to a scan request for one of its images, if it rests on a scan that is new enough
/// for the request. While policies judge one after the other, an old verdict must not pass for a
/// new one.
pub fn of_request<'a>(
    record: &ScanRequestRecord,
    image: &Digest,
    answers: &'a [Answer],
) -> Option<&'a Answer> {
    let is_new = |scan: u64| record.waits_for.get(image).is_none_or(|old| scan > *old);
    if !answers.iter().all(|answer| is_new(answer.scan)) {
        return None;
    }
    let named = record.reference.parse::<ImageRef>().ok();
    let repository = named
        .filter(|named| named.digest.is_none())
        .map(|named| named.name());
    let choice = Choice {
        policy: None,
        repository: repository.as_deref(),
    };
    choose(answers, choice)
}

/// Whether a policy with these repositories is the one that a repository selects.
pub fn selects(repositories: &[String], repository: Option<&str>) -> bool {
    repository.is_some_and(|name| repositories.iter().any(|selecting| selecting == name))
}

/// The verdict that decides; among equals the first.
pub fn worst<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> Option<&'a Verdict> {
    verdicts.into_iter().reduce(|worst, verdict| {
        if verdict.decision > worst.decision {
            verdict
        } else {
            worst
        }
    })
}

// === impl Holds ===

impl Holds {
    /// What a record says.
    pub const fn of(judged: &Judged) -> Self {
        Self {
            assessed: judged.assessed,
            judged_at: judged.verdict.evaluated_at,
            waivers_end: judged.waivers_end,
            os_ends: judged.os_ends,
            ages_at: judged.ages_at,
            data_age_s_max: judged.data_age_s_max,
        }
    }

    /// Until when. A partition that was not swept yet holds for no data; the verdict itself was
    /// then made with data as old as itself at best. So it is where the image has a newer
    /// assessment than the verdict rests on: the mark is of that one.
    pub fn until(&self, mark: &SweptMark, assessed: u64) -> Option<Timestamp> {
        let swept_at = mark.data_at.filter(|_| self.assessed >= assessed);
        let data_at = swept_at.or(Some(self.judged_at));
        valid_until(
            data_at,
            self.data_age_s_max.map(SignedDuration::from_secs),
            [self.waivers_end, self.os_ends, self.ages_at]
                .into_iter()
                .flatten(),
        )
    }
}
