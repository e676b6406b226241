//! The coroutine of a task that makes plain attempts, one item after another.
//!
//! asyncio runs it in a task like any other coroutine. It calls `execute()`, passes on what that awaits, and records
//! the result; whatever else happens (a failure, an odd answer, a post-processor) is a coroutine of the pipeline in
//! `python/batch_llm/_pipeline/attempts.py`, which it then runs in its own place. After a success it goes on with the item that
//! the engine starts next, for a task of its own costs an item more than all the rest: but only in a context that equals
//! the one that the run began with, and in a task that nobody has cancelled, so that an item sees nothing of the one
//! before.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PySendResult, PyType};

use super::attempt::{End, PlainAttempts};
use super::flight::Flight;

/// Items begun in one step of the task, unless they take long: others are to have their turn.
const MOST_IN_A_STEP: u32 = 128;
/// How long that is.
const LONGEST_STEP: Duration = Duration::from_micros(500);
/// The clock is read after so many.
const LOOK_EVERY: u32 = 8;

/// A plain attempt.
pub(super) struct Plain {
    pub(super) flight: Py<Flight>,
    pub(super) strategy: Py<PyAny>,
    pub(super) must_clean_up: bool,
}

#[derive(Default)]
struct State {
    /// None at the end.
    plain: Option<Plain>,
    /// What was called and has not returned.
    inner: Option<Py<PyAny>>,
    /// Whether that is, or is going to be, `execute()`: not a coroutine of the pipeline that ends the attempt.
    calling: bool,
    registered: bool,
    /// Whether a step is running.
    running: bool,
    task: Option<Py<PyAny>>,
}

/// Where a step is.
pub(super) struct Place<'py> {
    pub(super) flight: Bound<'py, Flight>,
    pub(super) strategy: Bound<'py, PyAny>,
    pub(super) must_clean_up: bool,
    /// Whether the run finds the flight.
    pub(super) registered: bool,
    inner: Option<Bound<'py, PyAny>>,
    calling: bool,
}

impl<'py> Place<'py> {
    /// Before an attempt.
    fn before(py: Python<'py>, plain: &Plain, registered: bool) -> Self {
        let Plain { flight, strategy, must_clean_up } = plain;
        Self {
            flight: flight.bind(py).clone(),
            strategy: strategy.bind(py).clone(),
            must_clean_up: *must_clean_up,
            registered,
            inner: None,
            calling: true,
        }
    }
}

/// The coroutine.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct Runner {
    shared: Py<PlainAttempts>,
    /// Whether it may go on with another item.
    goes_on: bool,
    // Never locked while Python runs, or a task that looks at its own coroutine would wait for itself.
    state: Mutex<State>,
}

/// What the task passes in.
enum Input<'py> {
    Send(Bound<'py, PyAny>),
    Throw(Bound<'py, PyAny>),
}

#[pymethods]
impl Runner {
    /// The present item, if there is one.
    #[getter]
    fn flight(&self, py: Python<'_>) -> Option<Py<Flight>> {
        self.state().plain.as_ref().map(|plain| plain.flight.clone_ref(py))
    }

    /// The flights of its run.
    #[getter]
    fn flights(&self, py: Python<'_>) -> Py<PyDict> {
        self.shared.get().flights.clone_ref(py)
    }

    /// The task, as soon as it is known.
    #[getter]
    fn task(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state().task.as_ref().map(|task| task.clone_ref(py))
    }

    #[setter]
    fn set_task(&self, py: Python<'_>, task: Py<PyAny>) {
        let mut state = self.state();
        let Some(flight) = state.plain.as_ref().map(|plain| plain.flight.clone_ref(py)) else { return };
        let _before = state.task.replace(task.clone_ref(py));
        drop(state);
        flight.get().set_task(Some(task));
    }

    fn send<'py>(slf: &Bound<'py, Self>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        step(slf, Input::Send(value))?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (error, value = None, _traceback = None))]
    fn throw<'py>(
        slf: &Bound<'py, Self>,
        error: Bound<'py, PyAny>,
        value: Option<Bound<'py, PyAny>>,
        _traceback: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let error = match (value, error.is_instance_of::<PyType>()) {
            (Some(value), _) if !value.is_none() => value,
            (_, true) => error.call0()?,
            _ => error,
        };
        step(slf, Input::Throw(error))?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.end().inner.map_or(Ok(()), |inner| inner.call_method0(py, intern!(py, "close")).map(drop))
    }

    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        step(slf, Input::Send(slf.py().None().into_bound(slf.py())))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.shared)?;
        // Whoever holds the lock is at work on this very object: it is no garbage.
        let Ok(state) = self.state.try_lock() else { return Ok(()) };
        if let Some(plain) = &state.plain {
            visit.call(&plain.flight)?;
            visit.call(&plain.strategy)?;
        }
        visit.call(&state.inner)?;
        visit.call(&state.task)
    }

    fn __clear__(&self) {
        drop(self.end());
    }
}

impl Runner {
    pub(super) fn new(shared: Py<PlainAttempts>, plain: Plain, goes_on: bool) -> Self {
        Self { shared, goes_on, state: Mutex::new(State { plain: Some(plain), calling: true, ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_step<'py>(&self, py: Python<'py>) -> PyResult<Place<'py>> {
        let mut state = self.state();
        let Some(plain) = &state.plain else {
            return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine"));
        };
        if state.running {
            return Err(PyValueError::new_err("coroutine already executing"));
        }
        let place = Place { calling: state.calling, ..Place::before(py, plain, state.registered) };
        state.running = true;
        let inner = state.inner.take().map(|inner| inner.into_bound(py));
        drop(state);
        // Before its first step, others may have put the flight there.
        let registered = if inner.is_some() { place.registered } else { self.shared.get().knows(&place.flight)? };
        Ok(Place { inner, registered, ..place })
    }

    fn end_step(&self, place: Place<'_>) {
        let mut state = self.state();
        (state.inner, state.calling) = (place.inner.map(Bound::unbind), place.calling);
        (state.registered, state.running) = (place.registered, false);
    }

    /// Releases everything. The task holds this coroutine: what is not released would be a cycle that only the
    /// garbage collector breaks.
    fn end(&self) -> State {
        std::mem::take(&mut *self.state())
    }

    /// Goes on with another item, if that is allowed and there is one.
    fn go_on<'py>(&self, py: Python<'py>) -> PyResult<Option<Place<'py>>> {
        if !self.goes_on {
            return Ok(None);
        }
        let shared = self.shared.get();
        let known = self.state().task.as_ref().map(|task| task.bind(py).clone());
        let task = match known {
            Some(task) => task,
            None => {
                let task = shared.current_task(py)?;
                self.state().task = Some(task.clone().unbind());
                task
            }
        };
        if task.call_method0(intern!(py, "cancelling"))?.is_truthy()? || !shared.is_context_untouched(py)? {
            return Ok(None);
        }
        let Some(plain) = shared.next(py)? else { return Ok(None) };
        plain.flight.get().set_task(Some(task.unbind()));
        let place = Place::before(py, &plain, false);
        let _before = self.state().plain.replace(plain);
        Ok(Some(place))
    }
}

/// Runs until something is awaited (returned, for the task to wait for) or all is done (`None`).
fn step<'py>(slf: &Bound<'py, Runner>, mut input: Input<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = slf.py();
    let (runner, shared) = (slf.get(), slf.get().shared.get());
    let none = || Input::Send(py.None().into_bound(py));
    let mut place = runner.begin_step(py)?;
    let (mut begun, start) = (1, Instant::now());
    loop {
        let calling = place.calling;
        let outcome = match (&place.inner, input) {
            (None, Input::Send(_)) => match shared.call(&place) {
                Ok(call) => {
                    place.inner = Some(call);
                    input = none();
                    continue;
                }
                Err(error) => Err(error),
            },
            (None, Input::Throw(error)) => Err(PyErr::from_value(error)),
            (Some(inner), Input::Send(value)) => resume(inner, &value),
            (Some(inner), Input::Throw(error)) => throw(inner, error),
        };
        let end = match outcome {
            Ok(PySendResult::Next(awaited)) => {
                if calling {
                    shared.register(&mut place)?;
                }
                runner.end_step(place);
                return Ok(Some(awaited));
            }
            Ok(PySendResult::Return(answer)) if calling => shared.answered(&mut place, &answer),
            Ok(PySendResult::Return(_)) => Ok(End::Done),
            Err(error) if calling => {
                shared.register(&mut place)?;
                let more = shared.pipeline(py).call_method1(intern!(py, "failed_somehow"), (&place.flight, error))?;
                Ok(End::Follow(more))
            }
            Err(error) => {
                drop(runner.end());
                return Err(error);
            }
        };
        let is_over = || begun % LOOK_EVERY == 0 && (begun >= MOST_IN_A_STEP || start.elapsed() > LONGEST_STEP);
        let goes_on = calling && !is_over();
        let next = match end {
            Ok(End::Follow(coroutine)) => {
                (place.inner, place.calling) = (Some(coroutine), false);
                input = none();
                continue;
            }
            Ok(End::Done) if goes_on => runner.go_on(py),
            Ok(End::Done) => Ok(None),
            Err(error) => Err(error),
        };
        match next {
            Ok(Some(next)) => (place, input, begun) = (next, none(), begun + 1),
            Ok(None) => {
                drop(runner.end());
                return Ok(None);
            }
            Err(error) => {
                drop(runner.end());
                shared.pipeline(py).call_method1(intern!(py, "break_run"), (error,))?;
                return Ok(None);
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
