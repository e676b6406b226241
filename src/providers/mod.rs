//! Native strategies: requests written, sent and read without Python. The dispatcher and the bridge use this floor.
//!
//! - [`provider`]: what answers a question. [`client`] is one, made of a dialect, an [`address`], [`keys`] and a
//!   [`transport`]; [`embeddings`] is another, with many texts in a request, whose [`vectors`] it reads. [`headers`] checks
//!   what users add to both.
//! - [`pooled`]: several providers as one.
//! - [`table`]: a row for each provider. [`dialect`]: what a dialect is; [`chat`], [`responses`], [`anthropic`],
//!   [`gemini`] and [`converse`] are one each ([`openai`] is what the first two have in common; [`hosted`] has those that
//!   clouds serve at other paths), and neither send nor wait.
//! - [`clouds`]: where the clouds are. [`auth`]: their credentials, with which the transport signs requests.
//! - [`heads`]: what requests begin with alike, for the providers' prompt caches; [`caching`] has what each caches, [`plan`]
//!   what is decided,
//!   [`marked`] how providers spell it.
//! - [`counting`]: requests that count the tokens of a question, without an answer.
//! - [`call`]: requests that ask nothing: files and batches; and what a batch's lines need of a client.
//! - [`listener`]: whoever follows an answer while it comes.
//! - Replies are read by [`json`] and [`lenient`], errors by [`status`], [`error_body`] and [`error_words`], rate limit
//!   headers by [`limits`].
//! - Structured output: [`schema`] and [`thoughts`] read and check answers, [`schema_dialects`] says what each provider
//!   is sent.
//! - [`media`]: pictures, sounds and documents of a [`prompt`].
//! - [`shared`]: what many requests have in common is written once, and in memory once.
//! - [`state`]: what a provider wants back with a turn that called tools. [`redact`] keeps keys out of errors,
//!   [`shown`] control characters out of texts; [`proxy`] says what is sent without a proxy.
//!
//! A new OpenAI-compatible provider is one row of the table; a new dialect is one file.

mod account;
pub mod address;
mod anthropic;
pub mod auth;
mod bodies;
pub mod caching;
pub mod call;
mod chat;
pub mod client;
pub mod clouds;
mod converse;
mod counting;
pub mod deferral;
mod dialect;
pub mod embeddings;
pub mod error;
mod error_body;
mod error_words;
#[cfg(test)]
mod fuzz;
mod gemini;
mod headers;
pub mod heads;
mod hosted;
pub mod json;
pub mod keys;
mod lenient;
mod limit_fields;
mod limits;
pub mod listener;
mod marked;
pub mod media;
pub mod numbers;
mod openai;
mod options;
pub mod plan;
pub mod pooled;
pub mod prompt;
pub mod provider;
mod proxy;
mod redact;
pub mod reply;
mod responses;
pub mod schema;
mod schema_dialects;
#[cfg(test)]
mod schema_dialects_tests;
mod schema_simple;
mod schema_words;
pub mod secret_names;
pub mod shared;
pub mod shown;
mod state;
pub mod status;
pub mod streams;
pub mod table;
#[cfg(test)]
mod testing;
mod thoughts;
pub mod transport;
mod vectors;
mod versions;

pub use error::{Category, ProviderError};
pub use options::Options;
pub use prompt::Ask;
pub use provider::{Provider, Rejecting};
pub use reply::{Reply, TokenUsage};
