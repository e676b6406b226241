//! Amazon Bedrock's Converse, `POST {base_url}/model/{model}/converse`: one language for the models of all vendors.
//!
//! Fields as in the service's model in botocore 1.44 (2026). `usage.inputTokens` is the uncached part only: the prompt's
//! tokens are the sum of three counts.

use http::HeaderMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::chat::finish;
use super::counting::{Counting, body_with};
use super::dialect::{Answer, Body, Dialect, Streaming};
use super::error::ProviderError;
use super::hosted::{at_bedrock, is_claude};
use super::json::{bad, parse};
use super::options::{Options, fields};
use super::prompt::{Ask, Role};
use super::reply::{Choice, Finish, ToolCall, arguments, extras};
use super::state::find_edits;
use super::streams::{Clocks, ConverseFold};
use super::{schema_dialects, status};

mod message;
mod reply;

use message::{NAME, conversation};
use reply::{PROTOCOL, Reply, content_of};

/// Fields of a request whose tokens can be counted (the API of Bedrock's runtime, 2026).
const COUNTED: &[&str] = &["messages", "system", "toolConfig", "additionalModelRequestFields"];

/// The dialect.
pub struct Converse;

impl Dialect for Converse {
    fn protocol(&self) -> &'static str {
        PROTOCOL
    }

    fn path(&self, model: &str) -> String {
        at_bedrock(model, "converse")
    }

    fn fields(&self, options: &Options) -> Result<Map<String, Value>, String> {
        let refused =
            [("n", options.n.is_some()), ("seed", options.seed.is_some()), ("logprobs", options.logprobs.is_some())];
        if let Some((name, _)) = refused.iter().find(|(_, given)| *given) {
            return Err(format!("{NAME} does not support {name}: leave it out"));
        }
        let inference = fields([
            ("maxTokens", options.max_tokens.map(Value::from)),
            ("temperature", options.temperature.clone().map(Value::Number)),
            ("topP", options.top_p.clone().map(Value::Number)),
            ("stopSequences", (!options.stop.is_empty()).then(|| json!(options.stop))),
        ]);
        let choice = options.tool_choice.as_deref();
        let tools: Vec<Value> = options
            .tools
            .iter()
            .filter(|_| choice != Some("none"))
            .map(|tool| {
                let mut spec = json!({"name": tool.name, "inputSchema": {"json": tool.parameters}});
                if !tool.description.is_empty() {
                    spec["description"] = json!(tool.description);
                }
                json!({"toolSpec": spec})
            })
            .collect();
        let tool_config = (!tools.is_empty()).then(|| {
            let mut config = json!({"tools": tools});
            match choice {
                None | Some("none") => {}
                Some("auto") => config["toolChoice"] = json!({"auto": {}}),
                Some("required") => config["toolChoice"] = json!({"any": {}}),
                Some(name) => config["toolChoice"] = json!({"tool": {"name": name}}),
            }
            config
        });
        let mut output = Map::new();
        if let Some(effort) = &options.reasoning_effort {
            output.insert("effort".to_owned(), json!(effort));
        }
        if let Some(wanted) = &options.schema {
            let schema = schema_dialects::for_anthropic(&wanted.schema)?.to_string();
            let described = json!({"schema": schema, "name": wanted.name});
            let format = json!({"type": "json_schema", "structure": {"jsonSchema": described}});
            output.insert("textFormat".to_owned(), format);
        }
        Ok(options.with_extra(fields([
            ("inferenceConfig", (!inference.is_empty()).then_some(Value::Object(inference))),
            ("toolConfig", tool_config),
            ("outputConfig", (!output.is_empty()).then_some(Value::Object(output))),
        ])))
    }

    fn conversation(&self, options: &Options, ask: &Ask, body: &mut Body) -> Result<(), String> {
        let mut turns = ask.turns();
        let binds = self.binds_thoughts(options);
        if binds {
            find_edits(options, &mut turns);
        }
        if !options.extra_body.contains_key("system") {
            let given = turns.iter().filter(|turn| turn.role == Role::System);
            let mut system: Vec<Value> = options.system_prompt.iter().map(|text| json!({"text": text})).collect();
            for turn in given {
                turn.more.only(&[], "message", NAME)?;
                system.push(json!({"text": turn.only_words(NAME)?}));
            }
            if !system.is_empty() {
                body.field("system", &system)?;
            }
        }
        body.field("messages", &conversation(&turns, &options.model, binds)?)
    }

    fn count(&self, options: &Options, ask: &Ask) -> Result<Option<Counting>, String> {
        let whole = body_with(self, options, ask, |name| COUNTED.contains(&name))?;
        let body = [b"{\"input\":{\"converse\":", &whole[..], b"}}"].concat().into();
        Ok(Some(Counting::new(at_bedrock(&options.model, "count-tokens"), body, "inputTokens")))
    }

    fn streaming(&self, model: &str) -> Option<Streaming> {
        Some(Streaming {
            path: (at_bedrock(model, "converse-stream"), None),
            fields: Map::new(),
            fold: || Box::<ConverseFold>::default(),
            clocks: Clocks::SILENT,
        })
    }

    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError> {
        let reply: Reply = parse(PROTOCOL, body)?;
        let Some(message) = reply.output.and_then(|output| output.message) else {
            return Err(status::instead(body, headers).unwrap_or_else(|| bad(PROTOCOL, body, "it has no message")));
        };
        let mut choice = Choice::default();
        let mut has_state = false;
        let mut malformed = false;
        for block in message.content {
            if let Some(text) = block.text {
                choice.text.push_str(&text);
            } else if let Some(call) = block.tool_use {
                let id = call.tool_use_id.filter(|id| !id.is_empty());
                let id = id.unwrap_or_else(|| format!("tooluse_{}", choice.tool_calls.len()));
                malformed |= call.name.is_none();
                choice.tool_calls.push(ToolCall::new(id, call.name.unwrap_or_default(), arguments(call.input)));
            } else if let Some(reasoning) = block.reasoning_content {
                has_state = true;
                let text = reasoning.reasoning_text.and_then(|inner| inner.text).unwrap_or_default();
                choice.reasoning.get_or_insert_default().push_str(&text);
            } else {
                // Answers with citations are texts in a block of their own.
                has_state = true;
                for part in block.citations_content.into_iter().flat_map(|block| block.content) {
                    choice.text.push_str(&part.text.unwrap_or_default());
                }
            }
        }
        choice.finish = if malformed { Finish::Malformed } else { finish(reply.stop_reason.as_deref()) };
        if has_state && !choice.tool_calls.is_empty() {
            choice.turn = content_of(body).map(Into::into);
        }
        choice.native_finish = reply.stop_reason.filter(|word| word != choice.finish.name());
        Ok(Answer {
            choices: vec![choice],
            extras: extras([
                ("service_tier", reply.service_tier.and_then(|tier| tier.r#type).map(Into::into)),
                ("guardrail", reply.trace.map(Into::into)),
            ]),
            usage: reply.usage.unwrap_or_default().into(),
            model: None,
            unfinished: None,
        })
    }

    fn turn(&self, body: &[u8]) -> Option<Box<RawValue>> {
        content_of(body)
    }

    /// As at Anthropic.
    fn binds_thoughts(&self, options: &Options) -> bool {
        let thinking = options.extra_body.get("additionalModelRequestFields").and_then(|fields| fields.get("thinking"));
        let kind = thinking.and_then(|thinking| thinking.get("type")).and_then(Value::as_str);
        is_claude(&options.model) && kind != Some("enabled")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::media::{Media, MediaKind};
    use crate::providers::prompt::{Message, Part, Prompt};
    use crate::providers::reply::TokenUsage;
    use crate::providers::testing;
    use std::sync::Arc;

    fn read(body: Value) -> Result<Answer, ProviderError> {
        Converse.read(body.to_string().as_bytes(), &HeaderMap::new())
    }

    #[test]
    fn a_request_holds_what_was_asked_for() {
        let options = testing::options(json!({"model": "amazon.nova-pro-v1:0", "system_prompt": "s", "stop": ["x"],
            "temperature": 0.5, "max_tokens": 9, "tool_choice": "f", "reasoning_effort": "low",
            "tools": [{"name": "f", "description": "d", "parameters": {"type": "object"}}],
            "schema": {"name": "S", "schema": {"type": "object", "properties": {}}, "check": false},
            "extra_body": {"inferenceConfig": {"topP": 1}, "guardrailConfig": {"guardrailIdentifier": "g"}}}));
        let written = testing::request(&Converse, &options, &Ask::new(Prompt::Text("Hi".to_owned().into()))).unwrap();
        assert_eq!(
            written,
            json!({"inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "topP": 1, "stopSequences": ["x"]},
                "toolConfig": {"tools": [{"toolSpec": {"name": "f", "description": "d",
                    "inputSchema": {"json": {"type": "object"}}}}], "toolChoice": {"tool": {"name": "f"}}},
                "outputConfig": {"effort": "low", "textFormat": {"type": "json_schema", "structure": {"jsonSchema":
                    {"name": "S", "schema": "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}"}}}},
                "guardrailConfig": {"guardrailIdentifier": "g"},
                "system": [{"text": "s"}], "messages": [{"role": "user", "content": [{"text": "Hi"}]}]})
        );
        assert!(Converse.fields(&testing::options(json!({"n": 2}))).unwrap_err().contains("does not support n"));
        let none = testing::options(json!({"tool_choice": "none", "tools": [{"name": "f", "parameters": {}}]}));
        assert!(Converse.fields(&none).unwrap().is_empty());
        assert_eq!(Converse.path("amazon.nova-pro-v1:0"), "model/amazon.nova-pro-v1%3A0/converse");
    }

    #[test]
    fn messages_parts_and_tools_are_written() {
        let image = Media::from_bytes(MediaKind::Image, "image/jpeg", b"abc");
        let mut file = Media::from_bytes(MediaKind::File, "application/pdf", b"abc");
        file.name = Some("a/b.pdf".to_owned());
        let call = |id: &str| ToolCall::new(id.to_owned(), "f".to_owned(), "{\"x\":1}".to_owned());
        let say = |role, parts| Message { role, parts, ..Message::default() };
        let text = |text: &str| Part::Text(text.to_owned().into());
        let answer = |id: &str| Message { tool_call_id: Some(id.to_owned()), ..say(Role::Tool, vec![text("7")]) };
        let prompt = Prompt::from(vec![
            say(Role::System, vec![text("Be kind.")]),
            say(Role::User, vec![text("Look"), Part::Media(Arc::new(image)), Part::Media(Arc::new(file))]),
            Message { tool_calls: vec![call("c"), call("d")], ..say(Role::Assistant, vec![text("Well")]) },
            answer("c"),
            answer("d"),
            say(Role::User, vec![text("And?")]),
        ]);
        let options = testing::options(json!({"model": "m"}));
        let written = testing::request(&Converse, &options, &Ask::new(prompt)).unwrap();
        assert_eq!(written["system"], json!([{"text": "Be kind."}]));
        let result = |id: &str| json!({"toolResult": {"toolUseId": id, "content": [{"text": "7"}]}});
        let used = |id: &str| json!({"toolUse": {"toolUseId": id, "name": "f", "input": {"x": 1}}});
        assert_eq!(
            written["messages"],
            json!([{"role": "user", "content": [{"text": "Look"},
                    {"image": {"format": "jpeg", "source": {"bytes": "YWJj"}}},
                    {"document": {"format": "pdf", "name": "a b pdf", "source": {"bytes": "YWJj"}}}]},
                {"role": "assistant", "content": [{"text": "Well"}, used("c"), used("d")]},
                // One turn of the user's, as Converse wants it.
                {"role": "user", "content": [result("c"), result("d"), {"text": "And?"}]}])
        );
    }

    #[test]
    fn a_reply_is_read() {
        let answer = read(json!({"output": {"message": {"role": "assistant", "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}}, {"text": "Hello"},
                {"toolUse": {"toolUseId": "t", "name": "f", "input": {"x": 1}}}]}},
            "stopReason": "tool_use", "metrics": {"latencyMs": 5}, "serviceTier": {"type": "flex"},
            "usage": {"inputTokens": 5, "outputTokens": 7, "totalTokens": 132, "cacheReadInputTokens": 100,
                "cacheWriteInputTokens": 20, "cacheDetails": [{"ttl": "1h", "inputTokens": 8}]}}))
        .unwrap();
        let usage = TokenUsage {
            input: 125,
            output: 7,
            total: 132,
            cache_read: 100,
            cache_write: 20,
            cache_write_hour: 8,
            ..TokenUsage::default()
        };
        assert_eq!(answer.usage, usage);
        let choice = &answer.choices[0];
        assert_eq!((choice.text.as_str(), choice.reasoning.as_deref()), ("Hello", Some("hm")));
        assert_eq!((choice.finish, choice.tool_calls[0].arguments.as_str()), (Finish::ToolCalls, "{\"x\":1}"));
        assert!(choice.turn.as_ref().is_some_and(|turn| turn.contains("\"signature\":\"s\"")));
        let finish = |word: &str| {
            let reply = json!({"output": {"message": {"content": []}}, "stopReason": word});
            read(reply).unwrap().choices[0].finish
        };
        assert_eq!(finish("guardrail_intervened"), Finish::ContentFilter);
        assert_eq!(finish("max_tokens"), Finish::Length);
        assert_eq!(finish("malformed_tool_use"), Finish::Malformed);
        assert!(read(json!({"message": "no"})).is_err());
    }
}
