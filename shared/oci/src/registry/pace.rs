//! How fast we go: one place per registry that every request of the process passes.
//!
//! It bounds connections at once, requests per second and bytes per second, and it stands still
//! while the registry wants to be left alone. All images of a source share it, and so do documents,
//! tokens and blobs.

use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// What we ask of one registry at most, whatever the number of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Requests and open blobs at once.
    pub connections_max: usize,
    /// Requests per second; a second's worth may come at once. Without it the registry's answers
    /// set the pace, and its `429 Too Many Requests`.
    pub requests_per_second_max: Option<NonZeroU32>,
    /// Bytes per second, of all answers together.
    pub bytes_per_second_max: Option<NonZeroU64>,
}

/// The state of a [`Pace`].
pub(super) struct Pacer {
    connections: Arc<Semaphore>,
    requests: Option<Meter>,
    bytes: Option<Meter>,
    paused_until: Mutex<Option<Instant>>,
}

/// The right to have one connection busy, until it is dropped.
#[derive(Debug)]
pub(super) struct Admission {
    _permit: OwnedSemaphorePermit,
}

/// The registry is to be left alone for longer than the caller would wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paused(pub(super) Duration);

/// Units per second, as a schedule: each unit takes its place after the one before.
struct Meter {
    per_second: u64,
    /// How far the schedule may lag behind the clock, which is what may come at once.
    slack: Duration,
    next: Mutex<Option<Instant>>,
}

// === impl Pace ===

impl Default for Pace {
    fn default() -> Self {
        Self {
            connections_max: 32,
            requests_per_second_max: None,
            bytes_per_second_max: None,
        }
    }
}

// === impl Pacer ===

impl Pacer {
    pub(super) fn new(pace: &Pace) -> Self {
        let second = Duration::from_secs(1);
        let requests = pace.requests_per_second_max.map(|rate| {
            let slack = second.saturating_sub(share(1, u64::from(rate.get())));
            Meter::new(u64::from(rate.get()), slack)
        });
        // A quarter of a second's worth evens out the sizes of network buffers.
        let bytes = pace.bytes_per_second_max;
        let bytes = bytes.map(|rate| Meter::new(rate.get(), Duration::from_millis(250)));
        let connections = pace.connections_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            connections: Arc::new(Semaphore::new(connections)),
            requests,
            bytes,
            paused_until: Mutex::default(),
        }
    }

    /// Waits for a free connection and for a request's turn. A pause is waited for as well, unless
    /// it is longer than `pause_max`.
    pub(super) async fn admit(&self, pause_max: Duration) -> Result<Admission, Paused> {
        loop {
            self.wait_for_pause(pause_max).await?;
            let permit = Arc::clone(&self.connections).acquire_owned().await;
            let Ok(permit) = permit else {
                // Nobody closes the semaphore; if somebody did, nobody would be admitted.
                return Err(Paused(Duration::MAX));
            };
            if let Some(requests) = &self.requests {
                tokio::time::sleep_until(requests.place(1, Instant::now())).await;
            }
            // The registry may have asked for a pause while this one waited for its turn.
            if self.paused().is_none() {
                return Ok(Admission { _permit: permit });
            }
        }
    }

    /// Waits until so many bytes may have come.
    pub(super) async fn take(&self, bytes: usize) {
        if let Some(meter) = &self.bytes {
            let count = u64::try_from(bytes).unwrap_or(u64::MAX);
            tokio::time::sleep_until(meter.place(count, Instant::now())).await;
        }
    }

    /// Counts bytes that came, so that what comes next waits for them.
    pub(super) fn count(&self, bytes: usize) {
        if let Some(meter) = &self.bytes {
            let count = u64::try_from(bytes).unwrap_or(u64::MAX);
            meter.place(count, Instant::now());
        }
    }

    /// Nobody is admitted for so long. True where that is news: no pause as long was in force.
    pub(super) fn pause(&self, duration: Duration) -> bool {
        let now = Instant::now();
        let until = now.checked_add(duration).unwrap_or(now);
        let mut paused = self
            .paused_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let was_paused = paused.is_some_and(|until| until > now);
        if paused.is_none_or(|known| until > known) {
            *paused = Some(until);
        }
        !was_paused
    }

    /// How long the pause still is.
    pub(super) fn paused(&self) -> Option<Duration> {
        let paused = self
            .paused_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let left = paused.map(|until| until.saturating_duration_since(Instant::now()));
        left.filter(|left| !left.is_zero())
    }

    async fn wait_for_pause(&self, pause_max: Duration) -> Result<(), Paused> {
        let now = Instant::now();
        let deadline = now.checked_add(pause_max).unwrap_or(now);
        while let Some(left) = self.paused() {
            if left > deadline.saturating_duration_since(Instant::now()) {
                return Err(Paused(left));
            }
            tokio::time::sleep(left).await;
        }
        Ok(())
    }
}

// === impl Meter ===

impl Meter {
    const fn new(per_second: u64, slack: Duration) -> Self {
        Self {
            per_second,
            slack,
            next: Mutex::new(None),
        }
    }

    /// Takes so many places in the schedule; when the first of them comes.
    fn place(&self, count: u64, now: Instant) -> Instant {
        let earliest = now.checked_sub(self.slack).unwrap_or(now);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let place = next.map_or(earliest, |next| next.max(earliest));
        *next = place.checked_add(share(count, self.per_second));
        place
    }
}

/// How long so many units take.
fn share(count: u64, per_second: u64) -> Duration {
    let nanos = u128::from(count)
        .saturating_mul(1_000_000_000)
        .checked_div(u128::from(per_second))
        .unwrap_or_default();
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacer(connections: usize, requests: u32, bytes: u64) -> Pacer {
        Pacer::new(&Pace {
            connections_max: connections,
            requests_per_second_max: NonZeroU32::new(requests),
            bytes_per_second_max: NonZeroU64::new(bytes),
        })
    }

    #[test]
    fn a_seconds_worth_of_requests_comes_at_once_and_the_rest_in_its_turn() {
        let start = Instant::now();
        let requests = pacer(1, 10, 0).requests.unwrap();
        let due = |request: u64| Duration::from_millis(request.saturating_sub(10) * 100);
        for request in 1..=35 {
            let wait = requests.place(1, start).saturating_duration_since(start);
            assert_eq!(wait, due(request), "request {request}");
        }
        // What was not used in an idle hour is not saved up.
        let later = start + Duration::from_hours(1);
        for request in 1..=35 {
            let wait = requests.place(1, later).saturating_duration_since(later);
            assert_eq!(wait, due(request), "request {request} after an hour");
        }
    }

    #[test]
    fn bytes_come_at_their_rate_whatever_the_size_of_their_parts() {
        for part in [1, 100, 700] {
            let (start, bytes) = (Instant::now(), pacer(1, 0, 1000).bytes.unwrap());
            let mut now = start;
            let mut sent = 0;
            while sent < 10_000 {
                now = now.max(bytes.place(part, now));
                sent += part;
            }
            let took = (now - start).as_millis();
            assert!(
                (8900..=9800).contains(&took),
                "{took} ms in parts of {part}"
            );
        }
    }

    #[tokio::test]
    async fn a_pause_holds_everybody_and_who_cannot_wait_is_told_how_long_it_is() {
        let (pacer, start) = (pacer(2, 0, 0), Instant::now());
        let pause = Duration::from_millis(80);
        assert!(pacer.pause(pause), "it is news");
        let wait = Duration::from_secs(30);
        let (one, two) = tokio::join!(pacer.admit(wait), pacer.admit(wait));
        assert!(one.is_ok() && two.is_ok() && start.elapsed() >= pause);

        assert!(pacer.pause(Duration::from_secs(20)));
        assert!(!pacer.pause(Duration::from_secs(5)), "one is in force");
        let Paused(left) = pacer.admit(Duration::from_secs(10)).await.unwrap_err();
        assert!((18..=20).contains(&left.as_secs()), "{left:?}");
    }

    #[tokio::test]
    async fn a_connection_is_free_again_when_its_admission_is_dropped() {
        let pacer = pacer(1, 0, 0);
        let first = pacer.admit(Duration::ZERO).await.unwrap();
        let second = tokio::time::timeout(Duration::from_millis(50), pacer.admit(Duration::ZERO));
        assert!(second.await.is_err(), "the one connection is busy");
        drop(first);
        pacer.admit(Duration::ZERO).await.unwrap();
    }
}
