//! When a stream is safer than a plain reply: where an answer takes minutes. Connections that are silent for long are
//! closed by what lies between (a load balancer after 60 s), and servers refuse to answer late in one piece.

use serde_json::Value;

use crate::providers::options::{Options, Stream};

/// Anthropic's SDKs refuse a plain call whose answer may take longer than ten minutes (3,600 s for 128,000 tokens, 2026).
const MOST_PLAIN_TOKENS: u64 = 21_333;

/// Whether a request with these options is better answered by a stream.
pub fn is_wanted(options: &Options) -> bool {
    match options.stream {
        Stream::Always => true,
        Stream::Never => false,
        Stream::Auto => options.max_tokens.is_some_and(|most| most > MOST_PLAIN_TOKENS) || thinks(options),
    }
}

/// Whether the model is asked to think for long.
pub fn thinks(options: &Options) -> bool {
    if let Some(effort) = &options.reasoning_effort {
        return !matches!(effort.as_str(), "none" | "minimal");
    }
    let is_on = |field: &Value| match field {
        Value::Object(fields) => !matches!(fields.get("type").and_then(Value::as_str), Some("disabled")),
        field => field.as_bool() == Some(true),
    };
    ["thinking", "reasoning"].iter().any(|name| options.extra_body.get(*name).is_some_and(is_on))
        || is_known_to_think(&options.model)
}

/// Models that think unless they are asked not to, by the names of their makers (2026).
fn is_known_to_think(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
    let series = ["o1", "o3", "o4"]
        .iter()
        .any(|series| name.strip_prefix(series).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')));
    let words = ["deepseek-reasoner", "deepseek-r1", "qwq", "magistral", "-thinking", "-reasoning", "deep-research"];
    series
        || words.iter().any(|word| name.contains(word)) && !name.contains("non-reasoning")
        || name.starts_with("gpt-5") && !name.contains("chat")
        || (name.starts_with("gemini-3") || name.starts_with("gemini-2.5")) && name.contains("pro")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::testing::options;
    use serde_json::json;

    #[test]
    fn what_takes_minutes_is_streamed() {
        let wanted = |given: Value| is_wanted(&options(given));
        for model in ["o3-mini", "openai/gpt-5-mini", "deepseek-reasoner", "gemini-2.5-pro", "qwen3-next-thinking"] {
            assert!(wanted(json!({"model": model})), "{model}");
            assert!(!wanted(json!({"model": model, "stream": "never"})), "{model}");
            assert!(!wanted(json!({"model": model, "reasoning_effort": "minimal"})), "{model}");
        }
        for model in
            ["gpt-4o", "claude-sonnet-5", "gpt-5-chat-latest", "gemini-2.5-flash", "o365", "grok-4-fast-non-reasoning"]
        {
            assert!(!wanted(json!({"model": model})), "{model}");
            assert!(wanted(json!({"model": model, "max_tokens": 21_334})), "{model}");
            assert!(!wanted(json!({"model": model, "max_tokens": 21_333})), "{model}");
            assert!(wanted(json!({"model": model, "extra_body": {"thinking": {"type": "enabled"}}})), "{model}");
            assert!(!wanted(json!({"model": model, "extra_body": {"thinking": {"type": "disabled"}}})), "{model}");
            assert!(wanted(json!({"model": model, "stream": "always"})), "{model}");
        }
    }
}
