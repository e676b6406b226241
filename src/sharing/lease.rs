//! A lease of limits that are shared with other processes, renewed for as long as a run lasts.

use std::io;
use std::sync::{Arc, Weak};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::file::{BEAT, Place, SOON, Share};
use crate::engine::scope::Scope;

/// Renews a lease until it is dropped.
pub struct Lease {
    place: Place,
    scope: Weak<Scope>,
    beat: AbortHandle,
    runtime: Handle,
}

impl Lease {
    /// Takes the lease, with what the others leave at the moment: they make room when they renew theirs. Blocks for the
    /// moment of an update.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn begin(place: Place, scope: &Arc<Scope>, runtime: &Handle) -> io::Result<Self> {
        let now = Instant::now();
        let share = place.renew(None)?;
        if share.is_new {
            scope.begin_empty(now);
        }
        take(scope, share, now);
        let beat = runtime.spawn(renew(place.clone(), Arc::downgrade(scope), share)).abort_handle();
        Ok(Self { place, scope: Arc::downgrade(scope), beat, runtime: runtime.clone() })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.beat.abort();
        // Another run of this process may still be in the scope, and goes on with the lease.
        if self.scope.upgrade().is_none_or(|scope| scope.is_deserted()) {
            let place = self.place.clone();
            self.runtime.spawn_blocking(move || place.leave());
        }
    }
}

fn take(scope: &Scope, share: Share, now: Instant) {
    scope.set_share(share.part, now);
    if share.is_nothing {
        scope.pause_until(now + SOON);
    }
}

async fn renew(place: Place, scope: Weak<Scope>, mut share: Share) {
    loop {
        tokio::time::sleep(if share.is_nothing { SOON } else { BEAT }).await;
        let Some(shared) = scope.upgrade() else { return };
        let demand = shared.demand(Instant::now());
        let place = place.clone();
        // A file that fails in the middle of a run changes nothing: the last share stays.
        if let Ok(Ok(found)) = tokio::task::spawn_blocking(move || place.renew(demand)).await {
            share = found;
            take(&shared, share, Instant::now());
        }
    }
}
