//! How requests of OpenAI's dialects speak of its prompt cache (OpenAI's guide to prompt caching, 2026-09).

use serde::Serialize;

use super::dialect::Body;
use super::plan::Marks;

/// What marks the end of what is to be cached.
#[derive(Serialize, Clone, Copy)]
pub struct Breakpoint {
    mode: &'static str,
}

impl Breakpoint {
    /// The only one.
    pub const EXPLICIT: Self = Self { mode: "explicit" };
}

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
