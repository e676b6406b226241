//! What there is of a journal that was opened, whatever kind of file it is.

use super::error::JournalError;
use super::index::Index;
use super::record::{Entry, Stored};
use super::writer::Backend;

/// A journal that was opened for writing.
pub struct Opened {
    /// Writes; for a [`Writer`](super::writer::Writer).
    pub backend: Box<dyn Backend<Entry = Entry>>,
    /// Reads records that the index names.
    pub reader: Box<dyn Reader>,
    /// What is there that may be used again.
    pub index: Index,
    /// What had to be put in order.
    pub repairs: Repairs,
    /// See [`events`](super::events).
    pub events: Vec<String>,
}

/// What was found damaged when a journal was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Bytes of a last line that was not written to its end; they were truncated.
    pub torn: u64,
    /// Records inside the file that are damaged; they are passed over.
    pub damaged: u64,
    /// Files at a place of segments that are none, and segments that cannot be read as a whole.
    pub foreign: u64,
    /// See [`pass_over`](Self::pass_over).
    pub unreadable: u64,
    /// What is wrong with the first of these.
    pub example: Option<String>,
}

impl Repairs {
    /// A file is passed over, or a part of it.
    pub fn pass_over(&mut self, problem: String) {
        self.unreadable += 1;
        self.example.get_or_insert(problem);
    }
}

/// Reads single records.
pub trait Reader: Send {
    /// The record at a place that the index has named; `None`: it is not what was written there.
    ///
    /// # Errors
    /// When it cannot be read any more.
    fn read(&mut self, place: u64) -> Result<Option<Stored>, JournalError>;

    /// Adds to the index what others have written since.
    fn refresh(&mut self, _index: &mut Index) {}
}

/// What a journal says about itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    /// Seconds since 1970.
    pub created_at: f64,
    /// How many runs have written to it.
    pub runs: u64,
    /// JSON of the user's.
    pub user_metadata: Option<String>,
    /// JSON of each identity, by its number.
    pub identities: Vec<(i64, String)>,
    /// What was done to its runs; the last ones, in order.
    pub events: Vec<String>,
    /// What bounded the last runs over time, by the run.
    pub bound_over_time: Vec<(u64, String)>,
    /// What is damaged.
    pub repairs: Repairs,
}
