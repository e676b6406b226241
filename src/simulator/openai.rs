//! OpenAI's Responses, embeddings, errors and headers, as a server speaks them. (Chat Completions: `chat`.)

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::faults::FaultKind;
use super::invalid::Invalid;
use super::model::{Question, tokens};
use super::protocol::{Answer, left, more, size_field, text_field, words};
use super::quota::Bucket;
use super::{history, state, strict};

/// The tool that must be called; empty: any of them.
pub fn forced(choice: Option<&Value>, name: &str) -> Option<String> {
    match choice? {
        Value::String(word) if word == "required" => Some(String::new()),
        choice => choice.pointer(name).and_then(Value::as_str).map(str::to_owned),
    }
}

pub fn responses_question(body: &Value) -> Result<Question, Invalid> {
    let mut question = Question { model: text_field(body, "model")?, samples: 1, ..Question::default() };
    words(body.get("instructions").unwrap_or(&Value::Null), &mut question.words);
    words(body.get("input").ok_or("input is missing")?, &mut question.words);
    if body.pointer("/text/format/type").and_then(Value::as_str) == Some("json_schema") {
        let format = body.pointer("/text/format").unwrap_or(&Value::Null);
        let schema = format.get("schema").ok_or("text.format.schema is missing")?;
        if format.get("strict") == Some(&Value::Bool(true)) {
            let name = format.get("name").and_then(Value::as_str).unwrap_or_default();
            strict::openai(schema, &format!("response_format '{name}'"), "text.format.schema")?;
        }
        question.schema = Some(schema.clone());
    }
    for tool in body.get("tools").and_then(Value::as_array).into_iter().flatten() {
        if tool.get("type").and_then(Value::as_str) == Some("function") {
            let (name, parameters) = (text_field(tool, "name")?, tool.get("parameters").cloned().unwrap_or_default());
            if tool.get("strict") == Some(&Value::Bool(true)) {
                strict::openai(&parameters, &format!("function '{name}'"), "tools")?;
            }
            question.tools.push((name, parameters));
        }
    }
    history::responses(body)?;
    let include = body.get("include").and_then(Value::as_array);
    let wants_encrypted = include.is_some_and(|names| names.iter().any(|name| name == "reasoning.encrypted_content"));
    question.thinks = body.pointer("/reasoning/effort").is_some_and(|effort| effort != "none") || wants_encrypted;
    question.encrypted = wants_encrypted || body.get("store") == Some(&Value::Bool(false));
    question.one_call = body.get("parallel_tool_calls") == Some(&Value::Bool(false));
    question.forced_tool = forced(body.get("tool_choice"), "/name");
    question.max_tokens = size_field(body, "max_output_tokens");
    Ok(question)
}

pub fn responses_answer(answer: &Answer<'_>) -> Value {
    let digest = answer.digest;
    let said = &answer.said[0];
    let mut output = Vec::new();
    if answer.question.thinks {
        let mut item = json!({"type": "reasoning", "id": format!("rs_{digest:016x}"), "summary": []});
        if answer.question.encrypted {
            item["encrypted_content"] = state::signature(&answer.question.model, &state::thought(digest)).into();
        }
        output.push(item);
    }
    for (number, (name, arguments)) in said.calls.iter().enumerate() {
        let more = more(number);
        output.push(json!({"type": "function_call", "id": format!("fc_{digest:016x}{more}"),
            "call_id": format!("call_{digest:016x}{more}"), "name": name, "arguments": arguments.to_string(),
            "status": "completed"}));
    }
    if said.calls.is_empty() {
        output.push(json!({"type": "message", "id": format!("msg_{digest:016x}"), "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}]}));
    }
    let (input, tokens) = (answer.question.input_tokens(), answer.output_tokens());
    let (status, details) =
        if said.cut { ("incomplete", json!({"reason": "max_output_tokens"})) } else { ("completed", Value::Null) };
    json!({
        "id": format!("resp_{digest:016x}"), "object": "response", "created_at": 0, "status": status, "error": null,
        "incomplete_details": details, "instructions": null, "metadata": {}, "model": answer.question.model,
        "output": output, "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [],
        "top_p": 1.0,
        "usage": {"input_tokens": input, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": tokens, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": input + tokens},
    })
}

pub fn embeddings_question(body: &Value) -> Result<Question, String> {
    let texts = match body.get("input") {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or("input must hold strings"))
            .collect::<Result<_, _>>()?,
        _ => return Err("input must be a string or a list of strings".to_owned()),
    };
    if texts.is_empty() || texts.len() > 2048 {
        return Err(format!("input must hold 1 to 2048 texts, not {}", texts.len()));
    }
    if let Some(place) = texts.iter().position(|text| text.is_empty() || tokens(text) > 8192) {
        return Err(format!("input[{place}] must have 1 to 8192 tokens"));
    }
    Ok(Question {
        model: text_field(body, "model")?,
        texts,
        dimensions: size_field(body, "dimensions"),
        base64: body.get("encoding_format").and_then(Value::as_str) == Some("base64"),
        ..Question::default()
    })
}

pub fn embeddings_answer(answer: &Answer<'_>) -> Value {
    let data = answer.vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = if answer.question.base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            Value::String(STANDARD.encode(bytes))
        } else {
            json!(vector)
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    let input = answer.question.input_tokens();
    json!({"object": "list", "data": data.collect::<Vec<_>>(), "model": answer.question.model,
        "usage": {"prompt_tokens": input, "total_tokens": input}})
}

pub fn error(fault: FaultKind) -> (u16, Value) {
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
pub fn limit_headers(name: &str, bucket: &Bucket) -> [(String, String); 3] {
    let reset = format!("{:.3}s", bucket.until_full());
    [
        (format!("x-ratelimit-limit-{name}"), format!("{:.0}", bucket.per_minute)),
        (format!("x-ratelimit-remaining-{name}"), left(bucket).to_string()),
        (format!("x-ratelimit-reset-{name}"), reset),
    ]
}
