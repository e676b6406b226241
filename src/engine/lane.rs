//! The items of one run that share a quota scope: their queue, their cooldown, their slow start.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::ItemIndex;
use super::bound::Bound;
use super::cooldown::Cooldown;
use super::scope::{Member, Scope};
use super::slow_start::SlowStart;

/// Number of a lane within its run.
pub type LaneId = u32;

/// How soon an item is to start among others: higher goes first. Items of equal priority start in order of submission.
pub type Priority = i32;

/// Items that have not started. Kept as ranges: a million items of one lane cost as much as one.
#[derive(Debug, Default)]
pub struct Fresh {
    queues: BTreeMap<Reverse<Priority>, VecDeque<Range<ItemIndex>>>,
    len: u64,
}

impl Fresh {
    /// Adds items at the end of those with their priority.
    pub fn push(&mut self, priority: Priority, items: Range<ItemIndex>) {
        self.len += items.end - items.start;
        let queue = self.queues.entry(Reverse(priority)).or_default();
        match queue.back_mut() {
            Some(last) if last.end == items.start => last.end = items.end,
            _ => queue.push_back(items),
        }
    }

    /// Who is next, and with what priority.
    pub fn first(&self) -> Option<(Priority, ItemIndex)> {
        let (Reverse(priority), queue) = self.queues.first_key_value()?;
        queue.front().map(|range| (*priority, range.start))
    }

    /// Takes who is next.
    pub fn pop(&mut self) -> Option<(Priority, ItemIndex)> {
        let mut entry = self.queues.first_entry()?;
        let priority = entry.key().0;
        let queue = entry.get_mut();
        let range = queue.front_mut()?;
        let item = range.start;
        range.start += 1;
        if range.is_empty() {
            queue.pop_front();
            if queue.is_empty() {
                entry.remove();
            }
        }
        self.len -= 1;
        Some((priority, item))
    }

    /// Takes a whole range of those that are next.
    pub fn pop_range(&mut self) -> Option<Range<ItemIndex>> {
        let mut entry = self.queues.first_entry()?;
        let range = entry.get_mut().pop_front()?;
        if entry.get().is_empty() {
            entry.remove();
        }
        self.len -= range.end - range.start;
        Some(range)
    }

    /// All, in the order in which they are to start.
    pub fn iter(&self) -> impl Iterator<Item = ItemIndex> + '_ {
        self.queues.values().flatten().flat_map(Clone::clone)
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What is known of an item that has not started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expected {
    /// It was asked for.
    Asked,
    /// What it will use.
    Estimate {
        /// Requests: 1, or the share of an item that is packed into one with others.
        requests: f64,
        /// Tokens of the prompt.
        input: f64,
        /// Tokens of the answer; `None`: as many as others of its kind.
        output: Option<f64>,
        /// No more tokens of the prompt than this, for the budget; `None`: nobody knows.
        most_input: Option<f64>,
        /// No more tokens of the answer than this, for the budget; `None`: nobody knows.
        most_output: Option<f64>,
        /// Whose answers it is likely to resemble.
        kind: u32,
    },
    /// Nobody can say: it is not to be sent.
    Unknown,
}

/// The first of a lane. Ordered as all lanes' heads are to start: those that were tried before, then by priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// Whether it never started.
    pub fresh: bool,
    /// Its priority.
    pub priority: Reverse<Priority>,
    /// The item.
    pub item: ItemIndex,
}

/// Items whose estimates are asked for ahead of their start.
const LOOK_AHEAD: usize = 64;

/// See the module.
pub struct Lane {
    /// What the lane shares with other runs.
    pub scope: Arc<Scope>,
    /// As whom.
    pub member: Member,
    /// The pause after a rate limit.
    pub cooldown: Cooldown,
    /// The spacing after a pause.
    pub slow_start: SlowStart,
    /// Items that have not started.
    pub fresh: Fresh,
    /// Items that are to be tried again now.
    pub ready: VecDeque<ItemIndex>,
    /// Items that met the rate limit, and wait for the end of the pause.
    pub refused: Vec<ItemIndex>,
    /// Attempts that were about to be sent when the pause began.
    pub parked: Vec<ItemIndex>,
    /// Estimates of items that have not started.
    pub expected: FxHashMap<ItemIndex, Expected>,
    /// Until when nothing starts, if that is known; and why.
    pub held: Option<(Option<Instant>, Bound)>,
}

impl Lane {
    /// An empty lane.
    pub fn new(scope: Arc<Scope>, member: Member) -> Self {
        Self {
            scope,
            member,
            cooldown: Cooldown::default(),
            slow_start: SlowStart::default(),
            fresh: Fresh::default(),
            ready: VecDeque::new(),
            refused: Vec::new(),
            parked: Vec::new(),
            expected: FxHashMap::default(),
            held: None,
        }
    }

    /// Who would start next.
    pub fn head(&self) -> Option<Head> {
        if let Some(item) = self.ready.front() {
            return Some(Head { fresh: false, priority: Reverse(0), item: *item });
        }
        self.fresh.first().map(|(priority, item)| Head { fresh: true, priority: Reverse(priority), item })
    }

    /// Items whose estimates are to be asked for now.
    pub fn to_estimate(&mut self) -> Vec<ItemIndex> {
        if self.expected.len() > LOOK_AHEAD / 2 {
            let asked = self.fresh.first().is_none_or(|(_, item)| self.expected.contains_key(&item));
            if asked {
                return Vec::new();
            }
        }
        let items: Vec<ItemIndex> =
            self.fresh.iter().take(LOOK_AHEAD).filter(|item| !self.expected.contains_key(item)).collect();
        self.expected.extend(items.iter().map(|item| (*item, Expected::Asked)));
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_priority_first_then_submission() {
        let mut fresh = Fresh::default();
        fresh.push(0, 0..3);
        fresh.push(5, 3..4);
        fresh.push(0, 4..6);
        fresh.push(-1, 6..7);
        assert_eq!(fresh.len(), 7);
        assert_eq!(fresh.iter().collect::<Vec<_>>(), [3, 0, 1, 2, 4, 5, 6]);
        let order: Vec<_> = std::iter::from_fn(|| fresh.pop()).collect();
        assert_eq!(order, [(5, 3), (0, 0), (0, 1), (0, 2), (0, 4), (0, 5), (-1, 6)]);
        assert!(fresh.first().is_none() && fresh.is_empty());
    }

    #[test]
    fn consecutive_items_are_one_range() {
        let mut fresh = Fresh::default();
        for item in 0..1_000_000 {
            fresh.push(0, item..item + 1);
        }
        assert_eq!(fresh.queues[&Reverse(0)].len(), 1);
    }
}
