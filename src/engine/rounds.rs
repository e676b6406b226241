//! Items of several requests: what happens between one round of a conversation and the next.
//!
//! Each round is a request with its own estimate, retries and timeout. Between two rounds, while tools work, an item
//! holds neither a worker nor anything of its scope, so other items use both. Items whose next round is ready go before
//! those that have not started, so that conversations that have begun also end.

use tokio::time::Instant;

use super::adaptive::Signal;
use super::commands::Rejection;
use super::queue::Expected;
use super::quota::Used;
use super::scheduler::Scheduler;
use super::stats::Usage;
use super::units::ItemIndex;
use super::waits::PendingRetry;

/// At least so many items may be between two rounds before no further item starts, however few workers there are.
const LEAST_OPEN: usize = 64;
/// And at least so many for each worker: while their tools work, workers have something to do.
const OPEN_PER_WORKER: usize = 4;

impl Scheduler {
    /// The item's request was answered, and the item goes on later: its worker is free until
    /// [`next_round`](Self::next_round). `usage`: of all requests of the item so far, if it was reported.
    pub fn end_round(&mut self, index: ItemIndex, usage: Option<Usage>, now: Instant) {
        let Some(item) = self.items.get_mut(&index) else { return };
        let used = match usage {
            Some(usage) => {
                let own = usage.minus(&item.reconciled);
                item.reconciled = usage;
                Used::Reported(own)
            }
            None => Used::Unknown,
        };
        // Retries are counted for each request.
        (item.failures, item.rate_limits, item.lost) = (0, 0, (0, 0));
        item.deadline = None;
        if !std::mem::replace(&mut item.is_between, true) {
            self.between += 1;
        }
        if let Some(worker) = item.worker.take() {
            self.workers.release(worker);
        }
        // Without a ticket nothing was sent: the reply was known.
        if item.ticket.is_some() {
            self.queues[item.queue as usize].cooldown.succeeded(item.sent);
            self.reconcile(index, used, Signal::Succeeded, now);
        }
    }

    /// The item's next request is ready to be sent. `expected`: what it will use; `None`: as much as the one before.
    ///
    /// # Errors
    /// Why it will not be sent; the item ends.
    pub fn next_round(
        &mut self,
        index: ItemIndex,
        expected: Option<Expected>,
        now: Instant,
    ) -> Result<(), Option<Rejection>> {
        let Some(item) = self.items.get(&index) else { return Err(None) };
        if item.rejected {
            return Err(None); // a command says so
        }
        if let Some(stop) = self.stopped {
            return Err(Some(Rejection::Stopped(stop)));
        }
        if item.end.is_some_and(|end| end < now) {
            return Err(Some(Rejection::ItemDeadline));
        }
        let number = item.queue as usize;
        let need = match expected {
            Some(expected) if self.is_estimated(number) => self.need_of(number, expected).map_err(Some)?,
            _ => item.need,
        };
        self.leave_between(index);
        let Some(item) = self.items.get_mut(&index) else { return Err(None) };
        item.need = need;
        item.retry = Some(PendingRetry { failed_at: now, retry_at: now, after_pause: false });
        self.make_ready(index);
        Ok(())
    }

    /// The item is no longer between two rounds.
    pub(super) fn leave_between(&mut self, index: ItemIndex) {
        if let Some(item) = self.items.get_mut(&index)
            && std::mem::take(&mut item.is_between)
        {
            self.between = self.between.saturating_sub(1);
        }
    }

    /// Whether so many items are between two rounds that no further item starts: each holds its conversation in memory.
    pub(super) fn is_open_enough(&self) -> bool {
        self.between >= LEAST_OPEN.max(self.workers.limit().saturating_mul(OPEN_PER_WORKER))
    }

    /// Items between two rounds, in order.
    pub(super) fn between_rounds(&self) -> Vec<ItemIndex> {
        let mut between: Vec<ItemIndex> = match self.between {
            0 => Vec::new(),
            _ => self.items.iter().filter(|(_, item)| item.is_between).map(|(index, _)| *index).collect(),
        };
        between.sort_unstable();
        between
    }
}
