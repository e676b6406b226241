//! Fields of a block that mark it as the end of what is to be cached, as providers spell them. Dialects write them where
//! [`Marks`] say so.

use serde::Serialize;

use super::plan::Marks;

/// OpenAI's (guide to prompt caching, 2026-09).
#[derive(Debug, Serialize, Clone, Copy)]
pub struct Breakpoint {
    mode: &'static str,
}

impl Breakpoint {
    /// The only one.
    pub const EXPLICIT: Self = Self { mode: "explicit" };
}

/// Anthropic's (guide to prompt caching, 2026), and OpenRouter's for models of Anthropic.
#[derive(Debug, Serialize, Clone, Copy)]
pub struct CacheControl {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'static str>,
}

impl CacheControl {
    /// For five minutes, or for an hour.
    pub fn new(hour: bool) -> Self {
        Self { r#type: "ephemeral", ttl: hour.then_some("1h") }
    }

    /// The one of a part, if it has one.
    pub fn at(marks: &Marks, message: usize, part: usize) -> Option<Self> {
        marks.are_at(message, part).then(|| Self::new(marks.hour))
    }
}

/// The field of a part in Chat Completions.
#[derive(Debug, Serialize, Clone, Copy)]
pub enum Mark {
    /// OpenAI's.
    #[serde(rename = "prompt_cache_breakpoint")]
    Breakpoint(Breakpoint),
    /// OpenRouter's.
    #[serde(rename = "cache_control")]
    Control(CacheControl),
}
