//! The only part that knows Python.
//!
//! Rules: tokio threads never touch a Python object, they leave messages in a [`mailbox`](crate::dispatch::mailbox); the event loop's thread
//! takes them. The engine speaks of items by index; their objects stay in Python's own containers, or in a
//! [`flight`] that shows them to the garbage collector. A single direct call of a native strategy ([`client`]) goes through
//! pyo3-async-runtimes.

pub mod attempt;
pub mod blank;
pub mod caller;
pub mod client;
pub mod convert;
pub mod errors;
pub mod flight;
pub mod journal;
pub mod json;
pub mod media;
pub mod messages;
pub mod prompt;
pub mod run;
pub mod runner;
pub mod runtime;
pub mod scope;
pub mod simulator;
pub mod timing;
