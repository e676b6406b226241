//! How a conversation is written for Gemini.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::value::RawValue;

use super::names::{MADE_UP, NAME, PROTOCOL};
use super::reply::{List, Piece};
use crate::providers::prompt::{Content as PromptContent, Part as PromptPart, Role, Turn};
use crate::providers::reply::{ToolCall, arguments};
use crate::providers::shared::{SharedText, Text};
use crate::providers::shown::Quoted;
use crate::providers::state::{Kind, Written, replay, turn_of};

/// A signature that the servers take for calls that they have not made themselves (Google's guide to thought
/// signatures, 2026): calls of another model, or written by hand.
const UNSIGNED: &str = "skip_thought_signature_validator";

/// What was said in one turn.
#[derive(Serialize)]
pub struct Content<'a> {
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
        part: PlainPart<'a>,
        #[serde(rename = "thoughtSignature", skip_serializing_if = "Option::is_none")]
        signature: Option<&'static str>,
    },
    Raw(Box<RawValue>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum PlainPart<'a> {
    Text(&'a Text),
    InlineData(Blob<'a>),
    FileData(FileData<'a>),
    FunctionCall(FunctionCall<'a>),
    FunctionResponse(FunctionResponse<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob<'a> {
    mime_type: &'a str,
    data: &'a SharedText,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileData<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    mime_type: &'a str,
    file_uri: &'a SharedText,
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

impl<'a> From<PlainPart<'a>> for Part<'a> {
    fn from(part: PlainPart<'a>) -> Self {
        Self::Known { part, signature: None }
    }
}

/// A conversation, as the server takes it.
///
/// # Errors
/// Names what this dialect cannot express.
pub fn contents<'a>(turns: &'a [Turn<'a>], model: &str) -> Result<Vec<Content<'a>>, String> {
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
                let parts = parts_of(turn, model)?;
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
    Ok(PlainPart::FunctionResponse(FunctionResponse { id, name, response }).into())
}

/// What is said in a turn of the user or the model, calls included.
fn parts_of<'a>(turn: &'a Turn<'a>, model: &str) -> Result<Vec<Part<'a>>, String> {
    if let Some(name) = turn.name {
        return Err(format!("{NAME} does not support the field \"name\" of a message ({name:?}): leave it out"));
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
            Written::Raw(raw) | Written::Late(raw) => {
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

fn call<'a>(call: &'a ToolCall, signature: Option<&'static str>) -> Result<Part<'a>, String> {
    let args = serde_json::from_str(call.object())
        .map_err(|error| format!("the arguments of tool call {} are not JSON: {error}", Quoted(&call.name)))?;
    Ok(Part::Known { part: PlainPart::FunctionCall(FunctionCall { name: &call.name, args }), signature })
}

fn words_and_media<'a>(turn: &'a Turn<'a>) -> Result<Vec<Part<'a>>, String> {
    let is_model = turn.role == Role::Assistant;
    match &turn.content {
        PromptContent::Text(text) if text.is_empty() && is_model => Ok(Vec::new()),
        PromptContent::Text(text) => Ok(vec![PlainPart::Text(text).into()]),
        PromptContent::Parts(parts) => {
            let more_than_one = parts.len() > 1 || is_model;
            parts
                .iter()
                .filter(|part| !(more_than_one && part.text().is_some_and(str::is_empty)))
                .map(|one| part(one).map(Part::from))
                .collect()
        }
    }
}

fn part(part: &PromptPart) -> Result<PlainPart<'_>, String> {
    match part {
        PromptPart::Text(text) => Ok(PlainPart::Text(text)),
        PromptPart::With(inner) => {
            inner.1.only(&[], "part", NAME)?;
            self::part(&inner.0)
        }
        PromptPart::Media(media) => {
            if let Some(detail) = media.detail.as_deref().filter(|detail| *detail != "auto") {
                return Err(format!(
                    "{NAME} does not support detail={detail:?} of an image: use extra_body={{\"generationConfig\": \
                     {{\"mediaResolution\": ...}}}}"
                ));
            }
            Ok(match media.base64() {
                Some(data) => PlainPart::InlineData(Blob { mime_type: &media.media_type, data }),
                None => PlainPart::FileData(FileData { mime_type: &media.media_type, file_uri: media.url() }),
            })
        }
    }
}
