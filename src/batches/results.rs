//! Reads the results of batches, which come as lines or as pages. For [`driver`](super::driver).

use super::chunk::line_of;
use super::wire::{Outcome, Seen, Wire, read_line};
use crate::providers::ProviderError;
use crate::providers::call::{Batchable, Call};
use crate::providers::error::excerpt;

/// Replies that are written down together, at most: each time the disk is waited for.
const GROUP: usize = 1024;
/// Bytes of these, at most.
const GROUP_BYTES: usize = 512 << 10;

/// Who is asked for results, and how.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// Sends calls.
    pub client: &'a dyn Batchable,
    /// Writes and reads them.
    pub wire: &'a dyn Wire,
}

impl Source<'_> {
    /// Sends a call for results, and passes on each of them as a line. Returns the call for the next page, if there is one.
    ///
    /// # Errors
    /// As the call has them, and [`ProviderError::Protocol`] for a page that cannot be read.
    pub async fn read(
        &self,
        seen: &Seen,
        call: Call,
        each: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Option<Call>, ProviderError> {
        if !self.wire.has_pages() {
            return self.client.call_lines(call, each).await.map(|_| None);
        }
        let body = self.client.call(call).await?.body;
        self.wire.read_page(seen, &body, each).ok_or_else(|| ProviderError::Protocol {
            protocol: "batch",
            problem: "it is not a page of results".to_owned(),
            excerpt: excerpt(&body),
        })
    }

    /// Whether a batch that has ended has results of the chunk with this nonce.
    pub async fn are_of(&self, seen: &Seen, nonce: &str) -> bool {
        let mut ours = false;
        let mut each = |line: &[u8]| {
            ours |= read_line(self.wire, line).is_some_and(|line| line_of(nonce, &line.custom_id).is_some());
        };
        for call in self.wire.results(seen) {
            let mut next = Some(call);
            while let Some(call) = next {
                next = self.read(seen, call, &mut each).await.unwrap_or_default();
            }
        }
        ours
    }
}

/// A line's number, and the status and the body of its reply.
pub(super) type StoredReply = (u32, u16, Vec<u8>);

/// Reads lines of results, and has replies written down in groups.
pub(super) struct Reader<'a, E> {
    wire: &'a dyn Wire,
    nonce: &'a str,
    keep: &'a (dyn Fn(&[StoredReply]) -> Result<(), E> + Sync),
    group: Vec<StoredReply>,
    bytes: usize,
    /// Lines of the chunk that were there.
    found: usize,
    failure: Option<E>,
}

impl<'a, E> Reader<'a, E> {
    /// For a chunk with this nonce. After a failure nothing is written down any more.
    pub fn new(wire: &'a dyn Wire, nonce: &'a str, keep: &'a (dyn Fn(&[StoredReply]) -> Result<(), E> + Sync)) -> Self {
        Self { wire, nonce, keep, group: Vec::new(), bytes: 0, found: 0, failure: None }
    }

    /// Takes a line.
    pub fn read(&mut self, line: &[u8]) {
        let Some(line) = read_line(self.wire, line) else { return };
        // Lines of others are none of ours, whatever they are doing here.
        let Some((_, number)) = line_of(self.nonce, &line.custom_id) else { return };
        self.found += 1;
        let Outcome::Reply(status, body) = line.outcome else { return };
        self.bytes += body.len();
        self.group.push((number, status, body.into()));
        if self.group.len() >= GROUP || self.bytes >= GROUP_BYTES {
            self.keep();
        }
    }

    /// Has written down what is left. Returns how many lines of the chunk there were.
    ///
    /// # Errors
    /// The failure, if there was one.
    pub fn finish(mut self) -> Result<usize, E> {
        self.keep();
        self.failure.map_or(Ok(self.found), Err)
    }

    fn keep(&mut self) {
        if !self.group.is_empty() && self.failure.is_none() {
            self.failure = (self.keep)(&self.group).err();
        }
        self.group.clear();
        self.bytes = 0;
    }
}
