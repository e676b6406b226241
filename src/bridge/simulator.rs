//! The simulated provider as Python sees it; `batch_llm.testing.SimulatedProvider` is its face.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::errors::BridgeError;
use super::runtime::Process;
use crate::engine::seconds;
use crate::simulator::{Behaviour, Fault, Simulator};

/// A scheduled fault, read from a Python object with these attributes.
#[derive(FromPyObject)]
struct PyFault {
    status: u16,
    every: u64,
    on: Vec<u64>,
    retry_after: Option<f64>,
}

/// A running simulated provider.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct SimulatorHandle {
    process: Process,
    // None after a stop, and forgotten in a child process, which must not stop its parent's.
    simulator: Mutex<Option<Simulator>>,
    port: u16,
}

#[pymethods]
impl SimulatorHandle {
    #[new]
    #[pyo3(signature = (*, port, latency, latency_spread, faults, replies, api_key))]
    fn new(
        port: u16,
        latency: f64,
        latency_spread: f64,
        faults: Vec<PyFault>,
        replies: Vec<String>,
        api_key: Option<String>,
    ) -> PyResult<Self> {
        let faults = faults.into_iter().map(|fault| {
            let mut on = fault.on;
            on.sort_unstable();
            Fault { status: fault.status, every: fault.every, on, retry_after: fault.retry_after }
        });
        let behaviour = Behaviour {
            latency: seconds(latency),
            latency_spread: seconds(latency_spread),
            faults: faults.collect(),
            replies,
            api_key,
        };
        let simulator = Simulator::start(behaviour, port).map_err(BridgeError::from)?;
        let port = simulator.address().port();
        Ok(Self { process: Process::current(), simulator: Mutex::new(Some(simulator)), port })
    }

    #[getter]
    fn port(&self) -> u16 {
        self.port
    }

    /// `{"requests", "peak_concurrency", "statuses"}`; None after a stop.
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.process.check()?;
        let guard = self.simulator.lock().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().map(|simulator| counts_dict(py, simulator)).transpose()
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

fn counts_dict<'py>(py: Python<'py>, simulator: &Simulator) -> PyResult<Bound<'py, PyDict>> {
    let counts = simulator.counts();
    let dict = PyDict::new(py);
    dict.set_item("requests", counts.requests)?;
    dict.set_item("peak_concurrency", counts.peak_concurrency)?;
    dict.set_item("statuses", counts.statuses)?;
    Ok(dict)
}
