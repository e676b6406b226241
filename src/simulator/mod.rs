//! A provider that answers on this machine, for tests, demos and benchmarks: real HTTP, deterministic replies,
//! faults on schedule. Binds to the loopback address only.

mod chat;
mod faults;
mod server;

pub use faults::Fault;
pub use server::{Behaviour, Counts, Simulator};
