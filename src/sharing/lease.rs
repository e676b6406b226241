//! A lease of limits that are shared with other processes, renewed for as long as a run lasts.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Board, Demand, Share};
use crate::engine::scope::Scope;

/// How often a lease is renewed.
pub const BEAT: Duration = Duration::from_millis(500);
/// How soon one is renewed whose part is nothing yet.
pub const SOON: Duration = Duration::from_millis(100);

/// A process' place on a board, for one scope.
#[derive(Clone)]
pub struct Place {
    /// The board.
    pub board: Arc<dyn Board>,
    /// What the limits are for; the same words in all processes.
    pub scope: String,
    /// Who holds the lease; unique among all who share.
    pub holder: String,
}

impl Place {
    fn renew(&self, demand: &Demand) -> io::Result<Share> {
        self.board.renew(&self.scope, &self.holder, demand)
    }

    fn leave(&self) -> io::Result<()> {
        self.board.leave(&self.scope, &self.holder)
    }
}

/// Renews a lease until it is dropped.
pub struct Lease {
    place: Place,
    scope: Weak<Scope>,
    beat: AbortHandle,
    runtime: Handle,
}

impl Lease {
    /// Takes the lease, with what the others leave at the moment: they make room when they renew theirs. Blocks for the
    /// moment of an update. `news` is called when the board cannot be used any more, with the reason, and when it can
    /// again.
    ///
    /// `is_known`: this process has used the board before. Then a board that is away ends nothing: the scope keeps its
    /// share, or waits for its first.
    ///
    /// # Errors
    /// When the board cannot be used, and is not known.
    pub fn begin(
        place: Place,
        scope: &Arc<Scope>,
        is_known: bool,
        runtime: &Handle,
        news: impl Fn(Option<String>) + Send + 'static,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let demand = Demand::default();
        let (share, problem) = match place.renew(&demand) {
            Ok(share) => (share, None),
            Err(error) if is_known && is_away(&error) => (Share::UNKNOWN, Some(error.to_string())),
            Err(error) => return Err(error),
        };
        if problem.is_none() || !scope.has_share() {
            scope.take(share, &demand, SOON, now);
        }
        let is_away = problem.is_some();
        if is_away {
            news(problem);
        }
        let beat = runtime.spawn(renew(place.clone(), Arc::downgrade(scope), share, is_away, news)).abort_handle();
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

/// Whether a board may be there again later, as it was.
fn is_away(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, PermissionDenied};
    !matches!(error.kind(), InvalidData | InvalidInput | PermissionDenied)
}

async fn renew(place: Place, scope: Weak<Scope>, mut share: Share, mut is_away: bool, news: impl Fn(Option<String>)) {
    loop {
        tokio::time::sleep(if share.is_nothing() { SOON } else { BEAT }).await;
        let Some(shared) = scope.upgrade() else { return };
        let demand = shared.demand(Instant::now());
        let place = place.clone();
        let found = tokio::task::spawn_blocking(move || place.renew(&demand)).await;
        // A board that fails in the middle of a run changes nothing: the last share stays.
        match found.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(found) => {
                share = found;
                shared.take(share, &demand, SOON, Instant::now());
                if std::mem::take(&mut is_away) {
                    news(None);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_away, true) {
                    news(Some(error.to_string()));
                }
            }
        }
    }
}
