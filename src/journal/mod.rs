//! What a run stores on disk: a journal of its results, and a cache of answers. No Python, no HTTP.
//!
//! A [`Writer`](writer::Writer) has a thread of its own that writes whatever has come together in one group, and says
//! what is written. Two kinds of file hold the same records: [`sqlite`] (any size, several processes at once) and
//! [`jsonl`] (a line per record, readable with any tool, one writer at a time). An [`index`] of what is there when a
//! run begins finds the records that it need not make again. Only the bridge calls this floor.

pub mod cache;
pub mod error;
pub mod fingerprint;
pub mod gate;
pub mod index;
mod jsonl;
mod opened;
mod options;
pub mod place;
pub mod record;
pub mod sqlite;
#[cfg(test)]
mod tests;
pub mod writer;

use std::path::Path;

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
    place::prepare(path)?;
    match format {
        Format::Sqlite => SqliteJournal::open(path, options),
        Format::Jsonl => JsonlJournal::open(path, options),
    }
}

/// Reads a whole journal without changing it, also while a run writes to it: as far as it is written at this moment.
///
/// `each` is called with every record in order, its place, and its body if `bodies` are wanted (it is empty otherwise).
/// `after`: a place; those behind it are read, and nothing about the file.
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
