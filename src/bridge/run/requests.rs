//! Requests of native attempts: sent for Python, staged so that they begin without it, taken over from there. For
//! [`RunHandle`] alone.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyList;
use secrecy::SecretString;
use tokio::task::AbortHandle;

use super::RunHandle;
use crate::bridge::client::NativeClient;
use crate::bridge::errors::BridgeError;
use crate::bridge::flight::Flight;
use crate::bridge::listener::TokenListener;
use crate::bridge::prompt;
use crate::bridge::runtime::runtime;
use crate::bridge::staging::{self, Read};
use crate::bridge::timing::Timing;
use crate::dispatch::dispatcher::{InFlight, answer};
use crate::dispatch::mailbox::Message;
use crate::engine::ItemIndex;
use crate::providers::prompt::Correction;
use crate::providers::{Ask, ProviderError, Reply};

/// What a request may have beside its prompt.
pub struct Extras<'a> {
    /// The answer before, and what was wrong with it.
    pub correction: Option<(String, String)>,
    /// A key for this request alone.
    pub key: Option<String>,
    /// Who follows the answer while it comes.
    pub listener: Option<&'a TokenListener>,
}

impl RunHandle {
    /// Sends a native attempt. `place`: the item, and the number of the attempt.
    pub(super) fn send(
        &self,
        place: (ItemIndex, u32),
        client: &NativeClient,
        given: &Bound<'_, PyAny>,
        extras: Extras<'_>,
    ) -> PyResult<()> {
        self.process.check()?;
        let provider = client.provider()?;
        let (item, attempt) = place;
        let (reported_head, is_awaited) = if self.has_heads.load(Ordering::Relaxed) {
            self.tell(|scheduler, _| (scheduler.reported_head(item), scheduler.awaits_beginning(item)))?
        } else {
            (None, false)
        };
        let listener = match extras.listener {
            Some(listener) => Some(listener.listener()),
            None => is_awaited.then(|| self.dispatcher.begin_listener(item)),
        };
        let ask = Ask {
            correction: extras.correction.map(|(answer, problem)| Box::new(Correction { answer, problem })),
            key: extras.key.map(SecretString::from),
            listener,
            ..Ask::new(prompt::read(given)?)
        };
        if reported_head.is_some_and(|base| !provider.begins_with(&ask, base)) {
            self.tell(|scheduler, _| scheduler.head_changed(item))?;
        }
        let mailbox = Arc::clone(&self.mailbox);
        let request = runtime()?.spawn(async move {
            let outcome = answer(provider, ask).await;
            mailbox.post(Message::Answered { item, attempt, outcome: Box::new(outcome) });
        });
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = requests.insert(item, request.abort_handle()) {
            earlier.abort();
        }
        Ok(())
    }

    /// Stages questions; see [`RunHandle::stage`].
    pub(super) fn read_and_stage(
        &self,
        first: ItemIndex,
        items: &Bound<'_, PyList>,
        strategy: &Bound<'_, PyAny>,
        client: &NativeClient,
        whole: Option<bool>,
    ) -> PyResult<usize> {
        self.process.check()?;
        let room = self.dispatcher.room_bytes();
        let Read { staged, heads, looked_at } = staging::read(first, items, strategy, client.provider()?, whole, room)?;
        if whole.is_some() {
            self.dispatcher.stage(staged);
        }
        self.headless.fetch_add(heads.headless, Ordering::Relaxed);
        self.too_short.fetch_add(heads.too_short, Ordering::Relaxed);
        if heads.are_any() || self.has_heads.load(Ordering::Relaxed) {
            self.has_heads.store(true, Ordering::Relaxed);
            self.tell(|scheduler, now| scheduler.heads(first, &heads.by_item, now))?;
        }
        Ok(looked_at)
    }

    /// Takes over an attempt that began without Python, if it is in flight.
    pub(super) fn take_over(&self, item: ItemIndex, work: Bound<'_, PyAny>) -> PyResult<Option<Flight>> {
        self.process.check()?;
        let Some(InFlight { started, start, request, .. }) = self.dispatcher.adopt(item) else { return Ok(None) };
        if let Some(request) = request.filter(|request| !request.is_finished()) {
            self.requests.lock().unwrap_or_else(PoisonError::into_inner).insert(item, request);
        }
        let timing = Py::new(work.py(), Timing::of(start))?;
        Ok(Some(Flight::adopted(item, work.unbind(), timing, started)))
    }

    /// Tells the engine what a reply reports about limits.
    pub(super) fn observe(&self, item: ItemIndex, outcome: &Result<Reply, ProviderError>) -> Result<(), BridgeError> {
        let limits = match outcome {
            Ok(reply) => reply.limits.as_slice(),
            Err(error) => error.limits(),
        };
        match limits {
            [] => Ok(()),
            limits => self.tell(|scheduler, now| scheduler.observe(item, limits, now)),
        }
    }

    /// The request of an attempt, which is no longer known after this.
    pub(super) fn forget_request(&self, item: ItemIndex) -> Option<AbortHandle> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).remove(&item)
    }
}
