//! Items that have not started and were passed over: what they wait for, and in what order they go when they may. Used
//! by [`Fresh`](super::queue::Fresh) alone, which has none where requests have no heads.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::queue::Priority;
use super::units::ItemIndex;

/// An item's place in its queue.
pub type Place = (Reverse<Priority>, ItemIndex);

/// See the module. Each item has with it since when it waits in the queue.
#[derive(Debug, Default)]
pub struct Aside {
    /// By the head that is being written.
    waiting: FxHashMap<u64, Vec<(Place, Instant)>>,
    /// Those with heads that are not to be opened yet, and the head.
    closed: BTreeMap<Place, (u64, Instant)>,
    /// Those that may go, before the rest of the queue if they stand before it.
    returned: BTreeMap<Place, Instant>,
    blocked_items: usize,
}

impl Aside {
    /// An item waits until its head is written.
    pub fn wait(&mut self, key: u64, place: Place, since: Instant) {
        self.blocked_items += 1;
        self.waiting.entry(key).or_default().push((place, since));
    }

    /// An item waits until its head is opened.
    pub fn close(&mut self, key: u64, place: Place, since: Instant) {
        self.blocked_items += 1;
        self.closed.insert(place, (key, since));
    }

    /// Those that wait for a head to be written may go.
    pub fn bring_back(&mut self, key: u64) {
        let items = self.waiting.remove(&key).unwrap_or_default();
        self.blocked_items -= items.len();
        self.returned.extend(items);
    }

    /// The head of the first of those whose heads are closed, and since when that one waits in the queue.
    pub fn first_closed(&self) -> Option<(u64, Instant)> {
        self.closed.values().next().copied()
    }

    /// Those with a closed head may go.
    pub fn open(&mut self, key: u64) {
        let (blocked_items, returned) = (&mut self.blocked_items, &mut self.returned);
        self.closed.retain(|place, (head, since)| {
            let stays = *head != key;
            if !stays {
                *blocked_items -= 1;
                returned.insert(*place, *since);
            }
            stays
        });
    }

    /// Heads that are being written and that items wait for.
    pub fn heads(&self) -> impl Iterator<Item = u64> + '_ {
        self.waiting.keys().copied()
    }

    /// How many may not go.
    pub fn blocked_items(&self) -> usize {
        self.blocked_items
    }

    /// Whether there are none at all.
    pub fn is_empty(&self) -> bool {
        self.blocked_items == 0 && self.returned.is_empty()
    }

    /// The first of those that may go.
    pub fn first(&self) -> Option<Place> {
        self.returned.first_key_value().map(|(place, _)| *place)
    }

    /// Takes it.
    pub fn pop(&mut self) -> Option<(Place, Instant)> {
        self.returned.pop_first()
    }

    /// Those that may go, in order.
    pub fn returned(&self) -> impl Iterator<Item = Place> + '_ {
        self.returned.keys().copied()
    }

    /// Takes one out, wherever it is; whether it was there.
    pub fn remove(&mut self, item: ItemIndex) -> bool {
        let before = self.blocked_items + self.returned.len();
        self.returned.retain(|(_, other), _| *other != item);
        self.closed.retain(|(_, other), _| *other != item);
        self.waiting.retain(|_, items| {
            items.retain(|((_, other), _)| *other != item);
            !items.is_empty()
        });
        self.blocked_items = self.closed.len() + self.waiting.values().map(Vec::len).sum::<usize>();
        self.blocked_items + self.returned.len() < before
    }

    /// Takes all, in the order of submission.
    pub fn take_all(self) -> Vec<(Place, Instant)> {
        let closed = self.closed.into_iter().map(|(place, (_, since))| (place, since));
        let mut all: Vec<(Place, Instant)> =
            self.waiting.into_values().flatten().chain(closed).chain(self.returned).collect();
        all.sort_unstable_by_key(|((_, item), _)| *item);
        all
    }
}
