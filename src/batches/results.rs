//! Reads the results of batches, as lines or as pages; writes them into the ledger, and passes them on. For
//! [`driver`](super::driver).

use std::sync::Arc;

use bytes::Bytes;

use super::chunk::line_of;
use super::route::{Answered, Route, Told};
use super::wire::{Outcome, Seen};
use crate::journal::batches::Chunk;
use crate::journal::error::JournalError;
use crate::journal::record::Key;
use crate::providers::ProviderError;
use crate::providers::call::Call;
use crate::providers::error::excerpt;

/// Replies that are written down together.
const GROUP: usize = 256;

/// Sends a call for results, and passes on each of them as a line. Returns the call for the next page, if there is one.
///
/// # Errors
/// As the call has them, and [`ProviderError::Protocol`] for a page that cannot be read.
pub(super) async fn read(
    route: &Route,
    seen: &Seen,
    call: Call,
    each: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<Option<Call>, ProviderError> {
    if !route.wire.has_pages() {
        return route.client.call_lines(call, each).await.map(|_| None);
    }
    let body = route.client.call(call).await?.body;
    route.wire.read_page(seen, &body, each).ok_or_else(|| ProviderError::Protocol {
        protocol: "batch",
        problem: "it is no page of results".to_owned(),
        excerpt: excerpt(&body),
    })
}

/// Whether a batch that has ended has results of this chunk.
pub(super) async fn are_of(route: &Route, seen: &Seen, chunk: &Chunk) -> bool {
    let mut ours = false;
    let mut each = |line: &[u8]| {
        let line = route.wire.read_line(line);
        ours |= line.is_some_and(|line| line_of(&chunk.nonce, &line.custom_id).is_some());
    };
    for call in route.wire.results(seen) {
        let mut next = Some(call);
        while let Some(call) = next {
            next = read(route, seen, call, &mut each).await.unwrap_or_default();
        }
    }
    ours
}

/// Reads lines of results; writes them down in groups, and passes them on after that.
pub(super) struct Reader<'a> {
    route: &'a Arc<Route>,
    chunk: &'a Chunk,
    batch: Arc<str>,
    group: Vec<(Key, u32, u16, Bytes)>,
    failure: Option<JournalError>,
}

impl<'a> Reader<'a> {
    pub fn new(route: &'a Arc<Route>, chunk: &'a Chunk) -> Self {
        let batch = Arc::from(chunk.batch.as_deref().unwrap_or_default());
        Self { route, chunk, batch, group: Vec::new(), failure: None }
    }

    /// Takes a line.
    pub fn read(&mut self, line: &[u8]) {
        let Some(line) = self.route.wire.read_line(line) else { return };
        // Lines of others are none of ours, whatever they are doing here.
        let Some((key, number)) = line_of(&self.chunk.nonce, &line.custom_id) else { return };
        let Outcome::Reply(status, body) = line.outcome else { return };
        self.group.push((key, number, status, body));
        if self.group.len() >= GROUP {
            self.pass_on();
        }
    }

    /// Passes on what is left.
    ///
    /// # Errors
    /// When something could not be written down; it was not passed on.
    pub fn finish(mut self) -> Result<(), JournalError> {
        self.pass_on();
        self.failure.map_or(Ok(()), Err)
    }

    fn pass_on(&mut self) {
        let group = std::mem::take(&mut self.group);
        if group.is_empty() || self.failure.is_some() {
            return;
        }
        let rows: Vec<(u32, u16, Vec<u8>)> =
            group.iter().map(|(_, line, status, body)| (*line, *status, body.to_vec())).collect();
        if let Err(error) = self.route.shared.ledger.answer(self.chunk.id, &rows) {
            self.failure = Some(error);
            return;
        }
        for (key, line, status, body) in group {
            let (chunk, batch) = (self.chunk.id, Arc::clone(&self.batch));
            self.route.tell(key, (chunk, line), Told::Reply(Answered { status, body, batch, chunk }));
        }
    }
}
