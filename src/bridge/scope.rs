//! Quota scopes as Python holds them: by a strategy, by a run, by the table of named ones.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tokio::time::Instant;

use super::runtime::Process;
use crate::engine::scope::Scope as Shared;

/// What everybody who asks the same provider with the same key for the same model shares. It is new in a forked child:
/// runs of its parent are in the other one, and its lock may be held by a thread that the child does not have.
#[pyclass(frozen, weakref, module = "batch_llm._core")]
pub struct Scope(Kind);

enum Kind {
    Own(ArcSwap<OfProcess>),
    /// Found by this, in each process.
    Elsewhere(Box<dyn Fn() -> Arc<Shared> + Send + Sync>),
}

struct OfProcess {
    process: Process,
    shared: Arc<Shared>,
}

impl OfProcess {
    fn new() -> Self {
        Self { process: Process::current(), shared: Arc::default() }
    }
}

impl Scope {
    /// That of this process.
    pub fn shared(&self) -> Arc<Shared> {
        let own = match &self.0 {
            Kind::Own(own) => own,
            Kind::Elsewhere(find) => return find(),
        };
        let present = own.load();
        if present.process == Process::current() {
            return Arc::clone(&present.shared);
        }
        let fresh = Arc::new(OfProcess::new());
        std::mem::forget(own.swap(Arc::clone(&fresh)));
        Arc::clone(&fresh.shared)
    }

    /// One that somebody else has in each process.
    pub fn found_by(find: impl Fn() -> Arc<Shared> + Send + Sync + 'static) -> Self {
        Self(Kind::Elsewhere(Box::new(find)))
    }
}

#[pymethods]
impl Scope {
    #[new]
    fn new() -> Self {
        Self(Kind::Own(ArcSwap::from_pointee(OfProcess::new())))
    }

    /// The limits in force: `{"measure", "amount", "per", "learned", "left"}`.
    fn limits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        limits(py, &self.shared())
    }
}

/// The limits of a scope as Python reads them.
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
