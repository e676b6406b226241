//! Whatever a server sends: replies of each dialect, errors, headers. Nothing panics, nothing grows, nothing is NaN.
//!
//! `cargo test` tries a few hundred of each, `make fuzz` as many as it is given time for (`PROPTEST_CASES`).

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::dialect::Dialect;
use super::error::ProviderError;
use super::json::json_part;
use super::table::Api;
use super::{limits, schema, status, table, vectors};

/// Longest message of an error, bytes: it quotes what came, and must not quote all of it.
const LONGEST_MESSAGE: usize = 4096;

/// Good replies of all dialects, with everything that they may hold.
fn good_replies() -> Vec<Value> {
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}});
    vec![
        json!({"id": "x", "model": "m", "service_tier": "default", "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "text", "refusal": null, "reasoning_content": "so", "tool_calls": [call]},
            "logprobs": {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": []}]}}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, "cost": 0.1,
                "prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 2}}}),
        json!({"id": "r", "status": "completed", "model": "m", "error": null, "incomplete_details": {"reason": "max_output_tokens"},
            "output": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]},
                {"type": "message", "content": [{"type": "output_text", "text": "t", "logprobs": []}, {"type": "refusal", "refusal": "no"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}],
            "usage": {"input_tokens": 9, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 3},
                "output_tokens_details": {"reasoning_tokens": 2}}}),
        json!({"type": "message", "model": "m", "stop_reason": "end_turn", "content": [{"type": "text", "text": "t"},
            {"type": "thinking", "thinking": "so"}, {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}],
            "usage": {"input_tokens": 9, "output_tokens": 5, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 1}}),
        json!({"modelVersion": "m", "responseId": "r", "promptFeedback": {"blockReason": "SAFETY"},
            "candidates": [{"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": [{"text": "t"},
                {"thought": true, "text": "so"}, {"functionCall": {"name": "f", "args": {"a": 1}}}]},
                "safetyRatings": [{"category": "C", "probability": "LOW"}]}],
            "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 14,
                "cachedContentTokenCount": 3, "thoughtsTokenCount": 2}}),
        json!({"data": [{"index": 0, "embedding": [0.5, 1.0]}, {"index": 1, "embedding": "AACAPwAAAEA="}], "model": "m",
            "usage": {"prompt_tokens": 4}}),
        json!({"embeddings": [{"values": [0.5]}, {"values": [1e39]}]}),
        json!({"error": {"message": "no", "type": "invalid_request_error", "code": "x", "param": null,
            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "5s"}]}}),
    ]
}

/// Any JSON, also with numbers that no count is.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,20}".prop_map(Value::from),
        Just(json!("stop")),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z_]{1,12}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// All places in a value, as JSON pointers.
fn places(value: &Value, here: &str, into: &mut Vec<String>) {
    into.push(here.to_owned());
    match value {
        Value::Array(parts) => {
            parts.iter().enumerate().for_each(|(at, part)| places(part, &format!("{here}/{at}"), into));
        }
        Value::Object(fields) => fields.iter().for_each(|(name, part)| places(part, &format!("{here}/{name}"), into)),
        _ => {}
    }
}

/// What a server might send: a good reply with parts of it replaced, cut, or with bytes changed; or anything.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let replaced = (0..good_replies().len(), prop::collection::vec((any::<prop::sample::Index>(), any_json()), 0..3))
        .prop_map(|(which, changes)| {
            let mut reply = good_replies().swap_remove(which);
            for (place, value) in changes {
                let mut all = Vec::new();
                places(&reply, "", &mut all);
                if let Some(part) = reply.pointer_mut(&all[place.index(all.len())]) {
                    *part = value;
                }
            }
            reply.to_string().into_bytes()
        });
    let damaged =
        (replaced, any::<prop::sample::Index>(), any::<u8>(), 0..4u8).prop_map(|(mut bytes, at, byte, how)| {
            let at = at.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match how {
                0 if !bytes.is_empty() => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => bytes.splice(0..0, b"\n: keep-alive\n\n".iter().copied()).for_each(drop),
                _ => {}
            }
            bytes
        });
    prop_oneof![4 => damaged, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

/// Headers by the names that are looked at, with anything in them.
fn headers() -> impl Strategy<Value = HeaderMap> {
    let names = [
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "x-request-id",
        "request-id",
        "openai-processing-ms",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
        "anthropic-ratelimit-tokens-reset",
        "anthropic-ratelimit-requests-remaining",
        "x-ratelimit-reset",
    ]; // fmt: skip
    let value = prop_oneof![
        "[ -~]{0,40}",
        "-?[0-9]{1,25}(\\.[0-9]{1,5})?",
        "([0-9]{1,6}(h|ms|m|s|d)){1,4}",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z",
        "(Mon|Tue), [0-9]{2} (Jan|Dec) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT",
        "(NaN|inf|-inf|1e999|true|false)",
    ];
    prop::collection::vec((prop::sample::select(names.to_vec()), value), 0..8).prop_map(|pairs| {
        let pairs = pairs.into_iter();
        pairs
            .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?)))
            .collect()
    })
}

fn dialects() -> Vec<Box<dyn Dialect>> {
    let of = |name, api| table::row(name).expect("it is in the table").dialect("m", api);
    vec![
        of("openai", Api::Usual),
        of("openai", Api::Responses),
        of("deepseek", Api::Usual),
        of("anthropic", Api::Usual),
        of("gemini", Api::Usual),
        of("bedrock", Api::Usual),
    ]
}

fn is_short(error: &ProviderError) {
    let message = error.to_string();
    assert!(message.len() <= LONGEST_MESSAGE, "{} bytes: {message:.200}", message.len());
}

proptest! {
    #[test]
    fn fuzz_replies(body in body(), headers in headers()) {
        for dialect in dialects() {
            match dialect.read(&body, &headers) {
                Ok(answer) => {
                    for choice in &answer.choices {
                        prop_assert!(choice.tool_calls.iter().all(|call| !call.id.is_empty()));
                    }
                }
                Err(error) => is_short(&error),
            }
        }
        for row in ["openai", "gemini"] {
            let language = table::row(row).expect("it is in the table").language;
            match vectors::vectors(language, 2, None, &body, &headers) {
                Ok(found) => prop_assert_eq!(found.vectors.len(), 2),
                Err(error) => is_short(&error),
            }
        }
        prop_assert!(json_part(&body).len() <= body.len());
    }

    #[test]
    fn fuzz_errors(code in 100u16..600, body in body(), headers in headers()) {
        let error = status::read(code, &headers, &body);
        is_short(&error);
        let ProviderError::Status { retry_after, .. } = error else { panic!("a status is a status") };
        prop_assert!(retry_after.is_none_or(|wait| wait.is_finite() && wait >= 0.0), "{retry_after:?}");
    }

    #[test]
    fn fuzz_headers(headers in headers()) {
        let now = SystemTime::now();
        for reported in limits::read(&headers, now) {
            for value in [reported.limit, reported.remaining, reported.reset].into_iter().flatten() {
                prop_assert!(value.is_finite() && value >= 0.0, "{reported:?}");
            }
        }
        for wait in [limits::retry_after(&headers, now), limits::until_reset(&headers, now)].into_iter().flatten() {
            prop_assert!(wait.is_finite() && wait >= 0.0, "{wait}");
        }
        if let Some(millis) = status::processing_ms(&headers) {
            prop_assert!(millis.is_finite() && millis >= 0.0, "{millis}");
        }
    }

    #[test]
    fn fuzz_structured_answers(text in ".{0,40}", value in any_json(), fence in 0..4u8) {
        let text = match fence {
            0 => format!("{text}{value}"),
            1 => format!("{text}\n```json\n{value}\n```{text}"),
            2 => format!("```{value}"),
            _ => text,
        };
        for found in schema::find_json(&text).unwrap_or_default() {
            prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(found).is_ok(), "{found:?} of {text:?}");
        }
    }

    #[test]
    fn fuzz_durations(value in ".{0,30}") {
        if let Some(wait) = limits::wait(&value, SystemTime::now()) {
            prop_assert!(wait.is_finite() && wait >= 0.0, "{value:?}: {wait}");
        }
    }
}
