//! The worker slots of a run: which are free, and how many there may be.

use std::num::NonZeroUsize;

use rustc_hash::FxHashSet;

/// See the module.
#[derive(Debug)]
pub struct Workers {
    limit: usize,
    /// Popped from the end: the lowest number first.
    free: Vec<u32>,
    /// Busy workers that are to go when they have nothing to do any more.
    surplus: usize,
}

impl Workers {
    /// All are free.
    pub fn new(limit: NonZeroUsize) -> Self {
        let mut workers = Self { limit: 0, free: Vec::new(), surplus: 0 };
        workers.resize(limit, &FxHashSet::default());
        workers
    }

    /// Changes how many there may be. Those that are `busy` stay so.
    pub fn resize(&mut self, limit: NonZeroUsize, busy: &FxHashSet<u32>) {
        self.limit = limit.get();
        let limit = u32::try_from(self.limit).unwrap_or(u32::MAX) as usize;
        self.surplus = busy.len().saturating_sub(limit);
        let room = limit.saturating_sub(busy.len());
        self.free = (0..u32::MAX).filter(|worker| !busy.contains(worker)).take(room).collect();
        self.free.reverse();
    }

    /// How many there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many are busy.
    pub fn busy(&self) -> usize {
        self.limit - self.free.len()
    }

    /// Whether all are busy.
    pub fn are_busy(&self) -> bool {
        self.free.is_empty()
    }

    /// Takes a free one.
    pub fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Gives one back.
    pub fn release(&mut self, worker: u32) {
        match self.surplus.checked_sub(1) {
            Some(less) => self.surplus = less,
            None => self.free.push(worker),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_workers_go_when_they_are_released() {
        let at_most = |limit| NonZeroUsize::new(limit).unwrap();
        let mut workers = Workers::new(at_most(3));
        let taken: FxHashSet<u32> = std::iter::from_fn(|| workers.take()).collect();
        assert_eq!((taken.len(), workers.busy(), workers.are_busy()), (3, 3, true));
        workers.resize(at_most(1), &taken);
        workers.release(0);
        workers.release(1);
        assert_eq!(workers.take(), None);
        workers.release(2);
        assert_eq!((workers.take(), workers.take()), (Some(2), None));
        workers.resize(at_most(2), &FxHashSet::from_iter([2]));
        assert_eq!((workers.take(), workers.take()), (Some(0), None));
    }
}
