//! Attempts whose answers are brought later. Nothing is kept of them here: whoever has their requests gives them back, and
//! from then on they are in flight, with an answer already there.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::{InFlight, Inner, Table};
use crate::dispatch::mailbox::Message;
use crate::engine::commands::StartedAttempt;
use crate::engine::waits::Waits;
use crate::providers::deferral::{Deferred, Desk, Event};
use crate::providers::{ProviderError, Reply};

impl Inner {
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk for Inner {
    fn defer(&self, item: u64) -> Option<Deferred> {
        let deferred = self.engine.get()?.tell(|scheduler, now| {
            let mut table = self.table();
            let mut attempt = table.take_attempt(item)?;
            if !scheduler.defer(item, now) {
                attempt.is_passing = false;
                table.add(item, attempt);
                return None;
            }
            let StartedAttempt { waits, at, .. } = attempt.start;
            // The loop hears of it before anything else of this item.
            self.mailbox.post(Message::Deferred(item));
            Some(Deferred { item, at, waited: waits.queue })
        });
        deferred.ok().flatten()
    }

    fn has_room(&self) -> Event<'_> {
        Box::pin(async move {
            loop {
                let mut reported = std::pin::pin!(self.room.notified());
                reported.as_mut().enable();
                let Some(engine) = self.engine.get() else { return };
                if self.is_closed.load(Ordering::Acquire) {
                    return;
                }
                // An engine that is gone takes everything, and does nothing with it.
                if engine.tell(|scheduler, _| scheduler.takes_back()).unwrap_or(true) {
                    return;
                }
                reported.await;
            }
        })
    }

    fn bring(&self, deferred: Deferred, outcome: Result<Reply, ProviderError>) {
        if self.is_closed.load(Ordering::Acquire) {
            return;
        }
        self.give_back(deferred);
        self.mailbox.post(Message::Answered { item: deferred.item, attempt: 1, outcome: Box::new(outcome) });
    }

    fn retry_deferred(&self, deferred: Deferred) {
        self.mailbox.post(Message::Again(deferred.item));
    }

    fn is_over(&self) -> Event<'_> {
        let mut is_over = self.is_over.subscribe();
        Box::pin(async move {
            // It is never dropped while somebody has the desk.
            let _ = is_over.wait_for(|is_over| *is_over).await;
        })
    }

    fn give_back(&self, deferred: Deferred) {
        let Deferred { item, at, waited } = deferred;
        let Some(engine) = self.engine.get() else { return };
        let waits = Waits { queue: waited, ..Waits::default() };
        let start = StartedAttempt { worker: 0, waits, at };
        let started = self.began + Duration::from_secs_f32(at.max(0.0));
        let attempt = InFlight { started, start, request: None, whole: false, is_passing: true };
        // An engine that has failed has said so.
        let _ = engine.tell(|scheduler, now| {
            self.table().add(item, attempt);
            scheduler.recall(item, now);
        });
    }
}
