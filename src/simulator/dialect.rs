//! What a dialect is to a server: it reads questions, writes answers and errors. [`dialects`](super::dialects) has them.

use std::time::SystemTime;

use serde_json::Value;

use super::faults::FaultKind;
use super::invalid::Invalid;
use super::model::{Completion, Question, tokens};
use super::prompt_caches::prompt::Prompt;
use super::quota::{Bucket, Quota};
use super::streams::event::Streaming;

/// Everything about one answer that its writing needs.
pub struct Answer<'a> {
    /// The question.
    pub question: &'a Question,
    /// The samples.
    pub completions: &'a [Completion],
    /// The vectors.
    pub vectors: &'a [Vec<f32>],
    /// A number of the question's own.
    pub digest: u64,
}

impl Answer<'_> {
    /// Tokens of all samples.
    pub fn output_tokens(&self) -> usize {
        output_tokens(self.completions)
    }
}

/// Tokens of samples.
pub fn output_tokens(completions: &[Completion]) -> usize {
    let of = |completion: &Completion| {
        completion.calls.iter().map(|(_, arguments)| tokens(&arguments.to_string())).sum::<usize>()
            + tokens(&completion.text)
    };
    completions.iter().map(of).sum()
}

/// A vendor's language, as its server speaks it. Implementations are pure.
pub trait Dialect: Send + Sync {
    /// The headers that may carry the key.
    fn key_headers(&self) -> &'static [&'static str];

    /// Reads a question, or says what is wrong with it. `model`: the one that the path names.
    fn question(&self, body: &[u8], model: Option<&str>) -> Result<Question, Invalid>;

    /// The prompt as prompt caches see it, or what is wrong with its marks. `None`: it is not cached.
    fn prompt(&self, _body: &[u8], _model: Option<&str>) -> Result<Option<Prompt>, Invalid> {
        Ok(None)
    }

    /// Writes an answer, JSON text.
    fn answer(&self, answer: &Answer<'_>) -> Vec<u8>;

    /// Whether it only counts the tokens of prompts, which costs nothing.
    fn only_counts(&self) -> bool {
        false
    }

    /// How answers are streamed, if they can be.
    fn streaming(&self) -> Option<&'static Streaming> {
        None
    }

    /// The status and the body of an error.
    fn error(&self, kind: FaultKind, retry_after: Option<f64>) -> (u16, Value);

    /// The error of a request that cannot be understood.
    fn invalid(&self, problem: &Invalid) -> Value;

    /// What the headers report about limits.
    fn limit_headers(&self, _quota: &Quota, _now: SystemTime) -> Vec<Header> {
        Vec::new()
    }

    /// The headers of a rate limit that say how many seconds to wait.
    fn retry_headers(&self, _wait: f64) -> Vec<Header> {
        Vec::new()
    }
}

/// Name and value.
pub type Header = (String, String);

/// The limits that a server has, by the names that headers give them.
pub fn limits_of(quota: &Quota) -> impl Iterator<Item = (&'static str, &Bucket)> {
    let both = [("requests", &quota.requests), ("tokens", &quota.tokens)];
    both.into_iter().filter_map(|(name, bucket)| Some((name, bucket.as_ref()?)))
}

/// A body as a tree of values.
pub fn tree(body: &[u8]) -> Result<Value, Invalid> {
    Ok(serde_json::from_slice(body).map_err(|error| error.to_string())?)
}

/// JSON text of what the simulator has made itself, which can be written.
pub fn text(value: &impl serde::Serialize) -> Vec<u8> {
    let mut text = Vec::with_capacity(1024); // most answers are shorter
    if serde_json::to_writer(&mut text, value).is_err() {
        text.clear();
    }
    text
}

/// What is left in a bucket, as headers say it.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn left(bucket: &Bucket) -> u64 {
    bucket.level.max(0.0) as u64
}

/// All texts inside a value: strings, and the field `text` of parts, however deep.
pub fn words(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(parts) => parts.iter().for_each(|part| words(part, into)),
        Value::Object(object) => {
            for name in ["text", "content", "parts", "output"] {
                if let Some(inner) = object.get(name) {
                    words(inner, into);
                }
            }
        }
        _ => {}
    }
}

/// What tells the ids of further calls of one answer from the first's.
pub fn more(number: usize) -> String {
    if number == 0 { String::new() } else { format!("_{number}") }
}

/// A required string field.
pub fn text_field(body: &Value, name: &str) -> Result<String, String> {
    match body.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("{name} must be a string, not {other}")),
        None => Err(format!("{name} is missing")),
    }
}

/// A number field as a size.
pub fn size_field(body: &Value, name: &str) -> Option<usize> {
    body.get(name).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok())
}
