//! The simulated provider as Python sees it; `batch_llm.testing.SimulatedProvider` is its face.

use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::errors::BridgeError;
use super::runtime::Process;
use super::simulated_batches::{PyBatches, distribution, forward, snapshot_dict};
use crate::engine::seconds;
use crate::simulator::{
    Behaviour, CacheCounts, CacheSettings, CacheSums, CloudCounts, CloudSettings, Fault, FaultKind, Latency, Limits,
    Simulator,
};

/// A scheduled fault, read from a Python object with these attributes.
#[derive(FromPyObject)]
struct PyFault {
    kind: String,
    every: u64,
    on: Vec<u64>,
    between: Option<(u64, u64)>,
    retry_after: Option<f64>,
}

impl TryFrom<PyFault> for Fault {
    type Error = PyErr;

    fn try_from(fault: PyFault) -> PyResult<Self> {
        let kind = FaultKind::from_name(&fault.kind).map_err(PyValueError::new_err)?;
        let mut on = fault.on;
        on.sort_unstable();
        Ok(Self { kind, every: fault.every, on, between: fault.between, retry_after: fault.retry_after })
    }
}

/// The time to a reply, read from a Python object with these attributes.
#[derive(FromPyObject)]
struct PyLatency {
    fixed: f64,
    spread: f64,
    distribution: String,
    per_token: f64,
}

impl TryFrom<PyLatency> for Latency {
    type Error = PyErr;

    fn try_from(latency: PyLatency) -> PyResult<Self> {
        let distribution = distribution(&latency.distribution)?;
        Ok(Self {
            fixed: seconds(latency.fixed),
            spread: seconds(latency.spread),
            distribution,
            per_token: seconds(latency.per_token),
        })
    }
}

/// How it is to behave, read from a Python object with these attributes.
#[derive(FromPyObject)]
struct PyBehaviour {
    latency: PyLatency,
    faults: Vec<PyFault>,
    replies: Vec<String>,
    api_key: Option<String>,
    limits: (Option<f64>, Option<f64>, f64),
    seed: u64,
    counts_questions: bool,
    tls: bool,
    prompt_caches: Option<(f64, f64, f64)>,
    batches: PyBatches,
    clouds: Option<(f64, i64, u64)>,
    queued: Option<u64>,
}

impl TryFrom<PyBehaviour> for Behaviour {
    type Error = PyErr;

    fn try_from(given: PyBehaviour) -> PyResult<Self> {
        Ok(Self {
            latency: given.latency.try_into()?,
            faults: given.faults.into_iter().map(Fault::try_from).collect::<PyResult<_>>()?,
            replies: given.replies,
            api_key: given.api_key,
            limits: read_limits(given.limits),
            seed: given.seed,
            counts_questions: given.counts_questions,
            tls: given.tls,
            prompt_caches: given.prompt_caches.map(|(time_scale, per_machine, implicit)| CacheSettings {
                time_scale,
                per_machine,
                implicit,
            }),
            batches: given.batches.try_into()?,
            clouds: given.clouds.map(|(life, ahead, busy)| CloudSettings { life: seconds(life), ahead, busy }),
            queued: given.queued,
        })
    }
}

/// A running simulated provider.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct SimulatorHandle {
    process: Process,
    // None after a stop, and forgotten in a child process, which must not stop its parent's.
    simulator: Mutex<Option<Simulator>>,
    port: u16,
    ca: Option<String>,
}

#[pymethods]
impl SimulatorHandle {
    #[new]
    fn new(port: u16, behaviour: PyBehaviour) -> PyResult<Self> {
        let simulator = Simulator::start(behaviour.try_into()?, port).map_err(BridgeError::from)?;
        let (port, ca) = (simulator.address().port(), simulator.ca().map(str::to_owned));
        Ok(Self { process: Process::current(), simulator: Mutex::new(Some(simulator)), port, ca })
    }

    /// Changes the limits from now on.
    fn set_limits(&self, limits: (Option<f64>, Option<f64>, f64)) -> PyResult<()> {
        self.process.check()?;
        if let Some(simulator) = &*self.simulator.lock().unwrap_or_else(PoisonError::into_inner) {
            simulator.set_limits(&read_limits(limits));
        }
        Ok(())
    }

    #[getter]
    fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of its authority, PEM; None without TLS.
    #[getter]
    fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// The counters of a `Counts`; None after a stop.
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.process.check()?;
        let guard = self.simulator.lock().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().map(|simulator| counts_dict(py, simulator)).transpose()
    }

    /// All that is known of its batches; None after a stop.
    fn batches<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.process.check()?;
        // Lines may have to be answered first; nobody waits for Python meanwhile.
        let snapshot = py.detach(|| {
            let guard = self.simulator.lock().unwrap_or_else(PoisonError::into_inner);
            guard.as_ref().map(Simulator::batches)
        });
        snapshot.map(|snapshot| snapshot_dict(py, snapshot)).transpose()
    }

    /// Puts the clock of batches forward.
    fn advance(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        self.process.check()?;
        let by = forward(seconds)?;
        py.detach(|| {
            if let Some(simulator) = &*self.simulator.lock().unwrap_or_else(PoisonError::into_inner) {
                simulator.advance(by);
            }
        });
        Ok(())
    }

    /// Stops, and returns the last counts (None when it had stopped already).
    fn stop<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.process.check()?;
        let simulator = self.simulator.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut simulator) = simulator else { return Ok(None) };
        let counts = counts_dict(py, &simulator)?;
        py.detach(move || simulator.stop());
        Ok(Some(counts))
    }
}

impl Drop for SimulatorHandle {
    fn drop(&mut self) {
        if self.process.check().is_err() {
            std::mem::forget(self.simulator.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

fn read_limits((requests, tokens, burst): (Option<f64>, Option<f64>, f64)) -> Limits {
    Limits { requests, tokens, burst }
}

fn counts_dict<'py>(py: Python<'py>, simulator: &Simulator) -> PyResult<Bound<'py, PyDict>> {
    let counts = simulator.counts();
    let dict = PyDict::new(py);
    dict.set_item("requests", counts.requests)?;
    dict.set_item("peak_concurrency", counts.peak_concurrency)?;
    dict.set_item("statuses", counts.statuses)?;
    dict.set_item("per_second", counts.per_second)?;
    dict.set_item("input_tokens", counts.input_tokens)?;
    dict.set_item("output_tokens", counts.output_tokens)?;
    dict.set_item("paths", counts.paths)?;
    dict.set_item("questions", counts.questions)?;
    let faults = counts.faults.into_iter().map(|hit| (hit.request, hit.kind, hit.question));
    dict.set_item("faults", faults.collect::<Vec<_>>())?;
    let violations = counts.violations.iter().map(|early| (early.at, early.limit, early.early_by));
    dict.set_item("violations", violations.collect::<Vec<_>>())?;
    dict.set_item("clouds", simulator.cloud_counts().map(|counts| clouds_dict(py, counts)).transpose()?)?;
    dict.set_item("prompt_caches", simulator.cache_counts().map(|counts| ledger_dict(py, counts)).transpose()?)?;
    Ok(dict)
}

/// What clouds have given and checked.
fn clouds_dict<'py>(py: Python<'py>, counts: CloudCounts) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("issued", counts.issued)?;
    dict.set_item("refused", counts.refused)?;
    dict.set_item("admitted", counts.admitted)?;
    dict.set_item("rejected", counts.rejected)?;
    Ok(dict)
}

/// The ledger of prompt caches: the sums of each model by name, and the writes that nobody has read.
fn ledger_dict(py: Python<'_>, counts: CacheCounts) -> PyResult<Bound<'_, PyDict>> {
    let models = PyDict::new(py);
    for (model, sums) in counts.models {
        let CacheSums {
            requests,
            input,
            read,
            written,
            written_hour,
            output,
            hits,
            possible_hits,
            possible,
            necessary,
            created,
            stored_hours,
        } = sums;
        let dict = PyDict::new(py);
        let numbers = [
            ("requests", requests),
            ("input", input),
            ("read", read),
            ("written", written),
            ("written_hour", written_hour),
            ("output", output),
            ("hits", hits),
            ("possible_hits", possible_hits),
            ("possible", possible),
            ("necessary", necessary),
            ("created", created),
        ];
        for (name, number) in numbers {
            dict.set_item(name, number)?;
        }
        dict.set_item("stored_hours", stored_hours)?;
        models.set_item(model, dict)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("models", models)?;
    dict.set_item("wasted_writes", counts.wasted_writes)?;
    Ok(dict)
}
