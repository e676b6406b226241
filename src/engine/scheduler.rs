//! Every decision of a run, as a function of the time and the scheduler's own state.
//!
//! The scheduler never waits and never reads a clock: it is told what happened and at what time, and answers with
//! [`Command`]s and with the instant at which it wants to be asked again. The way of an item:
//!
//! ```text
//! offer -> queue -> [cooldown] [slow start] [limiter] a worker -> Start -> failed -> wait -> Start ...
//!                                                                                    -> record -> release
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::bucket::TokenBucket;
use super::cooldown::{Cooldown, Generation};
use super::slow_start::{Admission, SlowStart};
use super::{ItemIndex, ItemReport, Settings, Stats, UniformSource};

/// What the scheduler asks of whoever executes attempts.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Begin an attempt (numbered from 1) as worker `worker`.
    Start {
        /// The item.
        item: ItemIndex,
        /// Number of this attempt.
        attempt: u32,
        /// The worker slot, from 0.
        worker: u32,
    },
    /// The attempt that was told to wait in [`Scheduler::executing`] may ask again.
    Resume {
        /// The item.
        item: ItemIndex,
    },
    /// The attempt is over its time: cancel it.
    TimedOut {
        /// The item.
        item: ItemIndex,
        /// The attempt that is meant; a later one is not.
        attempt: u32,
    },
    /// The attempt was cancelled and does not react: go on without it.
    Abandon {
        /// The item.
        item: ItemIndex,
        /// The attempt that is meant.
        attempt: u32,
    },
    /// A cooldown begins: answer with [`Scheduler::decide_cooldown`].
    AskCooldown {
        /// The worker that met the rate limit.
        worker: u32,
        /// Cooldowns since the last success, this one included.
        consecutive: u32,
    },
    /// Answer with [`Scheduler::extend_slow_start`], from delay number `from` on.
    AskSlowStart {
        /// Number of the first delay wanted.
        from: u64,
    },
    /// A cooldown is over, this long after the rate limit that began it.
    CooldownEnded {
        /// Its real length.
        lasted: Duration,
    },
    /// One of those whose [`Scheduler::offer`] was refused may try again.
    Room,
    /// Every accepted item is done. Items offered later make the run go on.
    Drained,
}

/// What is to be done with an item after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The scheduler will start it again; its worker is free.
    Retry,
    /// It ends here: [`Scheduler::record`] and [`Scheduler::release`] must follow.
    GiveUp,
}

/// A failed attempt, as its error was classified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Trying again is useless.
    Permanent,
    /// Try again after the backoff, and not before `at_least`.
    Retryable {
        /// Whether to wait at all: an answer that merely did not validate is asked for again at once.
        backoff: bool,
        /// The server's word.
        at_least: Duration,
    },
    /// Everybody pauses, then try again; does not use up an attempt.
    RateLimit {
        /// The server's word.
        at_least: Duration,
    },
}

/// Why an offered item was not accepted: the queue is full. A [`Command::Room`] will follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct Refused;

#[derive(Debug)]
struct Item {
    attempt: u32,
    failures: u32,
    rate_limits: u32,
    /// The worker slot it holds; an item that waits for its next attempt holds none.
    worker: Option<u32>,
    sent: Generation,
    /// When the present attempt is over its time.
    deadline: Option<Instant>,
}

/// An attempt to be looked after. Entries whose attempt has ended, or got another deadline, are skipped when met.
#[derive(Debug, Clone, Copy)]
struct Watch {
    at: Instant,
    item: ItemIndex,
    attempt: u32,
    deadline: Instant,
}

/// The state of one run. See the module.
pub struct Scheduler {
    settings: Settings,
    uniform: UniformSource,
    commands: VecDeque<Command>,
    /// Accepted items so far; those from `next_fresh` on have not started.
    accepted: ItemIndex,
    next_fresh: ItemIndex,
    refused: usize,
    released: u64,
    drained: bool,
    closed: bool,
    free_workers: Vec<u32>,
    items: FxHashMap<ItemIndex, Item>,
    waiting: BinaryHeap<Reverse<(Instant, ItemIndex)>>,
    ready: VecDeque<ItemIndex>,
    parked: Vec<ItemIndex>,
    timeouts: VecDeque<Watch>,
    /// Time-outs that were put off, which come in no order.
    extended: BinaryHeap<Reverse<(Instant, ItemIndex, u32)>>,
    cancelled: VecDeque<Watch>,
    limiter: Option<TokenBucket>,
    cooldown: Cooldown,
    slow_start: SlowStart,
    /// When the item at the head may start, if the limiter or slow start holds it back.
    held_until: Option<Instant>,
    stats: Stats,
}

impl Scheduler {
    /// A run without items. `uniform` spreads the backoff.
    pub fn new(settings: Settings, uniform: UniformSource, now: Instant) -> Self {
        let workers = u32::try_from(settings.max_workers.get()).unwrap_or(u32::MAX);
        Self {
            limiter: settings.requests_per_minute.map(|rate| TokenBucket::per_minute(rate, now)),
            settings,
            uniform,
            commands: VecDeque::new(),
            accepted: 0,
            next_fresh: 0,
            refused: 0,
            released: 0,
            drained: false,
            closed: false,
            // Popped from the end: the lowest number first.
            free_workers: (0..workers).rev().collect(),
            items: FxHashMap::default(),
            waiting: BinaryHeap::new(),
            ready: VecDeque::new(),
            parked: Vec::new(),
            timeouts: VecDeque::new(),
            extended: BinaryHeap::new(),
            cancelled: VecDeque::new(),
            cooldown: Cooldown::default(),
            slow_start: SlowStart::default(),
            held_until: None,
            stats: Stats::default(),
        }
    }

    /// Accepts one more item. A `bounded` offer is refused while the queue is full.
    pub fn offer(&mut self, bounded: bool) -> Result<ItemIndex, Refused> {
        let queued = self.accepted - self.next_fresh;
        if bounded && self.settings.max_queue.is_some_and(|max| queued >= max.get() as u64) {
            self.refused += 1;
            return Err(Refused);
        }
        let item = self.accepted;
        self.accept(1);
        Ok(item)
    }

    /// Accepts `count` items that were queued before the run began, whatever the bound.
    pub fn accept(&mut self, count: u64) {
        self.accepted += count;
        self.stats.total += count;
        self.drained = false;
    }

    /// The attempt is about to be sent, later than it was started: something was awaited first. Its time begins anew.
    /// `false`: a cooldown has begun meanwhile, wait for [`Command::Resume`] and ask again. (What is sent at once
    /// needs not ask: it belongs to the same burst as the attempt that met the limit.)
    pub fn executing(&mut self, index: ItemIndex, now: Instant) -> bool {
        let Some(item) = self.items.get_mut(&index) else { return true };
        if !self.cooldown.is_open() {
            self.parked.push(index);
            return false;
        }
        item.sent = self.cooldown.generation();
        self.watch_time(index, now);
        true
    }

    /// The attempt that was said to be over its time has some left: it began later than it was started, because the
    /// executor was busy.
    pub fn extend(&mut self, index: ItemIndex, left: Duration, now: Instant) {
        if let Some(item) = self.items.get_mut(&index) {
            let deadline = now + left;
            item.deadline = Some(deadline);
            self.extended.push(Reverse((deadline, index, item.attempt)));
        }
    }

    fn watch_time(&mut self, index: ItemIndex, now: Instant) {
        if let (Some(limit), Some(item)) = (self.settings.attempt_timeout, self.items.get_mut(&index)) {
            let deadline = now + limit;
            item.deadline = Some(deadline);
            self.timeouts.push_back(Watch { at: deadline, item: index, attempt: item.attempt, deadline });
        }
    }

    /// The attempt was started but not sent: the limiter's unit is given back.
    pub fn not_sent(&mut self) {
        if let Some(limiter) = &mut self.limiter {
            limiter.give_back();
        }
    }

    /// The attempt failed.
    pub fn failed(&mut self, index: ItemIndex, failure: Failure, now: Instant) -> Verdict {
        let Some(item) = self.items.get_mut(&index) else { return Verdict::GiveUp };
        let wait = match failure {
            Failure::Permanent => return Verdict::GiveUp,
            Failure::Retryable { backoff, at_least } => {
                item.failures += 1;
                if item.failures >= self.settings.max_attempts {
                    return Verdict::GiveUp;
                }
                let wait = match backoff {
                    true => self.settings.backoff.wait(item.failures, (self.uniform)()),
                    false => Duration::ZERO,
                };
                wait.max(at_least)
            }
            Failure::RateLimit { at_least } => {
                self.stats.rate_limits += 1;
                item.rate_limits += 1;
                if self.cooldown.refused(item.sent, at_least, now) {
                    let worker = item.worker.unwrap_or_default();
                    let consecutive = self.cooldown.consecutive();
                    self.commands.push_back(Command::AskCooldown { worker, consecutive });
                }
                if item.rate_limits > self.settings.max_rate_limit_retries {
                    return Verdict::GiveUp;
                }
                at_least
            }
        };
        // A single worker keeps its item, so that one item is done before the next begins; several give theirs
        // back, so that a few failing items do not idle the pool.
        if self.settings.max_workers.get() > 1
            && let Some(worker) = item.worker.take()
        {
            self.free_workers.push(worker);
        }
        if wait.is_zero() {
            self.ready.push_back(index);
        } else {
            self.waiting.push(Reverse((now + wait, index)));
        }
        Verdict::Retry
    }

    /// The answer to [`Command::AskCooldown`]: how long to pause, and the first portion of slow-start delays.
    /// Returns the planned length from now.
    pub fn decide_cooldown(
        &mut self,
        pause: Duration,
        delays: impl IntoIterator<Item = Duration>,
        more: bool,
        now: Instant,
    ) -> Duration {
        let Some(until) = self.cooldown.decide(pause, now) else { return Duration::ZERO };
        self.slow_start.begin(until, delays, more);
        until - now
    }

    /// The answer to [`Command::AskSlowStart`].
    pub fn extend_slow_start(&mut self, delays: impl IntoIterator<Item = Duration>, more: bool) {
        self.slow_start.extend(delays, more);
    }

    /// The item has its result. Returns the number of items that have one.
    pub fn record(&mut self, index: ItemIndex, report: ItemReport) -> u64 {
        if let Some(item) = self.items.get(&index)
            && report.success
        {
            self.cooldown.succeeded(item.sent);
        }
        self.stats.record(report);
        self.stats.processed
    }

    /// The item is done: its worker is free.
    pub fn release(&mut self, index: ItemIndex) {
        let Some(item) = self.items.remove(&index) else { return };
        self.free_workers.extend(item.worker);
        self.released += 1;
    }

    /// Starts nothing more and forgets what it wanted to say.
    pub fn close(&mut self) {
        self.closed = true;
        self.commands.clear();
    }

    /// Brings the state up to `now`: what is due becomes commands.
    pub fn advance(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        if let Some(lasted) = self.cooldown.poll(now) {
            self.slow_start.resume(now);
            self.commands.push_back(Command::CooldownEnded { lasted });
            self.commands.extend(self.parked.drain(..).map(|item| Command::Resume { item }));
        }
        while let Some(Reverse((at, index))) = self.waiting.peek().copied()
            && at <= now
        {
            self.waiting.pop();
            self.ready.push_back(index);
        }
        self.watch(now);
        self.start_ready(now);
        if self.released == self.accepted && !self.drained {
            self.drained = true;
            self.commands.push_back(Command::Drained);
        }
    }

    /// The next command, in order.
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`advance`](Self::advance) has something to do if nothing happens before.
    pub fn wakes_at(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let waiting = self.waiting.peek().map(|Reverse((at, _))| *at);
        let timeout = self.timeouts.front().map(|watch| watch.at);
        let abandon = self.cancelled.front().map(|watch| watch.at);
        let extended = self.extended.peek().map(|Reverse((at, ..))| *at);
        [self.cooldown.ends_at(), self.held_until, waiting, timeout, extended, abandon].into_iter().flatten().min()
    }

    /// The counters so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Whether every accepted item is done.
    pub fn is_drained(&self) -> bool {
        self.drained && self.released == self.accepted
    }

    fn attempt_is_on(items: &FxHashMap<ItemIndex, Item>, watch: &Watch) -> bool {
        items.get(&watch.item).is_some_and(|item| {
            item.attempt == watch.attempt && item.deadline == Some(watch.deadline) && item.worker.is_some()
        })
    }

    /// Takes what is due off a queue of watches, and what has become void.
    fn due(items: &FxHashMap<ItemIndex, Item>, watches: &mut VecDeque<Watch>, now: Instant) -> Option<Watch> {
        while let Some(watch) = watches.front().copied() {
            let on = Self::attempt_is_on(items, &watch);
            if on && watch.at > now {
                return None;
            }
            watches.pop_front();
            if on {
                return Some(watch);
            }
        }
        None
    }

    fn watch(&mut self, now: Instant) {
        // Attempts end long before their time-outs: without this, fast runs would collect minutes of dead entries.
        if self.timeouts.len() > 64 + 2 * self.items.len() {
            self.timeouts.retain(|watch| Self::attempt_is_on(&self.items, watch));
        }
        while let Some(watch) = Self::due(&self.items, &mut self.timeouts, now) {
            self.time_out(watch, now);
        }
        while let Some(Reverse((at, item, attempt))) = self.extended.peek().copied()
            && at <= now
        {
            self.extended.pop();
            let watch = Watch { at, item, attempt, deadline: at };
            if Self::attempt_is_on(&self.items, &watch) {
                self.time_out(watch, now);
            }
        }
        while let Some(watch) = Self::due(&self.items, &mut self.cancelled, now) {
            self.commands.push_back(Command::Abandon { item: watch.item, attempt: watch.attempt });
        }
    }

    fn time_out(&mut self, watch: Watch, now: Instant) {
        self.commands.push_back(Command::TimedOut { item: watch.item, attempt: watch.attempt });
        self.cancelled.push_back(Watch { at: now + self.settings.abandon_after, ..watch });
    }

    fn start_ready(&mut self, now: Instant) {
        self.held_until = None;
        while self.cooldown.is_open() {
            let (index, fresh) = match self.ready.front() {
                Some(index) => (*index, false),
                None if self.next_fresh < self.accepted => (self.next_fresh, true),
                None => return,
            };
            let kept = self.items.get(&index).and_then(|item| item.worker);
            if kept.is_none() && self.free_workers.is_empty() {
                return;
            }
            if fresh {
                match self.slow_start.admit(now) {
                    Admission::Now => {}
                    Admission::At(at) => {
                        self.held_until = Some(at);
                        return;
                    }
                    Admission::Ask(from) => {
                        self.commands.push_back(Command::AskSlowStart { from });
                        return;
                    }
                    Admission::Asked => return,
                }
            }
            if let Some(Err(at)) = self.limiter.as_mut().map(|limiter| limiter.try_take(now)) {
                self.held_until = Some(at);
                return;
            }
            let Some(worker) = kept.or_else(|| self.free_workers.pop()) else { return };
            self.start(index, worker, fresh, now);
        }
    }

    fn start(&mut self, index: ItemIndex, worker: u32, fresh: bool, now: Instant) {
        if fresh {
            self.next_fresh += 1;
            self.slow_start.started(now);
            if self.refused > 0 {
                self.refused -= 1;
                self.commands.push_back(Command::Room);
            }
        } else {
            self.ready.pop_front();
        }
        let sent = self.cooldown.generation();
        let item = self.items.entry(index).or_insert(Item {
            attempt: 0,
            failures: 0,
            rate_limits: 0,
            worker: None,
            sent,
            deadline: None,
        });
        item.attempt = item.attempt.saturating_add(1);
        item.worker = Some(worker);
        item.sent = sent;
        self.commands.push_back(Command::Start { item: index, attempt: item.attempt, worker });
        self.watch_time(index, now);
    }
}
