//! The providers whose batches are imitated, and what is a number or a word of each.

use serde_json::{Value, json};

use super::timing::Phase;

/// A provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provider {
    /// OpenAI.
    OpenAi,
    /// Azure OpenAI.
    Azure,
    /// Anthropic.
    Anthropic,
    /// Gemini's API.
    Gemini,
    /// Mistral.
    Mistral,
    /// Groq.
    Groq,
    /// Together.
    Together,
    /// xAI.
    Xai,
    /// OpenRouter.
    OpenRouter,
}

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

impl Provider {
    /// Its name in `"name:model"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Azure => "azure",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Mistral => "mistral",
            Self::Groq => "groq",
            Self::Together => "together",
            Self::Xai => "xai",
            Self::OpenRouter => "openrouter",
        }
    }

    /// From a name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::OpenAi, Self::Azure, Self::Anthropic, Self::Gemini, Self::Mistral];
        let all = all.into_iter().chain([Self::Groq, Self::Together, Self::Xai, Self::OpenRouter]);
        all.into_iter().find(|provider| provider.name() == name)
    }

    /// Most lines of a batch.
    pub fn most_lines(self) -> usize {
        match self {
            Self::Azure | Self::Anthropic => 100_000,
            Self::OpenAi | Self::Groq | Self::Together => 50_000,
            Self::OpenRouter => 5_000,
            Self::Gemini | Self::Mistral | Self::Xai => 1_000_000,
        }
    }

    /// Most bytes of a batch's input.
    pub fn most_bytes(self) -> usize {
        match self {
            Self::Anthropic => 256_000_000,
            Self::Together => 100_000_000,
            Self::Gemini | Self::Mistral => 512 << 20,
            _ => 200 << 20,
        }
    }

    /// After so many seconds its time is over.
    pub fn expires_after(self) -> f64 {
        match self {
            Self::Azure => f64::INFINITY,
            Self::Gemini => 2.0 * DAY,
            _ => DAY,
        }
    }

    /// For so many seconds an uploaded file is kept.
    pub fn keeps_uploads(self) -> f64 {
        match self {
            Self::Azure => f64::INFINITY,
            Self::Gemini => 2.0 * DAY,
            _ => 30.0 * DAY,
        }
    }

    /// For so many seconds results are kept: after the end, with Anthropic from the creation on.
    pub fn keeps_results(self) -> f64 {
        match self {
            Self::Azure => f64::INFINITY,
            Self::Anthropic => 29.0 * DAY,
            Self::Gemini => 42.0 * DAY,
            Self::Mistral => DAY,
            _ => 30.0 * DAY,
        }
    }

    /// Most batches that an account may have open.
    pub fn max_open(self) -> Option<usize> {
        (self == Self::Gemini).then_some(100)
    }

    /// The shortest time between two looks at a batch that it allows, seconds.
    pub fn poll_interval(self) -> f64 {
        if self == Self::Azure { 60.0 } else { 0.0 }
    }

    /// Whether a batch that does not fit the queue is made, and refused afterwards.
    pub fn refuses_late(self) -> bool {
        matches!(self, Self::OpenAi | Self::Azure | Self::Groq)
    }

    /// The word for a phase.
    pub fn state(self, phase: Phase) -> &'static str {
        let place = match phase {
            Phase::Waiting => 0,
            Phase::Running => 1,
            Phase::Writing => 2,
            Phase::Cancelling => 3,
            Phase::Completed => 4,
            Phase::Failed => 5,
            Phase::Expired => 6,
            Phase::Cancelled => 7,
        };
        let words = match self {
            Self::Anthropic => {
                ["in_progress", "in_progress", "in_progress", "canceling", "ended", "ended", "ended", "ended"]
            }
            Self::Gemini => [
                "BATCH_STATE_PENDING",
                "BATCH_STATE_RUNNING",
                "BATCH_STATE_RUNNING",
                "BATCH_STATE_RUNNING",
                "BATCH_STATE_SUCCEEDED",
                "BATCH_STATE_FAILED",
                "BATCH_STATE_EXPIRED",
                "BATCH_STATE_CANCELLED",
            ],
            Self::Mistral => [
                "QUEUED",
                "RUNNING",
                "RUNNING",
                "CANCELLATION_REQUESTED",
                "SUCCESS",
                "FAILED",
                "TIMEOUT_EXCEEDED",
                "CANCELLED",
            ],
            Self::Together => {
                ["VALIDATING", "IN_PROGRESS", "IN_PROGRESS", "CANCELING", "COMPLETED", "FAILED", "EXPIRED", "CANCELLED"]
            }
            _ => {
                ["validating", "in_progress", "finalizing", "cancelling", "completed", "failed", "expired", "cancelled"]
            }
        };
        words[place]
    }

    /// The body of an error. `code`: as OpenAI has it.
    pub fn error(self, status: u16, code: Option<&str>, message: &str) -> Value {
        match self {
            Self::Anthropic => {
                let kind = match status {
                    401 => "authentication_error",
                    403 => "permission_error",
                    404 => "not_found_error",
                    413 => "request_too_large",
                    429 => "rate_limit_error",
                    500.. => "api_error",
                    _ => "invalid_request_error",
                };
                json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": null})
            }
            Self::Gemini => {
                let word = match status {
                    401 => "UNAUTHENTICATED",
                    403 => "PERMISSION_DENIED",
                    404 => "NOT_FOUND",
                    409 => "ALREADY_EXISTS",
                    429 => "RESOURCE_EXHAUSTED",
                    500 => "INTERNAL",
                    501.. => "UNAVAILABLE",
                    _ => "INVALID_ARGUMENT",
                };
                json!({"error": {"code": status, "status": word, "message": message}})
            }
            Self::Mistral => json!({"object": "error", "message": message, "type": kind_of(status), "code": code}),
            Self::Xai => json!({"code": code.unwrap_or_else(|| kind_of(status)), "error": message}),
            Self::OpenRouter => json!({"error": {"code": status, "message": message}}),
            _ => {
                json!({"error": {"message": message, "type": kind_of(status), "param": null, "code": code}})
            }
        }
    }
}

fn kind_of(status: u16) -> &'static str {
    match status {
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for name in ["openai", "azure", "anthropic", "gemini", "mistral", "groq", "together", "xai", "openrouter"] {
            assert_eq!(Provider::from_name(name).unwrap().name(), name);
        }
        assert_eq!(Provider::from_name("vllm"), None);
        assert_eq!(Provider::Gemini.state(Phase::Cancelled), "BATCH_STATE_CANCELLED");
        assert_eq!(Provider::Groq.state(Phase::Writing), "finalizing");
    }
}
