//! Native strategies: one attempt is one HTTP request, made and understood without Python.
//!
//! A new dialect is one file with a type that implements [`Provider`]; [`http`] holds what all of them share.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::engine::Usage;

pub mod error;
pub mod http;
pub mod openai;
pub mod retry_after;

pub use error::ProviderError;

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What the model said.
    pub text: String,
    /// What it cost.
    pub usage: Usage,
    /// Tokens of the answer spent on reasoning, where the provider tells.
    pub reasoning_tokens: u64,
    /// Why the model stopped, in the provider's word.
    pub finish_reason: Option<String>,
    /// The model that answered.
    pub model: Option<String>,
    /// The provider's id of the request, for its support.
    pub request_id: Option<String>,
}

/// The future of one attempt. Dropping it drops the request.
pub type Attempt = Pin<Box<dyn Future<Output = Result<Reply, ProviderError>> + Send>>;

/// Something that answers prompts.
pub trait Provider: Send + Sync + 'static {
    /// Sends one prompt. Never retries: that is the engine's business.
    fn attempt(&self, prompt: String) -> Attempt;
}

/// Limits of one client's transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// Time to establish a connection.
    pub connect_timeout: Duration,
    /// Idle connections kept per host.
    pub max_idle_connections: usize,
    /// Longest reply body accepted, bytes.
    pub max_body_bytes: usize,
}

impl Default for Transport {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(10), max_idle_connections: 8192, max_body_bytes: 64 << 20 }
    }
}
