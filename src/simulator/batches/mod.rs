//! The providers' batch APIs: half-price answers that come later. Everything here runs on a [`clock`] that can be put
//! forward, and answers lines with the code of the live endpoints ([`live`]). Only the simulator's server calls this.
//!
//! [`serve`] reads requests and sends replies; [`route`](serve::route) says whose they are. A file for each provider
//! ([`openai`], [`anthropic`], …) reads what is asked and tells it in its provider's words; what they have in common is
//! in [`state`] and [`create`]: files, batches, their [`timing`], their [`faults`]. [`results`] writes lines; [`ledger`] remembers what
//! was paid for, and what no good client does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::answers::Model;
use super::model::Question;

mod anthropic;
mod batch;
mod call;
mod clock;
mod create;
mod faults;
mod files;
mod gemini;
mod gemini_files;
mod ledger;
mod lines;
mod live;
mod mistral;
mod multipart;
mod openai;
mod openrouter;
mod order;
mod parts;
mod provider;
mod results;
pub mod serve;
mod sessions;
mod settings;
mod snapshot;
mod state;
mod timing;
mod together;
mod uploads;
mod xai;

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod tests;

use call::{Call, Reply};
use clock::Clock;
use faults::Faults;
pub use faults::{Fault, FaultKind};
pub use ledger::Lane as BatchLane;
use ledger::{Books, Lane};
use provider::Provider;
pub use settings::Settings;
pub use snapshot::{Row, Snapshot};
use state::State;

/// All batches of a simulated provider.
#[derive(Debug)]
pub struct Batches {
    clock: Clock,
    settings: Arc<Settings>,
    ledger: Books,
    /// Uploads that have begun.
    uploads: AtomicU64,
    /// Locked for as long as a large batch is read or answered: never on the server's own thread.
    state: Mutex<State>,
}

impl Batches {
    /// None yet. `counts_texts`: whether the ledger keeps questions as texts.
    pub fn new(settings: Settings, model: Arc<Model>, counts_texts: bool) -> Self {
        let (clock, settings, ledger) = (Clock::new(settings.time_scale), Arc::new(settings), Books::new(counts_texts));
        let state = State::new(Arc::clone(&settings), model, ledger.clone(), clock.epoch());
        Self { clock, settings, ledger, uploads: AtomicU64::new(0), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the upload that begins now breaks off.
    fn cuts_upload(&self) -> bool {
        let number = self.uploads.fetch_add(1, Ordering::Relaxed) + 1;
        self.ledger.open().called("upload");
        Faults::of(&self.settings.faults, number).has(FaultKind::UploadCut)
    }

    /// Puts the clock forward.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.state().advance(self.clock.now());
    }

    /// A live answer was paid for.
    pub fn paid_live(&self, question: &Question, output: usize) {
        self.ledger.open().paid(Lane::Live, question, output);
    }

    /// Everything that is known by now.
    pub fn snapshot(&self) -> Snapshot {
        let mut state = self.state();
        state.advance(self.clock.now());
        snapshot::of(&state, self.clock.now())
    }

    /// Answers a request.
    fn answer(&self, call: &Call) -> Reply {
        let mut state = self.state();
        let now = self.clock.now();
        let path: Vec<&str> = call.path.split('/').collect();
        match (call.provider, path.as_slice()) {
            (Provider::Anthropic, ["messages", "batches", rest @ ..]) => anthropic::answer(&mut state, call, rest, now),
            (Provider::OpenAi | Provider::Azure | Provider::Groq, path) => openai::answer(&mut state, call, path, now),
            (Provider::Anthropic, _) => call.unknown(),
            (Provider::Gemini, path) => gemini::answer(&mut state, call, path, now),
            (Provider::Mistral, path) => mistral::answer(&mut state, call, path, now),
            (Provider::Together, path) => together::answer(&mut state, call, path, now),
            (Provider::Xai, path) => xai::answer(&mut state, call, path, now),
            (Provider::OpenRouter, path) => openrouter::answer(&mut state, call, path, now),
        }
    }
}
