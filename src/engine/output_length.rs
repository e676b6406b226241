//! How long answers are likely to be: learned from those that came.

/// Buckets per doubling.
const FINENESS: f64 = 4.0;
const BUCKETS: usize = 96;
/// So many answers are remembered with full weight; older ones count less and less.
const MEMORY: f32 = 1000.0;
/// The share of answers that is not longer than the estimate. High enough that debts are rare, low enough that the
/// few giants do not slow everybody.
const QUANTILE: f32 = 0.75;
/// Before so many answers, the start value holds.
const ENOUGH: f32 = 8.0;

/// A quantile of the output tokens seen, from a histogram with logarithmic buckets that forgets.
#[derive(Debug, Clone)]
pub struct OutputLength {
    counts: [f32; BUCKETS],
    total: f32,
    start: f64,
    longest: f64,
}

impl OutputLength {
    /// Begins with an expectation, in tokens.
    pub fn new(start: f64) -> Self {
        Self { counts: [0.0; BUCKETS], total: 0.0, start, longest: 0.0 }
    }

    /// Takes note of an answer.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn learn(&mut self, tokens: f64) {
        let bucket = ((tokens.max(0.0) + 1.0).log2() * FINENESS) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1.0;
        self.total += 1.0;
        self.longest = self.longest.max(tokens);
        if self.total > 2.0 * MEMORY {
            self.counts.iter_mut().for_each(|count| *count /= 2.0);
            self.total /= 2.0;
        }
    }

    /// What to expect of the next one, in tokens: the upper end of the bucket with the quantile.
    #[allow(clippy::cast_precision_loss)]
    pub fn expect(&self) -> f64 {
        if self.total < ENOUGH {
            return self.start;
        }
        let mut left = self.total * QUANTILE;
        for (bucket, count) in self.counts.iter().enumerate() {
            left -= count;
            if left <= 0.0 {
                return (((bucket as f64 + 1.0) / FINENESS).exp2() - 1.0).min(self.longest);
            }
        }
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_as_told_and_learns() {
        let mut length = OutputLength::new(256.0);
        assert!((length.expect() - 256.0).abs() < 1e-9);
        (1..=100).for_each(|tokens| length.learn(f64::from(tokens)));
        assert!((75.0..=95.0).contains(&length.expect()), "{}", length.expect());
    }

    #[test]
    fn forgets_what_was_long_ago() {
        let mut length = OutputLength::new(256.0);
        (0..3000).for_each(|_| length.learn(1000.0));
        (0..6000).for_each(|_| length.learn(10.0));
        assert!(length.expect() < 15.0);
    }

    #[test]
    fn never_more_than_was_seen() {
        let mut length = OutputLength::new(256.0);
        (0..100).for_each(|_| length.learn(0.0));
        assert!(length.expect().abs() < 1e-9);
        (0..1000).for_each(|_| length.learn(700.0));
        assert!((length.expect() - 700.0).abs() < 1e-9);
    }
}
