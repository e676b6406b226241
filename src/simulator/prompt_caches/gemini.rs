//! Which parts of a request to Google's generateContent are cached without being asked for (Google's guide to context
//! caching, 2026). Explicit caches are in [`caches`](super::super::caches).

use serde_json::Value;

use super::super::invalid::Invalid;
use super::prompt::{Block, FIVE_MINUTES, Prompt, Rules};

/// The field of a part that would mark it; there is none.
const MARK: &str = "";

/// The shortest prefix that is cached, tokens.
pub fn least(model: &str) -> usize {
    let model = model.trim_start_matches("models/");
    if ["gemini-1", "gemini-2"].iter().any(|old| model.starts_with(old)) { 2_048 } else { 4_096 }
}

/// A request as a prompt.
pub fn prompt(body: &Value, model: &str) -> Result<Prompt, Invalid> {
    let explicit = body.get("cachedContent");
    if explicit.is_some() {
        let twice = ["systemInstruction", "tools", "toolConfig"].into_iter().find(|name| body.get(*name).is_some());
        if let Some(name) = twice {
            return Err(Invalid::new(format!(
                "CachedContent can not be used with GenerateContent request setting system_instruction, tools or \
                 tool_config (this one sets {name}). Proposed fix: move those values to CachedContent from \
                 GenerateContent request."
            )));
        }
    }
    let least = least(model);
    let rules = match explicit {
        Some(_) => Rules::Never,
        None => Rules::Automatic { least, step: 128, life: FIVE_MINUTES, is_spread: false },
    };
    let mut prompt = Prompt::new(model.to_owned(), rules);
    let list = |name: &str| body.get(name).and_then(Value::as_array).into_iter().flatten();
    prompt.depends("toolConfig", body.get("toolConfig"));
    for tool in list("tools") {
        prompt.push(Block::text("tool", tool.to_string()));
    }
    for part in body.pointer("/systemInstruction/parts").and_then(Value::as_array).into_iter().flatten() {
        prompt.push(Block::json("system", part, MARK));
    }
    for content in list("contents") {
        let role = content.get("role").and_then(Value::as_str).unwrap_or("user");
        for part in content.get("parts").and_then(Value::as_array).into_iter().flatten() {
            prompt.push(Block::json(role, part, MARK));
        }
        prompt.end_message();
    }
    Ok(prompt)
}
