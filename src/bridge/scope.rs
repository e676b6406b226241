//! Quota scopes as Python holds them: by a strategy, by a run, by the table of named ones.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tokio::time::Instant;

use crate::engine::scope::Scope as Shared;

/// What everybody who asks the same provider with the same key for the same model shares.
#[pyclass(frozen, weakref, module = "batch_llm._core")]
#[derive(Default)]
pub struct Scope(pub(super) Arc<Shared>);

#[pymethods]
impl Scope {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// The limits in force: `{"measure", "amount", "per", "learned", "left"}`.
    fn limits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        limits(py, &self.0)
    }
}

/// The limits of a scope as Python is told them.
pub fn limits<'py>(py: Python<'py>, scope: &Shared) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for (limit, learned, left) in scope.levels(Instant::now()) {
        let dict = PyDict::new(py);
        dict.set_item("measure", limit.measure.name())?;
        dict.set_item("amount", limit.amount)?;
        dict.set_item("per", limit.per.as_secs_f64())?;
        dict.set_item("learned", learned)?;
        dict.set_item("left", left)?;
        list.append(dict)?;
    }
    Ok(list)
}
