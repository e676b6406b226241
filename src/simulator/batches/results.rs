//! Lines of results as each provider writes them.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::answers::BatchAnswer;
use super::batch::{Batch, Outcome};
use super::faults::FaultKind;
use super::provider::Provider;

/// Line separators of Unicode that do not separate lines of JSON.
const SEPARATORS: &str = "\u{2028}\u{2029}\u{85}";

/// The body of a reply: an answer as the live endpoint wrote it, or an error.
#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Raw(&'a RawValue),
    Tree(&'a Value),
}

impl<'a> Body<'a> {
    fn answer(answer: &'a BatchAnswer) -> Self {
        let text = std::str::from_utf8(&answer.body).ok();
        text.and_then(|text| serde_json::from_str(text).ok()).map_or(Self::Tree(&Value::Null), Self::Raw)
    }
}

#[derive(Serialize)]
struct Response<'a> {
    status_code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    body: Body<'a>,
}

/// A line of OpenAI's, and of those who write as it does.
#[derive(Serialize)]
struct OpenAi<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    custom_id: &'a str,
    response: Option<Response<'a>>,
    error: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    simulated: Option<&'static str>,
}

#[derive(Serialize)]
struct Anthropic<'a> {
    custom_id: &'a str,
    result: AnthropicResult<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    simulated: Option<&'static str>,
}

#[derive(Serialize)]
struct AnthropicResult<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Body<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
}

#[derive(Serialize)]
struct Gemini<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Body<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    simulated: Option<&'static str>,
}

#[derive(Serialize)]
struct Xai<'a> {
    batch_request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    simulated: Option<&'static str>,
}

/// Writes how a line has ended, where its provider tells.
pub fn write(batch: &mut Batch, line: usize, outcome: &Outcome) {
    let id = batch.order.lines.id(line);
    let simulated = batch.faults.hits_line(line, FaultKind::Separators).then_some(SEPARATORS);
    match batch.order.provider {
        Provider::Anthropic => {
            batch.output.push(&Anthropic { custom_id: &id, result: anthropic(outcome), simulated });
        }
        Provider::Gemini => {
            let (response, error) = match outcome {
                Outcome::Answered(answer) => (Some(Body::answer(answer)), None),
                Outcome::Refused(status, body) => (None, Some(google_error(*status, body))),
                _ => return,
            };
            let is_inline = batch.order.file.is_none();
            let is_joined = is_inline && !batch.faults.has(FaultKind::Shuffle);
            let metadata = if is_joined { batch.order.lines.tag(line) } else { None };
            let key = (!is_inline).then_some(id.as_str());
            batch.output.push(&Gemini { key, response, error, metadata, simulated });
        }
        Provider::Xai => {
            let (batch_result, error) = match outcome {
                Outcome::Answered(answer) => {
                    let name = if batch.order.lines.body(line).starts_with(b"{\"responses\"") {
                        "responses"
                    } else {
                        "chat_get_completion"
                    };
                    (Some(json!({"response": {name: Body::answer(answer)}})), None)
                }
                Outcome::Refused(status, body) => (None, Some(json!({"code": status, "message": message_of(body)}))),
                _ => return,
            };
            batch.output.push(&Xai { batch_request_id: &id, batch_result, error, simulated });
        }
        provider => {
            let number = batch.number;
            let Some((response, error, is_error)) = openai(provider, number, line, outcome) else { return };
            let has_id = !matches!(provider, Provider::Together | Provider::OpenRouter);
            let name = has_id.then(|| format!("batch_req_{number}_{line}"));
            let written = OpenAi { id: name, custom_id: &id, response, error, simulated };
            let apart = is_error && provider != Provider::OpenRouter;
            if apart { batch.errors.push(&written) } else { batch.output.push(&written) }
        }
    }
}

/// A line that belongs to nobody here.
pub fn foreign(batch: &Batch, line: usize) -> Value {
    let id = format!("foreign-{}-{line}", batch.number);
    let answer = json!({"id": "foreign", "object": "chat.completion", "choices": []});
    match batch.order.provider {
        Provider::Anthropic => json!({"custom_id": id, "result": {"type": "canceled"}}),
        Provider::Gemini => json!({"key": id, "response": {"candidates": []}}),
        Provider::Xai => json!({"batch_request_id": id, "batch_result": {"response": {"chat_get_completion": answer}}}),
        _ => json!({"id": id, "custom_id": id, "response": {"status_code": 200, "body": answer}, "error": null}),
    }
}

/// Response, error, and whether it is one.
fn openai(
    provider: Provider,
    batch: u64,
    line: usize,
    outcome: &Outcome,
) -> Option<(Option<Response<'_>>, Option<Value>, bool)> {
    let request_id = || {
        let tells = matches!(provider, Provider::OpenAi | Provider::Azure | Provider::Groq);
        tells.then(|| format!("req_{batch}_{line}"))
    };
    let late = |code: &str, message: &str| {
        // The others say nothing of what was not done.
        let tells = matches!(provider, Provider::OpenAi | Provider::Azure | Provider::Groq);
        tells.then(|| (None, Some(json!({"code": code, "message": message})), true))
    };
    match outcome {
        Outcome::Answered(answer) => {
            let response = Response { status_code: 200, request_id: request_id(), body: Body::answer(answer) };
            Some((Some(response), None, false))
        }
        Outcome::Refused(status, body) if provider == Provider::Together => {
            Some((None, Some(json!({"message": message_of(body), "code": status})), true))
        }
        Outcome::Refused(status, body) => {
            let response = Response { status_code: *status, request_id: request_id(), body: Body::Tree(body) };
            Some((Some(response), None, true))
        }
        Outcome::Expired => {
            late("batch_expired", "This request could not be executed before the completion window expired.")
        }
        Outcome::Cancelled => late("batch_cancelled", "This request was not executed because the batch was cancelled."),
    }
}

fn anthropic(outcome: &Outcome) -> AnthropicResult<'_> {
    let (r#type, message, error) = match outcome {
        Outcome::Answered(answer) => ("succeeded", Some(Body::answer(answer)), None),
        Outcome::Refused(0, _) => {
            ("errored", None, Some(Provider::Anthropic.error(500, None, "Internal server error")))
        }
        Outcome::Refused(_, body) => ("errored", None, Some(body.clone())),
        Outcome::Expired => ("expired", None, None),
        Outcome::Cancelled => ("canceled", None, None),
    };
    AnthropicResult { r#type, message, error }
}

/// An error with one of gRPC's codes.
fn google_error(status: u16, body: &Value) -> Value {
    let code = match status {
        0 | 503 => 14,
        400 => 3,
        403 => 7,
        404 => 5,
        429 => 8,
        504 => 4,
        _ => 13,
    };
    json!({"code": code, "message": message_of(body)})
}

fn message_of(body: &Value) -> &str {
    body.pointer("/error/message").and_then(Value::as_str).unwrap_or("Internal error")
}
