//! What is the same in every request of one strategy, in words that every dialect can translate.

use std::sync::OnceLock;

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Number, Value};

use super::numbers;
use super::schema::Schema;
use super::shared::{SharedText, Text};

/// The settings of one strategy. Python fills them in by name; an unknown name is an error.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The model's name.
    pub model: String,
    /// Instructions, before each conversation. Long ones are in memory once, however many clients have them.
    pub system_prompt: Option<Text>,
    /// Sampling temperature.
    pub temperature: Option<Number>,
    /// Nucleus sampling.
    pub top_p: Option<Number>,
    /// Longest answer, tokens.
    pub max_tokens: Option<u64>,
    /// Texts at which the answer ends.
    pub stop: Vec<String>,
    /// Seed of the sampling.
    pub seed: Option<Seed>,
    /// Samples per prompt.
    pub n: Option<u32>,
    /// Ask for log-probabilities, with so many alternatives per token.
    pub logprobs: Option<u32>,
    /// How much the model thinks: `low`, `medium`, `high`, and whatever else the provider knows.
    pub reasoning_effort: Option<String>,
    /// Tools the model may call.
    pub tools: Vec<Tool>,
    /// Which it must call: `auto`, `none`, `required`, or a tool's name.
    pub tool_choice: Option<String>,
    /// The shape of the answer.
    pub schema: Option<Schema>,
    /// Whether replies come as streams.
    pub stream: Stream,
    /// Whether replies without tool calls hold their [`state`](super::state) too: their conversations go on.
    pub keeps_turns: bool,
    /// Whether the provider is to cache what requests have in common.
    pub cache_prompt: CachePrompt,
    /// Vectors are to be this long.
    pub dimensions: Option<u32>,
    /// Further fields of the request, as they are.
    pub extra_body: Map<String, Value>,
    /// The instructions as the dialect sends them, once they are written.
    #[serde(skip)]
    pub(super) written_system: OnceLock<SharedText>,
    /// A number of what stands before every conversation, once it is wanted.
    #[serde(skip)]
    pub(super) number: OnceLock<u64>,
}

/// Whether replies come as streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Where that is safer.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Whether the provider is to cache what requests have in common.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CachePrompt {
    /// Where it pays.
    #[default]
    Auto,
    /// The same, for an hour where the provider asks for how long.
    #[serde(rename = "1h")]
    Hour,
    /// As it does without being told anything.
    Never,
}

/// A tool the model may call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(default)]
    pub description: String,
    /// JSON Schema of its arguments.
    pub parameters: Value,
}

/// A seed, which for some servers may be longer than 64 bits.
#[derive(Debug, Clone, Copy)]
pub struct Seed(i128);

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let whole = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
        let number = whole.or_else(|| numbers::digits(&value)?.parse().ok());
        number.map(Self).ok_or_else(|| de::Error::custom(format_args!("expected an integer, not {value}")))
    }
}

impl From<Seed> for Value {
    fn from(seed: Seed) -> Self {
        let Seed(number) = seed;
        match (i64::try_from(number), u64::try_from(number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => numbers::long(&number.to_string()),
        }
    }
}

impl Options {
    /// The instructions before each conversation, written once. `added`: what the dialect says after the user's own.
    pub fn system(&self, added: impl FnOnce() -> Option<String>) -> Option<&SharedText> {
        if let Some(written) = self.written_system.get() {
            return Some(written);
        }
        let text = match (&self.system_prompt, added()) {
            (Some(own), Some(added)) => SharedText::new(&format!("{}\n\n{added}", &**own)),
            (Some(Text::Shared(text)), None) => text.clone(),
            (Some(Text::Own(text)), None) => SharedText::new(text),
            (None, Some(text)) => SharedText::new(&text),
            (None, None) => return None,
        };
        Some(self.written_system.get_or_init(|| text))
    }

    /// Puts the user's further fields over the dialect's own.
    pub fn with_extra(&self, mut fields: Map<String, Value>) -> Map<String, Value> {
        for (name, value) in &self.extra_body {
            match (fields.get_mut(name), value) {
                // `generationConfig`, `text`, `stream_options` ...: the fields inside are merged.
                (Some(Value::Object(known)), Value::Object(more)) => known.extend(more.clone()),
                _ => drop(fields.insert(name.clone(), value.clone())),
            }
        }
        fields
    }
}

/// Adds the entries that have a value to a map of fields.
pub fn fields<const N: usize>(entries: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let mut map = Map::new();
    // `collect()` would sort them first, also where there are none, as in most replies.
    for (name, value) in entries {
        if let Some(value) = value {
            map.insert(name.to_owned(), value);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_names_are_errors_and_extra_fields_win() {
        let error = serde_json::from_value::<Options>(json!({"model": "m", "temprature": 1})).unwrap_err();
        assert!(error.to_string().contains("temprature"));
        for seed in [json!(-1), json!(u64::MAX), numbers::long("98765432109876543210")] {
            let options: Options = serde_json::from_value(json!({"seed": seed})).unwrap();
            assert_eq!(options.seed.map(Value::from), Some(seed));
        }
        assert!(serde_json::from_value::<Options>(json!({"seed": 1.5})).unwrap_err().to_string().contains("integer"));
        let options: Options = serde_json::from_value(json!({"extra_body": {"a": {"y": 2}, "b": 1}})).unwrap();
        let merged = options.with_extra(fields([("a", Some(json!({"x": 1}))), ("b", Some(json!(0))), ("c", None)]));
        assert_eq!(Value::Object(merged), json!({"a": {"x": 1, "y": 2}, "b": 1}));
    }

    #[test]
    fn a_long_system_prompt_is_in_memory_once() {
        let text = "Answer in \"one\" word.\n".repeat(2000);
        let options = || serde_json::from_value::<Options>(json!({"system_prompt": text})).unwrap();
        let (one, other) = (options(), options());
        let copy = one.clone();
        let written = [&one, &other, &copy].map(|options| options.system(|| None).unwrap().text());
        assert_eq!(written[0], text);
        assert!(written.iter().all(|text| std::ptr::eq(*text, written[0])));
        // What a dialect adds is a text of its own.
        let longer = options();
        assert!(
            longer.system(|| Some("JSON, please.".to_owned())).unwrap().text().ends_with("word.\n\n\nJSON, please.")
        );
    }
}
