//! Items that change their queue: a request that was to wait in a batch is sent by itself instead.
//!
//! Attempts that take hours have a queue of their own, in which nothing bounds them: no limit, no timeout, no outage.
//! Most of them are [deferred](super::deferring).

use std::sync::Arc;

use tokio::time::Instant;

use super::adaptive::Signal;
use super::commands::Rejection;
use super::queue::{Expected, Queue, QueueId};
use super::quota::Used;
use super::scheduler::Scheduler;
use super::scope::{Control, Scope};
use super::units::ItemIndex;
use super::waits::PendingRetry;

impl Scheduler {
    /// A queue for attempts that nothing bounds.
    pub fn add_unbounded_queue(&mut self, now: Instant) -> QueueId {
        let scope: Arc<Scope> = Arc::default();
        let member = scope.join(Arc::clone(&self.wake), &[], None, Control::Fixed, now);
        scope.ignore_outages(member);
        self.queues.push(Queue { is_unbounded: true, ..Queue::new(scope, member, now) });
        QueueId::try_from(self.queues.len() - 1).unwrap_or(QueueId::MAX)
    }

    /// An item whose attempt had no effect goes to another queue, among those that start next. `expected`: what its
    /// request will use there; `None`: as much as before.
    ///
    /// # Errors
    /// Why it will not be sent; the item ends.
    pub fn transfer(
        &mut self,
        index: ItemIndex,
        to: QueueId,
        expected: Option<Expected>,
        now: Instant,
    ) -> Result<(), Option<Rejection>> {
        self.reconcile(index, Used::NotSent, Signal::None, now);
        let Some(item) = self.items.get_mut(&index) else { return Err(None) };
        if item.rejected {
            return Err(None); // a command says so
        }
        if let Some(stop) = self.stopped {
            return Err(Some(Rejection::Stopped(stop)));
        }
        if item.end.is_some_and(|end| end < now) {
            return Err(Some(Rejection::ItemDeadline));
        }
        let from = std::mem::replace(&mut item.queue, to) as usize;
        item.deadline = None;
        self.deferred.resolve(item);
        item.retry = Some(PendingRetry { failed_at: now, retry_at: now, after_pause: false });
        if let Some(worker) = item.worker.take() {
            self.workers.release(worker);
        }
        self.queues[from].in_work = self.queues[from].in_work.saturating_sub(1);
        self.queues[to as usize].in_work += 1;
        if let Some(expected) = expected
            && self.is_estimated(to as usize)
        {
            let need = self.need_of(to as usize, expected).map_err(Some)?;
            if let Some(item) = self.items.get_mut(&index) {
                item.need = need;
            }
        }
        self.make_ready(index);
        Ok(())
    }
}
