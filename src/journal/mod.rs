//! What a run stores: a journal of its results, and a cache of answers. No Python.
//!
//! A [`Writer`](writer::Writer) has a thread of its own that writes whatever has come together in one group, and says
//! what is written. Three kinds of store hold the same records: [`sqlite`] (any size, several processes at once),
//! [`jsonl`] (a line per record, readable with any tool, one writer at a time) and [`segments`] (in a folder or a
//! bucket, several hosts at once). An [`index`] of what is there when a run begins finds the records that it need not
//! make again. Only the bridge calls this floor.

pub mod batches;
pub mod bound_over_time;
pub mod cache;
pub mod error;
pub mod events;
pub mod fingerprint;
pub mod gate;
pub mod index;
mod jsonl;
mod lines;
mod opened;
mod options;
pub mod place;
pub mod record;
mod segments;
pub mod sqlite;
#[cfg(test)]
mod tests;
mod turns;
pub mod writer;

use std::path::{Path, PathBuf};

use error::JournalError;
use jsonl::JsonlJournal;
use place::Format;
use record::Head;
use sqlite::SqliteJournal;

pub use opened::{About, Opened, Reader, Repairs};
pub use options::{Durability, Options};

/// Opens a journal for writing; makes the file, and its folder, if there is none.
///
/// # Errors
/// When the file is in use by another process, of another kind, damaged, newer than this package, or cannot be written.
pub fn open(path: &Path, format: Format, options: &Options) -> Result<Opened, JournalError> {
    if format == Format::Segments {
        return segments::open(path, options);
    }
    place::prepare(path)?;
    match format {
        Format::Sqlite => SqliteJournal::open(path, options),
        _ => JsonlJournal::open(path, options),
    }
}

/// A journal that is read and not changed, also while a run writes to it.
pub enum View {
    /// A file, as far as it is written when it is read.
    File(PathBuf, Format),
    /// Segments, as they were when the view was made.
    Segments(segments::View),
}

impl View {
    /// Of a journal.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn new(path: &Path, format: Format) -> Result<Self, JournalError> {
        match format {
            Format::Segments => segments::View::new(path).map(Self::Segments),
            _ => Ok(Self::File(path.to_owned(), format)),
        }
    }

    /// Reads all of it.
    ///
    /// `each` is called with every record in order, its place, and its body if `bodies` are wanted (it is empty otherwise).
    /// `after`: a place; those behind it are read, and nothing about the file.
    ///
    /// # Errors
    /// When the file cannot be read, or is no journal; and what `each` returns.
    pub fn scan<E: From<JournalError>>(
        &self,
        bodies: bool,
        after: Option<u64>,
        each: &mut dyn FnMut(u64, Head, String) -> Result<(), E>,
    ) -> Result<About, E> {
        match self {
            Self::Segments(view) => view.scan(bodies, after, each),
            Self::File(path, format) => {
                place::check(path)?;
                match format {
                    Format::Sqlite => sqlite::scan(path, bodies, after, each),
                    _ => jsonl::scan(path, bodies, after, each),
                }
            }
        }
    }

    /// Whether this is a file of SQLite, or may become one: see [`gate`].
    pub fn stops_forks(&self) -> bool {
        matches!(self, Self::File(..))
    }
}
