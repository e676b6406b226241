//! What is in a journal when a run begins, by request: 24 bytes a record.
//!
//! Each record answers one item of the run: of equal requests, the first gets one record, the second the next, so that
//! several samples of one prompt stay several. Among records of equal requests that of the same item id goes first.

use std::hash::Hasher;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

use super::record::{Key, Reuse};

/// A record that may be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reusable {
    request: u64,
    id: u32,
    /// Of equal ones the last record first.
    age: std::cmp::Reverse<u64>,
    reuse: Reuse,
}

impl Reusable {
    /// Later records have higher places.
    pub fn new(key: Key, id: u32, place: u64, reuse: Reuse) -> Self {
        Self { request: key.prefix(), id, age: std::cmp::Reverse(place), reuse }
    }
}

/// Records that may be used again, by one run.
#[derive(Debug)]
pub struct Index {
    known: Arc<Vec<Reusable>>,
    /// Those of this class and higher are used.
    least: Reuse,
    /// Places.
    taken: FxHashSet<u64>,
    /// Where to look on for a free record, by where those of its request begin.
    next: FxHashMap<usize, usize>,
}

impl Default for Index {
    fn default() -> Self {
        Self::shared(Arc::default(), Reuse::Success)
    }
}

impl Index {
    /// Of records as `(key, item id, place)`; later ones have higher places.
    pub fn build(records: Vec<(Key, u32, u64)>) -> Self {
        let known = records.into_iter().map(|(key, id, place)| Reusable::new(key, id, place, Reuse::Success));
        let mut known: Vec<Reusable> = known.collect();
        known.sort_unstable();
        Self::shared(Arc::new(known), Reuse::Success)
    }

    /// Of records in order, which other runs use too; `least`: those of this class and higher.
    pub fn shared(known: Arc<Vec<Reusable>>, least: Reuse) -> Self {
        Self { known, least, taken: FxHashSet::default(), next: FxHashMap::default() }
    }

    /// Uses other records, of which those that were there before have the same places.
    pub fn replace(&mut self, known: Arc<Vec<Reusable>>) {
        if !Arc::ptr_eq(&self.known, &known) {
            self.known = known;
            self.next.clear();
        }
    }

    /// Takes a record by its place: this run does not get it.
    pub fn take(&mut self, place: u64) {
        self.taken.insert(place);
    }

    /// How many records there are.
    pub fn count(&self) -> usize {
        match self.least {
            Reuse::Success => self.known.iter().filter(|known| known.reuse == Reuse::Success).count(),
            _ => self.known.len(),
        }
    }

    /// Takes a record for an item; nobody else gets it then. Returns its place.
    pub fn claim(&mut self, key: Key, id: &str) -> Option<u64> {
        let (request, id) = (key.prefix(), short(id));
        let mine = self.known.partition_point(|known| (known.request, known.id) < (request, id));
        let free = (mine..self.known.len())
            .take_while(|at| (self.known[*at].request, self.known[*at].id) == (request, id))
            .find(|at| self.is_free(*at));
        let at = free.or_else(|| self.any(request))?;
        Some(self.take_at(at))
    }

    /// The same for a step of a conversation that began with `request`. Steps of another item are taken only if that item
    /// has no result: conversations that ended are samples of their own.
    pub fn claim_step(&mut self, key: Key, id: &str, request: Key) -> Option<u64> {
        let (key, own) = (key.prefix(), short(id));
        let first = self.known.partition_point(|known| known.request < key);
        let free = || {
            let steps = (first..self.known.len()).take_while(|at| self.known[*at].request == key);
            steps.filter(|at| self.is_free(*at))
        };
        let mine = free().find(|at| self.known[*at].id == own);
        let at = mine.or_else(|| free().find(|at| !self.has_result(request, self.known[*at].id)))?;
        Some(self.take_at(at))
    }

    /// Whether there is a record of this request for an item.
    fn has_result(&self, request: Key, id: u32) -> bool {
        let wanted = (request.prefix(), id);
        let at = self.known.partition_point(|known| (known.request, known.id) < wanted);
        self.known.get(at).is_some_and(|known| (known.request, known.id) == wanted && known.reuse == Reuse::Success)
    }

    fn take_at(&mut self, at: usize) -> u64 {
        let place = self.known[at].age.0;
        self.taken.insert(place);
        place
    }

    fn is_free(&self, at: usize) -> bool {
        let known = &self.known[at];
        known.reuse >= self.least && !self.taken.contains(&known.age.0)
    }

    fn any(&mut self, request: u64) -> Option<usize> {
        let first = self.known.partition_point(|known| known.request < request);
        let begin = self.next.get(&first).copied().unwrap_or(first);
        let free = (begin..self.known.len())
            .take_while(|at| self.known[*at].request == request)
            .find(|at| self.is_free(*at))?;
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
