//! Anthropic's Messages, `POST {base_url}/v1/messages`.
//!
//! Fields as in Anthropic's API reference (2026). Its `usage.input_tokens` is the uncached part only: the prompt's
//! tokens are the sum of three counts. `max_tokens` is required there; without one, [`MAX_TOKENS`] is sent.

use std::borrow::Cow;

use http::HeaderMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::chat::finish;
use super::counting::{Counting, body_with};
use super::dialect::{Answer, Body, Dialect, Streaming, error_of};
use super::error::ProviderError;
use super::json::{bad, parse};
use super::marked::CacheControl;
use super::options::{CachePrompt, Options, fields};
use super::plan::Marks;
use super::prompt::{Ask, Content, Part, Role, Turn};
use super::reply::{Choice, Finish, ToolCall, arguments, extras};
use super::shared::Text;
use super::state::find_edits;
use super::streams::{AnthropicFold, Clocks};
use super::{schema_dialects, status};

mod message;
mod reply;

use message::{
    InputBlock, Message, MessageContent, NAME, OF_RESULTS, binds_thoughts, message, part, result, text_block,
};
use reply::{PROTOCOL, Reply, content_of};

/// Longest answer when the user sets none, tokens.
pub const MAX_TOKENS: u64 = 8192;

/// Fields that the endpoint knows which counts tokens; it rejects others (Anthropic's API reference, 2026).
pub const COUNTED: &[&str] =
    &["model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control"];

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
        let mut turns = ask.turns();
        if binds_thoughts(options) {
            find_edits(options, &mut turns);
        }
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
                _ => messages.push(message(turn, options, marks.map(|marks| (marks, place)))?),
            }
            if let (Some(marks), Some(last)) = (marks.filter(|marks| marks.before == Some(place)), messages.last_mut())
            {
                last.mark(CacheControl::new(marks.hour));
            }
        }
        if let (Some(marks), Some(newest)) = (marks.filter(|marks| marks.newest), messages.last_mut()) {
            newest.mark(CacheControl::new(marks.hour));
        }
        body.field("messages", &messages)
    }

    fn count(&self, options: &Options, ask: &Ask) -> Result<Option<Counting>, String> {
        let body = body_with(self, options, ask, |name| COUNTED.contains(&name))?;
        Ok(Some(Counting::new("v1/messages/count_tokens", body, "input_tokens")))
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

    fn binds_thoughts(&self, options: &Options) -> bool {
        binds_thoughts(options)
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
            options.system_prompt.iter().map(|text| Cow::Borrowed(&**text)).chain(words).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::media::{Media, MediaKind};
    use crate::providers::prompt::{self, Prompt};
    use crate::providers::reply::{Extra, TokenUsage};
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
        let prompt = Prompt::from(vec![
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
            cache_held: 0,
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
