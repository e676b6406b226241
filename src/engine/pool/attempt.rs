//! Attempts with members, and how they end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::health::Fault;
use crate::engine::measure::{Estimate, ReportedLimit};
use crate::engine::quota::{Ticket, Used};
use crate::engine::scope::Scope;

/// An attempt with a member.
pub struct Place {
    /// The member.
    pub member: usize,
    /// The limits that it is reserved from.
    pub scope: Arc<Scope>,
    /// What was taken from them.
    pub ticket: Ticket,
    /// When it began.
    pub began: Instant,
    /// What it is expected to use.
    pub estimate: Estimate,
    /// Whether it is in the place of an attempt of a run.
    pub is_of_run: bool,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Place({})", self.member)
    }
}

/// How an attempt ended, for its member.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ending {
    /// With an answer.
    Answered,
    /// With an error that says nothing bad about the member.
    Alive,
    /// The member failed. `overloaded`: it has too much to do.
    Failed {
        /// How.
        fault: Fault,
        /// Whether it said so.
        overloaded: bool,
    },
    /// Too many requests or tokens; come back after that, if it said so.
    RateLimited(Duration),
    /// It will never answer: its key is wrong, or it has not got the model.
    Dead,
    /// It was cancelled.
    Cancelled,
}

impl Ending {
    /// Whether another member might have answered.
    pub fn is_of_member(self) -> bool {
        matches!(self, Self::Failed { .. } | Self::RateLimited(_) | Self::Dead)
    }
}

/// What is known of an attempt that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// How it ended.
    pub ending: Ending,
    /// What it used.
    pub used: Used,
    /// What its reply says about limits.
    pub limits: &'a [ReportedLimit],
    /// The account that its reply names.
    pub account: Option<u64>,
}

impl Report<'_> {
    /// Of an attempt that ended so, of which nothing else is known.
    pub fn of(ending: Ending) -> Self {
        Self { ending, used: Used::Unknown, limits: &[], account: None }
    }
}

/// What became of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It is asked nothing for a while.
    Ejected(usize),
    /// It is asked again.
    Back(usize),
    /// It is never asked again.
    Dropped(usize),
}
