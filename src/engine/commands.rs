//! Commands to whoever executes attempts, and reports of how attempts end.

use std::ops::Range;
use std::time::Duration;

use super::bound::Bound;
use super::guard::Stop;
use super::queue::QueueId;
use super::quota::TooLarge;
use super::units::ItemIndex;
use super::waits::Waits;

/// A command to whoever executes attempts.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Begin an attempt (numbered from 1) as worker `worker`.
    Start {
        /// The item.
        item: ItemIndex,
        /// Number of this attempt.
        attempt: u32,
        /// The worker slot, from 0.
        worker: u32,
        /// What the item has waited for since its last attempt, or since it was accepted.
        waits: Waits,
        /// When, since the beginning of the run, seconds.
        at: f32,
        /// Whether others wait until the provider's prompt cache has what this one begins with: report
        /// [`Scheduler::readable`](super::scheduler::Scheduler::readable) as soon as that is known.
        leads: bool,
    },
    /// The attempt that had to wait in [`Scheduler::executing`](super::scheduler::Scheduler::executing) may call it
    /// again.
    Resume {
        /// The item.
        item: ItemIndex,
    },
    /// The attempt is over its time: cancel it.
    TimedOut {
        /// The item.
        item: ItemIndex,
        /// The attempt that is meant; a later one is not.
        attempt: u32,
        /// Whose time is over.
        limit: Limit,
    },
    /// The attempt was cancelled and does not react: go on without it.
    Abandon {
        /// The item.
        item: ItemIndex,
        /// The attempt that is meant.
        attempt: u32,
    },
    /// An item that waits for its next attempt will not get it: end it.
    Reject {
        /// The item.
        item: ItemIndex,
        /// Why.
        rejection: Rejection,
    },
    /// An item that waited after its last attempt, until it was known whether the provider is away, has failed:
    /// end it with that failure.
    GiveUp {
        /// The item.
        item: ItemIndex,
    },
    /// Items that have not started never will: end them with
    /// [`Scheduler::record_rejected`](super::scheduler::Scheduler::record_rejected).
    RejectFresh {
        /// The items.
        items: Range<ItemIndex>,
        /// Why.
        rejection: Rejection,
    },
    /// Answer with [`Scheduler::expect`](super::scheduler::Scheduler::expect) for each of these items.
    Estimate {
        /// The items, in the order in which they will start.
        items: Vec<ItemIndex>,
    },
    /// A cooldown begins: answer with [`Scheduler::decide_cooldown`](super::scheduler::Scheduler::decide_cooldown).
    AskCooldown {
        /// The queue that pauses.
        queue: QueueId,
        /// The worker that met the rate limit.
        worker: u32,
        /// Cooldowns since the last success, this one included.
        consecutive: u32,
        /// Whether the server reported how long.
        has_retry_after: bool,
    },
    /// Answer with [`Scheduler::extend_slow_start`](super::scheduler::Scheduler::extend_slow_start), from delay number
    /// `from` on.
    AskSlowStart {
        /// The queue that pauses.
        queue: QueueId,
        /// Number of the first delay wanted.
        from: u64,
    },
    /// A cooldown is over, this long after the rate limit that began it.
    CooldownEnded {
        /// The queue that paused.
        queue: QueueId,
        /// Its real length.
        lasted: Duration,
    },
    /// The provider is away: one probe at a time is sent.
    OutageBegan {
        /// The queue that waits.
        queue: QueueId,
        /// Since the first failure.
        since: Duration,
        /// From then on until nobody waits any more.
        patience: Duration,
    },
    /// The provider answers again.
    OutageEnded {
        /// The queue that waited.
        queue: QueueId,
        /// From the first failure to the first answer.
        lasted: Duration,
    },
    /// Nothing has gone on for a while, because the provider wants it so.
    Standstill {
        /// What is waited for.
        bound: Bound,
        /// For how long yet, if that is known.
        left: Option<Duration>,
    },
    /// The run will end early: nothing more starts.
    Stopped {
        /// Why.
        stop: Stop,
    },
    /// Give all deferred items back with [`Scheduler::recall`](super::scheduler::Scheduler::recall): the run is cancelled.
    Recall,
    /// There is room again for deferred items: see [`Scheduler::takes_back`](super::scheduler::Scheduler::takes_back).
    TakesBack,
    /// One of those whose [`Scheduler::offer`](super::scheduler::Scheduler::offer) was rejected may try again.
    Room,
    /// Every accepted item is done. Items offered later make the run go on.
    Drained,
}

/// How an attempt was started: what [`Command::Start`] says of it apart from the item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StartedAttempt {
    /// The worker slot, from 0.
    pub worker: u32,
    /// What the item has waited for since its last attempt, or since it was accepted.
    pub waits: Waits,
    /// When, since the beginning of the run, seconds.
    pub at: f32,
}

/// Whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The attempt's.
    Attempt,
    /// The item's, all its attempts and waits included.
    Item,
    /// The run's, or the run was stopped for another reason.
    Run(Stop),
    /// Nobody wants the item any more.
    Cancelled,
}

/// Why an item does not start (again).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rejection {
    /// By itself it needs more than a limit allows.
    TooLarge(TooLarge),
    /// Its use of tokens could not be estimated.
    NoEstimate,
    /// Its time is over.
    ItemDeadline,
    /// The run was stopped.
    Stopped(Stop),
    /// Nobody wants it any more.
    Cancelled,
}

/// What is to be done with an item after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// The scheduler will start it again; its worker is free.
    Retry,
    /// It ends here: [`Scheduler::record`](super::scheduler::Scheduler::record) and
    /// [`Scheduler::release`](super::scheduler::Scheduler::release) must follow.
    GiveUp,
    /// The same, although another attempt might have helped.
    Rejected(Rejection),
}

/// A failed attempt, as its error was classified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Trying again is useless.
    Permanent,
    /// It was interrupted, and is not to be retried. What it used by then nobody knows.
    Interrupted,
    /// Try again after the backoff, and not before `at_least`.
    Retryable {
        /// Whether to wait at all: an answer that merely did not validate is retried at once.
        backoff: bool,
        /// The server's `Retry-After`.
        at_least: Duration,
        /// Whether the provider is overloaded, whatever was requested.
        overload: bool,
    },
    /// Everybody pauses, then try again; does not use up an attempt.
    RateLimit {
        /// The server's `Retry-After`.
        at_least: Duration,
        /// Whether there was one.
        has_retry_after: bool,
    },
}

/// Why an offered item was not accepted: the queue is full. A [`Command::Room`] will follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct QueueFull;
