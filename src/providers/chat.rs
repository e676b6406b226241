//! OpenAI's Chat Completions, `POST {base_url}/chat/completions`, as OpenAI and the servers that imitate it speak it.
//!
//! Fields as in OpenAI's API reference (2026): `usage.prompt_tokens` includes the cached ones, `completion_tokens` the
//! reasoning. What single servers do otherwise is in [`Quirks`].

use std::borrow::Cow;

use http::HeaderMap;
use serde::de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::dialect::{Answer, Body, Dialect, error_inside};
use super::json::{bad, parse};
use super::options::fields;
use super::prompt::{Ask, Content, Fields, Media, MediaKind, Part, Role, Turn};
use super::reply::{Choice, Finish, TokenUsage, ToolCall, extras};
use super::{Options, ProviderError, lenient, schema_dialects, state, status};

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
        let system = match (&options.system_prompt, &options.schema) {
            (prompt, Some(wanted)) if !self.0.takes_schemas => {
                let instruction = schema_dialects::as_instruction(&wanted.schema);
                Some(Cow::Owned(prompt.as_ref().map_or(instruction.clone(), |text| format!("{text}\n\n{instruction}"))))
            }
            (Some(text), _) => Some(Cow::Borrowed(text.as_str())),
            (None, _) => None,
        };
        let turns = ask.turns();
        let mut messages = Vec::with_capacity(turns.len() + 1);
        if let Some(text) = &system {
            messages.push(Message { role: "system", content: Some(Said::Text(text)), ..Message::default() });
        }
        for turn in &turns {
            messages.push(message(turn, &options.model)?);
        }
        body.field("messages", &messages)
    }

    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError> {
        let completion: Completion = parse(PROTOCOL, body)?;
        error_inside(completion.error, headers)?;
        if completion.choices.is_empty() {
            return Err(status::instead(body, headers).unwrap_or_else(|| bad(PROTOCOL, body, "it has no choices")));
        }
        let counts = completion.usage.unwrap_or_default();
        let mut choices = Vec::with_capacity(completion.choices.len());
        for mut sample in completion.choices {
            error_inside(sample.error.take(), headers)?;
            choices.push(Choice::from(sample));
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
}

#[derive(Serialize, Default)]
struct Message<'a> {
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Said<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Vec<OutgoingCall<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    /// What the provider wants back.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    state: Option<Thoughts>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    more: Option<&'a Fields>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Said<'a> {
    Text(&'a str),
    Parts(Vec<ChatPart<'a>>),
    Raw(Box<RawValue>),
}

#[derive(Serialize)]
struct OutgoingCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: OutgoingFunction<'a>,
    #[serde(flatten)]
    state: CallState,
}

#[derive(Serialize)]
struct OutgoingFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct ChatPart<'a> {
    #[serde(flatten)]
    part: PlainPart<'a>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    more: Option<&'a Fields>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum PlainPart<'a> {
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

/// The fields of a message in which servers keep a model's thoughts, and a content that is more than text; see
/// [`state`]. Each server gets back what it sent.
#[derive(Serialize, Deserialize, Default)]
struct Thoughts {
    /// DeepSeek, Moonshot, Zhipu, xAI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    /// OpenRouter, vLLM, Groq.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    /// OpenRouter, MiniMax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reasoning_details: Option<Box<RawValue>>,
}

/// What servers add to a call, as Gemini's signature in its OpenAI-compatible interface.
#[derive(Serialize, Deserialize, Default, Clone)]
struct CallState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extra_content: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider_specific_fields: Option<Box<RawValue>>,
}

impl CallState {
    fn is_empty(&self) -> bool {
        self.extra_content.is_none() && self.provider_specific_fields.is_none()
    }
}

/// A turn that called tools, beside the calls themselves.
#[derive(Serialize, Deserialize)]
struct State {
    thoughts: Thoughts,
    /// A content that is a list, with its words.
    #[serde(default)]
    content: Option<(Box<RawValue>, String)>,
    /// By the id of the call.
    calls: Vec<(String, CallState)>,
}

/// Fields that a message of a conversation may have beside those with names of their own.
const MORE: &[&str] =
    &["reasoning_content", "reasoning", "reasoning_details", "cache_control", "refusal", "prefix", "partial"];

fn message<'a>(turn: &'a Turn<'a>, model: &str) -> Result<Message<'a>, String> {
    let role = match turn.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    turn.more.only(MORE, "message", PROTOCOL)?;
    let kept: Option<State> = state::turn_of(turn, PROTOCOL, model);
    let (thoughts, raw, calls) =
        kept.map_or_else(Default::default, |kept| (Some(kept.thoughts), kept.content, kept.calls));
    let content = match (&turn.content, raw) {
        // The content as the server wrote it, unless the user has another one.
        (Content::Parts([]), Some((raw, _))) => Some(Said::Raw(raw)),
        (Content::Text(text), Some((raw, words))) if **text == words => Some(Said::Raw(raw)),
        (Content::Text(text), _) => Some(Said::Text(text)),
        // A message that only calls tools has no content.
        (Content::Parts([]), None) => None,
        (Content::Parts(parts), _) => Some(Said::Parts(parts.iter().map(part).collect::<Result<_, _>>()?)),
    };
    let tool_calls = turn.tool_calls.iter().map(|call| OutgoingCall {
        id: &call.id,
        r#type: "function",
        function: OutgoingFunction { name: &call.name, arguments: or_empty_object(&call.arguments) },
        state: calls.iter().find(|(id, _)| *id == call.id).map(|(_, state)| state.clone()).unwrap_or_default(),
    });
    let tool_calls = (!turn.tool_calls.is_empty()).then(|| tool_calls.collect());
    // What the user gives by hand counts before what was kept.
    let by_hand = turn.more.0.iter().any(|(name, _)| name.starts_with("reasoning"));
    let state = thoughts.filter(|_| !by_hand);
    let more = (!turn.more.0.is_empty()).then_some(turn.more);
    Ok(Message { role, name: turn.name, content, tool_calls, tool_call_id: turn.tool_call_id, state, more })
}

/// Arguments of a call; without any, some models write nothing.
pub fn or_empty_object(arguments: &str) -> &str {
    if arguments.trim().is_empty() { "{}" } else { arguments }
}

fn part(part: &Part) -> Result<ChatPart<'_>, String> {
    match part {
        Part::With(inner) => Ok(ChatPart { part: plain(&inner.0)?, more: Some(&inner.1) }),
        part => Ok(ChatPart { part: plain(part)?, more: None }),
    }
}

fn plain(part: &Part) -> Result<PlainPart<'_>, String> {
    let media: &Media = match part {
        Part::Text(text) => return Ok(PlainPart::Text { text }),
        Part::Media(media) => media,
        Part::With(inner) => return plain(&inner.0),
    };
    match (media.kind, media.base64()) {
        (MediaKind::Image, _) => {
            let image_url = ImageUrl { url: media.url(), detail: media.detail.as_deref() };
            Ok(PlainPart::ImageUrl { image_url })
        }
        (MediaKind::Audio, Some(data)) => {
            Ok(PlainPart::InputAudio { input_audio: InputAudio { data, format: media.format() } })
        }
        (MediaKind::File, Some(_)) => {
            let filename = media.name.as_deref().unwrap_or("file");
            Ok(PlainPart::File { file: FileData { filename, file_data: media.url() } })
        }
        (kind, None) => Err(format!(
            "Chat Completions takes no {} by URL: give its bytes, or use api=\"responses\" for files",
            kind.name()
        )),
    }
}

#[derive(Deserialize)]
struct Completion {
    #[serde(default, deserialize_with = "lenient::list")]
    choices: Vec<Sample>,
    #[serde(default, deserialize_with = "lenient::object")]
    usage: Option<Counts>,
    #[serde(default, deserialize_with = "lenient::text")]
    model: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    service_tier: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    system_fingerprint: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    provider: Option<String>,
    /// Some gateways send an error object with status 200.
    #[serde(default, deserialize_with = "lenient::error")]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Sample {
    #[serde(default, deserialize_with = "lenient::object")]
    message: Option<Spoke>,
    /// Completions of old give a text.
    #[serde(default, deserialize_with = "lenient::text")]
    text: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    finish_reason: Option<String>,
    #[serde(default)]
    logprobs: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "lenient::error")]
    error: Option<Value>,
}

#[derive(Deserialize, Default)]
struct Spoke {
    #[serde(default)]
    content: Spoken,
    #[serde(default, deserialize_with = "lenient::text")]
    refusal: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    reasoning: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    reasoning_content: Option<String>,
    #[serde(default)]
    reasoning_details: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "lenient::list")]
    tool_calls: Vec<Call>,
    /// The form before `tool_calls`.
    #[serde(default, deserialize_with = "lenient::object")]
    function_call: Option<Function>,
}

/// A text, or (Mistral's reasoning models) a list of parts with words and thoughts; or JSON that a server has already
/// read, which is made text again.
#[derive(Default)]
struct Spoken {
    text: String,
    thoughts: Option<String>,
    /// The list.
    parts: Option<Value>,
}

impl Spoken {
    fn text(text: String) -> Self {
        Self { text, ..Self::default() }
    }

    fn of_parts(parts: Vec<Value>) -> Self {
        let (mut text, mut thoughts) = (String::new(), String::new());
        for part in &parts {
            match part {
                Value::String(words) => text.push_str(words),
                part => {
                    text.push_str(part.get("text").and_then(Value::as_str).unwrap_or_default());
                    match part.get("thinking") {
                        Some(Value::String(words)) => thoughts.push_str(words),
                        Some(Value::Array(parts)) => {
                            parts
                                .iter()
                                .filter_map(|part| part.get("text")?.as_str())
                                .for_each(|t| thoughts.push_str(t));
                        }
                        _ => {}
                    }
                }
            }
        }
        let thoughts = (!thoughts.is_empty()).then_some(thoughts);
        Self { text, thoughts, parts: Some(Value::Array(parts)) }
    }
}

impl<'de> Deserialize<'de> for Spoken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrParts;
        impl<'de> Visitor<'de> for TextOrParts {
            type Value = Spoken;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a text or a list of parts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Spoken, E> {
                Ok(Spoken::text(text.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Spoken, E> {
                Ok(Spoken::default())
            }

            fn visit_bool<E>(self, value: bool) -> Result<Spoken, E> {
                Ok(Spoken::text(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Spoken, E> {
                Ok(Spoken::text(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Spoken, E> {
                Ok(Spoken::text(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Spoken, E> {
                Ok(Spoken::text(json!(value).to_string()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Spoken, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = seq.next_element::<Value>()? {
                    parts.push(part);
                }
                Ok(Spoken::of_parts(parts))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Spoken, A::Error> {
                let part = Value::deserialize(MapAccessDeserializer::new(map))?;
                let text = part.get("text").and_then(Value::as_str).map(str::to_owned);
                Ok(Spoken::text(text.unwrap_or_else(|| part.to_string())))
            }
        }
        deserializer.deserialize_any(TextOrParts)
    }
}

#[derive(Deserialize)]
struct Call {
    #[serde(default, deserialize_with = "lenient::code")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::object")]
    function: Option<Function>,
    #[serde(default)]
    extra_content: Option<Box<RawValue>>,
    #[serde(default)]
    provider_specific_fields: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Function {
    #[serde(default, deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<Box<RawValue>>,
}

/// Arguments as text: a string by the protocol, an object with some servers.
pub fn arguments(raw: Option<Box<RawValue>>) -> String {
    let Some(raw) = raw else { return "{}".to_owned() };
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => or_empty_object(&text).to_owned(),
        Err(_) => String::from(Box::<str>::from(raw)),
    }
}

/// What servers say of the end of an answer. From the references of OpenAI, Mistral, DeepSeek, Zhipu, vLLM, OpenRouter
/// and Cohere (2026), in lower case.
fn finish(word: Option<&str>) -> Finish {
    let Some(word) = word else { return Finish::Stop };
    match word.to_ascii_lowercase().as_str() {
        "stop" | "eos" | "end_turn" | "eos_token" | "stop_sequence" | "complete" => Finish::Stop,
        "length" | "max_tokens" | "model_length" | "max_output_tokens" | "model_context_window_exceeded" => {
            Finish::Length
        }
        "tool_calls" | "function_call" | "tool_use" | "tool_call" => Finish::ToolCalls,
        "content_filter" | "content_filtered" | "sensitive" | "safety" | "recitation" | "guardrail_intervened" => {
            Finish::ContentFilter
        }
        "refusal" => Finish::Refusal,
        "insufficient_system_resource" | "overloaded" => Finish::Interrupted { overloaded: true },
        "error"
        | "abort"
        | "aborted"
        | "cancelled"
        | "canceled"
        | "user_cancel"
        | "network_error"
        | "timeout"
        | "failed"
        | "error_toxic"
        | "error_limit"
        | "malformed_model_output" => Finish::Interrupted { overloaded: false },
        "malformed_function_call" | "malformed_tool_use" => Finish::Malformed,
        _ => Finish::Other,
    }
}

impl From<Sample> for Choice {
    fn from(sample: Sample) -> Self {
        let mut message = sample.message.unwrap_or_default();
        let mut call_states = Vec::new();
        let old_form = message.function_call.take().filter(|_| message.tool_calls.is_empty());
        let calls = std::mem::take(&mut message.tool_calls).into_iter().chain(old_form.map(|function| Call {
            id: None,
            function: Some(function),
            extra_content: None,
            provider_specific_fields: None,
        }));
        let calls = calls.enumerate().filter_map(|(number, call)| {
            let function = call.function?;
            let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{number}"));
            let state = CallState {
                extra_content: call.extra_content,
                provider_specific_fields: call.provider_specific_fields,
            };
            if !state.is_empty() {
                call_states.push((id.clone(), state));
            }
            Some(ToolCall::new(id, function.name?, arguments(function.arguments)))
        });
        let tool_calls: Vec<ToolCall> = calls.collect();
        let Spoken { text, thoughts, parts } = message.content;
        let reasoning = [&message.reasoning, &message.reasoning_content, &thoughts];
        let reasoning = reasoning.into_iter().flatten().find(|text| !text.is_empty()).cloned();
        let turn = (!tool_calls.is_empty())
            .then(|| {
                let content =
                    parts.and_then(|parts| Some((serde_json::value::to_raw_value(&parts).ok()?, text.clone())));
                let thoughts = Thoughts {
                    reasoning_content: message.reasoning_content,
                    reasoning: message.reasoning,
                    reasoning_details: message.reasoning_details,
                };
                state_of(State { thoughts, content, calls: call_states })
            })
            .flatten();
        let finish = match finish(sample.finish_reason.as_deref()) {
            Finish::Stop | Finish::Other if message.refusal.as_ref().is_some_and(|text| !text.is_empty()) => {
                Finish::Refusal
            }
            finish => finish,
        };
        Self {
            text: if text.is_empty() { sample.text.unwrap_or(text) } else { text },
            finish,
            native_finish: sample.finish_reason.filter(|word| word != finish.name()),
            refusal: message.refusal,
            tool_calls,
            logprobs: sample.logprobs.map(Into::into),
            reasoning,
            turn,
            ..Self::default()
        }
    }
}

/// The state as text, if there is any.
fn state_of(state: State) -> Option<Box<str>> {
    let Thoughts { reasoning_content, reasoning, reasoning_details } = &state.thoughts;
    let is_empty = reasoning_content.is_none()
        && reasoning.is_none()
        && reasoning_details.is_none()
        && state.content.is_none()
        && state.calls.is_empty();
    if is_empty { None } else { serde_json::to_string(&state).ok().map(Into::into) }
}

/// Token counts; also those of DeepSeek, which names its cache otherwise.
#[derive(Deserialize, Default)]
struct Counts {
    #[serde(default, deserialize_with = "lenient::count")]
    prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    completion_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    total_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::object")]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default, deserialize_with = "lenient::object")]
    completion_tokens_details: Option<CompletionDetails>,
    #[serde(default, deserialize_with = "lenient::count")]
    prompt_cache_hit_tokens: Option<u64>,
    #[serde(default)]
    cost: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default, deserialize_with = "lenient::count")]
    cached_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    #[serde(default, deserialize_with = "lenient::count")]
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
    use crate::providers::reply::Extra;
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
        let say = |role, parts| Asked { role, parts, ..Asked::default() };
        let call = ToolCall::new("c1".to_owned(), "f".to_owned(), "{}".to_owned());
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
