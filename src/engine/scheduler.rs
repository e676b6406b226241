//! Every decision of a run, as a function of the time and the scheduler's own state.
//!
//! The scheduler never waits and never reads a clock: it is told what happened and at what time (this module), and
//! answers with [`Command`]s and with the instant at which it wants to be asked again (`advance`). The way of an item:
//!
//! ```text
//! offer -> queue -> [cooldown] [slow start] [scope: quota, concurrency] [budget] a worker -> Start
//!                                                     -> failed -> wait -> Start ... -> record -> release
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::adaptive::Signal;
use super::bound::{Bound, BoundBy};
use super::commands::{Command, Failure, Limit, Refusal, Refused, Verdict};
use super::cooldown::Generation;
use super::guard::{Budget, Price, Spending, Stop};
use super::outage::{Epoch, Loss, Sign};
use super::output_length::OutputLength;
use super::queue::{Expected, Priority, Queue, QueueId};
use super::quota::{Estimate, Ticket, Told, Used};
use super::scope::{Control, Poke, Scope};
use super::settings::Settings;
use super::standstill::Standstill;
use super::stats::{ItemReport, Stats, Usage};
use super::units::{ItemIndex, UniformSource, seconds};
use super::waits::Again;
use super::watch::{Due, Watch, Watches};

#[derive(Debug)]
pub(super) struct Item {
    pub(super) queue: QueueId,
    pub(super) attempt: u32,
    pub(super) failures: u32,
    rate_limits: u32,
    /// The worker slot it holds; an item that waits for its next attempt holds none.
    pub(super) worker: Option<u32>,
    pub(super) sent: Generation,
    /// When the present attempt is over its time.
    pub(super) deadline: Option<Instant>,
    /// What the present attempt has taken from its scope.
    pub(super) ticket: Option<Ticket>,
    pub(super) reserved: Spending,
    pub(super) need: Need,
    /// When its time is over.
    pub(super) end: Option<Instant>,
    /// Usage of earlier attempts, which its scope and the budget know.
    settled: Usage,
    /// Failures of which nobody knows whether they count: how many, and in which streak.
    pub(super) lost: (u32, Epoch),
    /// It was refused while it waited: whatever queue it is still in skips it.
    pub(super) refused: bool,
    /// While it waits for its next attempt.
    pub(super) again: Option<Again>,
}

impl Item {
    pub(super) fn new(queue: QueueId, need: Need) -> Self {
        Self {
            queue,
            attempt: 0,
            failures: 0,
            rate_limits: 0,
            worker: None,
            sent: 0,
            deadline: None,
            ticket: None,
            reserved: Spending::default(),
            need,
            end: None,
            settled: Usage::default(),
            lost: (0, 0),
            refused: false,
            again: None,
        }
    }
}

/// What an attempt of an item is expected to use.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Need {
    pub(super) estimate: Estimate,
    pub(super) most: Spending,
    /// Number of its kind, if it was estimated.
    pub(super) kind: Option<u32>,
}

/// Items that are alike in length and price: those of one strategy.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) length: OutputLength,
    pub(super) price: Option<Price>,
}

/// What an item waits for before its next attempt.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    /// Its backoff.
    Due,
    /// The end of a pause.
    Resumed,
    /// That it is known whether the provider is away.
    Decided,
}

/// What is going on in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauges {
    /// Items that have not started.
    pub queued: u64,
    /// Attempts that are on.
    pub in_flight: usize,
    /// Items that wait for their next attempt.
    pub retrying: usize,
    /// What is left of the pause after a rate limit.
    pub cooldown: Duration,
    /// For how long the provider, or one of several, has been away.
    pub outage: Option<Duration>,
    /// What has kept everything from going on for a while, and for how long yet, if that is known.
    pub standstill: Option<(Bound, Option<Duration>)>,
}

/// The state of one run. See the module.
pub struct Scheduler {
    pub(super) settings: Settings,
    pub(super) uniform: UniformSource,
    poke: Poke,
    pub(super) commands: VecDeque<Command>,
    /// Accepted items so far.
    accepted: ItemIndex,
    /// Those whose offer was refused, and who wait for room.
    pub(super) turned_away: usize,
    released: u64,
    drained: bool,
    pub(super) closed: bool,
    /// More items may come: the run is not drained while it has none.
    pub(super) open: bool,
    /// Nothing starts for now.
    pub(super) paused: bool,
    /// Nothing new starts for now, because results are not taken.
    pub(super) is_full: bool,
    pub(super) stopped: Option<Stop>,
    /// What was on when the run was stopped has been cancelled.
    pub(super) cancelled: bool,
    pub(super) began: Instant,
    pub(super) free_workers: Vec<u32>,
    /// Workers that are to go when they have nothing to do any more.
    pub(super) surplus: usize,
    pub(super) items: FxHashMap<ItemIndex, Item>,
    pub(super) queues: Vec<Queue>,
    pub(super) kinds: Vec<Kind>,
    pub(super) waiting: BinaryHeap<Reverse<(Instant, ItemIndex)>>,
    pub(super) watches: Watches,
    /// When the time of an item is over, in the order of their first starts.
    ends: VecDeque<(Instant, ItemIndex)>,
    pub(super) budget: Budget,
    pub(super) bound: BoundBy,
    /// Attempts that are on.
    pub(super) in_flight: usize,
    pub(super) standstill: Standstill,
    stats: Stats,
}

impl Scheduler {
    /// A run without items, with one queue (number 0) whose scope is its own. `uniform` spreads waits; `poke` makes
    /// somebody call [`advance`](Self::advance) soon.
    pub fn new(settings: Settings, uniform: UniformSource, poke: Poke, now: Instant) -> Self {
        let workers = u32::try_from(settings.max_workers.get()).unwrap_or(u32::MAX);
        let mut scheduler = Self {
            budget: Budget::new(settings.caps),
            settings,
            uniform,
            poke,
            commands: VecDeque::new(),
            accepted: 0,
            turned_away: 0,
            released: 0,
            drained: false,
            closed: false,
            open: false,
            paused: false,
            is_full: false,
            stopped: None,
            cancelled: false,
            began: now,
            // Popped from the end: the lowest number first.
            free_workers: (0..workers).rev().collect(),
            surplus: 0,
            items: FxHashMap::default(),
            queues: Vec::new(),
            kinds: Vec::new(),
            waiting: BinaryHeap::new(),
            watches: Watches::default(),
            ends: VecDeque::new(),
            bound: BoundBy::new(now),
            in_flight: 0,
            standstill: Standstill::default(),
            stats: Stats::default(),
        };
        scheduler.add_queue(Arc::default(), now);
        scheduler
    }

    /// A queue for items that share `scope`; the same one for the same scope.
    pub fn add_queue(&mut self, scope: Arc<Scope>, now: Instant) -> QueueId {
        let known = self.queues.iter().position(|queue| Arc::ptr_eq(&queue.scope, &scope));
        let number = known.unwrap_or_else(|| {
            let Settings { limits, burst, control, .. } = &self.settings;
            let member = scope.join(Arc::clone(&self.poke), limits, *burst, *control, now);
            if self.settings.outage_patience == Some(Duration::ZERO) {
                scope.ignore_outages(member);
            }
            self.queues.push(Queue::new(scope, member, now));
            self.queues.len() - 1
        });
        QueueId::try_from(number).unwrap_or(QueueId::MAX)
    }

    /// A kind of items: what answer to expect before any has come, tokens; and what they cost.
    pub fn add_kind(&mut self, output: f64, price: Option<Price>) -> u32 {
        self.kinds.push(Kind { length: OutputLength::new(output), price });
        u32::try_from(self.kinds.len() - 1).unwrap_or(u32::MAX)
    }

    /// Accepts one more item. A `bounded` offer is refused while the queue is full.
    ///
    /// # Errors
    /// [`Refused`] when the queue is full.
    pub fn offer(
        &mut self,
        queue: QueueId,
        priority: Priority,
        bounded: bool,
        now: Instant,
    ) -> Result<ItemIndex, Refused> {
        if bounded && let Some(max) = self.settings.max_queue {
            let queued: u64 = self.queues.iter().map(|queue| queue.fresh.len()).sum();
            if queued >= max.get() as u64 {
                self.turned_away += 1;
                return Err(Refused);
            }
        }
        let item = self.accepted;
        self.accept(queue, priority, 1, now);
        Ok(item)
    }

    /// Accepts `count` items, whatever the bound. An unknown queue is queue 0.
    pub fn accept(&mut self, queue: QueueId, priority: Priority, count: u64, now: Instant) {
        let items = self.accepted..self.accepted + count;
        let known = self.queues.len();
        let queue = Some(queue as usize).filter(|queue| *queue < known).unwrap_or(0);
        if !items.is_empty() {
            self.queues[queue].fresh.push(priority, items, now);
        }
        self.accepted += count;
        self.stats.total += count;
        self.drained = false;
    }

    /// Accepts `count` items that are none of the engine's business: their results come from elsewhere.
    /// [`record_reused`](Self::record_reused) counts these when they are there.
    pub fn skip(&mut self, count: u64) {
        self.accepted += count;
        self.stats.total += count;
        self.drained = false;
    }

    /// Counts results of items that were skipped.
    pub fn record_reused(&mut self, succeeded: u64, failed: u64) {
        self.stats.record_reused(succeeded, failed);
        self.released += succeeded + failed;
    }

    /// The answer to [`Command::Estimate`], for one item.
    pub fn expect(&mut self, item: ItemIndex, expected: Expected) {
        for queue in &mut self.queues {
            if let Some(known) = queue.expected.get_mut(&item) {
                *known = expected;
                return;
            }
        }
    }

    /// The attempt is about to be sent, later than it was started: something was awaited first. Its time begins anew.
    /// `false`: a cooldown has begun meanwhile, wait for [`Command::Resume`] and ask again. (What is sent at once
    /// needs not ask: it belongs to the same burst as the attempt that met the limit.)
    pub fn executing(&mut self, index: ItemIndex, now: Instant) -> bool {
        let Some(item) = self.items.get_mut(&index) else { return true };
        let queue = &mut self.queues[item.queue as usize];
        if !queue.cooldown.is_open() {
            queue.parked.push(index);
            return false;
        }
        item.sent = queue.cooldown.generation();
        self.watch_time(index, now);
        true
    }

    /// The attempt that was said to be over its time has some left: it began later than it was started, because the
    /// executor was busy.
    pub fn extend(&mut self, index: ItemIndex, left: Duration, now: Instant) {
        if let Some(item) = self.items.get_mut(&index) {
            let deadline = now + left;
            item.deadline = Some(deadline);
            self.watches.add(index, item.attempt, deadline);
        }
    }

    pub(super) fn watch_time(&mut self, index: ItemIndex, now: Instant) {
        if let (Some(limit), Some(item)) = (self.settings.attempt_timeout, self.items.get_mut(&index)) {
            let deadline = now + limit;
            item.deadline = Some(deadline);
            self.watches.add(index, item.attempt, deadline);
        }
    }

    /// The attempt was started but not sent: what it took is given back.
    pub fn not_sent(&mut self, index: ItemIndex, now: Instant) {
        self.settle(index, Used::NotSent, Signal::None, now);
    }

    /// What the reply to an attempt says about limits.
    pub fn observe(&mut self, index: ItemIndex, told: &[Told], now: Instant) {
        if let Some(item) = self.items.get(&index)
            && let Some(ticket) = &item.ticket
        {
            self.queues[item.queue as usize].scope.observe(told, ticket, now);
        }
    }

    /// The attempt failed. `sign`: what that says about whether the provider is there. `together`: how many items share
    /// a request, and so its failure. `usage`: of all attempts of the item so far, if the provider told.
    pub fn failed(
        &mut self,
        index: ItemIndex,
        failure: Failure,
        sign: Sign,
        together: u64,
        usage: Option<Usage>,
        now: Instant,
    ) -> Verdict {
        self.decide(index);
        let Some(item) = self.items.get_mut(&index) else { return Verdict::GiveUp };
        let used = match (usage.filter(|usage| *usage != item.settled), failure) {
            (Some(usage), _) => {
                let own = usage.minus(&item.settled);
                item.settled = usage;
                Used::Known(own)
            }
            (None, Failure::RateLimit { .. } | Failure::Permanent) => Used::Refused,
            (None, Failure::Retryable { .. } | Failure::Cut) => Used::Unknown,
        };
        let signal = match failure {
            Failure::RateLimit { .. } => Signal::RateLimited,
            Failure::Retryable { overload: true, .. } => Signal::Overloaded,
            _ if sign == Sign::Alive => Signal::Alive,
            _ => Signal::None,
        };
        if let Failure::Retryable { at_least, .. } = failure
            && sign.is_away()
            && let Some(standing) = self.lose(index, used, signal, Loss { sign, together, at_least }, now)
        {
            return self.judge_lost(index, standing, at_least, now);
        }
        self.settle(index, used, signal, now);
        self.judge(index, failure, now)
    }

    /// Whether and when a failed item is tried again.
    fn judge(&mut self, index: ItemIndex, failure: Failure, now: Instant) -> Verdict {
        let Some(item) = self.items.get_mut(&index) else { return Verdict::GiveUp };
        let queue = &mut self.queues[item.queue as usize];
        let mut refused = false;
        let wait = match failure {
            Failure::Permanent | Failure::Cut => return Verdict::GiveUp,
            Failure::Retryable { backoff, at_least, .. } => {
                item.failures += 1;
                if item.failures >= self.settings.max_attempts {
                    return Verdict::GiveUp;
                }
                let wait = match backoff {
                    true => self.settings.backoff.wait(item.failures, (self.uniform)()),
                    false => Duration::ZERO,
                };
                wait.max(spread(at_least, (self.uniform)()))
            }
            Failure::RateLimit { at_least, told } => {
                self.stats.rate_limits += 1;
                item.rate_limits += 1;
                if self.settings.control != Control::Fixed {
                    // The scope has cut its rate; the server's word holds for everybody, nothing else does.
                    queue.scope.pause_until(now + at_least);
                } else if queue.cooldown.refused(item.sent, at_least, now) {
                    self.commands.push_back(Command::AskCooldown {
                        queue: item.queue,
                        worker: item.worker.unwrap_or_default(),
                        consecutive: queue.cooldown.consecutive(),
                        told,
                    });
                }
                if item.rate_limits > self.settings.max_rate_limit_retries {
                    return Verdict::GiveUp;
                }
                refused = !queue.cooldown.is_open();
                spread(at_least, (self.uniform)())
            }
        };
        // A single worker keeps its item, so that one item is done before the next begins; several give theirs
        // back, so that a few failing items do not idle the pool.
        let keeps = self.settings.max_workers.get() == 1;
        self.try_again(index, wait, if refused { Until::Resumed } else { Until::Due }, keeps, now)
    }

    /// Has an item wait for its next attempt, unless it may not have one.
    pub(super) fn try_again(
        &mut self,
        index: ItemIndex,
        wait: Duration,
        until: Until,
        keeps_worker: bool,
        now: Instant,
    ) -> Verdict {
        let Some(item) = self.items.get_mut(&index) else { return Verdict::GiveUp };
        if let Some(stop) = self.stopped {
            return Verdict::Refused(Refusal::Stopped(stop));
        }
        if item.end.is_some_and(|end| end < now + wait) {
            return Verdict::Refused(Refusal::ItemDeadline);
        }
        item.deadline = None;
        let worker = if keeps_worker { None } else { item.worker.take() };
        self.free(worker);
        let Some(item) = self.items.get_mut(&index) else { return Verdict::GiveUp };
        let queue = &mut self.queues[item.queue as usize];
        item.again = Some(Again { failed: now, due: now + wait, paused: matches!(until, Until::Resumed) });
        match until {
            Until::Resumed => queue.refused.push(index),
            Until::Decided => queue.undecided.push(index),
            Until::Due if wait.is_zero() => queue.ready.push_back(index),
            Until::Due => self.waiting.push(Reverse((now + wait, index))),
        }
        Verdict::Retry
    }

    /// Ends the present attempt in the books.
    pub(super) fn settle(&mut self, index: ItemIndex, used: Used, signal: Signal, now: Instant) {
        let Some(item) = self.items.get_mut(&index) else { return };
        let Some(ticket) = item.ticket.take() else { return };
        self.in_flight = self.in_flight.saturating_sub(1);
        let queue = &mut self.queues[item.queue as usize];
        queue.lived |= signal == Signal::Succeeded;
        queue.scope.settle(&ticket, used, signal, now);
        self.settle_budget(index, used);
    }

    /// Puts what an attempt has used in the place of what was expected.
    pub(super) fn settle_budget(&mut self, index: ItemIndex, used: Used) {
        let Some(item) = self.items.get_mut(&index) else { return };
        let kind = item.need.kind.and_then(|kind| self.kinds.get_mut(kind as usize));
        let price = kind.as_ref().and_then(|kind| kind.price);
        self.budget.settle(std::mem::take(&mut item.reserved), used, price);
        #[allow(clippy::cast_precision_loss)]
        if let (Used::Known(usage), Some(kind)) = (used, kind) {
            kind.length.learn(usage.output as f64);
        }
    }

    /// The answer to [`Command::AskCooldown`]: how long to pause, and the first portion of slow-start delays.
    /// Returns the planned length from now.
    pub fn decide_cooldown(
        &mut self,
        queue: QueueId,
        pause: Duration,
        delays: impl IntoIterator<Item = Duration>,
        more: bool,
        now: Instant,
    ) -> Duration {
        let Some(queue) = self.queues.get_mut(queue as usize) else { return Duration::ZERO };
        let Some(until) = queue.cooldown.decide(pause, now) else { return Duration::ZERO };
        queue.slow_start.begin(until, delays, more);
        queue.scope.pause_until(until);
        until - now
    }

    /// The answer to [`Command::AskSlowStart`].
    pub fn extend_slow_start(&mut self, queue: QueueId, delays: impl IntoIterator<Item = Duration>, more: bool) {
        if let Some(queue) = self.queues.get_mut(queue as usize) {
            queue.slow_start.extend(delays, more);
        }
    }

    /// The item's last attempt has ended, and what it took from limits is settled; its result may come later, when it
    /// has been written down: that time is none of the provider's.
    pub fn answered(&mut self, index: ItemIndex, report: &ItemReport, now: Instant) {
        let Some(item) = self.items.get_mut(&index) else { return };
        if item.ticket.is_none() {
            return;
        }
        let used = match report.reported {
            true => Used::Known(report.usage.minus(&item.settled)),
            false => Used::Unknown,
        };
        if report.success {
            self.queues[item.queue as usize].cooldown.succeeded(item.sent);
        }
        let signal = if report.success { Signal::Succeeded } else { Signal::None };
        self.settle(index, used, signal, now);
    }

    /// The item has its result.
    pub fn record(&mut self, index: ItemIndex, report: ItemReport, now: Instant) {
        self.answered(index, &report, now);
        self.stats.record(report);
    }

    /// Items that never started have their results; see [`Command::RefuseFresh`].
    pub fn record_refused(&mut self, count: u64, error: &str) {
        self.stats.record_refused(count, error);
        self.released += count;
    }

    /// The item is done: its worker is free.
    pub fn release(&mut self, index: ItemIndex, now: Instant) {
        self.settle(index, Used::Unknown, Signal::None, now);
        let Some(item) = self.items.remove(&index) else { return };
        let queue = &mut self.queues[item.queue as usize];
        queue.in_work = queue.in_work.saturating_sub(1);
        self.free(item.worker);
        self.released += 1;
    }

    /// A user's own function has found this cost of an attempt.
    pub fn spend(&mut self, cost: f64, now: Instant) {
        self.budget.spend(cost);
        if self.budget.is_used_up() {
            self.stop(Stop::Budget, false, now);
        }
    }

    /// Brings the state up to `now`: what is due becomes commands.
    pub fn advance(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        if self.settings.run_timeout.is_some_and(|limit| self.began + limit <= now) && !self.is_drained() {
            self.stop(Stop::Deadline, self.settings.cancel_on_stop, now);
        }
        for number in 0..self.queues.len() {
            self.end_cooldown(number, now);
        }
        while let Some(Reverse((at, index))) = self.waiting.peek().copied()
            && at <= now
        {
            self.waiting.pop();
            if let Some(item) = self.items.get(&index) {
                self.queues[item.queue as usize].ready.push_back(index);
            }
        }
        self.hear_of_outages(now);
        self.watch(now);
        match self.stopped {
            Some(stop) => self.refuse_all(stop),
            None => self.start_ready(now),
        }
        if self.released == self.accepted && !self.open && !self.drained {
            self.drained = true;
            self.commands.push_back(Command::Drained);
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn end_cooldown(&mut self, number: usize, now: Instant) {
        let queue = &mut self.queues[number];
        let Some(lasted) = queue.cooldown.poll(now) else { return };
        queue.slow_start.resume(now);
        let id = QueueId::try_from(number).unwrap_or(QueueId::MAX);
        self.commands.push_back(Command::CooldownEnded { queue: id, lasted });
        self.commands.extend(queue.parked.drain(..).map(|item| Command::Resume { item }));
        // Nobody comes back at the same instant as another.
        let refused = std::mem::take(&mut queue.refused);
        let part = lasted.mul_f64(RETURN_SPREAD).min(LONGEST_RETURN_SPREAD).as_secs_f64() / refused.len().max(1) as f64;
        for (number, index) in refused.into_iter().enumerate() {
            let later = seconds(part * (number as f64 + (self.uniform)()));
            if let Some(again) = self.items.get_mut(&index).and_then(|item| item.again.as_mut()) {
                again.due = now + later;
            }
            self.waiting.push(Reverse((now + later, index)));
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
        let end = self.ends.front().map(|(at, _)| *at);
        let run = self.settings.run_timeout.filter(|_| self.stopped.is_none()).map(|limit| self.began + limit);
        let queues = self
            .queues
            .iter()
            .flat_map(|queue| [queue.cooldown.ends_at(), queue.held.and_then(|(at, _)| at), self.patience_ends(queue)]);
        [waiting, end, run, self.watches.next(), self.standstill.due()].into_iter().chain(queues).flatten().min()
    }

    /// The counters so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What is going on.
    pub fn gauges(&self, now: Instant) -> Gauges {
        let ends = |queue: &Queue| queue.cooldown.ends_at().max(queue.scope.paused_until());
        let paused_until = self.queues.iter().filter_map(ends).max();
        let outage = self.queues.iter().filter_map(|queue| queue.outage.map(|view| view.since)).min();
        let left = |until: Option<Instant>| until.map(|until| until.saturating_duration_since(now));
        Gauges {
            queued: self.queues.iter().map(|queue| queue.fresh.len()).sum(),
            in_flight: self.in_flight,
            retrying: self.items.len().saturating_sub(self.in_flight),
            cooldown: left(paused_until).unwrap_or_default(),
            outage: outage.map(|since| now.saturating_duration_since(since)),
            standstill: self.standstill.news().map(|(bound, until)| (bound, left(until))),
        }
    }

    /// What was spent.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Why nothing more starts, over time.
    pub fn bound(&self) -> &BoundBy {
        &self.bound
    }

    /// The scopes of the run.
    pub fn scopes(&self) -> impl Iterator<Item = &Arc<Scope>> {
        self.queues.iter().map(|queue| &queue.scope)
    }

    /// Whether every accepted item is done.
    pub fn is_drained(&self) -> bool {
        self.drained && !self.open && self.released == self.accepted
    }

    /// Takes note of when the time of an item that starts for the first time is over.
    pub(super) fn watch_end(&mut self, index: ItemIndex, now: Instant) {
        if let (Some(limit), Some(item)) = (self.settings.item_timeout, self.items.get_mut(&index)) {
            item.end = Some(now + limit);
            self.ends.push_back((now + limit, index));
        }
    }

    fn watch(&mut self, now: Instant) {
        let items = &self.items;
        let is_on = |watch: &Watch| {
            items.get(&watch.item).is_some_and(|item| {
                item.attempt == watch.attempt && item.deadline == Some(watch.deadline) && item.worker.is_some()
            })
        };
        self.watches.tidy(items.len(), is_on);
        while let Some(due) = self.watches.due(now, is_on) {
            match due {
                Due::TimedOut(watch) => {
                    let Watch { item, attempt, .. } = watch;
                    self.commands.push_back(Command::TimedOut { item, attempt, limit: Limit::Attempt });
                    self.watches.cancelled(watch, now + self.settings.abandon_after);
                }
                Due::Ignored(Watch { item, attempt, .. }) => {
                    self.commands.push_back(Command::Abandon { item, attempt });
                }
            }
        }
        if self.ends.len() > 64 + 2 * self.items.len() {
            self.ends.retain(|(_, index)| self.items.contains_key(index));
        }
        while let Some((end, index)) = self.ends.front().copied()
            && (end <= now || !self.items.contains_key(&index))
        {
            self.ends.pop_front();
            match self.items.get(&index).map(|item| item.ticket.is_some()) {
                Some(true) => self.time_out(index, Limit::Item, now),
                Some(false) => self.refuse(index, Refusal::ItemDeadline),
                None => {}
            }
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        if !self.closed {
            self.close(Instant::now());
        }
    }
}

/// How much later than the server's word, or the end of a pause, somebody may come back: a share of the wait.
const RETURN_SPREAD: f64 = 0.1;
/// At most this.
const LONGEST_RETURN_SPREAD: Duration = Duration::from_secs(5);

/// A wait that the server asked for, made longer by a random part: never early, and no two at the same instant.
pub(super) fn spread(at_least: Duration, uniform: f64) -> Duration {
    at_least + at_least.mul_f64(RETURN_SPREAD * uniform).min(LONGEST_RETURN_SPREAD)
}
