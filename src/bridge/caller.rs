//! Public functions whose complaints about arguments end, in a traceback, at the caller's line.
//!
//! A Python function that catches an error and raises it again is a frame of the traceback. What is here is none.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// A function, or a coroutine function, whose own frames are taken from the errors for wrong arguments.
#[pyclass(frozen, dict, weakref, module = "batch_llm._core")]
pub struct EndsAtCaller {
    function: Py<PyAny>,
    is_ours: Py<PyAny>,
    is_coroutine: bool,
}

#[pymethods]
impl EndsAtCaller {
    /// `is_ours` gets a traceback and says whether the error was raised in this package.
    #[new]
    fn new(function: Py<PyAny>, is_ours: Py<PyAny>, is_coroutine: bool) -> Self {
        Self { function, is_ours, is_coroutine }
    }

    #[pyo3(signature = (*arguments, **keywords))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let made = self.function.bind(py).call(arguments, keywords);
        let made = made.map_err(|error| without_frames(py, error, &self.is_ours))?;
        if !self.is_coroutine {
            return Ok(made);
        }
        let coroutine = EndingCoroutine { coroutine: made.unbind(), is_ours: self.is_ours.clone_ref(py) };
        Ok(Bound::new(py, coroutine)?.into_any())
    }

    /// As functions do it: a method of an instance, or the function itself.
    fn __get__<'py>(
        own: &Bound<'py, Self>,
        instance: &Bound<'py, PyAny>,
        _class: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if instance.is_none() {
            return Ok(own.clone().into_any());
        }
        own.py().import("types")?.getattr("MethodType")?.call1((own, instance))
    }

    /// Pickled by its name, as functions are.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.function.bind(py).getattr("__qualname__")
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.function.bind(py).repr()?.to_string())
    }
}

/// A coroutine that does so; also what `await` iterates over.
#[pyclass(frozen, weakref, module = "batch_llm._core")]
pub struct EndingCoroutine {
    coroutine: Py<PyAny>,
    is_ours: Py<PyAny>,
}

#[pymethods]
impl EndingCoroutine {
    fn __await__(own: Bound<'_, Self>) -> Bound<'_, Self> {
        own
    }

    fn __iter__(own: Bound<'_, Self>) -> Bound<'_, Self> {
        own
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.step(py, self.coroutine.bind(py).call_method1(intern!(py, "send"), (py.None(),)))
    }

    /// Goes on with a value.
    fn send<'py>(&self, py: Python<'py>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.step(py, self.coroutine.bind(py).call_method1(intern!(py, "send"), (value,)))
    }

    /// Goes on with an exception.
    #[pyo3(signature = (*error))]
    fn throw<'py>(&self, py: Python<'py>, error: Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.step(py, self.coroutine.bind(py).call_method1(intern!(py, "throw"), error))
    }

    /// Ends it.
    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.step(py, self.coroutine.bind(py).call_method0(intern!(py, "close")))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.coroutine)
    }

    /// What else is asked of a coroutine (`cr_frame`, `__qualname__`), the one within answers.
    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.coroutine.bind(py).getattr(name)
    }
}

impl EndingCoroutine {
    fn step<'py>(&self, py: Python<'py>, step: PyResult<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        step.map_err(|error| without_frames(py, error, &self.is_ours))
    }
}

/// The error without its traceback, if it is one about arguments that was raised in this package.
fn without_frames(py: Python<'_>, error: PyErr, is_ours: &Py<PyAny>) -> PyErr {
    if !(error.is_instance_of::<PyTypeError>(py) || error.is_instance_of::<PyValueError>(py)) {
        return error;
    }
    let said = is_ours.bind(py).call1((error.traceback(py),)).and_then(|said| said.is_truthy());
    if !said.unwrap_or(false) {
        return error;
    }
    let value = error.into_value(py).into_bound(py).into_any();
    // An exception takes None for its traceback; if it did not, it would keep it.
    let _ = value.setattr("__traceback__", py.None());
    PyErr::from_value(value)
}
