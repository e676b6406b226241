//! How those who wait for lines are told what became of them. Part of the [`Route`].

use super::{Route, TOGETHER};
use crate::batches::lines::{Answered, LineOutcome, Place, Waiter};
use crate::batches::shared::lock;
use crate::journal::record::Key;
use crate::providers::reply::Extra;
use crate::providers::{ProviderError, Reply, TokenUsage};

impl Route {
    /// What a line has used.
    pub fn spend(&self, chunk: i64, usage: &TokenUsage) {
        let mut spent = lock(&self.shared.spent);
        let used = spent.entry(chunk).or_default();
        used.input += usage.input;
        used.output += usage.output;
        used.cached += usage.cache_read;
    }

    /// Tells whoever waits for a line what became of it. A reply that nobody waits for stays in the ledger. Before some of
    /// these, [`has_room`](Self::has_room) is waited for.
    pub(in crate::batches) fn tell(&self, key: Key, place: Place, reported: LineOutcome) {
        let is_reply = matches!(reported, LineOutcome::Reply(..));
        let mut state = lock(&self.state);
        if is_reply {
            state.again.remove(&key);
        } else if matches!(reported, LineOutcome::Again) {
            *state.again.entry(key).or_default() += 1;
        }
        let Some(waiter) = state.at(place) else { return };
        let Some(waiting) = waiter.take(Waiter::Gone) else {
            if !matches!(waiter, Waiter::Gone) {
                *waiter = if is_reply { Waiter::Stored } else { Waiter::Gone };
            }
            return;
        };
        state.waiting -= 1;
        state.chunks.entry(place.0).and_modify(|chunk| chunk.waiting -= 1);
        drop(state);
        if self.tell_one(waiting, reported) && is_reply {
            self.give(place);
        }
    }

    /// Whether it was heard. Where whoever asked has gone, the reply waits for the next who does.
    pub(super) fn tell_one(&self, waiter: Waiter, reported: LineOutcome) -> bool {
        let (deferred, desk) = match (waiter, self.desk.get()) {
            (Waiter::Attempt(tell), _) => return tell.send(reported).is_ok(),
            (Waiter::Item(deferred), Some(desk)) => (deferred, desk),
            _ => return false,
        };
        match reported {
            LineOutcome::Reply(answered) => desk.bring(deferred, self.read(answered)),
            LineOutcome::Failed(error) => desk.bring(deferred, Err(error)),
            LineOutcome::Again => desk.retry_deferred(deferred),
            LineOutcome::Detached => {}
        }
        true
    }

    pub(super) async fn tell_all(&self, waiting: Vec<Waiter>, reported: impl Fn() -> LineOutcome + Send) {
        let _turn = self.passing.lock().await;
        let mut waiting = waiting.into_iter().peekable();
        while waiting.peek().is_some() {
            self.has_room().await;
            waiting.by_ref().take(TOGETHER).for_each(|waiter| _ = self.tell_one(waiter, reported()));
        }
    }

    /// Waits until some more may be told something.
    pub(in crate::batches) async fn has_room(&self) {
        if let Some(desk) = self.desk.get() {
            desk.has_room().await;
        }
    }

    /// All who wait for lines of a chunk are told this.
    pub(in crate::batches) async fn fail_all(&self, chunk: i64, reported: impl Fn() -> LineOutcome + Send) {
        let waiting = lock(&self.state).take_waiting(chunk);
        self.tell_all(waiting, reported).await;
    }

    /// Reads the reply to a line.
    ///
    /// # Errors
    /// As an attempt.
    pub(in crate::batches) fn read(&self, answered: Answered) -> Result<Reply, ProviderError> {
        let Answered { status, body, batch, chunk } = answered;
        let outcome = self.client.read(status, body);
        let usage = match &outcome {
            Ok(reply) => Some(&reply.usage),
            Err(error) => error.usage(),
        };
        usage.into_iter().for_each(|usage| self.spend(chunk, usage));
        let mut reply = outcome?;
        reply.extras.push(("lane", Extra::Text("batch".to_owned())));
        if !batch.is_empty() {
            reply.extras.push(("batch_id", Extra::Text(batch.to_string())));
        }
        Ok(reply)
    }
}
