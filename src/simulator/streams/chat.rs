//! Streams of Chat Completions: chunks with deltas, those of several choices in turn, and `[DONE]`.

use serde_json::{Map, Value, json};

use super::event::{Event, Streaming, list, share, split, without};

/// Those of Chat Completions.
pub const STREAMING: Streaming = Streaming { events, error: |body, _| Event::unnamed(body), ping: ": keep-alive\n\n" };

/// The texts that come in pieces, in the order in which models write them.
const TEXTS: [&str; 4] = ["reasoning_content", "reasoning", "content", "refusal"];

/// The events of a plain reply. They say what it cost if it does.
pub fn events(plain: &Value, pieces: usize) -> Vec<Event> {
    let mut head = without(plain, &["choices", "usage"]);
    head.insert("object".to_owned(), "chat.completion.chunk".into());
    let usage = plain.get("usage");
    let chunk = |choices: Vec<Value>, usage: Option<&Value>| {
        let mut chunk = head.clone();
        chunk.insert("choices".to_owned(), choices.into());
        chunk.extend(usage.map(|usage| ("usage".to_owned(), usage.clone())));
        Event::unnamed(Value::Object(chunk))
    };
    let mut turns: Vec<_> = list(plain, "choices")
        .iter()
        .enumerate()
        .map(|(place, choice)| parts(choice, place, pieces).into_iter())
        .collect();
    let mut events = Vec::new();
    loop {
        let round: Vec<Value> = turns.iter_mut().filter_map(Iterator::next).collect();
        if round.is_empty() {
            break;
        }
        events.extend(round.into_iter().map(|choice| chunk(vec![choice], usage.map(|_| &Value::Null))));
    }
    events.extend(usage.map(|usage| chunk(Vec::new(), Some(usage))));
    events.push(Event::unnamed("[DONE]"));
    events
}

/// The parts of a choice, which has this place in the reply.
fn parts(choice: &Value, place: usize, pieces: usize) -> Vec<Value> {
    let index = choice.get("index").cloned().unwrap_or_else(|| place.into());
    let part = |delta: Value, logprobs: Value, more: Map<String, Value>| {
        let mut part = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null});
        if let Some(fields) = part.as_object_mut() {
            fields.extend(more);
        }
        part
    };
    let message = choice.get("message").unwrap_or(&Value::Null);
    let mut first = without(message, &[&TEXTS[..], &["tool_calls"]].concat());
    first.insert("content".to_owned(), if message["content"].is_null() { Value::Null } else { "".into() });
    let mut parts = vec![part(Value::Object(first), Value::Null, Map::new())];
    for name in TEXTS {
        let logprobs = choice.pointer(&format!("/logprobs/{name}")).and_then(Value::as_array);
        let texts: Vec<Value> = match &message[name] {
            Value::String(text) => split(text, pieces).into_iter().map(Into::into).collect(),
            // A list of parts (Mistral).
            Value::Array(parts) => parts.iter().map(|part| vec![part.clone()].into()).collect(),
            _ => Vec::new(),
        };
        for (place, text) in texts.iter().enumerate() {
            let logprobs = logprobs.map_or(Value::Null, |tokens| {
                let mut both = json!({"content": null, "refusal": null});
                both[name] = share(tokens, place, texts.len()).into();
                both
            });
            parts.push(part(json!({name: text}), logprobs, Map::new()));
        }
    }
    for (place, call) in list(message, "tool_calls").iter().enumerate() {
        parts.extend(fragments(call, place, pieces).into_iter().map(|delta| part(delta, Value::Null, Map::new())));
    }
    parts.push(part(json!({}), Value::Null, without(choice, &["index", "message", "logprobs"])));
    parts
}

/// A call, whose arguments come in pieces after all the rest of it.
fn fragments(call: &Value, place: usize, pieces: usize) -> Vec<Value> {
    let mut first = call.clone();
    first["index"] = place.into();
    let delta = |call: Value| json!({"tool_calls": [call]});
    let Some(arguments) = call.pointer("/function/arguments").and_then(Value::as_str) else {
        return vec![delta(first)];
    };
    first["function"]["arguments"] = "".into();
    let more = |piece: &str| delta(json!({"index": place, "function": {"arguments": piece}}));
    let rest = split(arguments, pieces).into_iter().map(more);
    [delta(first)].into_iter().chain(rest).collect()
}
