//! When a stream is safer than a plain reply: where an answer takes minutes. Connections that are silent for long are
//! closed by what lies between (a load balancer after 60 s), and servers refuse to answer late in one piece.

use serde_json::Value;

use crate::providers::options::{Options, Stream};
use crate::providers::versions::version;

/// Anthropic's SDKs refuse a plain call whose answer may take longer than ten minutes (3,600 s for 128,000 tokens, 2026).
const MOST_PLAIN_TOKENS: u64 = 21_333;
/// Of Claude Opus 4 and 4.1, which are slower, they refuse more than this.
const MOST_OF_OLD_OPUS: u64 = 8_192;

/// Whether a request with these options is better answered by a stream.
pub fn is_wanted(options: &Options) -> bool {
    match options.stream {
        Stream::Always => true,
        Stream::Never => false,
        Stream::Auto => options.max_tokens.is_some_and(|most| most > most_plain(&options.model)) || thinks(options),
    }
}

/// The longest answer that comes in one piece, tokens.
fn most_plain(model: &str) -> u64 {
    let name = model.to_ascii_lowercase();
    // What stands before it differs between Anthropic, Bedrock and OpenRouter.
    let is_old_opus = name.contains("claude-4-opus")
        || name
            .find("claude-opus-")
            .and_then(|place| version(&name[place..], "claude-opus-"))
            .is_some_and(|found| found <= (4, 1));
    if is_old_opus { MOST_OF_OLD_OPUS } else { MOST_PLAIN_TOKENS }
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

/// Series whose models think unless they are asked not to, from this version on.
const THINKING: [(&str, (u32, u32)); 8] = [
    ("gpt-", (5, 0)),
    ("grok-", (4, 0)),
    ("gemini-", (3, 0)),
    ("glm-", (4, 5)),
    ("kimi-k", (2, 5)),
    ("minimax-m", (1, 0)),
    // It cannot be turned off.
    ("claude-opus-", (5, 5)),
    ("claude-fable-", (5, 1)),
];
/// Parts of the names of others.
const WORDS: [&str; 11] = [
    "deepseek-reasoner",
    "deepseek-r1",
    "qwq",
    "magistral",
    "gpt-oss",
    "grok-3-mini",
    "grok-code",
    "gemini-2.5-pro",
    "-thinking",
    "-reasoning",
    "deep-research",
];

/// Models that think unless they are asked not to, by the names of their makers (2026).
fn is_known_to_think(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
    let name = name.strip_prefix("ft:").unwrap_or(&name);
    if name.contains("non-reasoning") || name.starts_with("gpt-") && name.contains("chat") {
        return false;
    }
    let series = ["o1", "o3", "o4"]
        .iter()
        .any(|series| name.strip_prefix(series).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric)));
    series
        || WORDS.iter().any(|word| name.contains(word))
        || THINKING.iter().any(|(series, first)| version(name, series).is_some_and(|version| version >= *first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::testing::options;
    use serde_json::json;

    #[test]
    fn what_takes_minutes_is_streamed() {
        let wanted = |given: Value| is_wanted(&options(given));
        for model in [
            "o3-mini",
            "openai/gpt-5-mini",
            "gpt-5.6-luna",
            "gpt-6.1-sol",
            "ft:gpt-6:org",
            "gpt-10",
            "openai/gpt-oss-120b",
            "deepseek-reasoner",
            "deepseek/deepseek-r1:free",
            "gemini-2.5-pro",
            "models/gemini-3.8-flash",
            "qwen3-next-thinking",
            "grok-4",
            "grok-4-0709",
            "x-ai/grok-4-1-fast-reasoning",
            "grok-5",
            "grok-3-mini",
            "zai-org/GLM-4.6",
            "moonshotai/kimi-k2.5",
            "MiniMax-M2",
            "claude-opus-5-5",
            "anthropic/claude-fable-5.1",
        ] {
            assert!(wanted(json!({"model": model})), "{model}");
            assert!(!wanted(json!({"model": model, "stream": "never"})), "{model}");
            assert!(!wanted(json!({"model": model, "reasoning_effort": "minimal"})), "{model}");
        }
        for model in [
            "gpt-4o",
            "gpt-4.1",
            "gpt-5-chat-latest",
            "claude-sonnet-5",
            "claude-opus-4-5",
            "gemini-2.5-flash",
            "o365",
            "grok-3",
            "grok-4-fast-non-reasoning",
            "kimi-k2-0905-preview",
            "glm-4-plus",
        ] {
            assert!(!wanted(json!({"model": model})), "{model}");
            assert!(wanted(json!({"model": model, "max_tokens": 21_334})), "{model}");
            assert!(!wanted(json!({"model": model, "max_tokens": 21_333})), "{model}");
            assert!(wanted(json!({"model": model, "extra_body": {"thinking": {"type": "enabled"}}})), "{model}");
            assert!(!wanted(json!({"model": model, "extra_body": {"thinking": {"type": "disabled"}}})), "{model}");
            assert!(wanted(json!({"model": model, "stream": "always"})), "{model}");
        }
        for model in [
            "claude-opus-4-20250514",
            "claude-opus-4-0",
            "claude-opus-4-1-20250805",
            "claude-4-opus-20250514",
            "claude-opus-4@20250514",
            "us.anthropic.claude-opus-4-1-20250805-v1:0",
            "anthropic/claude-opus-4.1",
        ] {
            assert!(!wanted(json!({"model": model})), "{model}");
            assert!(!wanted(json!({"model": model, "max_tokens": 8_192})), "{model}");
            assert!(wanted(json!({"model": model, "max_tokens": 8_193})), "{model}");
            assert!(!wanted(json!({"model": model, "max_tokens": 8_193, "stream": "never"})), "{model}");
        }
    }
}
