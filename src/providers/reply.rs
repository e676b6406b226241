//! What comes back from a model, in the same words for every dialect.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::engine::measure::ReportedLimit;

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
    /// Of these, tokens written for an hour.
    pub cache_write_hour: u64,
    /// Tokens that caches of ours hold at the provider, times hours: paid when they are made or prolonged.
    pub cache_held: u64,
    /// Tokens of the answer spent on reasoning.
    pub reasoning: u64,
}

impl TokenUsage {
    /// The sum of two.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            total: self.total.saturating_add(other.total),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            cache_write_hour: self.cache_write_hour.saturating_add(other.cache_write_hour),
            cache_held: self.cache_held.saturating_add(other.cache_held),
            reasoning: self.reasoning.saturating_add(other.reasoning),
        }
    }
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
    /// On the first call of a turn, what the provider wants back with the turn; see [`state`](super::state).
    pub state: Option<Arc<str>>,
}

impl ToolCall {
    /// A call without state.
    pub fn new(id: String, name: String, arguments: String) -> Self {
        Self { id, name, arguments, state: None }
    }

    /// Its arguments as a JSON object; where it needs none, some models write nothing.
    pub fn object(&self) -> &str {
        if matches!(self.arguments.trim(), "" | "null") { "{}" } else { &self.arguments }
    }
}

/// Arguments of a call as text: a string by the protocols of OpenAI, an object with some servers.
pub fn arguments(raw: Option<Box<RawValue>>) -> String {
    let Some(raw) = raw else { return "{}".to_owned() };
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) if text.trim().is_empty() => "{}".to_owned(),
        Ok(text) => text,
        Err(_) => String::from(Box::<str>::from(raw)),
    }
}

/// JSON text, as the provider wrote it: order of keys, digits of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonText(pub Box<str>);

impl From<Box<RawValue>> for JsonText {
    fn from(raw: Box<RawValue>) -> Self {
        Self(raw.into())
    }
}

/// Something else that a provider tells of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extra {
    /// A word.
    Text(String),
    /// Anything.
    Json(JsonText),
}

impl From<String> for Extra {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Box<RawValue>> for Extra {
    fn from(raw: Box<RawValue>) -> Self {
        Self::Json(raw.into())
    }
}

/// What else a provider tells, by name.
pub type Extras = Vec<(&'static str, Extra)>;

/// The entries that have a value.
pub fn extras<const N: usize>(entries: [(&'static str, Option<Extra>); N]) -> Extras {
    // Most replies have none: no memory for them.
    let mut extras = Vec::new();
    extras.extend(entries.into_iter().filter_map(|(name, extra)| Some((name, extra?))));
    extras
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
    /// The provider broke off: what there is of an answer is not the answer.
    Interrupted {
        /// Because it has too much to do.
        overloaded: bool,
    },
    /// The model wrote a call of a tool that cannot be read.
    Malformed,
    /// Whoever followed it had enough.
    Stopped,
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
            Self::Interrupted { .. } => "error",
            Self::Malformed => "malformed_tool_call",
            Self::Stopped => "stopped",
            Self::Other => "other",
        }
    }
}

/// One sample of the answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    /// What the model said.
    pub text: String,
    /// Whether that is JSON that was checked against a JSON Schema.
    pub checked: bool,
    /// Why it stopped.
    pub finish: Finish,
    /// The provider's own word for it, where that is another one.
    pub native_finish: Option<String>,
    /// Whether an empty answer is worth another attempt.
    pub retry_empty: bool,
    /// Its words of refusal.
    pub refusal: Option<String>,
    /// Tools it wants called.
    pub tool_calls: Vec<ToolCall>,
    /// Log-probabilities as the provider gives them.
    pub logprobs: Option<JsonText>,
    /// Its reasoning, where the provider shows it.
    pub reasoning: Option<String>,
    /// The turn as the provider wrote it, if tools are called and it must come back unchanged: JSON text.
    pub turn: Option<Box<str>>,
    /// The same as [`state`](super::state), of a reply without calls whose conversation goes on.
    pub state: Option<Arc<str>>,
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
    pub extras: Extras,
    /// The whole body, if it was asked for.
    pub raw: Option<Bytes>,
    /// How long the provider says that it took, milliseconds.
    pub processing_ms: Option<f64>,
    /// From the request to the first part of the answer, where it came as a stream.
    pub first_token: Option<Duration>,
    /// What its headers say about limits.
    pub limits: Vec<ReportedLimit>,
    /// A number for the account that its headers name: keys of one account share its limits.
    pub account: Option<u64>,
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
