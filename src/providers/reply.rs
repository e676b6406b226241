//! What comes back from a model, in the same words for every dialect.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::engine::quota::Told;

/// Tokens of one call, the same for all providers: `input` is the whole prompt with its cached parts, `output` the
/// whole answer with its reasoning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// Tokens of the prompt.
    pub input: u64,
    /// Tokens of the answer.
    pub output: u64,
    /// The sum, or what the provider calls so.
    pub total: u64,
    /// Tokens of the prompt read from the provider's cache.
    pub cache_read: u64,
    /// Tokens of the prompt written to the provider's cache.
    pub cache_write: u64,
    /// Tokens of the answer spent on reasoning.
    pub reasoning: u64,
}

/// A tool the model wants called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The provider's name of the call; made up where it gives none.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments, JSON text.
    pub arguments: String,
}

/// Why the model stopped, in the same words for every dialect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Finish {
    /// It was done.
    #[default]
    Stop,
    /// The answer reached its longest length.
    Length,
    /// It wants tools called.
    ToolCalls,
    /// The provider's filter cut in.
    ContentFilter,
    /// It refused.
    Refusal,
    /// Anything else.
    Other,
}

impl Finish {
    /// The word that results carry: OpenAI's, where it has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::Refusal => "refusal",
            Self::Other => "other",
        }
    }
}

/// One sample of the answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    /// What the model said.
    pub text: String,
    /// The same as a value, when it was checked against a JSON Schema.
    pub value: Option<Value>,
    /// Why it stopped.
    pub finish: Finish,
    /// Its words of refusal.
    pub refusal: Option<String>,
    /// Tools it wants called.
    pub tool_calls: Vec<ToolCall>,
    /// Log-probabilities as the provider gives them.
    pub logprobs: Option<Value>,
    /// Its reasoning, where the provider shows it.
    pub reasoning: Option<String>,
}

/// The substance of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Of a chat: one sample or more.
    Chat(Vec<Choice>),
    /// Of an embedding.
    Vector(Vec<f32>),
}

impl Default for Output {
    fn default() -> Self {
        Self::Chat(Vec::new())
    }
}

/// The answer to one request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// What was asked for.
    pub output: Output,
    /// Whether several samples were asked for.
    pub many: bool,
    /// What it cost.
    pub usage: TokenUsage,
    /// The model that answered.
    pub model: Option<String>,
    /// The provider's id of the request, for its support.
    pub request_id: Option<String>,
    /// What else the provider tells: its tier, its price, safety ratings.
    pub extras: Map<String, Value>,
    /// The whole body, if it was asked for.
    pub raw: Option<Bytes>,
    /// How long the provider says that it took, milliseconds.
    pub processing_ms: Option<f64>,
    /// What its headers say about limits.
    pub limits: Vec<Told>,
}

impl Reply {
    /// The samples of a chat.
    pub fn choices(&self) -> &[Choice] {
        match &self.output {
            Output::Chat(choices) => choices,
            Output::Vector(_) => &[],
        }
    }
}
