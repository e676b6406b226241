//! Requests with the same head: one goes first and the others wait until they can read what it writes into the
//! provider's prompt cache. The scheduler's part of [`heads`](super::heads), which has the rules.
//!
//! Whoever waits is passed over: items of other heads, and items without one, go meanwhile. Heads are told ahead of
//! their items, with [`Scheduler::heads`]; what has none never waits, and costs a look at a flag.

use std::ops::Range;

use rustc_hash::FxHashMap;
use tokio::time::{Duration, Instant};

use super::adaptive::Signal;
use super::bound::Bound;
use super::heads::{Ended, Found, Head, Readable, Turn, Warmth, Who};
use super::quota::Used;
use super::scheduler::Scheduler;
use super::units::ItemIndex;

/// Most items of a queue that are passed over; then the queue waits as a whole.
const MOST_HELD: usize = 16_384;

/// How long an attempt takes, as long as nobody knows.
const USUAL_TIME: Duration = Duration::from_secs(10);

/// No head waits longer for its first request because those of others are preferred, as long as something starts.
const LONGEST_CLOSED: Duration = Duration::from_secs(60);

/// What requests with heads found in the provider's caches. Those without reported usage do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// They read something.
    pub hits: u64,
    /// Nothing, for they were the first of their head.
    pub first: u64,
    /// Nothing, for the entry had not been used for too long.
    pub expired: u64,
    /// Nothing, for the entry was still being written.
    pub unwritten: u64,
    /// Nothing, for they no longer began with the head that was told of.
    pub changed: u64,
    /// Nothing, although it should have been there.
    pub absent: u64,
}

impl CacheCounts {
    /// With the names in statistics.
    pub fn by_name(self) -> [(&'static str, u64); 6] {
        let Self { hits, first, expired, unwritten, changed, absent } = self;
        let misses = [("first", first), ("expired", expired), ("unwritten", unwritten), ("changed", changed)];
        let [first, expired, unwritten, changed] = misses;
        [("hit", hits), first, expired, unwritten, changed, ("absent", absent)]
    }
}

/// The heads of a run's items.
#[derive(Debug, Default)]
pub struct Heads {
    /// Whether any item ever had one.
    are_known: bool,
    of: FxHashMap<ItemIndex, ItemHead>,
    known: FxHashMap<u64, HeadState>,
    /// The first item of which nobody has told whether it has one.
    told: ItemIndex,
    /// The head that is to be opened whatever the others do.
    opening: Option<u64>,
    /// When the first of the closed heads is opened in any case.
    opens_at: Option<Instant>,
    /// How long attempts take, on average.
    takes: Option<Duration>,
    counts: CacheCounts,
}

#[derive(Debug, Clone, Copy)]
struct ItemHead {
    key: u64,
    /// What its last request found, and when that began; `None`: there was none.
    found: Option<(Found, Instant)>,
    /// Whether that no longer begins with the head.
    is_changed: bool,
}

#[derive(Debug)]
struct HeadState {
    head: Head,
    /// Items that have not started.
    fresh: u64,
    /// Those, and those that are not done.
    items: u64,
}

impl Heads {
    fn add(&mut self, item: ItemIndex, head: Head, has_started: bool, now: Instant) {
        if self.of.contains_key(&item) {
            return;
        }
        self.are_known = true;
        let found = has_started.then_some((Found::Unwritten, now));
        self.of.insert(item, ItemHead { key: head.key, found, is_changed: false });
        let known = self.known.entry(head.key).or_insert(HeadState { head, fresh: 0, items: 0 });
        known.head = head;
        known.items += 1;
        known.fresh += u64::from(!has_started);
    }

    /// Whether any item ever had one: where none has, nothing of this is looked at.
    #[inline]
    pub fn are_known(&self) -> bool {
        self.are_known
    }

    /// Items that are done, or will never start.
    pub fn forget(&mut self, items: &Range<ItemIndex>) {
        if self.of.is_empty() {
            return;
        }
        let gone: Vec<ItemIndex> = if items.end - items.start > self.of.len() as u64 {
            self.of.keys().copied().filter(|item| items.contains(item)).collect()
        } else {
            items.clone().collect()
        };
        for item in gone {
            let Some(ItemHead { key, found, .. }) = self.of.remove(&item) else { continue };
            let Some(known) = self.known.get_mut(&key) else { continue };
            known.fresh -= u64::from(found.is_none());
            known.items -= 1;
            if known.items == 0 {
                self.known.remove(&key);
            }
        }
    }

    fn count(&mut self, found: Found, is_changed: bool, has_read: bool) {
        let CacheCounts { hits, first, expired, unwritten, changed, absent } = &mut self.counts;
        *match found {
            _ if has_read => hits,
            _ if is_changed => changed,
            Found::Nothing => first,
            Found::Expired => expired,
            Found::Unwritten => unwritten,
            Found::Entry => absent,
        } += 1;
    }
}

impl Scheduler {
    /// What the requests of items from `first` on begin with alike; `None`: with nothing that the provider caches. To be
    /// told before the items are accepted, or they may start without waiting for each other.
    pub fn heads(&mut self, first: ItemIndex, heads: &[Option<Head>], now: Instant) {
        for (item, head) in (first..).zip(heads) {
            if let Some(head) = head {
                self.heads.add(item, *head, self.items.contains_key(&item), now);
            }
        }
        self.heads.told = self.heads.told.max(first + heads.len() as u64);
    }

    /// Items that were told of and never started, or started before that: their heads are of no use.
    pub fn forget_heads(&mut self, items: Range<ItemIndex>) {
        if !self.heads.of.is_empty() {
            items.filter(|item| !self.items.contains_key(item)).for_each(|item| self.heads.forget(&(item..item + 1)));
        }
    }

    /// The reply to an attempt has begun; see [`Command::Start`](super::Command::Start). Of no effect where the entry can
    /// be read at its end.
    pub fn readable(&mut self, index: ItemIndex, now: Instant) {
        let Some((number, who, key)) = self.head_of(index) else { return };
        let scope = &self.queues[number].scope;
        let is_news = scope.caches().first_byte(who, key, now);
        if is_news {
            scope.caches_changed(who.0);
        }
    }

    /// Whether others wait for the present attempt of an item.
    pub fn leads(&self, index: ItemIndex) -> bool {
        self.head_of(index).is_some_and(|(number, who, key)| self.queues[number].scope.caches().is_led_by(who, key))
    }

    /// Whether others wait until the reply to the present attempt of an item begins.
    pub fn awaits_beginning(&self, index: ItemIndex) -> bool {
        let known = self.heads.of.get(&index).and_then(|of| self.heads.known.get(&of.key));
        known.is_some_and(|known| known.head.readable == Readable::AtFirstByte) && self.leads(index)
    }

    /// The number of what the request of an item was to begin with, as it was told; `base` of [`Head`].
    pub fn reported_head(&self, index: ItemIndex) -> Option<u64> {
        let key = self.heads.of.get(&index)?.key;
        Some(self.heads.known.get(&key)?.head.base)
    }

    /// The request of an item's present attempt no longer begins with that: a hook has changed it.
    pub fn head_changed(&mut self, index: ItemIndex) {
        if let Some(of) = self.heads.of.get_mut(&index) {
            of.is_changed = true;
        }
    }

    /// What requests found in the provider's caches.
    pub fn cache_counts(&self) -> CacheCounts {
        self.heads.counts
    }

    fn head_of(&self, index: ItemIndex) -> Option<(usize, Who, u64)> {
        let key = self.heads.of.get(&index)?.key;
        let number = self.items.get(&index)?.queue as usize;
        Some((number, (self.queues[number].member, index), key))
    }

    /// An item starts; whether others wait for it.
    pub(super) fn begin_head(&mut self, number: usize, index: ItemIndex, is_first: bool, now: Instant) -> bool {
        let Some(of) = self.heads.of.get_mut(&index) else { return false };
        let Some(known) = self.heads.known.get_mut(&of.key) else { return false };
        known.fresh -= u64::from(is_first && of.found.is_none());
        let queue = &self.queues[number];
        let found = queue.scope.caches().started((queue.member, index), known.head, now);
        (of.found, of.is_changed) = (Some((found, now)), false);
        matches!(found, Found::Nothing | Found::Expired)
    }

    /// An attempt has ended.
    pub(super) fn end_of_head(&mut self, index: ItemIndex, used: Used, signal: Signal, now: Instant) {
        let Some((number, who, key)) = self.head_of(index) else { return };
        let ended = match (used, signal) {
            (_, Signal::Succeeded) | (Used::Reported(_), _) => Ended::Read,
            (Used::NotSent, _) | (_, Signal::RateLimited) => Ended::Void,
            _ => Ended::Failed,
        };
        if let Some(ItemHead { found: Some((found, since)), is_changed, .. }) = self.heads.of.get(&index).copied()
            && ended == Ended::Read
        {
            let took = now.saturating_duration_since(since);
            self.heads.takes = Some(self.heads.takes.map_or(took, |before| (before * 7 + took) / 8));
            if let Used::Reported(usage) = used {
                self.heads.count(found, is_changed, usage.cached > 0);
            }
        }
        let scope = &self.queues[number].scope;
        let is_news = scope.caches().ended(who, key, ended, now);
        if is_news {
            scope.caches_changed(who.0);
        }
    }

    /// Whether the head of a queue has to wait for a prompt cache. It is passed over then, or the queue is blocked.
    pub(super) fn waits_for_cache(&mut self, number: usize, index: ItemIndex, fresh: bool, now: Instant) -> bool {
        if self.heads.of.is_empty() {
            return false;
        }
        let queue = &mut self.queues[number];
        let Some(ItemHead { key, .. }) = self.heads.of.get(&index).copied() else {
            // It may have the head that others wait for; but what may go does not wait for that to be found out.
            let is_unknown = fresh && index >= self.heads.told;
            let waits = is_unknown && queue.fresh.aside().is_some_and(|aside| aside.first().is_none());
            return waits && self.hold_queue(number, index, now);
        };
        let others = self.heads.known.get(&key).map_or(0, |known| known.fresh) + u64::from(!fresh);
        let turn = queue.scope.caches().turn(key, others, now);
        match turn {
            Turn::Go => false,
            Turn::Lead => {
                let waits = fresh && self.prefers_others(number, key, now);
                if waits {
                    self.heads.opens_at.get_or_insert(now + LONGEST_CLOSED);
                    self.queues[number].fresh.pass_over(|aside, place, since| aside.close(key, place, since));
                }
                waits
            }
            Turn::Wait(until) => {
                if fresh && queue.fresh.aside().is_some_and(|aside| aside.blocked_items() >= MOST_HELD) {
                    return self.hold_queue(number, index, now);
                }
                queue.unread_until = Some(queue.unread_until.map_or(until, |known| known.min(until)));
                if fresh {
                    queue.fresh.pass_over(|aside, place, since| aside.wait(key, place, since));
                } else {
                    queue.ready.pop_front();
                    queue.unread.push((key, index));
                }
                true
            }
        }
    }

    /// No more is passed over: closed heads are opened, or the queue waits.
    fn hold_queue(&mut self, number: usize, index: ItemIndex, now: Instant) -> bool {
        let queue = &mut self.queues[number];
        match queue.fresh.aside().and_then(|aside| aside.first_closed()) {
            Some((key, _)) => self.open(number, key),
            None => queue.block(index, None, Bound::PromptCache, now),
        }
        true
    }

    /// Whether items of heads that can be read go before the first of another head: with few workers and many heads,
    /// entries would expire between their uses.
    fn prefers_others(&self, number: usize, key: u64, now: Instant) -> bool {
        let Some(own) = self.heads.known.get(&key).filter(|_| self.heads.opening != Some(key)) else { return false };
        let workers = u32::try_from(self.in_flight.max(1)).unwrap_or(u32::MAX);
        let turns = u32::try_from(self.heads.known.len()).unwrap_or(u32::MAX);
        let takes = self.heads.takes.unwrap_or(USUAL_TIME);
        if takes.saturating_mul(turns) / workers < own.head.life / 2 {
            return false;
        }
        let entries = self.queues[number].scope.caches();
        let (mut open, mut startable) = (0, 0);
        for (key, known) in self.heads.known.iter().filter(|(_, known)| known.fresh > 0) {
            let warmth = entries.warmth(*key, now);
            open += usize::from(warmth != Warmth::Cold);
            startable += if warmth == Warmth::Warm { known.fresh } else { 0 };
        }
        startable > 0 && open >= self.in_flight.max(1)
    }

    fn open(&mut self, number: usize, key: u64) {
        if let Some(aside) = self.queues[number].fresh.aside_mut() {
            aside.open(key);
        }
        self.heads.opening = Some(key);
        self.heads.opens_at = None;
    }

    /// The queue whose head is next; if there is none, a head may be opened for it.
    #[inline]
    pub(super) fn next_or_opened(&mut self, now: Instant) -> Option<usize> {
        let next = self.next_queue(now);
        if next.is_none() && self.heads.are_known { self.open_head(now) } else { next }
    }

    /// Nothing can start: the queue for which a further head was opened, if there is one.
    fn open_head(&mut self, now: Instant) -> Option<usize> {
        if self.is_full || self.heads.of.is_empty() {
            return None;
        }
        let (number, key) = self.queues.iter().enumerate().find_map(|(number, queue)| {
            let may_start = queue.blocked.is_none() && queue.cooldown.is_open();
            queue.fresh.aside().filter(|_| may_start)?.first_closed().map(|(key, _)| (number, key))
        })?;
        self.open(number, key);
        self.next_queue(now)
    }

    /// Takes note of which prompt caches have been written: whoever waited for them may go.
    pub(super) fn hear_of_caches(&mut self, now: Instant) {
        for queue in &mut self.queues {
            let news = queue.scope.news_of_caches();
            if news == queue.heard_of_caches && queue.unread_until.is_none_or(|until| until > now) {
                continue;
            }
            (queue.heard_of_caches, queue.unread_until) = (news, None);
            let mut keys: Vec<u64> = queue.fresh.aside().into_iter().flat_map(|aside| aside.heads()).collect();
            keys.extend(queue.unread.iter().map(|(key, _)| *key));
            let entries = queue.scope.caches();
            let mut next: Option<Instant> = None;
            keys.retain(|key| match entries.turn(*key, u64::MAX, now) {
                Turn::Wait(until) => {
                    next = Some(next.map_or(until, |known| known.min(until)));
                    false
                }
                Turn::Go | Turn::Lead => true,
            });
            drop(entries);
            queue.unread_until = next;
            if let Some(aside) = queue.fresh.aside_mut() {
                keys.iter().for_each(|key| aside.bring_back(*key));
            }
            // In the order in which they stood, before those that came later.
            let back: Vec<ItemIndex> =
                queue.unread.extract_if(.., |(key, _)| keys.contains(key)).map(|(_, item)| item).collect();
            back.into_iter().rev().for_each(|item| queue.ready.push_front(item));
        }
        if self.heads.opens_at.is_some_and(|at| at <= now) {
            self.heads.opens_at = None;
            let closed =
                |number: usize| self.queues[number].fresh.aside()?.first_closed().map(|(key, _)| (number, key));
            if let Some((number, key)) = (0..self.queues.len()).find_map(closed) {
                self.open(number, key);
            }
        }
    }

    /// Whether anything waits for a prompt cache.
    pub(super) fn awaits_caches(&self) -> bool {
        let waits = |queue: &super::queue::Queue| {
            !queue.unread.is_empty() || queue.fresh.aside().is_some_and(|aside| aside.blocked_items() > 0)
        };
        self.heads.are_known && self.queues.iter().any(waits)
    }
}
