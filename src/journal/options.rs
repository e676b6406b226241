//! How a journal is opened.

use std::time::Duration;

use super::record::Reuse;

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
    /// JSON of the user's, stored in a new file.
    pub user_metadata: Option<String>,
}
