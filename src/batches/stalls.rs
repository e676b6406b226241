//! When no more batches are made for a while. A batch stalls if its provider has counted no more answers for longer than
//! nearly all batches take. Then no other one is made for the same model, until one ends: what is in a batch cannot be
//! sent otherwise before that has ended, and where batches do not end by themselves they may not end when they are
//! cancelled either. What is not in a batch yet can be sent at any time. Pure: time is an argument, in seconds.
//! [`route`](super::route) has one where there is a deadline.

use rustc_hash::FxHashMap;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    /// How long a batch may be without news.
    longest: Option<f64>,
    /// The batches at the provider, by chunk.
    open: FxHashMap<i64, Open>,
    /// When one has last ended.
    ended_at: Option<f64>,
}

#[derive(Debug)]
struct Open {
    /// When it was made, or its count was seen to have changed.
    since: f64,
    count: Option<(u64, u64)>,
}

impl Stalls {
    /// `longest`: how long a batch may be without news; none: for ever.
    pub fn new(longest: Option<f64>) -> Self {
        Self { longest, ..Self::default() }
    }

    /// A chunk is in a batch, which was made at that time.
    pub fn opened(&mut self, chunk: i64, made_at: f64) {
        self.open.entry(chunk).or_insert(Open { since: made_at, count: None });
    }

    /// The provider has counted so many answers and failures of a batch by now.
    pub fn counted(&mut self, chunk: i64, count: Option<(u64, u64)>, now: f64) {
        if let Some(open) = self.open.get_mut(&chunk).filter(|open| open.count != count) {
            // The first count is news only if something is done.
            if open.count.is_some() || count.is_some_and(|(done, failed)| done + failed > 0) {
                open.since = now;
            }
            open.count = count;
        }
    }

    /// The batch of a chunk has ended.
    pub fn ended(&mut self, chunk: i64, now: f64) {
        if self.open.remove(&chunk).is_some() {
            self.ended_at = Some(now);
        }
    }

    /// Whether a batch stalls, and none has ended since it does.
    pub fn is_stalled(&self, now: f64) -> bool {
        let Some(longest) = self.longest else { return false };
        let begins = self.open.values().map(|open| open.since + longest).filter(|begins| *begins <= now);
        begins
            .fold(None, |last: Option<f64>, begins| Some(last.map_or(begins, |last| last.max(begins))))
            .is_some_and(|last| self.ended_at.is_none_or(|ended| ended < last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_without_news_stalls_until_one_ends() {
        let mut stalls = Stalls::new(Some(100.0));
        assert!(!stalls.is_stalled(1000.0), "there is none");
        stalls.opened(1, 0.0);
        stalls.opened(2, 50.0);
        assert!(!stalls.is_stalled(99.0) && stalls.is_stalled(100.0));
        stalls.ended(2, 120.0);
        assert!(!stalls.is_stalled(130.0), "the provider goes on, and one may be stuck by itself");
        stalls.opened(3, 130.0);
        assert!(!stalls.is_stalled(229.0) && stalls.is_stalled(230.0), "the next one stalls too");
        stalls.ended(1, 240.0);
        stalls.ended(3, 240.0);
        assert!(!stalls.is_stalled(1000.0));
    }

    #[test]
    fn counts_that_grow_are_news() {
        let mut stalls = Stalls::new(Some(100.0));
        stalls.opened(1, 0.0);
        // None, or nothing done, is no news.
        stalls.counted(1, None, 60.0);
        stalls.counted(1, Some((0, 0)), 70.0);
        assert!(stalls.is_stalled(100.0));
        stalls.counted(1, Some((5, 0)), 110.0);
        assert!(!stalls.is_stalled(209.0) && stalls.is_stalled(210.0));
        stalls.counted(1, Some((5, 0)), 220.0);
        assert!(stalls.is_stalled(220.0));
        stalls.counted(1, Some((5, 1)), 230.0);
        assert!(!stalls.is_stalled(230.0));
    }

    #[test]
    fn without_a_limit_nothing_stalls() {
        let mut stalls = Stalls::new(None);
        stalls.opened(1, 0.0);
        assert!(!stalls.is_stalled(1e9));
    }
}
