//! How a scope is shared with other processes: what it asks of those who share it, and what it gets.

use tokio::time::{Duration, Instant};

use super::scope::Scope;

/// A part below this is none, but one can calculate with it.
pub const NOTHING: f64 = 1e-3;

/// What a process says of itself when it renews its lease.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Demand {
    /// The part of the whole limits that it can use; `None`: as much as there is.
    pub part: Option<f64>,
    /// The part that it has, for a board that has forgotten it; 0: none yet.
    pub held: f64,
    /// Attempts per second that it has found it may start, where no limit is known.
    pub pace: Option<f64>,
    /// Rate limits that it met since it last said so, where no limit is known.
    pub refused: u32,
}

/// What it gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Its part of the limits; less than [`NOTHING`]: the others have not made room yet.
    pub part: f64,
    /// Whether others have a part.
    pub is_shared: bool,
    /// Whether it had no lease before.
    pub is_new: bool,
    /// Its part of what all together have found that they may start, attempts per second.
    pub pace: Option<f64>,
    /// Rate limits that others met since it last asked.
    pub refused: u32,
}

impl Share {
    /// Whether the others have not made room yet.
    pub fn is_nothing(&self) -> bool {
        self.part < NOTHING
    }
}

impl Scope {
    /// What to tell the others.
    pub fn demand(&self, now: Instant) -> Demand {
        let mut state = self.state();
        let short = std::mem::take(&mut state.was_short) || (state.is_short && !state.line.is_empty());
        let share = state.share.unwrap_or_default();
        let used = state.quota.used(now) * state.share.unwrap_or(1.0);
        Demand { part: (!short).then_some(used), held: if share > NOTHING { share } else { 0.0 }, ..Demand::default() }
    }

    /// Takes what they leave. `soon`: when there may be more, if it is nothing.
    pub fn take(&self, share: Share, soon: Duration, now: Instant) {
        let mut state = self.state();
        if share.is_new {
            // What may pass at once is not there from the beginning, or each process would bring its own.
            state.quota.begin_empty(now);
        }
        let part = share.part.max(NOTHING);
        if (state.share.unwrap_or(1.0) - part).abs() > 1e-6 {
            state.share = Some(part);
            state.configure(now);
            // Whoever waits for its turn does so until an instant that was right for the share before.
            state.wake_first();
        }
        if share.is_nothing() {
            state.paused_until = state.paused_until.max(Some(now + soon));
        }
    }

    /// Whether no run is in it.
    pub fn is_deserted(&self) -> bool {
        self.state().members.is_empty()
    }
}
