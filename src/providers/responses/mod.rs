//! OpenAI's Responses, `POST {base_url}/responses`.
//!
//! Fields as in OpenAI's API reference (2026). Nothing is stored at OpenAI (`store: false`) unless `extra_body` asks
//! for it; there is no `n`, `stop` or `seed`.

use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::counting::{Counting, body_with};
use super::dialect::{Answer, Body, Dialect, Streaming, error_of};
use super::error::ProviderError;
use super::json::{bad, parse};
use super::marked::Breakpoint;
use super::openai::cache_fields;
use super::options::{Options, fields};
use super::prompt::{Ask, Content, Role, Turn};
use super::reply::{Choice, Finish, TokenUsage, ToolCall, arguments, extras};
use super::shared::Payload;
use super::streams::{Clocks, ResponsesFold};
use super::{schema_dialects, status};

mod reply;
mod request;

use reply::Response;
use request::{InputItem, InputPart, PlainPart, without_reasoning, write};

const PROTOCOL: &str = "Responses";

/// Fields that the endpoint knows which counts tokens (OpenAI's API reference, 2026).
const COUNTED: &[&str] = &[
    "model",
    "conversation",
    "instructions",
    "parallel_tool_calls",
    "previous_response_id",
    "reasoning",
    "text",
    "tool_choice",
    "tools",
    "truncation",
];

/// The dialect.
pub struct Responses {
    /// Whether the server sends events while a model thinks (Azure, each 30 s).
    pub pings: bool,
}

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

    fn count(&self, options: &Options, ask: &Ask) -> Result<Option<Counting>, String> {
        let body = body_with(self, options, ask, |name| COUNTED.contains(&name))?;
        Ok(Some(Counting::new("responses/input_tokens", body, "input_tokens")))
    }

    fn streaming(&self, model: &str) -> Option<Streaming> {
        Some(Streaming {
            path: (self.path(model), None),
            fields: fields([("stream", Some(json!(true)))]),
            fold: || Box::<ResponsesFold>::default(),
            clocks: if self.pings { Clocks::PINGED } else { Clocks::SILENT },
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
        // What a model says on its way to an answer is none.
        let has_answer = response.output.iter().any(|item| item.phase.as_deref() == Some("final_answer"));
        // Every message counts, not only the first output.
        for item in response.output {
            match item.kind() {
                "message" if has_answer && item.phase.as_deref() == Some("commentary") => {}
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

    /// What was encrypted for another organisation, or with a key that is gone, nobody can read.
    fn without_thoughts(&self, body: &Payload, error: &ProviderError) -> Option<Vec<u8>> {
        let is_unreadable = matches!(error, ProviderError::Status { status: 400, code: Some(code), .. }
            if code == "invalid_encrypted_content");
        if is_unreadable { without_reasoning(&body.joined()) } else { None }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::prompt::{Message, Part, Prompt};
    use crate::providers::testing;

    const OPENAI: Responses = Responses { pings: false };

    #[test]
    fn unreadable_thoughts_are_left_out_and_nothing_else() {
        let body = br#"{"model":"m","input":[{"role":"user","content":"a"},{"type":"reasoning","id":"rs","encrypted_content":"x"},{"type":"function_call","id":"fc","call_id":"c","arguments":"{\"z\": 1e2}"},{"type":"function_call_output","id":"own","call_id":"c","output":"1.0"}],"n":1.0}"#;
        let expected = br#"{"model":"m","input":[{"role":"user","content":"a"},{"type":"function_call","call_id":"c","arguments":"{\"z\": 1e2}"},{"type":"function_call_output","id":"own","call_id":"c","output":"1.0"}],"n":1.0}"#;
        assert_eq!(without_reasoning(body).as_deref(), Some(&expected[..]));
        assert_eq!(without_reasoning(expected), None);
        assert_eq!(without_reasoning(br#"{"input":"a"}"#), None);
    }

    fn read(body: Value) -> Result<Answer, ProviderError> {
        OPENAI.read(body.to_string().as_bytes(), &HeaderMap::new())
    }

    #[test]
    fn a_text_is_the_input_and_a_conversation_a_list() {
        let options = testing::options(json!({"model": "m", "system_prompt": "s", "max_tokens": 5,
            "reasoning_effort": "low", "schema": {"name": "S", "schema": {"type": "integer"}, "check": false}}));
        let written = testing::request(&OPENAI, &options, &Ask::new(Prompt::Text("Hi".to_owned().into()))).unwrap();
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
        let written = testing::request(&OPENAI, &testing::options(json!({"model": "m"})), &Ask::new(prompt)).unwrap();
        assert_eq!(
            written["input"],
            json!([{"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
                {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {"role": "assistant", "content": [{"type": "output_text", "text": "Well"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "7"}])
        );
        assert!(OPENAI.fields(&testing::options(json!({"n": 2}))).unwrap_err().contains("does not support n"));
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
