//! What a dialect is: how a question is written and an answer is read. A new one is one file with a type that
//! implements [`Dialect`], and a row in [`table`](super::table).

use http::HeaderMap;
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::excerpt;
use super::prompt::Ask;
use super::reply::{Choice, TokenUsage};
use super::{Options, ProviderError, status};

/// A provider's language. Implementations are pure: they neither send nor wait.
pub trait Dialect: Send + Sync + 'static {
    /// Its name, for messages.
    fn protocol(&self) -> &'static str;

    /// Where requests go, relative to the base URL.
    fn path(&self, model: &str) -> String;

    /// Headers of every request, beside the key.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The fields that are the same in every request: everything but the conversation.
    ///
    /// # Errors
    /// A message that names the option that this dialect cannot express.
    fn fields(&self, options: &Options) -> Result<Map<String, Value>, String>;

    /// Writes the conversation.
    ///
    /// # Errors
    /// A message that names the part of the prompt that this dialect cannot express.
    fn conversation(&self, options: &Options, ask: &Ask, body: &mut Body) -> Result<(), String>;

    /// Reads the body of a success.
    ///
    /// # Errors
    /// [`ProviderError::Protocol`] when it is not what the protocol says, [`ProviderError::Status`] when an error came
    /// inside of a success.
    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError>;
}

/// What a dialect reads from a reply.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// The samples.
    pub choices: Vec<Choice>,
    /// What it cost.
    pub usage: TokenUsage,
    /// The model that answered.
    pub model: Option<String>,
    /// What else the provider tells.
    pub extras: Map<String, Value>,
}

/// The body of a request: the fields that never change, written once, and after them those that do.
pub struct Body(Vec<u8>);

impl Body {
    /// A body that begins with the written object `head`, whose last byte is its closing brace.
    pub fn new(head: &[u8], room: usize) -> Self {
        let open = head.strip_suffix(b"}").unwrap_or(head);
        let mut bytes = Vec::with_capacity(open.len() + room + 64);
        bytes.extend_from_slice(open);
        Self(bytes)
    }

    /// Adds a field.
    ///
    /// # Errors
    /// When the value cannot be written as JSON.
    pub fn field(&mut self, name: &str, value: &impl Serialize) -> Result<(), String> {
        if self.0.last() != Some(&b'{') {
            self.0.push(b',');
        }
        let written = serde_json::to_writer(&mut self.0, name).and_then(|()| {
            self.0.push(b':');
            serde_json::to_writer(&mut self.0, value)
        });
        written.map_err(|error| format!("the request cannot be written as JSON: {error}"))
    }

    /// The whole body.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

/// The JSON of a reply, without what gateways put before it: blank lines and `: keep-alive` comments.
pub fn json_part(body: &[u8]) -> &[u8] {
    let mut rest = body.trim_ascii_start();
    while rest.first() == Some(&b':') {
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        rest = rest[end..].trim_ascii_start();
    }
    rest
}

/// Reads a reply into a type of a dialect's own, or says why it is none.
///
/// # Errors
/// [`ProviderError::Protocol`].
pub fn parse<'a, T: serde::Deserialize<'a>>(protocol: &'static str, body: &'a [u8]) -> Result<T, ProviderError> {
    let json = json_part(body);
    // Looked at once here, not each string by itself. What is no UTF-8 may be in a place that nobody reads.
    let parsed = std::str::from_utf8(json).map_or_else(|_| serde_json::from_slice(json), serde_json::from_str);
    parsed.map_err(|error| bad(protocol, body, error.to_string()))
}

/// A reply that is not what the protocol says.
pub fn bad(protocol: &'static str, body: &[u8], problem: impl Into<String>) -> ProviderError {
    ProviderError::Protocol { protocol, problem: problem.into(), excerpt: excerpt(body) }
}

/// The error that a success reply holds inside, if it does.
pub fn error_inside(error: Option<Value>, headers: &HeaderMap) -> Result<(), ProviderError> {
    match error {
        Some(error) if !error.is_null() => Err(status::inside(&error, headers)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_utf8_matters_where_it_is_read() {
        #[derive(serde::Deserialize, Debug)]
        struct Said {
            text: String,
        }
        let read = |body: &[u8]| parse::<Said>("protocol", body);
        assert_eq!(read(b"{\"text\": \"a\", \"other\": \"\xff\"}").unwrap().text, "a");
        let error = read(b"{\"text\": \"\xff\"}").unwrap_err().to_string();
        assert!(error.contains("invalid unicode code point at line 1"), "{error}");
    }

    #[test]
    fn a_body_is_its_head_and_more() {
        let mut body = Body::new(b"{\"model\":\"m\"}", 0);
        body.field("messages", &[1]).unwrap();
        assert_eq!(body.finish(), b"{\"model\":\"m\",\"messages\":[1]}");
        let mut empty = Body::new(b"{}", 0);
        empty.field("a", &"b").unwrap();
        assert_eq!(empty.finish(), b"{\"a\":\"b\"}");
    }

    #[test]
    fn what_gateways_put_before_the_json_is_passed_over() {
        assert_eq!(json_part(b"\n\n: keep-alive\n\r\n: OPENROUTER PROCESSING\n {\"a\": 1}"), b"{\"a\": 1}");
        assert_eq!(json_part(b": only a comment"), b"");
    }
}
