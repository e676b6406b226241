//! What the end of a request says about its member, and what a fallback may be asked for.

use std::time::Duration;

use crate::engine::pool::Ending;
use crate::engine::pool::health::Fault;
use crate::engine::quota::Used;
use crate::engine::{Usage, seconds};
use crate::providers::error::{Category, Contact, ProviderError};
use crate::providers::reply::{Reply, TokenUsage};

/// A key whose quota of the day is used up, or that has no money, is left alone for so long if nobody says how long.
const QUOTA: Duration = Duration::from_secs(60);

/// Why a fallback is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The model refused.
    Refusal,
    /// No member can answer: all fail, or have too much to do.
    Overload,
    /// The prompt is too long for the model.
    ContextLength,
    /// The provider's filter cut in.
    ContentFilter,
    /// The answer did not match the schema, although the model was shown its mistake.
    Invalid,
    /// The answer is doubtful.
    Escalated,
}

/// A set of reasons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reasons(u8);

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Refusal, Self::Overload, Self::ContextLength, Self::ContentFilter, Self::Invalid, Self::Escalated];

    /// The name in results and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refusal => "refusal",
            Self::Overload => "overload",
            Self::ContextLength => "context_length",
            Self::ContentFilter => "content_filter",
            Self::Invalid => "invalid",
            Self::Escalated => "escalated",
        }
    }

    /// Why a fallback may be asked after this error. `is_corrected`: whether the model was shown what was wrong with its
    /// answer before.
    pub fn of(error: &ProviderError, is_corrected: bool) -> Option<Self> {
        match error.category() {
            Category::Refusal => Some(Self::Refusal),
            Category::ContentFilter => Some(Self::ContentFilter),
            Category::Validation if is_corrected => Some(Self::Invalid),
            Category::Client if is_too_long(error) => Some(Self::ContextLength),
            _ if ending_of_error(error).is_of_member() => Some(Self::Overload),
            _ => None,
        }
    }
}

impl Reasons {
    /// Those with these names.
    ///
    /// # Errors
    /// The first that is none.
    pub fn named(names: &[String]) -> Result<Self, &String> {
        names.iter().try_fold(Self::default(), |Self(all), name| {
            let known = Reason::ALL.into_iter().find(|reason| reason.name() == name).ok_or(name)?;
            Ok(Self(all | 1 << known as u8))
        })
    }

    /// Whether this is one of them.
    pub fn have(self, reason: Reason) -> bool {
        self.0 >> reason as u8 & 1 == 1
    }
}

/// How providers say that a prompt is too long: in a code, or in words.
fn is_too_long(error: &ProviderError) -> bool {
    const CODES: [&str; 3] = ["context_length_exceeded", "string_above_max_length", "model_max_prompt_tokens_exceeded"];
    const WORDS: [&str; 7] = [
        "context length",
        "context window",
        "prompt is too long",
        "maximum context",
        "input is too long",
        "exceeds the maximum number of tokens",
        "longer than the model",
    ];
    let ProviderError::Status { code, message, .. } = error else { return false };
    if code.as_deref().is_some_and(|code| CODES.contains(&code)) {
        return true;
    }
    let message = message.to_lowercase();
    WORDS.iter().any(|words| message.contains(words))
}

/// What the end of a request says about its member.
pub fn ending_of(outcome: &Result<Reply, ProviderError>) -> Ending {
    match outcome {
        Ok(_) => Ending::Answered,
        Err(error) => ending_of_error(error),
    }
}

fn ending_of_error(error: &ProviderError) -> Ending {
    let failed = |fault| Ending::Failed { fault, overloaded: false };
    let after = match error {
        ProviderError::Status { retry_after, .. } => retry_after.map(seconds),
        _ => None,
    };
    match (error, error.category()) {
        (ProviderError::Connection { contact, .. }, _) => match contact {
            Contact::None | Contact::Lost => failed(Fault::Away),
            Contact::Some => Ending::Alive,
        },
        (ProviderError::Timeout { contact, .. }, _) => {
            failed(if *contact == Contact::None { Fault::Away } else { Fault::Server })
        }
        (_, Category::RateLimit) => Ending::RateLimited(after.unwrap_or_default()),
        (_, Category::DailyQuota) => Ending::RateLimited(after.unwrap_or(QUOTA)),
        (_, Category::Authentication | Category::Billing) => Ending::Dead,
        (ProviderError::Status { status, code, .. }, Category::Client) if lacks_model(*status, code.as_deref()) => {
            Ending::Dead
        }
        (_, Category::Overload) => Ending::Failed { fault: Fault::Server, overloaded: true },
        (
            _,
            Category::Server | Category::Timeout | Category::Connection | Category::Protocol | Category::Permission,
        ) => failed(Fault::Server),
        _ => Ending::Alive,
    }
}

fn lacks_model(status: u16, code: Option<&str>) -> bool {
    const CODES: [&str; 5] =
        ["model_not_found", "invalid_model", "model_not_supported", "model_not_available", "DeploymentNotFound"];
    status == 404 || code.is_some_and(|code| CODES.iter().any(|known| known.eq_ignore_ascii_case(code)))
}

/// What a request used of its member's limits.
pub fn used_of(outcome: &Result<Reply, ProviderError>) -> Used {
    match outcome {
        Ok(reply) => Used::Reported(usage_of(&reply.usage)),
        Err(error) if !error.was_sent() => Used::Rejected,
        Err(error) => match (error.usage(), error) {
            (Some(usage), _) => Used::Reported(usage_of(usage)),
            (None, ProviderError::Status { .. }) => Used::Rejected,
            _ => Used::Unknown,
        },
    }
}

fn usage_of(usage: &TokenUsage) -> Usage {
    let TokenUsage { input, output, total, cache_read, cache_write, cache_write_hour, cache_held, .. } = *usage;
    Usage { input, output, total, cached: cache_read, cache_write, cache_write_hour, cache_held }
}
