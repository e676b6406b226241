//! An item in work.
//!
//! It holds Python objects; the garbage collector is shown all of them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::timing::{self, Timing};
use crate::engine::ItemIndex;

/// Where the present attempt is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// `execute()` is not running.
    #[default]
    Idle,
    /// It is running.
    Executing,
    /// It is running, although its time is over.
    Overdue,
    /// Its time is over, and it is not running.
    TimedOut,
}

impl Phase {
    fn is_executing(self) -> bool {
        matches!(self, Self::Executing | Self::Overdue)
    }

    fn is_timed_out(self) -> bool {
        matches!(self, Self::Overdue | Self::TimedOut)
    }

    /// `execute()` is called, or has returned.
    fn executes(self, executes: bool) -> Self {
        Self::of(executes, self.is_timed_out())
    }

    /// The attempt's time is over, or there is a new attempt.
    fn times_out(self, timed_out: bool) -> Self {
        Self::of(self.is_executing(), timed_out)
    }

    fn of(executes: bool, timed_out: bool) -> Self {
        match (executes, timed_out) {
            (false, false) => Self::Idle,
            (true, false) => Self::Executing,
            (true, true) => Self::Overdue,
            (false, true) => Self::TimedOut,
        }
    }
}

#[derive(Default)]
struct State {
    attempt: u32,
    started: Option<Instant>,
    notes: Option<Py<PyAny>>,
    usage: Option<Py<PyAny>>,
    used: Option<Py<PyAny>>,
    task: Option<Py<PyAny>>,
    gate: Option<Py<PyAny>>,
    native: Option<Py<PyAny>>,
    correction: Option<Py<PyAny>>,
    conversation: Option<Py<PyAny>>,
    phase: Phase,
    abandoned: bool,
    recorded: bool,
    unreadable: bool,
}

/// An item in work, from its first attempt to its result.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct Flight {
    pub(super) index: ItemIndex,
    pub(super) item: Py<PyAny>,
    pub(super) timing: Py<Timing>,
    // Never locked while Python runs, or a task that looks at its own coroutine would wait for itself.
    state: Mutex<State>,
}

#[pymethods]
impl Flight {
    #[new]
    pub(super) fn new(index: ItemIndex, item: Py<PyAny>, attempt: u32, timing: Py<Timing>) -> Self {
        Self { index, item, timing, state: Mutex::new(State { attempt, ..State::default() }) }
    }

    #[getter]
    fn index(&self) -> ItemIndex {
        self.index
    }

    #[getter]
    fn item(&self, py: Python<'_>) -> Py<PyAny> {
        self.item.clone_ref(py)
    }

    #[getter]
    pub(super) fn attempt(&self) -> u32 {
        self.state().attempt
    }

    #[getter]
    fn worker(&self) -> u32 {
        self.timing.get().worker()
    }

    #[getter]
    fn timing(&self, py: Python<'_>) -> Py<Timing> {
        self.timing.clone_ref(py)
    }

    /// The item's `RetryState`.
    #[getter]
    pub(super) fn notes(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        copy(py, &self.state().notes)
    }

    #[getter]
    fn usage(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        copy(py, &self.state().usage)
    }

    #[setter]
    fn set_usage(&self, value: Option<Py<PyAny>>) {
        let _before = std::mem::replace(&mut self.state().usage, value);
    }

    #[getter]
    fn used(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        copy(py, &self.state().used)
    }

    #[setter]
    fn set_used(&self, value: Option<Py<PyAny>>) {
        let _before = std::mem::replace(&mut self.state().used, value);
    }

    #[getter]
    fn task(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        copy(py, &self.state().task)
    }

    #[setter]
    pub(super) fn set_task(&self, value: Option<Py<PyAny>>) {
        let _before = std::mem::replace(&mut self.state().task, value);
    }

    #[getter]
    fn gate(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        copy(py, &self.state().gate)
    }

    #[setter]
    fn set_gate(&self, value: Option<Py<PyAny>>) {
        let _before = std::mem::replace(&mut self.state().gate, value);
    }

    #[getter]
    fn native(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        copy(py, &self.state().native)
    }

    #[setter]
    fn set_native(&self, value: Option<Py<PyAny>>) {
        let _before = std::mem::replace(&mut self.state().native, value);
    }

    #[getter]
    fn correction(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        copy(py, &self.state().correction)
    }

    #[setter]
    fn set_correction(&self, value: Option<Py<PyAny>>) {
        let _before = std::mem::replace(&mut self.state().correction, value);
    }

    /// The item's conversation, if it has several rounds.
    #[getter]
    fn conversation(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        copy(py, &self.state().conversation)
    }

    #[setter]
    fn set_conversation(&self, value: Option<Py<PyAny>>) {
        let _before = std::mem::replace(&mut self.state().conversation, value);
    }

    #[getter]
    fn executing(&self) -> bool {
        self.state().phase.is_executing()
    }

    #[setter]
    fn set_executing(&self, value: bool) {
        let mut state = self.state();
        if state.phase.is_executing()
            && !value
            && let Some(started) = state.started
        {
            self.timing.get().executed(started.elapsed());
        }
        state.phase = state.phase.executes(value);
    }

    /// Whether a reply to this item could not be read: the next such reply ends it.
    #[getter]
    fn unreadable(&self) -> bool {
        self.state().unreadable
    }

    #[setter]
    fn set_unreadable(&self, value: bool) {
        self.state().unreadable = value;
    }

    #[getter]
    fn timed_out(&self) -> bool {
        self.state().phase.is_timed_out()
    }

    #[setter]
    fn set_timed_out(&self, value: bool) {
        let mut state = self.state();
        state.phase = state.phase.times_out(value);
    }

    #[getter]
    fn abandoned(&self) -> bool {
        self.state().abandoned
    }

    #[setter]
    fn set_abandoned(&self, value: bool) {
        self.state().abandoned = value;
    }

    #[getter]
    fn recorded(&self) -> bool {
        self.state().recorded
    }

    #[setter]
    fn set_recorded(&self, value: bool) {
        self.state().recorded = value;
    }

    /// Seconds since `execute()` was called.
    fn elapsed(&self) -> f64 {
        self.state().started.map_or(0.0, |started| started.elapsed().as_secs_f64())
    }

    /// Goes on with the next attempt of the item.
    fn next_attempt(&self, attempt: u32, timing: &Timing) {
        self.timing.get().next(timing);
        let mut state = self.state();
        (state.attempt, state.phase) = (attempt, state.phase.times_out(false));
    }

    /// Takes note of why the attempt failed.
    #[pyo3(signature = (error, category, message = None))]
    fn attempt_failed(&self, error: Py<PyAny>, category: Option<Py<PyAny>>, message: Option<Py<PyAny>>) {
        self.timing.get().ended(Some(timing::Error { name: error, category, message }));
    }

    /// Takes note that the attempt was answered, and that the item goes on with another request.
    fn round_ended(&self) {
        self.timing.get().ended(None);
        let mut state = self.state();
        state.unreadable = false;
        let _before = state.correction.take();
        drop(state);
    }

    /// Takes note that `execute()` is about to be called.
    pub(super) fn begin_execution(&self, notes: Option<Py<PyAny>>) {
        let mut state = self.state();
        (state.phase, state.started) = (state.phase.executes(true), Some(Instant::now()));
        let _before = std::mem::replace(&mut state.notes, notes);
        drop(state);
    }

    /// Takes note that `execute()` has returned; whether the item's way was a usual one so far.
    pub(super) fn returned(&self) -> bool {
        let mut state = self.state();
        state.phase = state.phase.executes(false);
        if let Some(started) = state.started {
            self.timing.get().executed(started.elapsed());
        }
        !(state.phase.is_timed_out() || state.abandoned || state.usage.is_some())
    }

    /// A flight that goes on with the item while this one's strategy does not react.
    fn successor(&self, py: Python<'_>) -> Self {
        let mut state = self.state();
        state.abandoned = true;
        let state = State {
            attempt: state.attempt,
            started: state.started,
            notes: copy(py, &state.notes),
            usage: copy(py, &state.usage),
            used: copy(py, &state.used),
            conversation: copy(py, &state.conversation),
            ..State::default()
        };
        let timing = self.timing.clone_ref(py);
        Self { index: self.index, item: self.item.clone_ref(py), timing, state: Mutex::new(state) }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.item)?;
        // Whoever holds the lock is at work on this very object: it is no garbage.
        let Ok(state) = self.state.try_lock() else { return Ok(()) };
        let State { notes, usage, used, task, gate, native, correction, conversation, .. } = &*state;
        for object in [notes, usage, used, task, gate, native, correction, conversation] {
            visit.call(object)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let _before = std::mem::take(&mut *self.state());
    }
}

impl Flight {
    /// One whose first attempt is in flight already.
    pub(super) fn adopted(index: ItemIndex, item: Py<PyAny>, timing: Py<Timing>, started: Instant) -> Self {
        let state = State { attempt: 1, started: Some(started), phase: Phase::Executing, ..State::default() };
        Self { index, item, timing, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn copy(py: Python<'_>, object: &Option<Py<PyAny>>) -> Option<Py<PyAny>> {
    object.as_ref().map(|object| object.clone_ref(py))
}
