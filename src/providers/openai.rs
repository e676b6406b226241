//! What OpenAI's two dialects have in common: how requests speak of its prompt cache (OpenAI's guide to prompt caching,
//! 2026-09), and the details of token counts.

use serde::Deserialize;

use super::dialect::Body;
use super::lenient;
use super::marked::Breakpoint;
use super::plan::Marks;

/// Writes the fields about the cache.
///
/// # Errors
/// When they cannot be written as JSON.
pub fn cache_fields(marks: Option<&Marks>, body: &mut Body) -> Result<(), String> {
    let Some(marks) = marks else { return Ok(()) };
    if let Some(key) = &marks.key {
        body.field("prompt_cache_key", key)?;
    }
    // Otherwise the newest message is written as well, which nobody else has.
    if marks.nothing_else { body.field("prompt_cache_options", &Breakpoint::EXPLICIT) } else { Ok(()) }
}

/// Details of a prompt's tokens.
#[derive(Deserialize)]
pub struct PromptDetails {
    /// Read from the cache.
    #[serde(default, deserialize_with = "lenient::count")]
    pub cached_tokens: Option<u64>,
    /// Written to it.
    #[serde(default, deserialize_with = "lenient::count")]
    pub cache_write_tokens: Option<u64>,
}

/// Details of an answer's tokens.
#[derive(Deserialize)]
pub struct AnswerDetails {
    /// Spent on reasoning.
    #[serde(default, deserialize_with = "lenient::count")]
    pub reasoning_tokens: Option<u64>,
}
