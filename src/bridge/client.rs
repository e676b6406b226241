//! Native clients as Python sees them: opaque, and never able to show their key.

use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use secrecy::SecretString;

use super::runtime::{Process, awaitable};
use super::{convert, errors};
use crate::engine::seconds;
use crate::providers::openai::{OpenAi, Options};
use crate::providers::{Provider, ProviderError, Reply, Transport};

/// A client for Chat Completions.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct OpenAiClient {
    process: Process,
    provider: Arc<dyn Provider>,
}

#[pymethods]
impl OpenAiClient {
    #[new]
    #[pyo3(signature = (*, model, base_url, api_key, system_prompt, extra_body, extra_headers, connect_timeout,
        max_body_bytes))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        model: String,
        base_url: String,
        api_key: Option<String>,
        system_prompt: Option<String>,
        extra_body: &Bound<'_, PyDict>,
        extra_headers: Vec<(String, String)>,
        connect_timeout: f64,
        max_body_bytes: usize,
    ) -> PyResult<Self> {
        let body = pythonize::depythonize(extra_body)
            .map_err(|error| PyValueError::new_err(format!("extra_body cannot be written as JSON: {error}")))?;
        let transport = Transport { connect_timeout: seconds(connect_timeout), max_body_bytes, ..Transport::default() };
        let options = Options { model, base_url, system_prompt, body, headers: extra_headers, transport };
        let provider = OpenAi::new(options, api_key.map(SecretString::from)).map_err(PyValueError::new_err)?;
        Ok(Self { process: Process::current(), provider: Arc::new(provider) })
    }

    /// Sends one prompt outside of a run. Resolves to `(True, (text, usage, metadata))` or `(False, exception)`.
    fn complete<'py>(&self, py: Python<'py>, prompt: String, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        self.process.check()?;
        let attempt = self.provider.attempt(prompt);
        let limit: Duration = seconds(timeout);
        awaitable(py, async move {
            match tokio::time::timeout(limit, attempt).await {
                Ok(outcome) => Ok(Direct(outcome)),
                Err(_) => Err(PyTimeoutError::new_err(format!(
                    "no reply within {timeout} s; raise the timeout or ask for a shorter answer"
                ))),
            }
        })
    }
}

/// The outcome of a direct call, made into Python objects only where the interpreter is attached anyway.
struct Direct(Result<Reply, ProviderError>);

impl<'py> IntoPyObject<'py> for Direct {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (success, value) = match self.0 {
            Ok(reply) => (true, convert::reply(py, reply)?),
            Err(error) => (false, errors::provider_error(py, &error)?),
        };
        Ok((success, value).into_pyobject(py)?.into_any())
    }
}

impl OpenAiClient {
    /// The provider, for a run.
    pub fn provider(&self) -> PyResult<Arc<dyn Provider>> {
        self.process.check()?;
        Ok(Arc::clone(&self.provider))
    }
}
