//! The dialects as a server speaks them: reads questions, writes answers and errors.

use serde_json::{Value, json};

use super::faults::FaultKind;
use super::invalid::Invalid;
use super::model::{Question, Said, tokens};
use super::quota::{Bucket, Quota};
use super::{anthropic, chat, gemini, openai};

/// What a path is served by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OpenAI's Chat Completions.
    Chat,
    /// OpenAI's Responses.
    Responses,
    /// OpenAI's embeddings.
    Embeddings,
    /// Anthropic's Messages.
    Anthropic,
    /// Google's generateContent.
    Gemini,
    /// Google's batchEmbedContents.
    GeminiEmbeddings,
}

/// Everything about one answer that its writing needs.
pub struct Answer<'a> {
    /// The question.
    pub question: &'a Question,
    /// The samples.
    pub said: &'a [Said],
    /// The vectors.
    pub vectors: &'a [Vec<f32>],
    /// A number of the question's own.
    pub digest: u64,
}

impl Answer<'_> {
    /// Tokens of all samples.
    pub fn output_tokens(&self) -> usize {
        let of = |said: &Said| {
            said.calls.iter().map(|(_, arguments)| tokens(&arguments.to_string())).sum::<usize>() + tokens(&said.text)
        };
        self.said.iter().map(of).sum()
    }
}

/// The paths that are served, for the message to whoever asks for another one.
pub const PATHS: &str = "/v1/chat/completions, /v1/responses, /v1/embeddings, /v1/messages, \
                         /v1beta/models/MODEL:generateContent, \
                         /v1beta/models/MODEL:batchEmbedContents, \
                         /v1beta/cachedContents (these also under /v1)";

impl Protocol {
    /// The protocol of a path, and the model that the path names.
    pub fn of(path: &str) -> Option<(Self, Option<&str>)> {
        // Azure has OpenAI's paths below a path of its own.
        let path = path.strip_prefix("/openai").unwrap_or(path);
        Some(match path {
            "/v1/chat/completions" => (Self::Chat, None),
            "/v1/responses" => (Self::Responses, None),
            "/v1/embeddings" => (Self::Embeddings, None),
            "/v1/messages" => (Self::Anthropic, None),
            _ => {
                let path = path.strip_prefix("/v1beta/models/").or_else(|| path.strip_prefix("/v1/models/"))?;
                let (model, verb) = path.rsplit_once(':')?;
                match verb {
                    "generateContent" => (Self::Gemini, Some(model)),
                    "batchEmbedContents" => (Self::GeminiEmbeddings, Some(model)),
                    _ => return None,
                }
            }
        })
    }

    /// The header that carries the key.
    pub fn key_headers(self) -> &'static [&'static str] {
        match self {
            Self::Anthropic => &["x-api-key", "authorization"],
            Self::Gemini | Self::GeminiEmbeddings => &["x-goog-api-key"],
            _ => &["authorization", "api-key"],
        }
    }

    /// Reads a question, or says what is wrong with it.
    pub fn question(self, body: &[u8], model: Option<&str>) -> Result<Question, Invalid> {
        let parsed = || serde_json::from_slice::<Value>(body).map_err(|error| error.to_string());
        let model = model.unwrap_or_default();
        match self {
            Self::Chat => chat::question(body),
            Self::Responses => openai::responses_question(&parsed()?),
            Self::Embeddings => Ok(openai::embeddings_question(&parsed()?)?),
            Self::Anthropic => anthropic::question(&parsed()?),
            Self::Gemini => gemini::question(&parsed()?, model),
            Self::GeminiEmbeddings => Ok(gemini::embeddings_question(&parsed()?, model)?),
        }
    }

    /// Writes an answer, JSON text.
    pub fn answer(self, answer: &Answer<'_>) -> Vec<u8> {
        let value = match self {
            Self::Chat => return text(&chat::answer(answer)),
            Self::Responses => openai::responses_answer(answer),
            Self::Embeddings => openai::embeddings_answer(answer),
            Self::Anthropic => anthropic::answer(answer),
            Self::Gemini => gemini::answer(answer),
            Self::GeminiEmbeddings => gemini::embeddings_answer(answer),
        };
        text(&value)
    }

    /// The status and the body of an error, in the dialect's words.
    pub fn error(self, kind: FaultKind, retry_after: Option<f64>) -> (u16, Value) {
        match self {
            Self::Anthropic => anthropic::error(kind),
            Self::Gemini | Self::GeminiEmbeddings => gemini::error(kind, retry_after),
            _ => openai::error(kind),
        }
    }

    /// The error of a request that cannot be understood.
    pub fn invalid(self, problem: &Invalid) -> Value {
        let Invalid { message, code, param } = problem;
        match self {
            Self::Anthropic => json!({"type": "error", "error": {"type": "invalid_request_error", "message": message}}),
            Self::Gemini | Self::GeminiEmbeddings => {
                json!({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": message}})
            }
            _ => json!({"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}),
        }
    }

    /// What the headers say about limits; Google's say nothing.
    pub fn limit_headers(self, quota: &Quota, now: std::time::SystemTime) -> Vec<(String, String)> {
        let both = [("requests", &quota.requests), ("tokens", &quota.tokens)];
        let known = both.into_iter().filter_map(|(name, bucket)| Some((name, bucket.as_ref()?)));
        match self {
            Self::Gemini | Self::GeminiEmbeddings => Vec::new(),
            Self::Anthropic => known.flat_map(|(name, bucket)| anthropic::limit_headers(name, bucket, now)).collect(),
            _ => known.flat_map(|(name, bucket)| openai::limit_headers(name, bucket)).collect(),
        }
    }
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
