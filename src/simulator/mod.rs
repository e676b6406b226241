//! A provider that answers on this machine, for tests, demos and benchmarks: real HTTP, deterministic replies, quotas,
//! faults on schedule. Binds to the loopback address only. Only the bridge calls this floor.
//!
//! [`server`] receives; a [`dialect`] (the table [`dialects`] has all of them) reads a request into a
//! [`model::Question`] and writes the answer; [`model`] is the model: the same question always gets the same answer,
//! one that fits the schema that came with it ([`sample`]); [`history`] and [`strict`] reject what the vendors' servers
//! reject, [`prompt_caches`] charge for prompts as their caches do, [`state`] is what a model wants back; [`counts`] are the endpoints that only count tokens; [`streams`] split answers into events, [`replies`] send them; [`quota`]
//! and [`faults`] say when there is none; [`clouds`] give credentials and check them; [`batches`] answer later and for half the price; [`ledger`] remembers everything; [`tls`] encrypts.

mod answers;
mod anthropic;
mod batches;
mod bedrock;
mod caches;
mod chat;
mod clouds;
mod counts;
mod dialect;
mod dialects;
mod embeddings;
mod faults;
mod gemini;
mod history;
mod invalid;
mod latency;
mod ledger;
mod metrics;
mod model;
mod openai;
mod prompt_caches;
mod quota;
mod replies;
mod responses;
pub mod sample;
mod server;
mod state;
pub mod streams;
mod strict;
pub mod tls;

pub use batches::{
    BatchLane, Fault as BatchFault, FaultKind as BatchFaultKind, Row as BatchRow, Settings as BatchSettings,
    Snapshot as BatchSnapshot,
};
pub use clouds::{CloudCounts, Settings as CloudSettings};
pub use faults::{Fault, FaultKind};
pub use latency::{Distribution, Latency};
pub use prompt_caches::{CacheCounts, Settings as CacheSettings, Sums as CacheSums};
pub use quota::Limits;
pub use server::{Behaviour, Simulator};
