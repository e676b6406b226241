//! Where the chunks of a route are, and how its lines are taken back from their batches. Part of the [`Route`].

use std::sync::Arc;
use std::time::Duration;

use super::{Route, State, Way};
use crate::batches::lines::LineOutcome;
use crate::batches::shared::lock;
use crate::batches::wire::Seen;
use crate::journal::batches::News;

impl Route {
    /// Takes at least so many lines back, if there are as many: those first that are not at the provider, then the oldest
    /// batches, which are the least likely to end soon. Whoever waits for them is told to ask again, once they are certain
    /// not to be answered. Returns how many lines these are.
    pub async fn take_back(&self, lines: usize) -> usize {
        let (entering, taken, open) = {
            let mut state = lock(&self.state);
            state.filling = None;
            let entering: Vec<_> = state.entering.drain(..).collect();
            let mut taken = entering.len();
            let mut chunks: Vec<(Way, i64, usize)> =
                state.chunks.iter().map(|(id, chunk)| (chunk.way, *id, chunk.lines.len())).collect();
            chunks.retain(|(way, chunk, _)| *way != Way::Ending && !state.leaving.contains(chunk));
            chunks.sort_unstable_by_key(|(way, chunk, _)| (*way != Way::Sending, *chunk));
            let mut open = Vec::new();
            for (way, chunk, of_chunk) in chunks {
                if taken >= lines {
                    break;
                }
                taken += of_chunk;
                state.leaving.insert(chunk);
                if way == Way::Open {
                    open.push(chunk);
                }
            }
            (entering, taken, open)
        };
        self.tell_all(entering, || LineOutcome::Again).await;
        // Whoever waits for room in the provider's queue, or to be sent at all, looks again.
        self.ended.notify_waiters();
        self.changed.notify_waiters();
        self.cancel_some(&open, "deadline").await;
        taken
    }

    /// Whether a chunk's lines are taken back.
    pub(in crate::batches) fn is_leaving(&self, chunk: i64) -> bool {
        lock(&self.state).leaving.contains(&chunk)
    }

    /// Waits until they are.
    pub(in crate::batches) async fn leaves(&self, chunk: i64) {
        self.wait_until(|state| state.leaving.contains(&chunk)).await;
    }

    /// Asks the provider to cancel all batches of this route; what is done by then is collected as usual.
    pub async fn cancel(&self, why: &'static str) {
        let open: Vec<i64> = lock(&self.state).chunks.keys().copied().collect();
        self.cancel_some(&open, why).await;
    }

    async fn cancel_some(&self, chunks: &[i64], why: &'static str) {
        for chunk in chunks {
            let Some(batch) = lock(&self.batches).get(chunk).cloned() else { continue };
            let _ = self.shared.ledger.note(*chunk, &News::Cancelling(why));
            if let Err(error) = self.client.call(self.wire.cancel(&batch)).await {
                self.shared.note(format!("Batch {batch} could not be cancelled: {error}"));
            }
        }
    }

    /// A chunk is at its provider, for so long.
    pub(in crate::batches) fn opened(&self, chunk: i64, batch: &str, age: Duration) {
        lock(&self.batches).insert(chunk, Arc::from(batch));
        lock(&self.state).stalls.opened(chunk, self.now() - age.as_secs_f64());
        self.is_at(chunk, Way::Open);
    }

    /// The provider has said how a chunk's batch is.
    pub(in crate::batches) fn seen(&self, chunk: i64, seen: &Seen) {
        let now = self.now();
        let mut state = lock(&self.state);
        state.stalls.counted(chunk, seen.done, now);
        state.chunks.entry(chunk).and_modify(|chunk| chunk.seen = seen.state);
        drop(state);
        self.changed.notify_waiters();
    }

    /// The batch of a chunk has failed as a whole: there is none.
    pub(in crate::batches) fn failed(&self, chunk: i64) {
        lock(&self.state).stalls.ended(chunk, self.now());
        self.is_at(chunk, Way::Sending);
        self.looked_at(chunk);
    }

    /// Seconds since this route has begun.
    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Whether no batch is made for the time being.
    pub(in crate::batches) fn is_stalled(&self) -> bool {
        lock(&self.state).stalls.is_stalled(self.now())
    }

    /// Waits until batches are made again.
    pub(in crate::batches) async fn stall_ends(&self) {
        if self.is_stalled() && !std::mem::replace(&mut lock(&self.state).is_stall_told, true) {
            self.shared.note(format!(
                "A batch of {:?} has made no progress for longer than nearly all batches take; no other is created until \
                 one ends",
                self.of.model
            ));
        }
        self.wait_until(|state| !state.stalls.is_stalled(self.now())).await;
    }

    /// The results of a chunk are being fetched.
    pub(in crate::batches) fn ending(&self, chunk: i64) {
        lock(&self.state).stalls.ended(chunk, self.now());
        self.is_at(chunk, Way::Ending);
        self.looked_at(chunk);
    }

    fn is_at(&self, chunk: i64, way: Way) {
        if let Some(at) = lock(&self.state).chunks.get_mut(&chunk) {
            at.way = way;
        }
        self.changed.notify_waiters();
    }

    /// A chunk has come to its end.
    pub(in crate::batches) fn chunk_ended(&self, chunk: i64) {
        let mut state = lock(&self.state);
        state.forget(chunk);
        state.stalls.ended(chunk, self.now());
        state.unseen.remove(&chunk);
        state.leaving.remove(&chunk);
        drop(state);
        self.changed.notify_waiters();
        self.ended.notify_waiters();
    }

    /// Whether a chunk is in a batch of an earlier run, which this one has not looked at yet.
    pub(in crate::batches) fn is_unseen(&self, chunk: i64) -> bool {
        lock(&self.state).unseen.contains(&chunk)
    }

    /// This run has looked at a chunk's batch.
    pub(in crate::batches) fn looked_at(&self, chunk: i64) {
        if lock(&self.state).unseen.remove(&chunk) {
            self.changed.notify_waiters();
        }
    }

    /// Waits until all lines are in batches at the provider, and the answers of batches of earlier runs are there, as far
    /// as these have ended.
    pub async fn submitted(&self) {
        let is_sent = |state: &State| {
            let is_open = state.chunks.values().all(|chunk| chunk.way == Way::Open) && state.unseen.is_empty();
            state.is_detached || (state.entering.is_empty() && state.sending == 0 && is_open)
        };
        self.wait_until(is_sent).await;
    }

    /// Waits until no chunk is between the end of its batch and its own.
    pub async fn at_rest(&self) {
        self.wait_until(|state| state.chunks.values().all(|chunk| chunk.way != Way::Ending)).await;
    }

    async fn wait_until(&self, is_so: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_so(&lock(&self.state)) {
                return;
            }
            changed.await;
        }
    }
}
