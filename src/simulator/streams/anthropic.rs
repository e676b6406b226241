//! Streams of Anthropic's Messages: the message without its content, the blocks with their deltas, and the end's reason.

use serde_json::{Value, json};

use super::event::{Event, Streaming, list, split, without};

const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// Those of Messages.
pub const STREAMING: Streaming = Streaming { events, error: |body, _| Event::typed(body), ping: PING };

/// What is known only at the end, besides the usage.
const LAST: [&str; 4] = ["stop_reason", "stop_sequence", "stop_details", "container"];

/// The events of a plain reply.
pub fn events(plain: &Value, pieces: usize) -> Vec<Event> {
    let mut started = plain.clone();
    started["content"] = Value::Array(Vec::new());
    for name in LAST {
        if started.get(name).is_some() {
            started[name] = Value::Null;
        }
    }
    if plain["usage"]["output_tokens"].is_u64() {
        started["usage"]["output_tokens"] = 1.into();
    }
    let mut all = vec![json!({"type": "message_start", "message": started})];
    for (index, block) in list(plain, "content").iter().enumerate() {
        let (start, deltas) = parts(block, pieces);
        all.push(json!({"type": "content_block_start", "index": index, "content_block": start}));
        if index == 0 {
            all.push(json!({"type": "ping"}));
        }
        all.extend(
            deltas.into_iter().map(|delta| json!({"type": "content_block_delta", "index": index, "delta": delta})),
        );
        all.push(json!({"type": "content_block_stop", "index": index}));
    }
    let mut delta = plain.clone();
    if let Some(fields) = delta.as_object_mut() {
        fields.retain(|name, _| LAST.contains(&name.as_str()));
    }
    // Totals; what depends on the prompt alone and has parts was in the beginning.
    let usage = without(&plain["usage"], &["cache_creation", "service_tier", "inference_geo"]);
    all.push(json!({"type": "message_delta", "delta": delta, "usage": usage}));
    all.push(json!({"type": "message_stop"}));
    all.iter().map(Event::typed).collect()
}

/// A block as it begins, and what is added to it.
fn parts(block: &Value, pieces: usize) -> (Value, Vec<Value>) {
    let mut start = block.clone();
    let mut deltas = Vec::new();
    match block["type"].as_str() {
        Some("text") => {
            start["text"] = "".into();
            deltas.extend(texts(&block["text"], pieces).map(|text| json!({"type": "text_delta", "text": text})));
            let citations = list(block, "citations");
            if !citations.is_empty() {
                start["citations"] = Value::Array(Vec::new());
            }
            deltas.extend(citations.iter().map(|citation| json!({"type": "citations_delta", "citation": citation})));
        }
        Some("thinking") => {
            start["thinking"] = "".into();
            let thoughts = texts(&block["thinking"], pieces);
            deltas.extend(thoughts.map(|text| json!({"type": "thinking_delta", "thinking": text})));
            if let Some(signature) = block.get("signature") {
                start["signature"] = "".into();
                deltas.push(json!({"type": "signature_delta", "signature": signature}));
            }
        }
        Some("tool_use" | "server_tool_use" | "mcp_tool_use") => {
            start["input"] = json!({});
            let input = if block["input"] == json!({}) { String::new() } else { block["input"].to_string() };
            let input = Value::String(input);
            deltas.push(json!({"type": "input_json_delta", "partial_json": ""}));
            deltas.extend(texts(&input, pieces).map(|text| json!({"type": "input_json_delta", "partial_json": text})));
        }
        // Whole at once: results of the server's tools, thoughts that nobody may read.
        _ => {}
    }
    (start, deltas)
}

fn texts(text: &Value, pieces: usize) -> impl Iterator<Item = &str> {
    split(text.as_str().unwrap_or_default(), pieces).into_iter()
}
