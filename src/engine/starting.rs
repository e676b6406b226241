//! Which attempt starts next, and why none does: the part of the scheduler that looks for work.

use tokio::time::Instant;

use super::bound::Bound;
use super::commands::{Command, Rejection};
use super::guard::{Affordable, Spending, Stop};
use super::item::{Item, Need};
use super::measure::Estimate;
use super::queue::{Expected, Head, Queue, QueueId};
use super::quota::Ticket;
use super::scheduler::Scheduler;
use super::scope::{Blocked, Cause};
use super::slow_start::Admission;
use super::standstill::Standstill;
use super::units::ItemIndex;
use super::waits::BlockedHead;

impl From<Cause> for Bound {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Quota(measure) => Self::Quota(measure),
            Cause::Concurrency => Self::Concurrency,
            Cause::Paced => Self::Pace,
            Cause::Paused => Self::Cooldown,
            Cause::Away => Self::Outage,
            Cause::Turn => Self::OtherRuns,
        }
    }
}

impl Scheduler {
    /// Starts what can start. Queues do not block each other: whoever is first in the order of all queues goes first,
    /// and a queue that has to wait is passed over.
    pub(super) fn start_ready(&mut self, now: Instant) {
        for queue in &mut self.queues {
            queue.blocked = None;
        }
        if self.heads.are_known() {
            self.hear_of_caches(now);
        }
        if self.paused {
            self.bound.set(Bound::Paused, now);
            self.standstill = Standstill::default();
            return;
        }
        let mut out_of_workers = false;
        while let Some(number) = self.next_or_opened(now) {
            if !self.try_queue(number, now) {
                out_of_workers = true;
                break;
            }
            if let Some(stop) = self.stopped {
                self.reject_all(stop);
                return;
            }
        }
        for queue in &self.queues {
            // Whoever does not wait for the scope itself must not block other runs that do.
            if !queue.blocked.is_some_and(|(_, bound)| bound.is_of_scope()) {
                queue.scope.step_aside(queue.member);
            }
            if let Some(seats) = &queue.scope.seats {
                let is_empty = queue.fresh.is_empty() && queue.ready.is_empty();
                seats.idles(queue.member, is_empty && !self.workers.are_busy() && !self.budget.has_caps());
            }
        }
        let blocked_items = self.queues.iter().find_map(|queue| queue.blocked).map(|(_, bound)| bound);
        let bound = match blocked_items {
            _ if out_of_workers && self.waits_for_store(true) => Bound::Store,
            _ if out_of_workers => Bound::Workers,
            Some(blocked_items) => blocked_items,
            None if self.waits_for_store(false) => Bound::Store,
            None if self.is_full => Bound::Consumer,
            None if self.awaits_caches() => Bound::PromptCache,
            None if self.between > 0 && self.in_flight == 0 => Bound::Tools,
            None if !self.items.is_empty() && self.retries.count() >= self.items.len() => Bound::Backoff,
            None if self.in_flight == 0 && self.queues.iter().any(Queue::pauses) => Bound::Cooldown,
            None if self.intake.is_open() => Bound::Source,
            None => Bound::LastItems,
        };
        self.bound.set(bound, now);
        self.watch_standstill(bound, now);
    }

    /// The queue whose head goes first among those that need not wait.
    pub(super) fn next_queue(&mut self, now: Instant) -> Option<usize> {
        // Nearly every run has one queue.
        let mut best = None;
        for (number, queue) in self.queues.iter_mut().enumerate() {
            if queue.blocked.is_some() {
                continue;
            }
            while queue.ready.front().is_some_and(|index| self.items.get(index).is_none_or(|item| item.rejected)) {
                queue.ready.pop_front();
            }
            if queue.ready.is_empty() && queue.outage.is_none() {
                queue.takes_turns = false;
            }
            // What was tried before holds its place already.
            let Some(head) = queue.head(self.is_full) else { continue };
            if !queue.cooldown.is_open() {
                queue.block(head.item, queue.cooldown.ends_at(), Bound::Cooldown, now);
            } else if best.is_none_or(|(first, _)| head < first) {
                best = Some((head, number));
            }
        }
        best.map(|(_, number)| number)
    }

    /// Starts the head of a queue, or notes why the queue has to wait. `false`: there is no worker for it.
    fn try_queue(&mut self, number: usize, now: Instant) -> bool {
        let queue = &mut self.queues[number];
        let Some(Head { fresh, item: index, .. }) = queue.head(self.is_full) else { return true };
        let known = if fresh { None } else { self.items.get(&index).map(|item| (item.worker, item.need)) };
        let kept = known.and_then(|(worker, _)| worker);
        if kept.is_none() && self.workers.are_busy() {
            if queue.blocked_head.is_some() {
                BlockedHead::note(&mut queue.blocked_head, index, Bound::Workers, now);
            }
            return false;
        }
        if kept.is_none()
            && let Some(ramp) = self.settings.ramp
        {
            let in_use = self.workers.busy() as u64;
            let (allowed, changes) = ramp.at(now.saturating_duration_since(self.began));
            if in_use >= allowed {
                queue.block(index, Some(self.began + changes), Bound::SlowStart, now);
                return true;
            }
        }
        if self.heads.are_known() && kept.is_none() && self.waits_for_cache(number, index, fresh, now) {
            return true;
        }
        let id = QueueId::try_from(number).unwrap_or(QueueId::MAX);
        if fresh && self.is_open_enough() {
            self.queues[number].block(index, None, Bound::Tools, now);
            return true;
        }
        let queue = &mut self.queues[number];
        if fresh {
            let wait = match queue.slow_start.admit(now) {
                Admission::Now => None,
                Admission::At(at) => Some(Some(at)),
                Admission::Ask(from) => {
                    self.commands.push_back(Command::AskSlowStart { queue: id, from });
                    Some(None)
                }
                Admission::Requested => Some(None),
            };
            if let Some(until) = wait {
                queue.block(index, until, Bound::SlowStart, now);
                return true;
            }
        }
        let need = match known {
            Some((_, need)) => need,
            None => match self.need(number, index) {
                Ok(need) => need,
                Err(Some(rejection)) => {
                    self.queues[number].fresh.pop();
                    self.make_room();
                    let items = index..index + 1;
                    self.heads.forget(&items);
                    self.commands.push_back(Command::RejectFresh { items, rejection });
                    return true;
                }
                Err(None) => {
                    self.queues[number].block(index, None, Bound::Estimates, now);
                    return true;
                }
            },
        };
        match self.admit(number, index, &need, now) {
            Ok(Some(ticket)) => {
                let Some(worker) = kept.or_else(|| self.workers.take()) else { return false };
                self.start(number, index, worker, need, ticket, now);
            }
            Ok(None) => {}
            Err(Blocked { until, cause }) => self.queues[number].block(index, until, cause.into(), now),
        }
        true
    }

    /// What the head of a queue is expected to use. An error: it will never start, or it is not known yet.
    fn need(&mut self, number: usize, index: ItemIndex) -> Result<Need, Option<Rejection>> {
        if !self.is_estimated(number) {
            return Ok(Need::default());
        }
        let queue = &mut self.queues[number];
        let items = queue.take_unestimated();
        if !items.is_empty() {
            self.commands.push_back(Command::Estimate { items });
        }
        let expected = match queue.expected.get(&index) {
            None | Some(Expected::Requested) => return Err(None),
            Some(expected) => *expected,
        };
        self.need_of(number, expected).map_err(|rejection| {
            self.queues[number].expected.remove(&index);
            Some(rejection)
        })
    }

    /// Whether what requests of a queue will use has to be known before they are sent.
    pub(super) fn is_estimated(&self, number: usize) -> bool {
        self.queues[number].scope.counts_tokens() || self.budget.has_caps()
    }

    /// What is needed for what is expected; an error: more than there will ever be, or nobody knows.
    pub(super) fn need_of(&self, number: usize, expected: Expected) -> Result<Need, Rejection> {
        let queue = &self.queues[number];
        let Expected::Estimate { requests, input, output, most_input, most_output, kind } = expected else {
            return Err(Rejection::NoEstimate);
        };
        let known = self.kinds.get(kind as usize);
        let output = output.unwrap_or_else(|| known.map_or(0.0, |kind| kind.length.expect()));
        let estimate = Estimate { requests, input, output };
        if let Err(too_large) = queue.scope.fits(estimate) {
            return Err(Rejection::TooLarge(too_large));
        }
        let (most_input, most_output) = (most_input.unwrap_or(input), most_output.unwrap_or(output));
        let price = known.and_then(|kind| kind.price);
        let most = Spending {
            tokens: most_input + most_output,
            cost: price.map_or(0.0, |price| price.at_most(most_input, most_output)),
        };
        Ok(Need { estimate, most, kind: Some(kind) })
    }

    /// Asks budget and scope for an attempt. `None`: it cannot start, and the queue knows why, or the run is over.
    fn admit(&mut self, number: usize, index: ItemIndex, need: &Need, now: Instant) -> Result<Option<Ticket>, Blocked> {
        if self.budget.has_caps() {
            match self.budget.reserve(need.most) {
                Affordable::Yes => {}
                Affordable::Later => {
                    self.queues[number].block(index, None, Bound::Budget, now);
                    return Ok(None);
                }
                Affordable::No => {
                    self.stop(Stop::Budget, false, now);
                    return Ok(None);
                }
            }
        }
        let queue = &self.queues[number];
        match queue.scope.admit(queue.member, need.estimate, now) {
            Ok(ticket) => Ok(Some(ticket)),
            Err(blocked_items) => {
                self.budget.cancel(need.most);
                Err(blocked_items)
            }
        }
    }

    fn start(&mut self, number: usize, index: ItemIndex, worker: u32, need: Need, ticket: Ticket, now: Instant) {
        let queue = &mut self.queues[number];
        let id = QueueId::try_from(number).unwrap_or(QueueId::MAX);
        let first = !self.items.contains_key(&index);
        queue.fresh_is_next = !first;
        let mut since = now;
        if first {
            since = queue.fresh.pop().map_or(now, |(_, accepted)| accepted);
            queue.expected.remove(&index);
            queue.slow_start.started(now);
            queue.in_work += 1;
        } else {
            queue.ready.pop_front();
        }
        let sent = queue.cooldown.generation();
        let item = self.items.entry(index).or_insert_with(|| Item::new(id, need, now));
        let retry = item.retry.take();
        let waits = BlockedHead::end(&mut queue.blocked_head, index, retry.map_or(since, |retry| retry.retry_at), now);
        let waits = retry.map_or(waits, |retry| retry.added_to(waits));
        item.attempt = item.attempt.saturating_add(1);
        item.attempt_since = now;
        item.worker = Some(worker);
        item.sent = sent;
        item.ticket = Some(ticket);
        self.in_flight += 1;
        queue.served.start(now.saturating_duration_since(self.began));
        item.reserved = if self.budget.has_caps() { need.most } else { Spending::default() };
        let (attempt, at) = (item.attempt, now.saturating_duration_since(self.began).as_secs_f32());
        let leads = self.heads.are_known() && self.begin_head(number, index, first, now);
        self.commands.push_back(Command::Start { item: index, attempt, worker, waits, at, leads });
        self.watch_time(index, now);
        if first {
            self.watch_end(index, now);
            self.make_room();
        }
    }

    /// Takes note of why nothing starts, and reports it when that has lasted.
    fn watch_standstill(&mut self, bound: Bound, now: Instant) {
        // An outage is reported when it begins.
        if self.in_flight > 0 || self.deferred.count > 0 || !matches!(bound, Bound::Cooldown | Bound::Quota(_)) {
            self.standstill = Standstill::default();
            return;
        }
        if !self.standstill.lasts(now) {
            return;
        }
        let mut blocked_items =
            self.queues.iter().filter(|queue| queue.blocked.is_some_and(|(_, other)| other == bound));
        let until = blocked_items.clone().filter_map(|queue| queue.blocked.and_then(|(until, _)| until)).min();
        let is_from_provider = match bound {
            // The user's own limits are no news to the user.
            Bound::Quota(measure) => blocked_items.any(|queue| {
                queue.scope.levels(now).iter().any(|(limit, learned, _)| *learned && limit.measure == measure)
            }),
            _ => true,
        };
        self.standstill.report(is_from_provider.then_some((bound, until)));
        if is_from_provider {
            let left = until.map(|until| until.saturating_duration_since(now));
            self.commands.push_back(Command::Standstill { bound, left });
        }
    }

    pub(super) fn make_room(&mut self) {
        if self.intake.make_room() {
            self.commands.push_back(Command::Room);
        }
    }
}
