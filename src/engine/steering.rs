//! What steers a run from outside: open or not, paused, wider, stopped, closed; one item cancelled.

use std::num::NonZeroUsize;
use std::time::Duration;

use rustc_hash::FxHashSet;
use tokio::time::Instant;

use super::adaptive::Signal;
use super::commands::{Command, Limit, Rejection};
use super::guard::Stop;
use super::measure::Limit as Quota;
use super::quota::Used;
use super::scheduler::Scheduler;
use super::standstill::Standstill;
use super::units::ItemIndex;

/// What a run keeps to, of what can be changed while it runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steering {
    /// Whether nothing starts until it is resumed.
    pub is_paused: bool,
    /// Items in work at the same time, at most.
    pub workers: usize,
    /// What may be spent.
    pub cost_cap: Option<f64>,
    /// When its time is over.
    pub time_left: Option<Duration>,
    /// Whether nothing more starts at all.
    pub is_stopped: bool,
}

impl Scheduler {
    /// Whether more items may come. While they may, the run is not drained, and its deadline holds.
    pub fn keep_open(&mut self, open: bool) {
        self.intake.keep_open(open);
    }

    /// Whether nothing new starts because results are not taken. What has begun goes on.
    pub fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// Starts nothing until it is called again; attempts in flight go on.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Changes the number of items in work at the same time. Those that are in work go on.
    pub fn set_workers(&mut self, workers: NonZeroUsize) {
        let busy: FxHashSet<u32> = self.items.values().filter_map(|item| item.worker).collect();
        self.workers.resize(workers, &busy);
    }

    /// Changes the limits that the user gave: those of all scopes that the run uses, and will use.
    pub fn set_limits(&mut self, limits: Vec<Quota>, now: Instant) {
        self.settings.limits = limits;
        for queue in &mut self.queues {
            queue.scope.set_limits(queue.member, &self.settings.limits, now);
            queue.blocked = None;
        }
    }

    /// Changes what may be spent, from the beginning of the run on; `None`: as much as it takes.
    pub fn set_cost_cap(&mut self, cost: Option<f64>) {
        self.budget.set_cost_cap(cost);
        for queue in &mut self.queues {
            queue.blocked = None;
        }
    }

    /// Ends the run after so much time from now on; `None`: never because of its time.
    pub fn set_time_left(&mut self, left: Option<Duration>, now: Instant) {
        self.settings.run_timeout = left.map(|left| (now - self.began).saturating_add(left));
    }

    /// What the run keeps to now.
    pub fn steering(&self, now: Instant) -> Steering {
        Steering {
            is_paused: self.paused,
            workers: self.workers.limit(),
            cost_cap: self.budget.cost_cap(),
            time_left: self.settings.run_timeout.map(|limit| (self.began + limit).saturating_duration_since(now)),
            is_stopped: self.stopped.is_some() || self.closed,
        }
    }

    /// Ends an item wherever it is. One that is neither waiting nor in work has ended.
    pub fn cancel(&mut self, index: ItemIndex, now: Instant) {
        match self.items.get(&index).map(|item| item.ticket.is_some()) {
            Some(true) => self.time_out(index, Limit::Cancelled, now),
            Some(false) => self.reject(index, Rejection::Cancelled),
            None => {
                for queue in &mut self.queues {
                    if queue.fresh.remove(index) {
                        queue.expected.remove(&index);
                        let items = index..index + 1;
                        self.heads.forget(&items);
                        self.commands.push_back(Command::RejectFresh { items, rejection: Rejection::Cancelled });
                        self.make_room();
                        return;
                    }
                }
            }
        }
    }

    /// Ends the run early: nothing more starts, everything that waits is rejected, attempts in flight may end or are
    /// cancelled.
    pub fn stop(&mut self, stop: Stop, cancel: bool, now: Instant) {
        if self.stopped.is_none() {
            self.stopped = Some(stop);
            self.commands.push_back(Command::Stopped { stop });
        } else if self.cancelled || !cancel {
            return;
        }
        if cancel {
            self.cancelled = true;
            let mut on: Vec<ItemIndex> =
                self.items.iter().filter(|(_, item)| item.ticket.is_some()).map(|(index, _)| *index).collect();
            on.sort_unstable();
            for index in on {
                self.time_out(index, Limit::Run(stop), now);
            }
            for index in self.between_rounds() {
                self.reject(index, Rejection::Stopped(stop));
            }
            if self.deferred.count > 0 {
                self.commands.push_back(Command::Recall);
            }
        }
    }

    /// Starts nothing more and forgets what it wanted to say.
    pub fn close(&mut self, now: Instant) {
        self.closed = true;
        self.commands.clear();
        self.bound.end(now);
        let open: Vec<ItemIndex> = self.items.keys().copied().collect();
        for index in open {
            self.reconcile(index, Used::Unknown, Signal::None, now);
        }
        for queue in &self.queues {
            queue.scope.leave(queue.member, now);
        }
    }

    /// Cancels an attempt for another reason than its own time.
    pub(super) fn time_out(&mut self, index: ItemIndex, limit: Limit, now: Instant) {
        let Some(item) = self.items.get_mut(&index) else { return };
        // Makes the attempt's own watch void.
        item.deadline = Some(now);
        let attempt = item.attempt;
        self.commands.push_back(Command::TimedOut { item: index, attempt, limit });
        self.deadlines.cancelled_now(index, attempt, now, now + self.settings.abandon_after);
    }

    /// Ends an item that waits for its next attempt.
    pub(super) fn reject(&mut self, index: ItemIndex, rejection: Rejection) {
        if let Some(item) = self.items.get_mut(&index)
            && !item.rejected
        {
            item.rejected = true;
            self.queues[item.queue as usize].undecided.retain(|other| *other != index);
            self.commands.push_back(Command::Reject { item: index, rejection });
        }
    }

    pub(super) fn reject_all(&mut self, stop: Stop) {
        self.standstill = Standstill::default();
        let rejection = Rejection::Stopped(stop);
        let mut waiting = self.retries.take(|_| true);
        for queue in &mut self.queues {
            waiting.extend(queue.take_waiting());
            queue.blocked = None;
            queue.expected.clear();
            queue.scope.step_aside(queue.member);
            while let Some(items) = queue.fresh.pop_range() {
                self.heads.forget(&items);
                self.commands.push_back(Command::RejectFresh { items, rejection });
            }
        }
        waiting.sort_unstable();
        for index in waiting {
            self.reject(index, rejection);
        }
        while self.intake.make_room() {
            self.commands.push_back(Command::Room);
        }
    }
}
