//! Where segments are: a folder here. See [`bucket`](super::bucket) for the other kind.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::journal::error::JournalError;

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name, without the folder.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Gets the name and the content of a file.
pub type Each<'a> = &'a mut dyn FnMut(&str, &[u8]) -> Result<(), JournalError>;

/// A place that holds files, each of which is written whole and never changed.
pub trait Place: Send + Sync {
    /// All files, in no order; `after`: those whose names come after this one.
    ///
    /// # Errors
    /// When the place cannot be reached.
    fn list(&self, after: Option<&str>) -> Result<Vec<Listed>, JournalError>;

    /// Reads files, and calls `each` with their names and contents, in this order. Those that are gone are passed over.
    ///
    /// # Errors
    /// When one cannot be read; and what `each` returns.
    fn read(&self, names: &[String], each: Each<'_>) -> Result<(), JournalError>;

    /// Writes a file: others see all of it, or nothing. What may pass is tried again for so long.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write(&self, name: &str, content: Vec<u8>, patience: Duration) -> Result<(), JournalError>;

    /// Removes a file.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    fn remove(&self, name: &str) -> Result<(), JournalError>;
}

/// A folder, perhaps one that several hosts share.
pub struct Folder {
    path: PathBuf,
    /// Whether a file counts as written when the disk has it.
    fsync: bool,
}

/// How files begin that are not written to their end. They stay when their writer is killed.
pub const UNFINISHED: &str = ".writing-";

impl Folder {
    /// The folder at a path; [`make`](Self::make) it to write to it.
    pub fn new(path: &Path, fsync: bool) -> Self {
        Self { path: path.to_owned(), fsync }
    }

    /// Makes the folder if it is missing.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn make(&self) -> Result<(), JournalError> {
        fs::create_dir_all(&self.path).map_err(|error| JournalError::io(&self.path, "creating the folder", error))
    }

    fn put(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let unfinished = self.path.join(format!("{UNFINISHED}{name}"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let wrote = options.open(&unfinished).and_then(|mut file| {
            file.write_all(content)?;
            if self.fsync { file.sync_all() } else { Ok(()) }
        });
        if let Err(error) = wrote.and_then(|()| fs::rename(&unfinished, self.path.join(name))) {
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        // The name too. Not every system lets one open a folder.
        match self.fsync && cfg!(unix) {
            true => File::open(&self.path).and_then(|folder| folder.sync_all()),
            false => Ok(()),
        }
    }
}

impl Place for Folder {
    fn list(&self, after: Option<&str>) -> Result<Vec<Listed>, JournalError> {
        let failed = |error| JournalError::io(&self.path, "listing its files", error);
        let mut listed = Vec::new();
        let entries = match fs::read_dir(&self.path) {
            // As a bucket has no prefix before something is in it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(listed),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) || after.is_some_and(|after| name.as_str() <= after) {
                continue;
            }
            match entry.metadata() {
                Ok(about) if about.is_file() => listed.push(Listed { name, size: about.len() }),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(listed)
    }

    fn read(&self, names: &[String], each: Each<'_>) -> Result<(), JournalError> {
        for name in names {
            let path = self.path.join(name);
            match fs::read(&path) {
                Ok(content) => each(name, &content)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(JournalError::io(&path, "reading", error)),
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, content: Vec<u8>, _: Duration) -> Result<(), JournalError> {
        self.put(name, &content).map_err(|error| JournalError::io(&self.path, "writing a segment", error))
    }

    fn remove(&self, name: &str) -> Result<(), JournalError> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(JournalError::io(&self.path, "removing a segment", error))
            }
            _ => Ok(()),
        }
    }
}
