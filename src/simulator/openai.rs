//! What OpenAI's APIs have in common: keys, errors and headers. ([`chat`](super::chat),
//! [`responses`](super::responses) and [`embeddings`](super::embeddings) are one each.)

use std::time::SystemTime;

use serde_json::{Value, json};

use super::dialect::{Answer, Dialect, Header, left, limits_of, tree};
use super::faults::FaultKind;
use super::invalid::Invalid;
use super::model::Question;
use super::prompt_caches::Prompt;
use super::quota::{Bucket, Quota};
use super::streams::event::Streaming;

/// One of OpenAI's APIs.
pub struct OpenAi {
    /// Reads a question.
    pub question: fn(&[u8]) -> Result<Question, Invalid>,
    /// Reads a prompt as prompt caches see it.
    pub prompt: fn(&Value) -> Result<Option<Prompt>, Invalid>,
    /// Writes an answer.
    pub answer: fn(&Answer<'_>) -> Vec<u8>,
    /// How answers are streamed, if they can be.
    pub streaming: Option<&'static Streaming>,
}

impl Dialect for OpenAi {
    fn key_headers(&self) -> &'static [&'static str] {
        &["authorization", "api-key"]
    }

    fn question(&self, body: &[u8], _model: Option<&str>) -> Result<Question, Invalid> {
        (self.question)(body)
    }

    fn prompt(&self, body: &[u8], _model: Option<&str>) -> Result<Option<Prompt>, Invalid> {
        (self.prompt)(&tree(body)?)
    }

    fn answer(&self, answer: &Answer<'_>) -> Vec<u8> {
        (self.answer)(answer)
    }

    fn streaming(&self) -> Option<&'static Streaming> {
        self.streaming
    }

    fn error(&self, kind: FaultKind, _retry_after: Option<f64>) -> (u16, Value) {
        error(kind)
    }

    fn invalid(&self, problem: &Invalid) -> Value {
        let Invalid { message, code, param } = problem;
        json!({"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}})
    }

    fn limit_headers(&self, quota: &Quota, _now: SystemTime) -> Vec<Header> {
        limits_of(quota).flat_map(|(name, bucket)| limit_headers(name, bucket)).collect()
    }

    fn retry_headers(&self, wait: f64) -> Vec<Header> {
        let millis = (wait * 1000.0).ceil();
        vec![("retry-after".to_owned(), wait.ceil().to_string()), ("retry-after-ms".to_owned(), millis.to_string())]
    }
}

/// The tool that must be called; empty: any of them.
pub fn forced(choice: Option<&Value>, name: &str) -> Option<String> {
    match choice? {
        Value::String(word) if word == "required" => Some(String::new()),
        choice => choice.pointer(name).and_then(Value::as_str).map(str::to_owned),
    }
}

fn error(fault: FaultKind) -> (u16, Value) {
    let (status, kind, code, message) = match fault {
        FaultKind::Billing => {
            (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota; check your billing.")
        }
        FaultKind::Status(status) | FaultKind::ErrorInside(status) => {
            let (kind, code, message) = match status {
                400 => ("invalid_request_error", "invalid_request_error", "The request is invalid."),
                401 => ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
                403 => ("invalid_request_error", "permission_denied", "You are not allowed to use this model."),
                404 => ("invalid_request_error", "model_not_found", "The model does not exist."),
                429 => ("requests", "rate_limit_exceeded", "Rate limit reached."),
                503 => ("service_unavailable_error", "server_is_overloaded", "The server is overloaded."),
                _ => ("server_error", "server_error", "The server had an error while processing your request."),
            };
            (status, kind, code, message)
        }
        _ => (429, "requests", "rate_limit_exceeded", "Rate limit reached for requests per day."),
    };
    (status, json!({"error": {"message": message, "type": kind, "param": null, "code": code}}))
}

/// `x-ratelimit-*`; resets as Go durations.
fn limit_headers(name: &str, bucket: &Bucket) -> [(String, String); 3] {
    let reset = format!("{:.3}s", bucket.until_full());
    [
        (format!("x-ratelimit-limit-{name}"), format!("{:.0}", bucket.per_minute)),
        (format!("x-ratelimit-remaining-{name}"), left(bucket).to_string()),
        (format!("x-ratelimit-reset-{name}"), reset),
    ]
}
