//! What a ledger has of each chunk of lines: whose it is, how far it is on its way, and what is new of it.

use crate::journal::record::{Key, now};

/// How far a chunk of lines is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing was sent.
    Planned,
    /// Its upload has begun.
    Uploading,
    /// Its file is at the provider.
    Uploaded,
    /// The request that makes the batch was about to be sent: whether there is a batch is not known.
    Creating,
    /// The batch is at the provider, and its id is known.
    Open,
    /// It has ended, and not all of its results are here.
    Ended,
    /// Everything that came of it is here.
    Settled,
}

const STAGES: [(Stage, &str); 7] = [
    (Stage::Planned, "planned"),
    (Stage::Uploading, "uploading"),
    (Stage::Uploaded, "uploaded"),
    (Stage::Creating, "creating"),
    (Stage::Open, "open"),
    (Stage::Ended, "ended"),
    (Stage::Settled, "settled"),
];

impl Stage {
    /// Its name in the file.
    pub fn name(self) -> &'static str {
        STAGES.iter().find(|(stage, _)| *stage == self).map_or("", |(_, name)| name)
    }

    /// Whether there may be a batch at the provider that has not ended.
    pub fn may_be_at_provider(self) -> bool {
        matches!(self, Self::Creating | Self::Open | Self::Ended)
    }

    pub(super) fn of(name: &str) -> Option<Self> {
        STAGES.iter().find(|(_, other)| *other == name).map(|(stage, _)| *stage)
    }
}

/// Whose batches they are, and what they ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The digest of provider, base URL and key.
    pub account: [u8; 16],
    /// The provider's name.
    pub provider: String,
    /// Where it is, without secrets.
    pub base_url: String,
    /// The model.
    pub model: String,
    /// Where single requests would go.
    pub endpoint: String,
}

/// A chunk of lines: a batch, or what is to become one.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Its number in this ledger.
    pub id: i64,
    /// What marks its traces at the provider.
    pub nonce: String,
    /// Whose it is.
    pub route: Route,
    /// How many lines it has.
    pub lines: u64,
    /// How long it is as it is sent, bytes.
    pub bytes: u64,
    /// How far it is.
    pub stage: Stage,
    /// When it was planned, seconds since 1970, as all times here.
    pub planned_at: f64,
    /// How often a request that makes the batch was sent.
    pub tries: u32,
    /// Its file at the provider.
    pub file: Option<String>,
    /// When the last request that makes the batch was about to be sent.
    pub create_begun_at: Option<f64>,
    /// How far the provider's clock was ahead of ours then, seconds.
    pub skew: f64,
    /// The provider's id of the batch.
    pub batch: Option<String>,
    /// How that became known: `reply`, `label`, `file`, `fingerprint`.
    pub found: Option<String>,
    /// When the provider made it.
    pub created_at: Option<f64>,
    /// The provider's word for its state.
    pub word: Option<String>,
    /// Lines that the provider has answered.
    pub done: Option<u64>,
    /// Lines that ended with an error.
    pub failed: Option<u64>,
    /// When the provider was asked last.
    pub seen_at: Option<f64>,
    /// Why it was cancelled, if it was.
    pub cancelled: Option<String>,
    /// When it was known to have ended.
    pub ended_at: Option<f64>,
    /// What was used by lines that runs have taken.
    pub used: Used,
}

impl Chunk {
    /// One that was just planned.
    pub fn planned(id: i64, nonce: &str, route: &Route, lines: u64, bytes: u64) -> Self {
        Self {
            id,
            nonce: nonce.to_owned(),
            route: route.clone(),
            lines,
            bytes,
            stage: Stage::Planned,
            planned_at: now(),
            tries: 0,
            file: None,
            create_begun_at: None,
            skew: 0.0,
            batch: None,
            found: None,
            created_at: None,
            word: None,
            done: None,
            failed: None,
            seen_at: None,
            cancelled: None,
            ended_at: None,
            used: Used::default(),
        }
    }
}

/// Tokens that lines have used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Of prompts.
    pub input: u64,
    /// Of answers.
    pub output: u64,
    /// Of prompts, from the provider's cache.
    pub cached: u64,
}

/// What is known of a chunk from now on.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// Its upload begins.
    Uploading,
    /// Its file is at the provider.
    Uploaded(String),
    /// The request that makes the batch is about to be sent. `skew`: see [`Chunk::skew`].
    Creating {
        /// See [`Chunk::skew`].
        skew: f64,
    },
    /// The batch is certain not to have been made.
    NotMade,
    /// The batch is there.
    Created {
        /// Its id.
        batch: String,
        /// See [`Chunk::found`].
        found: &'static str,
        /// See [`Chunk::created_at`].
        created_at: Option<f64>,
    },
    /// The provider has said how it is.
    Seen {
        /// See [`Chunk::word`].
        word: String,
        /// See [`Chunk::done`] and [`Chunk::failed`].
        done: Option<(u64, u64)>,
    },
    /// A cancellation is about to be sent.
    Cancelling(&'static str),
    /// It has ended.
    Ended,
    /// All that came of it is here.
    Settled,
}

/// A line whose item may ask for its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenLine {
    /// The chunk.
    pub chunk: i64,
    /// Its number in there.
    pub line: u32,
    /// The digest of its request.
    pub request: Key,
    /// Whether its reply is here.
    pub is_answered: bool,
}
