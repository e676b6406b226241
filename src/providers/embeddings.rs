//! Embeddings: many texts in one request, and a result for each of them.
//!
//! OpenAI's `POST {base_url}/embeddings` (vectors as base64: a quarter of the bytes, and no numbers to parse) and
//! Google's `POST {base_url}/models/{model}:batchEmbedContents`. Texts wait a moment for others; a full pack is sent at
//! once. When a pack is rejected because of one of its texts, its halves are sent again, until that text is alone.
//! [`super::vectors`] reads replies. In batches each text is a request of its own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;
use http::header;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

mod batchable;

use super::address::endpoint;
use super::call::Batchable;
use super::client::Parts;
use super::dialect::Body;
use super::error::{Category, Contact, ProviderError};
use super::headers::extra_headers;
use super::keys::{KeyHeader, Keys};
use super::limits::Periods;
use super::options::Options;
use super::prompt::{Ask, Prompt};
use super::provider::{Attempt, Provider};
use super::redact::Secrets;
use super::reply::{Output, Reply, TokenUsage};
use super::table::Language;
use super::transport::{Received, Transport};
use super::vectors::{Vectors, vectors};
use super::{limits, numbers, status};

/// The field with the form of vectors.
const FORMAT: &str = "encoding_format";

/// Characters per token, for the limit of a pack: few, so that a pack is rather too small than rejected.
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
    base_url: String,
    /// Where requests go, below it.
    path: String,
    language: Language,
    keys: Keys,
    periods: Periods,
    options: Options,
    head: Bytes,
    /// The same for servers that have no base64; `None`: there is no other way to ask.
    plain_head: Option<Bytes>,
    /// Whether the server has none.
    is_plain: AtomicBool,
    transport: Transport,
    secrets: Secrets,
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
        let (path, head, plain_head) = match language {
            Language::Gemini => {
                let model = options.model.strip_prefix("models/").unwrap_or(&options.model);
                (format!("models/{model}:batchEmbedContents"), Map::new(), None)
            }
            Language::Chat(_) => {
                let mut fields = Map::new();
                fields.insert("model".to_owned(), json!(options.model));
                fields.insert(FORMAT.to_owned(), json!("base64"));
                fields.extend(options.dimensions.map(|length| ("dimensions".to_owned(), json!(length))));
                let mut plain = fields.clone();
                plain.remove(FORMAT);
                let plain = (!options.extra_body.contains_key(FORMAT)).then(|| options.with_extra(plain));
                ("embeddings".to_owned(), options.with_extra(fields), plain)
            }
            Language::Anthropic | Language::Bedrock | Language::Vertex => {
                return Err("embeddings of this provider are not supported; use another provider".to_owned());
            }
        };
        let url = endpoint(&parts.base_url, &path)?;
        let written = |head: &Map<String, Value>| {
            let written = serde_json::to_vec(head).map(|head| Bytes::from(numbers::with_digits(head)));
            written.map_err(|error| format!("the request cannot be written: {error}"))
        };
        let (head, plain_head) = (written(&head)?, plain_head.as_ref().map(written).transpose()?);
        let mut headers = extra_headers(&parts.headers)?;
        let urls = [parts.base_url.as_str(), parts.transport.proxy.as_deref().unwrap_or("")];
        let mut secrets = Secrets::new(parts.keys.values(), &urls, &headers);
        secrets.add_fields(&options.extra_body);
        let secrets = secrets.and_of(parts.signer.clone());
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        parts.keys.usual_header().iter().for_each(|key| key.put_on(&mut headers));
        let transport = Transport::new(parts.transport, url, headers)?.signed_by(parts.signer);
        let (keys, periods) = (parts.keys, parts.periods);
        Ok(Self(Arc::new(Inner {
            base_url: parts.base_url,
            path,
            language,
            keys,
            periods,
            options,
            head,
            plain_head,
            is_plain: AtomicBool::new(false),
            transport,
            secrets,
            limits,
            pack: Mutex::default(),
        })))
    }
}

impl Provider for Embedder {
    fn attempt(&self, ask: Ask) -> Attempt {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let text = text_of(&ask.prompt)?.to_owned();
            let (tell, told) = oneshot::channel();
            inner.enter(Waiting { text, tell }, ask.key);
            let mut outcome = told.await.unwrap_or_else(|_| {
                Err(ProviderError::Connection {
                    message: "the request with this text was cancelled".to_owned(),
                    contact: Contact::Some,
                })
            });
            inner.keys.for_all(&mut outcome);
            inner.periods.complete(&mut outcome);
            outcome
        })
    }

    fn batchable(&self) -> Option<Arc<dyn Batchable>> {
        Some(Arc::new(Self(Arc::clone(&self.0))))
    }
}

/// The text that is to be embedded.
fn text_of(prompt: &Prompt) -> Result<&str, ProviderError> {
    let why = match prompt {
        Prompt::Text(text) if !text.is_empty() => return Ok(text),
        Prompt::Text(_) => "the prompt is empty, and providers reject embeddings of empty texts",
        _ => "an embedding prompt must be a single text, not messages",
    };
    Err(ProviderError::Request(why.to_owned()))
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

    /// Sends a pack and tells everybody. When a text may be to blame for an error, finds out which.
    async fn deliver(self: Arc<Self>, texts: Vec<Waiting>, key: Option<secrecy::SecretString>) {
        let mut search = Search::new(texts.len());
        let mut parts = VecDeque::from([texts]);
        while let Some(mut part) = parts.pop_front() {
            part.retain(|waiting| !waiting.tell.is_closed());
            let Some(outcome) = self.ask(&mut part, key.as_ref()).await else { continue };
            match outcome {
                Ok(replies) => {
                    search.found_good();
                    for (waiting, reply) in part.into_iter().zip(replies) {
                        let _ = waiting.tell.send(reply);
                    }
                }
                Err(error) => {
                    let is_over = !may_be_one_text(&error) || search.is_over_with(&error);
                    if !is_over && part.len() > 1 {
                        let rest = part.split_off(part.len() / 2);
                        parts.extend([part, rest]);
                        if search.wants_single_texts() {
                            take_single_texts(&mut parts);
                        }
                        continue;
                    }
                    let others = if is_over { std::mem::take(&mut parts) } else { VecDeque::new() };
                    for waiting in part.into_iter().chain(others.into_iter().flatten()) {
                        let _ = waiting.tell.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Sends some texts in one request; `None` if nobody waits for them any more.
    async fn ask(
        &self,
        texts: &mut [Waiting],
        key: Option<&secrecy::SecretString>,
    ) -> Option<Result<Vec<Answered>, ProviderError>> {
        if texts.is_empty() {
            return None;
        }
        let (words, tells): (Vec<&str>, Vec<_>) =
            texts.iter_mut().map(|waiting| (waiting.text.as_str(), waiting.tell.closed())).unzip();
        let request = self.request(&words, key);
        let everybody_gone = join_all(tells);
        tokio::select! {
            outcome = request => Some(outcome),
            _ = everybody_gone => None,
        }
    }

    async fn request(
        &self,
        texts: &[&str],
        key: Option<&secrecy::SecretString>,
    ) -> Result<Vec<Answered>, ProviderError> {
        let key = self.keys.header(key).map_err(ProviderError::Request)?;
        let is_plain = self.is_plain.load(Ordering::Relaxed);
        let mut outcome = self.exchange(texts, is_plain, key.as_ref()).await;
        if !is_plain && self.plain_head.is_some() && outcome.as_ref().is_err_and(is_about_format) {
            self.is_plain.store(true, Ordering::Relaxed);
            outcome = self.exchange(texts, true, key.as_ref()).await;
        }
        if let Err(error) = &mut outcome {
            self.secrets.remove(error, key.as_ref().map(|key| &key.value));
        }
        outcome
    }

    async fn exchange(
        &self,
        texts: &[&str],
        is_plain: bool,
        key: Option<&KeyHeader>,
    ) -> Result<Vec<Answered>, ProviderError> {
        let head = self.plain_head.as_ref().filter(|_| is_plain).unwrap_or(&self.head);
        let mut body = Body::new(head, texts.iter().map(|text| text.len()).sum());
        self.write(texts, &mut body).map_err(ProviderError::Request)?;
        let mut body = body.finish();
        if matches!(self.language, Language::Gemini) && !self.options.extra_body.is_empty() {
            body = numbers::with_digits(body.joined().into()).into();
        }
        let mut received = self.transport.post(&body, key).await?;
        self.secrets.mask(&mut received, key.map(|key| &key.value));
        self.read(texts, received)
    }

    fn write(&self, texts: &[&str], body: &mut Body) -> Result<(), String> {
        if !matches!(self.language, Language::Gemini) {
            return body.field("input", &texts);
        }
        let requests: Vec<Value> = texts.iter().map(|text| self.gemini(text)).collect();
        body.field("requests", &requests)
    }

    /// What Gemini is asked about a text.
    fn gemini(&self, text: &str) -> Value {
        let model = self.options.model.strip_prefix("models/").unwrap_or(&self.options.model);
        let mut request = self.options.extra_body.clone();
        request.insert("model".to_owned(), json!(format!("models/{model}")));
        request.insert("content".to_owned(), json!({"parts": [{"text": text}]}));
        request.extend(self.options.dimensions.map(|length| ("outputDimensionality".to_owned(), json!(length))));
        Value::Object(request)
    }

    fn read(&self, texts: &[&str], received: Received) -> Result<Vec<Answered>, ProviderError> {
        let dimensions = self.options.dimensions;
        let Vectors { vectors, total, model } =
            vectors(self.language, texts.len(), dimensions, &received.body, &received.headers)?;
        let request_id = status::request_id(&received.headers);
        // One request, one report of limits: the first item passes it on.
        let mut limits = limits::read(&received.headers, limits::server_time(&received.headers, SystemTime::now()));
        let shares = shares(total, texts);
        Ok(vectors
            .into_iter()
            .zip(shares)
            .map(|(vector, tokens)| {
                Ok(Reply {
                    request_id: request_id.clone(),
                    limits: std::mem::take(&mut limits),
                    ..reply(vector?, tokens, model.clone())
                })
            })
            .collect())
    }
}

/// Whether a server rejects the form of vectors that it was asked for: some have no base64, or not the field.
fn is_about_format(error: &ProviderError) -> bool {
    matches!(error, ProviderError::Status { status: 400 | 404 | 422 | 500 | 501, message, .. }
        if message.contains(FORMAT) || message.to_ascii_lowercase().contains("base64"))
}

/// The reply with a vector.
fn reply(vector: Vec<f32>, tokens: u64, model: Option<String>) -> Reply {
    Reply {
        output: Output::Vector(vector),
        many: false,
        usage: TokenUsage { input: tokens, total: tokens, ..TokenUsage::default() },
        model,
        request_id: None,
        extras: Vec::new(),
        raw: None,
        processing_ms: None,
        first_token: None,
        limits: Vec::new(),
        account: None,
    }
}

impl Pack {
    fn take(&mut self) -> Vec<Waiting> {
        self.number += 1;
        self.characters = 0;
        std::mem::take(&mut self.texts)
    }
}

/// Whether an error may be the fault of one text among others: a text that is too long, or that a filter rejects.
fn may_be_one_text(error: &ProviderError) -> bool {
    /// Codes of what is wrong with the request as a whole (OpenAI, Azure).
    const WHOLE: &[&str] = &[
        "model_not_found",
        "invalid_model",
        "unsupported_model",
        "unsupported_parameter",
        "unknown_parameter",
        "unsupported_value",
        "invalid_api_version",
        "DeploymentNotFound",
        "OperationNotSupported",
        "FAILED_PRECONDITION",
    ];
    match error {
        ProviderError::Status { status: 400 | 413 | 422, category, code, .. } => {
            matches!(category, Category::Client | Category::ContentFilter)
                && !code.as_deref().is_some_and(|code| WHOLE.contains(&code))
        }
        _ => false,
    }
}

/// The search for the texts that are to blame for a pack's error.
struct Search {
    /// Requests that were rejected.
    rejected: u32,
    /// So many are enough to know that every text would be rejected.
    most: u32,
    first: Option<ProviderError>,
    /// Whether all errors were the same.
    alike: bool,
    /// Whether a part of the pack was accepted, so that the texts are to blame.
    found_good: bool,
}

impl Search {
    /// A pack, its halves, and single texts of it.
    const ENOUGH_ALIKE: u32 = 3 + SINGLE_TEXTS;

    fn new(texts: usize) -> Self {
        let most = 2 * texts.max(1).ilog2() + 4;
        Self { rejected: 0, most, first: None, alike: true, found_good: false }
    }

    fn found_good(&mut self) {
        self.found_good = true;
    }

    /// Counts a rejection. Whether there is nothing to search for: the pack, its halves and texts alone are all rejected
    /// with the same words, or nothing has been accepted for too long.
    fn is_over_with(&mut self, error: &ProviderError) -> bool {
        self.rejected += 1;
        let same = self.first.as_ref().is_none_or(|first| says_the_same(first, error));
        self.alike = self.alike && same;
        self.first.get_or_insert_with(|| error.clone());
        let enough = if self.alike { self.most.min(Self::ENOUGH_ALIKE) } else { self.most };
        !self.found_good && self.rejected >= enough
    }

    /// Whether the pack and both halves were rejected: then single texts tell most.
    fn wants_single_texts(&self) -> bool {
        !self.found_good && self.rejected == 3
    }
}

/// How many texts are asked about alone.
const SINGLE_TEXTS: u32 = 4;

/// Takes a text out of each of the first parts, to be sent next, alone.
fn take_single_texts(parts: &mut VecDeque<Vec<Waiting>>) {
    let large = parts.iter_mut().filter(|part| part.len() > 1).take(SINGLE_TEXTS as usize);
    let single: Vec<Waiting> = large.filter_map(Vec::pop).collect();
    for waiting in single {
        parts.push_front(vec![waiting]);
    }
}

/// Whether two errors are the same but for what differs from request to request.
fn says_the_same(one: &ProviderError, other: &ProviderError) -> bool {
    match (one, other) {
        (
            ProviderError::Status { status, code, message, .. },
            ProviderError::Status { status: other_status, code: other_code, message: other_message, .. },
        ) => (status, code, message) == (other_status, other_code, other_message),
        _ => false,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
