//! Requests that count the tokens of a question at the provider, without an answer. Dialects make them, the client sends
//! them.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::call::Place;
use super::dialect::{Body, Dialect};
use super::error::ProviderError;
use super::json::{bad, parse};
use super::options::Options;
use super::prompt::Ask;

/// The future of one count: tokens of the input.
pub type Count = Pin<Box<dyn Future<Output = Result<u64, ProviderError>> + Send>>;

/// A request that counts tokens.
#[derive(Debug)]
pub struct Counting {
    /// Where it goes.
    pub place: Place,
    /// Its body.
    pub body: Bytes,
    /// The field of the reply with the number.
    pub field: &'static str,
}

impl Counting {
    /// One that goes to a path below the base URL.
    pub fn new(path: impl Into<String>, body: Bytes, field: &'static str) -> Self {
        Self { place: Place::Base(path.into()), body, field }
    }

    /// The number in a reply.
    ///
    /// # Errors
    /// [`ProviderError::Protocol`] when there is none.
    pub fn read(&self, protocol: &'static str, body: &[u8]) -> Result<u64, ProviderError> {
        let reply: Map<String, Value> = parse(protocol, body)?;
        let number = reply.get(self.field).and_then(Value::as_u64);
        number.ok_or_else(|| bad(protocol, body, format!("it has no {}", self.field)))
    }
}

/// The body of the request for a question with only those of its fixed fields that the endpoint knows.
///
/// # Errors
/// As [`Dialect::conversation`].
pub fn body_with(
    dialect: &dyn Dialect,
    options: &Options,
    ask: &Ask,
    is_known: impl Fn(&str) -> bool,
) -> Result<Bytes, String> {
    body_of(dialect, options, ask, |fields| fields.retain(|name, _| is_known(name)))
}

/// The body of the request for a question, whose fixed fields are changed before.
///
/// # Errors
/// As [`Dialect::conversation`].
pub fn body_of(
    dialect: &dyn Dialect,
    options: &Options,
    ask: &Ask,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<Bytes, String> {
    let mut fields = dialect.fields(options)?;
    change(&mut fields);
    let head = serde_json::to_vec(&fields).map_err(|error| error.to_string())?;
    let mut body = Body::new(&head.into(), ask.own_bytes());
    dialect.conversation(options, ask, &mut body)?;
    Ok(body.finish().joined())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::providers::prompt::Prompt;
    use crate::providers::table::{Api, row};
    use crate::providers::testing;

    fn counting(provider: &str, api: Api, fields: Value) -> Option<(String, Value, &'static str)> {
        let options = testing::options(fields);
        let ask = Ask::new(Prompt::Text("Hi".to_owned().into()));
        let dialect = row(provider).unwrap().dialect(&options.model, api);
        let counting = dialect.count(&options, &ask).unwrap()?;
        let (Place::Base(path) | Place::Beside(path) | Place::Origin(path)) = counting.place;
        Some((path, serde_json::from_slice(&counting.body).unwrap(), counting.field))
    }

    fn options(model: &str) -> Value {
        json!({"model": model, "system_prompt": "s", "max_tokens": 9, "temperature": 0.5,
            "tools": [{"name": "f", "description": "d", "parameters": {"type": "object"}}]})
    }

    #[test]
    fn anthropic_counts_what_a_message_would_have() {
        let (path, body, field) = counting("anthropic", Api::Usual, options("claude-x")).unwrap();
        assert_eq!((path.as_str(), field), ("v1/messages/count_tokens", "input_tokens"));
        assert_eq!(
            body,
            json!({"model": "claude-x", "tools": [{"name": "f", "description": "d", "input_schema":
                {"type": "object"}}], "system": "s", "messages": [{"role": "user", "content": "Hi"}]})
        );
        let (path, body, _) = counting("vertex", Api::Usual, options("claude-x@1")).unwrap();
        assert_eq!(path, "publishers/anthropic/models/count-tokens:rawPredict");
        assert_eq!((&body["model"], &body["anthropic_version"]), (&json!("claude-x@1"), &json!("vertex-2023-10-16")));
        assert!(body.get("max_tokens").is_none());
    }

    #[test]
    fn google_counts_a_whole_request() {
        let (path, body, field) = counting("gemini", Api::Usual, options("gemini-x")).unwrap();
        assert_eq!((path.as_str(), field), ("models/gemini-x:countTokens", "totalTokens"));
        let whole = &body["generateContentRequest"];
        assert_eq!(body.as_object().unwrap().len(), 1);
        assert_eq!(whole["model"], "models/gemini-x");
        assert_eq!(whole["systemInstruction"], json!({"parts": [{"text": "s"}]}));
        assert_eq!(whole["contents"], json!([{"role": "user", "parts": [{"text": "Hi"}]}]));
        assert_eq!(whole["tools"][0]["functionDeclarations"][0]["name"], "f");
        let (path, body, _) = counting("vertex", Api::Usual, options("gemini-x")).unwrap();
        assert_eq!(path, "publishers/google/models/gemini-x:countTokens");
        assert_eq!(body["systemInstruction"], json!({"parts": [{"text": "s"}]}));
        assert!(body.get("toolConfig").is_none() && body.get("tools").is_some());
    }

    #[test]
    fn openai_counts_for_responses_only() {
        let (path, body, field) = counting("openai", Api::Responses, options("gpt-x")).unwrap();
        assert_eq!((path.as_str(), field), ("responses/input_tokens", "input_tokens"));
        assert_eq!((&body["input"], &body["instructions"]), (&json!("Hi"), &json!("s")));
        assert!(body.get("store").is_none() && body.get("max_output_tokens").is_none());
        assert!(counting("openai", Api::Usual, options("gpt-x")).is_none());
        assert!(counting("groq", Api::Usual, options("m")).is_none());
    }

    #[test]
    fn vllm_counts_beside_its_version() {
        let options = testing::options(options("owner/m"));
        let dialect = row("vllm").unwrap().dialect(&options.model, Api::Usual);
        let counting = dialect.count(&options, &Ask::new(Prompt::Text("Hi".to_owned().into()))).unwrap().unwrap();
        assert_eq!((counting.place, counting.field), (Place::Beside("tokenize".to_owned()), "count"));
        let body: Value = serde_json::from_slice(&counting.body).unwrap();
        assert_eq!(body["messages"][1], json!({"role": "user", "content": "Hi"}));
        assert!(body.get("tools").is_some() && body.get("temperature").is_none());
    }

    #[test]
    fn bedrock_counts_either_kind_of_request() {
        let (path, body, field) = counting("bedrock", Api::Usual, options("amazon.nova-pro-v1:0")).unwrap();
        assert_eq!((path.as_str(), field), ("model/amazon.nova-pro-v1%3A0/count-tokens", "inputTokens"));
        let known: Vec<&String> = body["input"]["converse"].as_object().unwrap().keys().collect();
        assert_eq!(known, ["toolConfig", "system", "messages"]);
        let (_, body, _) = counting("bedrock", Api::Usual, options("anthropic.claude-x")).unwrap();
        let coded = body["input"]["invokeModel"]["body"].as_str().unwrap();
        let whole: Value =
            serde_json::from_slice(&base64::Engine::decode(&base64::engine::general_purpose::STANDARD, coded).unwrap())
                .unwrap();
        assert_eq!((&whole["max_tokens"], &whole["anthropic_version"]), (&json!(9), &json!("bedrock-2023-05-31")));
    }

    #[test]
    fn a_reply_has_the_number_or_is_none() {
        let counting = Counting::new("x", Bytes::new(), "input_tokens");
        assert_eq!(counting.read("P", b"{\"input_tokens\":12}").unwrap(), 12);
        for body in ["{}", "[]", "{\"input_tokens\":-1}", "{\"input_tokens\":\"x\"}", ""] {
            assert!(counting.read("P", body.as_bytes()).is_err(), "{body}");
        }
    }
}
