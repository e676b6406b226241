//! Every decision of a run, as a function of the time and the scheduler's own state.
//!
//! The scheduler never waits, and reads no clock until it is dropped: it takes reports of what happened and when (this
//! module), and answers with [`Command`]s and with the instant of the next call of `advance`. The way of an item:
//!
//! ```text
//! offer -> queue -> [cooldown] [prompt cache] [slow start] [scope: quota, concurrency] [budget] a worker -> Start
//!                                                     -> failed -> wait -> Start ... -> record -> release
//!                                                     -> end_round -> next_round -> Start ... -> record -> release
//! ```

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::adaptive::Signal;
use super::bound::BoundBy;
use super::commands::{Command, Limit, QueueFull, Rejection};
use super::deadlines::{Deadlines, Due, Watch};
use super::deferred::Deferred;
use super::guard::{Allowance, Budget, Price, Stop};
use super::intake::Intake;
use super::item::{Item, Kind};
use super::measure::ReportedLimit;
use super::output_length::OutputLength;
use super::queue::{Expected, Priority, Queue, QueueId};
use super::quota::Used;
use super::retries::Retries;
use super::samples::Samples;
use super::scope::{Scope, Wake};
use super::settings::Settings;
use super::standstill::Standstill;
use super::stats::{ItemReport, Stats};
use super::units::{ItemIndex, UniformSource};
use super::warming::Heads;
use super::workers::Workers;

/// The state of one run. See the module.
pub struct Scheduler {
    pub(super) settings: Settings,
    pub(super) uniform: UniformSource,
    pub(super) wake: Wake,
    pub(super) commands: VecDeque<Command>,
    pub(super) intake: Intake,
    pub(super) closed: bool,
    /// Nothing starts for now.
    pub(super) paused: bool,
    /// Nothing new starts for now, because results are not taken.
    pub(super) is_full: bool,
    pub(super) stopped: Option<Stop>,
    /// What was in flight when the run was stopped has been cancelled.
    pub(super) cancelled: bool,
    pub(super) began: Instant,
    pub(super) workers: Workers,
    pub(super) items: FxHashMap<ItemIndex, Item>,
    pub(super) queues: Vec<Queue>,
    pub(super) kinds: Vec<Kind>,
    pub(super) retries: Retries,
    pub(super) deadlines: Deadlines,
    pub(super) budget: Budget,
    pub(super) bound: BoundBy,
    /// Attempts in flight.
    pub(super) in_flight: usize,
    /// Items between two rounds.
    pub(super) between: usize,
    pub(super) deferred: Deferred,
    pub(super) standstill: Standstill,
    pub(super) heads: Heads,
    pub(super) stats: Stats,
    /// Items that are answered, and whose results are being written.
    pub(super) unwritten: usize,
    pub(super) samples: Samples,
}

impl Scheduler {
    /// A run without items, with one queue (number 0) whose scope is its own. `uniform` spreads waits; `wake` makes
    /// somebody call [`advance`](Self::advance) soon.
    pub fn new(settings: Settings, uniform: UniformSource, wake: Wake, now: Instant) -> Self {
        let mut scheduler = Self {
            budget: Budget::new(settings.caps),
            workers: Workers::new(settings.max_workers),
            settings,
            uniform,
            wake,
            commands: VecDeque::new(),
            intake: Intake::default(),
            closed: false,
            paused: false,
            is_full: false,
            stopped: None,
            cancelled: false,
            began: now,
            items: FxHashMap::default(),
            queues: Vec::new(),
            kinds: Vec::new(),
            retries: Retries::default(),
            deadlines: Deadlines::default(),
            bound: BoundBy::new(now),
            in_flight: 0,
            between: 0,
            deferred: Deferred::default(),
            standstill: Standstill::default(),
            heads: Heads::default(),
            stats: Stats::default(),
            unwritten: 0,
            samples: Samples::default(),
        };
        scheduler.add_queue(Arc::default(), now);
        scheduler
    }

    /// A queue for items that share `scope`; the same one for the same scope.
    pub fn add_queue(&mut self, scope: Arc<Scope>, now: Instant) -> QueueId {
        let known = self.queues.iter().position(|queue| Arc::ptr_eq(&queue.scope, &scope));
        let number = known.unwrap_or_else(|| {
            let Settings { limits, burst, control, .. } = &self.settings;
            let member = scope.join(Arc::clone(&self.wake), limits, *burst, *control, now);
            if self.settings.outage_patience == Some(Duration::ZERO) {
                scope.ignore_outages(member);
            }
            if let Some(most) = self.settings.most_in_flight {
                scope.bound_in_flight(member, most);
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

    /// Accepts one more item. A `bounded` offer is rejected while the queue is full.
    ///
    /// # Errors
    /// [`QueueFull`] when the queue is full.
    pub fn offer(
        &mut self,
        queue: QueueId,
        priority: Priority,
        bounded: bool,
        now: Instant,
    ) -> Result<ItemIndex, QueueFull> {
        if bounded && let Some(max) = self.settings.max_queue {
            let queued: u64 = self.queues.iter().map(|queue| queue.fresh.len()).sum();
            if queued >= max.get() as u64 {
                self.intake.reject();
                return Err(QueueFull);
            }
        }
        Ok(self.accept(queue, priority, 1, now).start)
    }

    /// Accepts `count` items, whatever the bound. An unknown queue is queue 0.
    pub fn accept(&mut self, queue: QueueId, priority: Priority, count: u64, now: Instant) -> Range<ItemIndex> {
        let items = self.intake.accept(count);
        let known = self.queues.len();
        let queue = Some(queue as usize).filter(|queue| *queue < known).unwrap_or(0);
        if !items.is_empty() {
            self.queues[queue].fresh.push(priority, items.clone(), now);
        }
        self.stats.total += count;
        items
    }

    /// Accepts `count` items that are none of the engine's business: their results come from elsewhere.
    /// [`record_reused`](Self::record_reused) counts these when they are there.
    pub fn skip(&mut self, count: u64) {
        self.intake.accept(count);
        self.stats.total += count;
    }

    /// Counts results of items that were skipped.
    pub fn record_reused(&mut self, succeeded: u64, failed: u64) {
        self.stats.record_reused(succeeded, failed);
        self.intake.release(succeeded + failed);
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

    /// The attempt that timed out has some time left: it began later than it was started, because the
    /// executor was busy.
    pub fn extend(&mut self, index: ItemIndex, left: Duration, now: Instant) {
        if let Some(item) = self.items.get_mut(&index) {
            let deadline = now + left;
            item.deadline = Some(deadline);
            self.deadlines.add(index, item.attempt, deadline);
        }
    }

    pub(super) fn watch_time(&mut self, index: ItemIndex, now: Instant) {
        if let (Some(limit), Some(item)) = (self.settings.attempt_timeout, self.items.get_mut(&index)) {
            if self.queues[item.queue as usize].is_unbounded {
                return;
            }
            let deadline = now + limit;
            item.deadline = Some(deadline);
            self.deadlines.add(index, item.attempt, deadline);
        }
    }

    /// The attempt was started but not sent: what it took is released.
    pub fn not_sent(&mut self, index: ItemIndex, now: Instant) {
        self.reconcile(index, Used::NotSent, Signal::None, now);
    }

    /// What the reply to an attempt reports about limits.
    pub fn observe(&mut self, index: ItemIndex, reported: &[ReportedLimit], now: Instant) {
        if let Some(item) = self.items.get(&index)
            && let Some(ticket) = &item.ticket
        {
            self.queues[item.queue as usize].scope.observe(reported, ticket, now);
        }
    }

    /// Reconciles what the present attempt took with what it used.
    pub(super) fn reconcile(&mut self, index: ItemIndex, used: Used, signal: Signal, now: Instant) {
        let Some(item) = self.items.get_mut(&index) else { return };
        let Some(ticket) = item.ticket.take() else { return };
        self.in_flight = self.in_flight.saturating_sub(1);
        let queue = &mut self.queues[item.queue as usize];
        let at = |time: Instant| time.saturating_duration_since(self.began);
        queue.served.end(at(item.attempt_since), at(now));
        queue.lived |= signal == Signal::Succeeded;
        queue.scope.reconcile(&ticket, used, signal, now);
        if self.heads.are_known() {
            self.end_of_head(index, used, signal, now);
        }
        self.reconcile_budget(index, used);
    }

    /// The item's present attempt was answered by one whose tokens cost this, not what was reserved.
    pub fn reprice(&mut self, index: ItemIndex, price: Price) {
        if let Some(item) = self.items.get_mut(&index) {
            item.price = Some(Box::new(price));
        }
    }

    /// Puts what an attempt has used in the place of what was expected.
    pub(super) fn reconcile_budget(&mut self, index: ItemIndex, used: Used) {
        let Some(item) = self.items.get_mut(&index) else { return };
        let kind = item.need.kind.and_then(|kind| self.kinds.get_mut(kind as usize));
        let price = item.price.take().map(|price| *price).or(kind.as_ref().and_then(|kind| kind.price));
        self.budget.reconcile(std::mem::take(&mut item.reserved), used, price);
        #[allow(clippy::cast_precision_loss)]
        if let (Used::Reported(usage), Some(kind)) = (used, kind) {
            kind.length.learn(usage.output as f64);
        }
    }

    /// The item's last attempt has ended, and what it took from limits is reconciled; its result may come later, when it
    /// has been written down: that time is none of the provider's.
    pub fn answered(&mut self, index: ItemIndex, report: &ItemReport, now: Instant) {
        let Some(item) = self.items.get_mut(&index) else { return };
        if item.ticket.is_none() {
            return;
        }
        let used = match report.reported {
            true => Used::Reported(report.usage.minus(&item.reconciled)),
            false => Used::Unknown,
        };
        if report.success {
            self.queues[item.queue as usize].cooldown.succeeded(item.sent);
        }
        let signal = if report.success { Signal::Succeeded } else { Signal::None };
        self.reconcile(index, used, signal, now);
    }

    /// The item's worker does not wait until its result is written.
    pub fn free_worker(&mut self, index: ItemIndex) {
        let Some(item) = self.items.get_mut(&index) else { return };
        item.rejected = true;
        if let Some(worker) = item.worker.take() {
            self.workers.release(worker);
        }
    }

    /// The item has its result.
    pub fn record(&mut self, index: ItemIndex, report: ItemReport, now: Instant) {
        self.answered(index, &report, now);
        let own = report.usage;
        self.stats.record(report);
        self.sample(index, own, now);
    }

    /// Items that never started have their results; see [`Command::RejectFresh`].
    pub fn record_rejected(&mut self, count: u64, error: &str) {
        self.stats.record_rejected(count, error);
        self.intake.release(count);
    }

    /// The item is done: its worker is free.
    pub fn release(&mut self, index: ItemIndex, now: Instant) {
        self.reconcile(index, Used::Unknown, Signal::None, now);
        self.leave_between(index);
        if self.heads.are_known() {
            self.heads.forget(&(index..index + 1));
        }
        let Some(mut item) = self.items.remove(&index) else { return };
        self.deferred.resolve(&mut item);
        self.unwritten -= usize::from(item.is_unwritten);
        let queue = &mut self.queues[item.queue as usize];
        queue.in_work = queue.in_work.saturating_sub(1);
        if let Some(worker) = item.worker {
            self.workers.release(worker);
        }
        self.intake.release(1);
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
        while let Some(index) = self.retries.due(now) {
            self.make_ready(index);
        }
        self.hear_of_outages(now);
        self.check_deadlines(now);
        match self.stopped {
            Some(stop) => self.reject_all(stop),
            None => self.start_ready(now),
        }
        self.tell_of_room();
        if self.intake.drains() {
            self.commands.push_back(Command::Drained);
        }
        if self.is_drained() {
            self.bound.end(now);
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
        let run = self.settings.run_timeout.filter(|_| self.stopped.is_none()).map(|limit| self.began + limit);
        let queues = self.queues.iter().flat_map(|queue| {
            [
                queue.cooldown.ends_at(),
                queue.blocked.and_then(|(at, _)| at),
                self.patience_ends(queue),
                queue.unread_until,
            ]
        });
        [self.retries.next(), run, self.deadlines.next(), self.standstill.due()]
            .into_iter()
            .chain(queues)
            .flatten()
            .min()
    }

    /// So much may be spent of a cap that several runs have together.
    pub fn allow(&mut self, allowance: Allowance) {
        self.budget.allow(allowance);
    }

    /// Whether every accepted item is done.
    pub fn is_drained(&self) -> bool {
        self.intake.is_drained()
    }

    /// Takes note of when the time of an item that starts for the first time is over.
    pub(super) fn watch_end(&mut self, index: ItemIndex, now: Instant) {
        if let (Some(limit), Some(item)) = (self.settings.item_timeout, self.items.get_mut(&index)) {
            item.end = Some(now + limit);
            self.deadlines.add_item(index, now + limit);
        }
    }

    fn check_deadlines(&mut self, now: Instant) {
        let items = &self.items;
        let is_on = |watch: &Watch| {
            items.get(&watch.item).is_some_and(|item| {
                item.attempt == watch.attempt && item.deadline == Some(watch.deadline) && item.worker.is_some()
            })
        };
        self.deadlines.tidy(items.len(), is_on);
        while let Some(due) = self.deadlines.due(now, is_on) {
            match due {
                Due::TimedOut(watch) => {
                    let Watch { item, attempt, .. } = watch;
                    self.commands.push_back(Command::TimedOut { item, attempt, limit: Limit::Attempt });
                    self.deadlines.cancelled(watch, now + self.settings.abandon_after);
                }
                Due::Ignored(Watch { item, attempt, .. }) => {
                    self.commands.push_back(Command::Abandon { item, attempt });
                }
            }
        }
        while let Some(index) = self.deadlines.due_item(now, self.items.len(), |item| self.items.contains_key(&item)) {
            match self.items.get(&index).map(|item| item.ticket.is_some()) {
                Some(true) => self.time_out(index, Limit::Item, now),
                Some(false) => self.reject(index, Rejection::ItemDeadline),
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
