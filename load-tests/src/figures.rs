//! Figures: medians, ratios, and how they are printed.

use std::{fmt, time::Duration};

use serde::Serialize;

/// What several rounds of the same took, seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// How many rounds.
    pub(crate) rounds: usize,
    /// The fastest.
    pub(crate) min_s: f64,
    /// The middle one.
    pub(crate) median_s: f64,
    /// The slowest.
    pub(crate) max_s: f64,
}

// === impl Spread ===

impl Spread {
    /// Of these rounds.
    pub(crate) fn of(rounds: &[Duration]) -> Self {
        let mut seconds: Vec<f64> = rounds.iter().map(Duration::as_secs_f64).collect();
        seconds.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (seconds.first(), seconds.last()) else {
            return Self::default();
        };
        let middle = seconds.len() / 2;
        let median = if seconds.len().is_multiple_of(2) {
            f64::midpoint(seconds[middle - 1], seconds[middle])
        } else {
            seconds[middle]
        };
        Self {
            rounds: seconds.len(),
            min_s: *min,
            median_s: median,
            max_s: *max,
        }
    }
}

/// How long many things took, milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// How many.
    pub(crate) count: usize,
    /// Half took no longer.
    pub(crate) p50_ms: f64,
    /// 99 of 100 took no longer.
    pub(crate) p99_ms: f64,
    /// The longest.
    pub(crate) max_ms: f64,
}

// === impl Latency ===

impl Latency {
    /// Of these.
    pub(crate) fn of(took: impl IntoIterator<Item = Duration>) -> Self {
        let mut ms: Vec<f64> = took
            .into_iter()
            .map(|took| took.as_secs_f64() * 1000.0)
            .collect();
        ms.sort_by(f64::total_cmp);
        // The smallest value that so many of a hundred do not exceed.
        let percentile = |percent: usize| {
            let rank = (ms.len() * percent).div_ceil(100);
            ms.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self {
            count: ms.len(),
            p50_ms: percentile(50),
            p99_ms: percentile(99),
            max_ms: percentile(100),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            count,
            p50_ms,
            p99_ms,
            max_ms,
        } = self;
        write!(f, "{count:>8} {p50_ms:>9.1} {p99_ms:>9.1} {max_ms:>9.1}")
    }
}

/// The head of a table of [`Latency`].
pub(crate) fn latency_head(what: &str) -> String {
    format!(
        "{what:<34} {:>8} {:>9} {:>9} {:>9}",
        "count", "p50 ms", "p99 ms", "max ms"
    )
}

/// A number per second.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(crate) fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(f64::EPSILON)
}

/// Bytes as MiB.
#[expect(clippy::cast_precision_loss, reason = "for people, to a tenth")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        let spread = |ms: &[u64]| {
            let rounds: Vec<_> = ms.iter().copied().map(Duration::from_millis).collect();
            let spread = Spread::of(&rounds);
            format!(
                "{:.4} {:.4} {:.4}",
                spread.min_s, spread.median_s, spread.max_s
            )
        };
        assert_eq!(spread(&[30, 10, 20]), "0.0100 0.0200 0.0300");
        assert_eq!(spread(&[40, 10, 20, 30]), "0.0100 0.0250 0.0400");
        assert_eq!(spread(&[]), "0.0000 0.0000 0.0000");
    }

    #[test]
    fn a_percentile_is_a_value_that_so_many_do_not_exceed() {
        let latency = Latency::of((1..=200).map(Duration::from_millis));
        assert_eq!(
            latency.to_string().split_whitespace().collect::<Vec<_>>(),
            ["200", "100.0", "198.0", "200.0"]
        );
        assert_eq!(Latency::of([]), Latency::default());
    }
}
