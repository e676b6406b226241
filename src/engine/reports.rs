//! What a run shows of itself: counters, gauges, what limits it, and samples for a forecast.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bound::{Bound, BoundBy};
use super::guard::Budget;
use super::queue::Queue;
use super::samples::{Sample, Samples};
use super::scheduler::Scheduler;
use super::scope::Scope;
use super::stats::{Stats, Usage};
use super::units::ItemIndex;

/// What is going on in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauges {
    /// Items that have not started.
    pub queued: u64,
    /// Attempts in flight, those included that wait elsewhere.
    pub in_flight: usize,
    /// Items that wait for their next attempt.
    pub retrying: usize,
    /// What is left of the pause after a rate limit.
    pub cooldown: Duration,
    /// For how long the provider, or one of several, has been away.
    pub outage: Option<Duration>,
    /// What has blocked everything for a while, and for how long yet, if that is known.
    pub standstill: Option<(Bound, Option<Duration>)>,
}

impl Scheduler {
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
            in_flight: self.in_flight + usize::try_from(self.deferred.count).unwrap_or(usize::MAX),
            retrying: self.items.len().saturating_sub(self.in_flight + self.between),
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

    /// Finished items, evenly spaced over the run.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Items that have started and are not done.
    pub fn in_work(&self) -> u64 {
        self.items.len() as u64
    }

    /// How long the run has been on.
    pub fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// Attempts of each queue, and for how long they have been in flight in all.
    pub fn served(&self, now: Instant) -> Vec<(u64, Duration)> {
        let at = self.elapsed(now);
        self.queues.iter().map(|queue| queue.served.total(at)).collect()
    }

    /// An item is done that has used this.
    pub(super) fn sample(&mut self, index: ItemIndex, own: Usage, now: Instant) {
        // Few are kept: the others cost a comparison.
        if !self.samples.count() {
            return;
        }
        let Some(item) = self.items.get(&index) else { return };
        let took = now.saturating_duration_since(item.since);
        let at = self.elapsed(now);
        let in_work = self.in_work().saturating_sub(1);
        let (used, spent) = (self.stats.usage, self.budget.spent().cost);
        self.samples.keep(Sample { at, done: self.samples.done(), in_work, used, spent, took, own });
    }

    /// The item is answered, and its result is being written.
    pub fn await_store(&mut self, index: ItemIndex) {
        if let Some(item) = self.items.get_mut(&index) {
            self.unwritten += usize::from(!std::mem::replace(&mut item.is_unwritten, true));
        }
    }

    /// Whether nothing more starts because results have to be written first: no worker is free and most of them wait
    /// for that, or nothing else is to be done.
    pub(super) fn waits_for_store(&self, out_of_workers: bool) -> bool {
        match out_of_workers {
            true => self.unwritten * 2 > self.workers.busy(),
            false => self.unwritten > 0 && self.unwritten == self.items.len(),
        }
    }
}
