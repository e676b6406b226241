//! A request to a batch endpoint, and the reply: what all providers' imitations have in common.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

use super::provider::Provider;

/// A request.
#[derive(Debug)]
pub struct Call {
    /// Whose imitation answers.
    pub provider: Provider,
    /// The method.
    pub method: Method,
    /// The path after the version.
    pub path: String,
    /// The query, decoded.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Who asks: a number for each key.
    pub account: u64,
    /// Scheme and host, for addresses in replies.
    pub origin: String,
}

impl Call {
    /// A parameter of the query.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A number of the query within bounds, or the usual one.
    ///
    /// # Errors
    /// A reply that names the bounds.
    pub fn number(&self, name: &str, usual: usize, most: usize) -> Result<usize, Reply> {
        let Some(given) = self.param(name) else { return Ok(usual) };
        let number = given.parse().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| self.error(400, &format!("{name} must be an integer from 1 to {most}, not {given:?}")))
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as a tree of values.
    ///
    /// # Errors
    /// A reply that says where it is not JSON.
    pub fn json(&self) -> Result<Value, Reply> {
        serde_json::from_slice(&self.body).map_err(|error| self.error(400, &format!("the body is not JSON: {error}")))
    }

    /// An error in the provider's words.
    pub fn error(&self, status: u16, message: &str) -> Reply {
        self.error_with(status, None, message)
    }

    /// An error with a code.
    pub fn error_with(&self, status: u16, code: Option<&str>, message: &str) -> Reply {
        Reply::Json(status, self.provider.error(status, code, message))
    }

    /// There is no such object.
    pub fn missing(&self, what: &str, id: &str) -> Reply {
        self.error(404, &format!("No such {what}: '{id}'"))
    }

    /// There is no such endpoint.
    pub fn unknown(&self) -> Reply {
        let message =
            format!("{} /{} is not an endpoint for batches of {}", self.method, self.path, self.provider.name());
        self.error(404, &message)
    }
}

/// A file of lines that is sent.
#[derive(Debug)]
pub struct Download {
    /// The bytes.
    pub bytes: Bytes,
    /// Its media type; none is told if it is empty.
    pub kind: &'static str,
    /// Whether it breaks off in the middle.
    pub is_cut: bool,
}

/// A reply.
#[derive(Debug)]
pub enum Reply {
    /// A status and JSON.
    Json(u16, Value),
    /// The same with headers.
    Headers(u16, Value, Vec<(String, String)>),
    /// A file of lines.
    Download(Download),
    /// None: the connection is closed.
    Reset,
}

impl Reply {
    /// JSON that all is well.
    pub fn ok(value: Value) -> Self {
        Self::Json(200, value)
    }
}
