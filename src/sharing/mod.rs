//! Limits that the processes of one host share, through a file that they all name. No server.
//!
//! [`file`](mod@file) reads and updates the shared file; a [`lease`] renews a process' share for as long as a run
//! lasts, and sets it in the engine's scope. Only the bridge calls this floor.

pub mod file;
pub mod lease;
