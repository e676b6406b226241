//! Finished items, evenly spaced over a run: what a forecast is made of. The scheduler notes them, Python computes
//! (`python/batch_llm/_results/forecasting.py`).

use std::time::Duration;

use super::stats::Usage;

/// So many are kept at most, whatever the length of the run.
pub const MOST: usize = 256;

/// An item that has finished, and the run at that moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Since the start of the run.
    pub at: Duration,
    /// Items that have been tried and are done, this one included.
    pub done: u64,
    /// Items that have started and are not done.
    pub in_work: u64,
    /// What all items that are done have used.
    pub used: Usage,
    /// What was spent of the budget.
    pub spent: f64,
    /// How long this item took since it started.
    pub took: Duration,
    /// What this item has used.
    pub own: Usage,
}

/// Every so many items one, the more items there are the fewer.
#[derive(Debug)]
pub struct Samples {
    stored: Vec<Sample>,
    every: u64,
    done: u64,
}

impl Default for Samples {
    fn default() -> Self {
        Self { stored: Vec::new(), every: 1, done: 0 }
    }
}

impl Samples {
    /// One more item is done. Returns whether it is one of those to [`keep`](Self::keep).
    pub fn count(&mut self) -> bool {
        self.done += 1;
        if !self.done.is_multiple_of(self.every) {
            return false;
        }
        if self.stored.len() == MOST {
            self.every *= 2;
            self.stored.retain(|stored| stored.done.is_multiple_of(self.every));
        }
        self.done.is_multiple_of(self.every)
    }

    /// Keeps the item that was counted last.
    pub fn keep(&mut self, sample: Sample) {
        self.stored.push(sample);
    }

    /// Those that are kept, in order.
    pub fn stored(&self) -> &[Sample] {
        &self.stored
    }

    /// How many items are done.
    pub fn done(&self) -> u64 {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_few_and_evenly_spaced() {
        let mut samples = Samples::default();
        for number in 1..=10_000_u64 {
            if samples.count() {
                assert_eq!(samples.done(), number);
                let (at, took) = (Duration::from_secs(number), Duration::ZERO);
                let (used, own) = (Usage::default(), Usage::default());
                samples.keep(Sample { at, done: number, in_work: 0, used, spent: 0.0, took, own });
            }
            let stored = samples.stored();
            assert!(stored.len() <= MOST && stored.len() * 2 >= MOST.min(usize::try_from(number).unwrap()));
        }
        let gaps: Vec<u64> = samples.stored().windows(2).map(|pair| pair[1].done - pair[0].done).collect();
        assert!(gaps.iter().all(|gap| *gap == 64), "{gaps:?}");
        assert_eq!(samples.done(), 10_000);
    }
}
