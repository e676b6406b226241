//! How an answer of Chat Completions is read.

use serde::de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::turn::{CallState, State, Thoughts};
use crate::providers::lenient;
use crate::providers::openai::{AnswerDetails, PromptDetails};
use crate::providers::reply::{Choice, Finish, TokenUsage, ToolCall, arguments};

/// A whole reply.
#[derive(Deserialize)]
pub struct Completion {
    /// The samples.
    #[serde(default, deserialize_with = "lenient::list")]
    pub choices: Vec<Sample>,
    /// What it cost.
    #[serde(default, deserialize_with = "lenient::object")]
    pub usage: Option<Counts>,
    /// The model that answered.
    #[serde(default, deserialize_with = "lenient::text")]
    pub model: Option<String>,
    /// Its tier.
    #[serde(default, deserialize_with = "lenient::text")]
    pub service_tier: Option<String>,
    /// The server's configuration.
    #[serde(default, deserialize_with = "lenient::text")]
    pub system_fingerprint: Option<String>,
    /// Who answered behind a gateway.
    #[serde(default, deserialize_with = "lenient::text")]
    pub provider: Option<String>,
    /// Groq's own field, in which streams have their usage.
    #[serde(default, deserialize_with = "lenient::object")]
    pub x_groq: Option<Groq>,
    /// Some gateways send an error object with status 200.
    #[serde(default, deserialize_with = "lenient::error")]
    pub error: Option<Value>,
}

/// What Groq tells besides.
#[derive(Deserialize)]
pub struct Groq {
    /// What the reply cost.
    #[serde(default, deserialize_with = "lenient::object")]
    pub usage: Option<Counts>,
}

/// One sample.
#[derive(Deserialize)]
pub struct Sample {
    /// Its place among the samples.
    #[serde(default, deserialize_with = "lenient::count")]
    pub index: Option<u64>,
    #[serde(default, deserialize_with = "lenient::object")]
    message: Option<Spoke>,
    /// Completions of old give a text.
    #[serde(default, deserialize_with = "lenient::text")]
    text: Option<String>,
    #[serde(default, deserialize_with = "lenient::word")]
    finish_reason: Option<String>,
    /// OpenRouter: the word of the provider behind it.
    #[serde(default, deserialize_with = "lenient::text")]
    native_finish_reason: Option<String>,
    #[serde(default)]
    logprobs: Option<Box<RawValue>>,
    /// An error in the place of an answer.
    #[serde(default, deserialize_with = "lenient::error")]
    pub error: Option<Value>,
}

#[derive(Deserialize, Default)]
struct Spoke {
    #[serde(default)]
    content: Spoken,
    #[serde(default, deserialize_with = "lenient::text")]
    refusal: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    reasoning: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    reasoning_content: Option<String>,
    #[serde(default)]
    reasoning_details: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "lenient::list")]
    tool_calls: Vec<Call>,
    /// The form before `tool_calls`.
    #[serde(default, deserialize_with = "lenient::object")]
    function_call: Option<Function>,
    /// Words that were spoken.
    #[serde(default, deserialize_with = "lenient::object")]
    audio: Option<Audio>,
}

#[derive(Deserialize)]
struct Audio {
    #[serde(default, deserialize_with = "lenient::text")]
    transcript: Option<String>,
}

/// A text, or (Mistral's reasoning models) a list of parts with words and thoughts; or JSON that a server has already
/// read, which is made text again.
#[derive(Default)]
struct Spoken {
    text: String,
    thoughts: Option<String>,
    /// The list.
    parts: Option<Value>,
}

impl Spoken {
    fn text(text: String) -> Self {
        Self { text, ..Self::default() }
    }

    fn of_parts(parts: Vec<Value>) -> Self {
        let (mut text, mut thoughts) = (String::new(), String::new());
        for part in &parts {
            match part {
                Value::String(words) => text.push_str(words),
                part => {
                    text.push_str(part.get("text").and_then(Value::as_str).unwrap_or_default());
                    match part.get("thinking") {
                        Some(Value::String(words)) => thoughts.push_str(words),
                        Some(Value::Array(parts)) => {
                            parts
                                .iter()
                                .filter_map(|part| part.get("text")?.as_str())
                                .for_each(|t| thoughts.push_str(t));
                        }
                        _ => {}
                    }
                }
            }
        }
        let thoughts = (!thoughts.is_empty()).then_some(thoughts);
        if text.is_empty() && thoughts.is_none() && parts.iter().all(|part| !part.is_object() && !part.is_null()) {
            // A list that the server has read already is the answer itself.
            text = if parts.is_empty() { text } else { Value::Array(parts.clone()).to_string() };
        }
        Self { text, thoughts, parts: Some(Value::Array(parts)) }
    }
}

impl<'de> Deserialize<'de> for Spoken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrParts;
        impl<'de> Visitor<'de> for TextOrParts {
            type Value = Spoken;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a string or a list of parts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Spoken, E> {
                Ok(Spoken::text(text.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Spoken, E> {
                Ok(Spoken::default())
            }

            fn visit_bool<E>(self, value: bool) -> Result<Spoken, E> {
                Ok(Spoken::text(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Spoken, E> {
                Ok(Spoken::text(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Spoken, E> {
                Ok(Spoken::text(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Spoken, E> {
                Ok(Spoken::text(json!(value).to_string()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Spoken, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = seq.next_element::<Value>()? {
                    parts.push(part);
                }
                Ok(Spoken::of_parts(parts))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Spoken, A::Error> {
                let part = Value::deserialize(MapAccessDeserializer::new(map))?;
                let text = part.get("text").and_then(Value::as_str).map(str::to_owned);
                Ok(Spoken::text(text.unwrap_or_else(|| part.to_string())))
            }
        }
        deserializer.deserialize_any(TextOrParts)
    }
}

#[derive(Deserialize)]
struct Call {
    #[serde(default, deserialize_with = "lenient::code")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::object")]
    function: Option<Function>,
    #[serde(default)]
    extra_content: Option<Box<RawValue>>,
    #[serde(default)]
    provider_specific_fields: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Function {
    #[serde(default, deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<Box<RawValue>>,
}

/// What servers say of the end of an answer. From the references of OpenAI, Mistral, DeepSeek, Zhipu, vLLM, OpenRouter,
/// Cohere, Anthropic and Google, whose words gateways pass on (2026), in lower case.
pub fn finish(word: Option<&str>) -> Finish {
    let Some(word) = word else { return Finish::Stop };
    match word.to_ascii_lowercase().as_str() {
        "stop" | "eos" | "end_turn" | "eos_token" | "stop_sequence" | "complete" => Finish::Stop,
        "length" | "max_tokens" | "model_length" | "max_output_tokens" | "model_context_window_exceeded" => {
            Finish::Length
        }
        "tool_calls" | "function_call" | "tool_use" | "tool_call" => Finish::ToolCalls,
        "content_filtered"
        | "sensitive"
        | "safety"
        | "recitation"
        | "guardrail_intervened"
        | "prohibited_content"
        | "blocklist"
        | "spii" => Finish::ContentFilter,
        "refusal" => Finish::Refusal,
        "insufficient_system_resource" | "overloaded" => Finish::Interrupted { overloaded: true },
        "error"
        | "abort"
        | "aborted"
        | "cancelled"
        | "canceled"
        | "user_cancel"
        | "network_error"
        | "timeout"
        | "failed"
        | "error_toxic"
        | "error_limit"
        | "malformed_model_output" => Finish::Interrupted { overloaded: false },
        // Google's own compatible interface puts a word before it.
        word if ["malformed_function_call", "malformed_response", "unexpected_tool_call", "too_many_tool_calls"]
            .iter()
            .any(|known| word.contains(known))
            || word == "malformed_tool_use" =>
        {
            Finish::Malformed
        }
        word if word.starts_with("content_filter") => Finish::ContentFilter,
        _ => Finish::Other,
    }
}

impl Sample {
    /// The thoughts of a turn without calls, which some servers want back with it.
    pub fn thoughts(self) -> Option<Box<str>> {
        let Spoke { reasoning_content, reasoning, reasoning_details, .. } = self.message?;
        let thoughts = Thoughts { reasoning_content, reasoning, reasoning_details };
        State { thoughts, content: None, calls: Vec::new() }.text()
    }

    /// Whether there is an answer in it.
    pub fn answers(&self) -> bool {
        let in_message = self
            .message
            .as_ref()
            .is_some_and(|message| !message.content.text.is_empty() || !message.tool_calls.is_empty());
        in_message || self.text.is_some()
    }
}

impl From<Sample> for Choice {
    fn from(sample: Sample) -> Self {
        let mut message = sample.message.unwrap_or_default();
        // Python's and JavaScript's words for nothing.
        message.refusal = message.refusal.filter(|text| !matches!(text.as_str(), "" | "None" | "null"));
        let mut call_states = Vec::new();
        let old_form = message.function_call.take().filter(|_| message.tool_calls.is_empty());
        let calls = std::mem::take(&mut message.tool_calls).into_iter().chain(old_form.map(|function| Call {
            id: None,
            function: Some(function),
            extra_content: None,
            provider_specific_fields: None,
        }));
        let mut malformed = false;
        let calls = calls.enumerate().filter_map(|(number, call)| {
            let function = call.function?;
            malformed |= function.name.is_none();
            let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{number}"));
            let state = CallState {
                extra_content: call.extra_content,
                provider_specific_fields: call.provider_specific_fields,
            };
            if !state.is_empty() {
                call_states.push((id.clone(), state));
            }
            Some(ToolCall::new(id, function.name?, arguments(function.arguments)))
        });
        let tool_calls: Vec<ToolCall> = calls.collect();
        let Spoken { text, thoughts, parts } = message.content;
        let transcript = message.audio.and_then(|audio| audio.transcript);
        let reasoning = [&message.reasoning, &message.reasoning_content, &thoughts];
        let reasoning = reasoning.into_iter().flatten().find(|text| !text.is_empty()).cloned();
        let turn = (!tool_calls.is_empty())
            .then(|| {
                let content = parts.unwrap_or_else(|| Value::String(text.clone()));
                let content = (!text.is_empty() || content.is_array())
                    .then(|| Some((serde_json::value::to_raw_value(&content).ok()?, text.clone())))
                    .flatten();
                let thoughts = Thoughts {
                    reasoning_content: message.reasoning_content,
                    reasoning: message.reasoning,
                    reasoning_details: message.reasoning_details,
                };
                State { thoughts, content, calls: call_states }.text()
            })
            .flatten();
        let finish = match finish(sample.finish_reason.as_deref()) {
            Finish::Stop | Finish::Other if message.refusal.is_some() => Finish::Refusal,
            _ if malformed => Finish::Malformed,
            finish => finish,
        };
        Self {
            text: if text.is_empty() { sample.text.or(transcript).unwrap_or(text) } else { text },
            finish,
            native_finish: sample.native_finish_reason.or(sample.finish_reason).filter(|word| word != finish.name()),
            refusal: message.refusal,
            tool_calls,
            logprobs: sample.logprobs.map(Into::into),
            reasoning,
            turn,
            ..Self::default()
        }
    }
}

/// Token counts; also those of DeepSeek, which names its cache otherwise.
#[derive(Deserialize, Default)]
pub struct Counts {
    #[serde(default, deserialize_with = "lenient::count")]
    prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    completion_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    total_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::object")]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default, deserialize_with = "lenient::object")]
    completion_tokens_details: Option<AnswerDetails>,
    #[serde(default, deserialize_with = "lenient::count")]
    prompt_cache_hit_tokens: Option<u64>,
    /// Its price, where the provider tells it.
    #[serde(default)]
    pub cost: Option<Box<RawValue>>,
}

impl From<Counts> for TokenUsage {
    fn from(counts: Counts) -> Self {
        let (input, answer) = (counts.prompt_tokens.unwrap_or(0), counts.completion_tokens.unwrap_or(0));
        let reasoning = counts.completion_tokens_details.and_then(|details| details.reasoning_tokens).unwrap_or(0);
        // xAI counts thoughts beside the answer, others as a part of it: the total tells, or that they are more.
        let both = answer.saturating_add(reasoning);
        let are_apart = reasoning > answer || counts.total_tokens == Some(input.saturating_add(both));
        let output = if are_apart { both } else { answer };
        let details = counts.prompt_tokens_details.as_ref();
        Self {
            input,
            output,
            total: counts.total_tokens.unwrap_or(input.saturating_add(output)),
            cache_read: details.and_then(|d| d.cached_tokens).or(counts.prompt_cache_hit_tokens).unwrap_or(0),
            cache_write: details.and_then(|d| d.cache_write_tokens).unwrap_or(0),
            cache_write_hour: 0,
            cache_held: 0,
            reasoning,
        }
    }
}
