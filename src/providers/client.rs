//! One strategy's client: a question in, an answer out, in the dialect and over the connections it was given.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Url;

use super::dialect::{Answer, Body, Dialect};
use super::error::{Category, Unusable};
use super::keys::{KeyHeader, Keys};
use super::prompt::Ask;
use super::reply::{Choice, Finish, Output};
use super::schema::{Check, find_json};
use super::transport::{Received, Transport, TransportOptions};
use super::{Attempt, Options, Provider, ProviderError, Reply, limits, status};

/// What a client is made of.
pub struct Parts {
    /// The language it speaks.
    pub dialect: Box<dyn Dialect>,
    /// Where the provider is, up to the dialect's path; a query is kept.
    pub base_url: String,
    /// The keys.
    pub keys: Keys,
    /// What every request asks for.
    pub options: Options,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// How to connect.
    pub transport: TransportOptions,
    /// Whether replies carry their whole body.
    pub raw: bool,
}

/// A client for one model at one provider.
pub struct Client(Arc<Inner>);

struct Inner {
    dialect: Box<dyn Dialect>,
    keys: Keys,
    options: Options,
    /// The fields of every request, written once.
    head: Vec<u8>,
    check: Option<Check>,
    transport: Transport,
    raw: bool,
}

impl Client {
    /// Prepares the client; nothing is sent.
    ///
    /// # Errors
    /// A message that says which argument is wrong. It never holds the key.
    pub fn new(parts: Parts) -> Result<Self, String> {
        let Parts { dialect, base_url, keys, options, headers, transport, raw } = parts;
        let url = endpoint(&base_url, &dialect.path(&options.model))?;
        let head = serde_json::to_vec(&dialect.fields(&options)?)
            .map_err(|error| format!("the request cannot be written as JSON: {error}"))?;
        let check = match &options.schema {
            Some(wanted) if wanted.check => Some(Check::new(&wanted.schema)?),
            _ => None,
        };
        let mut fixed = HeaderMap::new();
        fixed.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in dialect.headers() {
            fixed.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        fixed.extend(extra_headers(&headers)?);
        fixed.extend(keys.usual_header());
        let transport = Transport::new(transport, url, fixed)?;
        Ok(Self(Arc::new(Inner { dialect, keys, options, head, check, transport, raw })))
    }
}

impl Provider for Client {
    fn attempt(&self, ask: Ask) -> Attempt {
        let client = Arc::clone(&self.0);
        Box::pin(async move {
            let question = client.question(ask);
            let mut outcome = match &question {
                Ok((body, key)) => client.ask(body, key.as_ref()).await,
                Err(problem) => Err(ProviderError::Request(problem.clone())),
            };
            client.keys.for_all(&mut outcome);
            outcome
        })
    }
}

impl Inner {
    /// A request's body, and the header with its key if that is not the usual one.
    fn question(&self, ask: Ask) -> Result<(Bytes, Option<KeyHeader>), String> {
        let key = self.keys.header(ask.key.as_ref())?;
        let mut body = Body::new(&self.head, ask.characters());
        self.dialect.conversation(&self.options, &ask, &mut body)?;
        Ok((body.finish().into(), key))
    }

    async fn ask(&self, body: &Bytes, key: Option<&KeyHeader>) -> Result<Reply, ProviderError> {
        let received = self.transport.post(body, key).await?;
        let answer =
            self.dialect.read(&received.body, &received.headers).map_err(|error| with_type(error, &received))?;
        self.finish(answer, received)
    }

    /// Sees to it that an answer is of use.
    fn finish(&self, answer: Answer, received: Received) -> Result<Reply, ProviderError> {
        let request_id = status::request_id(&received.headers);
        let limits = limits::read(&received.headers, SystemTime::now());
        let processing_ms = status::processing_ms(&received.headers);
        let Answer { mut choices, usage, model, extras } = answer;
        let verdicts: Vec<Option<Category>> = choices.iter().map(|choice| self.unusable(choice)).collect();
        if let Some(Some(category)) = verdicts.first()
            && verdicts.iter().all(Option::is_some)
        {
            let first = choices.swap_remove(0);
            return Err(ProviderError::Unusable(Unusable {
                category: *category,
                finish_reason: first.finish.name(),
                text: first.refusal.unwrap_or(first.text),
                usage,
                request_id,
            }));
        }
        // Of several samples, those that are of no use are left out.
        let mut verdicts = verdicts.into_iter();
        choices.retain(|_| verdicts.next().flatten().is_none());
        if self.options.schema.is_some() {
            for choice in choices.iter_mut().filter(|choice| choice.tool_calls.is_empty()) {
                if let Err(problem) = self.structure(choice) {
                    let text = std::mem::take(&mut choice.text);
                    return Err(ProviderError::Validation { problem, text, usage, request_id });
                }
            }
        }
        let raw = self.raw.then_some(received.body);
        let many = self.options.n.is_some_and(|n| n > 1);
        Ok(Reply { output: Output::Chat(choices), many, usage, model, request_id, extras, raw, processing_ms, limits })
    }

    fn unusable(&self, choice: &Choice) -> Option<Category> {
        let says_nothing = choice.text.trim().is_empty() && choice.tool_calls.is_empty();
        match choice.finish {
            Finish::Refusal => Some(Category::Refusal),
            Finish::ContentFilter => Some(Category::ContentFilter),
            Finish::Length if says_nothing || self.options.schema.is_some() => Some(Category::Truncated),
            _ if says_nothing => Some(Category::Empty),
            _ => None,
        }
    }

    /// Reduces an answer to its JSON, and checks it if that is done here.
    fn structure(&self, choice: &mut Choice) -> Result<(), String> {
        match (find_json(&choice.text), &self.check) {
            (Ok(json), None) if json.len() == choice.text.len() => Ok(()),
            (Ok(json), None) => {
                choice.text = json.to_owned();
                Ok(())
            }
            // Whoever checks above says what is wrong with it in words of their own.
            (Err(_), None) => Ok(()),
            (Err(problem), Some(_)) => Err(problem),
            (Ok(json), Some(check)) => {
                let value = serde_json::from_str(json).map_err(|error| error.to_string())?;
                check.apply(&value)?;
                choice.value = Some(value);
                Ok(())
            }
        }
    }
}

/// The address of requests: the base URL, the dialect's path, and the base URL's query.
pub fn endpoint(base_url: &str, path: &str) -> Result<Url, String> {
    let mut url = Url::parse(base_url).map_err(|error| format!("base_url is not a valid URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("base_url must begin with http:// or https://, not {}://", url.scheme()));
    }
    // A base URL that ends in the version already is meant with it.
    let base = url.path().trim_end_matches('/');
    let path = if base.ends_with("/v1") { path.strip_prefix("v1/").unwrap_or(path) } else { path };
    let whole = format!("{base}/{path}");
    url.set_path(&whole);
    Ok(url)
}

/// Headers that the user adds. Their values may be secret.
pub fn extra_headers(headers: &[(String, String)]) -> Result<HeaderMap, String> {
    headers
        .iter()
        .map(|(name, value)| {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("extra_headers: {name:?} is not a valid header name"))?;
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| format!("extra_headers: the value of {name:?} has characters a header cannot carry"))?;
            value.set_sensitive(true);
            Ok((header, value))
        })
        .collect()
}

/// Adds what the content type tells to an error about a body that is none.
fn with_type(error: ProviderError, received: &Received) -> ProviderError {
    let kind = received.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match error {
        ProviderError::Protocol { protocol, problem, excerpt } if kind.starts_with("text/html") => {
            let problem = format!("it is an HTML page, perhaps of a proxy on the way ({problem})");
            ProviderError::Protocol { protocol, problem, excerpt }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::keys::Auth;
    use crate::providers::{table, testing};
    use serde_json::json;

    fn client(options: serde_json::Value) -> Client {
        Client::new(Parts {
            dialect: table::row("openai").unwrap().dialect(false),
            base_url: "http://localhost/v1".to_owned(),
            keys: Keys::new(Auth::Bearer, &[]).unwrap(),
            options: testing::options(options),
            headers: vec![],
            transport: TransportOptions::default(),
            raw: false,
        })
        .unwrap()
    }

    fn finish(client: &Client, choices: serde_json::Value) -> Result<Reply, ProviderError> {
        let body = json!({"choices": choices, "usage": {"prompt_tokens": 3}}).to_string();
        let received = Received { headers: HeaderMap::new(), body: Bytes::from(body) };
        let answer = client.0.dialect.read(&received.body, &received.headers)?;
        client.0.finish(answer, received)
    }

    fn category(result: Result<Reply, ProviderError>) -> Option<&'static str> {
        result.err().map(|error| error.category().name())
    }

    #[test]
    fn answers_of_no_use_are_told_apart_and_counted() {
        let (text, structured) =
            (client(json!({})), client(json!({"schema": {"name": "S", "schema": {"type": "object"}, "check": true}})));
        let said = |content: &str, finish: &str| json!([{"message": {"content": content}, "finish_reason": finish}]);
        let refusal = json!([{"message": {"content": null, "refusal": "I can't"}}]);
        assert_eq!(category(finish(&text, refusal.clone())), Some("refusal"));
        assert!(finish(&text, refusal).unwrap_err().to_string().contains("I can't"));
        assert_eq!(category(finish(&text, said("", "content_filter"))), Some("content_filter"));
        assert_eq!(category(finish(&text, said("", "stop"))), Some("empty_response"));
        assert_eq!(category(finish(&text, said("", "length"))), Some("truncated"));
        // A text that is cut off is a text; an object that is cut off is none.
        assert_eq!(category(finish(&text, said("Once upon", "length"))), None);
        let cut = finish(&structured, said("{\"a\":", "length")).unwrap_err();
        assert_eq!((cut.category().name(), cut.usage().unwrap().input), ("truncated", 3));
        let calls = json!([{"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}]);
        assert_eq!(category(finish(&structured, calls)), None);
    }

    #[test]
    fn checked_answers_are_values() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        let client = client(json!({"schema": {"name": "S", "schema": schema, "check": true}}));
        let said = |content: &str| json!([{"message": {"content": content}, "finish_reason": "stop"}]);
        let reply = finish(&client, said("```json\n{\"n\": 1}\n```")).unwrap();
        assert_eq!(reply.choices()[0].value, Some(json!({"n": 1})));
        let error = finish(&client, said("{\"n\": \"x\"}")).unwrap_err();
        assert!(matches!(&error, ProviderError::Validation { text, .. } if text == "{\"n\": \"x\"}"), "{error}");
        assert!(finish(&client, said("no")).unwrap_err().to_string().contains("no JSON"));
    }

    #[test]
    fn samples_of_no_use_are_left_out() {
        let samples =
            json!([{"message": {"content": "a"}}, {"message": {"content": ""}}, {"message": {"content": "c"}}]);
        let reply = finish(&client(json!({"n": 3})), samples).unwrap();
        let texts: Vec<&str> = reply.choices().iter().map(|choice| choice.text.as_str()).collect();
        assert_eq!(texts, ["a", "c"]);
    }

    #[test]
    fn addresses_are_put_together() {
        for (base, path, expected) in [
            ("http://h/v1", "chat/completions", "http://h/v1/chat/completions"),
            ("http://h/v1/", "chat/completions", "http://h/v1/chat/completions"),
            ("https://api.anthropic.com", "v1/messages", "https://api.anthropic.com/v1/messages"),
            ("https://proxy/v1", "v1/messages", "https://proxy/v1/messages"),
            (
                "https://r/openai/deployments/d?api-version=1",
                "chat/completions",
                "https://r/openai/deployments/d/chat/completions?api-version=1",
            ),
            ("http://h/v1beta", "models/m:generateContent", "http://h/v1beta/models/m:generateContent"),
        ] {
            assert_eq!(endpoint(base, path).unwrap().as_str(), expected);
        }
        assert!(endpoint("localhost:8000", "x").unwrap_err().contains("base_url"));
        assert!(endpoint("ftp://x", "x").unwrap_err().contains("http://"));
    }

    #[test]
    fn html_is_called_by_its_name() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        let received = Received { headers, body: Bytes::from_static(b"<html>") };
        let error = client(json!({})).0.dialect.read(&received.body, &received.headers).unwrap_err();
        assert!(with_type(error, &received).to_string().contains("HTML page"));
    }

    #[test]
    fn an_open_request_takes_little() {
        let attempt = client(json!({})).attempt(Ask::new(crate::providers::Prompt::Text(String::new())));
        // What is longer, malloc's caches for small blocks (glibc: up to 1,032 bytes) do not serve.
        assert!(size_of_val(&*attempt) <= 1024, "{} bytes", size_of_val(&*attempt));
    }
}
