//! Google's Gemini API, `POST {base_url}/models/{model}:generateContent`.
//!
//! Fields as in Google's API reference (2026): `promptTokenCount` includes the cached tokens, `thoughtsTokenCount` is
//! *not* in `candidatesTokenCount`. There are no limit headers; errors carry `RetryInfo`.

use std::borrow::Cow;

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::dialect::{Answer, Body, Dialect, bad, error_inside, parse};
use super::options::fields;
use super::prompt::{Ask, Content as Said, Part as Asked, Role, Turn};
use super::reply::{Choice, Finish, TokenUsage, ToolCall};
use super::{Options, ProviderError};

const PROTOCOL: &str = "generateContent";

/// The dialect.
pub struct Gemini;

impl Dialect for Gemini {
    fn protocol(&self) -> &'static str {
        PROTOCOL
    }

    fn path(&self, model: &str) -> String {
        format!("models/{}:generateContent", model.strip_prefix("models/").unwrap_or(model))
    }

    fn fields(&self, options: &Options) -> Result<Map<String, Value>, String> {
        let declarations: Vec<Value> = options
            .tools
            .iter()
            .map(|tool| {
                json!({"name": tool.name, "description": tool.description, "parametersJsonSchema": tool.parameters})
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
            ("responseJsonSchema", options.schema.as_ref().map(|wanted| wanted.schema.clone())),
        ]);
        Ok(options.with_extra(fields([
            ("generationConfig", (!generation.is_empty()).then_some(Value::Object(generation))),
            ("tools", (!declarations.is_empty()).then(|| json!([{"functionDeclarations": declarations}]))),
            ("toolConfig", mode.map(|mode| json!({"functionCallingConfig": mode}))),
        ])))
    }

    fn conversation(&self, options: &Options, ask: &Ask, body: &mut Body) -> Result<(), String> {
        let turns = ask.turns();
        let given = turns.iter().filter(|turn| turn.role == Role::System).map(Turn::words);
        let system: Vec<Cow<'_, str>> =
            options.system_prompt.iter().map(|text| Cow::Borrowed(text.as_str())).chain(given).collect();
        if !system.is_empty() && !options.extra_body.contains_key("systemInstruction") {
            body.field("systemInstruction", &json!({"parts": [{"text": system.join("\n\n")}]}))?;
        }
        let contents: Vec<Content<'_>> = turns
            .iter()
            .filter(|turn| turn.role != Role::System)
            .map(|turn| content(turn, &turns))
            .collect::<Result<_, _>>()?;
        body.field("contents", &contents)
    }

    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError> {
        let reply: Reply = parse(PROTOCOL, body)?;
        error_inside(reply.error, headers)?;
        let blocked = reply.prompt_feedback.and_then(|feedback| feedback.block_reason);
        let mut extras = Map::new();
        let choices: Vec<Choice> = match (reply.candidates.is_empty(), blocked) {
            // The prompt itself was refused: there is no candidate at all.
            (true, Some(reason)) => {
                vec![Choice { finish: Finish::ContentFilter, refusal: Some(reason), ..Choice::default() }]
            }
            (true, None) => return Err(bad(PROTOCOL, body, "it has no candidates")),
            (false, _) => {
                let first = &reply.candidates[0];
                if let Some(ratings) = &first.safety_ratings {
                    let pairs = ratings.iter().filter_map(|rating| {
                        Some((rating.get("category")?.as_str()?.to_owned(), rating.get("probability")?.clone()))
                    });
                    extras.insert("safety_ratings".to_owned(), Value::Object(pairs.collect()));
                }
                if let Some(grounding) = &first.grounding_metadata {
                    extras.insert("grounding".to_owned(), grounding.clone());
                }
                reply.candidates.into_iter().map(Choice::from).collect()
            }
        };
        extras.extend(fields([("response_id", reply.response_id.map(Value::String))]));
        Ok(Answer {
            choices,
            usage: reply.usage_metadata.unwrap_or_default().into(),
            model: reply.model_version,
            extras,
        })
    }
}

#[derive(Serialize)]
struct Content<'a> {
    role: &'static str,
    parts: Vec<Part<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Part<'a> {
    Text(&'a str),
    InlineData(Blob<'a>),
    FileData(FileData<'a>),
    FunctionCall(FunctionCall<'a>),
    FunctionResponse(FunctionResponse<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob<'a> {
    mime_type: &'a str,
    data: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileData<'a> {
    mime_type: &'a str,
    file_uri: &'a str,
}

#[derive(Serialize)]
struct FunctionCall<'a> {
    name: &'a str,
    args: &'a RawValue,
}

#[derive(Serialize)]
struct FunctionResponse<'a> {
    name: &'a str,
    response: Value,
}

fn content<'a>(turn: &'a Turn<'a>, turns: &'a [Turn<'a>]) -> Result<Content<'a>, String> {
    if turn.role == Role::Tool {
        // Gemini goes by the function's name, not by the call's id.
        let id = turn.tool_call_id.unwrap_or_default();
        let calls = turns.iter().flat_map(|turn| turn.tool_calls);
        let name = calls.into_iter().find(|call| call.id == id).map_or(id, |call| call.name.as_str());
        let response = json!({"result": turn.words()});
        let parts = vec![Part::FunctionResponse(FunctionResponse { name, response })];
        return Ok(Content { role: "user", parts });
    }
    let role = if turn.role == Role::Assistant { "model" } else { "user" };
    let mut parts: Vec<Part<'_>> = match &turn.content {
        Said::Text(text) => vec![Part::Text(text)],
        Said::Parts(parts) => parts.iter().map(part).collect(),
    };
    for call in turn.tool_calls {
        let args = serde_json::from_str(&call.arguments)
            .map_err(|error| format!("the arguments of tool call {:?} are not JSON: {error}", call.name))?;
        parts.push(Part::FunctionCall(FunctionCall { name: &call.name, args }));
    }
    Ok(Content { role, parts })
}

fn part(part: &Asked) -> Part<'_> {
    match part {
        Asked::Text(text) => Part::Text(text),
        Asked::Media(media) => match media.base64() {
            Some(data) => Part::InlineData(Blob { mime_type: &media.media_type, data }),
            None => Part::FileData(FileData { mime_type: &media.media_type, file_uri: media.url() }),
        },
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    #[serde(default)]
    candidates: Vec<Candidate>,
    prompt_feedback: Option<Feedback>,
    usage_metadata: Option<Counts>,
    model_version: Option<String>,
    response_id: Option<String>,
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<CandidateContent>,
    finish_reason: Option<String>,
    safety_ratings: Option<Vec<Value>>,
    grounding_metadata: Option<Value>,
    logprobs_result: Option<Value>,
}

#[derive(Deserialize)]
struct CandidateContent {
    #[serde(default)]
    parts: Vec<CandidatePart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CandidatePart {
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    function_call: Option<Called>,
}

#[derive(Deserialize)]
struct Called {
    id: Option<String>,
    name: String,
    #[serde(default)]
    args: Value,
}

impl From<Candidate> for Choice {
    fn from(candidate: Candidate) -> Self {
        let mut choice = Self { logprobs: candidate.logprobs_result, ..Self::default() };
        for part in candidate.content.map(|content| content.parts).unwrap_or_default() {
            match (part.text, part.thought) {
                (Some(text), true) => choice.reasoning.get_or_insert_default().push_str(&text),
                (Some(text), false) => choice.text.push_str(&text),
                (None, _) => {}
            }
            if let Some(call) = part.function_call {
                let id = call.id.unwrap_or_else(|| format!("call_{}", choice.tool_calls.len()));
                let arguments = if call.args.is_null() { "{}".to_owned() } else { call.args.to_string() };
                choice.tool_calls.push(ToolCall { id, name: call.name, arguments });
            }
        }
        choice.finish = match candidate.finish_reason.as_deref() {
            Some("STOP") | None if !choice.tool_calls.is_empty() => Finish::ToolCalls,
            Some("STOP") | None => Finish::Stop,
            Some("MAX_TOKENS") => Finish::Length,
            Some(
                "SAFETY"
                | "RECITATION"
                | "BLOCKLIST"
                | "PROHIBITED_CONTENT"
                | "SPII"
                | "IMAGE_SAFETY"
                | "IMAGE_PROHIBITED_CONTENT"
                | "IMAGE_RECITATION",
            ) => Finish::ContentFilter,
            Some(_) => Finish::Other,
        };
        choice
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Counts {
    prompt_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
    total_token_count: Option<u64>,
}

impl From<Counts> for TokenUsage {
    fn from(counts: Counts) -> Self {
        let reasoning = counts.thoughts_token_count.unwrap_or(0);
        let input = counts.prompt_token_count.unwrap_or(0) + counts.tool_use_prompt_token_count.unwrap_or(0);
        let output = counts.candidates_token_count.unwrap_or(0).saturating_add(reasoning);
        Self {
            input,
            output,
            total: counts.total_token_count.unwrap_or(input.saturating_add(output)),
            cache_read: counts.cached_content_token_count.unwrap_or(0),
            cache_write: 0,
            reasoning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::prompt::{Media, MediaKind, Message, Prompt};
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
        let written = testing::request(&Gemini, &options, &Ask::new(Prompt::Text("Hi".to_owned()))).unwrap();
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
        let file = Media::from_url(MediaKind::File, "application/pdf", "https://x/y.pdf".to_owned());
        let call = ToolCall { id: "c".to_owned(), name: "f".to_owned(), arguments: "{\"x\":1}".to_owned() };
        let say = |role, parts| Message { role, parts, tool_calls: vec![], tool_call_id: None };
        let prompt = Prompt::Messages(vec![
            say(Role::User, vec![Asked::Media(Arc::new(image)), Asked::Media(Arc::new(file))]),
            Message { tool_calls: vec![call], ..say(Role::Assistant, vec![]) },
            Message { tool_call_id: Some("c".to_owned()), ..say(Role::Tool, vec![Asked::Text("7".to_owned())]) },
        ]);
        let written = testing::request(&Gemini, &testing::options(json!({"model": "m"})), &Ask::new(prompt)).unwrap();
        assert_eq!(
            written["contents"],
            json!([{"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "YWJj"}},
                    {"fileData": {"mimeType": "application/pdf", "fileUri": "https://x/y.pdf"}}]},
                {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"x": 1}}}]},
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
        let usage = TokenUsage { input: 10, output: 7, total: 17, cache_read: 4, cache_write: 0, reasoning: 5 };
        assert_eq!(answer.usage, usage);
        let choice = &answer.choices[0];
        assert_eq!((choice.text.as_str(), choice.reasoning.as_deref()), ("Hello", Some("hm")));
        assert_eq!((choice.finish, choice.tool_calls[0].name.as_str()), (Finish::ToolCalls, "f"));
        assert_eq!(answer.extras["safety_ratings"], json!({"HARM_CATEGORY_X": "LOW"}));
    }

    #[test]
    fn ends_and_errors_are_told_apart() {
        let finish = |reason: &str| read(json!({"candidates": [{"finishReason": reason}]})).unwrap().choices[0].finish;
        assert_eq!(finish("SAFETY"), Finish::ContentFilter);
        assert_eq!(finish("MAX_TOKENS"), Finish::Length);
        assert_eq!(finish("MALFORMED_FUNCTION_CALL"), Finish::Other);
        let blocked = read(json!({"promptFeedback": {"blockReason": "SAFETY"}})).unwrap();
        assert_eq!(blocked.choices[0].finish, Finish::ContentFilter);
        assert!(read(json!({})).unwrap_err().to_string().contains("no candidates"));
    }
}
