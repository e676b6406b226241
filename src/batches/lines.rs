//! The lines of chunks: who waits for each of them, 24 bytes a line, and what these are told; and those that earlier runs
//! have left, by what they ask, 24 bytes too. For [`route`](super::route).

use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::journal::batches::OpenLine;
use crate::journal::record::Key;
use crate::providers::ProviderError;
use crate::providers::deferral::Deferred;

/// A line of a chunk: the chunk's number in the ledger, and the line's in the chunk.
pub type Place = (i64, u32);

/// What became of a line.
#[derive(Debug)]
pub enum LineOutcome {
    /// Its reply.
    Reply(Answered),
    /// It was not answered, and nothing was paid: it is to be asked again.
    Again,
    /// Its chunk could not be sent.
    Failed(ProviderError),
    /// The run lets go of it; it stays in its batch.
    Detached,
}

/// The reply to a line.
#[derive(Debug)]
pub struct Answered {
    /// The HTTP status that the request would have had by itself.
    pub status: u16,
    /// The body.
    pub body: Bytes,
    /// The provider's id of the batch.
    pub batch: Arc<str>,
    /// Its chunk.
    pub chunk: i64,
}

/// Who waits for a line.
#[derive(Debug, Default)]
pub enum Waiter {
    /// Nobody has asked for it.
    #[default]
    Nobody,
    /// An attempt waits.
    Attempt(oneshot::Sender<LineOutcome>),
    /// An item, of which nothing else is in memory.
    Item(Deferred),
    /// Nobody has asked for it, and its reply is in the ledger.
    Stored,
    /// It has been given away, or it will not be answered.
    Gone,
}

impl Waiter {
    /// Whether somebody waits.
    pub fn waits(&self) -> bool {
        matches!(self, Self::Attempt(_) | Self::Item(_))
    }

    /// Takes whoever waits, if anybody does; `then` is what follows on them.
    pub fn take(&mut self, then: Self) -> Option<Self> {
        self.waits().then(|| std::mem::replace(self, then))
    }
}

/// What becomes of whoever asks what a line of an earlier run asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Free {
    /// It can wait for the line.
    Open,
    /// The reply is in the ledger.
    Stored,
    /// The line is taken.
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct One {
    request: Key,
    /// Place in `chunks`.
    chunk: u32,
    line: u32,
}

/// Lines of earlier runs, by what they ask. Of equal ones the first in a ledger is the first to be taken.
#[derive(Debug, Default)]
pub struct EarlierLines {
    chunks: Vec<i64>,
    lines: Vec<One>,
    /// Of lines that ask the same: the first that may be free, by the place of the first of all.
    next: FxHashMap<usize, usize>,
}

impl EarlierLines {
    /// Adds a line, in the order of the ledger; [`sort`](Self::sort) must follow.
    pub fn add(&mut self, line: &OpenLine) {
        if self.chunks.last() != Some(&line.chunk) {
            self.chunks.push(line.chunk);
        }
        let chunk = u32::try_from(self.chunks.len() - 1).unwrap_or(u32::MAX);
        self.lines.push(One { request: line.request, chunk, line: line.line });
    }

    /// Puts all lines in order.
    pub fn sort(&mut self) {
        self.lines.sort_unstable();
        self.lines.shrink_to_fit();
    }

    /// Whether an earlier run has left lines of this chunk.
    pub fn has(&self, chunk: i64) -> bool {
        self.chunks.binary_search(&chunk).is_ok()
    }

    /// The first line that asks this and is free, and what becomes of whoever takes it.
    pub fn find(&mut self, request: Key, is_free: impl Fn(Place) -> Free) -> Option<(Place, Free)> {
        let first = self.lines.partition_point(|line| line.request < request);
        let mut at = self.next.get(&first).copied().unwrap_or(first);
        loop {
            let One { chunk, line, .. } = *self.lines.get(at).filter(|line| line.request == request)?;
            let place = (*self.chunks.get(chunk as usize)?, line);
            match is_free(place) {
                Free::No => {
                    at += 1;
                    self.next.insert(first, at);
                }
                free => return Some((place, free)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustc_hash::FxHashSet;

    #[test]
    fn a_line_takes_little() {
        assert!(size_of::<Waiter>() <= 24 && size_of::<One>() <= 24);
    }

    #[test]
    fn lines_that_ask_the_same_are_taken_in_turn() {
        let mut known = EarlierLines::default();
        for (chunk, line, request) in [(4, 0, 9), (4, 1, 7), (5, 0, 7), (5, 1, 7)] {
            known.add(&OpenLine { chunk, line, request: Key([request; 16]), is_answered: false });
        }
        known.sort();
        let mut taken = FxHashSet::default();
        let mut find = |request: u8| {
            let is_free = |place: Place| if taken.contains(&place) { Free::No } else { Free::Open };
            let found = known.find(Key([request; 16]), is_free).map(|(place, _)| place);
            taken.extend(found);
            found
        };
        assert_eq!(
            [7, 9, 7, 7, 7, 9, 8].map(&mut find),
            [Some((4, 1)), Some((4, 0)), Some((5, 0)), Some((5, 1)), None, None, None]
        );
    }
}
