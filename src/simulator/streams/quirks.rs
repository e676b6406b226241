//! How servers and what lies between write streams differently: a client reads the same reply from all of them.

use serde_json::{Value, json};

use super::event::{Event, list};

/// A way to write a stream. Where a dialect has nothing that it concerns, it changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    /// Lines end with CR and LF.
    Crlf,
    /// The data of each event are several lines.
    DataLines,
    /// After each event comes one of a kind that nobody knows.
    UnknownEvents,
    /// Each chunk of Chat Completions says what the answer has cost so far (vLLM's `continuous_usage_stats`).
    RunningUsage,
    /// Fragments of calls in Chat Completions do not say of which call they are.
    NoCallIndexes,
}

/// All, with their names.
pub const QUIRKS: [(&str, Quirk); 5] = [
    ("crlf", Quirk::Crlf),
    ("data_lines", Quirk::DataLines),
    ("unknown_events", Quirk::UnknownEvents),
    ("running_usage", Quirk::RunningUsage),
    ("no_call_indexes", Quirk::NoCallIndexes),
];

impl Quirk {
    /// Events as the parts of a body, which have been the events of this plain reply.
    pub fn frames(self, events: Vec<Event>, plain: &Value) -> Vec<String> {
        let all = events.len();
        let events = events.into_iter().enumerate().flat_map(|(place, event)| match self {
            Self::Crlf => vec![event],
            Self::DataLines => vec![changed(event, |data| lines(&data))],
            Self::UnknownEvents => {
                let kind = "x.unknown";
                vec![event, Event { name: kind.into(), ..Event::unnamed(json!({"type": kind, "x_progress": place})) }]
            }
            Self::RunningUsage => vec![changed(event, |mut data| {
                if !list(&data, "choices").is_empty() && plain["usage"].is_object() {
                    data["usage"] = plain["usage"].clone();
                    let output = plain["usage"]["completion_tokens"].as_u64().unwrap_or_default();
                    data["usage"]["completion_tokens"] = (output * place as u64 / all as u64).into();
                }
                data.to_string()
            })],
            Self::NoCallIndexes => vec![changed(event, |mut data| {
                let choices = data.get_mut("choices").and_then(Value::as_array_mut);
                let calls = choices.into_iter().flatten().filter_map(|choice| choice.pointer_mut("/delta/tool_calls"));
                for call in calls.filter_map(Value::as_array_mut).flatten().filter_map(Value::as_object_mut) {
                    call.shift_remove("index");
                }
                data.to_string()
            })],
        });
        let ending = if self == Self::Crlf { "\r\n" } else { "\n" };
        events.map(|event| event.frame().replace('\n', ending)).collect()
    }
}

/// An object with each of its fields on a line of its own; what is in there is as it was.
fn lines(data: &Value) -> String {
    let Some(fields) = data.as_object() else { return data.to_string() };
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{value}", Value::from(&**name))).collect();
    format!("{{\n{}\n}}", fields.join(",\n"))
}

/// The same event with other data, unless they are no JSON (`[DONE]`).
fn changed(event: Event, change: impl Fn(Value) -> String) -> Event {
    match serde_json::from_str(&event.data) {
        Ok(data) => Event { data: change(data), ..event },
        Err(_) => event,
    }
}
