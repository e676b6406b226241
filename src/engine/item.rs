//! What the scheduler knows of an item that has started and is not done.

use tokio::time::Instant;

use super::cooldown::Generation;
use super::guard::{Price, Spending};
use super::measure::Estimate;
use super::outage::Epoch;
use super::output_length::OutputLength;
use super::queue::QueueId;
use super::quota::Ticket;
use super::stats::Usage;
use super::waits::PendingRetry;

#[derive(Debug)]
pub struct Item {
    pub queue: QueueId,
    pub attempt: u32,
    /// When it started, and when its present attempt did.
    pub since: Instant,
    pub attempt_since: Instant,
    pub failures: u32,
    pub rate_limits: u32,
    /// The worker slot it holds; an item that waits for its next attempt holds none.
    pub worker: Option<u32>,
    pub sent: Generation,
    /// When the present attempt is over its time.
    pub deadline: Option<Instant>,
    /// What the present attempt has taken from its scope.
    pub ticket: Option<Ticket>,
    pub reserved: Spending,
    pub need: Need,
    /// When its time is over.
    pub end: Option<Instant>,
    /// Usage of earlier attempts, which has been reconciled.
    pub reconciled: Usage,
    /// Failures of which nobody knows whether they count: how many, and in which streak.
    pub lost: (u32, Epoch),
    /// Its end is decided: it was rejected while it waited, and whatever queue it is still in skips it; or its result is
    /// being written, and nothing else ends it.
    pub rejected: bool,
    /// While it waits for its next attempt.
    pub retry: Option<PendingRetry>,
    /// Whether its last request was answered, and its next one is not ready.
    pub is_between: bool,
    /// Whether it was deferred, and its result is being made.
    pub is_recalled: bool,
    /// Whether it is answered, and its result is being written.
    pub is_unwritten: bool,
    /// What the tokens of its present attempt cost, where that is not what its kind's do.
    pub price: Option<Box<Price>>,
}

impl Item {
    pub fn new(queue: QueueId, need: Need, now: Instant) -> Self {
        Self {
            queue,
            attempt: 0,
            since: now,
            attempt_since: now,
            failures: 0,
            rate_limits: 0,
            worker: None,
            sent: 0,
            deadline: None,
            ticket: None,
            reserved: Spending::default(),
            need,
            end: None,
            reconciled: Usage::default(),
            lost: (0, 0),
            rejected: false,
            retry: None,
            is_between: false,
            is_recalled: false,
            is_unwritten: false,
            price: None,
        }
    }
}

/// What an attempt of an item is expected to use.
#[derive(Debug, Clone, Copy, Default)]
pub struct Need {
    pub estimate: Estimate,
    pub most: Spending,
    /// Number of its kind, if it was estimated.
    pub kind: Option<u32>,
}

/// Items that are alike in length and price: those of one strategy.
#[derive(Debug)]
pub struct Kind {
    pub length: OutputLength,
    pub price: Option<Price>,
}

/// What an item waits for before its next attempt.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// Its backoff.
    Due,
    /// The end of a pause.
    Resumed,
    /// That it is known whether the provider is away.
    Decided,
}
