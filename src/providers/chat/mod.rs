//! OpenAI's Chat Completions, `POST {base_url}/chat/completions`, as OpenAI and the servers that imitate it speak it.
//!
//! Fields as in OpenAI's API reference (2026): `usage.prompt_tokens` includes the cached ones, `completion_tokens` the
//! reasoning. What single servers do otherwise is in [`Quirks`].

use http::HeaderMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::call::Place;
use super::counting::{Counting, body_with};
use super::dialect::{Answer, Body, Dialect, Streaming, error_inside, error_of};
use super::error::{Category, ProviderError};
use super::json::{bad, parse};
use super::marked::{Breakpoint, CacheControl, Mark};
use super::openai::cache_fields;
use super::options::{Options, fields};
use super::prompt::Ask;
use super::reply::{Choice, Finish, extras};
use super::state::find_edits;
use super::streams::{ChatFold, Clocks};
use super::{schema_dialects, status};

mod reply;
mod request;
mod turn;

pub use reply::finish;
use reply::{Completion, Sample};
use request::{Message, message};
use turn::PROTOCOL;

/// What servers do differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirks {
    /// The field that limits the answer's length.
    pub max_tokens: &'static str,
    /// Whether a JSON Schema can be given. Otherwise the server promises JSON, and the schema is an instruction.
    pub takes_schemas: bool,
    /// Whether each turn of the model must come back with its thoughts, if there are tools (DeepSeek's guide to thinking
    /// mode, 2026).
    pub wants_thoughts: bool,
    /// Whether it sends comments while a stream waits for its model (OpenRouter, DeepSeek).
    pub pings: bool,
    /// Whether what is to be cached is marked as at Anthropic (OpenRouter, which passes it on), not as at OpenAI.
    pub marks_as_anthropic: bool,
    /// Whether it counts tokens, at `tokenize` beside the version (vLLM).
    pub counts: bool,
}

/// Fields of a request that make a difference to the tokens of its prompt (vLLM's guide to its server, 2026).
const COUNTED: &[&str] = &["model", "tools", "chat_template", "chat_template_kwargs"];

/// The dialect.
pub struct Chat(pub Quirks);

impl Dialect for Chat {
    fn protocol(&self) -> &'static str {
        PROTOCOL
    }

    fn path(&self, _model: &str) -> String {
        "chat/completions".to_owned()
    }

    fn fields(&self, options: &Options) -> Result<Map<String, Value>, String> {
        let stop = (!options.stop.is_empty()).then(|| json!(options.stop));
        let tools = options.tools.iter().map(|tool| {
            json!({"type": "function", "function": {
                "name": tool.name, "description": tool.description, "parameters": tool.parameters}})
        });
        let tools: Vec<Value> = tools.collect();
        let choice = options.tool_choice.as_ref().map(|choice| match choice.as_str() {
            "auto" | "none" | "required" => json!(choice),
            name => json!({"type": "function", "function": {"name": name}}),
        });
        let format = options.schema.as_ref().map(|wanted| {
            if !self.0.takes_schemas {
                return json!({"type": "json_object"});
            }
            let (schema, strict) = schema_dialects::for_openai(&wanted.schema);
            json!({"type": "json_schema", "json_schema": {"name": wanted.name, "schema": schema, "strict": strict}})
        });
        Ok(options.with_extra(fields([
            ("model", Some(json!(options.model))),
            ("temperature", options.temperature.clone().map(Value::Number)),
            ("top_p", options.top_p.clone().map(Value::Number)),
            (self.0.max_tokens, options.max_tokens.map(Value::from)),
            ("stop", stop),
            ("seed", options.seed.map(Value::from)),
            ("n", options.n.map(Value::from)),
            ("logprobs", options.logprobs.map(|_| json!(true))),
            ("top_logprobs", options.logprobs.filter(|top| *top > 0).map(Value::from)),
            ("reasoning_effort", options.reasoning_effort.as_ref().map(|effort| json!(effort))),
            ("tools", (!tools.is_empty()).then_some(Value::Array(tools))),
            ("tool_choice", choice),
            ("response_format", format),
        ])))
    }

    fn conversation(&self, options: &Options, ask: &Ask, body: &mut Body) -> Result<(), String> {
        let system = options.system(|| {
            let wanted = options.schema.as_ref().filter(|_| !self.0.takes_schemas)?;
            Some(schema_dialects::as_instruction(&wanted.schema))
        });
        let (mut turns, marks) = (ask.turns(), ask.marks());
        if self.binds_thoughts(options) {
            find_edits(options, &mut turns);
        }
        let mark = if self.0.marks_as_anthropic {
            Mark::Control(CacheControl::new(marks.is_some_and(|marks| marks.hour)))
        } else {
            Mark::Breakpoint(Breakpoint::EXPLICIT)
        };
        let mut messages = Vec::with_capacity(turns.len() + 1);
        if let Some(text) = system {
            let is_marked = marks.is_some_and(|marks| marks.fixed);
            messages.push(if is_marked { Message::marked(text, mark) } else { Message::system(text) });
        }
        for (place, turn) in turns.iter().enumerate() {
            let part = marks.and_then(|marks| marks.part_of(place));
            let mut message = message(turn, &options.model, part.map(|part| (part, mark)))?;
            if marks.is_some_and(|marks| marks.before == Some(place)) {
                message.mark(mark);
            }
            if self.0.wants_thoughts && !options.tools.is_empty() {
                message.add_thoughts();
            }
            messages.push(message);
        }
        if let (true, Some(newest)) = (marks.is_some_and(|marks| marks.newest), messages.last_mut()) {
            newest.mark(mark);
        }
        cache_fields(marks, body)?;
        body.field("messages", &messages)
    }

    fn count(&self, options: &Options, ask: &Ask) -> Result<Option<Counting>, String> {
        if !self.0.counts {
            return Ok(None);
        }
        let body = body_with(self, options, ask, |name| COUNTED.contains(&name))?;
        Ok(Some(Counting { place: Place::Beside("tokenize".to_owned()), body, field: "count" }))
    }

    fn streaming(&self, model: &str) -> Option<Streaming> {
        let asked = [("stream", Some(json!(true))), ("stream_options", Some(json!({"include_usage": true})))];
        let clocks = if self.0.pings { Clocks::PINGED } else { Clocks::SILENT };
        Some(Streaming {
            path: (self.path(model), None),
            fields: fields(asked),
            fold: || Box::<ChatFold>::default(),
            clocks,
        })
    }

    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError> {
        let mut completion: Completion = parse(PROTOCOL, body)?;
        // Samples may come in the order in which they were done.
        completion.choices.sort_by_key(|sample| sample.index.unwrap_or(0));
        let groq = completion.x_groq.take().and_then(|groq| groq.usage);
        completion.usage = completion.usage.or(groq);
        let error = error_of(completion.error, body, headers).err();
        let answers = completion.choices.iter().any(Sample::answers);
        if let Some(error) = error.filter(|error| !answers || error.says_what()) {
            return Err(error.with_usage(completion.usage.unwrap_or_default().into()));
        }
        if !answers && let Some(error) = status::instead(body, headers).filter(ProviderError::says_what) {
            return Err(error.with_usage(completion.usage.unwrap_or_default().into()));
        }
        if completion.choices.is_empty() {
            return Err(status::instead(body, headers).unwrap_or_else(|| bad(PROTOCOL, body, "it has no choices")));
        }
        let counts = completion.usage.unwrap_or_default();
        let mut choices = Vec::with_capacity(completion.choices.len());
        let mut failed = None;
        for mut sample in completion.choices {
            let error = error_inside(sample.error.take(), headers).err();
            let mut choice = Choice::from(sample);
            if let Some(error) = error {
                choice.finish = Finish::Interrupted { overloaded: error.category() == Category::Overload };
                failed.get_or_insert(error);
            }
            choices.push(choice);
        }
        // Samples that were answered are of use without the others.
        if let Some(error) = failed
            && choices.iter().all(|choice| matches!(choice.finish, Finish::Interrupted { .. }))
        {
            return Err(error.with_usage(counts.into()));
        }
        Ok(Answer {
            choices,
            extras: extras([
                ("service_tier", completion.service_tier.map(Into::into)),
                ("provider", completion.provider.map(Into::into)),
                ("cost", counts.cost.as_ref().map(|cost| cost.clone().into())),
                ("system_fingerprint", completion.system_fingerprint.map(Into::into)),
            ]),
            usage: counts.into(),
            model: completion.model,
            unfinished: None,
        })
    }

    fn turn(&self, body: &[u8]) -> Option<Box<RawValue>> {
        let completion: Completion = parse(PROTOCOL, body).ok()?;
        let first = completion.choices.into_iter().min_by_key(|sample| sample.index.unwrap_or(0));
        RawValue::from_string(first?.thoughts()?.into()).ok()
    }

    /// OpenRouter passes on what models of Anthropic want.
    fn binds_thoughts(&self, options: &Options) -> bool {
        self.0.marks_as_anthropic && options.model.trim_start_matches('~').starts_with("anthropic/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::media::{Media, MediaKind};
    use crate::providers::prompt::{Message as Asked, Part, Prompt, Role};
    use crate::providers::reply::{Extra, TokenUsage, ToolCall};
    use crate::providers::testing;
    use serde_json::value::RawValue;
    use std::sync::Arc;

    const OPENAI: Chat = Chat(Quirks {
        max_tokens: "max_completion_tokens",
        takes_schemas: true,
        wants_thoughts: false,
        pings: false,
        marks_as_anthropic: false,
        counts: false,
    });

    fn read(body: &str) -> Result<Answer, ProviderError> {
        OPENAI.read(body.as_bytes(), &HeaderMap::new())
    }

    #[test]
    fn a_request_holds_what_was_asked_for() {
        let options = testing::options(json!({
            "model": "m", "system_prompt": "Be brief.", "temperature": 0, "max_tokens": 9, "stop": ["x"], "n": 2,
            "logprobs": 3, "tool_choice": "f", "extra_body": {"seed": 1},
            "tools": [{"name": "f", "description": "d", "parameters": {"type": "object"}}],
            "schema": {"name": "S", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}, "check": true}
        }));
        let written = testing::request(&OPENAI, &options, &Ask::new(Prompt::Text("Hi".to_owned().into()))).unwrap();
        assert_eq!(
            written,
            json!({"model": "m", "temperature": 0, "max_completion_tokens": 9, "stop": ["x"], "n": 2, "seed": 1,
                "logprobs": true, "top_logprobs": 3,
                "tools": [{"type": "function", "function":
                    {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
                "response_format": {"type": "json_schema", "json_schema": {"name": "S", "strict": true, "schema":
                    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
                     "additionalProperties": false}}},
                "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]})
        );
    }

    #[test]
    fn servers_without_schemas_get_an_instruction() {
        let deepseek = Chat(Quirks {
            max_tokens: "max_tokens",
            takes_schemas: false,
            wants_thoughts: true,
            pings: true,
            marks_as_anthropic: false,
            counts: false,
        });
        let options = testing::options(json!({"model": "m", "max_tokens": 5,
            "schema": {"name": "S", "schema": {"type": "integer"}, "check": true}}));
        let written = testing::request(&deepseek, &options, &Ask::new(Prompt::Text("Hi".to_owned().into()))).unwrap();
        assert_eq!(written["response_format"], json!({"type": "json_object"}));
        assert_eq!(written["max_tokens"], 5);
        assert!(written["messages"][0]["content"].as_str().unwrap().contains(r#"{"type":"integer"}"#));
    }

    #[test]
    fn messages_parts_and_tools_are_written() {
        let image = Media::from_url(MediaKind::Image, "image/png", "https://x/y.png");
        let sound = Media::from_bytes(MediaKind::Audio, "audio/wav", b"abc");
        let say = |role, parts| Asked { role, parts, ..Asked::default() };
        let call = ToolCall::new("c1".to_owned(), "f".to_owned(), "{}".to_owned());
        let prompt = Prompt::from(vec![
            say(
                Role::User,
                vec![Part::Text("Look".to_owned().into()), Part::Media(Arc::new(image)), Part::Media(Arc::new(sound))],
            ),
            Asked { tool_calls: vec![call], ..say(Role::Assistant, vec![]) },
            Asked { tool_call_id: Some("c1".to_owned()), ..say(Role::Tool, vec![Part::Text("7".to_owned().into())]) },
        ]);
        let written = testing::request(&OPENAI, &testing::options(json!({"model": "m"})), &Ask::new(prompt)).unwrap();
        assert_eq!(
            written["messages"],
            json!([
                {"role": "user", "content": [{"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                    {"type": "input_audio", "input_audio": {"data": "YWJj", "format": "wav"}}]},
                {"role": "assistant", "tool_calls":
                    [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "content": "7", "tool_call_id": "c1"}])
        );
        let file = Media::from_url(MediaKind::File, "application/pdf", "https://x/y.pdf");
        let prompt = Prompt::from(vec![say(Role::User, vec![Part::Media(Arc::new(file))])]);
        let error = testing::request(&OPENAI, &Options::default(), &Ask::new(prompt)).unwrap_err();
        assert!(error.contains("no file by URL"), "{error}");
    }

    #[test]
    fn a_full_reply_is_read() {
        let answer = read(
            r#"{"id": "c", "model": "m-1", "service_tier": "flex", "choices": [
            {"index": 0, "finish_reason": "stop", "logprobs": {"content": []}, "message": {"role": "assistant",
             "content": "Hello", "refusal": null, "reasoning_content": "hm"}},
            {"index": 1, "finish_reason": "length", "message": {"content": "Hel"}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "cost": 0.5,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 1}}}"#,
        )
        .unwrap();
        let usage = TokenUsage {
            input: 10,
            output: 2,
            total: 12,
            cache_read: 4,
            cache_write: 3,
            cache_write_hour: 0,
            cache_held: 0,
            reasoning: 1,
        };
        assert_eq!((answer.usage, answer.model.as_deref()), (usage, Some("m-1")));
        assert_eq!((answer.choices[0].text.as_str(), answer.choices[0].reasoning.as_deref()), ("Hello", Some("hm")));
        assert_eq!((answer.choices[0].finish, answer.choices[1].finish), (Finish::Stop, Finish::Length));
        let cost = Extra::Json(RawValue::from_string("0.5".to_owned()).unwrap().into());
        assert_eq!(answer.extras, [("service_tier", Extra::Text("flex".to_owned())), ("cost", cost)]);
    }

    #[test]
    fn a_content_is_a_text_or_parts_or_nothing() {
        let said = |content: Value| {
            read(&json!({"choices": [{"message": {"content": content}}]}).to_string()).map(|mut answer| {
                assert_eq!(answer.choices.len(), 1);
                answer.choices.remove(0).text
            })
        };
        assert_eq!(said(json!("a \"b\"")).unwrap(), "a \"b\"");
        let parts =
            json!([{"type": "thinking", "thinking": [{"text": "hm"}]}, {"type": "text", "text": "a"}, {"text": "b"}]);
        assert_eq!(said(parts).unwrap(), "ab");
        assert_eq!(said(Value::Null).unwrap(), "");
        assert_eq!(said(json!(["a", {"type": "text", "text": "b"}, null])).unwrap(), "ab");
        assert_eq!(said(json!({"type": "text", "text": "a"})).unwrap(), "a");
        // JSON that the server has read already.
        assert_eq!(said(json!(1)).unwrap(), "1");
        assert_eq!(said(json!({"b": 1, "a": 2})).unwrap(), "{\"b\":1,\"a\":2}");
    }

    #[test]
    fn tool_calls_are_read_in_all_forms() {
        let answer = read(
            r#"{"choices": [{"finish_reason": "tool_calls", "message": {"content": null, "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
            {"function": {"name": "g", "arguments": {"y": 2}}}]}}]}"#,
        )
        .unwrap();
        let calls = &answer.choices[0].tool_calls;
        assert_eq!((calls[0].id.as_str(), calls[0].arguments.as_str()), ("a", "{\"x\": 1}"));
        assert_eq!((calls[1].id.as_str(), calls[1].arguments.as_str()), ("call_1", "{\"y\": 2}"));
    }

    #[test]
    fn missing_and_null_counts_are_zero_and_deepseeks_cache_counts() {
        assert_eq!(
            read(r#"{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": null}}"#).unwrap().usage,
            TokenUsage::default()
        );
        let usage = read(
            r#"{"choices": [{"message": {"content": "x"}}],
            "usage": {"prompt_tokens": 9, "prompt_cache_hit_tokens": 7}}"#,
        );
        assert_eq!(usage.unwrap().usage.cache_read, 7);
    }

    #[test]
    fn thoughts_are_output_however_they_are_counted() {
        let counted = |answer: u64, reasoning: u64, total: Value| {
            let usage = json!({"prompt_tokens": 32, "completion_tokens": answer, "total_tokens": total,
                "completion_tokens_details": {"reasoning_tokens": reasoning}});
            let body = json!({"choices": [{"message": {"content": "x"}}], "usage": usage});
            let usage = read(&body.to_string()).unwrap().usage;
            (usage.output, usage.total, usage.reasoning)
        };
        // xAI: beside the answer.
        assert_eq!(counted(9, 94, json!(135)), (103, 135, 94));
        assert_eq!(counted(90, 4, json!(126)), (94, 126, 4));
        assert_eq!(counted(9, 94, json!(null)), (103, 135, 94));
        // OpenAI: a part of it.
        assert_eq!(counted(103, 94, json!(135)), (103, 135, 94));
        assert_eq!(counted(103, 94, json!(null)), (103, 135, 94));
        assert_eq!(counted(94, 94, json!(126)), (94, 126, 94));
    }

    #[test]
    fn replies_that_are_none_say_what_is_wrong() {
        let message = |body: &str| read(body).unwrap_err().to_string();
        assert!(message("<html>Bad gateway").contains("<html>Bad gateway"));
        assert!(message("{\"choices\": []}").contains("no choices"));
        assert!(message("{\"choices\": [{\"mess").contains("EOF"));
        let inside = r#"{"error": {"message": "slow down", "code": 429}}"#;
        assert!(matches!(read(inside), Err(ProviderError::Status { status: 429, .. })));
        let in_choice = r#"{"choices": [{"error": {"message": "gone", "code": 502}, "message": {"content": ""}}]}"#;
        assert!(matches!(read(in_choice), Err(ProviderError::Status { status: 502, .. })));
        assert!(read(": keep-alive\n\n\n{\"choices\": [{\"message\": {\"content\": \"x\"}}]}").is_ok());
    }
}
