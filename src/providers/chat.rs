//! OpenAI's Chat Completions, `POST {base_url}/chat/completions`, as OpenAI and the servers that imitate it speak it.
//!
//! Fields as in OpenAI's API reference (2026): `usage.prompt_tokens` includes the cached ones, `completion_tokens` the
//! reasoning. What single servers do otherwise is in [`Quirks`].

use std::borrow::Cow;

use http::HeaderMap;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::dialect::{Answer, Body, Dialect, bad, error_inside, parse};
use super::options::fields;
use super::prompt::{Ask, Content, Media, MediaKind, Part, Role, Turn};
use super::reply::{Choice, Finish, TokenUsage, ToolCall};
use super::{Options, ProviderError, schema};

const PROTOCOL: &str = "Chat Completions";

/// What servers do differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirks {
    /// The field that limits the answer's length.
    pub max_tokens: &'static str,
    /// Whether a JSON Schema can be given. Otherwise the server promises JSON, and the schema is an instruction.
    pub takes_schemas: bool,
}

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
            let (schema, strict) = schema::for_openai(&wanted.schema);
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
        let system = match (&options.system_prompt, &options.schema) {
            (prompt, Some(wanted)) if !self.0.takes_schemas => {
                let instruction = schema::as_instruction(&wanted.schema);
                Some(Cow::Owned(prompt.as_ref().map_or(instruction.clone(), |text| format!("{text}\n\n{instruction}"))))
            }
            (Some(text), _) => Some(Cow::Borrowed(text.as_str())),
            (None, _) => None,
        };
        let turns = ask.turns();
        let mut messages = Vec::with_capacity(turns.len() + 1);
        if let Some(text) = &system {
            messages.push(Message {
                role: "system",
                content: Some(Said::Text(text)),
                tool_calls: None,
                tool_call_id: None,
            });
        }
        for turn in &turns {
            messages.push(message(turn)?);
        }
        body.field("messages", &messages)
    }

    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError> {
        let completion: Completion = parse(PROTOCOL, body)?;
        error_inside(completion.error, headers)?;
        if completion.choices.is_empty() {
            return Err(bad(PROTOCOL, body, "it has no choices"));
        }
        for choice in &completion.choices {
            error_inside(choice.error.clone(), headers)?;
        }
        let counts = completion.usage.unwrap_or_default();
        let mut extras = fields([
            ("service_tier", completion.service_tier.map(Value::String)),
            ("provider", completion.provider.map(Value::String)),
            ("cost", counts.cost.clone().filter(|cost| !cost.is_null())),
        ]);
        if let Some(print) = completion.system_fingerprint {
            extras.insert("system_fingerprint".to_owned(), Value::String(print));
        }
        Ok(Answer {
            choices: completion.choices.into_iter().map(Choice::from).collect(),
            usage: counts.into(),
            model: completion.model,
            extras,
        })
    }
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Said<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Said<'a> {
    Text(&'a str),
    Parts(Vec<ChatPart<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ChatPart<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageUrl<'a> },
    InputAudio { input_audio: InputAudio<'a> },
    File { file: FileData<'a> },
}

#[derive(Serialize)]
struct ImageUrl<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

#[derive(Serialize)]
struct InputAudio<'a> {
    data: &'a str,
    format: &'a str,
}

#[derive(Serialize)]
struct FileData<'a> {
    filename: &'a str,
    file_data: &'a str,
}

fn message<'a>(turn: &'a Turn<'a>) -> Result<Message<'a>, String> {
    let role = match turn.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let content = match &turn.content {
        Content::Text(text) => Some(Said::Text(text)),
        // A message that only calls tools has no content.
        Content::Parts([]) => None,
        Content::Parts(parts) => Some(Said::Parts(parts.iter().map(part).collect::<Result<_, _>>()?)),
    };
    let calls = turn.tool_calls.iter().map(
        |call| json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}),
    );
    let tool_calls = (!turn.tool_calls.is_empty()).then(|| calls.collect());
    Ok(Message { role, content, tool_calls, tool_call_id: turn.tool_call_id })
}

fn part(part: &Part) -> Result<ChatPart<'_>, String> {
    let media: &Media = match part {
        Part::Text(text) => return Ok(ChatPart::Text { text }),
        Part::Media(media) => media,
    };
    match (media.kind, media.base64()) {
        (MediaKind::Image, _) => {
            let image_url = ImageUrl { url: media.url(), detail: media.detail.as_deref() };
            Ok(ChatPart::ImageUrl { image_url })
        }
        (MediaKind::Audio, Some(data)) => {
            Ok(ChatPart::InputAudio { input_audio: InputAudio { data, format: media.format() } })
        }
        (MediaKind::File, Some(_)) => {
            let filename = media.name.as_deref().unwrap_or("file");
            Ok(ChatPart::File { file: FileData { filename, file_data: media.url() } })
        }
        (kind, None) => Err(format!(
            "Chat Completions takes no {} by URL: give its bytes, or use api=\"responses\" for files",
            kind.name()
        )),
    }
}

#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    choices: Vec<Sample>,
    usage: Option<Counts>,
    model: Option<String>,
    service_tier: Option<String>,
    system_fingerprint: Option<String>,
    provider: Option<String>,
    /// Some gateways send an error object with status 200.
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Sample {
    #[serde(default)]
    message: Spoke,
    finish_reason: Option<String>,
    logprobs: Option<Value>,
    error: Option<Value>,
}

#[derive(Deserialize, Default)]
struct Spoke {
    content: Option<Spoken>,
    refusal: Option<String>,
    reasoning: Option<String>,
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<Call>>,
}

/// A text, or (Mistral's reasoning models) a list of parts, of which the text is taken.
struct Spoken(String);

impl<'de> Deserialize<'de> for Spoken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrParts;
        impl<'de> Visitor<'de> for TextOrParts {
            type Value = Spoken;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a text or a list of parts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Spoken, E> {
                Ok(Spoken(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Spoken, A::Error> {
                let mut text = String::new();
                while let Some(part) = parts.next_element::<Value>()? {
                    text.push_str(part.get("text").and_then(Value::as_str).unwrap_or_default());
                }
                Ok(Spoken(text))
            }
        }
        deserializer.deserialize_any(TextOrParts)
    }
}

#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    id: Option<String>,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    arguments: Value,
}

impl From<Sample> for Choice {
    fn from(sample: Sample) -> Self {
        let message = sample.message;
        let text = message.content.map(|Spoken(text)| text).unwrap_or_default();
        let calls = message.tool_calls.unwrap_or_default().into_iter().enumerate().map(|(number, call)| ToolCall {
            id: call.id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{number}")),
            name: call.function.name,
            // A string by the protocol, an object with some servers.
            arguments: match call.function.arguments {
                Value::String(text) => text,
                Value::Null => "{}".to_owned(),
                other => other.to_string(),
            },
        });
        let tool_calls: Vec<ToolCall> = calls.collect();
        let finish = match sample.finish_reason.as_deref() {
            _ if message.refusal.is_some() => Finish::Refusal,
            Some("length" | "max_tokens") => Finish::Length,
            Some("tool_calls" | "function_call") => Finish::ToolCalls,
            Some("content_filter") => Finish::ContentFilter,
            Some("stop" | "eos" | "end_turn") | None => Finish::Stop,
            Some(_) => Finish::Other,
        };
        Self {
            text,
            value: None,
            finish,
            refusal: message.refusal,
            tool_calls,
            logprobs: sample.logprobs.filter(|value| !value.is_null()),
            reasoning: message.reasoning.or(message.reasoning_content).filter(|text| !text.is_empty()),
        }
    }
}

/// Token counts; also those of DeepSeek, which names its cache otherwise.
#[derive(Deserialize, Default)]
struct Counts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    prompt_cache_hit_tokens: Option<u64>,
    cost: Option<Value>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

impl From<Counts> for TokenUsage {
    fn from(counts: Counts) -> Self {
        let (input, output) = (counts.prompt_tokens.unwrap_or(0), counts.completion_tokens.unwrap_or(0));
        let details = counts.prompt_tokens_details.as_ref();
        Self {
            input,
            output,
            total: counts.total_tokens.unwrap_or(input.saturating_add(output)),
            cache_read: details.and_then(|d| d.cached_tokens).or(counts.prompt_cache_hit_tokens).unwrap_or(0),
            cache_write: details.and_then(|d| d.cache_write_tokens).unwrap_or(0),
            reasoning: counts.completion_tokens_details.and_then(|d| d.reasoning_tokens).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::prompt::{Message as Asked, Prompt};
    use crate::providers::testing;
    use std::sync::Arc;

    const OPENAI: Chat = Chat(Quirks { max_tokens: "max_completion_tokens", takes_schemas: true });

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
        let written = testing::request(&OPENAI, &options, &Ask::new(Prompt::Text("Hi".to_owned()))).unwrap();
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
        let deepseek = Chat(Quirks { max_tokens: "max_tokens", takes_schemas: false });
        let options = testing::options(json!({"model": "m", "max_tokens": 5,
            "schema": {"name": "S", "schema": {"type": "integer"}, "check": true}}));
        let written = testing::request(&deepseek, &options, &Ask::new(Prompt::Text("Hi".to_owned()))).unwrap();
        assert_eq!(written["response_format"], json!({"type": "json_object"}));
        assert_eq!(written["max_tokens"], 5);
        assert!(written["messages"][0]["content"].as_str().unwrap().contains(r#"{"type":"integer"}"#));
    }

    #[test]
    fn messages_parts_and_tools_are_written() {
        let image = Media::from_url(MediaKind::Image, "image/png", "https://x/y.png".to_owned());
        let sound = Media::from_bytes(MediaKind::Audio, "audio/wav", b"abc");
        let say = |role, parts| Asked { role, parts, tool_calls: vec![], tool_call_id: None };
        let call = ToolCall { id: "c1".to_owned(), name: "f".to_owned(), arguments: "{}".to_owned() };
        let prompt = Prompt::Messages(vec![
            say(
                Role::User,
                vec![Part::Text("Look".to_owned()), Part::Media(Arc::new(image)), Part::Media(Arc::new(sound))],
            ),
            Asked { tool_calls: vec![call], ..say(Role::Assistant, vec![]) },
            Asked { tool_call_id: Some("c1".to_owned()), ..say(Role::Tool, vec![Part::Text("7".to_owned())]) },
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
        let file = Media::from_url(MediaKind::File, "application/pdf", "https://x/y.pdf".to_owned());
        let prompt = Prompt::Messages(vec![say(Role::User, vec![Part::Media(Arc::new(file))])]);
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
        let usage = TokenUsage { input: 10, output: 2, total: 12, cache_read: 4, cache_write: 3, reasoning: 1 };
        assert_eq!((answer.usage, answer.model.as_deref()), (usage, Some("m-1")));
        assert_eq!((answer.choices[0].text.as_str(), answer.choices[0].reasoning.as_deref()), ("Hello", Some("hm")));
        assert_eq!((answer.choices[0].finish, answer.choices[1].finish), (Finish::Stop, Finish::Length));
        assert_eq!(Value::Object(answer.extras), json!({"service_tier": "flex", "cost": 0.5}));
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
        assert!(said(json!(1)).unwrap_err().to_string().contains("a text or a list of parts"));
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
        assert_eq!((calls[1].id.as_str(), calls[1].arguments.as_str()), ("call_1", "{\"y\":2}"));
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
