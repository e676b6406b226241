//! The proactive limit on requests per minute: a token bucket that never reads a clock.

use std::time::Duration;

use tokio::time::Instant;

use super::seconds;

/// Share of a minute's quota that may pass at once. A full minute's worth, as batch-llm 0.3.0 had it, lets twice
/// the quota through in the first minute; ten seconds' worth bounds the excess at a sixth.
const BURST_SHARE: f64 = 1.0 / 6.0;

/// A token bucket: refills continuously at `rate` per minute, holds at most a sixth of that (at least one token).
/// In any window of t minutes at most `capacity + rate * t` requests pass.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    capacity: f64,
    per_second: f64,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// A full bucket for `per_minute` requests per minute (positive, fractions allowed).
    pub fn per_minute(per_minute: f64, now: Instant) -> Self {
        let capacity = (per_minute * BURST_SHARE).max(1.0);
        Self { capacity, per_second: per_minute / 60.0, tokens: capacity, at: now }
    }

    /// Takes one token, or tells when there will be one.
    pub fn try_take(&mut self, now: Instant) -> Result<(), Instant> {
        let elapsed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * self.per_second).min(self.capacity);
        // Refills add up with rounding: a token that lacks a billionth is a token, else a waiter wakes too early.
        if self.tokens >= 1.0 - 1e-9 {
            self.tokens = (self.tokens - 1.0).max(0.0);
            Ok(())
        } else {
            // A nanosecond more than it takes, so that the clock's own rounding does not wake a waiter too early.
            Err(now + seconds((1.0 - self.tokens) / self.per_second) + Duration::from_nanos(1))
        }
    }

    /// Gives one token back: the attempt it was taken for was never sent.
    pub fn give_back(&mut self) {
        self.tokens = (self.tokens + 1.0).min(self.capacity);
    }

    /// How many requests may pass at once.
    pub fn capacity(&self) -> f64 {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::per_minute(60.0, start);
        for _ in 0..10 {
            assert!(bucket.try_take(start).is_ok());
        }
        let next = bucket.try_take(start).expect_err("the burst is over");
        assert!((next - start).as_secs_f64() - 1.0 < 1e-6);
        assert!(bucket.try_take(next).is_ok());
    }

    #[test]
    fn less_than_one_a_minute_works() {
        let start = Instant::now();
        let mut bucket = TokenBucket::per_minute(0.5, start);
        assert!(bucket.try_take(start).is_ok());
        let next = bucket.try_take(start).expect_err("one in two minutes");
        assert!(((next - start).as_secs_f64() - 120.0).abs() < 1e-6);
    }

    #[test]
    fn a_token_given_back_can_be_taken_again() {
        let start = Instant::now();
        let mut bucket = TokenBucket::per_minute(1.0, start);
        assert!(bucket.try_take(start).is_ok());
        bucket.give_back();
        assert!(bucket.try_take(start).is_ok());
    }

    proptest! {
        #[test]
        fn never_more_than_capacity_plus_rate(
            per_minute in 0.1f64..10_000.0, steps in prop::collection::vec(0u64..3_000, 1..300),
        ) {
            let start = Instant::now();
            let mut bucket = TokenBucket::per_minute(per_minute, start);
            let (mut now, mut passed) = (start, 0u32);
            for step in steps {
                now += Duration::from_millis(step);
                while bucket.try_take(now).is_ok() {
                    passed += 1;
                }
                let allowed = bucket.capacity() + per_minute * (now - start).as_secs_f64() / 60.0;
                prop_assert!(f64::from(passed) <= allowed + 1e-3, "{passed} passed, {allowed} allowed");
            }
        }

        #[test]
        fn the_instant_it_names_is_the_instant_it_grants(per_minute in 0.1f64..100_000.0) {
            let mut now = Instant::now();
            let mut bucket = TokenBucket::per_minute(per_minute, now);
            let mut waited = 0;
            while waited < 20 {
                if let Err(then) = bucket.try_take(now) {
                    prop_assert!(then > now);
                    now = then;
                    prop_assert!(bucket.try_take(now).is_ok());
                    waited += 1;
                }
            }
        }
    }
}
