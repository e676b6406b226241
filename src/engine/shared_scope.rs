//! How a scope is shared with other processes: what it tells them, and what it takes from them.

use std::time::Duration;

use tokio::time::Instant;

use super::quota::KnownLimits;
use super::scope::Scope;
use super::share::{Demand, NOTHING, Share};

impl Scope {
    /// What to tell the others.
    pub fn demand(&self, now: Instant) -> Demand {
        let mut guard = self.state();
        let state = &mut *guard;
        let short = std::mem::take(&mut state.was_short) || (state.is_short && !state.line.is_empty());
        let share = state.share.unwrap_or_default();
        let is_known = matches!(state.quota.known(), KnownLimits::PerSecond(_));
        let mut used = state.quota.used(now);
        let (mut pace, mut refused) = (None, 0);
        if let Some(adaptive) = state.adaptive.as_mut().filter(|_| !is_known) {
            used = used.max(adaptive.used(now));
            (pace, refused) = adaptive.found();
        }
        let used = used * state.share.unwrap_or(1.0);
        let held = if share > NOTHING { share } else { 0.0 };
        Demand { part: (!short).then_some(used), held, pace, refused }
    }

    /// Takes what they leave. `said`: what they were told before. `soon`: when there may be more, if it is nothing.
    pub fn take(&self, share: Share, said: &Demand, soon: Duration, now: Instant) {
        let mut guard = self.state();
        let state = &mut *guard;
        let part = share.part.max(NOTHING);
        if !matches!(state.quota.known(), KnownLimits::PerSecond(_))
            && let Some(adaptive) = &mut state.adaptive
        {
            adaptive.join(&share, said.pace, now);
        }
        if state.share.is_none_or(|before| (before - part).abs() > 1e-6) {
            state.share = Some(part);
            state.configure(now);
            // Whoever waits for its turn does so until an instant that was right for the share before.
            state.wake_first();
        }
        if share.is_new {
            // What may pass at once is not there from the beginning, or each process would bring its own.
            state.quota.begin_empty(now);
        }
        if share.is_nothing() {
            state.paused_until = state.paused_until.max(Some(now + soon));
        }
    }

    /// Whether it has taken a share.
    pub fn has_share(&self) -> bool {
        self.state().share.is_some()
    }

    /// Whether no run is in it.
    pub fn is_deserted(&self) -> bool {
        self.state().members.is_empty()
    }
}
