//! Items that wait for their next attempt, by when they may go on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokio::time::Instant;

use super::units::ItemIndex;

/// See the module.
#[derive(Debug, Default)]
pub struct Retries(BinaryHeap<Reverse<(Instant, ItemIndex)>>);

impl Retries {
    /// Has an item wait until then.
    pub fn add(&mut self, item: ItemIndex, until: Instant) {
        self.0.push(Reverse((until, item)));
    }

    /// Takes the next one that may go on.
    pub fn due(&mut self, now: Instant) -> Option<ItemIndex> {
        self.next().filter(|until| *until <= now)?;
        self.0.pop().map(|Reverse((_, item))| item)
    }

    /// When the next one may go on.
    pub fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((until, _))| *until)
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Takes those that are wanted, in no order.
    pub fn take(&mut self, mut is_wanted: impl FnMut(ItemIndex) -> bool) -> Vec<ItemIndex> {
        let mut taken = Vec::new();
        self.0.retain(|Reverse((_, item))| {
            let wanted = is_wanted(*item);
            if wanted {
                taken.push(*item);
            }
            !wanted
        });
        taken
    }
}
