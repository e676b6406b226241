//! How an answer of Gemini is read.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::names::MADE_UP;
use crate::providers::lenient;
use crate::providers::reply::{Choice, Finish, TokenUsage, ToolCall, arguments};

/// A whole reply.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    #[serde(default, deserialize_with = "lenient::list")]
    pub candidates: Vec<Candidate>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub prompt_feedback: Option<Feedback>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub usage_metadata: Option<Counts>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub model_version: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub response_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::error")]
    pub error: Option<Value>,
}

/// What was said of the prompt.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Feedback {
    #[serde(default, deserialize_with = "lenient::text")]
    pub block_reason: Option<String>,
}

/// One sample.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Its place among the samples.
    #[serde(default, deserialize_with = "lenient::count")]
    pub index: Option<u64>,
    #[serde(default, deserialize_with = "lenient::object")]
    content: Option<Spoken>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub finish_reason: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub finish_message: Option<String>,
    #[serde(default, deserialize_with = "lenient::list")]
    pub safety_ratings: Vec<Rating>,
    #[serde(default)]
    pub grounding_metadata: Option<Box<RawValue>>,
    #[serde(default)]
    pub logprobs_result: Option<Box<RawValue>>,
}

/// What a filter thinks of an answer.
#[derive(Deserialize)]
pub struct Rating {
    #[serde(default, deserialize_with = "lenient::text")]
    pub category: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub probability: Option<String>,
}

#[derive(Deserialize)]
struct Spoken {
    #[serde(default)]
    parts: Option<Box<RawValue>>,
}

/// A part of an answer, with the fields of all kinds that are looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Piece {
    #[serde(default, deserialize_with = "lenient::text")]
    pub text: Option<String>,
    #[serde(default, deserialize_with = "lenient::flag")]
    pub thought: bool,
    #[serde(default, deserialize_with = "lenient::object")]
    pub function_call: Option<Called>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub thought_signature: Option<String>,
}

/// A call.
#[derive(Deserialize)]
pub struct Called {
    #[serde(default, deserialize_with = "lenient::code")]
    pub id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    #[serde(default)]
    pub args: Option<Box<RawValue>>,
}

/// The parts of an answer.
#[derive(Deserialize)]
pub struct List(#[serde(deserialize_with = "lenient::list")] pub Vec<Piece>);

/// The list of parts; what is no list counts as an empty one.
fn pieces(parts: &RawValue) -> Vec<Piece> {
    serde_json::from_str::<List>(parts.get()).map(|List(pieces)| pieces).unwrap_or_default()
}

impl Candidate {
    /// The parts, as they were written.
    pub fn parts(self) -> Option<Box<RawValue>> {
        self.content?.parts
    }
}

impl From<Candidate> for Choice {
    fn from(mut candidate: Candidate) -> Self {
        let mut choice = Self { logprobs: candidate.logprobs_result.take().map(Into::into), ..Self::default() };
        let parts = candidate.content.take().and_then(|content| content.parts);
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

/// Token counts.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    #[serde(default, deserialize_with = "lenient::count")]
    pub prompt_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    pub cached_content_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    pub candidates_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    pub thoughts_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    pub tool_use_prompt_token_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    pub total_token_count: Option<u64>,
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
            cache_write_hour: 0,
            cache_held: 0,
            reasoning,
        }
    }
}
