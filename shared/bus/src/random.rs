//! Randomness of the operating system: tokens that must be unique, and jitter.

use std::time::Duration;

/// 128 random bits in hex.
pub(crate) fn token() -> String {
    model::hex(&bytes())
}

/// Between half of `duration` and all of it, so that a fleet does not act in step.
pub(crate) fn jitter(duration: Duration) -> Duration {
    let [low, high, ..] = bytes();
    let fraction = f64::from(u16::from_le_bytes([low, high])) / f64::from(u16::MAX);
    duration.mul_f64(0.5 + fraction / 2.0)
}

/// 64 random bits.
pub(crate) fn number() -> u64 {
    let bytes = bytes();
    let (words, _) = bytes.as_chunks();
    words.first().map_or(0, |word| u64::from_le_bytes(*word))
}

fn bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    // The call fails only where the operating system has no randomness at all; a value that is not
    // unique costs a retry there and nothing else.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        tracing::error!("the operating system gives no random bytes");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_between_half_and_all() {
        let all = Duration::from_secs(10);
        assert!(
            (0..1000)
                .map(|_| jitter(all))
                .all(|some| some >= all / 2 && some <= all)
        );
        assert_ne!(token(), token());
    }
}
