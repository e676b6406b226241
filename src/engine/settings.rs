//! What a run is told at its start.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::Backoff;

/// Settings of one run. The bridge validates user input before it builds one.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Items in work at the same time.
    pub max_workers: NonZeroUsize,
    /// Accepted items that have not started, at most; `None` = unbounded.
    pub max_queue: Option<NonZeroUsize>,
    /// Limit of one attempt, from its start or its last [`executing`](super::scheduler::Scheduler::executing) on;
    /// `None` = none.
    pub attempt_timeout: Option<Duration>,
    /// How long an attempt may ignore its cancellation before it is given up.
    pub abandon_after: Duration,
    /// Attempts of an item, the first included; rate limits do not count.
    pub max_attempts: u32,
    /// How often an item may be sent again after a rate limit.
    pub max_rate_limit_retries: u32,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Attempts per minute over all workers; `None` = unlimited.
    pub requests_per_minute: Option<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_workers: NonZeroUsize::MIN.saturating_add(4),
            max_queue: None,
            attempt_timeout: Some(Duration::from_secs(120)),
            abandon_after: Duration::from_secs(2),
            max_attempts: 3,
            max_rate_limit_retries: 20,
            backoff: Backoff::default(),
            requests_per_minute: None,
        }
    }
}
