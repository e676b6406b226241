//! Journals as text: a line of JSON per record, one writer at a time.
//!
//! The last line of a file whose writer was killed may be torn; it is truncated before anything is added.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::error::JournalError;
use super::index::{Index, short};
use super::lines::{Encoder, Line, Lines, walk};
use super::opened::{About, Opened};
use super::options::{Durability, Options};
use super::place;
use super::record::{Entry, Head, Reuse};
use super::writer::Backend;

/// Adds to a file.
pub struct JsonlJournal {
    path: PathBuf,
    file: File,
    /// Its length, as far as it holds whole lines.
    length: u64,
    run: u64,
    durability: Durability,
    encoder: Encoder,
    /// Held as long as it is written to.
    _lock: Option<File>,
}

impl JsonlJournal {
    /// Opens a file, which is there.
    pub(super) fn open(path: &Path, options: &Options) -> Result<Opened, JournalError> {
        let io = |action, error| JournalError::io(path, action, error);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| io("opening", error))?;
        let lock = place::lock(path, &file)?;
        let mut records = Vec::new();
        let reading = file.try_clone().map_err(|error| io("opening", error))?;
        let found = walk(path, reading, 0, &mut |line| {
            if let Line::Record { head, at, .. } = line
                && head.kind.has_body()
                && head.reuse >= options.reuse
                && head.reuse > Reuse::Never
            {
                records.push((head.key, short(&head.item_id), at));
            }
            Ok::<_, JournalError>(())
        })?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            length: found.whole,
            run: found.about.runs + 1,
            durability: options.durability,
            encoder: Encoder::default(),
            _lock: lock,
        };
        if found.about.repairs.torn > 0 {
            journal.cut().map_err(|error| io("removing its incomplete last line", error))?;
        }
        journal.file.seek(SeekFrom::Start(found.whole)).map_err(|error| io("seeking", error))?;
        if !found.has_manifest {
            journal.encoder.manifest(options, None);
        }
        journal.encoder.run(journal.run, options);
        journal.put()?;
        let reading = File::open(path).map_err(|error| io("opening", error))?;
        let reader = Box::new(Lines { path: path.to_owned(), file: BufReader::new(reading) });
        let index = Index::build(records);
        let About { repairs, events, .. } = found.about;
        Ok(Opened { backend: Box::new(journal), reader, index, repairs, events })
    }

    /// Writes the buffer.
    fn put(&mut self) -> Result<(), JournalError> {
        let wrote = self.file.write_all(&self.encoder.buffer).and_then(|()| match self.durability {
            Durability::Fsync => self.file.sync_data(),
            Durability::Flush => Ok(()),
        });
        let length = self.encoder.buffer.len() as u64;
        self.encoder.buffer.clear();
        if let Err(error) = wrote {
            // A part of it may be there; whoever reads the file is spared it, if that is possible.
            let _ = self.cut();
            return Err(JournalError::io(&self.path, "writing", error));
        }
        self.length += length;
        Ok(())
    }

    fn cut(&mut self) -> std::io::Result<()> {
        self.file.set_len(self.length)
    }
}

impl Backend for JsonlJournal {
    type Entry = Entry;

    fn append(&mut self, group: &mut Vec<Entry>) -> Result<(), JournalError> {
        for entry in group {
            self.encoder.entry(self.run, entry);
        }
        self.put()
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(|error| JournalError::io(&self.path, "flushing it to disk", error))
    }
}

/// See [`View::scan`](super::View::scan).
pub(super) fn scan<E: From<JournalError>>(
    path: &Path,
    bodies: bool,
    after: Option<u64>,
    each: &mut dyn FnMut(u64, Head, String) -> Result<(), E>,
) -> Result<About, E> {
    let file = File::open(path).map_err(|error| JournalError::io(path, "opening", error))?;
    scan_in(path, file, bodies, after, each)
}

/// The same in something that is like a file. Errors name `path`.
pub(super) fn scan_in<E: From<JournalError>>(
    path: &Path,
    mut file: impl Read + Seek,
    bodies: bool,
    after: Option<u64>,
    each: &mut dyn FnMut(u64, Head, String) -> Result<(), E>,
) -> Result<About, E> {
    let begin = after.unwrap_or_default();
    file.seek(SeekFrom::Start(begin)).map_err(|error| JournalError::io(path, "reading", error))?;
    let mut identities = Vec::new();
    let mut found = walk(path, file, begin, &mut |line| match line {
        Line::Record { at, .. } if after == Some(at) => Ok(()),
        Line::Record { head, body, at } => each(at, head, if bodies { body.to_owned() } else { String::new() }),
        Line::Identity(number, text) => {
            identities.push((number, text.to_owned()));
            Ok(())
        }
    })?;
    identities.sort();
    identities.dedup();
    found.about.identities = identities;
    Ok(found.about)
}
