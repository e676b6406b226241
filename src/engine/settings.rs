//! The settings of a run.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::backoff::Backoff;
use super::guard::Caps;
use super::measure::Limit;
use super::scope::Control;

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
    /// Limits of each scope of the run.
    pub limits: Vec<Limit>,
    /// Seconds' worth of a limit that may pass at once; `None` = ten.
    pub burst: Option<f64>,
    /// What scopes find out by themselves. If anything, a rate limit reduces the pace and does not pause everybody,
    /// unless the server says so.
    pub control: Control,
    /// Attempts in flight in each scope, at most, where workers do not bound them; needs a control.
    pub most_in_flight: Option<u32>,
    /// A slow beginning.
    pub ramp: Option<Ramp>,
    /// Limit of an item, from its first start on, all waits included; `None` = none.
    pub item_timeout: Option<Duration>,
    /// Limit of the run, from its beginning on; `None` = none.
    pub run_timeout: Option<Duration>,
    /// Whether attempts in flight when the run's time is over are cancelled rather than awaited.
    pub cancel_on_stop: bool,
    /// What may be spent.
    pub caps: Caps,
    /// How long a provider may be away; `None`: [`outages::PATIENCE`](super::outages::PATIENCE), and less for one that
    /// has never answered. Zero: a failure is a failure, whoever else fails.
    pub outage_patience: Option<Duration>,
    /// Whether a longer outage ends the run, or only those who wait.
    pub outage_ends_run: bool,
}

/// A slow beginning: so many attempts at once, then more after each interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ramp {
    /// Attempts at once at the beginning.
    pub initial: u64,
    /// How many more after each interval.
    pub step: u64,
    /// Length of an interval.
    pub every: Duration,
}

impl Ramp {
    /// How many at once after that time, and when that changes.
    pub fn at(&self, elapsed: Duration) -> (u64, Duration) {
        let every = self.every.max(Duration::from_millis(1));
        let steps = u32::try_from(elapsed.as_nanos() / every.as_nanos()).unwrap_or(u32::MAX);
        let next = every.saturating_mul(steps.saturating_add(1));
        (self.initial.saturating_add(self.step.saturating_mul(u64::from(steps))), next)
    }
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
            limits: Vec::new(),
            burst: None,
            control: Control::Fixed,
            most_in_flight: None,
            ramp: None,
            item_timeout: None,
            run_timeout: None,
            cancel_on_stop: false,
            caps: Caps::default(),
            outage_patience: None,
            outage_ends_run: true,
        }
    }
}
