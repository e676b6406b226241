//! The two meters of a limit: a token bucket for short windows, a sliding window for long ones. Neither reads a clock.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::units::seconds;

/// A token bucket (<https://en.wikipedia.org/wiki/Token_bucket>): refills continuously, holds at most `capacity`. In
/// any time t at most `capacity + rate * t` passes, and one item that is larger than the capacity.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_second: f64,
    capacity: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket for `amount` per `per` seconds, of which `burst` seconds' worth may pass at once (at least 1).
    pub fn new(amount: f64, per: f64, burst: f64, now: Instant) -> Self {
        let per_second = amount / per;
        let capacity = (per_second * burst).max(1.0);
        Self { per_second, capacity, level: capacity, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.level = (self.level + elapsed.as_secs_f64() * self.per_second).min(self.capacity);
    }

    /// Whether `amount` may pass now, or when. What is more than the bucket ever holds passes when it is full, and
    /// leaves a debt.
    pub fn ready(&mut self, amount: f64, now: Instant) -> Result<(), Instant> {
        self.refill(now);
        let lacking = amount.min(self.capacity) - self.level;
        // Refills add up with rounding: what lacks a billionth is there, else a waiter wakes too early.
        if lacking <= 1e-9 * self.capacity.max(1.0) {
            return Ok(());
        }
        // A nanosecond more than it takes, so that the clock's own rounding does not wake a waiter too early.
        Err(now + seconds(lacking / self.per_second) + Duration::from_nanos(1))
    }

    /// Takes `amount`, into debt if need be; a negative one is given back.
    pub fn take(&mut self, amount: f64) {
        self.level = (self.level - amount).min(self.capacity);
    }

    /// Changes the rate, and the capacity with it: what was saved at a higher rate is not spent at the lower one.
    pub fn set_rate(&mut self, amount: f64, per: f64, burst: f64, now: Instant) {
        self.refill(now);
        self.per_second = amount / per;
        self.capacity = (self.per_second * burst).max(1.0);
        self.level = self.level.min(self.capacity);
    }

    /// What it holds.
    pub fn level(&mut self, now: Instant) -> f64 {
        self.refill(now);
        self.level
    }

    /// Sets what it holds, at most the capacity.
    pub fn set_level(&mut self, level: f64, now: Instant) {
        self.refill(now);
        self.level = level.min(self.capacity);
    }

    /// Refill per second.
    pub fn per_second(&self) -> f64 {
        self.per_second
    }

    /// What may pass at once.
    pub fn capacity(&self) -> f64 {
        self.capacity
    }
}

/// Parts of a window: what passed is forgotten by parts, at most a part's length late.
const SLOTS: u32 = 96;

/// A sliding window for quotas of an hour or a day, which may be used up at once: in any window of this length at
/// most `amount` passes.
#[derive(Debug, Clone)]
pub struct Window {
    amount: f64,
    length: Duration,
    /// When what passed in this part is forgotten, and how much that was.
    slots: VecDeque<(Instant, f64)>,
    used: f64,
}

impl Window {
    /// An unused window.
    pub fn new(amount: f64, length: Duration) -> Self {
        Self { amount, length, slots: VecDeque::new(), used: 0.0 }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((until, amount)) = self.slots.front().copied()
            && until <= now
        {
            self.slots.pop_front();
            self.used -= amount;
        }
    }

    /// Whether `amount` may pass now, or when.
    pub fn ready(&mut self, amount: f64, now: Instant) -> Result<(), Instant> {
        self.forget(now);
        let mut lacking = self.used + amount.min(self.amount) - self.amount;
        let mut at = None;
        for (until, passed) in &self.slots {
            if lacking <= 1e-9 * self.amount {
                break;
            }
            at = Some(*until);
            lacking -= passed;
        }
        at.map_or(Ok(()), Err)
    }

    /// Takes `amount`; a negative one is given back.
    pub fn take(&mut self, amount: f64, now: Instant) {
        let part = self.length / SLOTS;
        match self.slots.back_mut() {
            Some((until, passed)) if now + self.length <= *until => *passed += amount,
            _ => self.slots.push_back((now + self.length + part, amount)),
        }
        self.used += amount;
    }

    /// What is left.
    pub fn level(&mut self, now: Instant) -> f64 {
        self.forget(now);
        self.amount - self.used
    }

    /// Sets what is left.
    pub fn set_level(&mut self, level: f64, now: Instant) {
        let change = self.level(now) - level;
        self.take(change, now);
    }

    /// Forgets all that passed.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.used = 0.0;
    }

    /// Changes the amount.
    pub fn set_amount(&mut self, amount: f64) {
        self.amount = amount;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take(bucket: &mut Bucket, amount: f64, now: Instant) -> Result<(), Instant> {
        bucket.ready(amount, now)?;
        bucket.take(amount);
        Ok(())
    }

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(60.0, 60.0, 10.0, start);
        for _ in 0..10 {
            assert!(take(&mut bucket, 1.0, start).is_ok());
        }
        let next = take(&mut bucket, 1.0, start).expect_err("the burst is over");
        assert!((next - start).as_secs_f64() - 1.0 < 1e-6);
        assert!(take(&mut bucket, 1.0, next).is_ok());
    }

    #[test]
    fn less_than_one_a_minute_works() {
        let start = Instant::now();
        let mut bucket = Bucket::new(0.5, 60.0, 10.0, start);
        assert!(take(&mut bucket, 1.0, start).is_ok());
        let next = take(&mut bucket, 1.0, start).expect_err("one in two minutes");
        assert!(((next - start).as_secs_f64() - 120.0).abs() < 1e-6);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1.0, 60.0, 10.0, start);
        assert!(take(&mut bucket, 1.0, start).is_ok());
        bucket.take(-1.0);
        assert!(take(&mut bucket, 1.0, start).is_ok());
    }

    #[test]
    fn a_giant_passes_when_the_bucket_is_full_and_leaves_a_debt() {
        let start = Instant::now();
        let mut bucket = Bucket::new(600.0, 60.0, 5.0, start);
        assert!(take(&mut bucket, 500.0, start).is_ok());
        let next = take(&mut bucket, 1.0, start).expect_err("in debt");
        assert!(((next - start).as_secs_f64() - 45.1).abs() < 1e-6);
    }

    #[test]
    fn cutting_the_rate_shrinks_the_bucket_too() {
        let start = Instant::now();
        let mut bucket = Bucket::new(6000.0, 60.0, 10.0, start);
        bucket.set_rate(60.0, 60.0, 10.0, start);
        assert!((bucket.level(start) - 10.0).abs() < 1e-9);
        // And a higher rate does not fill it at once.
        bucket.take(10.0);
        bucket.set_rate(6000.0, 60.0, 10.0, start);
        assert!(bucket.level(start).abs() < 1e-9);
    }

    #[test]
    fn a_days_quota_may_be_used_at_once_but_not_twice() {
        let day = Duration::from_secs(86_400);
        let start = Instant::now();
        let mut window = Window::new(100.0, day);
        for _ in 0..100 {
            assert!(window.ready(1.0, start).is_ok());
            window.take(1.0, start);
        }
        let next = window.ready(1.0, start).expect_err("used up");
        assert!(next >= start + day && next <= start + day + day / SLOTS);
        assert!(window.ready(100.0, next).is_ok());
        window.take(-1.0, start);
        assert!(window.ready(1.0, start).is_ok());
    }

    proptest! {
        #[test]
        fn never_more_than_capacity_plus_rate(
            per_minute in 0.1f64..10_000.0, steps in prop::collection::vec(0u64..3_000, 1..300),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(per_minute, 60.0, 10.0, start);
            let (mut now, mut passed) = (start, 0u32);
            for step in steps {
                now += Duration::from_millis(step);
                while take(&mut bucket, 1.0, now).is_ok() {
                    passed += 1;
                }
                let allowed = bucket.capacity() + per_minute * (now - start).as_secs_f64() / 60.0;
                prop_assert!(f64::from(passed) <= allowed + 1e-3, "{passed} passed, {allowed} allowed");
            }
        }

        #[test]
        fn the_instant_it_names_is_the_instant_it_grants(per_minute in 0.1f64..100_000.0, amount in 0.1f64..500.0) {
            let mut now = Instant::now();
            let mut bucket = Bucket::new(per_minute, 60.0, 10.0, now);
            let mut waited = 0;
            while waited < 20 {
                if let Err(then) = take(&mut bucket, amount, now) {
                    prop_assert!(then > now);
                    now = then;
                    prop_assert!(take(&mut bucket, amount, now).is_ok());
                    waited += 1;
                }
            }
        }

        #[test]
        fn a_window_never_lets_more_than_its_amount_through(
            steps in prop::collection::vec((0u64..4_000, 1u32..40), 1..300),
        ) {
            let length = Duration::from_secs(3600);
            let start = Instant::now();
            let mut window = Window::new(100.0, length);
            let mut now = start;
            let mut passed: Vec<(Instant, f64)> = Vec::new();
            for (step, amount) in steps {
                now += Duration::from_secs(step / 8);
                let amount = f64::from(amount);
                if window.ready(amount, now).is_ok() {
                    window.take(amount, now);
                    passed.push((now, amount));
                }
                let inside: f64 = passed.iter().filter(|(at, _)| *at + length > now).map(|(_, amount)| amount).sum();
                prop_assert!(inside <= 100.0 + 1e-6);
            }
        }
    }
}
