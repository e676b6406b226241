//! The one place where errors of the floors below become Python exceptions.

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use super::convert;
use crate::engine::run::Broken;
use crate::journal::error::JournalError;
use crate::providers::error::Unusable;
use crate::providers::{Category, ProviderError};

/// What can go wrong in the bridge itself.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// Used in a child process.
    #[error(
        "this object was made before a fork and cannot be used in the child process; \
         create the processor and its strategies in the process that runs them (or start children with 'spawn')"
    )]
    Forked,
    /// See [`Broken`].
    #[error("the engine of this run failed earlier; finished results are in partial_result(). Start a new run")]
    Broken(#[from] Broken),
    /// The operating system refused something.
    #[error("the operating system reported an error: {0}")]
    System(#[from] std::io::Error),
}

impl From<BridgeError> for PyErr {
    fn from(error: BridgeError) -> Self {
        let message = error.to_string();
        match error {
            BridgeError::Forked | BridgeError::Broken(_) => PyRuntimeError::new_err(message),
            BridgeError::System(_) => PyOSError::new_err(message),
        }
    }
}

/// Does something with what came from outside; should it panic, that is an exception as others are, and not one that ends
/// the program. Whatever it had begun is dropped.
///
/// # Errors
/// What it returns, or `RuntimeError`.
pub fn guarded<T>(work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()))
}

/// The exception for a panic of ours.
pub fn panicked() -> PyErr {
    PyRuntimeError::new_err(
        "batch-llm's extension panicked. This is a bug; please report it with the arguments of this call",
    )
}

/// The exception for a journal that cannot be used: `ArtifactFormatError` or `ArtifactIOError`.
pub fn journal_error(py: Python<'_>, error: &JournalError) -> PyErr {
    static FORMAT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static IO: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = match error.is_format() {
        true => FORMAT.import(py, "batch_llm.errors", "ArtifactFormatError"),
        false => IO.import(py, "batch_llm.errors", "ArtifactIOError"),
    };
    class.and_then(|class| class.call1((error.to_string(),))).map_or_else(|error| error, PyErr::from_value)
}

/// The exception for a failed native attempt: `batch_llm.errors.ProviderError` or a subclass.
pub fn provider_error<'py>(py: Python<'py>, error: &ProviderError) -> PyResult<Bound<'py, PyAny>> {
    let details = PyDict::new(py);
    details.set_item("category", error.category().name())?;
    details.set_item("is_retryable", error.is_retryable())?;
    if error.server_away() {
        details.set_item("server_away", true)?;
    }
    if !error.was_sent() {
        details.set_item("was_sent", false)?;
    }
    if let Some(usage) = error.usage() {
        details.set_item("token_usage", convert::usage_dict(py, usage)?)?;
    }
    match error {
        ProviderError::Status { status, code, retry_after, request_id, beginning, .. } => {
            details.set_item("status_code", status)?;
            details.set_item("code", code)?;
            details.set_item("retry_after", retry_after)?;
            details.set_item("request_id", request_id)?;
            let text = beginning.as_ref().map(|beginning| beginning.text.as_str()).filter(|text| !text.is_empty());
            details.set_item("text", text)?;
        }
        ProviderError::Unusable(unusable) => {
            let Unusable { finish_reason, native_finish, text, request_id, .. } = unusable.as_ref();
            details.set_item("native_finish_reason", native_finish)?;
            details.set_item("finish_reason", finish_reason)?;
            details.set_item("text", text)?;
            details.set_item("request_id", request_id)?;
        }
        ProviderError::Cut(cut) => details.set_item("text", &cut.text)?,
        ProviderError::Validation { problem, text, request_id, .. } => {
            details.set_item("problem", problem)?;
            details.set_item("text", text)?;
            details.set_item("request_id", request_id)?;
        }
        ProviderError::Elsewhere(why) => details.set_item("text", why)?,
        ProviderError::Connection { .. }
        | ProviderError::Timeout { .. }
        | ProviderError::Request(_)
        | ProviderError::Deferred
        | ProviderError::Protocol { .. } => {}
    }
    class(py, error)?.call((error.to_string(),), Some(&details))
}

fn class<'py>(py: Python<'py>, error: &ProviderError) -> PyResult<&'py Bound<'py, PyType>> {
    macro_rules! named {
        ($name:literal) => {{
            static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
            CLASS.import(py, "batch_llm.errors", $name)
        }};
    }
    match (error, error.category()) {
        (ProviderError::Request(_), _) => named!("PromptError"),
        (ProviderError::Elsewhere(_), _) => named!("LaneChange"),
        (_, Category::Connection) => named!("ProviderConnectionError"),
        (ProviderError::Timeout { .. }, _) | (ProviderError::Cut(_), Category::Timeout) => {
            named!("ProviderTimeoutError")
        }
        (_, Category::Protocol) => named!("ProviderResponseError"),
        (_, Category::Refusal) => named!("RefusalError"),
        (_, Category::Truncated) => named!("TruncatedResponseError"),
        (_, Category::ContentFilter) => named!("ContentFilterError"),
        (_, Category::Empty) => named!("EmptyResponseError"),
        (_, Category::Validation) => named!("StructuredOutputValidationError"),
        (
            _,
            Category::RateLimit
            | Category::Billing
            | Category::DailyQuota
            | Category::Overload
            | Category::Server
            | Category::Timeout
            | Category::Authentication
            | Category::Permission
            | Category::Client,
        ) => named!("ProviderError"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_exception_as_others_are() {
        assert_eq!(guarded(|| Ok(1)).ok(), Some(1));
        assert!(guarded::<u8>(|| std::panic::resume_unwind(Box::new("a bug"))).is_err());
    }
}
