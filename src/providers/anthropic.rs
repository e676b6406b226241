//! Anthropic's Messages, `POST {base_url}/v1/messages`.
//!
//! Fields as in Anthropic's API reference (2026). Its `usage.input_tokens` is the uncached part only: the prompt's
//! tokens are the sum of three counts. `max_tokens` is required there; without one, [`MAX_TOKENS`] is sent.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::chat::finish;
use super::dialect::{Answer, Body, Dialect, Streaming, error_of};
use super::error::ProviderError;
use super::json::{bad, parse};
use super::options::{CachePrompt, Options, fields};
use super::plan::Marks;
use super::prompt::{Ask, Content, Fields, Media, MediaKind, Part, Role, Turn};
use super::reply::{Choice, Finish, TokenUsage, ToolCall, arguments, extras};
use super::shared::{SharedText, Text};
use super::shown::Quoted;
use super::state::{Kind, Written, replay, turn_of};
use super::streams::{AnthropicFold, Clocks};
use super::{lenient, schema_dialects, status};

const PROTOCOL: &str = "Messages";
const NAME: &str = "Anthropic's Messages API";

/// Longest answer when the user sets none, tokens.
pub const MAX_TOKENS: u64 = 8192;

/// The dialect.
pub struct Anthropic;

impl Dialect for Anthropic {
    fn protocol(&self) -> &'static str {
        PROTOCOL
    }

    fn path(&self, _model: &str) -> String {
        "v1/messages".to_owned()
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("anthropic-version", "2023-06-01")]
    }

    fn fields(&self, options: &Options) -> Result<Map<String, Value>, String> {
        let refused =
            [("n", options.n.is_some()), ("seed", options.seed.is_some()), ("logprobs", options.logprobs.is_some())];
        if let Some((name, _)) = refused.iter().find(|(_, given)| *given) {
            return Err(format!("Anthropic's Messages API does not support {name}: leave it out"));
        }
        let tools = options
            .tools
            .iter()
            .map(|tool| json!({"name": tool.name, "description": tool.description, "input_schema": tool.parameters}));
        let tools: Vec<Value> = tools.collect();
        let choice = options.tool_choice.as_ref().map(|choice| match choice.as_str() {
            "auto" | "none" => json!({"type": choice}),
            "required" => json!({"type": "any"}),
            name => json!({"type": "tool", "name": name}),
        });
        let mut output = Map::new();
        if let Some(effort) = &options.reasoning_effort {
            output.insert("effort".to_owned(), json!(effort));
        }
        if let Some(wanted) = &options.schema {
            let format = json!({"type": "json_schema", "schema": schema_dialects::for_anthropic(&wanted.schema)?});
            output.insert("format".to_owned(), format);
        }
        Ok(options.with_extra(fields([
            ("model", Some(json!(options.model))),
            ("max_tokens", Some(json!(options.max_tokens.unwrap_or(MAX_TOKENS)))),
            ("temperature", options.temperature.clone().map(Value::Number)),
            ("top_p", options.top_p.clone().map(Value::Number)),
            ("stop_sequences", (!options.stop.is_empty()).then(|| json!(options.stop))),
            ("tools", (!tools.is_empty()).then_some(Value::Array(tools))),
            ("tool_choice", choice),
            ("output_config", (!output.is_empty()).then_some(Value::Object(output))),
        ])))
    }

    /// Without instructions the tools are what requests have in common. With them, a mark at their end is one for the
    /// tools as well, which come before.
    fn mark(&self, options: &Options, fields: &mut Map<String, Value>) {
        if options.system_prompt.is_none()
            && let Some(tool) = fields.get_mut("tools").and_then(|tools| tools.as_array_mut()?.last_mut())
        {
            tool["cache_control"] = json!(CacheControl::new(options.cache_prompt == CachePrompt::Hour));
        }
    }

    fn conversation(&self, options: &Options, ask: &Ask, body: &mut Body) -> Result<(), String> {
        let turns = ask.turns();
        let marks = ask.marks();
        // Instructions have a place of their own, wherever they stand in the conversation.
        if !options.extra_body.contains_key("system") {
            write_system(options, &turns, marks, body)?;
        }
        let mut messages: Vec<Message<'_>> = Vec::with_capacity(turns.len());
        for (place, turn) in turns.iter().enumerate().filter(|(_, turn)| turn.role != Role::System) {
            turn.more.only(if turn.role == Role::Tool { OF_RESULTS } else { &[] }, "message", NAME)?;
            match (turn.role, messages.last_mut()) {
                // Results of calls that were made together are one message.
                (Role::Tool, Some(Message { holds_results: true, content: MessageContent::Blocks(blocks), .. })) => {
                    blocks.push(result(turn)?);
                }
                (Role::Tool, _) => messages.push(Message {
                    role: "user",
                    content: MessageContent::Blocks(vec![result(turn)?]),
                    holds_results: true,
                }),
                _ if turn.is_empty() && turn.role == Role::Assistant => {}
                _ => messages.push(message(turn, &options.model, marks.map(|marks| (marks, place)))?),
            }
        }
        if let (Some(marks), Some(newest)) = (marks.filter(|marks| marks.newest), messages.last_mut()) {
            newest.mark(CacheControl::new(marks.hour));
        }
        body.field("messages", &messages)
    }

    fn streaming(&self, model: &str) -> Option<Streaming> {
        Some(Streaming {
            path: (self.path(model), None),
            fields: fields([("stream", Some(json!(true)))]),
            fold: || Box::<AnthropicFold>::default(),
            clocks: Clocks::PINGED,
        })
    }

    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError> {
        let reply: Reply = parse(PROTOCOL, body)?;
        error_of(reply.error, body, headers)?;
        if reply.content.is_empty() && reply.stop_reason.is_none() {
            return Err(status::instead(body, headers).unwrap_or_else(|| bad(PROTOCOL, body, "it has no content")));
        }
        let mut choice = Choice::default();
        let has_state = reply.content.iter().any(|block| !matches!(block.kind(), "text" | "tool_use"));
        let mut malformed = false;
        for block in reply.content {
            match block.kind() {
                "text" => choice.text.push_str(&block.text.unwrap_or_default()),
                "thinking" => {
                    choice.reasoning.get_or_insert_default().push_str(&block.thinking.unwrap_or_default());
                }
                "tool_use" => {
                    let id = block.id.filter(|id| !id.is_empty());
                    let id = id.unwrap_or_else(|| format!("toolu_{}", choice.tool_calls.len()));
                    malformed |= block.name.is_none();
                    choice.tool_calls.push(ToolCall::new(id, block.name.unwrap_or_default(), arguments(block.input)));
                }
                _ => {}
            }
        }
        let mut unfinished = None;
        choice.finish = match reply.stop_reason.as_deref() {
            _ if malformed => Finish::Malformed,
            Some("pause_turn") => {
                unfinished = content_of(body);
                Finish::Interrupted { overloaded: false }
            }
            // Gateways pass on the words of others.
            word => finish(word),
        };
        if has_state && !choice.tool_calls.is_empty() {
            choice.turn = content_of(body).map(Into::into);
        }
        choice.native_finish = reply.stop_reason.filter(|word| word != choice.finish.name());
        let counts = reply.usage.unwrap_or_default();
        Ok(Answer {
            choices: vec![choice],
            extras: extras([
                ("service_tier", counts.service_tier.clone().map(Into::into)),
                ("stop_sequence", reply.stop_sequence.map(Into::into)),
                ("message_id", reply.id.map(Into::into)),
            ]),
            usage: counts.into(),
            model: reply.model,
            unfinished,
        })
    }

    fn turn(&self, body: &[u8]) -> Option<Box<RawValue>> {
        content_of(body)
    }

    /// The same request with the turn so far at its end (Anthropic's guide to stop reasons, `pause_turn`).
    fn go_on(&self, body: &[u8], unfinished: &RawValue) -> Option<Vec<u8>> {
        // The messages are the last field.
        let open = body.strip_suffix(b"]}")?;
        let turn = serde_json::to_vec(&json!({"role": "assistant"})).ok()?;
        let mut next = Vec::with_capacity(body.len() + unfinished.get().len() + 40);
        next.extend_from_slice(open);
        next.push(b',');
        next.extend_from_slice(turn.strip_suffix(b"}")?);
        next.extend_from_slice(b",\"content\":");
        next.extend_from_slice(unfinished.get().as_bytes());
        next.extend_from_slice(b"}]}");
        Some(next)
    }
}

/// Instructions have a place of their own, wherever they stand in the conversation: a text, or blocks where a part has
/// further fields.
fn write_system(options: &Options, turns: &[Turn<'_>], marks: Option<&Marks>, body: &mut Body) -> Result<(), String> {
    let given = || turns.iter().filter(|turn| turn.role == Role::System);
    for turn in given() {
        turn.more.only(&[], "message", NAME)?;
    }
    let fixed = marks.filter(|marks| marks.fixed).map(|marks| CacheControl::new(marks.hour));
    let ends_here = |message: usize| turns.get(message).is_some_and(|turn| turn.role == Role::System);
    let is_marked = (fixed.is_some() && options.system_prompt.is_some())
        || marks.and_then(|marks| marks.part).is_some_and(|(message, _)| ends_here(message))
        || given().any(
            |turn| matches!(&turn.content, Content::Parts(parts) if parts.iter().any(|part| matches!(part, Part::With(_)))),
        );
    if !is_marked {
        let words: Vec<Cow<'_, str>> = given().map(|turn| turn.only_words(NAME)).collect::<Result<_, _>>()?;
        if words.is_empty() {
            return options.system(|| None).map_or(Ok(()), |text| body.field("system", text));
        }
        let mut turns = given();
        if let (None, Some(Turn { content: Content::Text(text), .. }), None) =
            (&options.system_prompt, turns.next(), turns.next())
        {
            return body.field("system", &**text);
        }
        let system: Vec<Cow<'_, str>> =
            options.system_prompt.iter().map(|text| Cow::Borrowed(text.as_str())).chain(words).collect();
        return body.field("system", &system.join("\n\n"));
    }
    let own = options.system(|| None).cloned().map(Text::Shared);
    let mut blocks: Vec<InputBlock<'_>> = own.iter().map(|text| text_block(text, fixed)).collect();
    for (place, turn) in turns.iter().enumerate().filter(|(_, turn)| turn.role == Role::System) {
        let at = |number: usize| marks.and_then(|marks| CacheControl::at(marks, place, number));
        match &turn.content {
            Content::Text(text) => blocks.push(text_block(text, at(0))),
            Content::Parts(parts) => {
                for (number, one) in parts.iter().enumerate() {
                    if one.text().is_none() {
                        return Err(format!("{NAME} accepts only text in a system message"));
                    }
                    blocks.push(part(one, at(number))?);
                }
            }
        }
    }
    body.field("system", &blocks)
}

/// The blocks of a reply, as they were written.
fn content_of(body: &[u8]) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Blocks {
        content: Box<RawValue>,
    }
    parse::<Blocks>(PROTOCOL, body).ok().map(|reply| reply.content)
}

/// Fields of blocks that go along.
const OF_BLOCKS: &[&str] = &["cache_control", "citations", "context"];
/// Fields of a tool's message that go along.
const OF_RESULTS: &[&str] = &["cache_control", "is_error"];

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: MessageContent<'a>,
    #[serde(skip)]
    holds_results: bool,
}

impl Message<'_> {
    /// Marks its end.
    fn mark(&mut self, mark: CacheControl) {
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
enum MessageContent<'a> {
    Text(&'a Text),
    Blocks(Vec<InputBlock<'a>>),
}

#[derive(Serialize)]
#[serde(untagged)]
enum InputBlock<'a> {
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

/// What marks the end of what is to be cached.
#[derive(Serialize, Clone, Copy)]
struct CacheControl {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'static str>,
}

impl CacheControl {
    fn new(hour: bool) -> Self {
        Self { r#type: "ephemeral", ttl: hour.then_some("1h") }
    }

    /// The one of a part, if it has one.
    fn at(marks: &Marks, message: usize, part: usize) -> Option<Self> {
        marks.are_at(message, part).then(|| Self::new(marks.hour))
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
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
enum ResultContent<'a> {
    Text(Cow<'a, str>),
    Blocks(Vec<InputBlock<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source<'a> {
    Base64 { media_type: &'a str, data: &'a SharedText },
    Text { media_type: &'static str, data: String },
    Url { url: &'a SharedText },
}

fn text_block(text: &Text, cache_control: Option<CacheControl>) -> InputBlock<'_> {
    InputBlock::Known { block: Block::Text { text }, more: None, cache_control }
}

fn result<'a>(turn: &'a Turn<'a>) -> Result<InputBlock<'a>, String> {
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

fn message<'a>(turn: &'a Turn<'a>, model: &str, marking: Marking<'_>) -> Result<Message<'a>, String> {
    if let Some(name) = turn.name {
        return Err(format!("{NAME} does not support the field \"name\" of a message ({name:?}): leave it out"));
    }
    let is_marked = marking.is_some_and(|(marks, place)| marks.part.is_some_and(|(message, _)| message == place));
    let role = if turn.role == Role::Assistant { "assistant" } else { "user" };
    let content = match (turn_of::<Vec<Box<RawValue>>>(turn, PROTOCOL, model), &turn.content) {
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
                    Written::Raw(raw) if is_empty_text(&raw) => {}
                    Written::Raw(raw) => blocks.push(InputBlock::Raw(raw)),
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

fn part(part: &Part, cache_control: Option<CacheControl>) -> Result<InputBlock<'_>, String> {
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

#[derive(Deserialize)]
struct Reply {
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::list")]
    content: Vec<ReplyBlock>,
    #[serde(default, deserialize_with = "lenient::text")]
    model: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    stop_reason: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    stop_sequence: Option<String>,
    #[serde(default, deserialize_with = "lenient::object")]
    usage: Option<Counts>,
    #[serde(default, deserialize_with = "lenient::error")]
    error: Option<Value>,
}

/// A block of a reply, with the fields of all kinds that are looked at.
#[derive(Deserialize)]
struct ReplyBlock {
    #[serde(rename = "type", default, deserialize_with = "lenient::text")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    text: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    thinking: Option<String>,
    #[serde(default, deserialize_with = "lenient::code")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(default)]
    input: Option<Box<RawValue>>,
}

impl ReplyBlock {
    fn kind(&self) -> &str {
        // What has a text is one, also without its type.
        self.kind.as_deref().unwrap_or(if self.text.is_some() { "text" } else { "" })
    }
}

#[derive(Deserialize, Default)]
struct Counts {
    #[serde(default, deserialize_with = "lenient::count")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::object")]
    cache_creation: Option<CacheCreation>,
    #[serde(default, deserialize_with = "lenient::count")]
    cache_read_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    output_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::object")]
    output_tokens_details: Option<OutputDetails>,
    #[serde(default, deserialize_with = "lenient::text")]
    service_tier: Option<String>,
}

#[derive(Deserialize)]
struct CacheCreation {
    #[serde(default, deserialize_with = "lenient::count")]
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct OutputDetails {
    #[serde(default, deserialize_with = "lenient::count")]
    thinking_tokens: Option<u64>,
}

impl From<Counts> for TokenUsage {
    fn from(counts: Counts) -> Self {
        let cache_read = counts.cache_read_input_tokens.unwrap_or(0);
        let cache_write = counts.cache_creation_input_tokens.unwrap_or(0);
        let input = counts.input_tokens.unwrap_or(0).saturating_add(cache_read).saturating_add(cache_write);
        let output = counts.output_tokens.unwrap_or(0);
        Self {
            input,
            output,
            total: input.saturating_add(output),
            cache_read,
            cache_write,
            cache_write_hour: counts.cache_creation.and_then(|c| c.ephemeral_1h_input_tokens).unwrap_or(0),
            reasoning: counts.output_tokens_details.and_then(|d| d.thinking_tokens).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::prompt::{self, Prompt};
    use crate::providers::reply::Extra;
    use crate::providers::testing;
    use std::sync::Arc;

    fn read(body: Value) -> Result<Answer, ProviderError> {
        Anthropic.read(body.to_string().as_bytes(), &HeaderMap::new())
    }

    #[test]
    fn a_request_holds_what_was_asked_for() {
        let options =
            testing::options(json!({"model": "m", "system_prompt": "s", "stop": ["x"], "tool_choice": "required",
            "reasoning_effort": "low", "tools": [{"name": "f", "parameters": {"type": "object"}}],
            "schema": {"name": "S", "schema": {"type": "object", "properties": {}}, "check": false}}));
        let written = testing::request(&Anthropic, &options, &Ask::new(Prompt::Text("Hi".to_owned().into()))).unwrap();
        assert_eq!(
            written,
            json!({"model": "m", "max_tokens": 8192, "stop_sequences": ["x"], "system": "s",
                "tools": [{"name": "f", "description": "", "input_schema": {"type": "object"}}],
                "tool_choice": {"type": "any"},
                "output_config": {"effort": "low", "format": {"type": "json_schema", "schema":
                    {"type": "object", "properties": {}, "additionalProperties": false}}},
                "messages": [{"role": "user", "content": "Hi"}]})
        );
        assert!(Anthropic.fields(&testing::options(json!({"n": 2}))).unwrap_err().contains("does not support n"));
    }

    #[test]
    fn messages_parts_and_tools_are_written() {
        let image = Media::from_bytes(MediaKind::Image, "image/png", b"abc");
        let file = Media::from_url(MediaKind::File, "application/pdf", "https://x/y.pdf");
        let call = ToolCall::new("c".to_owned(), "f".to_owned(), "{\"x\":1}".to_owned());
        let say = |role, parts| prompt::Message { role, parts, ..prompt::Message::default() };
        let text = |text: &str| Part::Text(text.to_owned().into());
        let prompt = Prompt::Messages(vec![
            say(Role::System, vec![text("Be kind.")]),
            say(Role::User, vec![text("Look"), Part::Media(Arc::new(image)), Part::Media(Arc::new(file))]),
            prompt::Message { tool_calls: vec![call], ..say(Role::Assistant, vec![text("Well")]) },
            prompt::Message { tool_call_id: Some("c".to_owned()), ..say(Role::Tool, vec![text("7")]) },
        ]);
        let options = testing::options(json!({"model": "m", "system_prompt": "s"}));
        let written = testing::request(&Anthropic, &options, &Ask::new(prompt)).unwrap();
        assert_eq!(written["system"], "s\n\nBe kind.");
        assert_eq!(
            written["messages"],
            json!([{"role": "user", "content": [{"type": "text", "text": "Look"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "YWJj"}},
                {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}}]},
                {"role": "assistant", "content": [{"type": "text", "text": "Well"},
                    {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "7"}]}])
        );
    }

    #[test]
    fn the_prompts_tokens_are_the_sum_of_three() {
        let answer = read(json!({"id": "msg", "type": "message", "model": "m", "stop_reason": "tool_use",
            "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "Hello"},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
                {"type": "server_tool_use", "id": "u", "name": "web_search", "input": {}}],
            "usage": {"input_tokens": 5, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100,
                "cache_creation": {"ephemeral_5m_input_tokens": 12, "ephemeral_1h_input_tokens": 8},
                "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 3}, "service_tier": "standard"}}))
        .unwrap();
        let usage = TokenUsage {
            input: 125,
            output: 7,
            total: 132,
            cache_read: 100,
            cache_write: 20,
            cache_write_hour: 8,
            reasoning: 3,
        };
        assert_eq!(answer.usage, usage);
        let choice = &answer.choices[0];
        assert_eq!((choice.text.as_str(), choice.reasoning.as_deref()), ("Hello", Some("hm")));
        assert_eq!((choice.finish, choice.tool_calls[0].arguments.as_str()), (Finish::ToolCalls, "{\"x\":1}"));
        assert_eq!(
            answer.extras,
            [("service_tier", Extra::Text("standard".to_owned())), ("message_id", Extra::Text("msg".to_owned()))]
        );
    }

    #[test]
    fn ends_and_errors_are_told_apart() {
        let finish = |reason: &str| read(json!({"content": [], "stop_reason": reason})).unwrap().choices[0].finish;
        assert_eq!(finish("refusal"), Finish::Refusal);
        assert_eq!(finish("max_tokens"), Finish::Length);
        assert_eq!(finish("pause_turn"), Finish::Interrupted { overloaded: false });
        let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}});
        assert!(matches!(read(error), Err(ProviderError::Status { .. })));
        assert!(read(json!({"type": "message"})).unwrap_err().to_string().contains("no content"));
    }
}
