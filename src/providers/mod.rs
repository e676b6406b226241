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
mod anthropic;
mod bodies;
mod chat;
pub mod client;
mod dialect;
pub mod embeddings;
pub mod error;
mod error_body;
mod error_words;
#[cfg(test)]
mod fuzz;
mod gemini;
pub mod json;
pub mod keys;
mod lenient;
mod limit_fields;
mod limits;
pub mod numbers;
mod options;
pub mod prompt;
pub mod provider;
mod proxy;
mod redact;
pub mod reply;
mod responses;
mod reuse;
pub mod schema;
mod schema_dialects;
#[cfg(test)]
mod schema_dialects_tests;
mod schema_simple;
mod schema_words;
pub mod secret_names;
pub mod shown;
mod state;
pub mod status;
pub mod table;
#[cfg(test)]
mod testing;
mod thoughts;
pub mod transport;
mod vectors;

pub use error::{Category, ProviderError};
pub use options::Options;
pub use prompt::Ask;
pub use provider::{Provider, Rejecting};
pub use reply::{Reply, TokenUsage};
