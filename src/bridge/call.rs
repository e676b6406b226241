//! Calls into Python that every item needs: without a tuple of arguments or an object for the bound method, which pyo3's
//! own calls make in extensions for several versions of Python.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Calls a method with four arguments.
pub fn method<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    arguments: [&Bound<'py, PyAny>; 4],
) -> PyResult<Bound<'py, PyAny>> {
    let [one, two, three, four] = arguments.map(Bound::as_ptr);
    let end = std::ptr::null_mut::<ffi::PyObject>();
    // SAFETY: all are valid for the call, which takes no reference away; the last argument has to be null.
    #[allow(unsafe_code)]
    unsafe {
        let made = ffi::PyObject_CallMethodObjArgs(object.as_ptr(), name.as_ptr(), one, two, three, four, end);
        Bound::from_owned_ptr_or_err(object.py(), made)
    }
}

/// Calls a function with eight arguments.
pub fn function<'py>(function: &Bound<'py, PyAny>, arguments: [&Bound<'py, PyAny>; 8]) -> PyResult<Bound<'py, PyAny>> {
    let [a, b, c, d, e, f, g, h] = arguments.map(Bound::as_ptr);
    let end = std::ptr::null_mut::<ffi::PyObject>();
    // SAFETY: as above.
    #[allow(unsafe_code)]
    unsafe {
        let made = ffi::PyObject_CallFunctionObjArgs(function.as_ptr(), a, b, c, d, e, f, g, h, end);
        Bound::from_owned_ptr_or_err(function.py(), made)
    }
}
