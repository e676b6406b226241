//! The one place where errors of the floors below become Python exceptions.

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use super::convert;
use crate::engine::run::Broken;
use crate::providers::ProviderError;

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
    #[error("the engine of this run failed earlier; its results so far are kept, start a new run")]
    Broken(#[from] Broken),
    /// The operating system refused something.
    #[error("the operating system refused a resource: {0}")]
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

fn class<'py>(py: Python<'py>, cell: &'static PyOnceLock<Py<PyType>>, name: &str) -> PyResult<&'py Bound<'py, PyType>> {
    cell.import(py, "batch_llm.errors", name)
}

/// The exception for a failed native attempt: `batch_llm.errors.ProviderError` or a subclass.
pub fn provider_error<'py>(py: Python<'py>, error: &ProviderError) -> PyResult<Bound<'py, PyAny>> {
    static STATUS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static CONNECTION: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static TIMEOUT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static REPLY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static EMPTY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let details = PyDict::new(py);
    let class = match error {
        ProviderError::Status { status, code, retry_after, request_id, .. } => {
            details.set_item("status_code", status)?;
            details.set_item("code", code)?;
            details.set_item("retry_after", retry_after)?;
            details.set_item("request_id", request_id)?;
            class(py, &STATUS, "ProviderError")?
        }
        ProviderError::Connection { .. } => class(py, &CONNECTION, "ProviderConnectionError")?,
        ProviderError::Timeout { .. } => class(py, &TIMEOUT, "ProviderTimeoutError")?,
        ProviderError::Reply { .. } => class(py, &REPLY, "ProviderResponseError")?,
        ProviderError::Empty { finish_reason, usage, .. } => {
            details.set_item("finish_reason", finish_reason)?;
            details.set_item("token_usage", convert::usage_dict(py, usage)?)?;
            class(py, &EMPTY, "EmptyResponseError")?
        }
    };
    class.call((error.to_string(),), Some(&details))
}
