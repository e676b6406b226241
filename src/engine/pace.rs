//! The bound of attempts per second, and the curve along which it, and the window, grow after a reduction.

use tokio::time::Instant;

use super::bucket::Bucket;

/// What a reduction leaves of the pace: gentler, for a rate limit is a number, not a queue that has to drain.
const PACE_BETA: f64 = 0.85;
/// Shortest time from a reduction back to the old top, seconds.
pub const RETURN: f64 = 5.0;
/// The same where others share the limit: each look beyond the top costs each of them a rate limit or two.
const SHARED_RETURN: f64 = 12.0;
/// A return takes at least so many attempts: each look beyond the top costs a rate limit or two.
const RETURN_ATTEMPTS: f64 = 150.0;
/// And at most so long, seconds.
const LONGEST_RETURN: f64 = 60.0;
/// Seconds' worth of the pace that may start at once.
const PACE_BURST: f64 = 0.5;
/// Slowest pace, attempts per second.
pub const SLOWEST: f64 = 1.0 / 60.0;

/// The curve after a reduction.
#[derive(Debug, Clone, Copy)]
pub struct Cubic {
    top: f64,
    beta: f64,
    /// Seconds until the old top is reached again.
    back: f64,
    /// Seconds during which the control delayed something.
    age: f64,
}

impl Cubic {
    /// Begins at `beta` of the top, and is back there after so many seconds.
    pub fn new(top: f64, beta: f64, back: f64) -> Self {
        Self { top, beta, back, age: 0.0 }
    }

    /// The bound at present.
    pub fn value(&self) -> f64 {
        let relative = (self.age - self.back) / self.back;
        self.top * (1.0 + (1.0 - self.beta) * relative.powi(3))
    }

    /// For so many seconds more it was needed.
    pub fn grow_old(&mut self, passed: f64) {
        self.age += passed;
    }

    /// Goes to the old top at once.
    pub fn return_now(&mut self) {
        self.age = self.back;
    }
}

/// The bound of attempts per second.
#[derive(Debug, Clone)]
pub struct Pace {
    /// How it grows.
    pub curve: Cubic,
    bucket: Bucket,
    /// Successes of attempts sent since the reduction, as many as there had been at the present part of a group's pace.
    delivered: f64,
    reduced: Instant,
}

impl Pace {
    /// After a reduction from `top`. `is_shared`: others look for the same limit.
    pub fn new(top: f64, is_shared: bool, now: Instant) -> Self {
        let top = top.max(SLOWEST);
        let shortest = if is_shared { SHARED_RETURN } else { RETURN };
        let back = (RETURN_ATTEMPTS / top).clamp(shortest, LONGEST_RETURN);
        let curve = Cubic::new(top, PACE_BETA, back);
        let mut bucket = Bucket::new(curve.value(), 1.0, PACE_BURST, now);
        // What was sent before the reduction counts: nothing is saved up.
        bucket.set_level(0.0, now);
        Self { curve, bucket, delivered: 0.0, reduced: now }
    }

    /// One that others have found.
    pub fn reported(pace: f64, now: Instant) -> Self {
        let mut reported = Self::new(pace, true, now);
        reported.curve.return_now();
        reported
    }

    /// Becomes so many times as much, because more or less of the group's pace is ours.
    pub fn scale(&mut self, times: f64) {
        // What is less than the slowest pace would not come back by the same factor.
        let times = times.max(SLOWEST / self.curve.value());
        self.curve.top *= times;
        self.delivered *= times;
    }

    /// Attempts per second at present.
    pub fn value(&self) -> f64 {
        self.curve.value().max(SLOWEST)
    }

    /// When it was reduced.
    pub fn reduced(&self) -> Instant {
        self.reduced
    }

    /// An attempt that was sent at `at` has succeeded.
    pub fn succeeded(&mut self, at: Instant) {
        if at >= self.reduced {
            self.delivered += 1.0;
        }
    }

    /// What got through since the last reduction, but no more than a halving where few did.
    pub fn throughput(&self, now: Instant) -> f64 {
        let passed = (now - self.reduced).as_secs_f64().max(1e-3);
        let present = self.curve.value();
        (self.delivered / passed).clamp(present / 2.0, present)
    }

    /// Whether an attempt may start now, or when.
    pub fn ready(&mut self, now: Instant) -> Result<(), Instant> {
        self.bucket.set_rate(self.value(), 1.0, PACE_BURST, now);
        self.bucket.ready(1.0, now)
    }

    /// An attempt starts.
    pub fn take(&mut self) {
        self.bucket.take(1.0);
    }

    /// A pause is over: what was saved up in it is not spent at once.
    pub fn resumed(&mut self, now: Instant) {
        let level = self.bucket.level(now).min(1.0);
        self.bucket.set_level(level, now);
    }
}
