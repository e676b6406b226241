//! A lease of limits that are shared with other processes, renewed for as long as a run lasts.

use std::io;
use std::sync::{Arc, Weak};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::engine::scope::Scope;
use crate::sharing::{BEAT, Place, Share};

/// Renews a lease until it is dropped.
pub struct Lease {
    place: Place,
    scope: Weak<Scope>,
    beat: AbortHandle,
    runtime: Handle,
}

impl Lease {
    /// Takes the lease, and waits for the others to make room if there are any. Blocks for the moment of an update.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn begin(place: Place, scope: &Arc<Scope>, runtime: &Handle) -> io::Result<Self> {
        let Share { part, shared } = place.renew(None)?;
        let now = Instant::now();
        scope.set_part(part, now);
        if shared {
            scope.pause_until(now + BEAT + BEAT / 4);
        }
        let beat = runtime.spawn(renew(place.clone(), Arc::downgrade(scope))).abort_handle();
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

async fn renew(place: Place, scope: Weak<Scope>) {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    beats.tick().await;
    loop {
        beats.tick().await;
        let Some(shared) = scope.upgrade() else { return };
        let demand = shared.demand(Instant::now());
        let place = place.clone();
        // A file that fails in the middle of a run changes nothing: the last share is kept.
        if let Ok(Ok(share)) = tokio::task::spawn_blocking(move || place.renew(demand)).await {
            shared.set_part(share.part, Instant::now());
        }
    }
}
