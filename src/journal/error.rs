//! What can go wrong with a file of ours, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A journal or cache cannot be used, or not any more.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The operating system fails.
    #[error("{path}: {action} failed: {source}{hint}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Its answer.
        source: io::Error,
        /// A remedy.
        hint: &'static str,
    },
    /// SQLite fails.
    #[error("{path}: {action} failed: {problem}{hint}", path = .path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What it says.
        problem: String,
        /// A remedy.
        hint: &'static str,
    },
    /// A bucket cannot be reached, or its URL cannot be used.
    #[error("{url}: {problem}")]
    Bucket {
        /// The URL.
        url: String,
        /// What is wrong, and a remedy.
        problem: String,
    },
    /// What another run, whose records are in the same segment, was told.
    #[error("{0}")]
    Shared(String),
    /// Somebody else writes to it.
    #[error("{path} is in use by another process{}; wait for it to end, or use another file{hint}",
        .by.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), path = .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// The process, if it is known.
        by: Option<u32>,
        /// What else could be done.
        hint: &'static str,
    },
    /// It is not what it should be.
    #[error("{path} {problem}; it was left unchanged", path = .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A later version of this package wrote it.
    #[error("{path} was written by a newer batch-llm (format {found}; this version reads up to {known}); upgrade batch-llm, or use another file", path = .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: u32,
    },
    /// Writing has failed before.
    #[error("no further results can be written: {0}")]
    Failed(String),
}

const FULL: &str = "; free some space. Everything written before is intact";
const READ_ONLY: &str = "; make the file and its folder writable";
const LIMITS: &str = ". Several processes can write to one store if it is an SQLite file (.db)";

impl JournalError {
    /// Of the operating system.
    pub fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FULL,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => READ_ONLY,
            _ => "",
        };
        Self::Io { path: path.to_owned(), action, source, hint }
    }

    /// Of SQLite.
    pub fn database(path: &Path, action: &'static str, error: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Locked { path, by: None, hint: ", or raise busy_timeout_seconds" }
            }
            Some(ErrorCode::NotADatabase) => Self::Format { path, problem: "is not an SQLite database".to_owned() },
            Some(ErrorCode::DatabaseCorrupt) => Self::Format { path, problem: format!("is damaged ({error})") },
            code => {
                let hint = match code {
                    Some(ErrorCode::DiskFull) => FULL,
                    Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => READ_ONLY,
                    _ => "",
                };
                Self::Database { path, action, problem: error.to_string(), hint }
            }
        }
    }

    /// Somebody else has the lock of a file that only one may write.
    pub fn locked(path: &Path, by: Option<u32>) -> Self {
        Self::Locked { path: path.to_owned(), by, hint: LIMITS }
    }

    /// Whether the file is the problem, not the machine.
    pub fn is_format(&self) -> bool {
        matches!(self, Self::Format { .. } | Self::Newer { .. })
    }
}

/// Whether an error says that a value is not of the kind that we write, or too long: then its record is damaged, and
/// others are not.
pub(super) fn is_of_a_value(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    matches!(error, FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..))
        || error.sqlite_error_code() == Some(rusqlite::ErrorCode::TooBig)
}
