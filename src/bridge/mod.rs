//! The only part that knows Python.
//!
//! Rules: tokio threads never touch a Python object, they leave messages in a [`mailbox`](crate::mailbox); the event loop's thread
//! takes them. No Python object is kept in Rust: an item is an index, and its objects stay in Python's own
//! containers, where the garbage collector sees them. The one exception is a single direct call of a native
//! strategy ([`client`]), which goes through pyo3-async-runtimes.

pub mod client;
pub mod convert;
pub mod errors;
pub mod run;
pub mod runtime;
pub mod simulator;
