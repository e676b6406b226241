//! The run itself: what starts when, what is tried again, what waits, what is counted.
//!
//! Pure Rust on tokio's clock: no Python, no HTTP, no disk. [`scheduler`] holds every decision as a function of
//! the time and its own state; [`run`] adds the lock and the timer. Whoever executes attempts (the bridge, or a
//! test) implements [`Executor`].

pub mod adaptive;
pub mod backoff;
pub mod bound;
pub mod bucket;
pub mod commands;
pub mod cooldown;
pub mod guard;
pub mod lane;
pub mod outage;
pub mod outages;
pub mod output_length;
pub mod quota;
pub mod run;
pub mod scheduler;
pub mod scope;
pub mod settings;
pub mod slow_start;
pub mod standstill;
mod starting;
pub mod stats;
mod steering;
pub mod waits;
mod watch;

#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod outages_tests;
#[cfg(test)]
mod steering_tests;
#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use commands::{Command, Failure, Refusal, Refused, Verdict};
pub use run::{Executor, Run};
pub use settings::{Ramp, Settings};
pub use stats::{ItemReport, Stats, Usage};

/// An item's place in the order of submission of its run, from 0. The engine knows items by nothing else.
pub type ItemIndex = u64;

/// A source of numbers uniform in [0, 1). Injected, so that tests choose the jitter.
pub type UniformSource = Box<dyn FnMut() -> f64 + Send>;

/// A number of seconds from outside as a duration: negative and NaN become zero, the rest is cut at a century,
/// so that adding it to an instant cannot overflow.
pub fn seconds(value: f64) -> std::time::Duration {
    const CENTURY: f64 = 100.0 * 365.0 * 86_400.0;
    if value > 0.0 { std::time::Duration::from_secs_f64(value.min(CENTURY)) } else { std::time::Duration::ZERO }
}
