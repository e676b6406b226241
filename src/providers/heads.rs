//! What requests have in common at their beginning, for the providers' prompt caches: how long it is, and for how long
//! others may read what one of them has written.
//!
//! A [`Provider`](super::provider::Provider) says it of a question; the scheduler lets the first request of a head run
//! alone until the others can read it.

use std::time::Duration;

/// What a request begins with and others begin with too, where the provider caches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The same for all requests that can read the same entry of the cache, and for no others.
    pub key: u64,
    /// Its length, tokens, as estimated from its bytes.
    pub tokens: u32,
    /// How long an entry lives after its last use.
    pub life: Duration,
    /// When the entry that a request writes can be read.
    pub readable: Readable,
    /// Whether the request marks its end, without which the provider would not cache it.
    pub marked: bool,
}

/// When the entry that a request writes can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readable {
    /// When the reply begins.
    AtFirstByte,
    /// When the reply has ended.
    AtEnd,
}
