//! Native strategies: one attempt is one HTTP request, made and understood without Python.
//!
//! [`table`] has a row per provider; [`dialect`] says what a language is, and [`chat`], [`responses`], [`anthropic`] and
//! [`gemini`] are one each, pure; [`client`] puts a dialect, an [`address`], [`keys`] and a [`transport`] together;
//! [`embeddings`] packs many texts into one request, [`vectors`] reads what comes back. [`json`] and [`lenient`] read
//! replies, [`status`], [`error_body`] and [`error_words`] errors, [`limits`] headers; [`redact`] keeps keys out of errors, [`shown`] what terminals obey, [`proxy`] says
//! what goes without one; [`schema`] and [`thoughts`] read structured answers, [`schema_dialects`] says what each provider is sent of a
//! schema; [`state`] is what a provider wants back with a turn.
//!
//! A new OpenAI-compatible provider is one row of the table; a new dialect is one file.

use std::future::Future;
use std::pin::Pin;

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
mod thoughts;
pub mod transport;
pub mod vectors;

pub use error::{Category, ProviderError};
pub use options::Options;
pub use prompt::{Ask, Prompt};
pub use reply::{Reply, TokenUsage};

/// The future of one attempt. Dropping it drops the request.
pub type Attempt = Pin<Box<dyn Future<Output = Result<Reply, ProviderError>> + Send>>;

/// Something that answers questions.
pub trait Provider: Send + Sync + 'static {
    /// Asks once. Never retries: that is the engine's business.
    fn attempt(&self, ask: Ask) -> Attempt;
}

/// Answers no question: its address is one to which nothing may be sent.
pub struct Rejecting(pub String);

impl Provider for Rejecting {
    fn attempt(&self, _ask: Ask) -> Attempt {
        Box::pin(std::future::ready(Err(ProviderError::Request(self.0.clone()))))
    }
}

/// Short cuts for the tests of dialects.
#[cfg(test)]
mod testing {
    use super::dialect::{Body, Dialect};
    use super::{Ask, Options};
    use serde_json::Value;

    /// Options from JSON.
    pub fn options(fields: Value) -> Options {
        serde_json::from_value(fields).unwrap()
    }

    /// The body that a dialect writes.
    pub fn request(dialect: &dyn Dialect, options: &Options, ask: &Ask) -> Result<Value, String> {
        let head = serde_json::to_vec(&dialect.fields(options)?).unwrap();
        let mut body = Body::new(&head, 0);
        dialect.conversation(options, ask, &mut body)?;
        Ok(serde_json::from_slice(&body.finish()).unwrap())
    }
}
