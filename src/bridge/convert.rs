//! Values that cross the bridge.

use std::num::NonZeroUsize;
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::engine::{Backoff, ItemReport, Settings, Usage, seconds};
use crate::providers::Reply;

/// Settings as Python passes them: an object with these attributes, validated there.
#[derive(FromPyObject)]
pub struct PySettings {
    max_workers: usize,
    max_queue_size: usize,
    attempt_timeout: Option<f64>,
    abandon_after: f64,
    max_attempts: u32,
    max_rate_limit_retries: u32,
    initial_wait: f64,
    max_wait: f64,
    exponential_base: f64,
    jitter: bool,
    requests_per_minute: Option<f64>,
}

impl From<PySettings> for Settings {
    fn from(settings: PySettings) -> Self {
        Self {
            max_workers: NonZeroUsize::new(settings.max_workers).unwrap_or(NonZeroUsize::MIN),
            max_queue: NonZeroUsize::new(settings.max_queue_size),
            attempt_timeout: settings.attempt_timeout.map(seconds),
            abandon_after: seconds(settings.abandon_after),
            max_attempts: settings.max_attempts,
            max_rate_limit_retries: settings.max_rate_limit_retries,
            backoff: Backoff {
                initial: settings.initial_wait,
                max: settings.max_wait,
                base: settings.exponential_base,
                jitter: settings.jitter,
            },
            requests_per_minute: settings.requests_per_minute,
        }
    }
}

/// Seconds from Python, which validated them; nonsense becomes zero rather than a panic.
pub fn durations(delays: Vec<f64>) -> impl Iterator<Item = Duration> {
    delays.into_iter().map(seconds)
}

/// One count of a usage dict. Missing, None, negative and what is no number count as 0, as `TokenUsage` says.
fn count(dict: &Bound<'_, PyDict>, key: &Bound<'_, pyo3::types::PyString>) -> u64 {
    match dict.get_item(key) {
        Ok(Some(value)) => value.extract::<i64>().ok().and_then(|count| u64::try_from(count).ok()).unwrap_or(0),
        _ => 0,
    }
}

/// Reads a `TokenUsage`; anything but a dict is an empty one.
pub fn read_usage(usage: &Bound<'_, PyAny>) -> Usage {
    let py = usage.py();
    match usage.cast::<PyDict>() {
        Ok(dict) if !dict.is_empty() => Usage {
            input: count(dict, intern!(py, "input_tokens")),
            output: count(dict, intern!(py, "output_tokens")),
            total: count(dict, intern!(py, "total_tokens")),
            cached: count(dict, intern!(py, "cached_input_tokens")),
        },
        _ => Usage::default(),
    }
}

/// A `TokenUsage` with all four keys.
pub fn usage_dict<'py>(py: Python<'py>, usage: &Usage) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item(intern!(py, "input_tokens"), usage.input)?;
    dict.set_item(intern!(py, "output_tokens"), usage.output)?;
    dict.set_item(intern!(py, "total_tokens"), usage.total)?;
    dict.set_item(intern!(py, "cached_input_tokens"), usage.cached)?;
    Ok(dict)
}

/// How an item ended, from the parts that Python passes.
pub fn report(success: bool, error: Option<String>, usage: &Bound<'_, PyAny>) -> ItemReport {
    ItemReport { success, error, usage: read_usage(usage) }
}

/// A reply as Python takes it: `(text, usage dict, metadata dict)`.
pub fn reply<'py>(py: Python<'py>, reply: Reply) -> PyResult<Bound<'py, PyAny>> {
    let usage = usage_dict(py, &reply.usage)?;
    let metadata = PyDict::new(py);
    metadata.set_item(intern!(py, "finish_reason"), reply.finish_reason)?;
    metadata.set_item(intern!(py, "model"), reply.model)?;
    metadata.set_item(intern!(py, "request_id"), reply.request_id)?;
    metadata.set_item(intern!(py, "reasoning_tokens"), reply.reasoning_tokens)?;
    Ok((reply.text, usage, metadata).into_pyobject(py)?.into_any())
}
