//! Replies that come as streams of events, put together to the body of the plain reply: whatever reads replies reads
//! them as if they had come whole. Used by [`client`](super::client), [`transport`](super::transport) and the dialects;
//! does not send or wait.
//!
//! What the events of each dialect mean is in a file of its own. A stream that ends before it says that it is whole is
//! never a reply.

mod anthropic;
mod auto;
mod chat;
mod clocks;
mod converse;
mod fields;
mod fold;
mod folded;
mod frames;
mod gemini;
mod repeat;
mod responses;
#[cfg(test)]
mod simulated_tests;
mod sse;
#[cfg(test)]
mod tests;

pub use anthropic::AnthropicFold;
pub use auto::{is_wanted, thinks};
pub use chat::ChatFold;
pub use clocks::{Clocks, Watch};
pub use converse::ConverseFold;
pub use fold::Fold;
pub use folded::Folded;
pub use gemini::GeminiFold;
pub use responses::ResponsesFold;
