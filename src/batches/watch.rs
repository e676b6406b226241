//! How several batches of one account are looked at: by its list, which shows all of them in one call, and not each by
//! itself. The [`driver`](super::driver) of each batch waits for a list that is newer than what it has seen; whoever is
//! first reads it for all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::MutexGuard;
use tokio::time::{Instant, sleep_until};

use super::polling::Polling;
use super::shared::lock;
use super::wire::Seen;

/// More batches than this are looked at by their list.
const FEW: usize = 5;

/// Of one account. See the module.
#[derive(Default)]
pub(super) struct Watch {
    batches: Mutex<Batches>,
    /// Whoever holds this reads the list; the others wait for what is read.
    last: tokio::sync::Mutex<Last>,
}

#[derive(Default)]
struct Batches {
    /// Chunks that are on their way, or in batches.
    count: usize,
    /// The batches that are looked for in the list, and when the newest of them came.
    listed: FxHashSet<String>,
    newest: Option<Instant>,
}

/// The last list.
#[derive(Default)]
pub(super) struct Last {
    at: Option<Instant>,
    wait: Option<Duration>,
    /// None: it could not be read.
    seen: Option<FxHashMap<String, Seen>>,
}

/// What a list says of a batch.
pub(super) enum Shown {
    /// How it is.
    Seen(Box<Seen>),
    /// It is not there.
    Missing,
    /// The list could not be read.
    Unknown,
}

/// How a batch is looked at.
#[derive(Clone, Copy)]
pub(super) struct Looking {
    /// When it was looked at by the list.
    pub since: Instant,
    /// The last wait before it was looked at by itself.
    pub wait: Option<Duration>,
    /// Whether it is looked at by itself, however many there are.
    pub is_alone: bool,
    /// Whether its lines are taken back.
    pub is_leaving: bool,
}

impl Looking {
    /// From now on.
    pub(super) fn begins() -> Self {
        Self { since: Instant::now(), wait: None, is_alone: false, is_leaving: false }
    }
}

/// A chunk that is counted, as long as this is there.
pub(super) struct Counted {
    watch: Arc<Watch>,
    listed: Option<String>,
}

impl Counted {
    /// It is a batch, which is looked for in lists from now on.
    pub(super) fn is_listed(&mut self, id: &str) {
        if self.listed.as_deref() != Some(id) {
            let mut batches = lock(&self.watch.batches);
            if let Some(before) = self.listed.replace(id.to_owned()) {
                batches.listed.remove(&before);
            }
            batches.listed.insert(id.to_owned());
            batches.newest = Some(Instant::now());
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut batches = lock(&self.watch.batches);
        batches.count = batches.count.saturating_sub(1);
        if let Some(id) = &self.listed {
            batches.listed.remove(id);
        }
    }
}

impl Watch {
    /// A chunk that is to become a batch, or is one.
    pub(super) fn count(self: &Arc<Self>) -> Counted {
        lock(&self.batches).count += 1;
        Counted { watch: Arc::clone(self), listed: None }
    }

    /// Whether batches are looked at by their list.
    pub(super) fn is_by_list(&self) -> bool {
        lock(&self.batches).count > FEW
    }

    /// The batches that are looked for.
    pub(super) fn listed(&self) -> FxHashSet<String> {
        lock(&self.batches).listed.clone()
    }

    /// Waits for what a list says of a batch that is newer than `since`.
    ///
    /// # Errors
    /// The caller is to read the list now, and to [show](Last::shows) it to the others.
    pub(super) async fn newer(
        &self,
        id: &str,
        since: Instant,
        polling: Polling,
    ) -> Result<Shown, MutexGuard<'_, Last>> {
        let mut last = self.last.lock().await;
        if last.at.is_some_and(|at| at > since) {
            return Ok(last.of(id));
        }
        let age = lock(&self.batches).newest.map_or(Duration::ZERO, |newest| newest.elapsed());
        let wait = polling.next(last.wait, age, fastrand::f64());
        sleep_until(last.at.unwrap_or(since) + wait).await;
        last.wait = Some(wait);
        Err(last)
    }
}

impl Last {
    /// What was read, for all who wait. None: it could not be read.
    pub(super) fn shows(&mut self, list: Option<Vec<Seen>>) {
        self.at = Some(Instant::now());
        self.seen = list.map(|list| list.into_iter().map(|seen| (seen.id.clone(), seen)).collect());
    }

    /// What it says of a batch.
    pub(super) fn of(&self, id: &str) -> Shown {
        match &self.seen {
            None => Shown::Unknown,
            Some(list) => list.get(id).map_or(Shown::Missing, |seen| Shown::Seen(Box::new(seen.clone()))),
        }
    }
}
