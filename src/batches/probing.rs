//! Before the first batch of a model is made, one of its requests goes by itself: a wrong key, model or parameter shows in
//! seconds then, and not after hours, in every line. Its answer is the answer to that request; the others wait meanwhile.
//!
//! Only what the provider refuses for good holds batches up: then the next request is tried, and after some of them
//! several at once, so that a run of which none can be answered fails as it would without batches.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::providers::ProviderError;

/// After so many refusals in a row, several requests are tried at once.
const DOUBTS: u32 = 3;
/// So many.
const AT_ONCE: usize = 8;

/// Of one route. See the module.
pub(super) struct Probing {
    is_over: watch::Sender<bool>,
    turns: Semaphore,
    refused: AtomicU32,
}

impl Probing {
    /// `is_needed`: whether it is not known that such requests are answered.
    pub(super) fn new(is_needed: bool) -> Self {
        Self { is_over: watch::Sender::new(!is_needed), turns: Semaphore::new(1), refused: AtomicU32::new(0) }
    }

    /// Whether batches may be made.
    pub(super) fn is_over(&self) -> bool {
        *self.is_over.borrow()
    }

    /// Waits until it is over, or for a turn to ask by itself.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let mut over = self.is_over.subscribe();
        tokio::select! {
            biased;
            _ = over.wait_for(|is_over| *is_over) => None,
            turn = self.turns.acquire() => turn.ok(),
        }
    }

    /// What came of it; the turn is given back after that.
    pub(super) fn ended(&self, error: Option<&ProviderError>) {
        if !error.is_some_and(is_refusal) {
            self.is_over.send_replace(true);
        } else if self.refused.fetch_add(1, Ordering::Relaxed) + 1 == DOUBTS {
            self.turns.add_permits(AT_ONCE - 1);
        }
    }
}

/// Whether an error may say that no such request is answered. One that says that the provider is busy, or away, does not:
/// batches wait for that by themselves.
fn is_refusal(error: &ProviderError) -> bool {
    matches!(error, ProviderError::Status { .. } | ProviderError::Request(_)) && !error.is_retryable()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::status;
    use futures_util::FutureExt;

    fn error(status: u16) -> ProviderError {
        status::read(status, &http::HeaderMap::new(), b"{\"error\":{\"message\":\"no\"}}")
    }

    #[test]
    fn the_first_answer_ends_it_for_all() {
        let probing = Probing::new(true);
        let turn = probing.turn().now_or_never().unwrap().unwrap();
        let mut waiting = Box::pin(probing.turn());
        assert!(waiting.as_mut().now_or_never().is_none());
        probing.ended(None);
        drop(turn);
        assert!(waiting.now_or_never().unwrap().is_none() && probing.is_over());
        assert!(Probing::new(false).turn().now_or_never().unwrap().is_none());
    }

    #[test]
    fn a_provider_that_is_busy_refuses_nothing() {
        for busy in [429, 500, 503] {
            let probing = Probing::new(true);
            probing.ended(Some(&error(busy)));
            assert!(probing.is_over(), "{busy}");
        }
        for refusal in [400, 401, 403, 404] {
            let probing = Probing::new(true);
            probing.ended(Some(&error(refusal)));
            assert!(!probing.is_over(), "{refusal}");
        }
    }

    #[test]
    fn after_some_refusals_several_are_tried_at_once() {
        let probing = Probing::new(true);
        for _ in 0..DOUBTS {
            let turn = probing.turn().now_or_never().unwrap().unwrap();
            assert!(probing.turn().now_or_never().is_none());
            probing.ended(Some(&error(400)));
            drop(turn);
        }
        let turns: Vec<_> = (0..AT_ONCE).map(|_| probing.turn().now_or_never().unwrap().unwrap()).collect();
        assert!(probing.turn().now_or_never().is_none());
        drop(turns);
    }
}
