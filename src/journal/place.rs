//! Files of ours on disk: what kind they are, and who may read them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use url::Url;

use super::error::JournalError;
use crate::files::no_file;

/// The kinds of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An SQLite database.
    Sqlite,
    /// A line of JSON per record.
    Jsonl,
    /// Many of these, in a folder or a bucket.
    Segments,
}

const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

/// What a file is: by its content if it has some, else by its name. `None`: the name does not say.
///
/// # Errors
/// When it is there but is no file, or cannot be read.
pub fn format_of(path: &Path) -> Result<Option<Format>, JournalError> {
    let named = named_format(path);
    // A folder with the name of a file is a mistake, unless a separator says that it is meant.
    let is_folder = path.to_string_lossy().ends_with(std::path::is_separator) || (named.is_none() && path.is_dir());
    if is_url(path)? || is_folder {
        return Ok(Some(Format::Segments));
    }
    check(path)?;
    let mut start = Vec::new();
    match File::open(path) {
        Ok(file) => {
            file.take(SQLITE_MAGIC.len() as u64)
                .read_to_end(&mut start)
                .map_err(|error| JournalError::io(path, "reading", error))?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(JournalError::io(path, "opening", error)),
    }
    if start == SQLITE_MAGIC {
        return Ok(Some(Format::Sqlite));
    }
    if start.first() == Some(&b'{') {
        return Ok(Some(Format::Jsonl));
    }
    Ok(named)
}

/// The format that a name says.
fn named_format(path: &Path) -> Option<Format> {
    let suffix = path.extension().map(|suffix| suffix.to_string_lossy().to_lowercase());
    match suffix.as_deref() {
        Some("db" | "sqlite" | "sqlite3") => Some(Format::Sqlite),
        Some("jsonl" | "ndjson") => Some(Format::Jsonl),
        _ => None,
    }
}

/// Schemes of buckets.
const BUCKETS: [&str; 3] = ["s3", "gs", "az"];

/// Whether a path is a URL of segments. Other URLs are not, and no file either.
///
/// # Errors
/// When it is a URL of something else.
fn is_url(path: &Path) -> Result<bool, JournalError> {
    let text = path.to_string_lossy();
    let Some((scheme, _)) = text.split_once("://") else { return Ok(false) };
    if scheme == "file" || BUCKETS.contains(&scheme) {
        return Ok(true);
    }
    let problem = "is not the URL of a store: use s3://, gs://, az:// or file:///".to_owned();
    Err(JournalError::Bucket { url: format!("{scheme}://..."), problem })
}

/// The folder that a path or URL names; `None`: it is a bucket.
pub(super) fn folder_of(path: &Path) -> Result<Option<PathBuf>, JournalError> {
    let text = path.to_string_lossy();
    if !is_url(path)? {
        return Ok(Some(path.to_owned()));
    }
    if !text.starts_with("file:") {
        return Ok(None);
    }
    let folder = Url::parse(&text).ok().and_then(|url| url.to_file_path().ok());
    let problem = "is not a folder on this host; a file URL has three slashes, as in file:///mnt/run/".to_owned();
    folder.map(Some).ok_or_else(|| JournalError::Bucket { url: text.into_owned(), problem })
}

/// Rejects what is no file, such as a pipe or a device.
pub(super) fn check(path: &Path) -> Result<(), JournalError> {
    match no_file(path) {
        Some(kind) => {
            Err(JournalError::Format { path: path.to_owned(), problem: format!("is {kind}, but must be a file") })
        }
        None => Ok(()),
    }
}

/// Makes the folder and an empty file if they are missing. What is in it is the user's alone.
pub(super) fn prepare(path: &Path) -> Result<(), JournalError> {
    check(path)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|error| JournalError::io(folder, "creating the folder", error))?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop).map_err(|error| JournalError::io(path, "opening", error))
}

/// Takes the lock of a file that has one writer; it goes with the file, or with the one that is returned.
pub(super) fn lock(path: &Path, file: &File) -> Result<Option<File>, JournalError> {
    // Elsewhere a lock keeps others from reading too: there it is one of a file beside.
    let beside = match cfg!(unix) {
        true => None,
        false => {
            let mut name = path.as_os_str().to_owned();
            name.push(".lock");
            Some(File::create(name).map_err(|error| JournalError::io(path, "locking", error))?)
        }
    };
    match beside.as_ref().unwrap_or(file).try_lock() {
        Ok(()) => Ok(beside),
        Err(TryLockError::WouldBlock) => Err(JournalError::locked(path, holder(file))),
        Err(TryLockError::Error(error)) => Err(JournalError::io(path, "locking", error)),
    }
}

/// Which process holds the lock of a file, where the system tells (Linux).
fn holder(file: &File) -> Option<u32> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = format!(":{}", file.metadata().ok()?.ino());
        let locks = fs::read_to_string("/proc/locks").ok()?;
        // "1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF", see proc(5)
        let line = locks.lines().find(|line| {
            let mut fields = line.split_whitespace();
            fields.nth(1) == Some("FLOCK") && fields.nth(3).is_some_and(|device| device.ends_with(&inode))
        })?;
        line.split_whitespace().nth(4)?.parse().ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        None
    }
}
