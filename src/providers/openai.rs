//! How requests of OpenAI's dialects speak of its prompt cache (OpenAI's guide to prompt caching, 2026-09).

use super::dialect::Body;
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
