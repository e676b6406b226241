//! The run itself: what starts when, what is tried again, what waits, what is counted.
//!
//! Pure Rust on tokio's clock: no Python, no HTTP, no disk. [`scheduler`] holds every decision as a function of
//! the time and its own state; [`run`] adds the lock and the timer. Whoever executes attempts (the bridge, or a
//! test) implements [`Executor`].

mod adaptive;
mod backoff;
mod bound;
mod bucket;
pub mod commands;
mod cooldown;
mod deadlines;
mod failures;
pub mod guard;
mod intake;
mod item;
pub mod outage;
mod outages;
mod output_length;
pub mod queue;
pub mod quota;
mod retries;
pub mod run;
pub mod scheduler;
pub mod scope;
mod settings;
mod slow_start;
mod standstill;
mod starting;
mod stats;
mod steering;
mod units;
pub mod waits;
mod workers;

#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod outages_tests;
#[cfg(test)]
mod steering_tests;
#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use commands::{Command, Failure, Rejection, Verdict};
pub use run::{Executor, Run};
pub use settings::{Ramp, Settings};
pub use stats::{ItemReport, Usage};
pub use units::{ItemIndex, seconds};
