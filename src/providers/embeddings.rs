//! Embeddings: many texts in one request, and a result for each of them.
//!
//! OpenAI's `POST {base_url}/embeddings` (vectors as base64: a quarter of the bytes, and no numbers to parse) and
//! Google's `POST {base_url}/models/{model}:batchEmbedContents`. Texts wait a moment for others; a full pack is sent at
//! once. When a pack is refused because of one of its texts, its halves are sent again, until that text is alone.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::client::{Parts, endpoint, extra_headers};
use super::dialect::{Body, error_inside};
use super::json::{bad, parse};
use super::keys::Keys;
use super::prompt::{Ask, Prompt};
use super::reply::{Output, TokenUsage};
use super::table::Language;
use super::transport::{Received, Transport};
use super::{Attempt, Category, Options, Provider, ProviderError, Reply, limits, numbers, status};

const PROTOCOL: &str = "embeddings";
/// Characters per token, for the limit of a pack: few, so that a pack is rather too small than refused.
const CHARACTERS_PER_TOKEN: usize = 3;

/// Limits of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackLimits {
    /// Texts.
    pub items: usize,
    /// Tokens of all texts, estimated.
    pub tokens: usize,
    /// How long the first text of a pack waits for others.
    pub linger: Duration,
}

/// A client for one embedding model at one provider.
pub struct Embedder(Arc<Inner>);

struct Inner {
    language: Language,
    keys: Keys,
    options: Options,
    head: Vec<u8>,
    transport: Transport,
    limits: PackLimits,
    pack: Mutex<Pack>,
}

type Answered = Result<Reply, ProviderError>;

/// A text that waits, and who waits for its vector.
struct Waiting {
    text: String,
    tell: oneshot::Sender<Answered>,
}

#[derive(Default)]
struct Pack {
    texts: Vec<Waiting>,
    characters: usize,
    /// Grows with each pack that is sent, so that a timer knows whether its pack is still there.
    number: u64,
}

impl Embedder {
    /// Prepares the client; nothing is sent. The dialect of `parts` is not used.
    ///
    /// # Errors
    /// A message that says which argument is wrong. It never holds the key.
    pub fn new(parts: Parts, language: Language, limits: PackLimits) -> Result<Self, String> {
        let options = parts.options;
        let (path, head) = match language {
            Language::Gemini => {
                let model = options.model.strip_prefix("models/").unwrap_or(&options.model);
                (format!("models/{model}:batchEmbedContents"), Map::new())
            }
            Language::Chat(_) => {
                let mut fields = Map::new();
                fields.insert("model".to_owned(), json!(options.model));
                fields.insert("encoding_format".to_owned(), json!("base64"));
                fields.extend(options.dimensions.map(|length| ("dimensions".to_owned(), json!(length))));
                ("embeddings".to_owned(), options.with_extra(fields))
            }
            Language::Anthropic => return Err("Anthropic has no embeddings; use another provider".to_owned()),
        };
        let url = endpoint(&parts.base_url, &path)?;
        let head = serde_json::to_vec(&head)
            .map(numbers::with_digits)
            .map_err(|error| format!("the request cannot be written: {error}"))?;
        let mut headers = extra_headers(&parts.headers)?;
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        headers.extend(parts.keys.usual_header());
        let transport = Transport::new(parts.transport, url, headers)?;
        let keys = parts.keys;
        Ok(Self(Arc::new(Inner { language, keys, options, head, transport, limits, pack: Mutex::default() })))
    }
}

impl Provider for Embedder {
    fn attempt(&self, ask: Ask) -> Attempt {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let Prompt::Text(text) = ask.prompt else {
                return Err(ProviderError::Request("an embedding is made of one text, not of messages".to_owned()));
            };
            if text.is_empty() {
                return Err(ProviderError::Request("an embedding of an empty text is refused by providers".to_owned()));
            }
            let (tell, told) = oneshot::channel();
            inner.enter(Waiting { text, tell }, ask.key);
            told.await.unwrap_or_else(|_| {
                Err(ProviderError::Connection { message: "the pack of this text was dropped".to_owned() })
            })
        })
    }
}

impl Inner {
    /// Puts a text into the pack; sends the pack if it is full.
    fn enter(self: &Arc<Self>, waiting: Waiting, key: Option<secrecy::SecretString>) {
        let mut pack = self.pack.lock().unwrap_or_else(PoisonError::into_inner);
        let most = self.limits.tokens.saturating_mul(CHARACTERS_PER_TOKEN);
        let full_without = !pack.texts.is_empty() && pack.characters + waiting.text.len() > most;
        let before = full_without.then(|| pack.take());
        pack.characters += waiting.text.len();
        pack.texts.push(waiting);
        let now = (pack.texts.len() >= self.limits.items).then(|| pack.take());
        let wait_for = (now.is_none() && pack.texts.len() == 1).then_some(pack.number);
        drop(pack);
        for texts in before.into_iter().chain(now) {
            tokio::spawn(Arc::clone(self).deliver(texts, key.clone()));
        }
        if let Some(number) = wait_for {
            let inner = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(inner.limits.linger).await;
                let texts = {
                    let mut pack = inner.pack.lock().unwrap_or_else(PoisonError::into_inner);
                    if pack.number != number {
                        return;
                    }
                    pack.take()
                };
                inner.deliver(texts, key).await;
            });
        }
    }

    /// Sends a pack and tells everybody.
    fn deliver(
        self: Arc<Self>,
        mut texts: Vec<Waiting>,
        key: Option<secrecy::SecretString>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            texts.retain(|waiting| !waiting.tell.is_closed());
            if texts.is_empty() {
                return;
            }
            let outcome = {
                let (words, tells): (Vec<&str>, Vec<_>) =
                    texts.iter_mut().map(|waiting| (waiting.text.as_str(), waiting.tell.closed())).unzip();
                let request = self.request(&words, key.as_ref());
                let everybody_gone = join_all(tells);
                tokio::select! {
                    outcome = request => outcome,
                    _ = everybody_gone => return,
                }
            };
            match outcome {
                Ok(replies) => {
                    for (waiting, reply) in texts.into_iter().zip(replies) {
                        let _ = waiting.tell.send(Ok(reply));
                    }
                }
                // One of them is to blame: find out which.
                Err(error) if error.category() == Category::Client && texts.len() > 1 => {
                    let rest = texts.split_off(texts.len() / 2);
                    Arc::clone(&self).deliver(texts, key.clone()).await;
                    self.deliver(rest, key).await;
                }
                Err(error) => {
                    for waiting in texts {
                        let _ = waiting.tell.send(Err(error.clone()));
                    }
                }
            }
        })
    }

    async fn request(&self, texts: &[&str], key: Option<&secrecy::SecretString>) -> Result<Vec<Reply>, ProviderError> {
        let key = self.keys.header(key).map_err(ProviderError::Request)?;
        let mut body = Body::new(&self.head, texts.iter().map(|text| text.len()).sum());
        self.write(texts, &mut body).map_err(ProviderError::Request)?;
        let body = body.finish();
        self.read(texts, self.transport.post(&body.into(), key.as_ref()).await?)
    }

    fn write(&self, texts: &[&str], body: &mut Body) -> Result<(), String> {
        if !matches!(self.language, Language::Gemini) {
            return body.field("input", &texts);
        }
        let model = self.options.model.strip_prefix("models/").unwrap_or(&self.options.model);
        let requests: Vec<Value> = texts
            .iter()
            .map(|text| {
                let mut request = self.options.extra_body.clone();
                request.insert("model".to_owned(), json!(format!("models/{model}")));
                request.insert("content".to_owned(), json!({"parts": [{"text": text}]}));
                request
                    .extend(self.options.dimensions.map(|length| ("outputDimensionality".to_owned(), json!(length))));
                Value::Object(request)
            })
            .collect();
        body.field("requests", &requests)
    }

    fn read(&self, texts: &[&str], received: Received) -> Result<Vec<Reply>, ProviderError> {
        let Vectors { vectors, total, model } = vectors(self.language, texts.len(), &received.body, &received.headers)?;
        let request_id = status::request_id(&received.headers);
        // One request, one word on limits: the first item passes it on.
        let mut limits = limits::read(&received.headers, SystemTime::now());
        let shares = shares(total, texts);
        Ok(vectors
            .into_iter()
            .zip(shares)
            .map(|(vector, tokens)| Reply {
                output: Output::Vector(vector),
                many: false,
                usage: TokenUsage { input: tokens, total: tokens, ..TokenUsage::default() },
                model: model.clone(),
                request_id: request_id.clone(),
                extras: Vec::new(),
                raw: None,
                processing_ms: None,
                limits: std::mem::take(&mut limits),
            })
            .collect())
    }
}

impl Pack {
    fn take(&mut self) -> Vec<Waiting> {
        self.number += 1;
        self.characters = 0;
        std::mem::take(&mut self.texts)
    }
}

/// What a reply holds.
pub(super) struct Vectors {
    /// One for each text.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts; 0: not told.
    total: u64,
    model: Option<String>,
}

/// Reads the vectors of so many texts.
pub(super) fn vectors(
    language: Language,
    texts: usize,
    body: &[u8],
    headers: &HeaderMap,
) -> Result<Vectors, ProviderError> {
    let mut total = 0;
    let mut model = None;
    let mut found: Vec<Option<Vec<f32>>>;
    if language == Language::Gemini {
        let reply: GeminiReply = parse(PROTOCOL, body)?;
        error_inside(reply.error, headers)?;
        found = reply.embeddings.into_iter().map(|one| Some(one.values)).collect();
    } else {
        let reply: OpenAiReply = parse(PROTOCOL, body)?;
        error_inside(reply.error, headers)?;
        found = vec![None; texts];
        for (place, one) in reply.data.into_iter().enumerate() {
            let index = one.index.unwrap_or(place);
            let vector = one.embedding.decode().map_err(|problem| bad(PROTOCOL, body, problem))?;
            let slot = found.get_mut(index);
            *slot.ok_or_else(|| bad(PROTOCOL, body, format!("it has a vector number {index}")))? = Some(vector);
        }
        total = reply.usage.and_then(|usage| usage.prompt_tokens).unwrap_or(0);
        model = reply.model;
    }
    let vectors: Vec<Vec<f32>> = found.into_iter().flatten().collect();
    if vectors.len() != texts {
        return Err(bad(PROTOCOL, body, format!("it has {} vectors for {texts} texts", vectors.len())));
    }
    Ok(Vectors { vectors, total, model })
}

/// A pack's tokens, shared out by the length of its texts; the shares add up to the total.
fn shares(total: u64, texts: &[&str]) -> Vec<u64> {
    let all: u128 = texts.iter().map(|text| text.len() as u128).sum::<u128>().max(1);
    let mut before: u128 = 0;
    texts
        .iter()
        .map(|text| {
            let from = before * u128::from(total) / all;
            before += text.len() as u128;
            u64::try_from(before * u128::from(total) / all - from).unwrap_or(u64::MAX)
        })
        .collect()
}

#[derive(Deserialize)]
struct OpenAiReply {
    #[serde(default)]
    data: Vec<OpenAiVector>,
    model: Option<String>,
    usage: Option<Counts>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct OpenAiVector {
    index: Option<usize>,
    embedding: Encoded,
}

/// Base64, as asked for; some servers send numbers all the same.
#[derive(Deserialize)]
#[serde(untagged)]
enum Encoded {
    Base64(String),
    Numbers(Vec<f32>),
}

impl Encoded {
    fn decode(self) -> Result<Vec<f32>, String> {
        match self {
            Self::Numbers(numbers) => Ok(numbers),
            Self::Base64(text) => {
                let bytes = STANDARD.decode(text).map_err(|error| format!("a vector is not base64: {error}"))?;
                let (floats, rest) = bytes.as_chunks::<4>();
                if rest.is_empty() {
                    Ok(floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
                } else {
                    Err("a vector is not made of 32-bit numbers".to_owned())
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct Counts {
    prompt_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct GeminiReply {
    #[serde(default)]
    embeddings: Vec<GeminiVector>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct GeminiVector {
    values: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vectors_are_read_in_both_forms() {
        let bytes: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(Encoded::Base64(STANDARD.encode(bytes)).decode(), Ok(vec![1.5, -2.0]));
        assert_eq!(Encoded::Numbers(vec![0.5]).decode(), Ok(vec![0.5]));
        assert!(Encoded::Base64("AAA=".to_owned()).decode().is_err());
        assert!(Encoded::Base64("?".to_owned()).decode().is_err());
    }

    proptest! {
        #[test]
        fn shares_add_up(total in 0u64..1_000_000, texts in prop::collection::vec("[a-z]{0,40}", 1..50)) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let shares = shares(total, &texts);
            let any = texts.iter().any(|text| !text.is_empty());
            prop_assert_eq!(shares.iter().sum::<u64>(), if any { total } else { 0 });
        }
    }
}
