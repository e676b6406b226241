//! How a batch is looked at until it has ended. Part of the [`Driver`].

use std::sync::Arc;

use rustc_hash::FxHashSet;
use tokio::time::{Instant, sleep};

use super::Driver;
use crate::batches::watch::{Looking, Shown};
use crate::batches::wire::{Seen, State};
use crate::providers::ProviderError;

/// Pages of the list that are read to look at batches.
const LIST_PAGES: usize = 10;

impl Driver {
    /// Waits until it is time, and looks at the batch: where there are many by the list; by itself if it is not there.
    pub(super) async fn next_look(&mut self, id: &str, looking: &mut Looking) -> Result<Option<Seen>, ProviderError> {
        let (route, chunk) = (Arc::clone(&self.route), self.chunk.id);
        // What an earlier run has left may have ended long ago.
        let mut is_due = route.is_unseen(chunk);
        if !is_due && !looking.is_alone && route.watch.is_by_list() {
            let shown = tokio::select! {
                shown = self.look_at_list(id, looking.since) => shown,
                // One that is cancelled ends soon.
                () = route.leaves(chunk) => Shown::Missing,
            };
            looking.since = Instant::now();
            match shown {
                // By itself it may say more of its end.
                Shown::Seen(seen) if matches!(seen.state, State::Ended(_)) && route.wire.results(&seen).is_empty() => {
                    is_due = true;
                }
                Shown::Seen(seen) => return Ok(Some(*seen)),
                Shown::Unknown => return Ok(None),
                Shown::Missing => is_due = true,
            }
        }
        let is_leaving = route.is_leaving(chunk);
        if is_leaving && !looking.is_leaving {
            *looking = Looking { is_leaving, is_alone: true, wait: None, ..*looking };
            is_due = false;
        }
        if !is_due {
            let next = self.polling().next(looking.wait, self.age(), fastrand::f64());
            looking.wait = Some(next);
            tokio::select! {
                () = sleep(next) => {}
                () = route.leaves(chunk), if !looking.is_leaving => {
                    *looking = Looking { is_leaving: true, is_alone: true, wait: None, ..*looking };
                    return Ok(None);
                }
            }
        }
        match self.call(route.wire.look(id)).await {
            Ok((_, body)) => Ok(route.wire.read_batch(&body)),
            Err(error) => {
                looking.is_alone |= matches!(error, ProviderError::Status { status: 404, .. });
                Err(error)
            }
        }
    }

    /// What the next list says of the batch.
    async fn look_at_list(&mut self, id: &str, since: Instant) -> Shown {
        let route = Arc::clone(&self.route);
        self.counted.is_listed(id);
        match route.watch.newer(id, since, self.polling()).await {
            Ok(shown) => shown,
            Err(mut last) => {
                last.shows(self.list_of(route.watch.listed()).await);
                last.of(id)
            }
        }
    }

    /// The provider's list, as far as these batches are in it; `None`: it cannot be read.
    async fn list_of(&mut self, mut ids: FxHashSet<String>) -> Option<Vec<Seen>> {
        let route = Arc::clone(&self.route);
        let (mut list, mut after) = (Vec::new(), None);
        for _ in 0..LIST_PAGES {
            let (_, body) = self.call(route.wire.list(after.as_deref())).await.ok()?;
            let (page, next) = route.wire.read_list(&body, after.as_deref());
            list.extend(page.into_iter().filter(|seen| ids.remove(&seen.id)));
            after = next;
            if after.is_none() || ids.is_empty() {
                break;
            }
        }
        Some(list)
    }
}
