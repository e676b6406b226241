//! What answers questions, and how it is called.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::call::Batchable;
use super::counting::Count;
use super::error::ProviderError;
use super::plan::Head;
use super::prompt::Ask;
use super::reply::Reply;
use crate::engine::pool::queue::Depth;

/// The future of one attempt. Dropping it drops the request.
pub type Attempt = Pin<Box<dyn Future<Output = Result<Reply, ProviderError>> + Send>>;

/// Something that answers questions.
pub trait Provider: Send + Sync + 'static {
    /// Asks once. Never retries: that is the engine's business.
    fn attempt(&self, ask: Ask) -> Attempt;

    /// Counts the tokens of a question, without an answer. `None`: the provider cannot.
    fn count(&self, _ask: Ask) -> Option<Count> {
        None
    }

    /// Whether attempts may end with [`ProviderError::Deferred`].
    fn defers(&self) -> bool {
        false
    }

    /// How long an attempt may take where replies come as streams, whose clocks end what is dead; seconds.
    fn stream_timeout(&self, _is_followed: bool) -> Option<f64> {
        None
    }

    /// Whether any question has a [`head`](Self::head).
    fn has_heads(&self) -> bool {
        false
    }

    /// Whether it is worth saying that a question has no [`head`](Self::head): what all have in common is almost long
    /// enough for one, or the user expects that it is.
    fn is_too_short(&self) -> bool {
        false
    }

    /// Sees questions that will be asked, before the [`head`](Self::head) of any of them is wanted: what a head is
    /// depends on what the questions have in common. A question may be seen again.
    fn notice(&self, _asks: &[&Ask]) {}

    /// Asks the server how much it has to do. `None`: it cannot be asked.
    fn queue(&self) -> Option<Pin<Box<dyn Future<Output = Depth> + Send>>> {
        None
    }

    /// A run asks its questions here from now on: caches may be made for them at the provider.
    fn hold(&self) {}

    /// A run asks no more. After the last, what was made at the provider is deleted; what cannot be ends by itself.
    fn release(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }

    /// The same provider for questions that are lines of a batch. `None`: it has no such.
    fn batchable(&self) -> Option<Arc<dyn Batchable>> {
        None
    }

    /// What a question begins with and others begin with too. `None`: no cache is known, the head is too short or too
    /// rare to pay, or it is not to be cached.
    fn head(&self, _ask: &Ask) -> Option<Head> {
        None
    }

    /// Whether a question begins with the head of this number (`base` of [`Head`]), as another one did.
    fn begins_with(&self, _ask: &Ask, _base: u64) -> bool {
        true
    }
}

/// Answers no question: its address is one to which nothing may be sent.
pub struct Rejecting(pub String);

impl Provider for Rejecting {
    fn attempt(&self, _ask: Ask) -> Attempt {
        Box::pin(std::future::ready(Err(ProviderError::Request(self.0.clone()))))
    }
}
