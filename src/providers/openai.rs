//! OpenAI's Chat Completions, `POST {base_url}/chat/completions`, as OpenAI and the servers that imitate it speak it.
//!
//! Fields as in OpenAI's API reference (read November 2026): the reply's `choices[0].message.content` is the text;
//! `usage.prompt_tokens` includes the cached ones of `prompt_tokens_details.cached_tokens`.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::error::excerpt;
use super::{Attempt, Provider, ProviderError, Reply, Transport, http as wire};
use crate::engine::Usage;

const PROTOCOL: &str = "Chat Completions";

/// What is the same in every request of one strategy.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model's name.
    pub model: String,
    /// Up to and without `/chat/completions`.
    pub base_url: String,
    /// Sent as the first message.
    pub system_prompt: Option<String>,
    /// Further fields of the request, as they are.
    pub body: serde_json::Map<String, serde_json::Value>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Limits of the connection.
    pub transport: Transport,
}

/// A client of one model at one server.
pub struct OpenAi {
    shared: Arc<Shared>,
}

struct Shared {
    client: reqwest::Client,
    url: reqwest::Url,
    options: Options,
}

impl OpenAi {
    /// Prepares the client; nothing is sent.
    ///
    /// # Errors
    /// A message that says which argument is wrong. It never holds the key.
    pub fn new(options: Options, api_key: Option<SecretString>) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &options.headers {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("extra_headers: {name:?} is not a valid header name"))?;
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| format!("extra_headers: the value of {name:?} has characters a header cannot carry"))?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        if let Some(key) = api_key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret())).map_err(|_| {
                "api_key has characters a header cannot carry (a line break from a file, perhaps); strip it".to_owned()
            })?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let client = wire::client(&options.transport, headers)?;
        let url = format!("{}/chat/completions", options.base_url.trim_end_matches('/'));
        let url = reqwest::Url::parse(&url).map_err(|error| format!("base_url is not a valid URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("base_url must begin with http:// or https://, not {}://", url.scheme()));
        }
        Ok(Self { shared: Arc::new(Shared { client, url, options }) })
    }
}

impl Provider for OpenAi {
    fn attempt(&self, prompt: String) -> Attempt {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let request = Request { options: &shared.options, prompt: &prompt };
            let body = serde_json::to_vec(&request).map_err(|error| ProviderError::Reply {
                protocol: PROTOCOL,
                problem: format!("the request could not be written: {error}"),
                excerpt: String::new(),
            })?;
            let request =
                shared.client.post(shared.url.clone()).header(header::CONTENT_TYPE, "application/json").body(body);
            let answer = wire::send(request, shared.options.transport.max_body_bytes).await?;
            read_reply(&answer.body, wire::request_id(&answer.headers))
        })
    }
}

struct Request<'a> {
    options: &'a Options,
    prompt: &'a str,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

impl Serialize for Request<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", &self.options.model)?;
        let user = Message { role: "user", content: self.prompt };
        match &self.options.system_prompt {
            Some(content) => map.serialize_entry("messages", &[Message { role: "system", content }, user])?,
            None => map.serialize_entry("messages", &[user])?,
        }
        for (name, value) in &self.options.body {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<TokenCounts>,
    model: Option<String>,
    error: Option<ErrorInside>,
}

#[derive(Deserialize)]
struct Choice {
    message: Answer,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    content: Option<String>,
    refusal: Option<String>,
}

#[derive(Deserialize, Default)]
struct TokenCounts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

/// Some gateways send an error object with status 200.
#[derive(Deserialize)]
struct ErrorInside {
    message: Option<String>,
    code: Option<serde_json::Value>,
}

fn read_reply(body: &[u8], request_id: Option<String>) -> Result<Reply, ProviderError> {
    let bad = |problem: String| ProviderError::Reply { protocol: PROTOCOL, problem, excerpt: excerpt(body) };
    let completion: Completion = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    if let Some(error) = completion.error {
        let code = error.code.unwrap_or_default();
        let status = code.as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
        return Err(ProviderError::Status {
            status: status.unwrap_or(502),
            message: error.message.unwrap_or_else(|| "an error object inside a success reply".to_owned()),
            code: code.as_str().map(str::to_owned),
            retry_after: None,
            request_id,
        });
    }
    let counts = completion.usage.unwrap_or_default();
    let (input, output) = (counts.prompt_tokens.unwrap_or(0), counts.completion_tokens.unwrap_or(0));
    let usage = Usage {
        input,
        output,
        total: counts.total_tokens.unwrap_or(input.saturating_add(output)),
        cached: counts.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0),
    };
    let reasoning_tokens = counts.completion_tokens_details.and_then(|details| details.reasoning_tokens).unwrap_or(0);
    let choice = completion.choices.into_iter().next().ok_or_else(|| bad("it has no choices".to_owned()))?;
    match choice.message.content {
        Some(text) if !text.is_empty() => Ok(Reply {
            text,
            usage,
            reasoning_tokens,
            finish_reason: choice.finish_reason,
            model: completion.model,
            request_id,
        }),
        _ => Err(ProviderError::Empty {
            finish_reason: choice.finish_reason.unwrap_or_else(|| "unknown".to_owned()),
            refusal: choice.message.refusal,
            usage,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(base_url: &str) -> Options {
        Options {
            model: "m".to_owned(),
            base_url: base_url.to_owned(),
            system_prompt: None,
            body: serde_json::Map::new(),
            headers: Vec::new(),
            transport: Transport::default(),
        }
    }

    #[test]
    fn a_request_holds_the_model_the_messages_and_the_extra_fields() {
        let mut options = options("http://localhost/v1");
        options.system_prompt = Some("Be brief.".to_owned());
        options.body.insert("temperature".to_owned(), 0.into());
        let request = serde_json::to_value(Request { options: &options, prompt: "Hi" }).unwrap();
        assert_eq!(
            request,
            serde_json::json!({"model": "m", "temperature": 0, "messages": [
                {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]})
        );
    }

    #[test]
    fn a_full_reply_is_read() {
        let body = br#"{"id": "c", "model": "m-1", "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hello", "refusal": null}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 1}}}"#;
        let reply = read_reply(body, Some("r".to_owned())).unwrap();
        assert_eq!(reply.text, "Hello");
        assert_eq!(reply.usage, Usage { input: 10, output: 2, total: 12, cached: 4 });
        assert_eq!(reply.reasoning_tokens, 1);
        assert_eq!((reply.model.as_deref(), reply.request_id.as_deref()), (Some("m-1"), Some("r")));
    }

    #[test]
    fn missing_and_null_counts_are_zero() {
        let body = br#"{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": null}}"#;
        assert_eq!(read_reply(body, None).unwrap().usage, Usage::default());
    }

    #[test]
    fn blanks_before_the_reply_do_not_matter() {
        assert!(read_reply(b"\n\n  {\"choices\": [{\"message\": {\"content\": \"x\"}}]}", None).is_ok());
    }

    #[test]
    fn replies_that_are_none_say_what_is_wrong() {
        let message = |body: &[u8]| read_reply(body, None).unwrap_err().to_string();
        assert!(message(b"<html>Bad gateway").contains("<html>Bad gateway"));
        assert!(message(b"{\"choices\": []}").contains("no choices"));
        assert!(message(b"{\"choices\": [{\"mess").contains("EOF"));
        let refused =
            br#"{"choices": [{"message": {"content": null, "refusal": "I can't"}, "finish_reason": "stop"}]}"#;
        assert!(message(refused).contains("I can't"));
        let inside = br#"{"error": {"message": "slow down", "code": 429}}"#;
        assert!(matches!(read_reply(inside, None), Err(ProviderError::Status { status: 429, .. })));
    }

    #[test]
    fn wrong_arguments_are_named_without_the_key() {
        let key = SecretString::from("sk-secret\n");
        let error = OpenAi::new(options("http://localhost"), Some(key)).err().unwrap();
        assert!(error.contains("api_key") && !error.contains("secret"));
        assert!(OpenAi::new(options("localhost:8000"), None).err().unwrap().contains("base_url"));
        assert!(OpenAi::new(options("ftp://x"), None).err().unwrap().contains("http://"));
    }
}
