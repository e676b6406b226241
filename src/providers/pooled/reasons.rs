//! What the end of a request says about its member, and what a fallback may be asked for.

use std::time::Duration;

use crate::engine::pool::health::Fault;
use crate::engine::pool::{Ending, Reason};
use crate::engine::quota::Used;
use crate::engine::{Usage, seconds};
use crate::providers::error::{Category, Contact, ProviderError};
use crate::providers::reply::{Reply, TokenUsage};

/// A key whose quota of the day is used up, or that has no money, is left alone for so long if nobody says how long.
const QUOTA: Duration = Duration::from_secs(60);

/// Why a fallback may be asked after this error. `is_corrected`: whether the model was shown what was wrong with its answer
/// before.
pub fn reason_of(error: &ProviderError, is_corrected: bool) -> Option<Reason> {
    match error.category() {
        Category::Refusal => Some(Reason::Refusal),
        Category::ContentFilter => Some(Reason::ContentFilter),
        Category::Validation if is_corrected => Some(Reason::Invalid),
        Category::Client if is_too_long(error) => Some(Reason::ContextLength),
        _ if ending_of_error(error).is_of_member() => Some(Reason::Overload),
        _ => None,
    }
}

/// How providers say that a prompt is too long: in a code, or in words.
fn is_too_long(error: &ProviderError) -> bool {
    let ProviderError::Status { code, message, .. } = error else { return false };
    says_too_long(code.as_deref(), message)
}

fn says_too_long(code: Option<&str>, message: &str) -> bool {
    const CODES: [&str; 4] = [
        "context_length_exceeded",
        "string_above_max_length",
        "model_max_prompt_tokens_exceeded",
        "exceed_context_size_error", // llama.cpp
    ];
    const WORDS: [&str; 8] = [
        "context length",
        "context window",
        "prompt is too long",
        "maximum context",
        "input is too long",
        "exceeds the maximum number of tokens",
        "longer than the model",
        "available context size", // llama.cpp
    ];
    if code.is_some_and(|code| CODES.contains(&code)) {
        return true;
    }
    let message = message.to_lowercase();
    WORDS.iter().any(|words| message.contains(words))
}

/// A failure of a strategy in Python, as its error classifier and the exception tell.
#[derive(Debug, Clone, Copy)]
pub struct ReportedFailure<'a> {
    /// As in results.
    pub category: &'a str,
    /// Whether another attempt may help.
    pub is_retryable: bool,
    /// Whether it is a rate limit.
    pub is_rate_limit: bool,
    /// The wait that the server asks for.
    pub wait: Option<Duration>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// The provider's code.
    pub code: Option<&'a str>,
    /// The exception's text.
    pub message: &'a str,
    /// Whether an answer to the same item was invalid before.
    pub was_invalid: bool,
}

impl ReportedFailure<'_> {
    /// What it says about the member.
    pub fn ending(&self) -> Ending {
        let failed = |fault| Ending::Failed { fault, overloaded: false };
        match self.category {
            "quota_exhausted" => Ending::RateLimited(self.wait.unwrap_or(QUOTA)),
            _ if self.is_rate_limit => Ending::RateLimited(self.wait.unwrap_or_default()),
            "authentication" | "insufficient_balance" => Ending::Dead,
            "client_error" if self.status.is_some_and(|status| lacks_model(status, self.code)) => Ending::Dead,
            "server_overload" => Ending::Failed { fault: Fault::Server, overloaded: true },
            "connection_error" => failed(Fault::Away),
            "permission_denied" | "invalid_response" => failed(Fault::Server),
            // These are of the answer.
            "validation_error" | "structured_output_validation_error" | "truncated" | "empty_response" => Ending::Alive,
            _ if self.is_retryable => failed(Fault::Server),
            _ => Ending::Alive,
        }
    }

    /// Why a fallback may be asked after it.
    pub fn reason(&self) -> Option<Reason> {
        match self.category {
            "refusal" => Some(Reason::Refusal),
            "content_filter" => Some(Reason::ContentFilter),
            "validation_error" | "structured_output_validation_error" => self.was_invalid.then_some(Reason::Invalid),
            "client_error" if says_too_long(self.code, self.message) => Some(Reason::ContextLength),
            _ => self.ending().is_of_member().then_some(Reason::Overload),
        }
    }

    /// Whether the answer was invalid.
    pub fn is_invalid(&self) -> bool {
        matches!(self.category, "validation_error" | "structured_output_validation_error")
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(category: &str) -> ReportedFailure<'_> {
        let (status, code, wait) = (None, None, None);
        let (is_rate_limit, is_retryable) = (category == "rate_limit", !matches!(category, "refusal" | "client_error"));
        ReportedFailure { category, is_retryable, is_rate_limit, wait, status, code, message: "no", was_invalid: false }
    }

    #[test]
    fn what_python_tells_is_judged_like_a_native_error() {
        let server = Ending::Failed { fault: Fault::Server, overloaded: false };
        for (category, ending, reason) in [
            ("rate_limit", Ending::RateLimited(Duration::ZERO), Some(Reason::Overload)),
            ("authentication", Ending::Dead, Some(Reason::Overload)),
            ("connection_error", Ending::Failed { fault: Fault::Away, overloaded: false }, Some(Reason::Overload)),
            ("unknown", server, Some(Reason::Overload)),
            ("refusal", Ending::Alive, Some(Reason::Refusal)),
            ("validation_error", Ending::Alive, None),
            ("client_error", Ending::Alive, None),
        ] {
            assert_eq!((failure(category).ending(), failure(category).reason()), (ending, reason), "{category}");
        }
        let gone = ReportedFailure { status: Some(404), ..failure("client_error") };
        assert_eq!(gone.ending(), Ending::Dead);
        let long = ReportedFailure { status: Some(400), message: "the Prompt is too long", ..failure("client_error") };
        assert_eq!((long.ending(), long.reason()), (Ending::Alive, Some(Reason::ContextLength)));
        let invalid = ReportedFailure { was_invalid: true, ..failure("validation_error") };
        assert_eq!(invalid.reason(), Some(Reason::Invalid));
    }
}
