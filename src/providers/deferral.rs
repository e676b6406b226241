//! Answers that come hours after their attempts: a provider may end an attempt without one, and bring it later to the desk
//! of whoever asked. A lane that puts requests into batches does so; dispatchers have desks.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::error::ProviderError;
use super::reply::Reply;

/// An item whose answer comes later: all that is kept of it meanwhile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deferred {
    /// The item.
    pub item: u64,
    /// When its attempt began, since the beginning of the run, seconds.
    pub at: f32,
    /// How long it had waited before that, seconds.
    pub waited: f32,
}

/// Something that happens some time.
pub type Event<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Where answers are brought that come later.
pub trait Desk: Send + Sync + 'static {
    /// The answer to an item comes later; its attempt ends with [`ProviderError::Deferred`]. `None`: not to this one,
    /// whose attempt is to wait.
    fn defer(&self, item: u64) -> Option<Deferred>;

    /// There is room for some more items. Whoever brings many waits for this before each.
    fn has_room(&self) -> Event<'_>;

    /// Brings an answer.
    fn bring(&self, deferred: Deferred, outcome: Result<Reply, ProviderError>);

    /// An item was not answered, and has cost nothing: it is to be asked again.
    fn retry_deferred(&self, deferred: Deferred);

    /// The run is over, and wants all items [back](Self::give_back).
    fn is_over(&self) -> Event<'_>;

    /// Gives an item back.
    fn give_back(&self, deferred: Deferred);
}

/// Where to bring the answer to a question.
#[derive(Clone)]
pub struct Deferral {
    /// There.
    pub desk: Arc<dyn Desk>,
    /// The item that asks.
    pub item: u64,
}

impl std::fmt::Debug for Deferral {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Deferral({})", self.item)
    }
}
