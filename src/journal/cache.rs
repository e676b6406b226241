//! Answers stored across runs and programs, in an SQLite file: by request, for a time, up to a size.
//!
//! Unlike a journal it is no record of anything: what is lost of it is requested again. So it is written without haste,
//! and an entry that is too old, or has not been used for longest when room is needed, goes.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use rustc_hash::FxHashMap;

use super::error::{JournalError, is_of_a_value};
use super::options::Options;
use super::record::{Key, now};
use super::writer::Backend;
use super::{place, sqlite};

/// "bLLc"
const APPLICATION_ID: i64 = 0x624c_4c63;

const TABLES: &str = "
    CREATE TABLE about (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE answers (
        id INTEGER PRIMARY KEY,
        request BLOB NOT NULL,
        sample INTEGER NOT NULL,
        made_at REAL NOT NULL,
        used_at REAL NOT NULL,
        body TEXT NOT NULL,
        UNIQUE (request, sample)
    );
";

/// What a cache may hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Seconds that an answer is good for; `None`: for ever.
    pub ttl: Option<f64>,
    /// Bytes of all bodies; `None`: no bound.
    pub bytes: Option<u64>,
}

/// What is written.
#[derive(Debug)]
pub enum Entry {
    /// A new answer.
    Answer {
        /// The request.
        key: Key,
        /// How many equal requests of its run were before it.
        sample: u32,
        /// JSON of the answer.
        body: String,
    },
    /// An answer was used again.
    Used(Key, u32),
}

/// Looks answers up.
pub struct Answers {
    path: PathBuf,
    /// `None` once it was closed.
    database: Mutex<Option<Connection>>,
    ttl: Option<f64>,
    /// How often each request was looked up by this run.
    asked: Mutex<FxHashMap<Key, u32>>,
}

impl Answers {
    /// The next answer to a request, with its number among equal ones.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub fn look_up(&self, key: Key) -> Result<(u32, Option<String>), JournalError> {
        let sample = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let times = asked.entry(key).or_default();
            *times += 1;
            *times - 1
        };
        let since = self.ttl.map_or(f64::MIN, |ttl| now() - ttl);
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = database.as_ref() else { return Ok((sample, None)) };
        let found = database
            .prepare_cached("SELECT body FROM answers WHERE request = ?1 AND sample = ?2 AND made_at > ?3")
            .and_then(|mut query| query.query_row(params![&key.0[..], sample, since], |row| row.get(0)).optional());
        let found = match found {
            Err(error) if is_of_a_value(&error) => Ok(Some(String::new())), // which is no answer
            found => found,
        };
        found.map(|body| (sample, body)).map_err(|error| JournalError::database(&self.path, "reading", &error))
    }

    /// Closes the file, for nothing is looked up any more.
    pub fn close(&self) {
        drop(self.database.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Adds to a cache.
pub struct CacheFile {
    path: PathBuf,
    database: Connection,
    bounds: Bounds,
    /// Bytes of all bodies.
    size: u64,
}

/// Opens a cache; makes the file if there is none.
///
/// # Errors
/// As [`super::open`].
pub fn open(path: &Path, bounds: Bounds, options: &Options) -> Result<(CacheFile, Answers), JournalError> {
    place::prepare(path)?;
    let failed = |error| JournalError::database(path, "opening", &error);
    let database = sqlite::open(path, APPLICATION_ID, TABLES, options)?;
    if let Some(ttl) = bounds.ttl {
        database.execute("DELETE FROM answers WHERE made_at <= ?1", [now() - ttl]).map_err(failed)?;
    }
    let size = database
        .query_row("SELECT coalesce(sum(length(CAST(body AS BLOB))), 0) FROM answers", [], |row| row.get(0))
        .map_err(failed)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reading = sqlite::connect(path, flags, options.busy_timeout).map_err(failed)?;
    let answers = Answers {
        path: path.to_owned(),
        database: Mutex::new(Some(reading)),
        ttl: bounds.ttl,
        asked: Mutex::default(),
    };
    Ok((CacheFile { path: path.to_owned(), database, bounds, size }, answers))
}

impl CacheFile {
    fn write(&mut self, group: &mut Vec<Entry>) -> rusqlite::Result<()> {
        let transaction = self.database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for entry in group.drain(..) {
            match entry {
                Entry::Answer { key, sample, body } => {
                    let mut add = transaction.prepare_cached(
                        "INSERT INTO answers VALUES (NULL, ?1, ?2, ?3, ?3, ?4) ON CONFLICT (request, sample) \
                         DO UPDATE SET made_at = ?3, used_at = ?3, body = ?4",
                    )?;
                    add.execute(params![&key.0[..], sample, now(), body])?;
                    self.size += body.len() as u64;
                }
                Entry::Used(key, sample) => {
                    let mut touch = transaction
                        .prepare_cached("UPDATE answers SET used_at = ?3 WHERE request = ?1 AND sample = ?2")?;
                    touch.execute(params![&key.0[..], sample, now()])?;
                }
            }
        }
        transaction.commit()
    }

    /// Lets the answers go that were not used for longest, down to nine tenths of the bound.
    fn evict(&mut self) -> rusqlite::Result<()> {
        let Some(most) = self.bounds.bytes.filter(|most| self.size > *most) else { return Ok(()) };
        let transaction = self.database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        // By what is there: other processes may write to it too.
        let size: u64 =
            transaction
                .query_row("SELECT coalesce(sum(length(CAST(body AS BLOB))), 0) FROM answers", [], |row| row.get(0))?;
        transaction.execute(
            "DELETE FROM answers WHERE id IN (SELECT id FROM (SELECT id, \
             sum(length(CAST(body AS BLOB))) OVER (ORDER BY used_at DESC, id DESC) AS so_far FROM answers) \
             WHERE so_far > ?1)",
            [if size > most { most / 10 * 9 } else { u64::MAX >> 1 }],
        )?;
        self.size =
            transaction
                .query_row("SELECT coalesce(sum(length(CAST(body AS BLOB))), 0) FROM answers", [], |row| row.get(0))?;
        transaction.commit()
    }
}

impl Backend for CacheFile {
    type Entry = Entry;

    fn append(&mut self, group: &mut Vec<Entry>) -> Result<(), JournalError> {
        self.write(group)
            .and_then(|()| self.evict())
            .map_err(|error| JournalError::database(&self.path, "writing", &error))
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        sqlite::checkpoint(&self.path, &self.database)
    }
}
