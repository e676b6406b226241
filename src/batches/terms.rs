//! What is known of a client's batches before any is made: what they cost, how long they take, and how long a cancelled
//! one does. A [`Lane`](super::lane::Lane) goes by it, and so does whoever wants to know beforehand what a run would do.

use std::sync::Arc;
use std::time::Duration;

use super::costs::{CacheReads, KnownCosts, Prices};
use super::plan::{self, Lengths, Situation, Why};
use super::wire::{Wire, wire_of};
use crate::journal::batches::Ledger;
use crate::journal::error::JournalError;
use crate::providers::Provider;
use crate::providers::call::Batchable;

/// Earlier batches that tell how long they take, at most.
const OBSERVED: usize = 50;

/// Why a lane cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The provider has no batches, or none for this.
    #[error("{0}")]
    Unsupported(String),
    /// Another key made batches that have not ended.
    #[error("{0}")]
    OtherAccount(String),
    /// The ledger fails.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The model.
    pub model: String,
    /// Whether batches cost less.
    pub is_cheaper: bool,
    /// What tokens cost, where the provider's prompt cache may make up for the price of a batch.
    pub prices: Option<Prices>,
    /// What earlier ones have read from the provider's prompt cache.
    pub reads: CacheReads,
    /// How long they take.
    pub lengths: Lengths,
    /// How long a cancelled one takes to end, and its results to be fetched.
    pub settling: Duration,
}

impl Terms {
    /// Of batches with a model. `costs`: what is known of them. `ledger`: has earlier ones.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub(super) fn of(
        provider: &str,
        wire: &dyn Wire,
        model: &str,
        costs: KnownCosts,
        ledger: Option<&Ledger>,
    ) -> Result<Self, JournalError> {
        let seen = ledger.map(|ledger| ledger.lengths(provider, model, OBSERVED)).transpose()?;
        Ok(Self {
            model: model.to_owned(),
            is_cheaper: costs.is_cheaper.unwrap_or_else(|| wire.is_cheaper(model)),
            prices: costs.prices.filter(Prices::may_favour_live),
            reads: reads_of(ledger, provider, model)?,
            lengths: Lengths::new(seen.unwrap_or_default()),
            settling: wire.settling(),
        })
    }

    /// The same, for the requests of a client.
    ///
    /// # Errors
    /// When its provider has no batches for them, or the ledger cannot be read.
    pub fn of_client(
        provider: &str,
        client: &Arc<dyn Provider>,
        costs: KnownCosts,
        ledger: Option<&Ledger>,
    ) -> Result<Self, LaneError> {
        let (client, wire) = batchable(provider, client)?;
        Ok(Self::of(provider, &*wire, client.model(), costs, ledger)?)
    }

    /// How many of so many requests would go into batches, and why the rest would not. `left`: seconds to the deadline;
    /// `rate`: requests per second that can be sent by themselves.
    pub fn split(&self, requests: usize, left: Option<f64>, rate: f64) -> (usize, Option<Why>) {
        let (settle, is_cheaper) = (self.settling.as_secs_f64(), self.is_cheaper);
        let left = left.map(|left| left * plan::PLANNED);
        let situation = Situation { left, rate, settle, is_cheaper, in_batches: 0, settling: 0, others: 0 };
        plan::split(requests, &situation, &self.lengths)
    }
}

/// What batches with a model in a ledger have read from the provider's prompt cache.
///
/// # Errors
/// When the ledger cannot be read.
fn reads_of(ledger: Option<&Ledger>, provider: &str, model: &str) -> Result<CacheReads, JournalError> {
    let used = ledger.map(|ledger| ledger.used(provider, model, OBSERVED)).transpose()?.unwrap_or_default();
    #[allow(clippy::cast_precision_loss)]
    Ok(CacheReads { input: used.input as f64, cached: used.cached as f64 })
}

/// What [`batchable`] finds.
pub(super) type Found = (Arc<dyn Batchable>, Box<dyn Wire>);

/// A client as batches use it, and the batch API of its provider.
///
/// # Errors
/// When the provider has no batches for its requests.
pub(super) fn batchable(provider: &str, client: &Arc<dyn Provider>) -> Result<Found, LaneError> {
    let unsupported =
        || LaneError::Unsupported(format!("{provider} has no batch API for this kind of request; use lane='live'"));
    let client = client.batchable().ok_or_else(unsupported)?;
    let wire = wire_of(provider, &client.path()).map_err(LaneError::Unsupported)?;
    Ok((client, wire))
}
