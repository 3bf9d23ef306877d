//! How much a sender may send: a bucket of tokens for each, refilled at a steady rate.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;

/// Senders that are kept count of; beyond it those that were quiet longest are forgotten, which
/// gives them a full bucket again.
const SENDERS_MAX: usize = 10_000;
/// The longest that a sender is told to wait.
const WAIT_SECONDS_MAX: f64 = 60.0;

/// A bucket for each sender.
#[derive(Debug)]
pub(crate) struct Buckets {
    per_second: f64,
    burst: f64,
    senders: Mutex<HashMap<String, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

// === impl Buckets ===

impl Buckets {
    /// Buckets that hold `burst` requests and get `per_second` new ones.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: f64::from(per_second),
            burst: f64::from(burst),
            senders: Mutex::default(),
        }
    }

    /// Takes a request out of a sender's bucket; where there is none, says after how many seconds
    /// there will be.
    pub(crate) fn take(&self, sender: &str, now: Timestamp) -> Result<(), u32> {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if senders.len() >= SENDERS_MAX && !senders.contains_key(sender) {
            let quiet = senders.iter().min_by_key(|(_, bucket)| bucket.at);
            let quiet = quiet.map(|(sender, _)| sender.clone());
            quiet.map(|sender| senders.remove(&sender));
        }
        let full = Bucket {
            tokens: self.burst,
            at: now,
        };
        let bucket = senders.entry(sender.to_owned()).or_insert(full);
        // A clock that was set back gives nothing and takes nothing.
        let rest = now.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + rest * self.per_second).min(self.burst);
        bucket.at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let wait = ((1.0 - bucket.tokens) / self.per_second).ceil();
        Err(seconds(wait))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is between 1 and the longest wait"
)]
fn seconds(wait: f64) -> u32 {
    wait.clamp(1.0, WAIT_SECONDS_MAX) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_767_323_045_000 + ms).unwrap()
    }

    #[test]
    fn a_sender_has_a_burst_and_then_its_rate() {
        let buckets = Buckets::new(2, 3);
        let taken: Vec<_> = [0, 0, 0, 0, 490, 510, 510, 1600, 1600, 1600]
            .map(|ms| buckets.take("a", at(ms)).is_ok())
            .into();
        let (yes, no) = (true, false);
        assert_eq!(taken, [yes, yes, yes, no, no, yes, no, yes, yes, no]);
        assert_eq!(buckets.take("b", at(1600)), Ok(()));
    }

    #[test]
    fn who_has_to_wait_learns_how_long() {
        let buckets = Buckets::new(1, 1);
        assert_eq!(buckets.take("a", at(0)), Ok(()));
        assert_eq!(buckets.take("a", at(0)), Err(1));
        assert_eq!(Buckets::new(0, 0).take("a", at(0)), Err(60));
    }

    #[test]
    fn memory_is_bounded_whoever_sends() {
        let buckets = Buckets::new(1, 1);
        for number in 0..20_000 {
            assert_eq!(buckets.take(&number.to_string(), at(number)), Ok(()));
        }
        assert_eq!(buckets.senders.lock().unwrap().len(), SENDERS_MAX);
        assert_eq!(buckets.take("19999", at(20_000)), Err(1));
    }
}
