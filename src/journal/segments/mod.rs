//! Journals as segments in a folder or a bucket, which any number of hosts write at the same time.
//!
//! A segment is a small text journal that is written whole and never changed. Its name has the time, who wrote it and a
//! number, so names never collide and no host waits for another. A process reads each segment once, into a local
//! [`copy`]; what others write is read every few seconds.

mod bucket;
mod commit;
mod copy;
mod place;
mod shared;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::error::JournalError;
use super::index::Index;
use super::jsonl;
use super::lines::{Encoder, Lines};
use super::opened::{About, Opened, Reader};
use super::options::{Durability, Options};
use super::record::{Entry, Head, Reuse, Stored};
use super::sqlite::Import;
use super::writer::Backend;
use shared::Shared;

/// Opens segments for writing.
pub(super) fn open(path: &Path, options: &Options) -> Result<Opened, JournalError> {
    let shared = Shared::at(path, options, true)?;
    let run = commit::random()?;
    shared.check_writable(run, options)?;
    shared.begin(run);
    let (known, _) = shared.known(run);
    let index = Index::shared(known, options.reuse);
    let lines = Lines { path: path.to_owned(), file: BufReader::new(shared.copy()) };
    let (repairs, events) = (shared.repairs(), shared.events());
    let reader = Box::new(OtherRuns { shared: Arc::clone(&shared), run, lines });
    let backend =
        Box::new(Segments { shared, run, options: options.clone(), encoder: Encoder::default(), is_known: false });
    Ok(Opened { backend, reader, index, repairs, events })
}

/// Writes the records of a run.
struct Segments {
    shared: Arc<Shared>,
    run: u64,
    options: Options,
    encoder: Encoder,
    /// Whether a segment says that there is this run.
    is_known: bool,
}

impl Backend for Segments {
    type Entry = Entry;

    fn append(&mut self, group: &mut Vec<Entry>) -> Result<(), JournalError> {
        if !std::mem::replace(&mut self.is_known, true) {
            self.encoder.run(self.run, &self.options);
        }
        let records = group.iter().filter(|entry| matches!(entry, Entry::Record(_))).count();
        for entry in group {
            self.encoder.entry(self.run, entry);
        }
        let outcome = self.shared.committer.commit(&self.encoder.buffer, records, &self.options);
        self.encoder.buffer.clear();
        outcome
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        Ok(())
    }

    fn stops_forks(&self) -> bool {
        false
    }
}

/// Finds the records of all runs but this one.
struct OtherRuns {
    shared: Arc<Shared>,
    run: u64,
    lines: Lines<copy::Copy>,
}

impl Reader for OtherRuns {
    fn read(&mut self, place: u64) -> Result<Option<Stored>, JournalError> {
        self.lines.read(place)
    }

    fn refresh(&mut self, index: &mut Index) {
        let (known, own) = self.shared.known(self.run);
        for place in own {
            index.take(place);
        }
        index.replace(known);
    }
}

impl Drop for OtherRuns {
    fn drop(&mut self) {
        self.shared.end(self.run);
    }
}

fn reading(fsync: bool) -> Options {
    Options {
        durability: if fsync { Durability::Fsync } else { Durability::Flush },
        busy_timeout: Duration::default(),
        reuse: Reuse::Success,
        package_version: String::new(),
        user_metadata: None,
    }
}

/// Segments as they were at one moment.
pub struct View {
    shared: Arc<Shared>,
}

impl View {
    /// Reads all segments at a place.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn new(path: &Path) -> Result<Self, JournalError> {
        Shared::at(path, &reading(false), false).map(|shared| Self { shared })
    }

    /// See [`View::scan`](super::View::scan).
    ///
    /// # Errors
    /// When the copy cannot be read; and what `each` returns.
    pub fn scan<E: From<JournalError>>(
        &self,
        bodies: bool,
        after: Option<u64>,
        each: &mut dyn FnMut(u64, Head, String) -> Result<(), E>,
    ) -> Result<About, E> {
        let mut runs = FxHashMap::default();
        let mut about =
            jsonl::scan_in(self.shared.name(), self.shared.copy(), bodies, after, &mut |place, head, body| {
                *runs.entry(head.run).or_insert(0) += 1;
                each(place, head, body)
            })?;
        about.runs = runs.len() as u64;
        about.repairs = self.shared.repairs();
        Ok(about)
    }

    /// Copies everything into a new SQLite store, and returns how many records that makes. `remove`: the segments that
    /// it holds are removed then.
    ///
    /// # Errors
    /// When the target is there, cannot be written, or a segment cannot be removed.
    pub fn compact(&self, target: &Path, options: &Options, remove: bool) -> Result<(u64, u64), JournalError> {
        if target.exists() {
            let problem = "exists, but must be a new file".to_owned();
            return Err(JournalError::Format { path: target.to_owned(), problem });
        }
        let names = self.shared.names();
        let mut unfinished = target.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        let outcome = self.import(&unfinished, options);
        let clear = || {
            for suffix in ["", "-wal", "-shm"] {
                let mut name = unfinished.as_os_str().to_owned();
                name.push(suffix);
                let _ = fs::remove_file(name);
            }
        };
        let records = outcome.inspect_err(|_| clear())?;
        // A link, because it replaces no file of the user's.
        let linked = fs::hard_link(&unfinished, target);
        clear();
        linked.map_err(|error| JournalError::io(target, "making the file", error))?;
        let mut removed = 0;
        for name in names.iter().filter(|_| remove) {
            self.shared.remove(name)?;
            removed += 1;
        }
        Ok((records, removed))
    }

    fn import(&self, target: &Path, options: &Options) -> Result<u64, JournalError> {
        let about = self.scan(false, None, &mut |_, _, _| Ok::<_, JournalError>(()))?;
        let user_metadata = about.user_metadata.clone();
        let options = Options { user_metadata, durability: Durability::Fsync, ..options.clone() };
        super::place::prepare(target)?;
        let mut import = Import::begin(target, &options, &about)?;
        let mut records = 0;
        self.scan(true, None, &mut |_, head, body| {
            records += 1;
            import.add(Stored { head, body })
        })?;
        import.finish()?;
        Ok(records)
    }
}
