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
pub mod units;
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
pub use units::{ItemIndex, UniformSource, seconds};
