//! What a run does when its provider is away: the part of the scheduler that stands on [`outage`](super::outage).

use std::time::Duration;

use tokio::time::Instant;

use super::adaptive::Signal;
use super::commands::{Command, Rejection, Verdict};
use super::failures::spread;
use super::guard::Stop;
use super::item::{Item, Until};
use super::outage::{Evidence, Fate, LEAST_ITEMS, Loss, Sign, Standing, View};
use super::queue::{Queue, QueueId};
use super::quota::Used;
use super::scheduler::Scheduler;
use super::scope::Lost;
use super::units::ItemIndex;
use super::waits::PendingRetry;

/// How long a provider may be away.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// The same for one that has never answered: its address may be wrong.
pub const PATIENCE_WITH_A_STRANGER: Duration = Duration::from_secs(60);

impl Scheduler {
    fn heeds_outages(&self) -> bool {
        self.settings.outage_patience != Some(Duration::ZERO)
    }

    /// Reconciles an attempt that was lost. `None`: the run has no part in outages, or the attempt is over.
    pub(super) fn lose(
        &mut self,
        index: ItemIndex,
        used: Used,
        signal: Signal,
        loss: Loss,
        now: Instant,
    ) -> Option<Standing> {
        if !self.heeds_outages() {
            return None;
        }
        let item = self.items.get_mut(&index)?;
        let queue = &self.queues[item.queue as usize];
        let ticket = item.ticket.take()?;
        self.in_flight = self.in_flight.saturating_sub(1);
        let available = queue.in_work + queue.fresh.len();
        let is_known_alone = available == 1 && !queue.lived;
        let is_unreachable = loss.sign == Sign::Unreachable;
        let evidence = Evidence {
            who: (queue.member.number(), index),
            // One item by itself ends as it would: a small program is not to hang because of a wrong address.
            counts: !is_known_alone && (is_unreachable || item.failures == 0),
            available,
            // It was there, and now nobody listens: that is no item's doing.
            least: if is_unreachable && queue.lived { 1 } else { LEAST_ITEMS },
            together: loss.together.max(1),
            at_least: loss.at_least,
        };
        let standing = queue.scope.lose(&ticket, used, signal, &Lost { member: queue.member, evidence }, now);
        self.end_of_head(index, used, signal, now);
        self.reconcile_budget(index, used);
        Some(standing)
    }

    /// Counts failures of an item whose streak is over, or forgets them.
    pub(super) fn decide(&mut self, index: ItemIndex) {
        let Some(item) = self.items.get_mut(&index) else { return };
        let (count, epoch) = item.lost;
        if count == 0 {
            return;
        }
        match self.queues[item.queue as usize].scope.fate(epoch) {
            Fate::Open => {}
            Fate::Outage => item.lost = (0, 0),
            Fate::Counts => {
                item.failures += count;
                item.lost = (0, 0);
            }
        }
    }

    /// Whether and when an item that was lost is tried again.
    pub(super) fn judge_lost(
        &mut self,
        index: ItemIndex,
        standing: Standing,
        at_least: Duration,
        now: Instant,
    ) -> Verdict {
        let Some(item) = self.items.get_mut(&index) else { return Verdict::GiveUp };
        let number = item.queue as usize;
        let epoch = match standing {
            Standing::Away(epoch) => {
                item.lost = (1, epoch);
                if self.is_out_of_patience(number, now) {
                    return Verdict::Rejected(Rejection::Stopped(Stop::Outage));
                }
                // Behind the others, so that probes are not always of the same item; and each second one is of an
                // item that never failed.
                return self.try_again(index, Duration::ZERO, Until::Due, false, now);
            }
            Standing::Suspected(epoch) => epoch,
        };
        item.lost = (item.lost.0 + 1, epoch);
        let failures = item.failures + item.lost.0;
        let queue = &self.queues[number];
        let is_last = queue.fresh.is_empty() && queue.in_work <= queue.undecided.len() as u64 + 1;
        if failures >= self.settings.max_attempts {
            // The others will tell whether it is the item or the provider, if there are any.
            return match is_last {
                true => Verdict::GiveUp,
                false => self.try_again(index, Duration::ZERO, Until::Decided, false, now),
            };
        }
        let wait = self.settings.backoff.wait(failures, (self.uniform)()).max(spread(at_least, (self.uniform)()));
        // A single worker tries another item meanwhile, which tells more than the same one again.
        let keeps = self.workers.limit() == 1 && is_last;
        self.try_again(index, wait, Until::Due, keeps, now)
    }

    /// Takes note of what has become of outages, and acts upon it.
    pub(super) fn hear_of_outages(&mut self, now: Instant) {
        if !self.heeds_outages() {
            return;
        }
        for number in 0..self.queues.len() {
            let queue = &mut self.queues[number];
            let news = queue.scope.news();
            if news != queue.heard {
                queue.heard = news;
                let view = queue.scope.outage();
                self.change_outage(number, view, now);
                self.decide_undecided(number, now);
            }
            let queue = &self.queues[number];
            if !queue.undecided.is_empty() && queue.fresh.is_empty() && queue.in_work == queue.undecided.len() as u64 {
                // Nobody else is there to tell.
                for item in std::mem::take(&mut self.queues[number].undecided) {
                    self.commands.push_back(Command::GiveUp { item });
                }
            }
            if self.is_out_of_patience(number, now) {
                self.lose_patience(number, now);
            }
        }
    }

    fn change_outage(&mut self, number: usize, view: Option<View>, now: Instant) {
        let id = QueueId::try_from(number).unwrap_or(QueueId::MAX);
        let queue = &mut self.queues[number];
        let before = std::mem::replace(&mut queue.outage, view);
        if before.map(|view| view.epoch) == view.map(|view| view.epoch) {
            return;
        }
        queue.out_of_patience = false;
        if let Some(View { epoch, since, .. }) = before {
            let lasted = now.saturating_duration_since(since);
            self.commands.push_back(Command::OutageEnded { queue: id, lasted });
            self.end_backoffs(number, epoch, now);
        }
        if let Some(view) = view {
            let queue = &mut self.queues[number];
            (queue.takes_turns, queue.fresh_is_next) = (true, true);
            let (since, patience) = (now.saturating_duration_since(view.since), self.patience(&view));
            self.commands.push_back(Command::OutageBegan { queue: id, since, patience });
        }
    }

    /// Whoever waits because of an outage that is over need not wait any more.
    fn end_backoffs(&mut self, number: usize, epoch: u64, now: Instant) {
        let items = &self.items;
        let waited = |item: &Item| item.queue as usize == number && item.lost.0 > 0 && item.lost.1 == epoch;
        for index in self.retries.take(|index| items.get(&index).is_none_or(waited)) {
            let Some(item) = self.items.get_mut(&index) else { continue };
            if let Some(PendingRetry { retry_at, .. }) = &mut item.retry {
                *retry_at = now;
            }
            self.queues[number].ready.push_back(index);
        }
    }

    /// Ends those that have failed for good, or lets them try again, as far as that is known now.
    fn decide_undecided(&mut self, number: usize, now: Instant) {
        for index in std::mem::take(&mut self.queues[number].undecided) {
            let Some(item) = self.items.get_mut(&index) else { continue };
            let queue = &mut self.queues[number];
            match queue.scope.fate(item.lost.1) {
                Fate::Open => queue.undecided.push(index),
                Fate::Counts => self.commands.push_back(Command::GiveUp { item: index }),
                Fate::Outage => {
                    if let Some(PendingRetry { retry_at, .. }) = &mut item.retry {
                        *retry_at = now;
                    }
                    queue.ready.push_back(index);
                }
            }
        }
    }

    fn patience(&self, view: &View) -> Duration {
        let usual = if view.lived { PATIENCE } else { PATIENCE_WITH_A_STRANGER };
        self.settings.outage_patience.unwrap_or(usual)
    }

    /// When an outage will have lasted for too long.
    pub(super) fn patience_ends(&self, queue: &Queue) -> Option<Instant> {
        let waits = queue.in_work > 0 || !queue.fresh.is_empty();
        let view = queue.outage.filter(|_| waits && !queue.out_of_patience && self.stopped.is_none())?;
        // Whoever comes into an outage has patience of its own.
        Some(view.since.max(queue.began) + self.patience(&view))
    }

    fn is_out_of_patience(&self, number: usize, now: Instant) -> bool {
        let queue = &self.queues[number];
        queue.out_of_patience || self.patience_ends(queue).is_some_and(|end| end <= now)
    }

    /// Ends the run, or, if others of its providers are there, those that wait for this one.
    fn lose_patience(&mut self, number: usize, now: Instant) {
        if self.stopped.is_some() {
            return;
        }
        let others = (0..self.queues.len()).any(|other| {
            let queue = &self.queues[other];
            let has_work = queue.in_work > 0 || !queue.fresh.is_empty();
            other != number && has_work && !self.is_out_of_patience(other, now)
        });
        if !others && self.settings.outage_ends_run {
            self.stop(Stop::Outage, self.settings.cancel_on_stop, now);
            return;
        }
        let rejection = Rejection::Stopped(Stop::Outage);
        let was_refused = std::mem::replace(&mut self.queues[number].out_of_patience, true);
        let items = &self.items;
        let is_of_queue = |index| items.get(&index).is_some_and(|item: &Item| item.queue as usize == number);
        let mut waiting = self.retries.take(is_of_queue);
        let queue = &mut self.queues[number];
        waiting.extend(queue.take_waiting());
        // Of what comes later now and then one is tried, or nobody would ever hear that the provider is back.
        let probe = queue.fresh.first().filter(|_| was_refused && queue.scope.may_probe(now));
        let mut room = 0;
        while let Some(items) = queue.fresh.pop_range() {
            let parts = match probe {
                Some((_, probe)) if items.contains(&probe) => [items.start..probe, probe + 1..items.end],
                _ => [items, 0..0],
            };
            for items in parts.into_iter().filter(|items| !items.is_empty()) {
                room += items.end - items.start;
                queue.expected.retain(|item, _| !items.contains(item));
                self.heads.forget(&items);
                self.commands.push_back(Command::RejectFresh { items, rejection });
            }
        }
        if let Some((priority, item)) = probe {
            queue.fresh.push(priority, item..item + 1, now);
        }
        waiting.sort_unstable();
        for index in waiting {
            self.reject(index, rejection);
        }
        for _ in 0..room {
            self.make_room();
        }
    }
}
