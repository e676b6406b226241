//! Messages as Anthropic takes them.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::reply::{PROTOCOL, ReplyBlock};
use crate::providers::marked::CacheControl;
use crate::providers::media::{Media, MediaKind};
use crate::providers::options::Options;
use crate::providers::plan::Marks;
use crate::providers::prompt::{Content, Fields, Part, Role, Turn};
use crate::providers::reply::{ToolCall, arguments};
use crate::providers::shared::{SharedText, Text};
use crate::providers::shown::Quoted;
use crate::providers::state::{Kind, Written, replay, turn_of};

pub const NAME: &str = "Anthropic's Messages API";

/// Fields of blocks that go along.
const OF_BLOCKS: &[&str] = &["cache_control", "citations", "context"];
/// Fields of a tool's message that go along.
pub const OF_RESULTS: &[&str] = &["cache_control", "is_error"];

#[derive(Serialize)]
pub struct Message<'a> {
    pub role: &'static str,
    pub content: MessageContent<'a>,
    #[serde(skip)]
    pub holds_results: bool,
}

impl Message<'_> {
    /// Marks its end.
    pub fn mark(&mut self, mark: CacheControl) {
        match &mut self.content {
            MessageContent::Text(text) => self.content = MessageContent::Blocks(vec![text_block(text, Some(mark))]),
            MessageContent::Blocks(blocks) => {
                if let Some(InputBlock::Known { cache_control, .. }) = blocks.last_mut() {
                    *cache_control = Some(mark);
                }
            }
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
pub enum MessageContent<'a> {
    Text(&'a Text),
    Blocks(Vec<InputBlock<'a>>),
}

#[derive(Serialize)]
#[serde(untagged)]
pub enum InputBlock<'a> {
    Known {
        #[serde(flatten)]
        block: Block<'a>,
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        more: Option<&'a Fields>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    Raw(Box<RawValue>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block<'a> {
    Text {
        text: &'a Text,
    },
    Image {
        source: Source<'a>,
    },
    Document {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: &'a RawValue,
    },
    ToolResult {
        tool_use_id: &'a str,
        content: ResultContent<'a>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
pub enum ResultContent<'a> {
    Text(Cow<'a, str>),
    Blocks(Vec<InputBlock<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Source<'a> {
    Base64 { media_type: &'a str, data: &'a SharedText },
    Text { media_type: &'static str, data: String },
    Url { url: &'a SharedText },
}

pub fn text_block(text: &Text, cache_control: Option<CacheControl>) -> InputBlock<'_> {
    InputBlock::Known { block: Block::Text { text }, more: None, cache_control }
}

pub fn result<'a>(turn: &'a Turn<'a>) -> Result<InputBlock<'a>, String> {
    let tool_use_id = turn.tool_call_id.unwrap_or_default();
    let content = match &turn.content {
        Content::Parts(parts) if parts.iter().any(|part| !matches!(part, Part::Text(_))) => {
            ResultContent::Blocks(blocks(parts, None)?)
        }
        _ => ResultContent::Text(turn.words()),
    };
    let more = (!turn.more.0.is_empty()).then_some(turn.more);
    Ok(InputBlock::Known { block: Block::ToolResult { tool_use_id, content }, more, cache_control: None })
}

/// The marks of a question, and the number of the message that is being written.
type Marking<'a> = Option<(&'a Marks, usize)>;

pub fn message<'a>(turn: &'a Turn<'a>, options: &Options, marking: Marking<'_>) -> Result<Message<'a>, String> {
    if let Some(name) = turn.name {
        return Err(format!("{NAME} does not support the field \"name\" of a message ({name:?}): leave it out"));
    }
    let is_marked = marking.is_some_and(|(marks, place)| marks.part.is_some_and(|(message, _)| message == place));
    let role = if turn.role == Role::Assistant { "assistant" } else { "user" };
    let content = match (turn_of::<Vec<Box<RawValue>>>(turn, PROTOCOL, &options.model), &turn.content) {
        (None, Content::Text(text)) if turn.tool_calls.is_empty() && !is_marked => MessageContent::Text(text),
        (None, _) => {
            let mut blocks = content(turn, marking)?;
            for one in turn.tool_calls {
                blocks.push(call(one)?);
            }
            MessageContent::Blocks(blocks)
        }
        (Some(kept), _) => {
            let mut blocks = Vec::with_capacity(kept.len());
            for written in replay(kept, turn, |raw, _| kind(raw)) {
                match written {
                    Written::Raw(raw) if is_empty_text(&raw) || (turn.is_after_edit && is_thought(&raw)) => {}
                    Written::Late(raw) if binds_thoughts(options) && is_thought(&raw) => {}
                    Written::Raw(raw) | Written::Late(raw) => blocks.push(InputBlock::Raw(raw)),
                    Written::Content => blocks.extend(content(turn, marking)?),
                    Written::Call(one) => blocks.push(call(one)?),
                }
            }
            MessageContent::Blocks(blocks)
        }
    };
    Ok(Message { role, content, holds_results: false })
}

fn kind(raw: &RawValue) -> Kind {
    let Ok(block) = serde_json::from_str::<ReplyBlock>(raw.get()) else { return Kind::Opaque };
    match block.kind() {
        "text" => Kind::Text(block.text.unwrap_or_default()),
        "tool_use" => Kind::Call(block.id.unwrap_or_default(), arguments(block.input)),
        _ => Kind::Opaque,
    }
}

/// Whether thoughts belong to what came before them. Not where the user has asked for thinking with a budget: only older
/// models know that, which check nothing but the signature, and want thoughts back with the calls that followed.
pub fn binds_thoughts(options: &Options) -> bool {
    let kind = options.extra_body.get("thinking").and_then(|thinking| thinking.get("type"));
    kind.and_then(Value::as_str) != Some("enabled")
}

fn is_thought(raw: &RawValue) -> bool {
    let block = serde_json::from_str::<ReplyBlock>(raw.get());
    block.is_ok_and(|block| matches!(block.kind(), "thinking" | "redacted_thinking"))
}

fn is_empty_text(raw: &RawValue) -> bool {
    matches!(kind(raw), Kind::Text(text) if text.trim().is_empty())
}

/// What is said in a turn, without empty blocks: they are answered with an error.
fn content<'a>(turn: &'a Turn<'a>, marking: Marking<'_>) -> Result<Vec<InputBlock<'a>>, String> {
    match &turn.content {
        Content::Text(text) if text.trim().is_empty() => Ok(Vec::new()),
        Content::Text(text) => {
            Ok(vec![text_block(text, marking.and_then(|(marks, place)| CacheControl::at(marks, place, 0)))])
        }
        Content::Parts(parts) => blocks(parts, marking),
    }
}

fn blocks<'a>(parts: &'a [Part], marking: Marking<'_>) -> Result<Vec<InputBlock<'a>>, String> {
    let says_something = |part: &Part| part.text().is_none_or(|text| !text.trim().is_empty());
    let said = parts.iter().enumerate().filter(|(_, part)| says_something(part));
    let mark = |number: usize| marking.and_then(|(marks, place)| CacheControl::at(marks, place, number));
    said.map(|(number, one)| part(one, mark(number))).collect()
}

fn call(call: &ToolCall) -> Result<InputBlock<'_>, String> {
    let input = serde_json::from_str(call.object())
        .map_err(|error| format!("the arguments of tool call {} are not JSON: {error}", Quoted(&call.name)))?;
    let block = Block::ToolUse { id: &call.id, name: &call.name, input };
    Ok(InputBlock::Known { block, more: None, cache_control: None })
}

pub fn part(part: &Part, cache_control: Option<CacheControl>) -> Result<InputBlock<'_>, String> {
    match part {
        Part::With(inner) => {
            inner.1.only(OF_BLOCKS, "part", NAME)?;
            Ok(InputBlock::Known { block: block(&inner.0)?, more: Some(&inner.1), cache_control })
        }
        part => Ok(InputBlock::Known { block: block(part)?, more: None, cache_control }),
    }
}

fn block(part: &Part) -> Result<Block<'_>, String> {
    let media: &Media = match part {
        Part::Text(text) => return Ok(Block::Text { text }),
        Part::Media(media) => media,
        Part::With(inner) => return block(&inner.0),
    };
    if let Some(detail) = media.detail.as_deref().filter(|detail| *detail != "auto") {
        return Err(format!("{NAME} does not support detail={detail:?} of an image: leave it out"));
    }
    let source = match media.base64() {
        Some(data) if media.media_type.starts_with("text/") => {
            let text = STANDARD.decode(data.text()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let data = text.ok_or_else(|| format!("{NAME} accepts text files only in UTF-8"))?;
            Source::Text { media_type: "text/plain", data }
        }
        Some(data) => Source::Base64 { media_type: &media.media_type, data },
        None => Source::Url { url: media.url() },
    };
    match media.kind {
        MediaKind::Image => Ok(Block::Image { source }),
        MediaKind::File => Ok(Block::Document { source, title: media.name.as_deref() }),
        MediaKind::Audio => Err(format!("{NAME} does not accept audio")),
    }
}
