//! The items of one scope within a run: their queue by priority, their cooldown, their slow start.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::aside::{Aside, Place};
use super::bound::Bound;
use super::cooldown::Cooldown;
use super::outage::View;
use super::scope::{Member, Scope};
use super::served::Served;
use super::slow_start::SlowStart;
use super::units::ItemIndex;
use super::waits::BlockedHead;

/// Number of a queue within its run.
pub type QueueId = u32;

/// How soon an item is to start among others: higher goes first. Items of equal priority start in order of submission.
pub type Priority = i32;

/// Items that have not started. Kept as ranges: a million items of one queue cost as much as one.
#[derive(Debug, Default)]
pub struct Fresh {
    by_priority: BTreeMap<Reverse<Priority>, VecDeque<Part>>,
    /// All, those included that were passed over.
    len: u64,
    /// Those that were passed over, because of what they wait for.
    aside: Option<Box<Aside>>,
}

/// Items that were accepted one after the other, at about the same time.
#[derive(Debug, Clone)]
struct Part {
    items: Range<ItemIndex>,
    since: Instant,
}

/// Items that came within this time of each other are said to have come together.
const TOGETHER: Duration = Duration::from_millis(1);

impl Fresh {
    /// Adds items at the end of those with their priority.
    pub fn push(&mut self, priority: Priority, items: Range<ItemIndex>, now: Instant) {
        self.len += items.end - items.start;
        let queue = self.by_priority.entry(Reverse(priority)).or_default();
        match queue.back_mut() {
            Some(last) if last.items.end == items.start && now.duration_since(last.since) < TOGETHER => {
                last.items.end = items.end;
            }
            _ => queue.push_back(Part { items, since: now }),
        }
    }

    /// Who is next, and with what priority. `None`: nobody is there, or all wait for something.
    pub fn first(&self) -> Option<(Priority, ItemIndex)> {
        let first = self.first_in_line();
        let first = match &self.aside {
            None => first,
            Some(aside) => [first, aside.first()].into_iter().flatten().min(),
        };
        first.map(|(Reverse(priority), item)| (priority, item))
    }

    fn first_in_line(&self) -> Option<Place> {
        let (priority, queue) = self.by_priority.first_key_value()?;
        queue.front().map(|part| (*priority, part.items.start))
    }

    /// Takes who is next; since when it has been waiting.
    pub fn pop(&mut self) -> Option<(ItemIndex, Instant)> {
        if let Some(aside) = &mut self.aside
            && let Some(first) = aside.first()
            && self
                .by_priority
                .first_key_value()
                .is_none_or(|(priority, parts)| parts.front().is_none_or(|part| first < (*priority, part.items.start)))
        {
            let ((_, item), since) = aside.pop()?;
            if aside.is_empty() {
                self.aside = None;
            }
            self.len -= 1;
            return Some((item, since));
        }
        let mut entry = self.by_priority.first_entry()?;
        let queue = entry.get_mut();
        let part = queue.front_mut()?;
        let (item, since) = (part.items.start, part.since);
        part.items.start += 1;
        if part.items.is_empty() {
            queue.pop_front();
            if queue.is_empty() {
                entry.remove();
            }
        }
        self.len -= 1;
        Some((item, since))
    }

    /// Takes one out of the line, wherever it stands; whether it was there.
    pub fn remove(&mut self, item: ItemIndex) -> bool {
        for (priority, queue) in &mut self.by_priority {
            let Some(place) = queue.iter().position(|part| part.items.contains(&item)) else { continue };
            let Some(part) = queue.get_mut(place) else { continue };
            let behind = Part { items: item + 1..part.items.end, since: part.since };
            part.items.end = item;
            let is_empty = part.items.is_empty();
            if !behind.items.is_empty() {
                queue.insert(place + 1, behind);
            }
            if is_empty {
                queue.remove(place);
            }
            self.len -= 1;
            if queue.is_empty() {
                let priority = *priority;
                self.by_priority.remove(&priority);
            }
            return true;
        }
        let was_aside = self.aside.as_mut().is_some_and(|aside| aside.remove(item));
        self.len -= u64::from(was_aside);
        was_aside
    }

    /// Takes a whole range of those that are there, whatever they wait for.
    pub fn pop_range(&mut self) -> Option<Range<ItemIndex>> {
        if let Some(aside) = self.aside.take() {
            for ((Reverse(priority), item), since) in aside.take_all() {
                self.len -= 1;
                self.push(priority, item..item + 1, since);
            }
        }
        let mut entry = self.by_priority.first_entry()?;
        let part = entry.get_mut().pop_front()?;
        if entry.get().is_empty() {
            entry.remove();
        }
        self.len -= part.items.end - part.items.start;
        Some(part.items)
    }

    /// All but those that have to wait, in the order in which they are to start.
    pub fn iter(&self) -> impl Iterator<Item = ItemIndex> + '_ {
        let line = self.by_priority.iter().flat_map(|(priority, parts)| {
            parts.iter().flat_map(|part| part.items.clone()).map(|item| (*priority, item))
        });
        let (mut line, mut aside) = (line.peekable(), self.aside.iter().flat_map(|aside| aside.returned()).peekable());
        std::iter::from_fn(move || match (line.peek(), aside.peek()) {
            (Some(first), Some(other)) if other < first => aside.next(),
            (Some(_), _) => line.next(),
            (None, _) => aside.next(),
        })
        .map(|(_, item)| item)
    }

    /// All that were not passed over, in the same order.
    fn line(&self) -> impl Iterator<Item = ItemIndex> + '_ {
        self.by_priority.values().flatten().flat_map(|part| part.items.clone())
    }

    /// Passes over who is next.
    pub fn pass_over(&mut self, wait: impl FnOnce(&mut Aside, Place, Instant)) {
        let Some((priority, _)) = self.first() else { return };
        let Some((item, since)) = self.pop() else { return };
        self.len += 1;
        wait(self.aside.get_or_insert_default(), (Reverse(priority), item), since);
    }

    /// Those that were passed over.
    pub fn aside(&self) -> Option<&Aside> {
        self.aside.as_deref()
    }

    /// The same, to be changed.
    pub fn aside_mut(&mut self) -> Option<&mut Aside> {
        self.aside.as_deref_mut()
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
    /// It was requested.
    Requested,
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

/// The first of a queue. Ordered as all queues' heads are to start: those that were tried before, then by priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// Whether it never started.
    pub fresh: bool,
    /// Its priority.
    pub priority: Reverse<Priority>,
    /// The item.
    pub item: ItemIndex,
}

/// Items whose estimates are requested ahead of their start.
const LOOK_AHEAD: usize = 64;

/// See the module.
pub struct Queue {
    /// When the queue began.
    pub began: Instant,
    /// What the queue shares with other runs.
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
    pub rate_limited: Vec<ItemIndex>,
    /// Attempts that were about to be sent when the pause began.
    pub parked: Vec<ItemIndex>,
    /// Items that have started and are not done.
    pub in_work: u64,
    /// How long its attempts have taken.
    pub served: Served,
    /// Items that would have failed for good, if it were certain that the provider is not away.
    pub undecided: Vec<ItemIndex>,
    /// Whether the provider has answered in this run.
    pub lived: bool,
    /// The current outage, as far as the run has heard of it.
    pub outage: Option<View>,
    /// That has lasted for too long: who waits for the provider is rejected.
    pub out_of_patience: bool,
    /// Whether those that failed during an outage, and those that never started, take turns: if
    /// it was the items, the others show it.
    pub takes_turns: bool,
    /// Whether it is the turn of one that never started.
    pub fresh_is_next: bool,
    /// The scope's news of outages that the run has heard.
    pub heard: u64,
    /// Estimates of items that have not started.
    pub expected: FxHashMap<ItemIndex, Expected>,
    /// Until when it is blocked, if that is known; and on what.
    pub blocked: Option<(Option<Instant>, Bound)>,
    /// Who waits because of that.
    pub blocked_head: Option<BlockedHead>,
    /// Items that are to be tried again now, but for a prompt cache that is being written: with the head's key.
    pub unread: Vec<(u64, ItemIndex)>,
    /// When it is to be looked at next whether prompt caches are written.
    pub unread_until: Option<Instant>,
    /// The scope's news of prompt caches that were heard.
    pub heard_of_caches: u64,
    /// Whether its attempts are in no one's way for as long as they take: no limits, no timeouts.
    pub is_unbounded: bool,
}

impl Queue {
    /// An empty queue.
    pub fn new(scope: Arc<Scope>, member: Member, now: Instant) -> Self {
        Self {
            began: now,
            scope,
            member,
            cooldown: Cooldown::default(),
            slow_start: SlowStart::default(),
            fresh: Fresh::default(),
            ready: VecDeque::new(),
            rate_limited: Vec::new(),
            parked: Vec::new(),
            in_work: 0,
            served: Served::default(),
            undecided: Vec::new(),
            lived: false,
            outage: None,
            out_of_patience: false,
            takes_turns: false,
            fresh_is_next: false,
            heard: 0,
            expected: FxHashMap::default(),
            blocked: None,
            blocked_head: None,
            unread: Vec::new(),
            unread_until: None,
            heard_of_caches: 0,
            is_unbounded: false,
        }
    }

    /// Takes those that have started and wait for anything but their time.
    pub fn take_waiting(&mut self) -> impl Iterator<Item = ItemIndex> + '_ {
        self.unread_until = None;
        let unread = self.unread.drain(..).map(|(_, item)| item);
        self.ready.drain(..).chain(self.rate_limited.drain(..)).chain(self.undecided.drain(..)).chain(unread)
    }

    /// Whether items wait for the end of a pause.
    pub fn pauses(&self) -> bool {
        !self.rate_limited.is_empty() && !self.cooldown.is_open()
    }

    /// Its head is blocked until then, if that is known.
    pub fn block(&mut self, item: ItemIndex, until: Option<Instant>, bound: Bound, now: Instant) {
        self.blocked = Some((until, bound));
        BlockedHead::note(&mut self.blocked_head, item, bound, now);
    }

    /// Who would start next. `is_full`: nothing that never started may.
    pub fn head(&self, is_full: bool) -> Option<Head> {
        let ready = self.ready.front().map(|item| Head { fresh: false, priority: Reverse(0), item: *item });
        let fresh = self.fresh.first().filter(|_| !is_full);
        let fresh = fresh.map(|(priority, item)| Head { fresh: true, priority: Reverse(priority), item });
        if self.takes_turns && self.fresh_is_next { fresh.or(ready) } else { ready.or(fresh) }
    }

    /// Items whose estimates are to be requested now.
    pub fn take_unestimated(&mut self) -> Vec<ItemIndex> {
        if self.expected.len() > LOOK_AHEAD / 2 {
            let asked = self.fresh.first().is_none_or(|(_, item)| self.expected.contains_key(&item));
            if asked {
                return Vec::new();
            }
        }
        let is_new = |item: &ItemIndex| !self.expected.contains_key(item);
        let items: Vec<ItemIndex> = match &self.fresh.aside {
            None => self.fresh.line().take(LOOK_AHEAD).filter(is_new).collect(),
            Some(_) => self.fresh.iter().take(LOOK_AHEAD).filter(is_new).collect(),
        };
        self.expected.extend(items.iter().map(|item| (*item, Expected::Requested)));
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_priority_first_then_submission() {
        let mut fresh = Fresh::default();
        let now = Instant::now();
        fresh.push(0, 0..3, now);
        fresh.push(5, 3..4, now);
        fresh.push(0, 4..6, now);
        fresh.push(-1, 6..7, now);
        assert_eq!(fresh.len(), 7);
        assert_eq!(fresh.iter().collect::<Vec<_>>(), [3, 0, 1, 2, 4, 5, 6]);
        let order: Vec<_> = std::iter::from_fn(|| fresh.pop()).map(|(item, _)| item).collect();
        assert_eq!(order, [3, 0, 1, 2, 4, 5, 6]);
        assert!(fresh.first().is_none() && fresh.is_empty());
    }

    #[test]
    fn consecutive_items_are_one_range() {
        let mut fresh = Fresh::default();
        let now = Instant::now();
        for item in 0..1_000_000 {
            fresh.push(0, item..item + 1, now);
        }
        assert_eq!(fresh.by_priority[&Reverse(0)].len(), 1);
    }

    #[test]
    fn whoever_is_taken_out_leaves_the_others_in_line() {
        let now = Instant::now();
        for gone in 0..5 {
            let mut fresh = Fresh::default();
            fresh.push(0, 0..3, now);
            fresh.push(1, 3..4, now);
            fresh.push(0, 4..5, now);
            assert!(fresh.remove(gone));
            assert!(!fresh.remove(gone));
            assert_eq!(fresh.len(), 4);
            let left: Vec<_> = std::iter::from_fn(|| fresh.pop()).map(|(item, _)| item).collect();
            let all: Vec<ItemIndex> = [3, 0, 1, 2, 4].into_iter().filter(|item| *item != gone).collect();
            assert_eq!(left, all);
        }
    }

    #[test]
    fn each_knows_since_when_it_waits() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let mut fresh = Fresh::default();
        fresh.push(0, 0..1, now);
        fresh.push(0, 1..2, later);
        assert_eq!(fresh.pop(), Some((0, now)));
        assert_eq!(fresh.pop(), Some((1, later)));
    }
}
