//! What a run keeps on disk: a journal of its results, and a cache of answers. No Python, no HTTP.
//!
//! A [`Writer`](writer::Writer) has a thread of its own that writes whatever has come together in one group, and says
//! what is written. Two kinds of file hold the same records: [`sqlite`] (any size, several processes at once) and
//! [`jsonl`] (a line per record, readable with any tool, one writer at a time). An [`index`] of what is there when a
//! run begins finds the records that it need not make again. The bridge uses all of these, the engine none.

pub mod cache;
pub mod error;
pub mod fingerprint;
pub mod gate;
pub mod index;
pub mod jsonl;
pub mod place;
pub mod record;
pub mod sqlite;
#[cfg(test)]
mod tests;
pub mod writer;

use std::path::Path;
use std::time::Duration;

use error::JournalError;
use index::Index;
use jsonl::JsonlJournal;
use place::Format;
use record::{Entry, Head, Reuse, Stored};
use sqlite::SqliteJournal;
use writer::Backend;

/// The version of both formats that is written; older ones are read.
pub const SCHEMA_VERSION: u32 = 1;

/// When a group counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When the operating system has it: nothing is lost if the process is killed; a power cut may cost what was written
    /// in the last [`SYNC_INTERVAL`].
    Flush,
    /// When the disk has it.
    Fsync,
}

/// How often everything written is brought to the disk with [`Durability::Flush`].
pub const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How a journal is opened for writing.
#[derive(Debug, Clone)]
pub struct Options {
    /// When a group counts as written.
    pub durability: Durability,
    /// How long another process' writing is waited for (SQLite).
    pub busy_timeout: Duration,
    /// Which records are worth finding: those of this class and higher.
    pub reuse: Reuse,
    /// The version of the package, for whoever reads the file later.
    pub package_version: String,
    /// JSON of the user's, kept in a new file.
    pub user_metadata: Option<String>,
}

/// A journal that was opened for writing.
pub struct Opened {
    /// Writes; for a [`Writer`](writer::Writer).
    pub backend: Box<dyn Backend<Entry = Entry>>,
    /// Reads records that the index names.
    pub reader: Box<dyn Reader>,
    /// What is there that may be used again.
    pub index: Index,
    /// What had to be put in order.
    pub repairs: Repairs,
}

/// What was found damaged when a journal was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Bytes of a last line that was not written to its end; they were cut off.
    pub torn: u64,
    /// Records inside the file that are damaged; they are passed over.
    pub damaged: u64,
}

/// Reads single records.
pub trait Reader: Send {
    /// The record at a place that the index has named; `None`: it is not what was written there.
    ///
    /// # Errors
    /// When it cannot be read any more.
    fn read(&mut self, place: u64) -> Result<Option<Stored>, JournalError>;
}

/// Opens a journal for writing; makes the file, and its folder, if there is none.
///
/// # Errors
/// When the file is in use by another process, of another kind, damaged, newer than this package, or cannot be written.
pub fn open(path: &Path, format: Format, options: &Options) -> Result<Opened, JournalError> {
    place::prepare(path)?;
    match format {
        Format::Sqlite => SqliteJournal::open(path, options),
        Format::Jsonl => JsonlJournal::open(path, options),
    }
}

/// Reads a whole journal without changing it, also while a run writes to it: as far as it is written at this moment.
///
/// `each` is called with every record in order, its place, and its body if `bodies` are wanted (it is empty otherwise).
/// `after`: a place; those behind it are read, and nothing is told about the file.
///
/// # Errors
/// When the file cannot be read, or is no journal; and what `each` returns.
pub fn scan<E: From<JournalError>>(
    path: &Path,
    format: Format,
    bodies: bool,
    after: Option<u64>,
    each: &mut dyn FnMut(u64, Head, String) -> Result<(), E>,
) -> Result<About, E> {
    place::check(path)?;
    match format {
        Format::Sqlite => sqlite::scan(path, bodies, after, each),
        Format::Jsonl => jsonl::scan(path, bodies, after, each),
    }
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
    /// What is damaged.
    pub repairs: Repairs,
}
