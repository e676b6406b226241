//! Batches of the simulated provider as Python sees them. Only the bridge's simulator calls this.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::simulator::{BatchFault, BatchFaultKind, BatchLane, BatchRow, BatchSettings, BatchSnapshot, Distribution};

/// A scheduled fault, read from a Python object with these attributes.
#[derive(FromPyObject)]
struct PyBatchFault {
    kind: String,
    every: u64,
    on: Vec<u64>,
    lines: usize,
}

impl TryFrom<PyBatchFault> for BatchFault {
    type Error = PyErr;

    fn try_from(fault: PyBatchFault) -> PyResult<Self> {
        let kind = BatchFaultKind::from_name(&fault.kind).map_err(PyValueError::new_err)?;
        Ok(Self { kind, every: fault.every, on: fault.on, lines: fault.lines.max(1) })
    }
}

/// How batches behave, read from a Python object with these attributes.
#[derive(FromPyObject)]
pub struct PyBatches {
    delay: f64,
    distribution: String,
    faults: Vec<PyBatchFault>,
    queue_tokens: Option<u64>,
    azure_at_once: bool,
    max_open: Option<usize>,
    list_lag: f64,
    time_scale: f64,
    poll_interval: Option<f64>,
    max_lines: Option<usize>,
    max_bytes: Option<usize>,
}

impl TryFrom<PyBatches> for BatchSettings {
    type Error = PyErr;

    fn try_from(batches: PyBatches) -> PyResult<Self> {
        let distribution = match batches.distribution.as_str() {
            "fixed" => None,
            other => Some(distribution(other)?),
        };
        Ok(Self {
            delay: batches.delay,
            distribution,
            faults: batches.faults.into_iter().map(BatchFault::try_from).collect::<PyResult<_>>()?,
            queue_tokens: batches.queue_tokens,
            azure_at_once: batches.azure_at_once,
            max_open: batches.max_open,
            list_lag: batches.list_lag,
            time_scale: batches.time_scale,
            poll_interval: batches.poll_interval,
            max_lines: batches.max_lines,
            max_bytes: batches.max_bytes,
        })
    }
}

/// A distribution of latencies from its name.
pub fn distribution(name: &str) -> PyResult<Distribution> {
    Ok(match name {
        "uniform" => Distribution::Uniform,
        "exponential" => Distribution::Exponential,
        "lognormal" => Distribution::LogNormal,
        other => {
            return Err(PyValueError::new_err(format!(
                "distribution must be uniform, exponential or lognormal (for batches also fixed), not {other:?}"
            )));
        }
    })
}

/// Seconds by which a clock is put forward.
pub fn forward(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("a clock can only be advanced (got {seconds} s)")))
}

/// All that is known of batches.
pub fn snapshot_dict(py: Python<'_>, snapshot: BatchSnapshot) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    let rows = snapshot.batches.into_iter().map(|row| row_dict(py, row)).collect::<PyResult<Vec<_>>>()?;
    dict.set_item("batches", PyList::new(py, rows)?)?;
    dict.set_item("per_nonce", snapshot.per_nonce)?;
    dict.set_item("questions", snapshot.questions)?;
    dict.set_item("paid_twice", snapshot.paid_twice)?;
    dict.set_item("calls", snapshot.calls)?;
    dict.set_item("peak_open", snapshot.peak_open)?;
    dict.set_item("peak_queue_tokens", snapshot.peak_queued)?;
    dict.set_item("now", snapshot.now)?;
    let violations = snapshot.violations.into_iter().map(|one| (one.at, one.rule, one.detail));
    dict.set_item("violations", violations.collect::<Vec<_>>())?;
    let lanes = snapshot.lanes.into_iter().map(|((lane, model), sums)| {
        let lane = if lane == BatchLane::Live { "live" } else { "batch" };
        (lane, model, sums.answers, sums.input, sums.output)
    });
    dict.set_item("lanes", lanes.collect::<Vec<_>>())?;
    Ok(dict)
}

fn row_dict(py: Python<'_>, row: BatchRow) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    let texts = [
        ("id", row.id.as_str()),
        ("provider", row.provider),
        ("state", row.state),
        ("end", row.end),
        ("label", row.label.as_str()),
        ("nonce", row.nonce.as_str()),
        ("file", row.file.as_str()),
        ("model", row.model.as_str()),
        ("endpoint", row.endpoint.as_str()),
    ];
    for (name, text) in texts {
        dict.set_item(name, text)?;
    }
    for (name, number) in [("lines", row.lines), ("succeeded", row.succeeded), ("failed", row.failed)] {
        dict.set_item(name, number)?;
    }
    dict.set_item("created", row.created)?;
    dict.set_item("ended", row.ended)?;
    dict.set_item("polls", row.polls)?;
    dict.set_item("account", row.account)?;
    Ok(dict)
}
