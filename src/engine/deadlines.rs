//! The timeouts of attempts and items: which are due, and which have become void because what they watch has ended.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use tokio::time::Instant;

use super::units::ItemIndex;

/// An attempt that has a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watch {
    /// When to look.
    at: Instant,
    /// The item.
    pub item: ItemIndex,
    /// The attempt that is meant.
    pub attempt: u32,
    /// The deadline that it had when it was entered; with another one, this entry is void.
    pub deadline: Instant,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The attempt is over its time.
    TimedOut(Watch),
    /// It was cancelled a while ago and is still there.
    Ignored(Watch),
}

/// Deadlines of what is in flight. All limits being equal, most come in order and cost no heap.
#[derive(Debug, Default)]
pub struct Deadlines {
    in_order: VecDeque<Watch>,
    others: BinaryHeap<Reverse<Watch>>,
    cancelled: VecDeque<Watch>,
    /// Those of items, in the order of their first starts.
    items: VecDeque<(Instant, ItemIndex)>,
}

impl Deadlines {
    /// Watches an item until `deadline`, whatever its attempts do.
    pub fn add_item(&mut self, item: ItemIndex, deadline: Instant) {
        self.items.push_back((deadline, item));
    }

    /// Takes the next item whose deadline has come; those that have ended are dropped on the way. `alive`: how many have
    /// not.
    pub fn due_item(&mut self, now: Instant, alive: usize, is_alive: impl Fn(ItemIndex) -> bool) -> Option<ItemIndex> {
        if self.items.len() > 64 + 2 * alive {
            self.items.retain(|(_, item)| is_alive(*item));
        }
        while let Some((deadline, item)) = self.items.front().copied()
            && (deadline <= now || !is_alive(item))
        {
            self.items.pop_front();
            if is_alive(item) {
                return Some(item);
            }
        }
        None
    }

    /// Watches an attempt until `deadline`.
    pub fn add(&mut self, item: ItemIndex, attempt: u32, deadline: Instant) {
        let watch = Watch { at: deadline, item, attempt, deadline };
        if self.in_order.back().is_none_or(|last| last.at <= deadline) {
            self.in_order.push_back(watch);
        } else {
            self.others.push(Reverse(watch));
        }
    }

    /// The attempt was cancelled; look again at `at`.
    pub fn cancelled(&mut self, watch: Watch, at: Instant) {
        self.cancelled.push_back(Watch { at, ..watch });
    }

    /// The same for an attempt that is cancelled before its own time is over, at `now`, which is its deadline from
    /// here on.
    pub fn cancelled_now(&mut self, item: ItemIndex, attempt: u32, now: Instant, at: Instant) {
        self.cancelled.push_back(Watch { at, item, attempt, deadline: now });
    }

    /// Forgets what is void when there is much of it: attempts end long before their deadlines, and fast runs would
    /// collect minutes of dead entries.
    pub fn tidy(&mut self, alive: usize, is_on: impl Fn(&Watch) -> bool) {
        if self.in_order.len() > 64 + 2 * alive {
            self.in_order.retain(&is_on);
        }
        if self.others.len() > 64 + 2 * alive {
            self.others.retain(|Reverse(watch)| is_on(watch));
        }
    }

    /// Takes the next one that is due; void ones are dropped on the way.
    pub fn due(&mut self, now: Instant, is_on: impl Fn(&Watch) -> bool) -> Option<Due> {
        while let Some(watch) = self.in_order.front().copied() {
            let on = is_on(&watch);
            if on && watch.at > now {
                break;
            }
            self.in_order.pop_front();
            if on {
                return Some(Due::TimedOut(watch));
            }
        }
        while let Some(Reverse(watch)) = self.others.peek().copied()
            && watch.at <= now
        {
            self.others.pop();
            if is_on(&watch) {
                return Some(Due::TimedOut(watch));
            }
        }
        while let Some(watch) = self.cancelled.front().copied() {
            let on = is_on(&watch);
            if on && watch.at > now {
                break;
            }
            self.cancelled.pop_front();
            if on {
                return Some(Due::Ignored(watch));
            }
        }
        None
    }

    /// When to look next.
    pub fn next(&self) -> Option<Instant> {
        let others = self.others.peek().map(|Reverse(watch)| watch.at);
        let items = self.items.front().map(|(deadline, _)| *deadline);
        let fronts = [self.in_order.front(), self.cancelled.front()];
        fronts.into_iter().flatten().map(|watch| watch.at).chain(others).chain(items).min()
    }
}
