//! Replies of the Responses API, as far as they are looked at. For its dialect alone.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::providers::lenient;
use crate::providers::openai::{AnswerDetails, PromptDetails};
use crate::providers::reply::TokenUsage;

#[derive(Deserialize)]
pub struct Response {
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub status: Option<String>,
    #[serde(default, deserialize_with = "lenient::error")]
    pub error: Option<Value>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub incomplete_details: Option<Incomplete>,
    #[serde(default, deserialize_with = "lenient::list")]
    pub output: Vec<OutputItem>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub usage: Option<Counts>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub model: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub service_tier: Option<String>,
}

#[derive(Deserialize)]
pub struct Incomplete {
    #[serde(default, deserialize_with = "lenient::text")]
    pub reason: Option<String>,
}

/// An item of the output, with the fields of all kinds that are looked at.
#[derive(Deserialize)]
pub struct OutputItem {
    #[serde(rename = "type", default, deserialize_with = "lenient::text")]
    pub kind: Option<String>,
    #[serde(default, deserialize_with = "lenient::code")]
    pub id: Option<String>,
    /// Whether a message is what the model says on its way, or its answer.
    #[serde(default, deserialize_with = "lenient::text")]
    pub phase: Option<String>,
    #[serde(default, deserialize_with = "lenient::list")]
    pub content: Vec<OutputPart>,
    #[serde(default, deserialize_with = "lenient::list")]
    pub summary: Vec<OutputPart>,
    #[serde(default, deserialize_with = "lenient::code")]
    pub call_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    #[serde(default)]
    pub arguments: Option<Box<RawValue>>,
}

impl OutputItem {
    pub fn kind(&self) -> &str {
        // What says something is a message, also without its type.
        self.kind.as_deref().unwrap_or(if self.content.is_empty() { "" } else { "message" })
    }

    pub fn given_id(&self) -> Option<String> {
        [&self.call_id, &self.id].into_iter().flatten().find(|id| !id.is_empty()).cloned()
    }
}

#[derive(Deserialize)]
pub struct OutputPart {
    #[serde(default, deserialize_with = "lenient::text")]
    pub text: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub refusal: Option<String>,
    #[serde(default)]
    pub logprobs: Option<Box<RawValue>>,
}

#[derive(Deserialize, Default)]
pub struct Counts {
    #[serde(default, deserialize_with = "lenient::count")]
    pub input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub input_tokens_details: Option<PromptDetails>,
    #[serde(default, deserialize_with = "lenient::count")]
    pub output_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub output_tokens_details: Option<AnswerDetails>,
    #[serde(default, deserialize_with = "lenient::count")]
    pub total_tokens: Option<u64>,
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
            cache_held: 0,
            reasoning: counts.output_tokens_details.and_then(|d| d.reasoning_tokens).unwrap_or(0),
        }
    }
}
