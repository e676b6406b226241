//! Streams of Responses: numbered events that open, fill and close items, and the whole reply in the last.

use serde_json::{Value, json};

use super::event::{Event, Streaming, list, share, split, without};

/// Those of Responses.
pub const STREAMING: Streaming = Streaming { events, error, ping: ": keep-alive\n\n" };

/// The events of a plain reply.
pub fn events(plain: &Value, pieces: usize) -> Vec<Event> {
    let mut events = Numbered(Vec::new());
    let mut started = plain.clone();
    started["status"] = "in_progress".into();
    started["output"] = Value::Array(Vec::new());
    for name in ["incomplete_details", "usage", "error"] {
        started[name] = Value::Null;
    }
    events.add(json!({"type": "response.created", "response": started}));
    events.add(json!({"type": "response.in_progress", "response": started}));
    for (place, item) in list(plain, "output").iter().enumerate() {
        let item = Item { item, place, pieces };
        events.add(json!({"type": "response.output_item.added", "output_index": place, "item": item.started()}));
        item.fill(&mut events);
        events.add(json!({"type": "response.output_item.done", "output_index": place, "item": item.item}));
    }
    let status = plain["status"].as_str().unwrap_or_default();
    let end = if matches!(status, "incomplete" | "failed") { status } else { "completed" };
    events.add(json!({"type": format!("response.{end}"), "response": plain}));
    events.0
}

fn error(body: &Value, number: usize) -> Event {
    let error = &body["error"];
    Event::typed(&json!({"type": "error", "code": error["code"], "message": error["message"], "param": error["param"],
        "sequence_number": number}))
}

struct Numbered(Vec<Event>);

impl Numbered {
    fn add(&mut self, mut event: Value) {
        event["sequence_number"] = self.0.len().into();
        self.0.push(Event::typed(&event));
    }
}

/// An item of the output.
struct Item<'a> {
    item: &'a Value,
    place: usize,
    pieces: usize,
}

impl Item<'_> {
    /// The item before anything of it is there.
    fn started(&self) -> Value {
        let mut started = self.item.clone();
        for name in ["content", "summary"] {
            if started[name].is_array() {
                started[name] = Value::Array(Vec::new());
            }
        }
        for name in ["arguments", "input"] {
            if started[name].is_string() {
                started[name] = "".into();
            }
        }
        if started.get("status").is_some() {
            started["status"] = "in_progress".into();
        }
        started
    }

    fn fill(&self, events: &mut Numbered) {
        for (number, part) in list(self.item, "summary").iter().enumerate() {
            self.part("reasoning_summary", "summary_index", number, part, events);
        }
        for (number, part) in list(self.item, "content").iter().enumerate() {
            self.part("content", "content_index", number, part, events);
        }
        let written = match self.item["type"].as_str() {
            Some("function_call") => ("function_call_arguments", "arguments"),
            Some("custom_tool_call") => ("custom_tool_call_input", "input"),
            _ => return,
        };
        self.text(written.0, written.1, self.item, &json!({}), events);
    }

    /// A part of the item, with its text if it has one.
    fn part(&self, what: &str, index: &str, number: usize, part: &Value, events: &mut Numbered) {
        let at = json!({index: number});
        let (kind, field) = match (what, part["type"].as_str()) {
            ("reasoning_summary", _) => ("reasoning_summary_text", "text"),
            (_, Some("refusal")) => ("refusal", "refusal"),
            (_, Some("reasoning_text")) => ("reasoning_text", "text"),
            _ => ("output_text", "text"),
        };
        let mut started = part.clone();
        started[field] = "".into();
        for name in ["annotations", "logprobs"] {
            if started[name].is_array() {
                started[name] = Value::Array(Vec::new());
            }
        }
        events.add(self.about(&format!("{what}_part.added"), &at, json!({"part": started})));
        self.text(kind, field, part, &at, events);
        for (place, annotation) in list(part, "annotations").iter().enumerate() {
            let more = json!({"annotation_index": place, "annotation": annotation});
            events.add(self.about("output_text.annotation.added", &at, more));
        }
        events.add(self.about(&format!("{what}_part.done"), &at, json!({"part": part})));
    }

    /// A text in pieces, and then as a whole.
    fn text(&self, kind: &str, field: &str, holder: &Value, at: &Value, events: &mut Numbered) {
        let Some(text) = holder[field].as_str() else { return };
        let logprobs = list(holder, "logprobs");
        let pieces = split(text, self.pieces);
        for (place, piece) in pieces.iter().enumerate() {
            let mut more = json!({"delta": piece});
            if kind == "output_text" {
                more["logprobs"] = share(logprobs, place, pieces.len()).into();
            }
            events.add(self.about(&format!("{kind}.delta"), at, more));
        }
        let mut more = json!({field: text});
        if kind == "output_text" {
            more["logprobs"] = logprobs.into();
        } else if let Some(name) = holder.get("name") {
            more["name"] = name.clone();
        }
        events.add(self.about(&format!("{kind}.done"), at, more));
    }

    fn about(&self, kind: &str, at: &Value, more: Value) -> Value {
        let mut event = json!({"type": format!("response.{kind}"), "item_id": self.item["id"],
            "output_index": self.place});
        if let Some(fields) = event.as_object_mut() {
            fields.extend(without(at, &[]));
            fields.extend(without(&more, &[]));
        }
        event
    }
}
