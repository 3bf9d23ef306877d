//! Signatures that were seen: each counts once.
//!
//! What is kept is bounded in time and number, and lost with the process. That is no hole: events
//! have ids computed from content and their own times, so one that comes again changes nothing.

use std::collections::{HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use model::Digest;

/// Signatures kept of one sender; beyond it the oldest are forgotten.
const SIGNATURES_MAX: usize = 100_000;

/// Signatures that were seen lately.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    known: HashSet<Digest>,
    order: VecDeque<(Timestamp, Digest)>,
}

// === impl Seen ===

impl Seen {
    /// Notes a signature for as long as `age`; false if it was seen before.
    pub(crate) fn note(&mut self, signature: Digest, now: Timestamp, age: SignedDuration) -> bool {
        while let Some((at, oldest)) = self.order.front().copied() {
            if self.order.len() < SIGNATURES_MAX && now.duration_since(at) <= age {
                break;
            }
            self.order.pop_front();
            self.known.remove(&oldest);
        }
        if !self.known.insert(signature) {
            return false;
        }
        self.order.push_back((now, signature));
        true
    }

    /// Forgets a signature whose request was not accepted: it may come again.
    pub(crate) fn forget(&mut self, signature: Digest) {
        if !self.known.remove(&signature) {
            return;
        }
        let place = self
            .order
            .iter()
            .rposition(|(_, known)| *known == signature);
        place.map(|place| self.order.remove(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: SignedDuration = SignedDuration::from_mins(10);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn signature(number: usize) -> Digest {
        Digest::of(&number.to_be_bytes())
    }

    #[test]
    fn a_signature_counts_once_unless_its_request_failed() {
        let mut seen = Seen::default();
        assert!(seen.note(signature(1), at(0), AGE));
        assert!(!seen.note(signature(1), at(600), AGE));
        seen.forget(signature(1));
        assert!(seen.note(signature(1), at(600), AGE));
        assert!(!seen.note(signature(1), at(1200), AGE));
        assert!(seen.note(signature(1), at(1201), AGE));
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Seen::default();
        for number in 0..SIGNATURES_MAX + 5 {
            assert!(seen.note(signature(number), at(0), AGE));
        }
        assert_eq!(
            (seen.known.len(), seen.order.len()),
            (SIGNATURES_MAX, SIGNATURES_MAX)
        );
        assert!(seen.note(signature(0), at(0), AGE));
    }
}
