//! The only floor that knows Python: the classes and functions of `batch_llm._core`. Python calls it; `lib.rs`
//! registers it.
//!
//! Rules: threads of tokio never touch a Python object, but for a [board](boards) that is one. They post messages to a [`mailbox`](crate::dispatch::mailbox),
//! and the event loop's thread takes them. The engine knows items by index; their objects stay in Python's own
//! containers, or in a [`flight`] that shows them to the garbage collector. A direct call of a native strategy outside
//! of a run ([`client`]) goes through pyo3-async-runtimes.

pub mod attempt;
pub mod batches;
pub mod blank;
pub mod boards;
pub mod call;
pub mod caller;
pub mod client;
pub mod clouds;
pub mod convert;
mod counts;
pub mod errors;
pub mod flight;
pub mod journal;
pub mod journal_view;
pub mod json;
pub mod listener;
pub mod media;
pub mod messages;
pub mod pool;
pub mod pool_trial;
pub mod prompt;
pub mod run;
pub mod runner;
pub mod runtime;
pub mod scope;
pub mod shelf;
mod simulated_batches;
pub mod simulator;
mod staging;
pub mod timing;
