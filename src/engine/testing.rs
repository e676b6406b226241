//! A run whose events a test tells second by second, for tests that check one command after the other.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::scheduler::Scheduler;
use super::stats::Usage;
use super::*;

pub const SECOND: Duration = Duration::from_secs(1);

/// A run of items that nothing is known of.
pub struct Scripted {
    pub scheduler: Scheduler,
    start: Instant,
}

impl Scripted {
    pub fn new(settings: Settings, items: u64) -> Self {
        let start = Instant::now();
        let mut scheduler = Scheduler::new(settings, Box::new(|| 0.5), Arc::new(|| ()), start);
        scheduler.accept(0, 0, items, start);
        Self { scheduler, start }
    }

    /// The time so many seconds after the start.
    pub fn at(&self, seconds: u32) -> Instant {
        self.start + SECOND * seconds
    }

    /// What is to be done then.
    pub fn commands(&mut self, seconds: u32) -> Vec<Command> {
        let now = self.at(seconds);
        self.scheduler.advance(now);
        std::iter::from_fn(|| self.scheduler.next_command()).collect()
    }

    /// The attempts that start then: items, and the numbers of their attempts.
    pub fn attempts(&mut self, seconds: u32) -> Vec<(ItemIndex, u32)> {
        let start = |c| if let Command::Start { item, attempt, .. } = c { Some((item, attempt)) } else { None };
        self.commands(seconds).into_iter().filter_map(start).collect()
    }

    /// The items that start then.
    pub fn starts(&mut self, seconds: u32) -> Vec<ItemIndex> {
        self.attempts(seconds).into_iter().map(|(item, _)| item).collect()
    }

    /// A request of a conversation has used so many tokens, and tools run.
    pub fn end_round(&mut self, item: ItemIndex, total: u64, seconds: u32) {
        let now = self.at(seconds);
        self.scheduler.end_round(item, Some(tokens(total)), now);
    }

    /// The conversation goes on, with a request that nothing is known of.
    pub fn next_round(&mut self, item: ItemIndex, seconds: u32) -> Result<(), Option<Rejection>> {
        let now = self.at(seconds);
        self.scheduler.next_round(item, None, now)
    }

    /// The item has succeeded, and has used so many tokens in all.
    pub fn done(&mut self, item: ItemIndex, total: u64, seconds: u32) {
        let now = self.at(seconds);
        let report = ItemReport { success: true, error: None, usage: tokens(total), reported: total > 0 };
        self.scheduler.record(item, report, now);
        self.scheduler.release(item, now);
    }
}

fn tokens(total: u64) -> Usage {
    Usage { input: total, total, ..Usage::default() }
}

/// So many workers, and a backoff of 1, 2, 4, ... seconds.
pub fn settings(workers: usize) -> Settings {
    let backoff = Backoff { initial: 1.0, max: 60.0, base: 2.0, jitter: false };
    Settings { max_workers: workers.try_into().expect("more than none"), backoff, ..Settings::default() }
}
