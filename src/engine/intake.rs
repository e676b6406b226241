//! How many items a run has accepted and finished, and whether more may come.

use std::ops::Range;

use super::units::ItemIndex;

/// See the module.
#[derive(Debug, Default)]
pub struct Intake {
    accepted: ItemIndex,
    released: u64,
    /// More items may come: the run is not drained while it has none.
    is_open: bool,
    /// Whether it was reported that everything is done.
    drained: bool,
    /// Those whose offer was rejected, and who wait for room.
    rejected: usize,
}

impl Intake {
    /// Accepts items; returns their indexes.
    pub fn accept(&mut self, count: u64) -> Range<ItemIndex> {
        let first = self.accepted;
        self.accepted += count;
        self.drained = false;
        first..self.accepted
    }

    /// Counts items that are done.
    pub fn release(&mut self, count: u64) {
        self.released += count;
    }

    /// An offer was rejected.
    pub fn reject(&mut self) {
        self.rejected += 1;
    }

    /// There is room for one: whether somebody waits for it.
    pub fn make_room(&mut self) -> bool {
        let waited = self.rejected > 0;
        self.rejected = self.rejected.saturating_sub(1);
        waited
    }

    /// Sets whether more items may come.
    pub fn keep_open(&mut self, is_open: bool) {
        self.is_open = is_open;
    }

    /// Whether more items may come.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether everything is done and that is news: true once.
    pub fn drains(&mut self) -> bool {
        let news = self.released == self.accepted && !self.is_open && !self.drained;
        self.drained |= news;
        news
    }

    /// Whether everything is done, and that was reported.
    pub fn is_drained(&self) -> bool {
        self.drained && !self.is_open && self.released == self.accepted
    }
}
