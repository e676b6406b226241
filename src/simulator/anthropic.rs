//! Anthropic's Messages, as a server speaks them.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::dialect::{Answer, Dialect, Header, left, limits_of, more, size_field, text, text_field, tree, words};
use super::faults::FaultKind;
use super::invalid::Invalid;
use super::model::{Completion, Question};
use super::prompt_caches::{Prompt, anthropic_prompt};
use super::quota::{Bucket, Quota};
use super::streams::event::{Form, Streaming};
use super::{history, state, streams, strict};

/// Anthropic's Messages.
pub struct Anthropic;

impl Dialect for Anthropic {
    fn key_headers(&self) -> &'static [&'static str] {
        &["x-api-key", "authorization"]
    }

    fn question(&self, body: &[u8], _model: Option<&str>) -> Result<Question, Invalid> {
        question(&tree(body)?)
    }

    fn prompt(&self, body: &[u8], _model: Option<&str>) -> Result<Option<Prompt>, Invalid> {
        anthropic_prompt(&tree(body)?).map(Some)
    }

    fn answer(&self, ready: &Answer<'_>) -> Vec<u8> {
        text(&answer(ready))
    }

    fn streaming(&self) -> Option<&'static Streaming> {
        Some(&streams::anthropic::STREAMING)
    }

    fn error(&self, kind: FaultKind, _retry_after: Option<f64>) -> (u16, Value) {
        error(kind)
    }

    fn invalid(&self, problem: &Invalid) -> Value {
        json!({"type": "error", "error": {"type": "invalid_request_error", "message": problem.message}})
    }

    fn limit_headers(&self, quota: &Quota, now: SystemTime) -> Vec<Header> {
        limits_of(quota).flat_map(|(name, bucket)| limit_headers(name, bucket, now)).collect()
    }

    fn retry_headers(&self, wait: f64) -> Vec<Header> {
        vec![("retry-after".to_owned(), wait.ceil().to_string())]
    }
}

fn question(body: &Value) -> Result<Question, Invalid> {
    let mut question = Question { model: text_field(body, "model")?, samples: 1, ..Question::default() };
    question.max_tokens = Some(size_field(body, "max_tokens").ok_or("max_tokens is required")?);
    words(body.get("system").unwrap_or(&Value::Null), &mut question.words);
    let messages = body.get("messages").and_then(Value::as_array).ok_or("messages must be a list")?;
    if messages.is_empty() {
        return Err("messages is empty".into());
    }
    for (place, message) in messages.iter().enumerate() {
        match message.get("role").and_then(Value::as_str) {
            Some("user" | "assistant") => words(message.get("content").unwrap_or(&Value::Null), &mut question.words),
            other => return Err(format!("messages[{place}].role is {other:?}; it must be user or assistant").into()),
        }
    }
    history::anthropic(body)?;
    question.schema = body.pointer("/output_config/format/schema").cloned();
    if let Some(schema) = &question.schema {
        strict::anthropic(schema)?;
    }
    if body.get("stream") == Some(&Value::Bool(true)) {
        question.form = Form::Events { usage: true };
    }
    let thinking = body.pointer("/thinking/type").and_then(Value::as_str);
    question.thinks = matches!(thinking, Some("enabled" | "adaptive"));
    question.one_call = body.pointer("/tool_choice/disable_parallel_tool_use") == Some(&Value::Bool(true));
    for tool in body.get("tools").and_then(Value::as_array).into_iter().flatten() {
        question.tools.push((text_field(tool, "name")?, tool.get("input_schema").cloned().unwrap_or_default()));
    }
    question.forced_tool = match body.pointer("/tool_choice/type").and_then(Value::as_str) {
        Some("any") => Some(String::new()),
        Some("tool") => body.pointer("/tool_choice/name").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    };
    Ok(question)
}

/// Why an answer ends; Bedrock's Converse has the same words.
pub(super) fn stop_reason(completion: &Completion) -> &'static str {
    match completion {
        Completion { calls, .. } if !calls.is_empty() => "tool_use",
        Completion { truncated: true, .. } => "max_tokens",
        _ => "end_turn",
    }
}

fn answer(answer: &Answer<'_>) -> Value {
    let completion = &answer.completions[0];
    let mut content = Vec::new();
    if answer.question.thinks {
        let thought = state::thought(answer.digest);
        let signature = state::signature(&answer.question.model, &thought);
        content.push(json!({"type": "thinking", "thinking": thought, "signature": signature}));
    }
    for (number, (name, arguments)) in completion.calls.iter().enumerate() {
        let id = format!("toolu_{:016x}{}", answer.digest, more(number));
        content.push(json!({"type": "tool_use", "id": id, "name": name, "input": arguments}));
    }
    if completion.calls.is_empty() {
        content.push(json!({"type": "text", "text": completion.text}));
    }
    let stop = stop_reason(completion);
    json!({
        "id": format!("msg_{:016x}", answer.digest), "type": "message", "role": "assistant",
        "model": answer.question.model, "content": content, "stop_reason": stop, "stop_sequence": null,
        "usage": usage(answer),
    })
}

/// The counts of the cache are beside those of the input.
fn usage(answer: &Answer<'_>) -> Value {
    let (charge, input) = (answer.question.charge, answer.question.input_tokens());
    let written = charge.all_written();
    let mut usage = json!({"input_tokens": input - charge.read - written, "cache_creation_input_tokens": written,
        "cache_read_input_tokens": charge.read, "output_tokens": answer.output_tokens(), "service_tier": "standard"});
    if charge.is_on {
        usage["cache_creation"] = json!({"ephemeral_5m_input_tokens": charge.written,
            "ephemeral_1h_input_tokens": charge.written_hour});
    }
    usage
}

fn error(fault: FaultKind) -> (u16, Value) {
    let (status, kind, message, details) = match fault {
        FaultKind::Billing => (
            429,
            "rate_limit_error",
            "Your spend limit is reached.",
            Some(json!({"error_code": "enforced_spend_limit_reached"})),
        ),
        FaultKind::Status(status) | FaultKind::ErrorInside(status) => {
            let (kind, message) = match status {
                401 => ("authentication_error", "invalid x-api-key"),
                402 => ("billing_error", "Your credit balance is too low."),
                403 => ("permission_error", "You are not allowed to use this model."),
                404 => ("not_found_error", "The model does not exist."),
                413 => ("request_too_large", "The request is too large."),
                429 => ("rate_limit_error", "This request would exceed your rate limit."),
                504 => ("timeout_error", "The request timed out."),
                529 | 503 => ("overloaded_error", "Overloaded"),
                500.. => ("api_error", "Internal server error"),
                _ => ("invalid_request_error", "The request is invalid."),
            };
            (status, kind, message, None)
        }
        _ => (429, "rate_limit_error", "This request would exceed your rate limit.", None),
    };
    let mut error = json!({"type": kind, "message": message});
    if let Some(details) = details {
        error["details"] = details;
    }
    (status, json!({"type": "error", "error": error, "request_id": null}))
}

/// `anthropic-ratelimit-*`; resets as RFC 3339 instants.
fn limit_headers(name: &str, bucket: &Bucket, now: SystemTime) -> [(String, String); 3] {
    let full = now + Duration::from_secs_f64(bucket.until_full());
    let reset = jiff::Timestamp::try_from(full).map(|full| full.to_string()).unwrap_or_default();
    [
        (format!("anthropic-ratelimit-{name}-limit"), format!("{:.0}", bucket.per_minute)),
        (format!("anthropic-ratelimit-{name}-remaining"), left(bucket).to_string()),
        (format!("anthropic-ratelimit-{name}-reset"), reset),
    ]
}
