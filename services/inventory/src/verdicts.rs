//! Verdicts as answers: which one is meant, and how long it holds.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use bus::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use model::{Decision, Digest, Partition, SweptMark, answer::Holds};

pub(crate) use model::answer::{Answer, Choice, choose, is_retired, selects, worst};

use crate::view::JudgedView;

/// How old the marks may be that lists are answered with. Older marks only make verdicts end
/// earlier.
const MARKS_AGE_MAX: SignedDuration = SignedDuration::from_secs(5);

/// For which advisory data each partition holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks(BTreeMap<Partition, SweptMark>);

/// [`Marks`] that are read again when they are old.
#[derive(Debug, Default)]
pub(crate) struct MarksCache(Mutex<Option<(Timestamp, Marks)>>);

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
            os_ends: self.os_ends,
            ages_at: self.ages_at,
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
            marks.insert(partition, store.swept_mark(partition).await?);
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
