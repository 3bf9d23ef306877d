//! Shares: how many messages of one party, as a source of images, a process handles at once, so that
//! a party whose work takes long leaves room for the others. A party that has its share is in the
//! notes of the process until all its work at hand is done, or it has found room for a minute.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chassis::Cx;

use crate::random;

/// The first pause of what is beyond its party's share.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: u32 = 15;
/// So long after it found no room a party is said to have its share.
const LATELY: Duration = Duration::from_mins(1);

/// How much each party has at hand; cheap to clone.
#[derive(Clone, Debug)]
pub struct Shares {
    cx: Cx,
    max: usize,
    parties: Arc<Mutex<HashMap<String, Party>>>,
}

/// A party that has something at hand.
#[derive(Debug, Default)]
struct Party {
    at_hand: usize,
    /// When it had its share and wanted more.
    refused: Option<Instant>,
}

/// A part of a party's share that is taken; dropping it gives it back.
#[derive(Debug)]
pub struct Share {
    of: Shares,
    party: String,
}

// === impl Shares ===

impl Shares {
    /// Of `total` places a party has three quarters at most where there are several parties.
    pub fn new(cx: &Cx, total: usize, parties: usize) -> Self {
        let max = if parties > 1 { total * 3 / 4 } else { total };
        Self {
            cx: cx.clone(),
            max: max.max(1),
            parties: Arc::default(),
        }
    }

    /// Takes a place for a party. `None`: it has its share, and what it asks for should come
    /// again after [`Shares::pause`].
    pub fn take(&self, party: &str) -> Option<Share> {
        let mut parties = self.lock();
        let known = parties.entry(party.to_owned()).or_default();
        if known.at_hand >= self.max {
            known.refused = Some(Instant::now());
            let text = format!(
                "{} of its images or events are at hand, which is its share; more of them wait, \
                 and those of others go on",
                self.max
            );
            self.note(party, Some(text));
            return None;
        }
        known.at_hand += 1;
        if known.refused.is_some_and(|at| at.elapsed() > LATELY) {
            known.refused = None;
            self.note(party, None);
        }
        Some(Share {
            of: self.clone(),
            party: party.to_owned(),
        })
    }

    fn note(&self, party: &str, text: Option<String>) {
        self.cx.notes().set(&format!("source {party}"), text);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Party>> {
        self.parties.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When what found no place should come again, at its `attempt`: later and later, but soon
    /// enough to find a place that came free.
    pub fn pause(attempt: u64) -> Duration {
        let times = u32::try_from(attempt).unwrap_or(u32::MAX);
        random::jitter(PAUSE * times.clamp(1, PAUSE_MAX))
    }
}

// === impl Share ===

impl Drop for Share {
    fn drop(&mut self) {
        let mut parties = self.of.lock();
        let Some(known) = parties.get_mut(&self.party) else {
            return;
        };
        known.at_hand -= 1;
        if known.at_hand == 0 {
            if known.refused.is_some() {
                self.of.note(&self.party, None);
            }
            parties.remove(&self.party);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_leaves_room_for_others_where_there_are_some() {
        for (total, parties, most) in [(16, 2, 12), (16, 1, 16), (1, 2, 1), (4, 3, 3)] {
            let cx = Cx::for_tests();
            let shares = Shares::new(&cx, total, parties);
            let taken: Vec<_> = (0..total).filter_map(|_| shares.take("a")).collect();
            assert_eq!(taken.len(), most, "{total} {parties}");
            assert!(shares.take("a").is_none() && shares.take("b").is_some());
            let notes = cx.notes().all();
            assert!(
                notes.contains_key("source a") && notes.len() == 1,
                "{notes:?}"
            );
            drop(taken);
            assert!(cx.notes().all().is_empty());
            assert!(shares.take("a").is_some());
            assert!(shares.lock().is_empty());
        }
    }

    #[test]
    fn what_found_no_place_comes_again_within_seconds() {
        assert!(Shares::pause(0) <= PAUSE && Shares::pause(1) >= PAUSE / 2);
        assert!(Shares::pause(u64::MAX) <= PAUSE * PAUSE_MAX);
    }
}
