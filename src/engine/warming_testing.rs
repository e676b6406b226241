//! A provider with a prompt cache, and a run against it, in simulated time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bound::Bound;
use super::heads::{Head, Readable};
use super::outage::Sign;
use super::queue::Expected;
use super::scheduler::Scheduler;
use super::stats::Usage;
use super::testing::SECOND;
use super::*;

pub const LIFE: Duration = Duration::from_secs(300);
pub const RETRY: Failure = Failure::Retryable { backoff: true, at_least: Duration::ZERO, overload: false };
pub const LIMITED: Failure = Failure::RateLimit { at_least: Duration::ZERO, has_retry_after: false };

/// What becomes of an attempt.
#[derive(Debug, Clone, Copy)]
pub struct Fate {
    pub takes: Duration,
    pub outcome: Result<(), Failure>,
    /// Whether the provider has read the prompt, and says so.
    pub reads: bool,
}

pub const GOOD: Fate = Fate { takes: SECOND, outcome: Ok(()), reads: true };

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Begin(ItemIndex, u32),
    End(ItemIndex, u32),
}

pub type Heads = Box<dyn Fn(ItemIndex) -> Option<u64>>;
pub type Fates = Box<dyn Fn(ItemIndex, u32) -> Fate>;

/// A run, the provider with its cache, and what happened.
pub struct World {
    pub scheduler: Scheduler,
    pub start: Instant,
    pub now: Instant,
    pub readable: Readable,
    pub head: Heads,
    pub fate: Fates,
    pub events: BinaryHeap<Reverse<(Instant, Event)>>,
    /// By head: from when on its entry can be read, and until when.
    pub cache: HashMap<u64, (Instant, Instant)>,
    pub in_flight: HashMap<ItemIndex, (u32, bool)>,
    pub starts: Vec<(f64, ItemIndex, u32)>,
    /// Items whose requests begin otherwise than told.
    pub changed: Vec<ItemIndex>,
    pub hits: u64,
    pub misses: u64,
    pub ended: HashMap<ItemIndex, u32>,
    pub is_drained: bool,
    pub peak: usize,
}

impl World {
    pub fn new(settings: Settings, readable: Readable, head: impl Fn(ItemIndex) -> Option<u64> + 'static) -> Self {
        let start = Instant::now();
        Self {
            scheduler: Scheduler::new(settings, Box::new(|| 0.5), Arc::new(|| ()), start),
            start,
            now: start,
            readable,
            head: Box::new(head),
            fate: Box::new(|_, _| GOOD),
            events: BinaryHeap::new(),
            cache: HashMap::new(),
            in_flight: HashMap::new(),
            starts: Vec::new(),
            changed: Vec::new(),
            hits: 0,
            misses: 0,
            ended: HashMap::new(),
            is_drained: false,
            peak: 0,
        }
    }

    pub fn accept(&mut self, queue: u32, priority: i32, count: u64) {
        let first = self.scheduler.stats().total;
        self.tell_heads(first, count);
        self.scheduler.accept(queue, priority, count, self.now);
    }

    pub fn tell_heads(&mut self, first: ItemIndex, count: u64) {
        let head = |key| Head { key, base: key, life: LIFE, readable: self.readable };
        let heads: Vec<Option<Head>> = (first..first + count).map(|item| (self.head)(item).map(head)).collect();
        self.scheduler.heads(first, &heads, self.now);
    }

    /// Seconds since the start.
    pub fn elapsed(&self) -> f64 {
        (self.now - self.start).as_secs_f64()
    }

    pub fn sends(&mut self, item: ItemIndex, attempt: u32) {
        self.starts.push((self.elapsed(), item, attempt));
        let fate = (self.fate)(item, attempt);
        let is_changed = self.changed.contains(&item);
        if is_changed {
            self.scheduler.head_changed(item);
        }
        let has_read = (self.head)(item).filter(|_| !is_changed).is_some_and(|key| {
            let entry = self.cache.get_mut(&key).filter(|(from, until)| *from <= self.now && self.now < *until);
            let hit = entry.map(|(_, until)| *until = self.now + LIFE).is_some();
            if fate.reads {
                *(if hit { &mut self.hits } else { &mut self.misses }) += 1;
            }
            if !hit && fate.reads {
                let (from, until) = match self.readable {
                    Readable::AtFirstByte => (self.now + fate.takes / 4, self.now + LIFE),
                    Readable::AtEnd => (self.now + fate.takes, self.now + fate.takes + LIFE),
                };
                let earlier = self.cache.get(&key).filter(|(_, until)| *until > self.now).map(|(from, _)| *from);
                self.cache.insert(key, (earlier.map_or(from, |earlier| earlier.min(from)), until));
            }
            hit
        });
        assert!(self.in_flight.insert(item, (attempt, has_read)).is_none(), "started twice");
        self.peak = self.peak.max(self.in_flight.len());
        if fate.reads {
            self.events.push(Reverse((self.now + fate.takes / 4, Event::Begin(item, attempt))));
        }
        self.events.push(Reverse((self.now + fate.takes, Event::End(item, attempt))));
    }

    pub fn done(&mut self, item: ItemIndex, report: ItemReport) {
        *self.ended.entry(item).or_default() += 1;
        self.scheduler.record(item, report, self.now);
        self.scheduler.release(item, self.now);
    }

    pub fn act(&mut self) {
        self.scheduler.advance(self.now);
        while let Some(command) = self.scheduler.next_command() {
            self.carry_out(command);
            self.scheduler.advance(self.now);
        }
    }

    pub fn carry_out(&mut self, command: Command) {
        match command {
            Command::Start { item, attempt, leads, .. } => {
                assert_eq!(leads, self.scheduler.leads(item));
                self.sends(item, attempt);
            }
            Command::TimedOut { item, attempt, .. }
                if self.in_flight.get(&item).is_some_and(|(own, _)| *own == attempt) =>
            {
                self.in_flight.remove(&item);
                let verdict = self.scheduler.failed(item, RETRY, Sign::Nothing, 1, None, self.now);
                if verdict != Verdict::Retry {
                    self.done(item, ItemReport::default());
                }
            }
            Command::Reject { item, .. } | Command::GiveUp { item } => self.done(item, ItemReport::default()),
            Command::RejectFresh { items, .. } => {
                self.scheduler.record_rejected(items.end - items.start, "rejected");
                items.for_each(|item| *self.ended.entry(item).or_default() += 1);
            }
            Command::AskCooldown { queue, .. } => {
                self.scheduler.decide_cooldown(queue, SECOND * 10, [], false, self.now);
            }
            Command::AskSlowStart { queue, .. } => self.scheduler.extend_slow_start(queue, [], false),
            Command::Estimate { items } => {
                let (requests, input) = (1.0, 100.0);
                let expected = Expected::Estimate {
                    requests,
                    input,
                    output: Some(0.0),
                    most_input: None,
                    most_output: None,
                    kind: 0,
                };
                items.into_iter().for_each(|item| self.scheduler.expect(item, expected));
            }
            Command::Drained => self.is_drained = true,
            _ => {}
        }
    }

    pub fn happens(&mut self, event: Event) {
        let (Event::Begin(item, attempt) | Event::End(item, attempt)) = event;
        let Some((_, has_read)) = self.in_flight.get(&item).copied().filter(|(own, _)| *own == attempt) else { return };
        if let Event::Begin(..) = event {
            self.scheduler.readable(item, self.now);
            return;
        }
        self.in_flight.remove(&item);
        let Fate { outcome, reads, .. } = (self.fate)(item, attempt);
        let total = 100 * u64::from(attempt);
        let usage = Usage { input: total, total, cached: if has_read { total } else { 0 }, ..Usage::default() };
        let verdict = outcome
            .err()
            .map(|failure| self.scheduler.failed(item, failure, Sign::Nothing, 1, reads.then_some(usage), self.now));
        if verdict != Some(Verdict::Retry) {
            self.done(item, ItemReport { success: outcome.is_ok(), error: None, usage, reported: reads });
        }
    }

    /// Plays until nothing more happens, or so many seconds are over.
    pub fn play(&mut self, seconds: f64) {
        let end = self.start + Duration::from_secs_f64(seconds);
        self.act();
        for _ in 0..1_000_000 {
            let event = self.events.peek().map(|Reverse((at, _))| *at);
            let Some(next) = [event, self.scheduler.wakes_at()].into_iter().flatten().min() else { return };
            if next > end || self.is_drained && self.events.is_empty() {
                self.now = self.now.max(end.min(next));
                return;
            }
            self.now = self.now.max(next);
            while let Some(Reverse((at, event))) = self.events.peek().copied()
                && at <= self.now
            {
                self.events.pop();
                self.happens(event);
            }
            self.act();
        }
        panic!("it never ends: {:?}", self.scheduler.gauges(self.now));
    }

    pub fn finish(&mut self) {
        self.play(1e7);
        assert!(self.is_drained, "{:?}", self.scheduler.gauges(self.now));
        let total = self.scheduler.stats().total;
        assert_eq!(self.ended.len() as u64, total);
        assert!(self.ended.values().all(|times| *times == 1), "each has one result");
    }

    pub fn order(&self) -> Vec<ItemIndex> {
        self.starts.iter().map(|(_, item, _)| *item).collect()
    }

    pub fn bound(&self, bound: Bound) -> f64 {
        let totals = self.scheduler.bound().totals(self.now);
        totals.iter().find(|(other, _)| *other == bound).map_or(0.0, |(_, time)| time.as_secs_f64())
    }
}

/// One head for all.
pub fn one(_: ItemIndex) -> Option<u64> {
    Some(7)
}
