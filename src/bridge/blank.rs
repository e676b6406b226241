//! Instances of Python classes without a call of their `__init__`, for the one or two that every item needs, and
//! without work for the garbage collector where they cannot be garbage.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

/// Makes blank instances of one class, as `object.__new__(class)` does; by way of a call that takes thrice as long.
pub struct Blank {
    class: Py<PyType>,
    new: ffi::newfunc,
    no_arguments: Py<PyTuple>,
}

impl Blank {
    /// For a class that inherits its `__new__` from `object`.
    pub fn of(class: &Bound<'_, PyType>) -> Self {
        // SAFETY: `object` is a type, its slot is never empty, and what is in it has this signature.
        #[allow(unsafe_code)]
        let new = unsafe {
            let slot = ffi::PyType_GetSlot(&raw mut ffi::PyBaseObject_Type, ffi::Py_tp_new);
            std::mem::transmute::<*mut std::ffi::c_void, ffi::newfunc>(slot)
        };
        Self { class: class.clone().unbind(), new, no_arguments: PyTuple::empty(class.py()).unbind() }
    }

    /// A blank instance.
    pub fn make<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: as `type.__call__` does it; what is returned is a new reference, or null with an exception set.
        #[allow(unsafe_code)]
        unsafe {
            let class = self.class.as_ptr().cast();
            let made = (self.new)(class, self.no_arguments.as_ptr(), std::ptr::null_mut());
            Bound::from_owned_ptr_or_err(py, made)
        }
    }
}

/// Takes an object away from the garbage collector, unless one of `parts` is of interest to it; all other parts must be
/// texts, numbers and the like.
///
/// What cannot be in a cycle is freed by its reference count. Python does the same with tuples and dicts: with a million
/// results in memory, a full collection would otherwise traverse a million results. Whoever later puts such an object
/// into a cycle with itself keeps it for as long as the process lives.
pub fn untrack_unless<const COUNT: usize>(object: &Bound<'_, PyAny>, parts: [&Bound<'_, PyAny>; COUNT]) {
    // SAFETY: both take any object; a blank instance is of a class with garbage collection, and may be untracked.
    #[allow(unsafe_code)]
    unsafe {
        let is_tracked = |part: &Bound<'_, PyAny>| ffi::PyObject_GC_IsTracked(part.as_ptr()) != 0;
        if !parts.into_iter().any(is_tracked) {
            ffi::PyObject_GC_UnTrack(object.as_ptr().cast());
        }
    }
}
