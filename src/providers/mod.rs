//! Native strategies: one attempt is one HTTP request, made and understood without Python.
//!
//! [`provider`] says what answers questions; [`table`] has a row per provider; [`dialect`] says what a language is, and [`chat`], [`responses`], [`anthropic`] and
//! [`gemini`] are one each, pure; [`client`] puts a dialect, an [`address`], [`keys`] and a [`transport`] together;
//! [`embeddings`] packs many texts into one request, [`vectors`] reads what comes back. [`json`] and [`lenient`] read
//! replies, [`status`], [`error_body`] and [`error_words`] errors, [`limits`] headers; [`redact`] keeps keys out of errors, [`shown`] what terminals obey, [`proxy`] says
//! what goes without one; [`schema`] and [`thoughts`] read structured answers, [`schema_dialects`] says what each provider is sent of a
//! schema; [`state`] is what a provider wants back with a turn.
//!
//! A new OpenAI-compatible provider is one row of the table; a new dialect is one file.

pub mod address;
pub mod anthropic;
pub mod bodies;
pub mod chat;
pub mod client;
pub mod dialect;
pub mod embeddings;
pub mod error;
mod error_body;
pub mod error_words;
#[cfg(test)]
mod fuzz;
pub mod gemini;
pub mod json;
pub mod keys;
pub mod lenient;
pub mod limit_fields;
pub mod limits;
pub mod numbers;
pub mod options;
pub mod prompt;
pub mod provider;
pub mod proxy;
pub mod redact;
pub mod reply;
pub mod responses;
pub mod reuse;
pub mod schema;
pub mod schema_dialects;
#[cfg(test)]
mod schema_dialects_tests;
mod schema_simple;
mod schema_words;
pub mod secret_names;
pub mod shown;
pub mod state;
pub mod status;
pub mod table;
#[cfg(test)]
mod testing;
mod thoughts;
pub mod transport;
pub mod vectors;

pub use error::{Category, ProviderError};
pub use options::Options;
pub use prompt::{Ask, Prompt};
pub use provider::{Attempt, Provider, Rejecting};
pub use reply::{Reply, TokenUsage};
