//! What bounded a run over time: how long each reason was it, in intervals of equal length. Only `bound` uses it.
//!
//! A run's length is known only at its end. When there are too many intervals, neighbours become one, so a run of any
//! length takes the same memory, and the same place in a store.

use std::time::Duration;

use tokio::time::Instant;

/// Intervals at most; even, so that all of them have a neighbour.
pub const MOST: usize = 240;
/// The first intervals.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long each of `N` reasons was it, by interval.
#[derive(Debug, Clone)]
pub struct OverTime<const N: usize> {
    began: Instant,
    interval: Duration,
    /// Of the intervals that are over: seconds by reason.
    closed: Vec<[f32; N]>,
    /// What each reason had come to when the present interval began.
    before: [Duration; N],
}

impl<const N: usize> OverTime<N> {
    /// Nothing yet.
    pub fn new(now: Instant) -> Self {
        Self { began: now, interval: SHORTEST, closed: Vec::new(), before: [Duration::ZERO; N] }
    }

    /// When the present interval ends.
    pub fn end(&self) -> Instant {
        let number = u32::try_from(self.closed.len() + 1).unwrap_or(u32::MAX);
        self.began + self.interval.saturating_mul(number)
    }

    /// How long it has lasted.
    pub fn lasted(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// The present interval is over, and each reason has come to this.
    pub fn close(&mut self, total: &[Duration; N]) {
        self.closed.push(self.passed(total));
        self.before = *total;
        if self.closed.len() >= MOST {
            self.interval *= 2;
            self.closed = self
                .closed
                .chunks(2)
                .map(|pair| std::array::from_fn(|reason| pair.iter().map(|row| row[reason]).sum()))
                .collect();
        }
    }

    fn passed(&self, total: &[Duration; N]) -> [f32; N] {
        std::array::from_fn(|reason| total[reason].saturating_sub(self.before[reason]).as_secs_f32())
    }

    /// The length of an interval; and for a reason, its seconds in each, the present one included, if it was ever it.
    pub fn rows(&self, total: &[Duration; N]) -> (Duration, impl Fn(usize) -> Option<Vec<f32>>) {
        let present = self.passed(total);
        let row = move |reason: usize| {
            let seconds = self.closed.iter().chain([&present]).map(|row| row[reason]);
            (!total[reason].is_zero()).then(|| seconds.collect())
        };
        (self.interval, row)
    }
}
