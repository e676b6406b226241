//! Google's Gemini API, `POST {base_url}/models/{model}:generateContent`.
//!
//! Fields as in Google's API reference (2026): `promptTokenCount` includes the cached tokens, `thoughtsTokenCount` is
//! *not* in `candidatesTokenCount`. There are no limit headers; errors carry `RetryInfo`.

use std::borrow::Cow;

use http::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::counting::{Counting, body_of};
use super::dialect::{Answer, Body, Dialect, Streaming, error_of};
use super::error::ProviderError;
use super::json::{bad, parse};
use super::options::{Options, fields};
use super::prompt::{Ask, Content, Role, Turn};
use super::reply::{Choice, Extra, Finish, JsonText, extras};
use super::shared::Payload;
use super::streams::{Clocks, GeminiFold};
use super::{schema_dialects, status};

mod names;
mod reply;
mod request;

use names::{NAME, PROTOCOL};
use reply::Reply;
use request::contents;

/// The dialect.
pub struct Gemini;

impl Dialect for Gemini {
    fn protocol(&self) -> &'static str {
        PROTOCOL
    }

    fn path(&self, model: &str) -> String {
        format!("{}:generateContent", placed(model))
    }

    fn fields(&self, options: &Options) -> Result<Map<String, Value>, String> {
        let declarations: Vec<Value> = options
            .tools
            .iter()
            .map(|tool| {
                json!({"name": tool.name, "description": tool.description, "parametersJsonSchema": schema_dialects::for_gemini(&tool.parameters)})
            })
            .collect();
        let mode = options.tool_choice.as_ref().map(|choice| match choice.as_str() {
            "auto" => json!({"mode": "AUTO"}),
            "none" => json!({"mode": "NONE"}),
            "required" => json!({"mode": "ANY"}),
            name => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
        });
        let generation = fields([
            ("temperature", options.temperature.clone().map(Value::Number)),
            ("topP", options.top_p.clone().map(Value::Number)),
            ("maxOutputTokens", options.max_tokens.map(Value::from)),
            ("stopSequences", (!options.stop.is_empty()).then(|| json!(options.stop))),
            ("seed", options.seed.map(Value::from)),
            ("candidateCount", options.n.map(Value::from)),
            ("responseLogprobs", options.logprobs.map(|_| json!(true))),
            ("logprobs", options.logprobs.filter(|top| *top > 0).map(Value::from)),
            (
                "thinkingConfig",
                options.reasoning_effort.as_ref().map(|level| json!({"thinkingLevel": level.to_uppercase()})),
            ),
            ("responseMimeType", options.schema.as_ref().map(|_| json!("application/json"))),
            ("responseJsonSchema", options.schema.as_ref().map(|wanted| schema_dialects::for_gemini(&wanted.schema))),
        ]);
        Ok(options.with_extra(fields([
            ("generationConfig", (!generation.is_empty()).then_some(Value::Object(generation))),
            ("tools", (!declarations.is_empty()).then(|| json!([{"functionDeclarations": declarations}]))),
            ("toolConfig", mode.map(|mode| json!({"functionCallingConfig": mode}))),
        ])))
    }

    /// Tools are in the cache, with the instructions.
    fn mark(&self, _options: &Options, fields: &mut Map<String, Value>) {
        fields.retain(|name, _| !IN_CACHES.contains(&name.as_str()));
    }

    fn cache(&self, options: &Options, head: &Ask, seconds: u64) -> Result<Option<Payload>, String> {
        let mut fixed = self.fields(options)?;
        fixed.retain(|name, _| IN_CACHES.contains(&name.as_str()));
        fixed.insert("model".to_owned(), json!(placed(&options.model)));
        fixed.insert("ttl".to_owned(), json!(format!("{seconds}s")));
        let fixed = serde_json::to_vec(&fixed).map_err(|error| error.to_string())?;
        let mut body = Body::new(&fixed.into(), head.own_bytes());
        let turns = head.turns();
        write_instructions(options, &turns, &mut body)?;
        let contents = contents(&turns, &options.model)?;
        if !contents.is_empty() {
            body.field("contents", &contents)?;
        }
        Ok(Some(body.finish()))
    }

    fn count(&self, options: &Options, ask: &Ask) -> Result<Option<Counting>, String> {
        let model = json!(placed(&options.model));
        let whole = body_of(self, options, ask, |fields| drop(fields.insert("model".to_owned(), model)))?;
        // Without this, instructions and tools would not be counted.
        let body = [b"{\"generateContentRequest\":", &whole[..], b"}"].concat().into();
        let path = format!("{}:countTokens", placed(&options.model));
        Ok(Some(Counting::new(path, body, "totalTokens")))
    }

    fn conversation(&self, options: &Options, ask: &Ask, body: &mut Body) -> Result<(), String> {
        let turns = ask.turns();
        match ask.marks().and_then(|marks| marks.cached.as_ref()) {
            Some(name) => body.field("cachedContent", name)?,
            None => write_instructions(options, &turns, body)?,
        }
        body.field("contents", &contents(&turns, &options.model)?)
    }

    fn streaming(&self, model: &str) -> Option<Streaming> {
        Some(Streaming {
            path: (self.path(model).replace(":generateContent", ":streamGenerateContent"), Some(("alt", "sse"))),
            fields: Map::new(),
            fold: || Box::<GeminiFold>::default(),
            clocks: Clocks::SILENT,
        })
    }

    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError> {
        let mut reply: Reply = parse(PROTOCOL, body)?;
        reply.candidates.sort_by_key(|candidate| candidate.index.unwrap_or(0));
        error_of(reply.error, body, headers)?;
        let blocked =
            reply.prompt_feedback.and_then(|feedback| feedback.block_reason).filter(|reason| !reason.is_empty());
        let mut told = extras([("response_id", reply.response_id.map(Into::into))]);
        let choices: Vec<Choice> = match (reply.candidates.is_empty(), blocked) {
            // The prompt itself was blocked: there is no candidate at all.
            (true, Some(reason)) => {
                vec![Choice { finish: Finish::ContentFilter, refusal: Some(reason), ..Choice::default() }]
            }
            (true, None) => {
                return Err(
                    status::instead(body, headers).unwrap_or_else(|| bad(PROTOCOL, body, "it has no candidates"))
                );
            }
            (false, _) => {
                let first = &reply.candidates[0];
                if !first.safety_ratings.is_empty() {
                    let pairs = first.safety_ratings.iter();
                    let ratings: Map<String, Value> = pairs
                        .filter_map(|rating| Some((rating.category.clone()?, json!(rating.probability.clone()?))))
                        .collect();
                    told.push(("safety_ratings", Extra::Json(JsonText(Value::Object(ratings).to_string().into()))));
                }
                if let Some(grounding) = &first.grounding_metadata {
                    told.push(("grounding", grounding.clone().into()));
                }
                reply.candidates.into_iter().map(Choice::from).collect()
            }
        };
        Ok(Answer {
            choices,
            usage: reply.usage_metadata.unwrap_or_default().into(),
            model: reply.model_version,
            extras: told,
            unfinished: None,
        })
    }

    fn turn(&self, body: &[u8]) -> Option<Box<RawValue>> {
        let reply: Reply = parse(PROTOCOL, body).ok()?;
        reply.candidates.into_iter().min_by_key(|candidate| candidate.index.unwrap_or(0))?.parts()
    }
}

/// A model with its place; `tunedModels/x` and the like name it themselves.
fn placed(model: &str) -> Cow<'_, str> {
    if model.contains('/') { Cow::Borrowed(model) } else { Cow::Owned(format!("models/{model}")) }
}

/// Fields that caches hold, and that requests with a cache must not have (Google's guide to context caching, 2026).
const IN_CACHES: &[&str] = &["tools", "toolConfig"];

fn write_instructions(options: &Options, turns: &[Turn<'_>], body: &mut Body) -> Result<(), String> {
    let given: Vec<&Turn<'_>> = turns.iter().filter(|turn| turn.role == Role::System).collect();
    let words: Vec<Cow<'_, str>> = given.iter().map(|turn| turn.only_words(NAME)).collect::<Result<_, _>>()?;
    if options.extra_body.contains_key("systemInstruction") {
        return Ok(());
    }
    write_system(options, &given, words, body)
}

/// Instructions have a place of their own, wherever they stand in the conversation.
fn write_system(
    options: &Options,
    given: &[&Turn<'_>],
    words: Vec<Cow<'_, str>>,
    body: &mut Body,
) -> Result<(), String> {
    fn write(text: &impl Serialize, body: &mut Body) -> Result<(), String> {
        #[derive(Serialize)]
        struct Instruction<T> {
            parts: [Words<T>; 1],
        }
        #[derive(Serialize)]
        struct Words<T> {
            text: T,
        }
        body.field("systemInstruction", &Instruction { parts: [Words { text }] })
    }
    match (&options.system_prompt, given) {
        (_, []) => options.system(|| None).map_or(Ok(()), |text| write(text, body)),
        (None, [Turn { content: Content::Text(text), .. }]) => write(&**text, body),
        (own, _) => {
            let system: Vec<Cow<'_, str>> = own.iter().map(|text| Cow::Borrowed(&**text)).chain(words).collect();
            write(&system.join("\n\n"), body)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::media::{Media, MediaKind};
    use crate::providers::prompt::{Message, Part as PromptPart, Prompt};
    use crate::providers::reply::{TokenUsage, ToolCall};
    use crate::providers::testing;
    use std::sync::Arc;

    fn read(body: Value) -> Result<Answer, ProviderError> {
        Gemini.read(body.to_string().as_bytes(), &HeaderMap::new())
    }

    #[test]
    fn a_request_holds_what_was_asked_for() {
        let options = testing::options(json!({"model": "gemini-x", "system_prompt": "s", "temperature": 0.5, "n": 2,
            "max_tokens": 9, "reasoning_effort": "low", "tool_choice": "f",
            "tools": [{"name": "f", "description": "d", "parameters": {"type": "object"}}],
            "schema": {"name": "S", "schema": {"type": "integer"}, "check": true},
            "extra_body": {"generationConfig": {"topK": 5}}}));
        let written = testing::request(&Gemini, &options, &Ask::new(Prompt::Text("Hi".to_owned().into()))).unwrap();
        assert_eq!(
            written,
            json!({"systemInstruction": {"parts": [{"text": "s"}]},
                "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
                "tools": [{"functionDeclarations": [
                    {"name": "f", "description": "d", "parametersJsonSchema": {"type": "object"}}]}],
                "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
                "generationConfig": {"temperature": 0.5, "maxOutputTokens": 9, "candidateCount": 2, "topK": 5,
                    "thinkingConfig": {"thinkingLevel": "LOW"}, "responseMimeType": "application/json",
                    "responseJsonSchema": {"type": "integer"}}})
        );
        assert_eq!(Gemini.path("models/gemini-x"), "models/gemini-x:generateContent");
    }

    #[test]
    fn messages_media_and_tools_are_written() {
        let image = Media::from_bytes(MediaKind::Image, "image/png", b"abc");
        let file = Media::from_url(MediaKind::File, "application/pdf", "https://x/y.pdf");
        let call = ToolCall::new("c".to_owned(), "f".to_owned(), "{\"x\":1}".to_owned());
        let say = |role, parts| Message { role, parts, ..Message::default() };
        let prompt = Prompt::from(vec![
            say(Role::User, vec![PromptPart::Media(Arc::new(image)), PromptPart::Media(Arc::new(file))]),
            Message { tool_calls: vec![call], ..say(Role::Assistant, vec![]) },
            Message {
                tool_call_id: Some("c".to_owned()),
                ..say(Role::Tool, vec![PromptPart::Text("7".to_owned().into())])
            },
        ]);
        let written = testing::request(&Gemini, &testing::options(json!({"model": "m"})), &Ask::new(prompt)).unwrap();
        assert_eq!(
            written["contents"],
            json!([{"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "YWJj"}},
                    {"fileData": {"mimeType": "application/pdf", "fileUri": "https://x/y.pdf"}}]},
                {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"x": 1}},
                    "thoughtSignature": "skip_thought_signature_validator"}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"result": "7"}}}]}])
        );
    }

    #[test]
    fn thoughts_count_as_output() {
        let answer = read(json!({"modelVersion": "m-1", "responseId": "r", "candidates": [{"finishReason": "STOP",
            "content": {"role": "model", "parts": [{"text": "hm", "thought": true}, {"text": "Hel"}, {"text": "lo"},
                {"functionCall": {"name": "f", "args": {"x": 1}}}]},
            "safetyRatings": [{"category": "HARM_CATEGORY_X", "probability": "LOW"}]}],
            "usageMetadata": {"promptTokenCount": 10, "cachedContentTokenCount": 4, "candidatesTokenCount": 2,
                "thoughtsTokenCount": 5, "totalTokenCount": 17}}))
        .unwrap();
        let usage = TokenUsage {
            input: 10,
            output: 7,
            total: 17,
            cache_read: 4,
            cache_write: 0,
            cache_write_hour: 0,
            cache_held: 0,
            reasoning: 5,
        };
        assert_eq!(answer.usage, usage);
        let choice = &answer.choices[0];
        assert_eq!((choice.text.as_str(), choice.reasoning.as_deref()), ("Hello", Some("hm")));
        assert_eq!((choice.finish, choice.tool_calls[0].name.as_str()), (Finish::ToolCalls, "f"));
        let ratings = Extra::Json(JsonText("{\"HARM_CATEGORY_X\":\"LOW\"}".into()));
        assert_eq!(answer.extras, [("response_id", Extra::Text("r".to_owned())), ("safety_ratings", ratings)]);
    }

    #[test]
    fn ends_and_errors_are_told_apart() {
        let finish = |reason: &str| read(json!({"candidates": [{"finishReason": reason}]})).unwrap().choices[0].finish;
        assert_eq!(finish("SAFETY"), Finish::ContentFilter);
        assert_eq!(finish("MAX_TOKENS"), Finish::Length);
        assert_eq!(finish("MALFORMED_FUNCTION_CALL"), Finish::Malformed);
        let blocked = read(json!({"promptFeedback": {"blockReason": "SAFETY"}})).unwrap();
        assert_eq!(blocked.choices[0].finish, Finish::ContentFilter);
        assert!(read(json!({})).unwrap_err().to_string().contains("no candidates"));
    }
}
