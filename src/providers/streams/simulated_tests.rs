//! Any reply of any dialect, as a stream of any number of pieces that is written in any way and split anywhere, says what
//! the plain reply says.

use http::HeaderMap;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::Folded;
use crate::providers::dialect::Dialect;
use crate::providers::table::{Api, row};
use crate::simulator::streams;
use crate::simulator::streams::event::{Form, Streaming, frames};
use crate::simulator::streams::quirks::QUIRKS;

/// What a dialect reads, and the turns in it, in which the order of fields does not matter.
fn read(dialect: &dyn Dialect, body: &[u8]) -> (String, Vec<Option<Value>>) {
    let mut answer = dialect.read(body, &HeaderMap::new());
    let choices = answer.as_mut().map_or(&mut [][..], |answer| &mut answer.choices);
    let turns = choices.iter_mut().map(|choice| Some(serde_json::from_str(&choice.turn.take()?).unwrap())).collect();
    (format!("{answer:?}"), turns)
}

fn same(
    provider: (&str, bool),
    streaming: &Streaming,
    plain: &Value,
    pieces: usize,
    cuts: &[prop::sample::Index],
) -> Result<(), TestCaseError> {
    let dialect = row(provider.0).unwrap().dialect("m", if provider.1 { Api::Responses } else { Api::Usual });
    let expected = read(&*dialect, plain.to_string().as_bytes());
    let events = || (streaming.events)(plain, pieces);
    let usual = ("", frames(&events(), Form::Events { usage: true }));
    let quirks = QUIRKS.iter().map(|(name, quirk)| (*name, quirk.frames(events(), plain)));
    for (quirk, frames) in quirks.chain([usual]) {
        let stream = frames.concat().into_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        let mut folded = Folded::new((dialect.streaming("m").unwrap().fold)(), None);
        for ends in cuts.windows(2) {
            folded.push(&stream[ends[0]..ends[1]]);
        }
        let body = folded.end();
        prop_assert!(body.is_some(), "{quirk}: {} is not whole", String::from_utf8_lossy(&stream));
        prop_assert_eq!(&read(&*dialect, &body.unwrap()), &expected, "{}", quirk);
    }
    Ok(())
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..24).prop_map(String::from_iter)
}

/// Where streams are split into what the network sends.
fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    vec(any::<prop::sample::Index>(), 0..12)
}

fn arguments() -> impl Strategy<Value = Value> {
    let value = prop_oneof![text().prop_map(Value::from), any::<i64>().prop_map(Value::from), Just(json!([null, {}]))];
    vec((text(), value), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>()))
}

/// Calls: name and arguments.
fn calls() -> impl Strategy<Value = Vec<(String, Value)>> {
    vec(("[a-z]{1,6}", arguments()), 0..4)
}

fn counts() -> impl Strategy<Value = [u32; 3]> {
    [0..9_000u32, 0..9_000u32, 0..9_000u32]
}

/// The fields that are there.
fn present(fields: Value) -> Value {
    let Value::Object(mut fields) = fields else { return fields };
    fields.retain(|_, value| !value.is_null());
    Value::Object(fields)
}

fn chat_choice() -> impl Strategy<Value = Value> {
    // An empty text is nothing in a stream, for many begin with one.
    let some = || option::of(text().prop_filter("empty", |text| !text.is_empty()));
    let words = (option::of(text()), some(), some());
    let logprobs = option::of(vec((text(), -9.0..0.0f64), 1..6));
    let finish = select(vec!["stop", "length", "tool_calls", "content_filter"]);
    (words, calls(), logprobs, finish).prop_map(|((content, refusal, thoughts), calls, logprobs, finish)| {
        let calls: Vec<Value> = calls
            .iter()
            .enumerate()
            .map(|(place, (name, arguments))| {
                json!({"id": format!("call_{place}"), "type": "function",
                    "function": {"name": name, "arguments": arguments.to_string()}})
            })
            .collect();
        let mut message = present(json!({"role": "assistant", "refusal": refusal, "reasoning_content": thoughts,
            "tool_calls": (!calls.is_empty()).then_some(calls)}));
        message["content"] = content.clone().into();
        let token = |(token, logprob): (String, f64)| json!({"token": token, "logprob": logprob, "bytes": [1, 2]});
        // Those of an answer that there is.
        let logprobs = logprobs.filter(|_| content.is_some());
        let logprobs =
            logprobs.map(|all| json!({"content": all.into_iter().map(token).collect::<Vec<_>>(), "refusal": null}));
        json!({"message": message, "logprobs": logprobs, "finish_reason": finish})
    })
}

fn chat_reply() -> impl Strategy<Value = Value> {
    (vec(chat_choice(), 1..5), option::of(counts()), text()).prop_map(|(mut choices, counts, id)| {
        for (place, choice) in choices.iter_mut().enumerate() {
            choice["index"] = place.into();
        }
        let usage = counts.map(|[input, output, cached]| {
            json!({"prompt_tokens": input, "completion_tokens": output, "prompt_tokens_details": {"cached_tokens": cached}})
        });
        present(json!({"id": id, "object": "chat.completion", "created": 1, "model": "m-1", "choices": choices,
            "usage": usage, "service_tier": "flex", "system_fingerprint": id}))
    })
}

fn responses_item() -> impl Strategy<Value = Value> {
    let logprobs = vec((text(), -9.0..0.0f64), 0..4);
    prop_oneof![
        (text(), logprobs).prop_map(|(text, logprobs)| {
            let logprobs: Vec<Value> =
                logprobs.into_iter().map(|(token, logprob)| json!({"token": token, "logprob": logprob})).collect();
            json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [{
                "type": "output_text", "text": text, "annotations": [{"type": "url_citation", "url": "u"}],
                "logprobs": logprobs}]})
        }),
        text().prop_map(|text| json!({"type": "message", "id": "msg_2", "role": "assistant",
            "content": [{"type": "refusal", "refusal": text}]})),
        (vec(text(), 0..3), vec(text(), 0..3)).prop_map(|(summary, content)| {
            let parts = |kind: &str, texts: Vec<String>| -> Vec<Value> {
                texts.into_iter().map(|text| json!({"type": kind, "text": text})).collect()
            };
            json!({"type": "reasoning", "id": "rs_1", "summary": parts("summary_text", summary),
                "content": parts("reasoning_text", content), "encrypted_content": "e"})
        }),
        arguments().prop_map(|arguments| json!({"type": "function_call", "id": "fc_1", "call_id": "call_1",
            "name": "f", "arguments": arguments.to_string(), "status": "completed"})),
        text().prop_map(
            |input| json!({"type": "custom_tool_call", "id": "c", "call_id": "call_2", "name": "f", "input": input})
        ),
        Just(json!({"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search"}})),
    ]
}

fn responses_reply() -> impl Strategy<Value = Value> {
    let end = select(vec![
        ("completed", None),
        ("incomplete", Some("max_output_tokens")),
        ("incomplete", Some("content_filter")),
    ]);
    (vec(responses_item(), 0..5), counts(), end).prop_map(|(output, [input, tokens, cached], (status, reason))| {
        json!({"id": "resp", "object": "response", "status": status, "error": null,
            "incomplete_details": reason.map(|reason| json!({"reason": reason})), "model": "m-1", "output": output,
            "usage": {"input_tokens": input, "input_tokens_details": {"cached_tokens": cached},
                "output_tokens": tokens}})
    })
}

fn anthropic_block() -> impl Strategy<Value = Value> {
    let citation = json!({"type": "char_location", "cited_text": "x"});
    prop_oneof![
        (text(), 0..3usize).prop_map(move |(text, count)| match count {
            0 => json!({"type": "text", "text": text}),
            count => json!({"type": "text", "text": text, "citations": vec![citation.clone(); count]}),
        }),
        (text(), text())
            .prop_map(|(text, signature)| json!({"type": "thinking", "thinking": text, "signature": signature})),
        text().prop_map(|data| json!({"type": "redacted_thinking", "data": data})),
        arguments().prop_map(|input| json!({"type": "tool_use", "id": "toolu_1", "name": "f", "input": input})),
        arguments().prop_map(|input| json!({"type": "server_tool_use", "id": "srv", "name": "search", "input": input})),
        text().prop_map(
            |text| json!({"type": "web_search_tool_result", "tool_use_id": "srv", "content": [{"title": text}]})
        ),
    ]
}

fn anthropic_reply() -> impl Strategy<Value = Value> {
    let end = select(vec!["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "pause_turn"]);
    (vec(anthropic_block(), 0..6), counts(), end, option::of(text())).prop_map(
        |(content, [input, output, cached], end, sequence)| {
            json!({"id": "msg", "type": "message", "role": "assistant", "model": "m-1", "content": content,
                "stop_reason": end, "stop_sequence": sequence, "stop_details": null,
                "usage": {"input_tokens": input, "cache_creation_input_tokens": 1, "cache_read_input_tokens": cached,
                    "cache_creation": {"ephemeral_5m_input_tokens": 1}, "output_tokens": output,
                    "service_tier": "standard"}})
        },
    )
}

fn gemini_part() -> impl Strategy<Value = Value> {
    prop_oneof![
        (text(), any::<bool>()).prop_map(|(text, thinks)| match thinks {
            true => json!({"text": text, "thought": true}),
            false => json!({"text": text}),
        }),
        (text(), text()).prop_map(|(text, signature)| json!({"text": text, "thoughtSignature": signature})),
        (arguments(), text())
            .prop_map(|(arguments, signature)| json!({"functionCall": {"name": "f", "args": arguments},
            "thoughtSignature": signature})),
        arguments().prop_map(|arguments| json!({"functionCall": {"id": "c", "name": "g", "args": arguments}})),
        text().prop_map(|code| json!({"executableCode": {"language": "PYTHON", "code": code}})),
    ]
}

/// Whether two parts are one: words, or thoughts, beside each other.
fn are_one(one: &Value, other: &Value) -> bool {
    let is_plain = |part: &Value| part.get("text").is_some() && part.get("thoughtSignature").is_none();
    is_plain(one) && is_plain(other) && one.get("thought") == other.get("thought")
}

fn gemini_candidate() -> impl Strategy<Value = Value> {
    let finish = select(vec!["STOP", "MAX_TOKENS", "SAFETY", "MALFORMED_FUNCTION_CALL"]);
    (option::of(vec(gemini_part(), 0..5)), finish, any::<bool>()).prop_map(|(parts, finish, logprobs)| {
        let content = parts.map(|mut parts| {
            parts.dedup_by(|next, last| are_one(next, last));
            match parts.is_empty() {
                true => json!({"role": "model"}),
                false => json!({"role": "model", "parts": parts}),
            }
        });
        let logprobs = logprobs.then(|| json!({"chosenCandidates": [{"token": "a", "logProbability": -1.5}]}));
        present(json!({"content": content, "finishReason": finish, "logprobsResult": logprobs, "avgLogprobs": -0.5,
            "safetyRatings": [{"category": "C", "probability": "LOW"}],
            "groundingMetadata": {"webSearchQueries": ["q"]}}))
    })
}

fn gemini_reply() -> impl Strategy<Value = Value> {
    (vec(gemini_candidate(), 0..4), counts()).prop_map(|(mut candidates, [input, output, cached])| {
        for (place, candidate) in candidates.iter_mut().enumerate() {
            candidate["index"] = place.into();
        }
        let mut reply = json!({"modelVersion": "g-1", "responseId": "r",
            "usageMetadata": {"promptTokenCount": input, "candidatesTokenCount": output, "thoughtsTokenCount": 3,
                "cachedContentTokenCount": cached, "totalTokenCount": input + output + 3}});
        match candidates.is_empty() {
            true => reply["promptFeedback"] = json!({"blockReason": "SAFETY"}),
            false => reply["candidates"] = candidates.into(),
        }
        reply
    })
}

proptest! {
    #[test]
    fn chat(plain in chat_reply(), pieces in 0..12usize, cuts in cuts(), provider in select(vec!["openai", "deepseek"])) {
        same((provider, false), &streams::chat::STREAMING, &plain, pieces, &cuts)?;
    }

    #[test]
    fn responses(plain in responses_reply(), pieces in 0..12usize, cuts in cuts()) {
        same(("openai", true), &streams::responses::STREAMING, &plain, pieces, &cuts)?;
    }

    #[test]
    fn anthropic(plain in anthropic_reply(), pieces in 0..12usize, cuts in cuts()) {
        same(("anthropic", false), &streams::anthropic::STREAMING, &plain, pieces, &cuts)?;
    }

    #[test]
    fn gemini(plain in gemini_reply(), pieces in 0..12usize, cuts in cuts()) {
        same(("gemini", false), &streams::gemini::STREAMING, &plain, pieces, &cuts)?;
    }
}
