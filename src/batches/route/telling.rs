//! How those who wait for lines are told what became of them. Part of the [`Route`].

use super::{Route, TOGETHER};
use crate::batches::lines::{Answered, Place, Told, Waiter};
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
    pub(in crate::batches) fn tell(&self, key: Key, place: Place, told: Told) {
        let is_reply = matches!(told, Told::Reply(..));
        let mut state = lock(&self.state);
        if is_reply {
            state.again.remove(&key);
        } else if matches!(told, Told::Again) {
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
        if self.tell_one(waiting, told) && is_reply {
            self.give(place);
        }
    }

    /// Whether it was heard. Where whoever asked has gone, the reply waits for the next who does.
    pub(super) fn tell_one(&self, waiter: Waiter, told: Told) -> bool {
        let (deferred, desk) = match (waiter, self.desk.get()) {
            (Waiter::Attempt(tell), _) => return tell.send(told).is_ok(),
            (Waiter::Item(deferred), Some(desk)) => (deferred, desk),
            _ => return false,
        };
        match told {
            Told::Reply(answered) => desk.bring(deferred, self.read(answered)),
            Told::Failed(error) => desk.bring(deferred, Err(error)),
            Told::Again => desk.ask_again(deferred),
            Told::Detached => {}
        }
        true
    }

    pub(super) async fn tell_all(&self, waiting: Vec<Waiter>, told: impl Fn() -> Told + Send) {
        let _turn = self.passing.lock().await;
        let mut waiting = waiting.into_iter().peekable();
        while waiting.peek().is_some() {
            self.has_room().await;
            waiting.by_ref().take(TOGETHER).for_each(|waiter| _ = self.tell_one(waiter, told()));
        }
    }

    /// Waits until some more may be told something.
    pub(in crate::batches) async fn has_room(&self) {
        if let Some(desk) = self.desk.get() {
            desk.has_room().await;
        }
    }

    /// All who wait for lines of a chunk are told this.
    pub(in crate::batches) async fn fail_all(&self, chunk: i64, told: impl Fn() -> Told + Send) {
        let waiting = lock(&self.state).take_waiting(chunk);
        self.tell_all(waiting, told).await;
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
