//! Streams of Amazon Bedrock's Converse: events of blocks, the end's reason, the usage. And AWS's binary frames, in which
//! all streams of Bedrock come.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::event::{Event, Streaming, list, split};

/// Those of Converse.
pub const STREAMING: Streaming = Streaming { events, error: exception, ping: "" };

fn event(name: &str, data: &Value) -> Event {
    Event { name: name.to_owned(), data: data.to_string(), is_bare: false }
}

/// The exception in place of the remaining events: the name in the body, as it is in streams.
pub fn exception(body: &Value, _: usize) -> Event {
    let name = body["__type"].as_str().unwrap_or("InternalServerException");
    let (first, rest) = name.split_at(1);
    let data = json!({"message": body["message"]});
    Event { name: first.to_lowercase() + rest, data: data.to_string(), is_bare: true }
}

/// The events of a plain reply.
pub fn events(plain: &Value, pieces: usize) -> Vec<Event> {
    let mut all = vec![event("messageStart", &json!({"role": "assistant"}))];
    for (index, block) in list(&plain["output"]["message"], "content").iter().enumerate() {
        let mut add = |delta: Value| {
            all.push(event("contentBlockDelta", &json!({"delta": delta, "contentBlockIndex": index, "p": "abcd"})));
        };
        if let Some(text) = block["text"].as_str() {
            split(text, pieces).into_iter().for_each(|text| add(json!({"text": text})));
        } else if let Some(thought) = block["reasoningContent"].get("reasoningText") {
            let text = thought["text"].as_str().unwrap_or_default();
            split(text, pieces).into_iter().for_each(|text| add(json!({"reasoningContent": {"text": text}})));
            add(json!({"reasoningContent": {"signature": thought["signature"]}}));
        } else if let Some(call) = block.get("toolUse") {
            let start = json!({"toolUse": {"toolUseId": call["toolUseId"], "name": call["name"]}});
            all.push(event("contentBlockStart", &json!({"start": start, "contentBlockIndex": index})));
            let input = if call["input"] == json!({}) { String::new() } else { call["input"].to_string() };
            for part in split(&input, pieces) {
                let delta = json!({"toolUse": {"input": part}});
                all.push(event("contentBlockDelta", &json!({"delta": delta, "contentBlockIndex": index})));
            }
        }
        all.push(event("contentBlockStop", &json!({"contentBlockIndex": index})));
    }
    all.push(event("messageStop", &json!({"stopReason": plain["stopReason"]})));
    all.push(event("metadata", &json!({"usage": plain["usage"], "metrics": plain["metrics"]})));
    all
}

/// An event as a frame. `chunk`: inside one, as InvokeModel sends the events of models.
pub fn frame(event: &Event, chunk: bool) -> Vec<u8> {
    let inside = json!({"bytes": STANDARD.encode(&event.data), "p": "abcdefgh"}).to_string();
    let (kind, name_of, name, payload) = match (event.is_bare, chunk) {
        (true, _) => ("exception", ":exception-type", event.name.as_str(), event.data.as_str()),
        (false, true) => ("event", ":event-type", "chunk", inside.as_str()),
        (false, false) => ("event", ":event-type", event.name.as_str(), event.data.as_str()),
    };
    let mut headers = Vec::new();
    for (name, value) in [(name_of, name), (":content-type", "application/json"), (":message-type", kind)] {
        headers.push(name.len() as u8); // all of them are short
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let length = |bytes: usize| (bytes as u32).to_be_bytes();
    let mut frame = Vec::new();
    frame.extend_from_slice(&length(16 + headers.len() + payload.len()));
    frame.extend_from_slice(&length(headers.len()));
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(payload.as_bytes());
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame
}
