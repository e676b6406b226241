//! Decides for a run: what starts when, what is retried, what waits, what is counted.
//!
//! No Python, no HTTP, no files. [`scheduler`] makes every decision as a function of the time and its own state;
//! [`run`] adds the lock and a timer on tokio's clock. Whoever executes attempts implements [`Executor`]: the
//! dispatcher, or a test. Every floor above may use this one; it uses none.

mod adaptive;
mod aside;
mod backoff;
mod bound;
mod bound_over_time;
mod bucket;
pub mod commands;
mod cooldown;
mod deadlines;
mod deferred;
mod deferring;
#[cfg(test)]
mod deferring_tests;
mod failures;
pub mod guard;
pub mod heads;
mod intake;
mod item;
pub mod measure;
mod meter;
pub mod outage;
mod outages;
mod output_length;
mod pace;
pub mod pool;
pub mod queue;
pub mod quota;
pub mod reports;
mod retries;
mod rounds;
pub mod run;
pub mod samples;
pub mod scheduler;
pub mod scope;
mod served;
mod settings;
pub mod share;
mod shared_scope;
mod slow_start;
mod standstill;
mod starting;
mod stats;
mod steering;
mod transfers;
#[cfg(test)]
mod transfers_tests;
mod units;
pub mod waits;
mod warming;
mod workers;

#[cfg(test)]
mod limits_testing;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod outages_tests;
#[cfg(test)]
mod rounds_tests;
#[cfg(test)]
mod scope_tests;
#[cfg(test)]
mod steering_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod warming_testing;
#[cfg(test)]
mod warming_tests;

pub use backoff::Backoff;
pub use bound::BoundOverTime;
pub use commands::{Command, Failure, Rejection, Verdict};
pub use run::{Executor, Run};
pub use settings::{Ramp, Settings};
pub use stats::{ItemReport, Stats, Usage};
pub use units::{ItemIndex, seconds};
