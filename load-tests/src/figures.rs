//! Figures: medians, ratios, and how they are printed.

use std::time::Duration;

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
}
