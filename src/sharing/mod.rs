//! Limits that processes share: of one host through a file that they all name, of several through a server.
//!
//! A [`table`] knows who holds which share, and parts the limits; it is pure, and takes the time as an argument. A
//! [`Board`] is a table that several processes can reach: in a [`file`](mod@file), in the [`memory`] of one process, behind a [`server`]
//! whose [`client`] the others have. A [`lease`] renews a process' share for as long as a run lasts, and sets it in the
//! engine's scope. Only the bridge calls this floor.

use std::io;

pub use crate::engine::share::{Demand, Share};
pub use jobs::{Report, Verdict};

pub mod client;
pub mod file;
pub mod jobs;
pub mod lease;
pub mod memory;
pub mod server;
pub mod table;
mod wire;

#[cfg(test)]
mod fleet_tests;

/// Where processes agree on their shares, and on jobs. It keeps the time: their clocks need not agree.
pub trait Board: Send + Sync {
    /// Renews the lease of `holder` on the limits of `scope`, or takes it. May block for a moment.
    ///
    /// # Errors
    /// When the board cannot be reached or used.
    fn renew(&self, scope: &str, holder: &str, demand: &Demand) -> io::Result<Share>;

    /// Takes the report of `holder`, who works on a job.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    fn report(&self, job: &str, holder: &str, report: Report) -> io::Result<Verdict>;

    /// Gives back the share of a scope, or what is left of a job's allowance.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    fn leave(&self, scope: &str, holder: &str) -> io::Result<()>;
}
