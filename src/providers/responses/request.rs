//! Turns of a conversation as input items of the Responses API. For its dialect alone.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::PROTOCOL;
use super::reply::OutputItem;
use crate::providers::marked::Breakpoint;
use crate::providers::media::MediaKind;
use crate::providers::options::Options;
use crate::providers::prompt::{Content, Fields, Part, Role, Turn};
use crate::providers::reply::{ToolCall, arguments};
use crate::providers::shared::{SharedText, Text};
use crate::providers::state::{Kind, Written, replay, turn_of};

/// An item of the input.
#[derive(Serialize)]
#[serde(untagged)]
pub enum InputItem<'a> {
    Message { role: &'static str, content: Vec<InputPart<'a>> },
    Call { r#type: &'static str, call_id: &'a str, name: &'a str, arguments: &'a str },
    Result { r#type: &'static str, call_id: &'a str, output: Output<'a> },
    Raw(Fields),
}

#[derive(Serialize)]
#[serde(untagged)]
pub enum Output<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<InputPart<'a>>),
}

#[derive(Serialize)]
pub struct InputPart<'a> {
    #[serde(flatten)]
    pub part: PlainPart<'a>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub more: Option<&'a Fields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_cache_breakpoint: Option<Breakpoint>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PlainPart<'a> {
    InputText {
        text: &'a Text,
    },
    /// Words that all requests have.
    #[serde(rename = "input_text")]
    Instructions {
        text: &'a SharedText,
    },
    OutputText {
        text: &'a Text,
    },
    InputImage {
        image_url: &'a SharedText,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
    },
    InputFile {
        #[serde(skip_serializing_if = "Option::is_none")]
        filename: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_data: Option<&'a SharedText>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_url: Option<&'a SharedText>,
    },
}

/// Fields of a part that go along: a breakpoint of the prompt cache.
const MORE: &[&str] = &["prompt_cache_breakpoint"];

/// Writes a turn. `mark`: the number of its part that ends at a breakpoint.
pub fn write<'a>(
    turn: &'a Turn<'a>,
    options: &Options,
    mark: Option<usize>,
    items: &mut Vec<InputItem<'a>>,
) -> Result<(), String> {
    turn.more.only(&[], "message", "the Responses API")?;
    if turn.role == Role::Tool {
        let call_id = turn.tool_call_id.unwrap_or_default();
        let output = match &turn.content {
            Content::Parts(parts) if parts.iter().any(|part| part.text().is_none()) => {
                Output::Parts(parts.iter().map(|one| part(one, Role::Tool, false)).collect::<Result<_, _>>()?)
            }
            _ => Output::Text(turn.words()),
        };
        items.push(InputItem::Result { r#type: "function_call_output", call_id, output });
        return Ok(());
    }
    if let Some(name) = turn.name {
        return Err(format!(
            "the Responses API does not support the field \"name\" of a message ({name:?}): leave it out, or use api=\"chat\""
        ));
    }
    let Some(kept) = turn_of::<Vec<Box<RawValue>>>(turn, PROTOCOL, &options.model) else {
        items.extend(content(turn, mark)?);
        items.extend(turn.tool_calls.iter().map(call));
        return Ok(());
    };
    // What OpenAI does not store it does not know by its id.
    let is_stored = options.extra_body.get("store").is_some_and(|store| store == &json!(true));
    let mut replayed = Vec::new();
    for written in replay(kept, turn, |raw, _| kind(raw)) {
        match written {
            Written::Raw(raw) | Written::Late(raw) => {
                let mut item: Fields = serde_json::from_str(raw.get()).unwrap_or_default();
                let has = |name: &str| item.0.iter().any(|(key, value)| key == name && value.get() != "null");
                // What is not stored and not encrypted says nothing to the server, which then rejects the request.
                if is_reasoning(&item) && !is_stored && !has("encrypted_content") {
                    continue;
                }
                let is_own = matches!(kind(&raw), Kind::Text(_) | Kind::Call(..)) || is_reasoning(&item);
                // Items of the server's own tools are known by their ids and states.
                item.0.retain(|(name, _)| !is_own || (name != "status" && (is_stored || name != "id")));
                replayed.push(InputItem::Raw(item));
            }
            Written::Content => replayed.extend(content(turn, None)?),
            Written::Call(one) => replayed.push(call(one)),
        }
    }
    // A reasoning item must be followed by what it led to.
    while let Some(InputItem::Raw(last)) = replayed.last()
        && is_reasoning(last)
    {
        replayed.pop();
    }
    items.extend(replayed);
    Ok(())
}

/// A request without reasoning items, and without the ids of what followed them: with an id, the server wants both. `None`:
/// it has none.
pub fn without_reasoning(body: &[u8]) -> Option<Vec<u8>> {
    let mut fields: Fields = serde_json::from_slice(body).ok()?;
    let (_, input) = fields.0.iter_mut().find(|(name, _)| name == "input")?;
    let mut items: Vec<Fields> = serde_json::from_str(input.get()).ok()?;
    let count = items.len();
    items.retain(|item| !is_reasoning(item));
    if items.len() == count {
        return None;
    }
    for item in &mut items {
        let is_own = item
            .0
            .iter()
            .any(|(name, value)| name == "type" && matches!(value.get(), "\"message\"" | "\"function_call\""));
        item.0.retain(|(name, _)| !is_own || name != "id");
    }
    *input = serde_json::value::to_raw_value(&items).ok()?;
    serde_json::to_vec(&fields).ok()
}

fn is_reasoning(item: &Fields) -> bool {
    item.0.iter().any(|(name, value)| name == "type" && value.get() == "\"reasoning\"")
}

fn kind(raw: &RawValue) -> Kind {
    let Ok(item) = serde_json::from_str::<OutputItem>(raw.get()) else { return Kind::Opaque };
    match item.kind() {
        "message" => Kind::Text(item.content.into_iter().filter_map(|part| part.text).collect()),
        "function_call" => Kind::Call(item.given_id().unwrap_or_default(), arguments(item.arguments)),
        _ => Kind::Opaque,
    }
}

fn call(call: &ToolCall) -> InputItem<'_> {
    let arguments = call.object();
    InputItem::Call { r#type: "function_call", call_id: &call.id, name: &call.name, arguments }
}

/// What is said in a turn; `None` where nothing is.
fn content<'a>(turn: &'a Turn<'a>, mark: Option<usize>) -> Result<Option<InputItem<'a>>, String> {
    let role = match turn.role {
        Role::System => "developer",
        Role::Assistant => "assistant",
        _ => "user",
    };
    let content: Vec<InputPart<'a>> = match &turn.content {
        Content::Text(text) if text.is_empty() && turn.role == Role::Assistant => Vec::new(),
        Content::Text(text) => {
            let prompt_cache_breakpoint = mark.map(|_| Breakpoint::EXPLICIT);
            vec![InputPart { part: words(text, turn.role), more: None, prompt_cache_breakpoint }]
        }
        Content::Parts(parts) => {
            let parts = parts.iter().enumerate().map(|(number, one)| part(one, turn.role, mark == Some(number)));
            parts.collect::<Result<_, _>>()?
        }
    };
    Ok((!content.is_empty()).then_some(InputItem::Message { role, content }))
}

fn words(text: &Text, role: Role) -> PlainPart<'_> {
    if role == Role::Assistant { PlainPart::OutputText { text } } else { PlainPart::InputText { text } }
}

fn part(part: &Part, role: Role, is_marked: bool) -> Result<InputPart<'_>, String> {
    let prompt_cache_breakpoint = is_marked.then_some(Breakpoint::EXPLICIT);
    match part {
        Part::With(inner) => {
            inner.1.only(MORE, "part", "the Responses API")?;
            Ok(InputPart { part: plain(&inner.0, role)?, more: Some(&inner.1), prompt_cache_breakpoint })
        }
        part => Ok(InputPart { part: plain(part, role)?, more: None, prompt_cache_breakpoint }),
    }
}

fn plain(part: &Part, role: Role) -> Result<PlainPart<'_>, String> {
    let media = match part {
        Part::Text(text) => return Ok(words(text, role)),
        Part::Media(media) => media,
        Part::With(inner) => return plain(&inner.0, role),
    };
    let travels = media.travels();
    match media.kind {
        MediaKind::Image => Ok(PlainPart::InputImage { image_url: media.url(), detail: media.detail.as_deref() }),
        MediaKind::File => Ok(PlainPart::InputFile {
            filename: media.name.as_deref().or(travels.then_some("file")),
            file_data: travels.then_some(media.url()),
            file_url: (!travels).then_some(media.url()),
        }),
        MediaKind::Audio => Err("the Responses API does not accept audio: use api=\"chat\"".to_owned()),
    }
}
