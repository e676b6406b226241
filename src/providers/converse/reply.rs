//! Replies of Converse, as they come.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::providers::json::parse;
use crate::providers::lenient;
use crate::providers::reply::TokenUsage;

pub const PROTOCOL: &str = "Converse";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    #[serde(default, deserialize_with = "lenient::object")]
    pub output: Option<Output>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub stop_reason: Option<String>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub usage: Option<Counts>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub service_tier: Option<Tier>,
    #[serde(default)]
    pub trace: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
pub struct Output {
    #[serde(default, deserialize_with = "lenient::object")]
    pub message: Option<Message>,
}

#[derive(Deserialize)]
pub struct Message {
    #[serde(default, deserialize_with = "lenient::list")]
    pub content: Vec<Block>,
}

#[derive(Deserialize)]
pub struct Tier {
    #[serde(default, deserialize_with = "lenient::text")]
    pub r#type: Option<String>,
}

/// A block: one of its fields is there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    #[serde(default, deserialize_with = "lenient::text")]
    pub text: Option<String>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub tool_use: Option<ToolUse>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub reasoning_content: Option<Reasoning>,
    #[serde(default, deserialize_with = "lenient::object")]
    pub citations_content: Option<Cited>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolUse {
    #[serde(default, deserialize_with = "lenient::code")]
    pub tool_use_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    #[serde(default)]
    pub input: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reasoning {
    #[serde(default, deserialize_with = "lenient::object")]
    pub reasoning_text: Option<Words>,
}

#[derive(Deserialize)]
pub struct Cited {
    #[serde(default, deserialize_with = "lenient::list")]
    pub content: Vec<Words>,
}

#[derive(Deserialize)]
pub struct Words {
    #[serde(default, deserialize_with = "lenient::text")]
    pub text: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    #[serde(default, deserialize_with = "lenient::count")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    output_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    cache_read_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    cache_write_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::list")]
    cache_details: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default, deserialize_with = "lenient::text")]
    ttl: Option<String>,
    #[serde(default, deserialize_with = "lenient::count")]
    input_tokens: Option<u64>,
}

impl From<Counts> for TokenUsage {
    fn from(counts: Counts) -> Self {
        let cache_read = counts.cache_read_input_tokens.unwrap_or(0);
        let cache_write = counts.cache_write_input_tokens.unwrap_or(0);
        let input = counts.input_tokens.unwrap_or(0).saturating_add(cache_read).saturating_add(cache_write);
        let output = counts.output_tokens.unwrap_or(0);
        let hour = counts.cache_details.iter().filter(|one| one.ttl.as_deref() == Some("1h"));
        Self {
            input,
            output,
            total: input.saturating_add(output),
            cache_read,
            cache_write,
            cache_write_hour: hour.filter_map(|one| one.input_tokens).fold(0, u64::saturating_add),
            ..Self::default()
        }
    }
}

/// The blocks of a reply, as they were written.
pub fn content_of(body: &[u8]) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Whole {
        output: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        message: Blocks,
    }
    #[derive(Deserialize)]
    struct Blocks {
        content: Box<RawValue>,
    }
    parse::<Whole>(PROTOCOL, body).ok().map(|reply| reply.output.message.content)
}
