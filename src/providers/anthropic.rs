//! Anthropic's Messages, `POST {base_url}/v1/messages`.
//!
//! Fields as in Anthropic's API reference (2026). Its `usage.input_tokens` is the uncached part only: the prompt's
//! tokens are the sum of three counts. `max_tokens` is required there; without one, [`MAX_TOKENS`] is sent.

use std::borrow::Cow;

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::dialect::{Answer, Body, Dialect, bad, error_inside, parse};
use super::options::fields;
use super::prompt::{Ask, Content, Media, MediaKind, Part, Role, Turn};
use super::reply::{Choice, Finish, TokenUsage, ToolCall};
use super::{Options, ProviderError, schema};

const PROTOCOL: &str = "Messages";

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
            return Err(format!("Anthropic's Messages API has no {name}: leave it out"));
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
            let format = json!({"type": "json_schema", "schema": schema::for_anthropic(&wanted.schema)});
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

    fn conversation(&self, options: &Options, ask: &Ask, body: &mut Body) -> Result<(), String> {
        let turns = ask.turns();
        // Instructions have a place of their own, wherever they stand in the conversation.
        let given = turns.iter().filter(|turn| turn.role == Role::System).map(Turn::words);
        let system: Vec<Cow<'_, str>> =
            options.system_prompt.iter().map(|text| Cow::Borrowed(text.as_str())).chain(given).collect();
        if !system.is_empty() && !options.extra_body.contains_key("system") {
            body.field("system", &system.join("\n\n"))?;
        }
        let messages: Vec<Message<'_>> =
            turns.iter().filter(|turn| turn.role != Role::System).map(message).collect::<Result<_, _>>()?;
        body.field("messages", &messages)
    }

    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError> {
        let reply: Reply = parse(PROTOCOL, body)?;
        error_inside(reply.error, headers)?;
        let Some(blocks) = reply.content else { return Err(bad(PROTOCOL, body, "it has no content")) };
        let mut choice = Choice::default();
        for block in blocks {
            match block {
                Block::Text { text } => choice.text.push_str(&text),
                Block::Thinking { thinking } => choice.reasoning.get_or_insert_default().push_str(&thinking),
                Block::ToolUse { id, name, input } => {
                    choice.tool_calls.push(ToolCall { id, name, arguments: input.to_string() });
                }
                Block::Other => {}
            }
        }
        choice.finish = match reply.stop_reason.as_deref() {
            Some("end_turn" | "stop_sequence") | None => Finish::Stop,
            Some("max_tokens" | "model_context_window_exceeded") => Finish::Length,
            Some("tool_use") => Finish::ToolCalls,
            Some("refusal") => Finish::Refusal,
            Some(_) => Finish::Other,
        };
        let counts = reply.usage.unwrap_or_default();
        let extras = fields([
            ("service_tier", counts.service_tier.clone().map(Value::String)),
            ("stop_sequence", reply.stop_sequence.map(Value::String)),
            ("message_id", reply.id.map(Value::String)),
        ]);
        Ok(Answer { choices: vec![choice], usage: counts.into(), model: reply.model, extras })
    }
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Said<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Said<'a> {
    Text(&'a str),
    Blocks(Vec<InputBlock<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum InputBlock<'a> {
    Text {
        text: &'a str,
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
        content: Cow<'a, str>,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source<'a> {
    Base64 { media_type: &'a str, data: &'a str },
    Url { url: &'a str },
}

fn message<'a>(turn: &'a Turn<'a>) -> Result<Message<'a>, String> {
    if turn.role == Role::Tool {
        let tool_use_id = turn.tool_call_id.unwrap_or_default();
        let blocks = vec![InputBlock::ToolResult { tool_use_id, content: turn.words() }];
        return Ok(Message { role: "user", content: Said::Blocks(blocks) });
    }
    let role = if turn.role == Role::Assistant { "assistant" } else { "user" };
    let mut blocks = match &turn.content {
        Content::Text(text) if turn.tool_calls.is_empty() => return Ok(Message { role, content: Said::Text(text) }),
        Content::Text(text) => vec![InputBlock::Text { text }],
        Content::Parts(parts) => parts.iter().map(part).collect::<Result<_, _>>()?,
    };
    for call in turn.tool_calls {
        let input = serde_json::from_str(&call.arguments)
            .map_err(|error| format!("the arguments of tool call {:?} are not JSON: {error}", call.name))?;
        blocks.push(InputBlock::ToolUse { id: &call.id, name: &call.name, input });
    }
    Ok(Message { role, content: Said::Blocks(blocks) })
}

fn part(part: &Part) -> Result<InputBlock<'_>, String> {
    let media: &Media = match part {
        Part::Text(text) => return Ok(InputBlock::Text { text }),
        Part::Media(media) => media,
    };
    let source = match media.base64() {
        Some(data) => Source::Base64 { media_type: &media.media_type, data },
        None => Source::Url { url: media.url() },
    };
    match media.kind {
        MediaKind::Image => Ok(InputBlock::Image { source }),
        MediaKind::File => Ok(InputBlock::Document { source, title: media.name.as_deref() }),
        MediaKind::Audio => Err("Anthropic's Messages API takes no audio".to_owned()),
    }
}

#[derive(Deserialize)]
struct Reply {
    id: Option<String>,
    content: Option<Vec<Block>>,
    model: Option<String>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
    usage: Option<Counts>,
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        text: String,
    },
    Thinking {
        #[serde(default)]
        thinking: String,
    },
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Value,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize, Default)]
struct Counts {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    output_tokens_details: Option<OutputDetails>,
    service_tier: Option<String>,
}

#[derive(Deserialize)]
struct OutputDetails {
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
            reasoning: counts.output_tokens_details.and_then(|d| d.thinking_tokens).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::prompt::{self, Prompt};
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
        let written = testing::request(&Anthropic, &options, &Ask::new(Prompt::Text("Hi".to_owned()))).unwrap();
        assert_eq!(
            written,
            json!({"model": "m", "max_tokens": 8192, "stop_sequences": ["x"], "system": "s",
                "tools": [{"name": "f", "description": "", "input_schema": {"type": "object"}}],
                "tool_choice": {"type": "any"},
                "output_config": {"effort": "low", "format": {"type": "json_schema", "schema":
                    {"type": "object", "properties": {}, "additionalProperties": false}}},
                "messages": [{"role": "user", "content": "Hi"}]})
        );
        assert!(Anthropic.fields(&testing::options(json!({"n": 2}))).unwrap_err().contains("has no n"));
    }

    #[test]
    fn messages_parts_and_tools_are_written() {
        let image = Media::from_bytes(MediaKind::Image, "image/png", b"abc");
        let file = Media::from_url(MediaKind::File, "application/pdf", "https://x/y.pdf".to_owned());
        let call = ToolCall { id: "c".to_owned(), name: "f".to_owned(), arguments: "{\"x\":1}".to_owned() };
        let say = |role, parts| prompt::Message { role, parts, tool_calls: vec![], tool_call_id: None };
        let text = |text: &str| Part::Text(text.to_owned());
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
                "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 3}, "service_tier": "standard"}}))
        .unwrap();
        let usage = TokenUsage { input: 125, output: 7, total: 132, cache_read: 100, cache_write: 20, reasoning: 3 };
        assert_eq!(answer.usage, usage);
        let choice = &answer.choices[0];
        assert_eq!((choice.text.as_str(), choice.reasoning.as_deref()), ("Hello", Some("hm")));
        assert_eq!((choice.finish, choice.tool_calls[0].arguments.as_str()), (Finish::ToolCalls, "{\"x\":1}"));
        assert_eq!(answer.extras["service_tier"], "standard");
    }

    #[test]
    fn ends_and_errors_are_told_apart() {
        let finish = |reason: &str| read(json!({"content": [], "stop_reason": reason})).unwrap().choices[0].finish;
        assert_eq!(finish("refusal"), Finish::Refusal);
        assert_eq!(finish("max_tokens"), Finish::Length);
        assert_eq!(finish("pause_turn"), Finish::Other);
        let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}});
        assert!(matches!(read(error), Err(ProviderError::Status { .. })));
        assert!(read(json!({"type": "message"})).unwrap_err().to_string().contains("no content"));
    }
}
