//! Google's Gemini API, `POST {base_url}/models/{model}:generateContent`.
//!
//! Fields as in Google's API reference (2026): `promptTokenCount` includes the cached tokens, `thoughtsTokenCount` is
//! *not* in `candidatesTokenCount`. There are no limit headers; errors carry `RetryInfo`.

use std::borrow::Cow;
use std::collections::HashSet;

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::dialect::{Answer, Body, Dialect, error_of};
use super::json::{bad, parse};
use super::options::fields;
use super::prompt::{Ask, Content as Said, Part as Asked, Role, Turn};
use super::reply::{Choice, Extra, Finish, JsonText, TokenUsage, ToolCall, extras};
use super::state::{Kind, Written, replay, turn_of};
use super::{Options, ProviderError, lenient, schema_dialects, status};

const PROTOCOL: &str = "generateContent";
const NAME: &str = "the Gemini API";
/// How ids of calls begin to which the server has given none.
const MADE_UP: &str = "call_";
/// A signature that the servers take for calls that they have not made themselves (Google's guide to thought
/// signatures, 2026): calls of another model, or written by hand.
const UNSIGNED: &str = "skip_thought_signature_validator";

/// The dialect.
pub struct Gemini;

impl Dialect for Gemini {
    fn protocol(&self) -> &'static str {
        PROTOCOL
    }

    fn path(&self, model: &str) -> String {
        // `tunedModels/x` and the like name their place themselves.
        let place = if model.contains('/') { "" } else { "models/" };
        format!("{place}{model}:generateContent")
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

    fn conversation(&self, options: &Options, ask: &Ask, body: &mut Body) -> Result<(), String> {
        let turns = ask.turns();
        let given = turns.iter().filter(|turn| turn.role == Role::System);
        let given: Vec<Cow<'_, str>> = given.map(|turn| turn.only_words(NAME)).collect::<Result<_, _>>()?;
        let system: Vec<Cow<'_, str>> =
            options.system_prompt.iter().map(|text| Cow::Borrowed(text.as_str())).chain(given).collect();
        if !system.is_empty() && !options.extra_body.contains_key("systemInstruction") {
            body.field("systemInstruction", &json!({"parts": [{"text": system.join("\n\n")}]}))?;
        }
        body.field("contents", &contents(&turns, &options.model)?)
    }

    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError> {
        let reply: Reply = parse(PROTOCOL, body)?;
        error_of(reply.error, body, headers)?;
        let blocked =
            reply.prompt_feedback.and_then(|feedback| feedback.block_reason).filter(|reason| !reason.is_empty());
        let mut told = extras([("response_id", reply.response_id.map(Into::into))]);
        let choices: Vec<Choice> = match (reply.candidates.is_empty(), blocked) {
            // The prompt itself was refused: there is no candidate at all.
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
}

#[derive(Serialize)]
struct Content<'a> {
    role: &'static str,
    parts: Vec<Part<'a>>,
    #[serde(skip)]
    holds_results: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Part<'a> {
    Known {
        #[serde(flatten)]
        part: KnownPart<'a>,
        #[serde(rename = "thoughtSignature", skip_serializing_if = "Option::is_none")]
        signature: Option<&'static str>,
    },
    Raw(Box<RawValue>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum KnownPart<'a> {
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
    #[serde(skip_serializing_if = "str::is_empty")]
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
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    name: &'a str,
    response: FunctionResult,
}

#[derive(Serialize)]
#[serde(untagged)]
enum FunctionResult {
    /// An object, as the tool wrote it.
    Object(Box<RawValue>),
    /// Anything else, as an object.
    Other { result: String },
}

impl FunctionResult {
    fn new(words: &str) -> Self {
        let object = words.trim_start().starts_with('{').then(|| serde_json::from_str(words).ok()).flatten();
        object.map_or_else(|| Self::Other { result: words.to_owned() }, Self::Object)
    }
}

impl<'a> From<KnownPart<'a>> for Part<'a> {
    fn from(part: KnownPart<'a>) -> Self {
        Self::Known { part, signature: None }
    }
}

fn contents<'a>(turns: &'a [Turn<'a>], model: &str) -> Result<Vec<Content<'a>>, String> {
    let mut contents: Vec<Content<'a>> = Vec::with_capacity(turns.len());
    let mut calling = Vec::new();
    for turn in in_order(turns) {
        if !turn.tool_calls.is_empty() {
            calling.push(Calling::new(turn, model));
        }
        turn.more.only(&[], "message", NAME)?;
        match (turn.role, contents.last_mut()) {
            // Results of calls that were made together are one content.
            (Role::Tool, Some(Content { holds_results: true, parts, .. })) => parts.push(result(turn, &calling)?),
            (Role::Tool, _) => {
                let parts = vec![result(turn, &calling)?];
                contents.push(Content { role: "user", parts, holds_results: true });
            }
            _ => {
                let parts = said(turn, model)?;
                // Nothing was said in an empty turn of the model; the server takes none without parts.
                if !parts.is_empty() {
                    let role = if turn.role == Role::Assistant { "model" } else { "user" };
                    contents.push(Content { role, parts, holds_results: false });
                }
            }
        }
    }
    Ok(contents)
}

/// The turns, the results of calls in the order of the calls: a server that gives no ids goes by it.
fn in_order<'a>(turns: &'a [Turn<'a>]) -> Vec<&'a Turn<'a>> {
    let mut ordered: Vec<&Turn<'a>> = turns.iter().filter(|turn| turn.role != Role::System).collect();
    let mut calls: &[ToolCall] = &[];
    for run in ordered.chunk_by_mut(|one, other| (one.role == Role::Tool) == (other.role == Role::Tool)) {
        match run.last() {
            Some(last) if last.role != Role::Tool => calls = last.tool_calls,
            _ => run.sort_by_cached_key(|turn| {
                let place = calls.iter().position(|call| Some(call.id.as_str()) == turn.tool_call_id);
                place.unwrap_or(usize::MAX)
            }),
        }
    }
    ordered
}

/// A turn that called tools, and the ids that the server has given to its calls.
struct Calling<'a> {
    calls: &'a [ToolCall],
    given: HashSet<String>,
}

impl<'a> Calling<'a> {
    fn new(turn: &'a Turn<'a>, model: &str) -> Self {
        let pieces = turn_of::<List>(turn, PROTOCOL, model).map(|List(pieces)| pieces).unwrap_or_default();
        let given = pieces.into_iter().filter_map(|piece| piece.function_call?.id).collect();
        Self { calls: turn.tool_calls, given }
    }
}

/// The result of a call. The server goes by the function's name, and by the call's id where it has given one.
fn result<'a>(turn: &'a Turn<'a>, before: &[Calling<'a>]) -> Result<Part<'a>, String> {
    let id = turn.tool_call_id.unwrap_or_default();
    // Ids that the server has not given repeat: the newest call is meant.
    let called = before.iter().rev().find_map(|turn| Some((turn, turn.calls.iter().find(|call| call.id == id)?)));
    let name = called.map(|(_, call)| call.name.as_str()).or(turn.name).unwrap_or(id);
    let id = called.is_some_and(|(turn, _)| turn.given.contains(id)).then_some(id);
    let response = FunctionResult::new(&turn.only_words(NAME)?);
    Ok(KnownPart::FunctionResponse(FunctionResponse { id, name, response }).into())
}

/// What is said in a turn of the user or the model, calls included.
fn said<'a>(turn: &'a Turn<'a>, model: &str) -> Result<Vec<Part<'a>>, String> {
    if let Some(name) = turn.name {
        return Err(format!("{NAME} has no name of a speaker ({name:?}): leave it out"));
    }
    // Models before the third take calls without a signature.
    let signs = !["gemini-1", "gemini-2"].iter().any(|old| model.trim_start_matches("models/").starts_with(old));
    let mut first_call = true;
    let mut unsigned = || (std::mem::take(&mut first_call) && signs).then_some(UNSIGNED);
    let Some(kept) = turn_of::<Vec<Box<RawValue>>>(turn, PROTOCOL, model) else {
        let mut written = words_and_media(turn)?;
        for one in turn.tool_calls {
            written.push(call(one, unsigned())?);
        }
        return Ok(written);
    };
    let mut written = Vec::with_capacity(kept.len());
    for one in replay(kept, turn, kind) {
        match one {
            Written::Raw(raw) => {
                if matches!(kind(&raw, 0), Kind::Call(..)) {
                    unsigned();
                }
                written.push(Part::Raw(raw));
            }
            Written::Content => written.extend(words_and_media(turn)?),
            Written::Call(one) => written.push(call(one, unsigned())?),
        }
    }
    Ok(written)
}

fn kind(raw: &RawValue, calls: usize) -> Kind {
    let Ok(part) = serde_json::from_str::<Piece>(raw.get()) else { return Kind::Opaque };
    match (part.function_call, part.text) {
        (Some(call), _) => {
            let id = call.id.unwrap_or_else(|| format!("{MADE_UP}{calls}"));
            Kind::Call(id, arguments(call.args))
        }
        (None, Some(text)) if !part.thought && !text.is_empty() => Kind::Text(text),
        _ => Kind::Opaque,
    }
}

fn arguments(args: Option<Box<RawValue>>) -> String {
    args.map_or_else(|| "{}".to_owned(), |raw| raw.get().to_owned())
}

fn call<'a>(call: &'a ToolCall, signature: Option<&'static str>) -> Result<Part<'a>, String> {
    let args = serde_json::from_str(call.object())
        .map_err(|error| format!("the arguments of tool call {:?} are not JSON: {error}", call.name))?;
    Ok(Part::Known { part: KnownPart::FunctionCall(FunctionCall { name: &call.name, args }), signature })
}

fn words_and_media<'a>(turn: &'a Turn<'a>) -> Result<Vec<Part<'a>>, String> {
    let is_model = turn.role == Role::Assistant;
    match &turn.content {
        Said::Text(text) if text.is_empty() && is_model => Ok(Vec::new()),
        Said::Text(text) => Ok(vec![KnownPart::Text(text).into()]),
        Said::Parts(parts) => {
            let more_than_one = parts.len() > 1 || is_model;
            parts
                .iter()
                .filter(|part| !(more_than_one && part.text().is_some_and(str::is_empty)))
                .map(|one| part(one).map(Part::from))
                .collect()
        }
    }
}

fn part(part: &Asked) -> Result<KnownPart<'_>, String> {
    match part {
        Asked::Text(text) => Ok(KnownPart::Text(text)),
        Asked::With(inner) => {
            inner.1.only(&[], "part", NAME)?;
            self::part(&inner.0)
        }
        Asked::Media(media) => {
            if let Some(detail) = media.detail.as_deref().filter(|detail| *detail != "auto") {
                return Err(format!(
                    "{NAME} has no detail of a picture ({detail:?}): use extra_body={{\"generationConfig\": \
                     {{\"mediaResolution\": ...}}}}"
                ));
            }
            Ok(match media.base64() {
                Some(data) => KnownPart::InlineData(Blob { mime_type: &media.media_type, data }),
                None => KnownPart::FileData(FileData { mime_type: &media.media_type, file_uri: media.url() }),
            })
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    #[serde(default, deserialize_with = "lenient::list")]
    candidates: Vec<Candidate>,
    #[serde(default, deserialize_with = "lenient::object")]
    prompt_feedback: Option<Feedback>,
    #[serde(default, deserialize_with = "lenient::object")]
    usage_metadata: Option<Counts>,
    #[serde(default, deserialize_with = "lenient::text")]
    model_version: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    response_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::error")]
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    #[serde(default, deserialize_with = "lenient::text")]
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    #[serde(default, deserialize_with = "lenient::object")]
    content: Option<Spoken>,
    #[serde(default, deserialize_with = "lenient::text")]
    finish_reason: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    finish_message: Option<String>,
    #[serde(default, deserialize_with = "lenient::list")]
    safety_ratings: Vec<Rating>,
    #[serde(default)]
    grounding_metadata: Option<Box<RawValue>>,
    #[serde(default)]
    logprobs_result: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Rating {
    #[serde(default, deserialize_with = "lenient::text")]
    category: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    probability: Option<String>,
}

#[derive(Deserialize)]
struct Spoken {
    #[serde(default)]
    parts: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Piece {
    #[serde(default, deserialize_with = "lenient::text")]
    text: Option<String>,
    #[serde(default, deserialize_with = "lenient::flag")]
    thought: bool,
    #[serde(default, deserialize_with = "lenient::object")]
    function_call: Option<Called>,
    #[serde(default, deserialize_with = "lenient::text")]
    thought_signature: Option<String>,
}

#[derive(Deserialize)]
struct Called {
    #[serde(default, deserialize_with = "lenient::code")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(default)]
    args: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct List(#[serde(deserialize_with = "lenient::list")] Vec<Piece>);

/// The list of parts; what is no list counts as an empty one.
fn pieces(parts: &RawValue) -> Vec<Piece> {
    serde_json::from_str::<List>(parts.get()).map(|List(pieces)| pieces).unwrap_or_default()
}

impl From<Candidate> for Choice {
    fn from(candidate: Candidate) -> Self {
        let mut choice = Self { logprobs: candidate.logprobs_result.map(Into::into), ..Self::default() };
        let parts = candidate.content.and_then(|content| content.parts);
        let mut has_state = false;
        for piece in parts.as_deref().map(pieces).unwrap_or_default() {
            has_state |=
                piece.thought_signature.is_some() || piece.function_call.as_ref().is_some_and(|call| call.id.is_some());
            match (piece.function_call, piece.text) {
                (Some(call), _) => {
                    let id = call.id.unwrap_or_else(|| format!("{MADE_UP}{}", choice.tool_calls.len()));
                    choice.tool_calls.push(ToolCall::new(id, call.name.unwrap_or_default(), arguments(call.args)));
                }
                (None, Some(text)) if piece.thought => choice.reasoning.get_or_insert_default().push_str(&text),
                (None, Some(text)) => choice.text.push_str(&text),
                (None, None) => {}
            }
        }
        if has_state && !choice.tool_calls.is_empty() {
            choice.turn = parts.map(Into::into);
        }
        choice.finish = match candidate.finish_reason.as_deref().map(str::to_ascii_uppercase).as_deref() {
            Some("STOP" | "FINISH_REASON_UNSPECIFIED") | None if !choice.tool_calls.is_empty() => Finish::ToolCalls,
            Some("STOP" | "FINISH_REASON_UNSPECIFIED") | None => Finish::Stop,
            Some("MAX_TOKENS") => Finish::Length,
            Some(
                "SAFETY"
                | "RECITATION"
                | "BLOCKLIST"
                | "PROHIBITED_CONTENT"
                | "SPII"
                | "MODEL_ARMOR"
                | "IMAGE_SAFETY"
                | "IMAGE_PROHIBITED_CONTENT"
                | "IMAGE_RECITATION",
            ) => Finish::ContentFilter,
            Some("MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "TOO_MANY_TOOL_CALLS" | "MALFORMED_RESPONSE") => {
                choice.refusal = candidate.finish_message;
                Finish::Malformed
            }
            Some("ERROR" | "CANCELLED" | "ABORTED") => Finish::Interrupted { overloaded: false },
            Some(_) => Finish::Other,
        };
        // An answer that stops before its first word comes by chance: the same question again is answered.
        choice.retry_empty = matches!(choice.finish, Finish::Stop | Finish::Other);
        choice.native_finish = candidate.finish_reason.filter(|word| word != "STOP");
        choice
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Counts {
    #[serde(default, deserialize_with = "lenient::count")]
    prompt_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    cached_content_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    candidates_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    thoughts_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    tool_use_prompt_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    total_token_count: Option<u64>,
}

impl From<Counts> for TokenUsage {
    fn from(counts: Counts) -> Self {
        let reasoning = counts.thoughts_token_count.unwrap_or(0);
        let tools = counts.tool_use_prompt_token_count.unwrap_or(0);
        let input = counts.prompt_token_count.unwrap_or(0).saturating_add(tools);
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
        let call = ToolCall::new("c".to_owned(), "f".to_owned(), "{\"x\":1}".to_owned());
        let say = |role, parts| Message { role, parts, ..Message::default() };
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
        let usage = TokenUsage { input: 10, output: 7, total: 17, cache_read: 4, cache_write: 0, reasoning: 5 };
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
