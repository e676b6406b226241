//! Where the time of an item went: filled in while it is in work, read when it is needed.
//!
//! There is one per result, so it is small: times are single floats, and what only items with several attempts have is
//! elsewhere.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::engine::commands::StartedAttempt;
use crate::engine::waits::Waits;

/// One attempt.
#[derive(Debug, Clone, Copy, Default)]
struct Attempt {
    /// Since the beginning of the run, seconds.
    at: f32,
    waits: Waits,
    execution: f32,
}

/// An attempt after which its item went on, and why it failed, if it did.
struct Earlier {
    attempt: Attempt,
    error: Option<Error>,
}

/// Why an attempt failed.
pub struct Error {
    /// The name of its class.
    pub name: Py<PyAny>,
    /// Its category.
    pub category: Option<Py<PyAny>>,
    /// The beginning of its message.
    pub message: Option<Py<PyAny>>,
}

#[derive(Default)]
struct Inner {
    present: Attempt,
    worker: u32,
    // One pointer, for nearly every item has none.
    #[allow(clippy::box_collection)]
    earlier: Option<Box<Vec<Earlier>>>,
}

/// The times of one item.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct Timing(Mutex<Inner>);

impl Timing {
    /// Of an attempt that begins now.
    pub fn of(start: StartedAttempt) -> Self {
        let StartedAttempt { worker, waits, at } = start;
        Self(Mutex::new(Inner { present: Attempt { at, waits, execution: 0.0 }, worker, earlier: None }))
    }

    /// How the present attempt was started.
    pub fn start(&self) -> StartedAttempt {
        let inner = self.inner();
        let Attempt { at, waits, .. } = inner.present;
        StartedAttempt { worker: inner.worker, waits, at }
    }

    /// The worker of the present attempt.
    pub fn worker(&self) -> u32 {
        self.inner().worker
    }

    /// Goes on with the next attempt, which `other` describes.
    pub fn next(&self, other: &Self) {
        let next = {
            let other = other.inner();
            (other.present, other.worker)
        };
        let mut inner = self.inner();
        (inner.present, inner.worker) = next;
    }

    /// The present attempt has taken so long.
    pub fn executed(&self, time: Duration) {
        self.inner().present.execution = time.as_secs_f32();
    }

    /// The present attempt has ended, and its item has not. `error`: what it failed with.
    pub fn ended(&self, error: Option<Error>) {
        let mut inner = self.inner();
        let attempt = inner.present;
        inner.earlier.get_or_insert_default().push(Earlier { attempt, error });
    }

    /// Adds what [`attempts`](Self::attempts) returns to JSON text.
    pub fn write(&self, py: Python<'_>, success: bool, out: &mut Vec<u8>) {
        use serde_json::to_writer;
        let inner = self.inner();
        let text = |object: &Py<PyAny>| object.extract::<String>(py).ok();
        out.push(b'[');
        for earlier in inner.earlier.iter().flat_map(|earlier| earlier.iter()) {
            let times = times(&earlier.attempt);
            let Some(Error { name, category, message }) = &earlier.error else {
                let _ = to_writer(&mut *out, &(times, None::<String>, None::<String>));
                out.push(b',');
                continue;
            };
            let (name, category) = (text(name), category.as_ref().and_then(text));
            let _ = match message.as_ref().and_then(text) {
                Some(message) => to_writer(&mut *out, &(times, name, category, message)),
                None => to_writer(&mut *out, &(times, name, category)),
            };
            out.push(b',');
        }
        if success {
            // Numbers do not fail to be written.
            let _ = to_writer(&mut *out, &(times(&inner.present), None::<String>, None::<String>));
        } else if out.last() == Some(&b',') {
            out.pop();
        }
        out.push(b']');
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Times = (f32, f32, f32, f32, f32, f32, f32);

fn times(attempt: &Attempt) -> Times {
    let Waits { queue, quota, admission, cooldown, backoff } = attempt.waits;
    (attempt.at, queue, quota, admission, cooldown, backoff, attempt.execution)
}

#[pymethods]
impl Timing {
    /// It does not change once its item has ended.
    fn __deepcopy__(timing: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        timing
    }

    /// Of an item that was never tried.
    #[new]
    fn new() -> Self {
        Self(Mutex::default())
    }

    /// By attempt its times (start, then waits for queue, quota, admission, cooldown and backoff, then execution; all in
    /// seconds), the name of its error, that error's category, and its message if there is one. `success`: whether the last one succeeded.
    fn attempts<'py>(&self, py: Python<'py>, success: bool) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let inner = self.inner();
        let mut all = Vec::new();
        let copy = |object: &Option<Py<PyAny>>| object.as_ref().map(|object| object.clone_ref(py));
        for Earlier { attempt, error } in inner.earlier.iter().flat_map(|earlier| earlier.iter()) {
            all.push(match error {
                Some(Error { name, category, message: Some(message) }) => {
                    (times(attempt), name.clone_ref(py), copy(category), message.clone_ref(py)).into_pyobject(py)?
                }
                Some(Error { name, category, .. }) => {
                    (times(attempt), name.clone_ref(py), copy(category)).into_pyobject(py)?
                }
                None => (times(attempt), py.None(), py.None()).into_pyobject(py)?,
            });
        }
        if success {
            all.push((times(&inner.present), py.None(), py.None()).into_pyobject(py)?);
        }
        Ok(all)
    }

    /// When the last attempt began, and how long it and all waits before it took, seconds: for charts and percentiles,
    /// without an object per attempt.
    fn last(&self) -> Times {
        times(&self.inner().present)
    }
}
