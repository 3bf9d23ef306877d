//! Verdicts as answers: which one is meant, and how long it holds.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use bus::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use model::{
    Assessed, Decision, Digest, Fingerprint, Judged, Partition, RecordKey, Slug, SweptMark,
    Verdict, Waived, What,
    event::{ADVISORIES, images_bucket},
    valid_until,
};

use crate::view::JudgedView;

/// The rule of a verdict under a policy that no name of the image selects any more.
const NOT_SELECTED: &str = "not-selected";
/// How old the marks may be that lists are answered with. Older marks only make verdicts end
/// earlier.
const MARKS_AGE_MAX: SignedDuration = SignedDuration::from_secs(5);

/// For which advisory data each partition holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks(BTreeMap<Partition, SweptMark>);

/// [`Marks`] that are read again when they are old.
#[derive(Debug, Default)]
pub(crate) struct MarksCache(Mutex<Option<(Timestamp, Marks)>>);

/// A verdict with what it rests on.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// As it reads now.
    pub(crate) verdict: Verdict,
    /// The scan under it: the KV revision of the `scanned` record.
    pub(crate) scan: u64,
    /// The findings that waivers accept.
    pub(crate) waived: BTreeMap<Fingerprint, Waived>,
    /// The repositories that select the policy.
    repositories: Vec<String>,
}

/// Whose verdict a question asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Choice<'a> {
    /// The policy that it names.
    pub(crate) policy: Option<&'a Slug>,
    /// The `registry/repository` by which it names the image, which selects a policy.
    pub(crate) repository: Option<&'a str>,
}

/// Whether a verdict's policy has no say any more. Such a verdict objects to nothing, and it is not
/// an answer either.
pub(crate) fn is_retired(judged: &Judged) -> bool {
    judged
        .verdict
        .reasons
        .iter()
        .any(|reason| reason.rule == NOT_SELECTED)
}

/// The verdicts on an image as they read now, one per policy that has a say.
pub(crate) async fn of_image(
    store: &Store,
    tenant: &Slug,
    image: Digest,
    now: Timestamp,
) -> Result<Vec<Answer>, StoreError> {
    let bucket = images_bucket(image.partition());
    let prefix = format!("{tenant}.{}.judged.", image.hex());
    let judged = store.list::<Judged>(&bucket, &prefix).await?;
    if judged.is_empty() {
        return Ok(Vec::new());
    }
    let mark = mark(store, image.partition()).await?;
    let key = RecordKey::new(tenant, image, What::Assessed);
    let assessed = store.record::<Assessed>(&key).await?;
    let assessed = assessed.map_or(0, |stored| stored.revision);
    let live = judged.into_iter().map(|(_, stored)| stored.body);
    let answers = live.filter(|judged| !is_retired(judged)).map(|judged| {
        let view = Holds::of(&judged);
        let until = view.until(&mark, assessed);
        let Judged {
            verdict,
            scan,
            waived,
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
            repositories,
        }
    });
    Ok(answers.collect())
}

/// The verdict that a question asks for: of the policy that it names, else of the policy that the
/// repository selects, else the worst.
pub(crate) fn choose<'a>(answers: &'a [Answer], choice: Choice<'_>) -> Option<&'a Answer> {
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

/// Whether a policy with these repositories is the one that a repository selects.
pub(crate) fn selects(repositories: &[String], repository: Option<&str>) -> bool {
    repository.is_some_and(|name| repositories.iter().any(|selecting| selecting == name))
}

/// The verdict that decides; among equals the first.
pub(crate) fn worst<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> Option<&'a Verdict> {
    verdicts.into_iter().reduce(|worst, verdict| {
        if verdict.decision > worst.decision {
            verdict
        } else {
            worst
        }
    })
}

async fn mark(store: &Store, partition: Partition) -> Result<SweptMark, StoreError> {
    let stored = store
        .get::<SweptMark>(ADVISORIES, &format!("swept.{partition}"))
        .await?;
    Ok(stored.map(|stored| stored.body).unwrap_or_default())
}

/// What decides how long a verdict holds.
struct Holds {
    /// The KV revision of the assessment under it.
    assessed: u64,
    judged_at: Timestamp,
    waivers_end: Option<Timestamp>,
    data_age_s_max: Option<i64>,
}

// === impl Holds ===

impl Holds {
    const fn of(judged: &Judged) -> Self {
        Self {
            assessed: judged.assessed,
            judged_at: judged.verdict.evaluated_at,
            waivers_end: judged.waivers_end,
            data_age_s_max: judged.data_age_s_max,
        }
    }

    /// Until when. A partition that was not swept yet holds for no data; the verdict itself was
    /// then made with data as old as itself at best. So it is where the image has a newer
    /// assessment than the verdict rests on: the mark is of that one.
    fn until(&self, mark: &SweptMark, assessed: u64) -> Option<Timestamp> {
        let swept_at = mark.data_at.filter(|_| self.assessed >= assessed);
        let data_at = swept_at.or(Some(self.judged_at));
        valid_until(
            data_at,
            self.data_age_s_max.map(SignedDuration::from_secs),
            self.waivers_end,
        )
    }
}

// === impl JudgedView ===

impl JudgedView {
    /// What it decides at `now`, and until when; `assessed` is the revision of the image's present
    /// assessment.
    pub(crate) fn as_of(
        &self,
        (image, assessed): (Digest, u64),
        marks: &Marks,
        now: Timestamp,
    ) -> (Decision, Option<Timestamp>) {
        let holds = Holds {
            assessed: self.assessed,
            judged_at: self.judged_at,
            waivers_end: self.waivers_end,
            data_age_s_max: self.data_age_s_max,
        };
        let none = SweptMark::default();
        let until = holds.until(marks.0.get(&image.partition()).unwrap_or(&none), assessed);
        let has_ended = until.is_some_and(|until| until <= now);
        let decision = if has_ended {
            self.decision.max(Decision::Incomplete)
        } else {
            self.decision
        };
        (decision, until)
    }
}

// === impl Marks, MarksCache ===

impl Marks {
    async fn read(store: &Store) -> Result<Self, StoreError> {
        let mut marks = BTreeMap::new();
        for partition in Partition::all() {
            marks.insert(partition, mark(store, partition).await?);
        }
        Ok(Self(marks))
    }

    /// When the oldest data behind any partition were fetched; `None` where a partition has none.
    pub(crate) fn data_at(&self) -> Option<Timestamp> {
        self.0.values().map(|mark| mark.data_at).min().flatten()
    }

    /// The lowest revision that all partitions hold for.
    pub(crate) fn revision(&self) -> u64 {
        self.0
            .values()
            .map(|mark| mark.revision)
            .min()
            .unwrap_or_default()
    }
}

impl MarksCache {
    /// The marks, at most some seconds old.
    pub(crate) async fn get(&self, store: &Store, now: Timestamp) -> Result<Marks, StoreError> {
        let known = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((_, marks)) =
            known.filter(|(read_at, _)| now.duration_since(*read_at) < MARKS_AGE_MAX)
        {
            return Ok(marks);
        }
        let marks = Marks::read(store).await?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, marks.clone()));
        Ok(marks)
    }
}
