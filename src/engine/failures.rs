//! What follows from a failed attempt: whether and when its item is tried retry, and how long everybody pauses.

use std::time::Duration;

use tokio::time::Instant;

use super::adaptive::Signal;
use super::commands::{Command, Failure, Rejection, Verdict};
use super::item::Until;
use super::outage::{Loss, Sign};
use super::queue::QueueId;
use super::quota::Used;
use super::scheduler::Scheduler;
use super::scope::Control;
use super::stats::Usage;
use super::units::{ItemIndex, seconds};
use super::waits::PendingRetry;

/// How much later than `Retry-After`, or the end of a pause, somebody may come back: a share of the wait.
const RETURN_SPREAD: f64 = 0.1;
/// At most this.
const LONGEST_RETURN_SPREAD: Duration = Duration::from_secs(5);

/// A wait that the server requested, made longer by a random part: never early, and no two at the same instant.
pub(super) fn spread(at_least: Duration, uniform: f64) -> Duration {
    at_least + at_least.mul_f64(RETURN_SPREAD * uniform).min(LONGEST_RETURN_SPREAD)
}

impl Scheduler {
    /// The attempt failed. `sign`: what that says about whether the provider is there. `together`: how many items share
    /// a request, and so its failure. `usage`: of all attempts of the item so far, if the provider reported it.
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
        let used = match (usage.filter(|usage| *usage != item.reconciled), failure) {
            (Some(usage), _) => {
                let own = usage.minus(&item.reconciled);
                item.reconciled = usage;
                Used::Reported(own)
            }
            (None, Failure::RateLimit { .. } | Failure::Permanent) => Used::Rejected,
            (None, Failure::Retryable { .. } | Failure::Interrupted) => Used::Unknown,
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
        self.reconcile(index, used, signal, now);
        self.judge(index, failure, now)
    }

    /// Whether and when a failed item is tried retry.
    fn judge(&mut self, index: ItemIndex, failure: Failure, now: Instant) -> Verdict {
        let Some(item) = self.items.get_mut(&index) else { return Verdict::GiveUp };
        let queue = &mut self.queues[item.queue as usize];
        let mut is_paused = false;
        let wait = match failure {
            Failure::Permanent | Failure::Interrupted => return Verdict::GiveUp,
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
            Failure::RateLimit { at_least, has_retry_after } => {
                self.stats.rate_limits += 1;
                item.rate_limits += 1;
                if queue.scope.seats.is_some() {
                    // Whoever met the limit is not asked for a while; the others are.
                } else if self.settings.control != Control::Fixed {
                    // The scope has reduced its pace; only a `Retry-After` pauses everybody.
                    queue.scope.pause_until(now + at_least);
                } else if queue.cooldown.rate_limited(item.sent, at_least, now) {
                    self.commands.push_back(Command::AskCooldown {
                        queue: item.queue,
                        worker: item.worker.unwrap_or_default(),
                        consecutive: queue.cooldown.consecutive(),
                        has_retry_after,
                    });
                }
                if item.rate_limits > self.settings.max_rate_limit_retries {
                    return Verdict::GiveUp;
                }
                is_paused = !queue.cooldown.is_open();
                spread(at_least, (self.uniform)())
            }
        };
        // A single worker keeps its item, so that one item is done before the next begins; several give theirs
        // back, so that a few failing items do not idle the pool.
        let keeps = self.workers.limit() == 1;
        self.try_again(index, wait, if is_paused { Until::Resumed } else { Until::Due }, keeps, now)
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
            return Verdict::Rejected(Rejection::Stopped(stop));
        }
        if item.end.is_some_and(|end| end < now + wait) {
            return Verdict::Rejected(Rejection::ItemDeadline);
        }
        item.deadline = None;
        self.deferred.resolve(item);
        if !keeps_worker && let Some(worker) = item.worker.take() {
            self.workers.release(worker);
        }
        let queue = &mut self.queues[item.queue as usize];
        item.retry =
            Some(PendingRetry { failed_at: now, retry_at: now + wait, after_pause: matches!(until, Until::Resumed) });
        match until {
            Until::Resumed => queue.rate_limited.push(index),
            Until::Decided => queue.undecided.push(index),
            Until::Due if wait.is_zero() => self.make_ready(index),
            Until::Due => self.retries.add(index, now + wait),
        }
        Verdict::Retry
    }

    /// An item may start again. One that has kept its worker goes first: those behind it may wait for that very worker.
    pub(super) fn make_ready(&mut self, index: ItemIndex) {
        let Some(item) = self.items.get(&index) else { return };
        let ready = &mut self.queues[item.queue as usize].ready;
        if item.worker.is_some() {
            ready.push_front(index);
        } else {
            ready.push_back(index);
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

    #[allow(clippy::cast_precision_loss)]
    pub(super) fn end_cooldown(&mut self, number: usize, now: Instant) {
        let queue = &mut self.queues[number];
        let Some(lasted) = queue.cooldown.poll(now) else { return };
        queue.slow_start.resume(now);
        let id = QueueId::try_from(number).unwrap_or(QueueId::MAX);
        self.commands.push_back(Command::CooldownEnded { queue: id, lasted });
        self.commands.extend(queue.parked.drain(..).map(|item| Command::Resume { item }));
        // Nobody comes back at the same instant as another.
        let rate_limited = std::mem::take(&mut queue.rate_limited);
        let part =
            lasted.mul_f64(RETURN_SPREAD).min(LONGEST_RETURN_SPREAD).as_secs_f64() / rate_limited.len().max(1) as f64;
        for (number, index) in rate_limited.into_iter().enumerate() {
            let later = seconds(part * (number as f64 + (self.uniform)()));
            if let Some(retry) = self.items.get_mut(&index).and_then(|item| item.retry.as_mut()) {
                retry.retry_at = now + later;
            }
            self.retries.add(index, now + later);
        }
    }
}
