//! Executes what the engine decides, and carries messages to the event loop.
//!
//! The [`dispatcher`] is the executor of every run: it sends a staged request the moment the engine starts its item,
//! counts a plain success on the network's thread, and posts everything else to the [`mailbox`], from which the event
//! loop's thread takes it. Only the bridge calls this floor; it uses the engine and the providers.

pub mod dispatcher;
pub mod mailbox;
