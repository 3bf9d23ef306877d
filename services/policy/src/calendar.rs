//! What must be judged again though no record changes: verdicts that stand on a waiver, on the
//! support of an operating system or on an image's age, when it ends, and verdicts that wait for newer advisory data, when they come.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use model::{Judged, RecordKey, What};

use crate::{
    ruling::{Ruling, waits_for_data},
    set::PolicySet,
};

/// The calendar of a partition. It is in memory: its owner's first pass meets every verdict.
#[derive(Debug, Default)]
pub(crate) struct Calendar(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// Images by the end of a waiver, of their operating system's support, or of an age that is allowed.
    ends: BTreeMap<Timestamp, BTreeSet<RecordKey>>,
    /// Images that wait for data.
    waiting: BTreeSet<RecordKey>,
}

// === impl Calendar ===

impl Calendar {
    /// Notes when a verdict must be judged again. A note too many costs a look and changes nothing.
    pub(crate) fn note(&self, ruling: &Ruling, policies: &PolicySet) {
        let image = ruling.key.sibling(What::Assessed);
        let policy = policies.get(&ruling.judged.verdict.policy);
        let mut entries = self.entries();
        let Judged {
            waivers_end,
            os_ends,
            ages_at,
            ..
        } = &ruling.judged;
        let ends = [waivers_end, os_ends, ages_at].into_iter().flatten();
        for end in ends {
            entries.ends.entry(*end).or_default().insert(image.clone());
        }
        if policy.is_some_and(|policy| waits_for_data(&ruling.judged, policy)) {
            entries.waiting.insert(image);
        }
    }

    /// Notes that an image shall be looked at from a time on.
    pub(crate) fn add(&self, at: Timestamp, key: RecordKey) {
        self.entries().ends.entry(at).or_default().insert(key);
    }

    /// Takes out the images of which something has ended.
    pub(crate) fn take_ended(&self, now: Timestamp) -> BTreeSet<RecordKey> {
        let mut entries = self.entries();
        let later = entries.ends.split_off(&now);
        let mut ended = std::mem::replace(&mut entries.ends, later);
        // `split_off` leaves what ends just now among the later ones.
        ended.extend(entries.ends.remove(&now).map(|images| (now, images)));
        ended.into_values().flatten().collect()
    }

    /// Takes out the images that wait for data.
    pub(crate) fn take_waiting(&self) -> BTreeSet<RecordKey> {
        std::mem::take(&mut self.entries().waiting)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
