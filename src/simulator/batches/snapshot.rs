//! What the outside is told of batches and of the ledger.

use std::collections::BTreeMap;

use super::ledger::{Lane, Sums, Violation};
use super::state::State;
use super::timing::Phase;

/// One batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// Whose imitation has it.
    pub provider: &'static str,
    /// Its state in the provider's words.
    pub state: &'static str,
    /// Whether it has ended, and if so, how: `completed`, `failed`, `expired` or `cancelled`; else empty.
    pub end: &'static str,
    /// Its label as JSON; empty without one.
    pub label: String,
    /// What tells it from all others; empty if nothing does.
    pub nonce: String,
    /// The file with its lines; empty without one.
    pub file: String,
    /// Its model, where there is one for all.
    pub model: String,
    /// The endpoint that would answer live.
    pub endpoint: String,
    /// Lines.
    pub lines: usize,
    /// Lines that were answered.
    pub succeeded: usize,
    /// Lines that failed.
    pub failed: usize,
    /// When it was made, in seconds since 1970.
    pub created: f64,
    /// When it ended, likewise.
    pub ended: Option<f64>,
    /// How often it was looked at.
    pub polls: u64,
    /// A number for the key that made it.
    pub account: u64,
}

/// Everything.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// All batches, in the order in which they were made.
    pub batches: Vec<Row>,
    /// Batches made by nonce.
    pub per_nonce: BTreeMap<String, u64>,
    /// What was paid for, by lane and model.
    pub lanes: BTreeMap<(Lane, String), Sums>,
    /// How often each question was paid for, live and in batches, where that is counted.
    pub questions: BTreeMap<String, (u64, u64)>,
    /// How often a question was paid for that had been paid for.
    pub paid_twice: u64,
    /// What no good client does.
    pub violations: Vec<Violation>,
    /// Requests by what they did.
    pub calls: BTreeMap<&'static str, u64>,
    /// Most batches that were open at a time.
    pub peak_open: usize,
    /// Most tokens that were queued at a time.
    pub peak_queued: u64,
    /// What the clock says, in seconds since 1970.
    pub now: f64,
}

/// Reads it off.
pub fn of(state: &State, now: f64) -> Snapshot {
    let rows = state.batches.iter().map(|batch| {
        let (order, phase) = (&batch.order, batch.phase(now));
        Row {
            id: batch.id.clone(),
            provider: order.provider.name(),
            state: order.provider.state(phase),
            end: match phase {
                Phase::Completed => "completed",
                Phase::Failed => "failed",
                Phase::Expired => "expired",
                Phase::Cancelled => "cancelled",
                _ if batch.is_idle() => "completed",
                _ => "",
            },
            label: order.label.as_ref().map(|label| label.value().to_string()).unwrap_or_default(),
            nonce: batch.nonce.clone().unwrap_or_default(),
            file: order.file.as_ref().map(|(_, name)| name.clone()).unwrap_or_default(),
            model: order.model.clone().unwrap_or_default(),
            endpoint: order.endpoint.clone(),
            lines: batch.total,
            succeeded: batch.counts.succeeded,
            failed: batch.counts.failed,
            created: state.epoch + batch.timing.created,
            ended: batch.end.map(|(at, _)| state.epoch + at),
            polls: batch.polls,
            account: order.account,
        }
    });
    let ledger = state.ledger.open();
    Snapshot {
        batches: rows.collect(),
        per_nonce: ledger.per_nonce().map(|(nonce, count)| (nonce.to_owned(), count)).collect(),
        lanes: ledger.lanes.clone(),
        questions: ledger.texts.clone(),
        paid_twice: ledger.paid_twice,
        violations: ledger.violations.clone(),
        calls: ledger.calls.clone(),
        peak_open: ledger.peak_open,
        peak_queued: ledger.peak_queued,
        now: state.epoch + now,
    }
}
