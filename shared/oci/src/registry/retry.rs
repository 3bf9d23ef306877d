//! Trying again: what may pass by itself, a bounded number of times, within a bounded time.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use chassis::Cx;
use tokio::time::Instant;

use crate::{Limits, OciError};

/// The tries of one request, or those to take up one blob where it broke.
pub(super) struct Retry<'a> {
    cx: &'a Cx,
    limits: &'a Limits,
    retries_max: u32,
    retries: u32,
    /// Set by the first error: waiting for our own turn does not count.
    deadline: Option<Instant>,
}

// === impl Retry ===

impl<'a> Retry<'a> {
    /// For a manifest, a config, a token, or the opening of a blob.
    pub(super) const fn of_requests(cx: &'a Cx, limits: &'a Limits) -> Self {
        Self::new(cx, limits, limits.retries_max)
    }

    /// For a blob that broke.
    pub(super) const fn of_streams(cx: &'a Cx, limits: &'a Limits) -> Self {
        Self::new(cx, limits, limits.blob_resumes_max)
    }

    /// No second try: somebody else can be asked.
    pub(super) const fn none(cx: &'a Cx, limits: &'a Limits) -> Self {
        Self::new(cx, limits, 0)
    }

    const fn new(cx: &'a Cx, limits: &'a Limits, retries_max: u32) -> Self {
        Self {
            cx,
            limits,
            retries_max,
            retries: 0,
            deadline: None,
        }
    }

    /// How long a pause may be waited for.
    pub(super) fn patience(&self) -> Duration {
        match self.deadline {
            _ if self.retries_max == 0 => Duration::ZERO,
            Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            None => self.limits.retry_time_max,
        }
    }

    /// All tries are to be had again: something was achieved.
    pub(super) const fn renew(&mut self) {
        self.retries = 0;
        self.deadline = None;
    }

    /// Waits before the next try; gives the error back where there is none, or where the source
    /// wants to be left alone for longer than is left.
    pub(super) async fn again(&mut self, error: OciError) -> Result<(), OciError> {
        let random = RandomState::new().hash_one(self.retries);
        let Some(wait) = self.plan(&error, Instant::now(), random) else {
            return Err(error);
        };
        tracing::debug!(%error, "trying again in {} ms: {error}", wait.as_millis());
        if self.cx.sleep(wait).await {
            Ok(())
        } else {
            Err(error)
        }
    }

    /// How long to wait before the next try, if there is one.
    fn plan(&mut self, error: &OciError, now: Instant, random: u64) -> Option<Duration> {
        let latest = now.checked_add(self.limits.retry_time_max).unwrap_or(now);
        let deadline = *self.deadline.get_or_insert(latest);
        let left = deadline.saturating_duration_since(now);
        let asked = error.retry_after().unwrap_or_default();
        let may_pass = matches!(error, OciError::Unavailable { .. });
        if !may_pass || self.retries >= self.retries_max || asked >= left {
            return None;
        }
        let wait = asked.saturating_add(backoff(self.limits, self.retries, random));
        self.retries = self.retries.saturating_add(1);
        Some(wait.min(left))
    }
}

/// The wait before a retry: anything up to a bound that doubles each time, so that those who failed
/// together do not come back together.
fn backoff(limits: &Limits, retries: u32, random: u64) -> Duration {
    let doubled = limits
        .retry_wait
        .saturating_mul(2_u32.saturating_pow(retries.min(16)));
    let bound = doubled.min(limits.retry_wait_max).as_nanos();
    let part = u128::from(random)
        .saturating_mul(bound)
        .checked_shr(64)
        .unwrap_or_default();
    Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable(retry_after: Option<u64>) -> OciError {
        OciError::Unavailable {
            host: "r.example".to_owned(),
            detail: "busy".to_owned(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn waits_lie_anywhere_below_a_bound_that_doubles_up_to_a_maximum() {
        let limits = Limits {
            retry_wait: Duration::from_millis(200),
            retry_wait_max: Duration::from_secs(1),
            ..Limits::default()
        };
        let bound = |retries| backoff(&limits, retries, u64::MAX).as_millis();
        let bounds: Vec<_> = (0..5).map(bound).collect();
        assert_eq!(bounds, [199, 399, 799, 999, 999]);
        assert_eq!(bound(u32::MAX), 999);
        let half = backoff(&limits, 0, u64::MAX / 2).as_millis();
        assert_eq!((half, backoff(&limits, 9, 0)), (99, Duration::ZERO));
    }

    #[test]
    fn what_may_pass_is_tried_again_until_tries_or_time_are_used_up() {
        let (cx, limits, start) = (Cx::for_tests(), Limits::default(), Instant::now());
        let mut retry = Retry::of_requests(&cx, &limits);
        let plans = (0..9).map_while(|_| retry.plan(&unavailable(None), start, 0));
        assert_eq!(plans.count(), 4);

        let seconds = Duration::from_secs;
        let mut retry = Retry::of_requests(&cx, &limits);
        assert_eq!(retry.patience(), seconds(30));
        let asked = unavailable(Some(20));
        assert_eq!(retry.plan(&asked, start, 0), Some(seconds(20)));
        let later = start + seconds(20);
        assert_eq!(retry.plan(&asked, later, 0), None, "10 s are left");
        assert_eq!(
            retry.plan(&unavailable(None), later, 0),
            Some(Duration::ZERO)
        );
        retry.renew();
        assert_eq!(retry.plan(&asked, later, 0), Some(seconds(20)));
    }

    #[tokio::test]
    async fn what_holds_for_ever_is_not_tried_again_and_neither_is_anything_at_shutdown() {
        let (cx, limits) = (Cx::for_tests(), Limits::default());
        let mut retry = Retry::of_requests(&cx, &limits);
        let error = OciError::malformed("x", "y");
        assert!(retry.again(error).await.is_err());
        let mut none = Retry::none(&cx, &limits);
        assert!(none.again(unavailable(None)).await.is_err());
        assert_eq!(none.patience(), Duration::ZERO);
        cx.stop();
        assert!(retry.again(unavailable(Some(1))).await.is_err());
    }
}
