//! What the routes of a [`Lane`](super::lane::Lane) share, and how they work.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::runtime::Handle;

use super::lines::Place;
use super::polling::Polling;
use super::watch::Watch;
use crate::journal::batches::{Ledger, Used};
use crate::journal::error::JournalError;
use crate::spool::Spool;

/// How a lane works.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Lines of a chunk, at most.
    pub size: usize,
    /// Bytes of a chunk, at most, unless a single line has more.
    pub bytes: usize,
    /// How long a chunk that is not full waits for another line.
    pub linger: Duration,
    /// How often the provider is asked.
    pub polling: Polling,
    /// The pauses before each look at the list of batches after a create that was not answered; after the last, it
    /// counts as not made. None: as long as the provider needs.
    pub looks: Option<Vec<Duration>>,
    /// How long to wait where the provider's queue is full, and no batch of ours ends.
    pub queue_wait: Duration,
    /// Whether the first request goes by itself, before the first batch is made.
    pub probe: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            size: 5000,
            bytes: 64 << 20,
            linger: seconds(5),
            polling: Polling::default(),
            looks: None,
            queue_wait: seconds(120),
            probe: true,
        }
    }
}

/// What a run has in batches, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines that wait for their chunk to be sent.
    pub filling: usize,
    /// Lines on their way to the provider.
    pub sending: usize,
    /// Lines in batches at the provider.
    pub open: usize,
    /// Batches at the provider.
    pub batches: usize,
    /// Lines whose replies have arrived.
    pub collected: usize,
    /// Lines that somebody waits for.
    pub waiting: usize,
    /// Of these, those in batches that the provider works on.
    pub running: usize,
    /// And those whose results are being written by the provider, or fetched.
    pub writing: usize,
}

/// What requests have of batches, in numbers, where somebody waits for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchLoad {
    /// Those in batches, or on their way there.
    pub in_batches: usize,
    /// Those in batches that are being cancelled.
    pub settling: usize,
}

/// What routes share.
pub(super) struct Shared {
    pub ledger: Arc<Ledger>,
    pub settings: Settings,
    pub runtime: Handle,
    /// What the user is to know, until somebody takes it.
    pub notes: Mutex<Vec<String>>,
    /// Batches of all chunks: none is adopted twice.
    pub claimed: Mutex<FxHashSet<String>>,
    /// How the batches of each account are looked at.
    pub watches: Mutex<FxHashMap<[u8; 16], Arc<Watch>>>,
    /// Lines whose replies were passed on.
    pub given: Mutex<Marks>,
    /// What they have used, by chunk.
    pub spent: Mutex<FxHashMap<i64, Used>>,
    /// Where chunks are that are not in batches yet; none: in memory, for there can be no file.
    pub spool: OnceLock<Option<Arc<Spool>>>,
}

impl Shared {
    pub fn spool(&self) -> Option<Arc<Spool>> {
        let make = || Spool::beside(self.ledger.path()).map(Arc::new).ok();
        self.spool.get_or_init(make).clone()
    }

    pub fn note(&self, text: String) {
        lock(&self.notes).push(text);
    }
}

/// Lines that are marked: a bit each.
#[derive(Debug, Default)]
pub(super) struct Marks(FxHashMap<i64, Vec<u64>>);

impl Marks {
    /// Marks a line.
    pub fn add(&mut self, (chunk, line): Place) {
        let (words, word) = (self.0.entry(chunk).or_default(), line as usize / 64);
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= 1 << (line % 64);
    }

    /// Whether a line is marked.
    pub fn has(&self, (chunk, line): Place) -> bool {
        let word = self.0.get(&chunk).and_then(|words| words.get(line as usize / 64));
        word.is_some_and(|word| word & (1 << (line % 64)) != 0)
    }

    /// All that are marked, chunk by chunk.
    pub fn into_chunks(self) -> impl Iterator<Item = (i64, Vec<u32>)> {
        self.0.into_iter().map(|(chunk, words)| {
            let bits = |(at, word): (usize, &u64)| {
                let (at, word) = (u32::try_from(at * 64).unwrap_or(u32::MAX), *word);
                (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| at + bit)
            };
            (chunk, words.iter().enumerate().flat_map(bits).collect())
        })
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Work with the ledger, which waits for the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(JournalError::Failed("recording a batch was interrupted".to_owned())))
}
