//! How a native attempt can fail. No message ever holds a key: requests are not part of any of them.

use crate::engine::Usage;

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProviderError {
    /// The provider answered with an error status.
    #[error("HTTP {status}: {message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The provider's message, or the beginning of the body.
        message: String,
        /// The machine-readable code of the body, if it has one.
        code: Option<String>,
        /// The server's word when to come back, seconds.
        retry_after: Option<f64>,
        /// The provider's id of the request.
        request_id: Option<String>,
    },
    /// No reply came: refused, reset, cut, unresolvable.
    #[error("connection failed: {message}")]
    Connection {
        /// The cause, in the words of the network stack.
        message: String,
    },
    /// Connecting took too long.
    #[error("connection timed out: {message}")]
    Timeout {
        /// The cause, in the words of the network stack.
        message: String,
    },
    /// A success status, but the body is not what the protocol says.
    #[error("the reply is not a valid {protocol} response: {problem}; it begins {excerpt:?}")]
    Reply {
        /// The protocol that was expected.
        protocol: &'static str,
        /// What is wrong.
        problem: String,
        /// The beginning of the body.
        excerpt: String,
    },
    /// A valid reply without text: refused, filtered, or cut before the first word.
    #[error("the model gave no text (finish reason: {finish_reason}){}", .refusal.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    Empty {
        /// Why the model stopped.
        finish_reason: String,
        /// The model's words of refusal.
        refusal: Option<String>,
        /// What it cost all the same.
        usage: Usage,
    },
}

/// The beginning of a body, for a message.
pub fn excerpt(body: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * LONGEST)]);
    text.trim().chars().take(LONGEST).collect()
}
