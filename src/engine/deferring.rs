//! How items become [`deferred`](super::deferred), and how they come back.

use tokio::time::Instant;

use super::adaptive::Signal;
use super::commands::{Command, Limit};
use super::guard::Spending;
use super::item::{Item, Need};
use super::queue::{Priority, QueueId};
use super::quota::Used;
use super::scheduler::Scheduler;
use super::units::ItemIndex;

/// Items that were given back and are not done, at most: what is in memory of each is a reply, and what becomes of it.
const MOST_RECALLED: usize = 1024;

impl Scheduler {
    /// The request of an item waits elsewhere from now on, and its worker is free. [`recall`](Self::recall) or
    /// [`requeue`](Self::requeue) follows. `false`: not of this item, for there is more to remember of it than that it is.
    pub fn defer(&mut self, index: ItemIndex, now: Instant) -> bool {
        let Some(item) = self.items.get_mut(&index) else { return false };
        let is_usual = item.attempt == 1 && item.end.is_none() && item.ticket.is_some() && !item.rejected;
        if !is_usual || self.cancelled || !self.queues[item.queue as usize].is_unbounded {
            return false;
        }
        // It stays reserved.
        let is_reserved = std::mem::take(&mut item.reserved) != Spending::default();
        let need = item.need;
        self.reconcile(index, Used::NotSent, Signal::None, now);
        if let Some(mut item) = self.items.remove(&index) {
            self.deferred.resolve(&mut item);
            item.worker.into_iter().for_each(|worker| self.workers.release(worker));
        }
        if is_reserved {
            self.deferred.needs.insert(index, need);
        }
        self.deferred.count += 1;
        true
    }

    /// What became of a deferred item's request is there: the item is in work again. If the run was cancelled meanwhile, it
    /// is over its time.
    pub fn recall(&mut self, index: ItemIndex, now: Instant) {
        let Some((number, need)) = self.take_back(index) else { return };
        let queue = &self.queues[number];
        let mut item = Item::new(QueueId::try_from(number).unwrap_or(QueueId::MAX), need.unwrap_or_default(), now);
        (item.attempt, item.is_recalled) = (1, true);
        item.reserved = need.map(|need| need.most).unwrap_or_default();
        item.ticket = queue.scope.admit(queue.member, item.need.estimate, now).ok();
        self.in_flight += usize::from(item.ticket.is_some());
        if item.ticket.is_some() {
            self.queues[number].served.start(now.saturating_duration_since(self.began));
        }
        self.deferred.recalled += 1;
        self.items.insert(index, item);
        if self.cancelled
            && let Some(stop) = self.stopped
        {
            self.time_out(index, Limit::Run(stop), now);
        }
    }

    /// A deferred item came back without an answer, and without having been an attempt: it starts anew, after those with
    /// its priority.
    pub fn requeue(&mut self, index: ItemIndex, priority: Priority, now: Instant) {
        let Some((number, need)) = self.take_back(index) else { return };
        if let Some(need) = need {
            self.budget.cancel(need.most);
        }
        let queue = &mut self.queues[number];
        queue.in_work = queue.in_work.saturating_sub(1);
        queue.fresh.push(priority, index..index + 1, now);
    }

    fn take_back(&mut self, index: ItemIndex) -> Option<(usize, Option<Need>)> {
        self.deferred.count = self.deferred.count.checked_sub(1)?;
        let number = self.queues.iter().position(|queue| queue.is_unbounded)?;
        Some((number, self.deferred.needs.remove(&index)))
    }

    /// Whether there is room for items to be given back; if not, [`Command::TakesBack`] says when there is.
    pub fn takes_back(&mut self) -> bool {
        let takes_back = self.holds_fewer(MOST_RECALLED);
        self.deferred.is_awaited |= !takes_back;
        takes_back
    }

    pub(super) fn tell_of_room(&mut self) {
        if self.deferred.is_awaited && self.holds_fewer(MOST_RECALLED / 2) {
            self.deferred.is_awaited = false;
            self.commands.push_back(Command::TakesBack);
        }
    }

    /// Whether fewer items than this are in memory again, and somebody takes their results.
    fn holds_fewer(&self, most: usize) -> bool {
        self.deferred.recalled < most && (!self.is_full || self.cancelled)
    }
}
