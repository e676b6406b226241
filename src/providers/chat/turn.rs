//! What a server of Chat Completions wants back with a turn that called tools. Used by [`request`](super::request) and
//! [`reply`](super::reply); see [`state`](crate::providers::state).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The protocol, for errors and states of turns.
pub const PROTOCOL: &str = "Chat Completions";

/// The fields of a message in which servers keep a model's thoughts, and a content that is more than text; see
/// [`State`]. Each server gets back what it sent.
#[derive(Serialize, Deserialize, Default)]
pub struct Thoughts {
    /// DeepSeek, Moonshot, Zhipu, xAI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// OpenRouter, vLLM, Groq.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// OpenRouter, MiniMax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_details: Option<Box<RawValue>>,
}

/// What servers add to a call, as Gemini's signature in its OpenAI-compatible interface.
#[derive(Serialize, Deserialize, Default, Clone)]
pub struct CallState {
    /// As Gemini writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra_content: Option<Box<RawValue>>,
    /// As LiteLLM writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_specific_fields: Option<Box<RawValue>>,
}

impl CallState {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.extra_content.is_none() && self.provider_specific_fields.is_none()
    }
}

/// A turn that called tools, beside the calls themselves.
#[derive(Serialize, Deserialize)]
pub struct State {
    /// The thoughts.
    pub thoughts: Thoughts,
    /// The content, with its words.
    #[serde(default)]
    pub content: Option<(Box<RawValue>, String)>,
    /// By the id of the call.
    pub calls: Vec<(String, CallState)>,
}

impl State {
    /// The state as text, if there is any.
    pub fn text(self) -> Option<Box<str>> {
        let Thoughts { reasoning_content, reasoning, reasoning_details } = &self.thoughts;
        let is_empty = reasoning_content.is_none()
            && reasoning.is_none()
            && reasoning_details.is_none()
            && self.content.is_none()
            && self.calls.is_empty();
        if is_empty { None } else { serde_json::to_string(&self).ok().map(Into::into) }
    }
}
