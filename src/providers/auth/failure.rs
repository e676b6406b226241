//! Why there are no credentials, and what that means for a request.

use crate::providers::error::{Category, Contact, ProviderError};

/// Why credentials cannot be had. The message holds none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    message: String,
    /// Whether trying again may help.
    is_passing: bool,
}

impl Failure {
    /// Whoever gives them cannot be reached, or fails.
    pub fn away(message: String) -> Self {
        Self { message, is_passing: true }
    }

    /// They are not given: something has to be mended.
    pub fn rejected(message: String) -> Self {
        Self { message, is_passing: false }
    }

    /// Nobody fetches them any more.
    pub fn interrupted() -> Self {
        Self::away("the renewal of the credentials was interrupted".to_owned())
    }
}

impl From<Failure> for ProviderError {
    fn from(failure: Failure) -> Self {
        if failure.is_passing {
            return Self::Connection { message: failure.message, contact: Contact::None };
        }
        Self::Status {
            status: 401,
            message: failure.message,
            code: Some("credentials".to_owned()),
            category: Category::Authentication,
            retryable: false,
            retry_after: None,
            request_id: None,
            limits: Vec::new(),
            beginning: None,
        }
    }
}
