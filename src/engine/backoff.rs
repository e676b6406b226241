//! Waits between the attempts of one item.

use std::time::Duration;

use super::units::seconds;

/// Capped exponential backoff: `min(initial * base^(k-1), max)` seconds after failed attempt k, with jitter times
/// a factor in [0.5, 1.0). The formula is that of batch-llm 0.3.0.
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    /// Wait after the first failed attempt, seconds.
    pub initial: f64,
    /// Upper bound of any wait, seconds.
    pub max: f64,
    /// Growth per attempt, at least 1.
    pub base: f64,
    /// Whether waits are spread.
    pub jitter: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: 1.0, max: 60.0, base: 2.0, jitter: true }
    }
}

impl Backoff {
    /// The wait after failed attempt `attempt` (from 1); `uniform` in [0, 1) is the random number to spread it by.
    pub fn wait(&self, attempt: u32, uniform: f64) -> Duration {
        let exponent = f64::from(attempt.saturating_sub(1));
        // An overflow is infinity, which the cap brings back.
        let wait = (self.initial * self.base.powf(exponent)).min(self.max);
        let factor = if self.jitter { 0.5 + 0.5 * uniform } else { 1.0 };
        seconds(wait * factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn grows_from_initial_to_max() {
        let backoff = Backoff { jitter: false, ..Backoff::default() };
        let waits: Vec<f64> = (1..=8).map(|k| backoff.wait(k, 0.0).as_secs_f64()).collect();
        assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
    }

    #[test]
    fn absurd_attempts_stay_at_the_cap() {
        let backoff = Backoff { jitter: false, ..Backoff::default() };
        assert_eq!(backoff.wait(u32::MAX, 0.0), Duration::from_secs(60));
    }

    proptest! {
        #[test]
        fn jitter_stays_between_half_and_whole(
            initial in 0.001f64..100.0, extra in 0.0f64..1000.0, base in 1.0f64..10.0,
            attempt in 1u32..200, uniform in 0.0f64..1.0,
        ) {
            let plain = Backoff { initial, max: initial + extra, base, jitter: false };
            let spread = Backoff { jitter: true, ..plain.clone() };
            let whole = plain.wait(attempt, uniform);
            let wait = spread.wait(attempt, uniform);
            prop_assert!(wait <= whole);
            prop_assert!(wait + Duration::from_nanos(2) >= whole / 2);
            prop_assert!(whole.as_secs_f64() <= initial + extra + 1e-6);
        }
    }
}
