//! What a dialect is: how a question is written and an answer is read. A new one is one file with a type that
//! implements [`Dialect`], and a row in [`table`](super::table).

use bytes::Bytes;
use http::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::counting::Counting;
use super::error::ProviderError;
use super::options::Options;
use super::prompt::Ask;
use super::reply::{Choice, Extras, TokenUsage};
use super::shared::{Payload, Writing};
use super::status;
use super::streams::{Clocks, Fold};

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

    /// Changes the fixed fields of requests that mark what they have in common; see [`Marks`](super::plan::Marks).
    fn mark(&self, _options: &Options, _fields: &mut Map<String, Value>) {}

    /// Writes the conversation, with the marks that the question has.
    ///
    /// # Errors
    /// A message that names the part of the prompt that this dialect cannot express.
    fn conversation(&self, options: &Options, ask: &Ask, body: &mut Body) -> Result<(), String>;

    /// The body of the request that makes a cache of what questions begin with, for so many seconds. `None`: the
    /// provider has no such request.
    ///
    /// # Errors
    /// As [`conversation`](Self::conversation).
    fn cache(&self, _options: &Options, _head: &Ask, _seconds: u64) -> Result<Option<Payload>, String> {
        Ok(None)
    }

    /// The request that counts the tokens of a question. `None`: the provider has no such request.
    ///
    /// # Errors
    /// As [`conversation`](Self::conversation).
    fn count(&self, _options: &Options, _ask: &Ask) -> Result<Option<Counting>, String> {
        Ok(None)
    }

    /// Reads the body of a success.
    ///
    /// # Errors
    /// [`ProviderError::Protocol`] when it is not what the protocol says, [`ProviderError::Status`] when an error came
    /// inside of a success.
    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError>;

    /// How replies come as streams. `None`: they do not.
    fn streaming(&self, _model: &str) -> Option<Streaming> {
        None
    }

    /// The turn in a reply's body, as it was written: of a model that paused in it, or whose conversation goes on.
    fn turn(&self, _body: &[u8]) -> Option<Box<RawValue>> {
        None
    }

    /// Whether the model takes its thoughts back only as long as everything before them is unchanged.
    fn binds_thoughts(&self, _options: &Options) -> bool {
        false
    }

    /// The request after `body`, which the server has rejected with this error, without the thoughts that it does not
    /// take. `None`: that is not what was wrong.
    fn without_thoughts(&self, _body: &Payload, _error: &ProviderError) -> Option<Vec<u8>> {
        None
    }

    /// The request after `body` that lets the model go on where it paused; see [`Answer::unfinished`].
    fn go_on(&self, _body: &[u8], _unfinished: &RawValue) -> Option<Vec<u8>> {
        None
    }
}

/// How a dialect streams replies.
pub struct Streaming {
    /// Where requests for streams go, relative to the base URL, and a query.
    pub path: (String, Option<(&'static str, &'static str)>),
    /// The fields that ask for a stream.
    pub fields: Map<String, Value>,
    /// Puts a reply together.
    pub fold: fn() -> Box<dyn Fold>,
    /// How long it may be silent.
    pub clocks: Clocks,
}

/// What a dialect reads from a reply.
#[derive(Debug, Default)]
pub struct Answer {
    /// The samples.
    pub choices: Vec<Choice>,
    /// What it cost.
    pub usage: TokenUsage,
    /// The model that answered.
    pub model: Option<String>,
    /// What else the provider tells.
    pub extras: Extras,
    /// The turn so far, if the model paused in the middle of it and is to be asked to go on.
    pub unfinished: Option<Box<RawValue>>,
}

/// The body of a request: the fields that never change, written once, and after them those that do.
pub struct Body(Writing);

impl Body {
    /// A body that begins with the written object `head`, whose last byte is its closing brace.
    pub fn new(head: &Bytes, room: usize) -> Self {
        let length = head.strip_suffix(b"}").map_or(head.len(), <[u8]>::len);
        Self(Writing::new(head.slice(..length), room + 64))
    }

    /// Adds a field.
    ///
    /// # Errors
    /// When the value cannot be written as JSON.
    pub fn field(&mut self, name: &str, value: &impl Serialize) -> Result<(), String> {
        if self.0.last() != Some(b'{') {
            self.0.push(b',');
        }
        let written = serde_json::to_writer(&mut self.0, name).and_then(|()| {
            self.0.push(b':');
            serde_json::to_writer(&mut self.0, value)
        });
        written.map_err(|error| format!("the request cannot be written as JSON: {error}"))
    }

    /// The whole body.
    pub fn finish(mut self) -> Payload {
        self.0.push(b'}');
        self.0.finish()
    }
}

/// The error that a success reply holds inside, if it does.
pub fn error_inside(error: Option<Value>, headers: &HeaderMap) -> Result<(), ProviderError> {
    error.map_or(Ok(()), |error| Err(status::inside(&error, headers)))
}

/// The same for the error of a whole reply, which may be a mere flag beside what it means.
///
/// # Errors
/// What the reply says.
pub fn error_of(error: Option<Value>, body: &[u8], headers: &HeaderMap) -> Result<(), ProviderError> {
    match error {
        Some(Value::Bool(_) | Value::Number(_)) => {
            Err(status::instead(body, headers).unwrap_or_else(|| status::inside(&Value::Null, headers)))
        }
        error => error_inside(error, headers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_its_head_and_more() {
        let mut body = Body::new(&Bytes::from_static(b"{\"model\":\"m\"}"), 0);
        body.field("messages", &[1]).unwrap();
        assert_eq!(body.finish().joined(), &b"{\"model\":\"m\",\"messages\":[1]}"[..]);
        let mut empty = Body::new(&Bytes::from_static(b"{}"), 0);
        empty.field("a", &"b").unwrap();
        assert_eq!(empty.finish().joined(), &b"{\"a\":\"b\"}"[..]);
    }
}
