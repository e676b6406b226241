//! Messages as Converse takes them.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::reply::{Block as ReplyBlock, PROTOCOL};
use crate::providers::media::{Media, MediaKind};
use crate::providers::prompt::{Content, Fields, Part, Role, Turn};
use crate::providers::reply::{ToolCall, arguments};
use crate::providers::shared::{SharedText, Text};
use crate::providers::shown::Quoted;
use crate::providers::state::{Kind, Written, replay, turn_of};

pub const NAME: &str = "Amazon Bedrock's Converse";

/// Fields of a part that are sent as a block after it.
const OF_PARTS: &[&str] = &["cachePoint"];
/// Fields of a tool's message that go along.
const OF_RESULTS: &[&str] = &["status"];

#[derive(Serialize)]
pub struct Message<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Block<'a> {
    Text(&'a Text),
    Image {
        format: &'a str,
        source: Source<'a>,
    },
    Audio {
        format: &'a str,
        source: Source<'a>,
    },
    Document {
        format: &'a str,
        name: String,
        source: Source<'a>,
    },
    #[serde(rename_all = "camelCase")]
    ToolUse {
        tool_use_id: &'a str,
        name: &'a str,
        input: &'a RawValue,
    },
    #[serde(rename_all = "camelCase")]
    ToolResult {
        tool_use_id: &'a str,
        content: Vec<Block<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<&'a RawValue>,
    },
    CachePoint(&'a RawValue),
    #[serde(untagged)]
    Raw(Box<RawValue>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Source<'a> {
    Bytes(&'a SharedText),
    S3Location { uri: &'a SharedText },
}

/// The turns but for instructions; those of one role in a row are one message, for roles have to take turns. `binds`:
/// whether thoughts belong to what came before them.
pub fn conversation<'a>(turns: &'a [Turn<'a>], model: &str, binds: bool) -> Result<Vec<Message<'a>>, String> {
    let mut messages: Vec<Message<'a>> = Vec::with_capacity(turns.len());
    for turn in turns.iter().filter(|turn| turn.role != Role::System) {
        let role = if turn.role == Role::Assistant { "assistant" } else { "user" };
        let content = if turn.role == Role::Tool { vec![result(turn)?] } else { blocks_of(turn, model, binds)? };
        match messages.last_mut() {
            Some(last) if last.role == role => last.content.extend(content),
            _ if content.is_empty() => {}
            _ => messages.push(Message { role, content }),
        }
    }
    Ok(messages)
}

fn result<'a>(turn: &'a Turn<'a>) -> Result<Block<'a>, String> {
    turn.more.only(OF_RESULTS, "message", NAME)?;
    let status = turn.more.0.iter().find(|(name, _)| name == "status").map(|(_, value)| &**value);
    let tool_use_id = turn.tool_call_id.unwrap_or_default();
    Ok(Block::ToolResult { tool_use_id, content: content(turn)?, status })
}

fn blocks_of<'a>(turn: &'a Turn<'a>, model: &str, binds: bool) -> Result<Vec<Block<'a>>, String> {
    if let Some(name) = turn.name {
        return Err(format!("{NAME} does not support the field \"name\" of a message ({name:?}): leave it out"));
    }
    turn.more.only(&[], "message", NAME)?;
    let Some(kept) = turn_of::<Vec<Box<RawValue>>>(turn, PROTOCOL, model) else {
        let mut blocks = content(turn)?;
        for one in turn.tool_calls {
            blocks.push(call(one)?);
        }
        return Ok(blocks);
    };
    let mut blocks = Vec::with_capacity(kept.len());
    for written in replay(kept, turn, |raw, _| kind(raw)) {
        match written {
            Written::Raw(raw) if matches!(kind(&raw), Kind::Text(text) if text.trim().is_empty()) => {}
            Written::Raw(raw) if turn.is_after_edit && is_thought(&raw) => {}
            Written::Late(raw) if binds && is_thought(&raw) => {}
            Written::Raw(raw) | Written::Late(raw) => blocks.push(Block::Raw(raw)),
            Written::Content => blocks.extend(content(turn)?),
            Written::Call(one) => blocks.push(call(one)?),
        }
    }
    Ok(blocks)
}

fn kind(raw: &RawValue) -> Kind {
    let Ok(block) = serde_json::from_str::<ReplyBlock>(raw.get()) else { return Kind::Opaque };
    match (block.text, block.tool_use) {
        (Some(text), _) => Kind::Text(text),
        (None, Some(call)) => Kind::Call(call.tool_use_id.unwrap_or_default(), arguments(call.input)),
        _ => Kind::Opaque,
    }
}

fn is_thought(raw: &RawValue) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Thought {
        reasoning_content: Option<IgnoredAny>,
    }
    serde_json::from_str::<Thought>(raw.get()).is_ok_and(|block| block.reasoning_content.is_some())
}

/// What is said in a turn, without empty texts: they are answered with an error.
fn content<'a>(turn: &'a Turn<'a>) -> Result<Vec<Block<'a>>, String> {
    let parts = match &turn.content {
        Content::Text(text) if text.trim().is_empty() => return Ok(Vec::new()),
        Content::Text(text) => return Ok(vec![Block::Text(text)]),
        Content::Parts(parts) => parts,
    };
    let mut blocks = Vec::with_capacity(parts.len());
    for (number, part) in parts.iter().enumerate() {
        let (inner, more): (&Part, Option<&Fields>) = match part {
            Part::With(both) => (&both.0, Some(&both.1)),
            part => (part, None),
        };
        if inner.text().is_none_or(|text| !text.trim().is_empty()) {
            blocks.push(block(inner, number)?);
        }
        if let Some(more) = more {
            more.only(OF_PARTS, "part", NAME)?;
            blocks.extend(more.0.iter().map(|(_, value)| Block::CachePoint(value)));
        }
    }
    Ok(blocks)
}

fn block(part: &Part, number: usize) -> Result<Block<'_>, String> {
    let media: &Media = match part {
        Part::Text(text) => return Ok(Block::Text(text)),
        Part::Media(media) => media,
        Part::With(inner) => return block(&inner.0, number),
    };
    if let Some(detail) = media.detail.as_deref().filter(|detail| *detail != "auto") {
        return Err(format!("{NAME} does not support detail={detail:?} of an image: leave it out"));
    }
    let source = match media.base64() {
        Some(data) => Source::Bytes(data),
        None if media.url().text().starts_with("s3://") => Source::S3Location { uri: media.url() },
        None => {
            let kind = media.kind.name();
            return Err(format!("{NAME} fetches nothing but s3:// addresses: pass the bytes of the {kind}"));
        }
    };
    Ok(match media.kind {
        MediaKind::Image => Block::Image { format: media.format(), source },
        MediaKind::Audio => Block::Audio { format: media.format(), source },
        MediaKind::File => Block::Document { format: format_of(media), name: name_of(media, number), source },
    })
}

/// The format of a document, as Converse calls it.
fn format_of(media: &Media) -> &str {
    match media.media_type.as_str() {
        "text/plain" => "txt",
        "text/markdown" => "md",
        "application/msword" => "doc",
        "application/vnd.ms-excel" => "xls",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => "docx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" => "xlsx",
        _ => media.format(),
    }
}

/// The name of a document, which has to be one, of few kinds of characters, and another than others' in the message.
fn name_of(media: &Media, number: usize) -> String {
    let given = media.name.as_deref().unwrap_or_default();
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-()[]".contains(letter);
    let clean: String = given.chars().map(|letter| if allowed(letter) { letter } else { ' ' }).take(200).collect();
    let words: Vec<&str> = clean.split_whitespace().collect();
    if words.is_empty() { format!("document-{number}") } else { words.join(" ") }
}

fn call(call: &ToolCall) -> Result<Block<'_>, String> {
    let input = serde_json::from_str::<&RawValue>(call.object())
        .ok()
        .filter(|raw| serde_json::from_str::<Value>(raw.get()).is_ok_and(|value| value.is_object()))
        .ok_or_else(|| format!("the arguments of tool call {} are not a JSON object", Quoted(&call.name)))?;
    Ok(Block::ToolUse { tool_use_id: &call.id, name: &call.name, input })
}
