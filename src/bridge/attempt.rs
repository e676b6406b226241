//! Attempts that nobody but their strategy has a part in, as coroutines: the hot path of most items.
//!
//! asyncio runs it in a task like any other coroutine. It calls `execute()`, passes on what that awaits, and records
//! the result; whatever else happens (a failure, an odd answer, a post-processor) is a coroutine of the pipeline in
//! `python/batch_llm/_attempts.py`, which it then runs in its own place. In Python the same steps take twice as long.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PySendResult, PyTuple, PyType};

use super::flight::{Flight, Phase, Plain};
use super::run::RunHandle;
use super::timing::Timing;
use crate::engine::ItemIndex;

/// What all plain attempts of one run share.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct PlainAttempts {
    pipeline: Py<PyAny>,
    handle: Py<RunHandle>,
    results: Py<PyList>,
    flights: Py<PyDict>,
    /// Passed to `execute()`.
    timeout: Py<PyAny>,
    classes: Classes,
    /// Whether nobody is told of single results.
    quiet: bool,
    /// The strategy whose attempts were last found to be plain, and whether it cleans up after each item.
    usual: Mutex<Option<(Py<PyAny>, bool)>>,
}

#[derive(FromPyObject)]
struct Classes {
    result: Py<PyType>,
    state: Py<PyType>,
    coroutine: Py<PyType>,
    /// Outputs of this class need a look.
    special: Py<PyType>,
}

#[pymethods]
impl PlainAttempts {
    #[new]
    #[pyo3(signature = (*, pipeline, handle, results, flights, timeout, classes, quiet))]
    fn new(
        pipeline: Py<PyAny>,
        handle: Py<RunHandle>,
        results: Py<PyList>,
        flights: Py<PyDict>,
        timeout: Py<PyAny>,
        classes: Classes,
        quiet: bool,
    ) -> Self {
        Self { pipeline, handle, results, flights, timeout, classes, quiet, usual: Mutex::default() }
    }

    /// Attempts with this strategy are plain from now on.
    fn remember(&self, strategy: Py<PyAny>, must_clean_up: bool) {
        let _before = self.usual().replace((strategy, must_clean_up));
    }

    /// Begins the first attempt of an item, if it is a plain one: nearly every item comes this way, and needs no Python
    /// but its strategy's.
    fn begin<'py>(
        slf: &Bound<'py, Self>,
        index: ItemIndex,
        item: Bound<'py, PyAny>,
        attempt: u32,
        timing: Py<Timing>,
    ) -> PyResult<Option<Bound<'py, Flight>>> {
        let py = slf.py();
        let strategy = item.getattr(intern!(py, "strategy"))?;
        let must_clean_up = match &*slf.get().usual() {
            Some((usual, must_clean_up)) if usual.is(&strategy) => *must_clean_up,
            _ => return Ok(None),
        };
        let plain = Plain { shared: slf.clone().unbind(), strategy: strategy.unbind(), must_clean_up };
        Bound::new(py, Flight::planned(index, item.unbind(), attempt, timing, plain)).map(Some)
    }

    /// Records the answer to a first attempt that began and ended without Python, and that the engine has counted.
    fn done(
        &self,
        index: ItemIndex,
        item: &Bound<'_, PyAny>,
        timing: Py<Timing>,
        answer: (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>),
    ) -> PyResult<()> {
        let (output, usage, metadata) = answer;
        let result = self.result(item, index, 1, &timing, (output, &usage, Some(metadata)))?;
        self.results.bind(item.py()).append(result)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.pipeline)?;
        visit.call(&self.handle)?;
        visit.call(&self.results)?;
        visit.call(&self.flights)?;
        if let Ok(usual) = self.usual.try_lock()
            && let Some((strategy, _)) = &*usual
        {
            visit.call(strategy)?;
        }
        visit.call(&self.timeout)
    }
}

/// What the task passes in.
pub(super) enum Input<'py> {
    Send(Bound<'py, PyAny>),
    Throw(Bound<'py, PyAny>),
}

/// Runs until something is awaited (returned, for the task to wait for) or the attempt is over (`None`).
pub(super) fn step<'py>(slf: &Bound<'py, Flight>, mut input: Input<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = slf.py();
    let flight = slf.get();
    let none = || Input::Send(py.None().into_bound(py));
    let (shared, strategy, must_clean_up) = match &flight.state().plain {
        Some(plain) => (plain.shared.clone_ref(py), plain.strategy.clone_ref(py), plain.must_clean_up),
        None => return Err(PyRuntimeError::new_err("this flight is no plain attempt")),
    };
    let (shared, strategy) = (shared.get(), strategy.bind(py));
    loop {
        let (inner, calling) = match &flight.state().phase {
            Phase::Calling(inner) => (Some(inner.clone_ref(py)), true),
            Phase::Following(inner) => (Some(inner.clone_ref(py)), false),
            Phase::Fresh => (None, true),
            Phase::Over => return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine")),
        };
        let outcome = match (inner, input) {
            (None, Input::Send(_)) => match shared.call(slf, strategy) {
                Ok(call) => {
                    flight.set_phase(Phase::Calling(call.unbind()));
                    input = none();
                    continue;
                }
                Err(error) => Err(error),
            },
            (None, Input::Throw(error)) => Err(PyErr::from_value(error)),
            (Some(inner), Input::Send(value)) => resume(&inner.into_bound(py), &value),
            (Some(inner), Input::Throw(error)) => throw(&inner.into_bound(py), error),
        };
        let next = match outcome {
            Ok(PySendResult::Next(awaited)) => {
                if calling {
                    shared.register(slf)?;
                }
                return Ok(Some(awaited));
            }
            Ok(PySendResult::Return(answer)) if calling => {
                match shared.answered(slf, strategy, must_clean_up, &answer) {
                    Ok(next) => next,
                    Err(error) => {
                        shared.pipeline.call_method1(py, intern!(py, "break_run"), (error,))?;
                        None
                    }
                }
            }
            Ok(PySendResult::Return(_)) => None,
            Err(error) if calling => {
                shared.register(slf)?;
                Some(shared.pipeline.call_method1(py, intern!(py, "failed_somehow"), (slf, error))?)
            }
            Err(error) => {
                flight.set_phase(Phase::Over);
                return Err(error);
            }
        };
        match next {
            Some(coroutine) => flight.set_phase(Phase::Following(coroutine)),
            None => {
                flight.set_phase(Phase::Over);
                return Ok(None);
            }
        }
        input = none();
    }
}

impl PlainAttempts {
    fn usual(&self) -> MutexGuard<'_, Option<(Py<PyAny>, bool)>> {
        self.usual.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a flight where the run finds it; an attempt that ends without waiting never gets there.
    fn register(&self, flight: &Bound<'_, Flight>) -> PyResult<()> {
        self.flights.bind(flight.py()).set_item(flight.get().index, flight)
    }

    /// Calls `execute()`; what it returns is a coroutine.
    fn call<'py>(&self, flight: &Bound<'py, Flight>, strategy: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = flight.py();
        let item = flight.get().item.bind(py);
        let notes = match flight.get().notes(py) {
            Some(notes) => notes,
            // Without calling `__init__`, as the class expects: most notes are never looked into.
            None => {
                let class = self.classes.state.bind(py);
                class.call_method1(intern!(py, "__new__"), (class,))?.unbind()
            }
        };
        flight.get().begin_execution(Some(notes.clone_ref(py)));
        let prompt = item.getattr(intern!(py, "prompt"))?;
        let arguments = (prompt, flight.get().attempt(), &self.timeout, notes);
        let call = strategy.call_method1(intern!(py, "execute"), arguments)?;
        if call.get_type().is(&self.classes.coroutine) {
            return Ok(call);
        }
        self.pipeline.bind(py).call_method1(intern!(py, "as_coroutine"), (call, strategy))
    }

    /// Records an answer; returns a coroutine if there is more to do.
    fn answered(
        &self,
        flight: &Bound<'_, Flight>,
        strategy: &Bound<'_, PyAny>,
        must_clean_up: bool,
        answer: &Bound<'_, PyAny>,
    ) -> PyResult<Option<Py<PyAny>>> {
        let py = flight.py();
        let pipeline = self.pipeline.bind(py);
        let usual = flight.get().returned();
        let parts = match answer.cast_exact::<PyTuple>() {
            Ok(tuple) if usual && tuple.len() == 2 => Some((tuple.get_item(0)?, tuple.get_item(1)?, None)),
            Ok(tuple) if usual && tuple.len() == 3 => {
                Some((tuple.get_item(0)?, tuple.get_item(1)?, Some(tuple.get_item(2)?)))
            }
            _ => None,
        };
        let exact = |object: &Bound<'_, PyAny>| object.is_exact_instance_of::<PyDict>();
        let Some((output, usage, metadata)) = parts.filter(|(output, usage, metadata)| {
            exact(usage) && metadata.as_ref().is_none_or(exact) && !output.get_type().is(&self.classes.special)
        }) else {
            self.register(flight)?;
            return Ok(Some(pipeline.call_method1(intern!(py, "look_at"), (flight, strategy, answer))?.unbind()));
        };
        let (index, attempt, timing) = (flight.get().index, flight.get().attempt(), &flight.get().timing);
        let result = self.result(flight.get().item.bind(py), index, attempt, timing, (output, &usage, metadata))?;
        if must_clean_up || !self.quiet {
            self.register(flight)?;
        }
        if must_clean_up {
            return Ok(Some(pipeline.call_method1(intern!(py, "complete"), (flight, result))?.unbind()));
        }
        if !self.quiet {
            let settled = pipeline.call_method1(intern!(py, "settle"), (flight, &result))?.is_truthy()?;
            let next = (!settled).then(|| pipeline.call_method1(intern!(py, "post_process"), (flight, result)));
            return Ok(next.transpose()?.map(Bound::unbind));
        }
        self.results.bind(py).append(result)?;
        let flights = self.flights.bind(py);
        if flights.contains(flight.get().index)? {
            flights.del_item(flight.get().index)?;
        }
        if self.handle.get().finish_soon(flight.get().index, &usage)? {
            pipeline.call_method0(intern!(py, "tell_soon"))?;
        }
        Ok(None)
    }

    /// A successful result.
    fn result<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        index: ItemIndex,
        attempt: u32,
        timing: &Py<Timing>,
        (output, usage, metadata): (Bound<'py, PyAny>, &Bound<'py, PyAny>, Option<Bound<'py, PyAny>>),
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = item.py();
        let (id, context) = (item.getattr(intern!(py, "item_id"))?, item.getattr(intern!(py, "context"))?);
        let class = self.classes.result.bind(py);
        // In the order of its fields: names would cost a dict for each item.
        let nothing = py.None();
        match metadata {
            None => class.call1((id, true, output, &nothing, context, usage, &nothing, attempt, index, timing)),
            Some(more) => {
                let ratings = more.cast_exact::<PyDict>()?.get_item(intern!(py, "safety_ratings"))?;
                let safety = ratings.unwrap_or_else(|| nothing.bind(py).clone());
                class.call1((id, true, output, &nothing, context, usage, safety, attempt, index, timing, more))
            }
        }
    }
}

/// Resumes a coroutine as `await` does.
fn resume<'py>(coroutine: &Bound<'py, PyAny>, value: &Bound<'py, PyAny>) -> PyResult<PySendResult<'py>> {
    // SAFETY: `PyIterator::send` is `PyIter_Send`, which by its documentation takes any object with a `send` method;
    // the safe cast asks for `__next__`, which coroutines do not have. Calling the method `send` instead would make a
    // StopIteration for every answer.
    #[allow(unsafe_code)]
    let coroutine = unsafe { coroutine.cast_unchecked::<PyIterator>() };
    coroutine.send(value)
}

fn throw<'py>(coroutine: &Bound<'py, PyAny>, error: Bound<'py, PyAny>) -> PyResult<PySendResult<'py>> {
    let py = coroutine.py();
    match coroutine.call_method1(intern!(py, "throw"), (error,)) {
        Ok(awaited) => Ok(PySendResult::Next(awaited)),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            Ok(PySendResult::Return(error.value(py).getattr(intern!(py, "value"))?))
        }
        Err(error) => Err(error),
    }
}
