//! What is known of batches at providers: which lines each has, how far it is, and what came of the lines.
//!
//! A ledger is some tables of an SQLite store. Everything in it is on the disk before the function that writes it
//! returns, whatever the store's durability: losing one of these records costs a batch. It is written by one process at
//! a time; a lock says so. `crate::batches` uses it, and the bridge shows it. [`chunk`] has what is kept of batches,
//! [`lines`] what is kept of their lines.

mod chunk;
mod lines;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, Row, TransactionBehavior, params};

use super::error::{JournalError, is_of_a_value};
use super::gate;
use super::options::Options;
use super::place::{self, Format};
use super::record::{Key, now};
use super::sqlite;
use super::turns::Turns;

pub use chunk::{Chunk, News, OpenLine, Route, Stage, Used};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS batches (
        id INTEGER PRIMARY KEY,
        nonce TEXT NOT NULL,
        account BLOB NOT NULL,
        provider TEXT NOT NULL,
        base_url TEXT NOT NULL,
        model TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        lines INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        stage TEXT NOT NULL,
        planned_at REAL NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0,
        file TEXT,
        create_begun_at REAL,
        skew REAL,
        batch TEXT,
        found TEXT,
        created_at REAL,
        word TEXT,
        done INTEGER,
        failed INTEGER,
        seen_at REAL,
        cancelled TEXT,
        ended_at REAL,
        settled_at REAL,
        input_tokens INTEGER NOT NULL DEFAULT 0,
        output_tokens INTEGER NOT NULL DEFAULT 0,
        cached_tokens INTEGER NOT NULL DEFAULT 0
    );
";

/// See the module.
pub struct Ledger {
    path: PathBuf,
    turns: Turns,
    // The lock is held for as long as the ledger is open: nobody else writes to it meanwhile.
    open: Mutex<Option<(Connection, Option<Lock>)>>,
    held: Mutex<Option<lines::Loaded>>,
}

/// The lock of a ledger; on some systems, of a file beside it.
type Lock = (File, Option<File>);

impl Ledger {
    /// Opens the ledger of a store, and makes it if there is none: in the store itself if that is an SQLite database,
    /// else beside it.
    ///
    /// # Errors
    /// When another process has it open, or the file cannot be used.
    pub fn open(store: &Path, format: Format, options: &Options) -> Result<Self, JournalError> {
        let path = Self::place(store, format)?;
        place::prepare(&path)?;
        let _passed = gate::pass();
        let lock = lock_beside(&path)?;
        let database = sqlite::open_store(&path, options)?;
        let prepared = database.pragma_update(None, "synchronous", "FULL").and_then(|()| {
            database.execute_batch(TABLES)?;
            database.execute_batch(lines::TABLES)?;
            database.pragma_update(None, "user_version", sqlite::WITH_BATCHES)
        });
        prepared.map_err(|error| JournalError::database(&path, "creating its tables", &error))?;
        Ok(Self {
            turns: Turns::of(&path),
            path,
            open: Mutex::new(Some((database, Some(lock)))),
            held: Mutex::default(),
        })
    }

    /// Opens a ledger to read it, also while a run writes to it. `None`: the store has none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn view(store: &Path, format: Format) -> Result<Option<Self>, JournalError> {
        let path = Self::place(store, format)?;
        if !path.exists() {
            return Ok(None);
        }
        let _passed = gate::pass();
        let database = sqlite::open_to_read(&path)?;
        let found: Result<i64, _> =
            database.query_row("SELECT count(*) FROM sqlite_master WHERE name = 'batches'", [], |row| row.get(0));
        let found = found.map_err(|error| JournalError::database(&path, "reading", &error))?;
        Ok((found > 0).then(|| Self {
            turns: Turns::of(&path),
            path,
            open: Mutex::new(Some((database, None))),
            held: Mutex::default(),
        }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn place(store: &Path, format: Format) -> Result<PathBuf, JournalError> {
        match format {
            Format::Sqlite => Ok(store.to_owned()),
            Format::Jsonl => {
                let mut name = store.as_os_str().to_owned();
                name.push(".batches.db");
                Ok(name.into())
            }
            Format::Segments => Err(JournalError::Format {
                path: store.to_owned(),
                problem: "is a store of segments, which cannot record batches; use an SQLite store (.db)".to_owned(),
            }),
        }
    }

    fn with<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        let _passed = gate::pass();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((database, _)) = open.as_mut() else {
            return Err(JournalError::Failed("the list of batches is closed".to_owned()));
        };
        work(database).map_err(|error| JournalError::database(&self.path, action, &error))
    }

    /// In the turn of this ledger: the store writes to the same file.
    fn writing<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, JournalError> {
        self.with("writing", |database| {
            let _turn = self.turns.wait();
            work(database)
        })
    }

    /// Closes it; another process, or the next run, may open it then. Whoever still uses it gets an error.
    pub fn close(&self) {
        let _passed = gate::pass();
        drop(self.open.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Adds a chunk with its lines; returns its number.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn plan(&self, nonce: &str, route: &Route, bytes: u64, lines: &[Key]) -> Result<i64, JournalError> {
        self.writing(|database| {
            let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(
                "INSERT INTO batches (nonce, account, provider, base_url, model, endpoint, lines, bytes, stage, planned_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'planned', ?9)",
                params![
                    nonce,
                    &route.account[..],
                    route.provider,
                    route.base_url,
                    route.model,
                    route.endpoint,
                    lines.len(),
                    bytes,
                    now()
                ],
            )?;
            let id = transaction.last_insert_rowid();
            Self::add_requests(&transaction, id, lines)?;
            transaction.commit()?;
            Ok(id)
        })
    }

    /// Writes down what is known of a chunk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&self, chunk: i64, news: &News) -> Result<(), JournalError> {
        let written = self.writing(|database| match news {
            News::Uploading => database.execute("UPDATE batches SET stage = 'uploading' WHERE id = ?1", [chunk]),
            News::Uploaded(file) => {
                database.execute("UPDATE batches SET stage = 'uploaded', file = ?2 WHERE id = ?1", params![chunk, file])
            }
            News::Creating { skew } => database.execute(
                "UPDATE batches SET stage = 'creating', tries = tries + 1, create_begun_at = ?2, skew = ?3 WHERE id = ?1",
                params![chunk, now(), skew],
            ),
            News::NotMade => database.execute("UPDATE batches SET stage = 'uploaded' WHERE id = ?1", [chunk]),
            News::Created { batch, found, created_at } => database.execute(
                "UPDATE batches SET stage = 'open', batch = ?2, found = ?3, created_at = ?4 WHERE id = ?1",
                params![chunk, batch, found, created_at.unwrap_or_else(now)],
            ),
            News::Seen { word, done } => database.execute(
                "UPDATE batches SET word = ?2, done = ?3, failed = ?4, seen_at = ?5 WHERE id = ?1",
                params![chunk, word, done.map(|done| done.0), done.map(|done| done.1), now()],
            ),
            News::Cancelling(why) => {
                database.execute("UPDATE batches SET cancelled = ?2 WHERE id = ?1", params![chunk, why])
            }
            News::Ended => {
                database.execute("UPDATE batches SET stage = 'ended', ended_at = ?2 WHERE id = ?1", params![chunk, now()])
            }
            News::Settled => database.execute(
                "UPDATE batches SET stage = 'settled', settled_at = ?2 WHERE id = ?1",
                params![chunk, now()],
            ),
        });
        written.map(drop)
    }

    /// Adds to what lines of a chunk have used.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn spend(&self, chunk: i64, used: Used) -> Result<(), JournalError> {
        self.writing(|database| {
            let add = "UPDATE batches SET input_tokens = input_tokens + ?2, output_tokens = output_tokens + ?3, \
                cached_tokens = cached_tokens + ?4 WHERE id = ?1";
            database.execute(add, params![chunk, used.input, used.output, used.cached]).map(drop)
        })
    }

    /// All chunks, or those that are not settled, in order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn chunks(&self, also_settled: bool) -> Result<Vec<Chunk>, JournalError> {
        self.with("reading", |database| {
            let mut find = database.prepare(
                "SELECT id, nonce, account, provider, base_url, model, endpoint, lines, bytes, stage, planned_at, tries, \
                 file, create_begun_at, skew, batch, found, created_at, word, done, failed, seen_at, cancelled, ended_at, \
                 input_tokens, output_tokens, cached_tokens \
                 FROM batches WHERE ?1 OR stage <> 'settled' ORDER BY id",
            )?;
            let chunks = find.query_map([also_settled], read_chunk)?;
            // A row that is not ours is passed over.
            chunks.filter(|chunk| !chunk.as_ref().is_err_and(is_of_a_value)).collect()
        })
    }

    /// What the latest batches with this model have used, whose lines were taken.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn used(&self, provider: &str, model: &str, most: usize) -> Result<Used, JournalError> {
        self.with("reading", |database| {
            let sum = "SELECT coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), \
                coalesce(sum(cached_tokens), 0) FROM (SELECT * FROM batches WHERE provider = ?1 AND model = ?2 \
                AND input_tokens > 0 ORDER BY id DESC LIMIT ?3)";
            database.query_row(sum, params![provider, model, most], |row| {
                Ok(Used { input: row.get(0)?, output: row.get(1)?, cached: row.get(2)? })
            })
        })
    }

    /// Seconds from creation to the end of earlier batches with this model, the latest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn lengths(&self, provider: &str, model: &str, most: usize) -> Result<Vec<f64>, JournalError> {
        self.with("reading", |database| {
            let mut find = database.prepare(
                "SELECT ended_at - created_at FROM batches WHERE provider = ?1 AND model = ?2 AND cancelled IS NULL \
                 AND ended_at >= created_at ORDER BY id DESC LIMIT ?3",
            )?;
            let lengths = find.query_map(params![provider, model, most], |row| row.get(0))?;
            lengths.collect()
        })
    }
}

fn read_chunk(row: &Row<'_>) -> rusqlite::Result<Chunk> {
    let stage: String = row.get(9)?;
    Ok(Chunk {
        id: row.get(0)?,
        nonce: row.get(1)?,
        route: Route {
            account: row.get(2)?,
            provider: row.get(3)?,
            base_url: row.get(4)?,
            model: row.get(5)?,
            endpoint: row.get(6)?,
        },
        lines: row.get(7)?,
        bytes: row.get(8)?,
        stage: Stage::of(&stage).unwrap_or(Stage::Creating),
        planned_at: row.get(10)?,
        tries: row.get(11)?,
        file: row.get(12)?,
        create_begun_at: row.get(13)?,
        skew: row.get::<_, Option<f64>>(14)?.unwrap_or_default(),
        batch: row.get(15)?,
        found: row.get(16)?,
        created_at: row.get(17)?,
        word: row.get(18)?,
        done: row.get(19)?,
        failed: row.get(20)?,
        seen_at: row.get(21)?,
        cancelled: row.get(22)?,
        ended_at: row.get(23)?,
        used: Used { input: row.get(24)?, output: row.get(25)?, cached: row.get(26)? },
    })
}

/// A lock of its own: the store itself is for several processes.
fn lock_beside(path: &Path) -> Result<(File, Option<File>), JournalError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".batches.lock");
    let beside = PathBuf::from(name);
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&beside).map_err(|error| JournalError::io(&beside, "opening", error))?;
    match place::lock(&beside, &file) {
        Ok(other) => Ok((file, other)),
        Err(JournalError::Locked { by, .. }) => Err(JournalError::Locked {
            path: path.to_owned(),
            by,
            hint: ": only one process at a time can use the batches of a store",
        }),
        Err(error) => Err(error),
    }
}
