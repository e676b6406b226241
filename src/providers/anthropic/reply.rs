//! Replies of Anthropic's Messages, as they come.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::providers::json::parse;
use crate::providers::lenient;
use crate::providers::reply::TokenUsage;

pub const PROTOCOL: &str = "Messages";

/// A reply, or an error in place of one.
#[derive(Deserialize)]
pub struct Reply {
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
    #[serde(default, deserialize_with = "lenient::list")]
    pub content: Vec<ReplyBlock>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub model: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub stop_reason: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub stop_sequence: Option<String>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub usage: Option<Counts>,
    #[serde(default, deserialize_with = "lenient::error")]
    pub error: Option<Value>,
}

/// A block of a reply, with the fields of all kinds that are looked at.
#[derive(Deserialize)]
pub struct ReplyBlock {
    #[serde(rename = "type", default, deserialize_with = "lenient::text")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub text: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub thinking: Option<String>,
    #[serde(default, deserialize_with = "lenient::code")]
    pub id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    #[serde(default)]
    pub input: Option<Box<RawValue>>,
}

impl ReplyBlock {
    /// What it is.
    pub fn kind(&self) -> &str {
        // What has a text is one, also without its type.
        self.kind.as_deref().unwrap_or(if self.text.is_some() { "text" } else { "" })
    }
}

/// What a request has used.
#[derive(Deserialize, Default)]
pub struct Counts {
    #[serde(default, deserialize_with = "lenient::count")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::object")]
    cache_creation: Option<CacheCreation>,
    #[serde(default, deserialize_with = "lenient::count")]
    cache_read_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    output_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::object")]
    output_tokens_details: Option<OutputDetails>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub service_tier: Option<String>,
}

#[derive(Deserialize)]
struct CacheCreation {
    #[serde(default, deserialize_with = "lenient::count")]
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct OutputDetails {
    #[serde(default, deserialize_with = "lenient::count")]
    thinking_tokens: Option<u64>,
}

impl From<Counts> for TokenUsage {
    fn from(counts: Counts) -> Self {
        let cache_read = counts.cache_read_input_tokens.unwrap_or(0);
        let cache_write = counts.cache_creation_input_tokens.unwrap_or(0);
        let input = counts.input_tokens.unwrap_or(0).saturating_add(cache_read).saturating_add(cache_write);
        let output = counts.output_tokens.unwrap_or(0);
        Self {
            input,
            output,
            total: input.saturating_add(output),
            cache_read,
            cache_write,
            cache_held: 0,
            cache_write_hour: counts.cache_creation.and_then(|c| c.ephemeral_1h_input_tokens).unwrap_or(0),
            reasoning: counts.output_tokens_details.and_then(|d| d.thinking_tokens).unwrap_or(0),
        }
    }
}

/// The blocks of a reply, as they were written.
pub fn content_of(body: &[u8]) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Blocks {
        content: Box<RawValue>,
    }
    parse::<Blocks>(PROTOCOL, body).ok().map(|reply| reply.content)
}
