//! Limits that a run shares with other processes. For [`RunHandle`].

use std::sync::{Arc, PoisonError};

use pyo3::prelude::*;

use super::super::runtime::runtime;
use super::RunHandle;
use crate::dispatch::mailbox::Message;
use crate::engine::scope::Scope;
use crate::sharing::lease::{Lease, Place};

impl RunHandle {
    /// Shares a scope's limits for as long as the run lasts. `is_known`: this process has used the board before.
    ///
    /// # Errors
    /// When the board cannot be used, and is not known.
    pub fn begin_lease(&self, py: Python<'_>, place: Place, scope: &Arc<Scope>, is_known: bool) -> PyResult<()> {
        let mailbox = Arc::clone(&self.mailbox);
        let news = move |problem| mailbox.post(Message::Board(problem));
        let begin = || Lease::begin(place, scope, is_known, runtime()?.handle(), news).map_err(PyErr::from);
        let lease = py.detach(begin)?;
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).push(lease);
        Ok(())
    }
}
