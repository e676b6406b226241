//! A Python function that follows an answer while it comes.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::providers::listener::{Listener, Part};

/// Passes the parts of an answer to a function, in a thread of the extension.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct TokenListener(Arc<Listener>);

impl TokenListener {
    /// For a request.
    pub fn listener(&self) -> Arc<Listener> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl TokenListener {
    /// `hear(kind, text)` is called with `"text"` or `"reasoning"`, and what is new.
    #[new]
    fn new(hear: Py<PyAny>) -> Self {
        Self(Arc::new(Listener::new(move |part, text| {
            let kind = match part {
                Part::Text => "text",
                Part::Reasoning => "reasoning",
            };
            // The interpreter may be about to exit; nobody follows any more then.
            Python::try_attach(|py| {
                if let Err(error) = hear.call1(py, (kind, text)) {
                    error.write_unraisable(py, Some(hear.bind(py)));
                }
            });
        })))
    }

    /// Ends the answer: what has come of it is all of it.
    fn stop(&self) {
        self.0.stop();
    }
}
