//! Journals as SQLite databases: of any size, and for several processes at once.
//!
//! A write-ahead log takes the groups. It is brought to the disk every [`SYNC_INTERVAL`](super::options::SYNC_INTERVAL), or with
//! every group. Bodies have a table of their own, so that what is looked through as a whole stays small. (On what is
//! safe when, see <https://sqlite.org/pragma.html#pragma_synchronous>.)

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};

use super::bound_over_time;
use super::error::{JournalError, is_of_a_value};
use super::events;
use super::index::{Index, short};
use super::opened::{About, Opened, Reader, Repairs};
use super::options::{Durability, Options, SCHEMA_VERSION};
use super::record::{Entry, Head, Key, Kind, Reuse, Spent, Stored, now};
use super::turns::Turns;
use super::writer::Backend;

/// "bLLj": how SQLite files of ours are known.
const APPLICATION_ID: i64 = 0x624c_4c6a;

/// `is_item` is the number of the [`Kind`].
const TABLES: &str = "
    CREATE TABLE about (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE runs (id INTEGER PRIMARY KEY, started_at REAL NOT NULL, package_version TEXT NOT NULL);
    CREATE TABLE identities (number INTEGER PRIMARY KEY, identity TEXT NOT NULL);
    CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        is_item INTEGER NOT NULL,
        run INTEGER NOT NULL,
        request BLOB NOT NULL,
        identity INTEGER NOT NULL,
        item_id TEXT NOT NULL,
        submission_index INTEGER NOT NULL,
        recorded_at REAL NOT NULL,
        success INTEGER NOT NULL,
        error_category TEXT,
        reuse INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cached_input_tokens INTEGER NOT NULL,
        cost REAL
    );
    CREATE TABLE bodies (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
";
const COLUMNS: &str = "is_item, run, request, identity, item_id, submission_index, recorded_at, success, \
    error_category, reuse, input_tokens, output_tokens, cached_input_tokens, cost";

/// Adds to a database.
pub struct SqliteJournal {
    path: PathBuf,
    turns: Turns,
    database: Connection,
    run: u64,
}

/// The version of a store with the tables of [`batches`](super::batches): packages that do not know them would pay for
/// batches again.
pub const WITH_BATCHES: u32 = 2;

/// Longest value that is written or read, bytes.
pub const LONGEST: usize = 256 << 20;
/// Longest name that is read, bytes.
const LONGEST_NAME: usize = 1 << 20;

/// A connection to a file that anybody may have made: nothing in its schema runs (no triggers, no views, no functions),
/// and everything has a bound. See <https://sqlite.org/security.html>.
pub(super) fn connect(
    path: impl AsRef<Path>,
    flags: OpenFlags,
    busy_timeout: Duration,
) -> rusqlite::Result<Connection> {
    let database = Connection::open_with_flags(path, flags)?;
    for (setting, is_on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
    ] {
        database.set_db_config(setting, is_on)?;
    }
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, i32::try_from(LONGEST).unwrap_or(i32::MAX)),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 20_000),
        (Limit::SQLITE_LIMIT_COLUMN, 100),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 50),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 10),
        (Limit::SQLITE_LIMIT_VDBE_OP, 25_000),
        (Limit::SQLITE_LIMIT_FUNCTION_ARG, 8),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 100),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        database.set_limit(limit, most)?;
    }
    database.busy_timeout(busy_timeout)?;
    database.pragma_update(None, "cell_size_check", true)?;
    Ok(database)
}

/// A column of text, or nothing where it is too long to be one of ours.
fn bounded(column: &str, most: usize) -> String {
    format!("CASE WHEN octet_length({column}) <= {most} THEN {column} END")
}

/// Opens a database of ours for writing; makes it one of ours if it is empty.
pub(super) fn open(
    path: &Path,
    application_id: i64,
    tables: &str,
    options: &Options,
) -> Result<Connection, JournalError> {
    let failed = |action| move |error| JournalError::database(path, action, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut database = connect(path, flags, options.busy_timeout).map_err(failed("opening"))?;
    if !check(path, &database, application_id)? {
        write_ahead(&database, options.busy_timeout).map_err(failed("opening"))?;
        let transaction =
            database.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed("locking"))?;
        // Another process may have been faster.
        if !check(path, &transaction, application_id)? {
            transaction
                .execute_batch(&format!(
                    "{tables} PRAGMA application_id = {application_id}; PRAGMA user_version = {SCHEMA_VERSION};"
                ))
                .map_err(failed("creating its tables"))?;
            let about = [
                ("created_at", Some(now().to_string())),
                ("package_version", Some(options.package_version.clone())),
                ("user_metadata", options.user_metadata.clone()),
            ];
            for (name, value) in about {
                transaction
                    .execute("INSERT INTO about VALUES (?1, ?2)", params![name, value])
                    .map_err(failed("creating its tables"))?;
            }
        }
        transaction.commit().map_err(failed("creating its tables"))?;
    }
    let mode = write_ahead(&database, options.busy_timeout).map_err(failed("opening it for writing"))?;
    if mode != "wal" {
        let problem =
            "is on a file system that does not support SQLite's write-ahead log; use a local disk, or a .jsonl file"
                .to_owned();
        return Err(JournalError::Format { path: path.to_owned(), problem });
    }
    let synchronous = match options.durability {
        Durability::Flush => "NORMAL",
        Durability::Fsync => "FULL",
    };
    database.pragma_update(None, "synchronous", synchronous).map_err(failed("opening"))?;
    // By ourselves, when there is time.
    database.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed("opening"))?;
    Ok(database)
}

/// Asks for a write-ahead log; returns the mode that the database has then. While several connections ask at the same
/// time, SQLite refuses all but one at once, without waiting: each may hold what another needs. So we wait here.
fn write_ahead(database: &Connection, busy_timeout: Duration) -> rusqlite::Result<String> {
    let started = Instant::now();
    loop {
        match database.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            Err(error)
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
                    && started.elapsed() < busy_timeout =>
            {
                std::thread::sleep(Duration::from_millis(fastrand::u64(1..10)));
            }
            result => return result,
        }
    }
}

/// Whether a database is ours already; `false`: it is empty.
fn check(path: &Path, database: &Connection, application_id: i64) -> Result<bool, JournalError> {
    let number = |pragma: &str| {
        database
            .pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
            .map_err(|error| JournalError::database(path, "reading", &error))
    };
    // In this order: another process may make the tables between the two, and sets the number along with them.
    let objects: i64 = database
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(|error| JournalError::database(path, "reading", &error))?;
    let found = number("application_id")?;
    if found == 0 && objects == 0 {
        return Ok(false);
    }
    if found != application_id {
        let kind = if application_id == APPLICATION_ID { "store" } else { "cache" };
        let problem = format!("is an SQLite database, but not a {kind} of batch-llm");
        return Err(JournalError::Format { path: path.to_owned(), problem });
    }
    // Views of the user's own do no harm; in the place of a table of ours, they or computed columns might.
    let odd = "SELECT count(*) FROM sqlite_master AS made LEFT JOIN pragma_table_xinfo(made.name) AS its \
        WHERE made.name IN ('about', 'runs', 'identities', 'records', 'bodies', 'events', 'bound_over_time', 'answers', 'batches', 'batch_requests', 'batch_replies') \
        AND (made.type <> 'table' OR its.hidden <> 0)";
    let odd: i64 = database
        .query_row(odd, [], |row| row.get(0))
        .map_err(|error| JournalError::database(path, "reading", &error))?;
    if odd > 0 {
        let problem = "has a view or a computed column where a batch-llm table should be".to_owned();
        return Err(JournalError::Format { path: path.to_owned(), problem });
    }
    match number("user_version")? {
        version if version > i64::from(WITH_BATCHES) => {
            Err(JournalError::Newer { path: path.to_owned(), found: version, known: WITH_BATCHES })
        }
        _ => Ok(true),
    }
}

/// Brings the write-ahead log to the disk, and into the database as far as nobody reads it.
pub(super) fn checkpoint(path: &Path, database: &Connection) -> Result<(), JournalError> {
    match database.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        Ok(()) => Ok(()),
        // Another process is doing it.
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(()),
        Err(error) => Err(JournalError::database(path, "flushing it to disk", &error)),
    }
}

impl SqliteJournal {
    /// Opens a file, which is there.
    pub(super) fn open(path: &Path, options: &Options) -> Result<Opened, JournalError> {
        let database = open(path, APPLICATION_ID, TABLES, options)?;
        let failed = |action| move |error| JournalError::database(path, action, &error);
        database
            .execute("INSERT INTO runs VALUES (NULL, ?1, ?2)", params![now(), options.package_version])
            .map_err(failed("writing"))?;
        let run = u64::try_from(database.last_insert_rowid()).unwrap_or_default();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reading = connect(path, flags, options.busy_timeout).map_err(failed("opening"))?;
        let (index, damaged) = Self::index(&reading, options.reuse).map_err(failed("reading"))?;
        let events = events::read(&reading).map_err(failed("reading"))?;
        let backend = Box::new(Self { path: path.to_owned(), turns: Turns::of(path), database, run });
        let reader = Box::new(Rows { path: path.to_owned(), database: reading });
        Ok(Opened { backend, reader, index, repairs: Repairs { damaged, ..Repairs::default() }, events })
    }

    /// What may be used again, and how many records are damaged.
    fn index(database: &Connection, reuse: Reuse) -> rusqlite::Result<(Index, u64)> {
        let (mut records, mut damaged) = (Vec::new(), 0);
        let columns = format!("id, {}, {}", bounded("request", LONGEST_NAME), bounded("item_id", LONGEST_NAME));
        let mut rows = database.prepare(&format!("SELECT {columns} FROM records WHERE is_item AND reuse >= ?1"))?;
        let mut rows = rows.query([(reuse as i64).max(1)])?;
        let known = |row: &Row<'_>| -> rusqlite::Result<_> {
            let place: i64 = row.get(0)?;
            let id = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
            Ok((key(row, 1)?, short(id), place.cast_unsigned()))
        };
        while let Some(row) = rows.next()? {
            match known(row) {
                Ok(record) => records.push(record),
                Err(error) if is_of_a_value(&error) => damaged += 1,
                Err(error) => return Err(error),
            }
        }
        Ok((Index::build(records), damaged))
    }

    fn write(&mut self, group: &[Entry]) -> rusqlite::Result<()> {
        let _turn = self.turns.wait();
        let transaction = self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for entry in group {
            match entry {
                Entry::Record(stored) => add(&transaction, self.run, stored)?,
                Entry::Identity(number, identity) => add_identity(&transaction, *number, identity)?,
                Entry::Event(event) => events::add(&transaction, self.run, event)?,
                Entry::BoundOverTime(text) => bound_over_time::put(&transaction, self.run, text)?,
            }
        }
        transaction.commit()
    }
}

fn add(database: &Connection, run: u64, stored: &Stored) -> rusqlite::Result<()> {
    let mut add = database.prepare_cached(
        "INSERT INTO records VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    let Head { key, identity, item_id, submission_index, recorded_at, .. } = &stored.head;
    let Head { success, error_category, reuse, spent, .. } = &stored.head;
    add.execute(params![
        stored.head.kind.number(),
        run,
        &key.0[..],
        identity,
        item_id,
        submission_index,
        recorded_at,
        success,
        error_category,
        *reuse as i64,
        spent.input_tokens,
        spent.output_tokens,
        spent.cached_input_tokens,
        spent.cost,
    ])?;
    if stored.head.kind.has_body() {
        let mut add = database.prepare_cached("INSERT INTO bodies VALUES (?1, ?2)")?;
        add.execute(params![database.last_insert_rowid(), stored.body])?;
    }
    Ok(())
}

fn add_identity(database: &Connection, number: i64, identity: &str) -> rusqlite::Result<()> {
    let mut add = database.prepare_cached("INSERT OR IGNORE INTO identities VALUES (?1, ?2)")?;
    add.execute(params![number, identity]).map(drop)
}

/// Fills a new database with what another journal has.
pub(super) struct Import {
    path: PathBuf,
    database: Connection,
    runs: rustc_hash::FxHashSet<u64>,
}

impl Import {
    /// Into an empty file, in one transaction.
    pub fn begin(path: &Path, options: &Options, about: &About) -> Result<Self, JournalError> {
        let database = open(path, APPLICATION_ID, TABLES, options)?;
        let import = Self { path: path.to_owned(), database, runs: rustc_hash::FxHashSet::default() };
        let begun = import.database.execute_batch("BEGIN IMMEDIATE").and_then(|()| {
            import
                .database
                .execute("UPDATE about SET value = ?1 WHERE name = 'created_at'", [about.created_at.to_string()])?;
            about.identities.iter().try_for_each(|(number, text)| add_identity(&import.database, *number, text))?;
            about.events.iter().try_for_each(|event| events::add(&import.database, 0, event))?;
            let mut over_time = about.bound_over_time.iter();
            over_time.try_for_each(|(run, text)| bound_over_time::put(&import.database, *run, text))
        });
        begun.map_err(|error| import.failed(&error))?;
        Ok(import)
    }

    /// Adds a record, and the run that made it.
    pub fn add(&mut self, stored: Stored) -> Result<(), JournalError> {
        let Head { run, recorded_at, .. } = stored.head;
        let is_new = self.runs.insert(run);
        let added = add(&self.database, run, &stored).and_then(|()| match is_new {
            true => {
                let add = "INSERT OR IGNORE INTO runs VALUES (?1, ?2, '')";
                self.database.execute(add, params![run, recorded_at]).map(drop)
            }
            false => Ok(()),
        });
        added.map_err(|error| self.failed(&error))
    }

    /// Brings everything to the disk, into one file.
    pub fn finish(self) -> Result<(), JournalError> {
        self.database.execute_batch("COMMIT").map_err(|error| self.failed(&error))?;
        let mode = self.database.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()));
        mode.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &rusqlite::Error) -> JournalError {
        JournalError::database(&self.path, "writing", error)
    }
}

impl Backend for SqliteJournal {
    type Entry = Entry;

    fn append(&mut self, group: &mut Vec<Entry>) -> Result<(), JournalError> {
        self.write(group).map_err(|error| JournalError::database(&self.path, "writing", &error))
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        checkpoint(&self.path, &self.database)
    }
}

fn key(row: &Row<'_>, column: usize) -> rusqlite::Result<Key> {
    row.get::<_, [u8; 16]>(column).map(Key)
}

fn head(row: &Row<'_>) -> rusqlite::Result<Head> {
    Ok(Head {
        kind: Kind::of(row.get(0)?),
        run: row.get(1)?,
        key: key(row, 2)?,
        identity: row.get(3)?,
        item_id: row.get(4)?,
        submission_index: row.get(5)?,
        recorded_at: row.get(6)?,
        success: row.get(7)?,
        error_category: row.get(8)?,
        reuse: Reuse::of(row.get(9)?),
        spent: Spent {
            input_tokens: row.get(10)?,
            output_tokens: row.get(11)?,
            cached_input_tokens: row.get(12)?,
            cost: row.get(13)?,
        },
    })
}

struct Rows {
    path: PathBuf,
    database: Connection,
}

impl Reader for Rows {
    fn read(&mut self, place: u64) -> Result<Option<Stored>, JournalError> {
        let query = format!("SELECT {COLUMNS}, body FROM records JOIN bodies USING (id) WHERE id = ?1");
        let found = self.database.prepare_cached(&query).and_then(|mut found| {
            found.query_row([place.cast_signed()], |row| Ok(Stored { head: head(row)?, body: row.get(14)? }))
        });
        match found {
            Ok(stored) => Ok(Some(stored)),
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
            Err(error) if is_of_a_value(&error) => Ok(None),
            Err(error) => Err(JournalError::database(&self.path, "reading", &error)),
        }
    }
}

/// See [`View::scan`](super::View::scan).
pub(super) fn scan<E: From<JournalError>>(
    path: &Path,
    bodies: bool,
    after: Option<u64>,
    each: &mut dyn FnMut(u64, Head, String) -> Result<(), E>,
) -> Result<About, E> {
    let failed = |error| JournalError::database(path, "reading", &error);
    let database = open_to_read(path)?;
    if !check(path, &database, APPLICATION_ID)? {
        // Its writer was killed before it had made anything, or is about to.
        return Ok(About::default());
    }
    // One view of everything, while others go on writing.
    let view = database.unchecked_transaction().map_err(failed)?;
    let columns = COLUMNS.replace("item_id", &bounded("item_id", LONGEST_NAME));
    let columns = columns.replace("error_category", &bounded("error_category", LONGEST_NAME));
    let query = match bodies {
        true => {
            let body = bounded("body", LONGEST);
            format!("SELECT {columns}, id, {body} FROM records LEFT JOIN bodies USING (id) WHERE id > ?1 ORDER BY id")
        }
        false => format!("SELECT {columns}, id, NULL FROM records WHERE id > ?1 ORDER BY id"),
    };
    let read = |row: &Row<'_>| -> rusqlite::Result<_> {
        Ok((row.get(14)?, head(row)?, row.get::<_, Option<String>>(15)?.unwrap_or_default()))
    };
    let mut damaged = 0;
    let mut found = view.prepare(&query).map_err(failed)?;
    let mut rows = found.query([after.unwrap_or_default()]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        match read(row) {
            Ok((place, head, body)) => each(place, head, body)?,
            Err(error) if is_of_a_value(&error) => damaged += 1,
            Err(error) => return Err(failed(error).into()),
        }
    }
    if after.is_some() {
        return Ok(About::default());
    }
    let mut about = about(&view).map_err(failed)?;
    about.repairs.damaged = damaged;
    Ok(about)
}

fn about(database: &Connection) -> rusqlite::Result<About> {
    let value = |name: &str| {
        database
            .query_row("SELECT value FROM about WHERE name = ?1", [name], |row| {
                Ok(row.get_ref(0)?.as_str_or_null().ok().flatten().map(str::to_owned))
            })
            .optional()
            .map(Option::flatten)
    };
    let created_at = value("created_at")?.and_then(|text| text.parse().ok()).unwrap_or_default();
    let runs = database.query_row("SELECT count(*) FROM runs", [], |row| row.get(0))?;
    let mut identities = database.prepare("SELECT number, identity FROM identities ORDER BY number")?;
    let identities = identities.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let identities = identities.filter(|one| !one.as_ref().is_err_and(is_of_a_value)).collect::<Result<_, _>>()?;
    let (user_metadata, events) = (value("user_metadata")?, events::read(database)?);
    let bound_over_time = bound_over_time::read(database)?;
    Ok(About { created_at, runs, user_metadata, identities, events, bound_over_time, repairs: Repairs::default() })
}

/// Opens a store, or makes one, for what else is kept in it.
pub(super) fn open_store(path: &Path, options: &Options) -> Result<Connection, JournalError> {
    open(path, APPLICATION_ID, TABLES, options)
}

pub(super) fn open_to_read(path: &Path) -> Result<Connection, JournalError> {
    let failed = |error| JournalError::database(path, "opening", &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let patience = Duration::from_secs(5);
    let database = connect(path, flags, patience).map_err(failed)?;
    let probe = database.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()));
    match probe.map_err(|error| (error.sqlite_error_code(), error)) {
        Ok(()) => Ok(database),
        // In a folder that cannot be written, where nobody else writes either.
        Err((Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly), _)) => {
            let address = url::Url::from_file_path(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
            let address = address.map(|url| format!("{url}?immutable=1")).unwrap_or_default();
            connect(address, flags | OpenFlags::SQLITE_OPEN_URI, patience).map_err(failed)
        }
        Err((_, error)) => Err(failed(error)),
    }
}
