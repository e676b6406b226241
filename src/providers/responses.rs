//! OpenAI's Responses, `POST {base_url}/responses`.
//!
//! Fields as in OpenAI's API reference (2026). Nothing is stored at OpenAI (`store: false`) unless `extra_body` asks
//! for it; there is no `n`, `stop` or `seed`.

use std::borrow::Cow;

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::dialect::{Answer, Body, Dialect, Streaming, error_of};
use super::error::ProviderError;
use super::json::{bad, parse};
use super::openai::{Breakpoint, cache_fields};
use super::options::{Options, fields};
use super::prompt::{Ask, Content, Fields, MediaKind, Part, Role, Turn};
use super::reply::{Choice, Finish, TokenUsage, ToolCall, arguments, extras};
use super::shared::{SharedText, Text};
use super::state::{Kind, Written, replay, turn_of};
use super::streams::{Clocks, ResponsesFold};
use super::{lenient, schema_dialects, status};

const PROTOCOL: &str = "Responses";

/// The dialect.
pub struct Responses;

impl Dialect for Responses {
    fn protocol(&self) -> &'static str {
        PROTOCOL
    }

    fn path(&self, _model: &str) -> String {
        "responses".to_owned()
    }

    fn fields(&self, options: &Options) -> Result<Map<String, Value>, String> {
        let refused =
            [("n", options.n.is_some()), ("stop", !options.stop.is_empty()), ("seed", options.seed.is_some())];
        if let Some((name, _)) = refused.iter().find(|(_, given)| *given) {
            return Err(format!("the Responses API does not support {name}: leave it out, or use api=\"chat\""));
        }
        let tools = options.tools.iter().map(|tool| {
            json!({"type": "function", "name": tool.name, "description": tool.description,
                "parameters": tool.parameters, "strict": false})
        });
        let tools: Vec<Value> = tools.collect();
        let choice = options.tool_choice.as_ref().map(|choice| match choice.as_str() {
            "auto" | "none" | "required" => json!(choice),
            name => json!({"type": "function", "name": name}),
        });
        let text = options.schema.as_ref().map(|wanted| {
            let (schema, strict) = schema_dialects::for_openai(&wanted.schema);
            json!({"format": {"type": "json_schema", "name": wanted.name, "schema": schema, "strict": strict}})
        });
        Ok(options.with_extra(fields([
            ("model", Some(json!(options.model))),
            ("store", Some(json!(false))),
            ("instructions", options.system_prompt.as_ref().map(|text| json!(text))),
            ("temperature", options.temperature.clone().map(Value::Number)),
            ("top_p", options.top_p.clone().map(Value::Number)),
            ("max_output_tokens", options.max_tokens.map(Value::from)),
            ("include", include(options)),
            ("top_logprobs", options.logprobs.filter(|top| *top > 0).map(Value::from)),
            ("reasoning", options.reasoning_effort.as_ref().map(|effort| json!({"effort": effort}))),
            ("tools", (!tools.is_empty()).then_some(Value::Array(tools))),
            ("tool_choice", choice),
            ("text", text),
        ])))
    }

    /// What is cached has to be a block of a message.
    fn mark(&self, _options: &Options, fields: &mut Map<String, Value>) {
        fields.shift_remove("instructions");
    }

    fn conversation(&self, options: &Options, ask: &Ask, body: &mut Body) -> Result<(), String> {
        let (turns, marks) = (ask.turns(), ask.marks());
        cache_fields(marks, body)?;
        let has_own = marks.is_some_and(|marks| marks.fixed);
        let own = if has_own { options.system(|| None) } else { None };
        if let [turn @ Turn { role: Role::User, content: Content::Text(text), name: None, .. }] = turns.as_slice()
            && turn.more.0.is_empty()
            && own.is_none()
        {
            return body.field("input", &**text);
        }
        let mut items = Vec::with_capacity(turns.len() + 1);
        if let Some(text) = own {
            let part = PlainPart::Instructions { text };
            let part = InputPart { part, more: None, prompt_cache_breakpoint: Some(Breakpoint::EXPLICIT) };
            items.push(InputItem::Message { role: "developer", content: vec![part] });
        }
        for (place, turn) in turns.iter().enumerate() {
            write(turn, options, marks.and_then(|marks| marks.part_of(place)), &mut items)?;
        }
        body.field("input", &items)
    }

    fn streaming(&self, model: &str) -> Option<Streaming> {
        Some(Streaming {
            path: (self.path(model), None),
            fields: fields([("stream", Some(json!(true)))]),
            fold: || Box::<ResponsesFold>::default(),
            clocks: Clocks::SILENT,
        })
    }

    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError> {
        let response: Response = parse(PROTOCOL, body)?;
        let usage: TokenUsage = response.usage.unwrap_or_default().into();
        error_of(response.error, body, headers).map_err(|error| error.with_usage(usage))?;
        let status = response.status.filter(|status| !status.is_empty()).unwrap_or_else(|| "completed".to_owned());
        let is_complete = ["completed", "success", "succeeded"].iter().any(|word| status.eq_ignore_ascii_case(word));
        if response.output.is_empty() && is_complete {
            return Err(status::instead(body, headers).unwrap_or_else(|| bad(PROTOCOL, body, "it has no output")));
        }
        let mut choice = Choice::default();
        let mut texts: Vec<String> = Vec::new();
        let mut thoughts: Vec<String> = Vec::new();
        let mut malformed = false;
        let has_state = response.output.iter().any(|item| !matches!(item.kind(), "message" | "function_call"));
        // Every message counts, not only the first output.
        for item in response.output {
            match item.kind() {
                "message" => {
                    for part in item.content {
                        texts.extend(part.text);
                        choice.refusal = choice.refusal.or(part.refusal);
                        choice.logprobs = choice.logprobs.or(part.logprobs.map(Into::into));
                    }
                }
                "function_call" => {
                    let id = item.given_id().unwrap_or_else(|| format!("call_{}", choice.tool_calls.len()));
                    malformed |= item.name.is_none();
                    choice.tool_calls.push(ToolCall::new(id, item.name.unwrap_or_default(), arguments(item.arguments)));
                }
                "reasoning" => {
                    let parts = if item.summary.is_empty() { item.content } else { item.summary };
                    thoughts.extend(parts.into_iter().filter_map(|part| part.text));
                }
                _ => {}
            }
        }
        choice.text = texts.concat();
        choice.reasoning = (!thoughts.is_empty()).then(|| thoughts.join("\n"));
        let reason = response.incomplete_details.and_then(|details| details.reason);
        choice.finish = match reason.as_deref() {
            _ if choice.refusal.as_ref().is_some_and(|text| !matches!(text.as_str(), "" | "None" | "null")) => {
                Finish::Refusal
            }
            Some("max_output_tokens" | "max_tokens") => Finish::Length,
            Some("content_filter") => Finish::ContentFilter,
            _ if is_complete && malformed => Finish::Malformed,
            _ if is_complete && !choice.tool_calls.is_empty() => Finish::ToolCalls,
            _ if is_complete => Finish::Stop,
            // `failed`, `cancelled`, `incomplete` for no reason that is known, `in_progress`, `queued`.
            _ => Finish::Interrupted { overloaded: false },
        };
        choice.native_finish = reason.or_else(|| (!is_complete).then_some(status));
        if has_state && !choice.tool_calls.is_empty() {
            choice.turn = output_of(body);
        }
        Ok(Answer {
            choices: vec![choice],
            usage,
            model: response.model,
            extras: extras([
                ("service_tier", response.service_tier.map(Into::into)),
                ("response_id", response.id.map(Into::into)),
            ]),
            unfinished: None,
        })
    }

    fn turn(&self, body: &[u8]) -> Option<Box<RawValue>> {
        RawValue::from_string(output_of(body)?.into()).ok()
    }
}

/// What replies are to hold beside the answer: log-probabilities, and with tools what a reasoning model wants back. (Other
/// models answer 400 to a request for the latter.)
fn include(options: &Options) -> Option<Value> {
    let mut wanted = Vec::new();
    if options.logprobs.is_some() {
        wanted.push("message.output_text.logprobs");
    }
    if options.reasoning_effort.is_some() && (!options.tools.is_empty() || options.keeps_turns) {
        wanted.push("reasoning.encrypted_content");
    }
    (!wanted.is_empty()).then(|| json!(wanted))
}

/// The output items of a reply, as they were written.
fn output_of(body: &[u8]) -> Option<Box<str>> {
    #[derive(Deserialize)]
    struct Output {
        output: Box<RawValue>,
    }
    parse::<Output>(PROTOCOL, body).ok().map(|reply| reply.output.into())
}

#[derive(Serialize)]
#[serde(untagged)]
enum InputItem<'a> {
    Message { role: &'static str, content: Vec<InputPart<'a>> },
    Call { r#type: &'static str, call_id: &'a str, name: &'a str, arguments: &'a str },
    Result { r#type: &'static str, call_id: &'a str, output: Output<'a> },
    Raw(Fields),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Output<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<InputPart<'a>>),
}

#[derive(Serialize)]
struct InputPart<'a> {
    #[serde(flatten)]
    part: PlainPart<'a>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    more: Option<&'a Fields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_breakpoint: Option<Breakpoint>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum PlainPart<'a> {
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
fn write<'a>(
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
            Written::Raw(raw) => {
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

#[derive(Deserialize)]
struct Response {
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    status: Option<String>,
    #[serde(default, deserialize_with = "lenient::error")]
    error: Option<Value>,
    #[serde(default, deserialize_with = "lenient::object")]
    incomplete_details: Option<Incomplete>,
    #[serde(default, deserialize_with = "lenient::list")]
    output: Vec<OutputItem>,
    #[serde(default, deserialize_with = "lenient::object")]
    usage: Option<Counts>,
    #[serde(default, deserialize_with = "lenient::text")]
    model: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    service_tier: Option<String>,
}

#[derive(Deserialize)]
struct Incomplete {
    #[serde(default, deserialize_with = "lenient::text")]
    reason: Option<String>,
}

/// An item of the output, with the fields of all kinds that are looked at.
#[derive(Deserialize)]
struct OutputItem {
    #[serde(rename = "type", default, deserialize_with = "lenient::text")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "lenient::code")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::list")]
    content: Vec<OutputPart>,
    #[serde(default, deserialize_with = "lenient::list")]
    summary: Vec<OutputPart>,
    #[serde(default, deserialize_with = "lenient::code")]
    call_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<Box<RawValue>>,
}

impl OutputItem {
    fn kind(&self) -> &str {
        // What says something is a message, also without its type.
        self.kind.as_deref().unwrap_or(if self.content.is_empty() { "" } else { "message" })
    }

    fn given_id(&self) -> Option<String> {
        [&self.call_id, &self.id].into_iter().flatten().find(|id| !id.is_empty()).cloned()
    }
}

#[derive(Deserialize)]
struct OutputPart {
    #[serde(default, deserialize_with = "lenient::text")]
    text: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    refusal: Option<String>,
    #[serde(default)]
    logprobs: Option<Box<RawValue>>,
}

#[derive(Deserialize, Default)]
struct Counts {
    #[serde(default, deserialize_with = "lenient::count")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::object")]
    input_tokens_details: Option<InputDetails>,
    #[serde(default, deserialize_with = "lenient::count")]
    output_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::object")]
    output_tokens_details: Option<OutputDetails>,
    #[serde(default, deserialize_with = "lenient::count")]
    total_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct InputDetails {
    #[serde(default, deserialize_with = "lenient::count")]
    cached_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct OutputDetails {
    #[serde(default, deserialize_with = "lenient::count")]
    reasoning_tokens: Option<u64>,
}

impl From<Counts> for TokenUsage {
    fn from(counts: Counts) -> Self {
        let (input, output) = (counts.input_tokens.unwrap_or(0), counts.output_tokens.unwrap_or(0));
        let details = counts.input_tokens_details.as_ref();
        Self {
            input,
            output,
            total: counts.total_tokens.unwrap_or(input.saturating_add(output)),
            cache_read: details.and_then(|d| d.cached_tokens).unwrap_or(0),
            cache_write: details.and_then(|d| d.cache_write_tokens).unwrap_or(0),
            cache_write_hour: 0,
            reasoning: counts.output_tokens_details.and_then(|d| d.reasoning_tokens).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::prompt::{Message, Prompt};
    use crate::providers::testing;

    fn read(body: Value) -> Result<Answer, ProviderError> {
        Responses.read(body.to_string().as_bytes(), &HeaderMap::new())
    }

    #[test]
    fn a_text_is_the_input_and_a_conversation_a_list() {
        let options = testing::options(json!({"model": "m", "system_prompt": "s", "max_tokens": 5,
            "reasoning_effort": "low", "schema": {"name": "S", "schema": {"type": "integer"}, "check": false}}));
        let written = testing::request(&Responses, &options, &Ask::new(Prompt::Text("Hi".to_owned().into()))).unwrap();
        assert_eq!(
            written,
            json!({"model": "m", "store": false, "instructions": "s", "max_output_tokens": 5, "input": "Hi",
                "reasoning": {"effort": "low"},
                "text": {"format": {"type": "json_schema", "name": "S", "schema": {"type": "integer"}, "strict": false}}})
        );
        let call = ToolCall::new("c".to_owned(), "f".to_owned(), "{}".to_owned());
        let say =
            |role, text: &str| Message { role, parts: vec![Part::Text(text.to_owned().into())], ..Message::default() };
        let prompt = Prompt::from(vec![
            say(Role::System, "Be kind."),
            say(Role::User, "Hi"),
            Message { tool_calls: vec![call], ..say(Role::Assistant, "Well") },
            Message { tool_call_id: Some("c".to_owned()), ..say(Role::Tool, "7") },
        ]);
        let written =
            testing::request(&Responses, &testing::options(json!({"model": "m"})), &Ask::new(prompt)).unwrap();
        assert_eq!(
            written["input"],
            json!([{"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
                {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {"role": "assistant", "content": [{"type": "output_text", "text": "Well"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "7"}])
        );
        assert!(Responses.fields(&testing::options(json!({"n": 2}))).unwrap_err().contains("does not support n"));
    }

    #[test]
    fn every_message_counts() {
        let answer = read(json!({"id": "r", "status": "completed", "model": "m", "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "content": [{"type": "output_text", "text": "Hel"}]},
            {"type": "web_search_call", "id": "w"},
            {"type": "message", "content": [{"type": "output_text", "text": "lo"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}],
            "usage": {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3,
                "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 12}}))
        .unwrap();
        let choice = &answer.choices[0];
        assert_eq!((choice.text.as_str(), choice.finish), ("Hello", Finish::ToolCalls));
        assert_eq!(choice.reasoning.as_deref(), Some("hm"));
        assert_eq!((answer.usage.cache_read, answer.usage.reasoning, answer.usage.total), (4, 2, 12));
    }

    #[test]
    fn ends_of_all_kinds_are_told_apart() {
        let finish = |reason: &str| {
            let body = json!({"status": "incomplete", "incomplete_details": {"reason": reason}, "output": []});
            read(body).unwrap().choices[0].finish
        };
        assert_eq!(finish("max_output_tokens"), Finish::Length);
        assert_eq!(finish("content_filter"), Finish::ContentFilter);
        let refused = json!({"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}]});
        assert_eq!(read(refused).unwrap().choices[0].finish, Finish::Refusal);
        let failed = json!({"status": "failed", "error": {"code": "server_error", "message": "m"}, "output": []});
        assert!(matches!(read(failed), Err(ProviderError::Status { .. })));
        for status in ["failed", "cancelled", "incomplete", "in_progress", "queued"] {
            let said = json!([{"type": "message", "content": [{"type": "output_text", "text": "The answer is"}]}]);
            for output in [json!([]), said] {
                let choice =
                    read(json!({"status": status, "error": null, "incomplete_details": null, "output": output}))
                        .unwrap()
                        .choices
                        .remove(0);
                assert_eq!(choice.finish, Finish::Interrupted { overloaded: false }, "{status}");
                assert_eq!(choice.native_finish.as_deref(), Some(status));
            }
        }
    }
}
