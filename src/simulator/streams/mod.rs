//! Streams of the simulated provider: for each dialect, one pure function from a plain reply to the events that it comes
//! in. They stream any reply, also one that the simulated model would not give. Used by the dialects.

pub mod anthropic;
pub mod chat;
pub mod converse;
pub mod event;
pub mod gemini;
pub mod quirks;
pub mod responses;
#[cfg(test)]
mod tests;
