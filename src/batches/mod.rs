//! The batch lane: questions that wait, thousands in one batch, for an answer at half the price. No Python.
//!
//! To the engine a batch is nothing: [`InBatches`](provider::InBatches) is a provider whose attempts take hours. What it
//! is asked becomes a line of an open [`chunk`]; a full chunk is sent by its [`driver`], which writes each step into the
//! ledger (`crate::journal::batches`) **before** it is taken, so that a program killed at any instant finds its batches
//! again, and pays for none twice. [`wire`] has the providers' APIs, [`reconcile`] finds a batch whose id was never read,
//! [`polling`] says when to ask how batches are, and [`watch`] asks for all of an account at once; [`stalls`]
//! says when no more batches are made for a while; [`probing`] has the first request go by itself; where the run leaves the choice to us,
//! [`auto`] asks [`plan`] what goes into batches at all, by the [`terms`] of the provider, and [`costs`] whether a warm
//! prompt cache makes up for their price.
//!
//! What waits is not in memory: chunks are on the disk until they are at the provider ([`chunk`]), replies until somebody
//! takes them, and of most items nothing is left but a number ([`lines`]).
//!
//! Lines are found again by what they ask: the digest of the request's body. Whoever asks the same, in this run or the
//! next, gets the reply that is paid for. The bridge makes lanes; dispatchers see providers alone.

pub mod auto;
pub mod chunk;
pub mod costs;
mod driver;
pub mod lane;
mod lines;
pub mod plan;
pub mod polling;
mod probing;
pub mod provider;
mod reconcile;
mod results;
pub mod route;
pub mod shared;
mod stalls;
pub mod terms;
#[cfg(test)]
mod tests;
mod watch;
pub mod wire;
