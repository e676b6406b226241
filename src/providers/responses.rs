//! OpenAI's Responses, `POST {base_url}/responses`.
//!
//! Fields as in OpenAI's API reference (2026). Nothing is stored at OpenAI (`store: false`) unless `extra_body` asks
//! for it; there is no `n`, `stop` or `seed`.

use std::borrow::Cow;

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::dialect::{Answer, Body, Dialect, bad, error_inside, parse};
use super::options::fields;
use super::prompt::{Ask, Content, MediaKind, Part, Role, Turn};
use super::reply::{Choice, Finish, TokenUsage, ToolCall};
use super::{Options, ProviderError, schema};

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
            return Err(format!("the Responses API has no {name}: leave it out, or use api=\"chat\""));
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
            let (schema, strict) = schema::for_openai(&wanted.schema);
            json!({"format": {"type": "json_schema", "name": wanted.name, "schema": schema, "strict": strict}})
        });
        Ok(options.with_extra(fields([
            ("model", Some(json!(options.model))),
            ("store", Some(json!(false))),
            ("instructions", options.system_prompt.as_ref().map(|text| json!(text))),
            ("temperature", options.temperature.clone().map(Value::Number)),
            ("top_p", options.top_p.clone().map(Value::Number)),
            ("max_output_tokens", options.max_tokens.map(Value::from)),
            ("include", options.logprobs.map(|_| json!(["message.output_text.logprobs"]))),
            ("top_logprobs", options.logprobs.filter(|top| *top > 0).map(Value::from)),
            ("reasoning", options.reasoning_effort.as_ref().map(|effort| json!({"effort": effort}))),
            ("tools", (!tools.is_empty()).then_some(Value::Array(tools))),
            ("tool_choice", choice),
            ("text", text),
        ])))
    }

    fn conversation(&self, _options: &Options, ask: &Ask, body: &mut Body) -> Result<(), String> {
        let turns = ask.turns();
        if let [Turn { role: Role::User, content: Content::Text(text), .. }] = turns.as_slice() {
            return body.field("input", text);
        }
        let mut items = Vec::with_capacity(turns.len());
        for turn in &turns {
            write(turn, &mut items)?;
        }
        body.field("input", &items)
    }

    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError> {
        let response: Response = parse(PROTOCOL, body)?;
        error_inside(response.error, headers)?;
        let status = response.status.as_deref().unwrap_or("completed");
        if response.output.is_empty() && !matches!(status, "completed" | "incomplete") {
            return Err(bad(PROTOCOL, body, format!("its status is {status:?} and it has no output")));
        }
        let mut choice = Choice::default();
        let mut texts: Vec<String> = Vec::new();
        // Every message counts, not only the first output.
        for item in response.output {
            match item {
                OutputItem::Message { content } => {
                    for part in content {
                        texts.extend(part.text);
                        choice.refusal = choice.refusal.or(part.refusal);
                        choice.logprobs = choice.logprobs.or(part.logprobs.filter(|value| !value.is_null()));
                    }
                }
                OutputItem::FunctionCall { call_id, name, arguments } => {
                    choice.tool_calls.push(ToolCall { id: call_id, name, arguments });
                }
                OutputItem::Reasoning { summary } => {
                    let words: Vec<String> = summary.into_iter().filter_map(|part| part.text).collect();
                    choice.reasoning = (!words.is_empty()).then(|| words.join("\n"));
                }
                OutputItem::Other => {}
            }
        }
        choice.text = texts.concat();
        let reason = response.incomplete_details.and_then(|details| details.reason);
        choice.finish = match reason.as_deref() {
            _ if choice.refusal.is_some() => Finish::Refusal,
            Some("max_output_tokens") => Finish::Length,
            Some("content_filter") => Finish::ContentFilter,
            Some(_) => Finish::Other,
            None if !choice.tool_calls.is_empty() => Finish::ToolCalls,
            None => Finish::Stop,
        };
        let extras = fields([
            ("service_tier", response.service_tier.map(Value::String)),
            ("response_id", response.id.map(Value::String)),
        ]);
        Ok(Answer {
            choices: vec![choice],
            usage: response.usage.unwrap_or_default().into(),
            model: response.model,
            extras,
        })
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum InputItem<'a> {
    Message { role: &'static str, content: Vec<InputPart<'a>> },
    Call { r#type: &'static str, call_id: &'a str, name: &'a str, arguments: &'a str },
    Result { r#type: &'static str, call_id: &'a str, output: Cow<'a, str> },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum InputPart<'a> {
    InputText {
        text: &'a str,
    },
    OutputText {
        text: &'a str,
    },
    InputImage {
        image_url: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
    },
    InputFile {
        #[serde(skip_serializing_if = "Option::is_none")]
        filename: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_data: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_url: Option<&'a str>,
    },
}

fn write<'a>(turn: &'a Turn<'a>, items: &mut Vec<InputItem<'a>>) -> Result<(), String> {
    if turn.role == Role::Tool {
        let call_id = turn.tool_call_id.unwrap_or_default();
        items.push(InputItem::Result { r#type: "function_call_output", call_id, output: turn.words() });
        return Ok(());
    }
    let role = match turn.role {
        Role::System => "developer",
        Role::Assistant => "assistant",
        _ => "user",
    };
    let words = |text: &'a str| match turn.role {
        Role::Assistant => InputPart::OutputText { text },
        _ => InputPart::InputText { text },
    };
    let content: Vec<InputPart<'a>> = match &turn.content {
        Content::Text(text) => vec![words(text)],
        Content::Parts(parts) => parts.iter().map(|one| part(one, &words)).collect::<Result<_, _>>()?,
    };
    if !content.is_empty() {
        items.push(InputItem::Message { role, content });
    }
    items.extend(turn.tool_calls.iter().map(|call| InputItem::Call {
        r#type: "function_call",
        call_id: &call.id,
        name: &call.name,
        arguments: &call.arguments,
    }));
    Ok(())
}

fn part<'a>(part: &'a Part, words: &impl Fn(&'a str) -> InputPart<'a>) -> Result<InputPart<'a>, String> {
    let media = match part {
        Part::Text(text) => return Ok(words(text)),
        Part::Media(media) => media,
    };
    let travels = media.base64().is_some();
    match media.kind {
        MediaKind::Image => Ok(InputPart::InputImage { image_url: media.url(), detail: media.detail.as_deref() }),
        MediaKind::File => Ok(InputPart::InputFile {
            filename: media.name.as_deref().or(travels.then_some("file")),
            file_data: travels.then_some(media.url()),
            file_url: (!travels).then_some(media.url()),
        }),
        MediaKind::Audio => Err("the Responses API takes no audio: use api=\"chat\"".to_owned()),
    }
}

#[derive(Deserialize)]
struct Response {
    id: Option<String>,
    status: Option<String>,
    error: Option<Value>,
    incomplete_details: Option<Incomplete>,
    #[serde(default)]
    output: Vec<OutputItem>,
    usage: Option<Counts>,
    model: Option<String>,
    service_tier: Option<String>,
}

#[derive(Deserialize)]
struct Incomplete {
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum OutputItem {
    Message {
        #[serde(default)]
        content: Vec<OutputPart>,
    },
    FunctionCall {
        call_id: String,
        name: String,
        #[serde(default)]
        arguments: String,
    },
    Reasoning {
        #[serde(default)]
        summary: Vec<OutputPart>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct OutputPart {
    text: Option<String>,
    refusal: Option<String>,
    logprobs: Option<Value>,
}

#[derive(Deserialize, Default)]
struct Counts {
    input_tokens: Option<u64>,
    input_tokens_details: Option<InputDetails>,
    output_tokens: Option<u64>,
    output_tokens_details: Option<OutputDetails>,
    total_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct InputDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct OutputDetails {
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
        let written = testing::request(&Responses, &options, &Ask::new(Prompt::Text("Hi".to_owned()))).unwrap();
        assert_eq!(
            written,
            json!({"model": "m", "store": false, "instructions": "s", "max_output_tokens": 5, "input": "Hi",
                "reasoning": {"effort": "low"},
                "text": {"format": {"type": "json_schema", "name": "S", "schema": {"type": "integer"}, "strict": true}}})
        );
        let call = ToolCall { id: "c".to_owned(), name: "f".to_owned(), arguments: "{}".to_owned() };
        let say = |role, text: &str| Message {
            role,
            parts: vec![Part::Text(text.to_owned())],
            tool_calls: vec![],
            tool_call_id: None,
        };
        let prompt = Prompt::Messages(vec![
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
        assert!(Responses.fields(&testing::options(json!({"n": 2}))).unwrap_err().contains("has no n"));
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
        assert!(read(json!({"status": "in_progress"})).unwrap_err().to_string().contains("in_progress"));
    }
}
