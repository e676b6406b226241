//! Events, and what the streams of all dialects have in common.

use serde_json::{Map, Value};

/// How a client wants its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// In one piece.
    #[default]
    Whole,
    /// As server-sent events.
    Events {
        /// Whether they are to say what the answer cost.
        usage: bool,
    },
    /// As one JSON array, element by element.
    Array,
    /// As AWS's binary frames.
    Frames {
        /// Whether each event is inside a chunk.
        chunks: bool,
    },
}

/// How a dialect streams.
pub struct Streaming {
    /// The events of a plain reply, each text of which is split into so many pieces.
    pub events: fn(&Value, usize) -> Vec<Event>,
    /// The error in place of the remaining events, from the body that an error has; the number is that of the events
    /// before it.
    pub error: fn(&Value, usize) -> Event,
    /// What is sent while there is nothing new.
    pub ping: &'static str,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name; empty if it has none.
    pub name: String,
    /// Its data: JSON, but for the `[DONE]` of Chat Completions.
    pub data: String,
    /// Whether the data are sent without `data:`, as Google sends errors; of frames, whether it is an exception.
    pub is_bare: bool,
}

impl Event {
    /// One without a name.
    pub fn unnamed(data: impl ToString) -> Self {
        Self { name: String::new(), data: data.to_string(), is_bare: false }
    }

    /// One whose name is the `type` of its data.
    pub fn typed(data: &Value) -> Self {
        let name = data.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { name, ..Self::unnamed(data) }
    }

    /// As it is sent.
    pub fn frame(&self) -> String {
        let Self { name, data, is_bare } = self;
        if *is_bare {
            return format!("{data}\n\n");
        }
        let name = if name.is_empty() { String::new() } else { format!("event: {name}\n") };
        format!("{name}data: {}\n\n", data.replace('\n', "\ndata: "))
    }
}

/// Events as the parts of a body, in any form.
pub fn parts(events: &[Event], form: Form) -> Vec<Vec<u8>> {
    match form {
        Form::Frames { chunks } => events.iter().map(|event| super::converse::frame(event, chunks)).collect(),
        form => frames(events, form).into_iter().map(String::into_bytes).collect(),
    }
}

/// Events as the parts of a body that is text.
pub fn frames(events: &[Event], form: Form) -> Vec<String> {
    if form != Form::Array {
        return events.iter().map(Event::frame).collect();
    }
    let last = events.len().saturating_sub(1);
    let element = |(place, event): (usize, &Event)| {
        let (before, after) = (if place == 0 { "[" } else { ",\r\n" }, if place == last { "]" } else { "" });
        format!("{before}{}{after}", event.data)
    };
    events.iter().enumerate().map(element).collect()
}

/// Splits a text into about so many pieces of the same length; one, which may be empty, at least.
pub fn split(text: &str, pieces: usize) -> Vec<&str> {
    let length = text.chars().count().div_ceil(pieces.max(1)).max(1);
    let mut places: Vec<usize> = text.char_indices().step_by(length).map(|(place, _)| place).collect();
    if places.is_empty() {
        places.push(0);
    }
    let ends = places.iter().skip(1).copied().chain([text.len()]);
    places.iter().zip(ends).map(|(from, to)| &text[*from..to]).collect()
}

/// The part of a list that belongs to a piece of a text.
pub fn share(list: &[Value], piece: usize, pieces: usize) -> &[Value] {
    &list[list.len() * piece / pieces..list.len() * (piece + 1) / pieces]
}

/// The fields of an object, but for some.
pub fn without(object: &Value, names: &[&str]) -> Map<String, Value> {
    let fields = object.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| !names.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The elements of a field that is a list; none of anything else.
pub fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
