//! When a receiver may be tried again.
//!
//! A receiver that fails is left alone for a while, by all deliveries to it: longer each time, with
//! jitter, and for as long as it asks for itself (`Retry-After`). A delivery waits here for a short
//! while and then goes back to the stream, so that nothing holds a place for hours.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::anyhow;
use chassis::Cx;
use tokio::time::Instant;

use crate::sinks::send::{Later, Sent};

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// What a receiver may ask for.
const ASKED_MAX: Duration = Duration::from_hours(1);

/// How a receiver does.
#[derive(Debug)]
pub(crate) struct Pace {
    /// How long a delivery waits here.
    hold: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    failures: u32,
    failed_at: Option<Instant>,
    not_before: Option<Instant>,
}

// === impl Pace ===

impl Pace {
    pub(crate) fn new(hold: Duration) -> Self {
        Self {
            hold,
            state: Mutex::default(),
        }
    }

    /// Tries `send` until it is delivered or refused, or until the time to hold it is over.
    pub(crate) async fn deliver<F>(&self, cx: &Cx, send: impl Fn() -> F) -> Sent
    where
        F: Future<Output = Sent>,
    {
        let until = Instant::now() + self.hold;
        let mut last = None;
        loop {
            if let Err(wait) = self.may(cx, until).await {
                let seconds = wait.as_secs_f64().ceil();
                return Sent::Later(last.unwrap_or_else(|| Later {
                    error: anyhow!("it failed before and is left alone for {seconds} s"),
                    asked: None,
                }));
            }
            let started = Instant::now();
            match send().await {
                Sent::Later(later) => {
                    self.failed(started, later.asked);
                    last = Some(later);
                }
                end => {
                    self.answered();
                    return end;
                }
            }
            if cx.is_stopping() {
                return Sent::Later(last.unwrap_or_else(|| Later::of(anyhow!("stopping"))));
            }
        }
    }

    /// Waits until the receiver may be tried. `Err`: it will take longer than `until`.
    async fn may(&self, cx: &Cx, until: Instant) -> Result<(), Duration> {
        loop {
            let now = Instant::now();
            let Some(not_before) = self.lock().not_before.filter(|at| *at > now) else {
                return Ok(());
            };
            let wait = not_before - now;
            if not_before > until || !cx.sleep(wait).await {
                return Err(wait);
            }
        }
    }

    fn answered(&self) {
        *self.lock() = State::default();
    }

    /// Attempts that ran beside each other count once.
    fn failed(&self, started: Instant, asked: Option<Duration>) {
        let mut state = self.lock();
        if state.failed_at.is_none_or(|at| at <= started) {
            state.failures = state.failures.saturating_add(1);
        }
        let now = Instant::now();
        state.failed_at = Some(now);
        let asked = asked.unwrap_or_default().min(ASKED_MAX);
        let pause = jitter(pause(state.failures)).max(asked);
        state.not_before = state.not_before.max(Some(now + pause));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    PAUSE_MIN
        .saturating_mul(2_u32.pow(doublings))
        .min(PAUSE_MAX)
}

/// Between half of `duration` and all of it, so that many processes do not act in step.
fn jitter(duration: Duration) -> Duration {
    let mut bytes = [0; 2];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return duration;
    }
    let fraction = f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX);
    duration.mul_f64(0.5 + fraction / 2.0)
}

#[cfg(test)]
mod tests {
    use std::{
        future::ready,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::*;

    fn later(asked: Option<u64>) -> Sent {
        Sent::Later(Later {
            error: anyhow!("away"),
            asked: asked.map(Duration::from_secs),
        })
    }

    #[test]
    fn pauses_grow_to_a_minute() {
        assert_eq!(pause(1), Duration::from_secs(1));
        assert_eq!(pause(4), Duration::from_secs(8));
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
        let some = jitter(PAUSE_MAX);
        assert!(some >= PAUSE_MAX / 2 && some <= PAUSE_MAX);
    }

    #[tokio::test]
    async fn a_receiver_that_asks_for_quiet_is_not_tried_by_anybody() {
        let (cx, pace) = (Cx::for_tests(), Pace::new(Duration::ZERO));
        let tries = AtomicU32::new(0);
        let send = || {
            tries.fetch_add(1, Ordering::Relaxed);
            ready(later(Some(3600)))
        };
        assert!(matches!(pace.deliver(&cx, send).await, Sent::Later(_)));
        let Sent::Later(again) = pace.deliver(&cx, send).await else {
            panic!("it was tried");
        };
        assert!(again.error.to_string().contains("is left alone for 3600 s"));
        assert_eq!(tries.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_short_failure_is_waited_for_in_place() {
        let (cx, pace) = (Cx::for_tests(), Pace::new(Duration::from_secs(20)));
        let tries = AtomicU32::new(0);
        let send = || {
            let first = tries.fetch_add(1, Ordering::Relaxed) == 0;
            ready(if first { later(None) } else { Sent::Delivered })
        };
        assert!(matches!(pace.deliver(&cx, send).await, Sent::Delivered));
        assert_eq!(tries.load(Ordering::Relaxed), 2);
        // All is forgiven.
        assert!(pace.lock().not_before.is_none());
    }

    #[tokio::test]
    async fn what_is_refused_is_not_the_receivers_failure() {
        let (cx, pace) = (Cx::for_tests(), Pace::new(Duration::ZERO));
        let refuse = || ready(Sent::Refused(anyhow!("bad request")));
        assert!(matches!(pace.deliver(&cx, refuse).await, Sent::Refused(_)));
        let send = || ready(Sent::Delivered);
        assert!(matches!(pace.deliver(&cx, send).await, Sent::Delivered));
    }
}
