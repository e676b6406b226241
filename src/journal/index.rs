//! What is in a journal when a run begins, by request: 24 bytes a record.
//!
//! Each record answers one item of the run: of equal requests, the first gets one record, the second the next, so that
//! several samples of one prompt stay several. Among records of equal requests that of the same item id goes first.

use rustc_hash::{FxHashMap, FxHasher};
use std::hash::Hasher;

use super::record::Key;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    request: u64,
    id: u32,
    /// Of equal ones the last record first.
    age: std::cmp::Reverse<u64>,
}

/// Records that may be used again.
#[derive(Debug, Default)]
pub struct Index {
    known: Vec<Known>,
    taken: Vec<bool>,
    /// Where to look on for a free record, by where those of its request begin.
    next: FxHashMap<usize, usize>,
}

impl Index {
    /// Of records as `(key, item id, place)`; later ones have higher places.
    pub fn build(records: Vec<(Key, u32, u64)>) -> Self {
        let mut known: Vec<Known> = records
            .into_iter()
            .map(|(key, id, place)| Known { request: key.prefix(), id, age: std::cmp::Reverse(place) })
            .collect();
        known.sort_unstable();
        Self { taken: vec![false; known.len()], known, next: FxHashMap::default() }
    }

    /// How many records there are.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Takes a record for an item; nobody else gets it then. Returns its place.
    pub fn claim(&mut self, key: Key, id: &str) -> Option<u64> {
        let (request, id) = (key.prefix(), short(id));
        let mine = self.known.partition_point(|known| (known.request, known.id) < (request, id));
        let free = (mine..self.known.len())
            .take_while(|at| (self.known[*at].request, self.known[*at].id) == (request, id))
            .find(|at| !self.taken[*at]);
        let at = free.or_else(|| self.any(request))?;
        self.taken[at] = true;
        Some(self.known[at].age.0)
    }

    fn any(&mut self, request: u64) -> Option<usize> {
        let first = self.known.partition_point(|known| known.request < request);
        let begin = self.next.get(&first).copied().unwrap_or(first);
        let free = (begin..self.known.len())
            .take_while(|at| self.known[*at].request == request)
            .find(|at| !self.taken[*at])?;
        if free > first {
            self.next.insert(first, free);
        }
        Some(free)
    }
}

/// An item id in four bytes.
pub fn short(id: &str) -> u32 {
    let mut hasher = FxHasher::default();
    hasher.write(id.as_bytes());
    #[allow(clippy::cast_possible_truncation)] // it is a hash
    let short = (hasher.finish() >> 32) as u32;
    short
}
