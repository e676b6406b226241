//! What the server of a board and its clients say to each other: one line of JSON per request, and one per reply.

use serde::{Deserialize, Serialize};

use super::{Demand, Report, Share, Verdict};

/// Longest line, bytes.
pub const LONGEST_LINE: u64 = 16 << 10;

/// A request. Each one has the token: a connection has no state.
#[derive(Serialize, Deserialize)]
pub struct Request {
    /// What only those know who may use the board.
    pub token: String,
    /// What is wanted.
    pub call: Call,
}

/// What is wanted.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// [`Board::renew`](super::Board::renew).
    Renew {
        /// The scope.
        scope: String,
        /// The holder.
        holder: String,
        /// The demand.
        #[serde(with = "DemandFields")]
        demand: Demand,
    },
    /// [`Board::report`](super::Board::report).
    Report {
        /// The job.
        job: String,
        /// Who works on it.
        holder: String,
        /// What it says.
        report: Report,
    },
    /// [`Board::leave`](super::Board::leave).
    Leave {
        /// The scope.
        scope: String,
        /// The holder.
        holder: String,
    },
}

/// A reply.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Call::Renew`].
    Share(#[serde(with = "ShareFields")] Share),
    /// To [`Call::Report`].
    Verdict(Verdict),
    /// To [`Call::Leave`].
    Left,
    /// The token is wrong.
    Rejected,
    /// Something else is.
    Error(String),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Demand", default = "Demand::default")]
struct DemandFields {
    part: Option<f64>,
    held: f64,
    pace: Option<f64>,
    refused: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Share")]
struct ShareFields {
    part: f64,
    is_shared: bool,
    is_new: bool,
    pace: Option<f64>,
    refused: u32,
}
