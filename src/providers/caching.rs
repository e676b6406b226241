//! What each provider caches of prompts, by itself or where it is told to: minimum lengths, lives, and what has to be
//! said. Facts from the vendors' guides to prompt caching (2026-08 to 2026-10).

use std::time::Duration;

use super::plan::Readable;
use super::table::{Api, Language, Row};
use super::versions::version;

/// How a provider caches prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// Not, or nobody knows how.
    None,
    /// Up to marks (Anthropic, and its models at OpenRouter).
    Marks {
        /// Shortest entry, tokens.
        least: u32,
        /// Whether tools can be marked.
        on_tools: bool,
    },
    /// Up to breakpoints, beside one at the newest message (OpenAI from gpt-5.6 on).
    Breakpoints,
    /// By itself.
    Automatic {
        /// Shortest entry, tokens.
        least: u32,
        /// Life of an entry after its last use, seconds.
        life: u64,
        /// When it can be read.
        readable: Readable,
        /// Whether requests are routed by a key.
        keys: Keys,
        /// Whether entries can also be made by a request of their own, and are read for sure then (Gemini).
        explicit: bool,
    },
}

/// Whether requests are routed by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// Not.
    None,
    /// One for each head.
    One,
    /// As many as it takes so that none has more requests a minute than a machine takes.
    Split,
}

/// The shortest entry of OpenAI's, tokens; and shorter ones are not worth waiting for elsewhere.
const LEAST: u32 = 1_024;
const FIVE_MINUTES: u64 = 300;
const HOUR: u64 = 3_600;

impl Caching {
    /// How a provider caches for a model. `at_home`: whether it is called at its own address, where all of its fields are
    /// known.
    pub fn of(row: &Row, model: &str, at_home: bool) -> Self {
        let automatic =
            |life, readable| Self::Automatic { least: LEAST, life, readable, keys: Keys::None, explicit: false };
        match (row.language, row.name) {
            (Language::Anthropic, _) => Self::Marks { least: least_of_anthropic(model), on_tools: true },
            (Language::Bedrock | Language::Vertex, _) if row.speaks_messages(model, Api::Usual) => {
                Self::Marks { least: least_of_anthropic(model), on_tools: true }
            }
            (Language::Bedrock | Language::Vertex, _) => Self::None,
            (Language::Gemini, _) => {
                let least = least_of_gemini(model.trim_start_matches("models/"));
                Self::Automatic {
                    least,
                    life: FIVE_MINUTES,
                    readable: Readable::AtEnd,
                    keys: Keys::None,
                    explicit: true,
                }
            }
            (Language::Chat(_), "openai" | "azure") if at_home && has_breakpoints(model) => Self::Breakpoints,
            (Language::Chat(_), "openai" | "azure") if at_home => Self::Automatic {
                least: LEAST,
                life: FIVE_MINUTES,
                readable: Readable::AtEnd,
                keys: Keys::Split,
                explicit: false,
            },
            (Language::Chat(_), "mistral") => Self::Automatic {
                least: LEAST,
                life: FIVE_MINUTES,
                readable: Readable::AtEnd,
                keys: if at_home { Keys::One } else { Keys::None },
                explicit: false,
            },
            (Language::Chat(_), "deepseek" | "groq") => automatic(HOUR, Readable::AtEnd),
            (Language::Chat(_), "openrouter") if at_home => routed(model),
            (Language::Chat(_), "xai") => automatic(FIVE_MINUTES, Readable::AtEnd),
            (Language::Chat(_), "vllm" | "sglang") => automatic(FIVE_MINUTES, Readable::AtFirstByte),
            (Language::Chat(_), _) => Self::None,
        }
    }

    /// The shortest entry, tokens.
    pub fn least(self) -> u32 {
        match self {
            Self::None => u32::MAX,
            Self::Breakpoints => LEAST,
            Self::Marks { least, .. } | Self::Automatic { least, .. } => least,
        }
    }

    /// How long an entry lives after its last use.
    pub fn life(self, hour: bool) -> Duration {
        Duration::from_secs(match self {
            Self::None => 0,
            Self::Marks { .. } => {
                if hour {
                    HOUR
                } else {
                    FIVE_MINUTES
                }
            }
            Self::Breakpoints => 1_800,
            Self::Automatic { life, .. } => life,
        })
    }

    /// When an entry can be read.
    pub fn readable(self) -> Readable {
        match self {
            Self::Marks { .. } => Readable::AtFirstByte,
            Self::Automatic { readable, .. } => readable,
            Self::None | Self::Breakpoints => Readable::AtEnd,
        }
    }

    /// Whether an entry can end with the tools, where there are no instructions.
    pub fn ends_at_tools(self) -> bool {
        !matches!(self, Self::Breakpoints | Self::Marks { on_tools: false, .. })
    }

    /// Whether requests say which head they have.
    pub fn has_key(self) -> bool {
        match self {
            Self::Breakpoints => true,
            Self::Automatic { keys, .. } => keys != Keys::None,
            Self::None | Self::Marks { .. } => false,
        }
    }

    /// Whether entries can also be made by a request of their own.
    pub fn is_explicit(self) -> bool {
        matches!(self, Self::Automatic { explicit: true, .. })
    }

    /// Whether a head of a high rate has several keys.
    pub fn splits_keys(self) -> bool {
        matches!(self, Self::Automatic { keys: Keys::Split, .. })
    }
}

/// How OpenRouter's providers cache, as far as it passes on what they need (its guide to prompt caching, 2026-10).
fn routed(model: &str) -> Caching {
    let automatic = |least| Caching::Automatic {
        least,
        life: FIVE_MINUTES,
        readable: Readable::AtEnd,
        keys: Keys::None,
        explicit: false,
    };
    match model.split_once('/') {
        Some(("anthropic", model)) => Caching::Marks { least: least_of_anthropic(model), on_tools: false },
        Some(("google", model)) => automatic(least_of_gemini(model)),
        Some(("openai" | "x-ai" | "deepseek", _)) => automatic(LEAST),
        _ => Caching::None,
    }
}

/// The shortest prefix that Google caches, tokens.
fn least_of_gemini(model: &str) -> u32 {
    if ["gemini-1", "gemini-2"].iter().any(|old| model.starts_with(old)) { 2_048 } else { 4_096 }
}

/// The shortest prefix that Anthropic caches, tokens. What is shorter is no error, and is not cached.
fn least_of_anthropic(model: &str) -> u32 {
    const ROWS: &[(u32, &[&str])] = &[
        (512, &["opus-5", "sonnet-5-5", "haiku-5-5", "fable-5", "mythos-5"]),
        (2_048, &["opus-4-7"]),
        (4_096, &["haiku-4-5", "opus-4-5", "opus-4-6"]),
    ];
    let model = model.replace('.', "-");
    let row = ROWS.iter().find(|(_, names)| names.iter().any(|name| model.contains(name)));
    row.map_or(1_024, |(least, _)| *least)
}

/// Whether a model of OpenAI's caches up to breakpoints: gpt-5.6 and later.
fn has_breakpoints(model: &str) -> bool {
    version(model, "gpt-").is_some_and(|version| version >= (5, 6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::table::row;

    #[test]
    fn every_provider_has_its_own_way() {
        let of = |name: &str, model: &str, at_home: bool| Caching::of(row(name).unwrap(), model, at_home);
        for (model, least) in [
            ("claude-opus-5", 512),
            ("claude-sonnet-5-5", 512),
            ("claude-sonnet-5", 1_024),
            ("claude-sonnet-4.5", 1_024),
            ("claude-opus-4-20250514", 1_024),
            ("claude-opus-4-8", 1_024),
            ("claude-opus-4-7", 2_048),
            ("claude-haiku-4-5-20251001", 4_096),
        ] {
            assert_eq!(of("anthropic", model, false), Caching::Marks { least, on_tools: true }, "{model}");
        }
        for model in ["gpt-5.6", "gpt-5.6-luna", "gpt-5.10", "gpt-6-astra", "gpt-6.1-sol"] {
            assert_eq!(of("openai", model, true), Caching::Breakpoints, "{model}");
            // Servers that imitate it may not know the fields.
            assert_eq!(of("openai", model, false), Caching::None);
        }
        for model in ["gpt-5.5", "gpt-5-mini", "gpt-4o", "o3", "ft:gpt-6:org"] {
            assert!(of("openai", model, true).splits_keys(), "{model}");
        }
        assert_eq!(of("gemini", "gemini-2.5-flash", true).least(), 2_048);
        assert_eq!(of("gemini", "models/gemini-3.8-flash", true).least(), 4_096);
        assert!(of("mistral", "m", true).has_key() && !of("mistral", "m", true).splits_keys());
        assert!(!of("deepseek", "m", true).has_key());
        assert_eq!(
            of("openrouter", "anthropic/claude-opus-4.5", true),
            Caching::Marks { least: 4_096, on_tools: false }
        );
        assert_eq!(of("openrouter", "google/gemini-2.5-flash", true).least(), 2_048);
        assert!(of("gemini", "gemini-2.5-flash", true).is_explicit());
        assert!(!of("openrouter", "google/gemini-2.5-flash", true).is_explicit());
        assert!(!of("openrouter", "openai/gpt-6-luna", true).has_key());
        assert_eq!(of("openrouter", "anthropic/claude-opus-4.5", false), Caching::None);
        assert_eq!(of("openrouter", "meta-llama/llama-4", true), Caching::None);
        assert_eq!(of("ollama", "m", true), Caching::None);
        assert_eq!(of("anthropic", "m", true).life(true), Duration::from_secs(3_600));
        assert_eq!(of("vllm", "m", true).readable(), Readable::AtFirstByte);
    }
}
