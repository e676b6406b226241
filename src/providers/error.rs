//! How a native attempt can fail, and what each failure means. No message ever holds a key: requests are not part of
//! any of them.

use super::reply::TokenUsage;
use super::shown::Quoted;
use crate::engine::measure::ReportedLimit;

/// What a failure means for the item and for everybody else. The names are those of results and statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// Too many requests or tokens: everybody pauses.
    RateLimit,
    /// No money, or a spending limit reached: waiting does not help.
    Billing,
    /// The quota of the day is used up: waiting does not help today.
    DailyQuota,
    /// The provider has too much to do, whoever asks.
    Overload,
    /// The provider failed.
    Server,
    /// The provider, or the way to it, took too long.
    Timeout,
    /// No reply came.
    Connection,
    /// The key is wrong.
    Authentication,
    /// The key may not do this.
    Permission,
    /// The request is wrong.
    Client,
    /// The reply is not what the protocol says.
    Protocol,
    /// The model's own refusal.
    Refusal,
    /// The answer was cut at its longest length.
    Truncated,
    /// The provider's filter cut in.
    ContentFilter,
    /// The model said nothing.
    Empty,
    /// The answer does not fit the schema.
    Validation,
}

impl Category {
    /// The name in results and statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::RateLimit => "rate_limit",
            Self::Billing => "insufficient_balance",
            Self::DailyQuota => "quota_exhausted",
            Self::Overload => "server_overload",
            Self::Server => "server_error",
            Self::Timeout => "api_timeout",
            Self::Connection => "connection_error",
            Self::Authentication => "authentication",
            Self::Permission => "permission_denied",
            Self::Client => "client_error",
            Self::Protocol => "invalid_response",
            Self::Refusal => "refusal",
            Self::Truncated => "truncated",
            Self::ContentFilter => "content_filter",
            Self::Empty => "empty_response",
            Self::Validation => "structured_output_validation_error",
        }
    }

    /// Whether another attempt may help.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::RateLimit
            | Self::Overload
            | Self::Server
            | Self::Timeout
            | Self::Connection
            | Self::Protocol
            | Self::Validation => true,
            Self::Billing
            | Self::DailyQuota
            | Self::Authentication
            | Self::Permission
            | Self::Client
            | Self::Refusal
            | Self::Truncated
            | Self::ContentFilter
            | Self::Empty => false,
        }
    }
}

/// Why a valid reply is of no use.
#[derive(Debug, Clone, PartialEq)]
pub struct Unusable {
    /// What that means.
    pub category: Category,
    /// Whether another attempt may help.
    pub retryable: bool,
    /// Why the model stopped.
    pub finish_reason: &'static str,
    /// The provider's own word for it, where that is another one.
    pub native_finish: Option<String>,
    /// What it said all the same: its words of refusal, or the beginning of an answer.
    pub text: String,
    /// What it cost.
    pub usage: TokenUsage,
    /// The provider's id of the request.
    pub request_id: Option<String>,
}

/// A stream that ended before the reply was whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Cut {
    /// What that means.
    pub category: Category,
    /// Why it ended, and after what.
    pub message: String,
    /// The text until then.
    pub text: String,
    /// What it cost, as far as the provider had said.
    pub usage: TokenUsage,
}

/// What there was of an answer before an error.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Beginning {
    /// Its text, if the error ended a stream.
    pub text: String,
    /// What it cost.
    pub usage: TokenUsage,
}

/// How far a request got that was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// There was no connection to the server.
    None,
    /// The connection broke.
    Lost,
    /// That says nothing about the server: the reply was too long, or took too long.
    Some,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProviderError {
    /// The provider answered with an error.
    #[error("HTTP {status}: {message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The provider's message, or the beginning of the body.
        message: String,
        /// The machine-readable code of the body, if it has one.
        code: Option<String>,
        /// What it means.
        category: Category,
        /// Whether another attempt may help: the category's word, unless the server has one of its own.
        retryable: bool,
        /// The server's word when to come back, seconds.
        retry_after: Option<f64>,
        /// The provider's id of the request.
        request_id: Option<String>,
        /// What its headers say about limits.
        limits: Vec<ReportedLimit>,
        /// What there was of an answer all the same.
        beginning: Option<Box<Beginning>>,
    },
    /// No reply came: refused, reset, cut, unresolvable.
    #[error("connection failed: {message}")]
    Connection {
        /// The cause, in the words of the network stack.
        message: String,
        /// How far the request got.
        contact: Contact,
    },
    /// Connecting, or a part of the reply, took too long.
    #[error("timed out: {message}")]
    Timeout {
        /// What took too long.
        message: String,
        /// How far the request got.
        contact: Contact,
    },
    /// A stream that ended before the reply was whole. What there is of it is never a success.
    #[error("{}", .0.message)]
    Cut(Box<Cut>),
    /// The request cannot be expressed in this provider's dialect.
    #[error("{0}")]
    Request(String),
    /// Nothing was sent, for the request is to be sent by itself instead of in a batch. Why, in one word. No failure: whoever
    /// hears it sends the request the other way.
    #[error("the request is to be sent one by one, not in a batch ({0})")]
    Elsewhere(&'static str),
    /// The answer comes later, and to the desk that the question has named. No failure.
    #[error("the answer comes later")]
    Deferred,
    /// A success status, but the body is not what the protocol says.
    #[error("the reply is not a valid {protocol} response: {problem}; it begins {}", Quoted(.excerpt))]
    Protocol {
        /// The protocol that was expected.
        protocol: &'static str,
        /// What is wrong.
        problem: String,
        /// The beginning of the body.
        excerpt: String,
    },
    /// A valid reply that is of no use.
    #[error("{}", describe(.0))]
    Unusable(Box<Unusable>),
    /// An answer that does not fit the schema that was asked for.
    #[error("the answer does not match the schema: {problem}")]
    Validation {
        /// What is wrong with it.
        problem: String,
        /// What the model said.
        text: String,
        /// What it cost.
        usage: Box<TokenUsage>,
        /// The provider's id of the request.
        request_id: Option<String>,
    },
}

impl ProviderError {
    /// What it means.
    pub fn category(&self) -> Category {
        match self {
            Self::Status { category, .. } => *category,
            Self::Connection { .. } => Category::Connection,
            Self::Timeout { .. } => Category::Timeout,
            Self::Request(_) | Self::Elsewhere(_) | Self::Deferred => Category::Client,
            Self::Protocol { .. } => Category::Protocol,
            Self::Cut(cut) => cut.category,
            Self::Unusable(unusable) => unusable.category,
            Self::Validation { .. } => Category::Validation,
        }
    }

    /// Whether another attempt may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Status { retryable, .. } => *retryable,
            Self::Unusable(unusable) => unusable.retryable,
            other => other.category().is_retryable(),
        }
    }

    /// Whether it says that the server is away, not that anything is wrong with the request.
    pub fn server_away(&self) -> bool {
        match self {
            // Some servers say with 500 that the request is wrong; then the words in it say so.
            Self::Status { status, category, .. } => {
                *status >= 500 && matches!(category, Category::Server | Category::Overload | Category::Timeout)
            }
            Self::Connection { contact, .. } => *contact != Contact::Some,
            Self::Timeout { contact, .. } => *contact == Contact::None,
            _ => false,
        }
    }

    /// Whether the request may have reached the server.
    pub fn was_sent(&self) -> bool {
        match self {
            Self::Connection { contact, .. } | Self::Timeout { contact, .. } => *contact != Contact::None,
            Self::Request(_) | Self::Elsewhere(_) | Self::Deferred => false,
            _ => true,
        }
    }

    /// Whether it is more than an error object without a word or a status that is known.
    pub fn says_what(&self) -> bool {
        !matches!(self, Self::Status { status: 200, category: Category::Server, .. })
    }

    /// The same error, with what was paid before it came.
    #[must_use]
    pub fn with_usage(mut self, paid: TokenUsage) -> Self {
        match &mut self {
            Self::Status { beginning, .. } if paid != TokenUsage::default() => {
                let usage = &mut beginning.get_or_insert_default().usage;
                *usage = usage.plus(&paid);
            }
            Self::Cut(cut) => cut.usage = cut.usage.plus(&paid),
            Self::Unusable(unusable) => unusable.usage = unusable.usage.plus(&paid),
            Self::Validation { usage, .. } => **usage = usage.plus(&paid),
            _ => {}
        }
        self
    }

    /// The same error, as if nothing had been paid for it.
    #[must_use]
    pub fn without_usage(mut self) -> Self {
        match &mut self {
            Self::Status { beginning: Some(beginning), .. } => beginning.usage = TokenUsage::default(),
            Self::Cut(cut) => cut.usage = TokenUsage::default(),
            Self::Unusable(unusable) => unusable.usage = TokenUsage::default(),
            Self::Validation { usage, .. } => **usage = TokenUsage::default(),
            _ => {}
        }
        self
    }

    /// The same error, which ended a stream with this beginning of an answer.
    #[must_use]
    pub fn with_beginning(mut self, text: String) -> Self {
        if let Self::Status { beginning, .. } = &mut self
            && !text.is_empty()
        {
            beginning.get_or_insert_default().text = text;
        }
        self
    }

    /// What the reply's headers say about limits.
    pub fn limits(&self) -> &[ReportedLimit] {
        match self {
            Self::Status { limits, .. } => limits,
            _ => &[],
        }
    }

    /// What the attempt cost all the same.
    pub fn usage(&self) -> Option<&TokenUsage> {
        match self {
            Self::Status { beginning, .. } => {
                beginning.as_ref().map(|beginning| &beginning.usage).filter(|usage| **usage != TokenUsage::default())
            }
            Self::Cut(cut) => Some(&cut.usage).filter(|usage| **usage != TokenUsage::default()),
            Self::Unusable(unusable) => Some(&unusable.usage),
            Self::Validation { usage, .. } => Some(usage),
            _ => None,
        }
    }
}

fn describe(unusable: &Unusable) -> String {
    let Unusable { category, text, .. } = unusable;
    let finish_reason = unusable.native_finish.as_deref().unwrap_or(unusable.finish_reason);
    let what = match category {
        Category::Refusal => "the model refused to answer",
        Category::Truncated if finish_reason == "pause_turn" => "the model paused its turn too often",
        Category::Overload | Category::Server => "the provider interrupted the answer",
        Category::Validation => "the model wrote an invalid tool call",
        Category::Truncated => "the answer was truncated at max_tokens; raise it",
        Category::ContentFilter => "the provider's content filter blocked the prompt or the answer",
        _ => "the model returned no text",
    };
    let said = if text.is_empty() { String::new() } else { format!(": {}", excerpt(text.as_bytes())) };
    format!("{what} (finish reason: {finish_reason}){said}")
}

/// The beginning of a body, for a message.
pub fn excerpt(body: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * LONGEST)]);
    text.trim().chars().take(LONGEST).collect()
}
