//! The lines of chunks in a ledger: what each asks, and the replies.
//!
//! There may be a million of them, and each reply is here only until its item has its result. So lines have no rows of
//! their own: what those of a chunk ask is one value, and replies are added in parts of a few hundred, with a table of
//! contents each. Lines that are forgotten are marked; once all of a chunk's are, its rows are deleted.

use std::sync::PoisonError;

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use rustc_hash::FxHashMap;

use super::{Ledger, OpenLine, Route};
use crate::journal::error::{JournalError, is_of_a_value};
use crate::journal::record::Key;

/// `requests`: 16 bytes a line; `gone`: a bit for each line that is forgotten, as far as any is; `heads`: see [`Head`].
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS batch_requests (
        batch INTEGER PRIMARY KEY,
        requests BLOB NOT NULL,
        gone BLOB NOT NULL
    );
    CREATE TABLE IF NOT EXISTS batch_replies (
        id INTEGER PRIMARY KEY,
        batch INTEGER NOT NULL,
        heads BLOB NOT NULL,
        bodies BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS batch_replies_of ON batch_replies (batch);
";

/// What a line asks, its number, and the status and the body of its reply.
pub type Replied = (Key, u32, u16, Vec<u8>);

/// Bytes of replies that are held for whoever asks for the next one.
const HELD: usize = 8 << 20;

/// A reply in a part: its line, its status, and where its body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    line: u32,
    status: u16,
    start: usize,
    length: usize,
}

impl Head {
    const BYTES: usize = 10;

    fn is_success(self) -> bool {
        self.status < 300
    }

    fn write(&self, heads: &mut Vec<u8>) {
        heads.extend(self.line.to_le_bytes());
        heads.extend(self.status.to_le_bytes());
        heads.extend(u32::try_from(self.length).unwrap_or(u32::MAX).to_le_bytes());
    }

    /// All of a part, as far as they are ours.
    fn read(heads: &[u8]) -> impl Iterator<Item = Self> {
        let (heads, _) = heads.as_chunks::<{ Self::BYTES }>();
        heads.iter().scan(0, |start, [a, b, c, d, e, f, g, h, i, j]| {
            let length = u32::from_le_bytes([*g, *h, *i, *j]) as usize;
            let head = Self {
                line: u32::from_le_bytes([*a, *b, *c, *d]),
                status: u16::from_le_bytes([*e, *f]),
                start: *start,
                length,
            };
            *start += length;
            Some(head)
        })
    }
}

/// What lines of a chunk ask, and which are forgotten.
struct Requests {
    requests: Vec<u8>,
    gone: Vec<u8>,
}

impl Requests {
    fn of(database: &Connection, chunk: i64) -> rusqlite::Result<Option<Self>> {
        let mut find = database.prepare_cached("SELECT requests, gone FROM batch_requests WHERE batch = ?1")?;
        find.query_row([chunk], |row| Ok(Self { requests: bytes(row, 0)?, gone: bytes(row, 1)? })).optional()
    }

    fn is_gone(&self, line: usize) -> bool {
        self.gone.get(line / 8).is_some_and(|bits| bits & (1 << (line % 8)) != 0)
    }

    fn forget(&mut self, line: usize) {
        if self.gone.len() <= line / 8 {
            self.gone.resize(line / 8 + 1, 0);
        }
        self.gone[line / 8] |= 1 << (line % 8);
    }

    /// Those that are not forgotten.
    fn left(&self) -> impl Iterator<Item = (u32, Key)> {
        let (requests, _) = self.requests.as_chunks::<16>();
        (0..).zip(requests).filter(|(line, _)| !self.is_gone(*line as usize)).map(|(line, key)| (line, Key(*key)))
    }

    /// What a line asks, if it is not forgotten.
    fn key(&self, line: u32) -> Option<Key> {
        let line = line as usize;
        let (requests, _) = self.requests.as_chunks::<16>();
        requests.get(line).filter(|_| !self.is_gone(line)).map(|key| Key(*key))
    }

    /// Writes down which are forgotten.
    fn write(&self, database: &Connection, chunk: i64) -> rusqlite::Result<()> {
        if self.left().next().is_some() {
            let mut mark = database.prepare_cached("UPDATE batch_requests SET gone = ?2 WHERE batch = ?1")?;
            mark.execute(params![chunk, self.gone])?;
        } else {
            database.prepare_cached("DELETE FROM batch_replies WHERE batch = ?1")?.execute([chunk])?;
            database.prepare_cached("DELETE FROM batch_requests WHERE batch = ?1")?.execute([chunk])?;
        }
        Ok(())
    }
}

/// A value of bytes; none, where the file is damaged.
fn bytes(row: &Row<'_>, at: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(row.get_ref(at)?.as_bytes().unwrap_or_default().to_vec())
}

/// Where the replies of a chunk are: of each line the first success, or else the first error.
type Places = FxHashMap<u32, (i64, Head)>;

fn places(database: &Connection, chunk: i64) -> rusqlite::Result<Places> {
    let mut find = database.prepare_cached("SELECT id, heads FROM batch_replies WHERE batch = ?1 ORDER BY id")?;
    let mut rows = find.query([chunk])?;
    let mut places = Places::default();
    while let Some(row) = rows.next()? {
        let (part, heads) = (row.get(0)?, bytes(row, 1)?);
        for head in Head::read(&heads) {
            let before = places.entry(head.line).or_insert((part, head));
            if head.is_success() && !before.1.is_success() {
                *before = (part, head);
            }
        }
    }
    Ok(places)
}

/// The replies of the chunk that was last asked for.
pub(super) struct Loaded {
    chunk: i64,
    places: Places,
    bodies: FxHashMap<i64, Vec<u8>>,
    bytes: usize,
}

impl Loaded {
    fn of(database: &Connection, chunk: i64) -> rusqlite::Result<Self> {
        let mut places = places(database, chunk)?;
        let requests = Requests::of(database, chunk)?;
        places.retain(|line, _| requests.as_ref().is_some_and(|requests| requests.key(*line).is_some()));
        Ok(Self { chunk, places, bodies: FxHashMap::default(), bytes: 0 })
    }

    fn reply(&mut self, database: &Connection, line: u32) -> rusqlite::Result<Option<(u16, Vec<u8>)>> {
        let Some((part, head)) = self.places.get(&line).copied() else { return Ok(None) };
        if !self.bodies.contains_key(&part) {
            if self.bytes >= HELD {
                (self.bodies, self.bytes) = (FxHashMap::default(), 0);
            }
            let mut find = database.prepare_cached("SELECT bodies FROM batch_replies WHERE id = ?1")?;
            let bodies = find.query_row([part], |row| bytes(row, 0))?;
            self.bytes += bodies.len();
            self.bodies.insert(part, bodies);
        }
        let body = self.bodies.get(&part).and_then(|bodies| bodies.get(head.start..head.start + head.length));
        Ok(body.map(|body| (head.status, body.to_vec())))
    }
}

impl Ledger {
    /// As `work` is done with what is held of the replies of a chunk.
    fn with_held<T>(
        &self,
        chunk: i64,
        work: impl FnOnce(&Connection, &mut Loaded) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        self.with("reading", |database| {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let mut of_chunk = match held.take() {
                Some(held) if held.chunk == chunk => held,
                _ => Loaded::of(database, chunk)?,
            };
            let outcome = work(database, &mut of_chunk);
            *held = Some(of_chunk);
            outcome
        })
    }

    /// What is held of a chunk is not what is in the file any more.
    fn unload(&self, chunk: i64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.take_if(|held| held.chunk == chunk);
    }

    /// Writes down what lines of a new chunk ask.
    pub(super) fn add_requests(database: &Connection, chunk: i64, lines: &[Key]) -> rusqlite::Result<()> {
        let requests: Vec<u8> = lines.iter().flat_map(|key| key.0).collect();
        let mut add = database.prepare_cached("INSERT INTO batch_requests VALUES (?1, ?2, x'')")?;
        add.execute(params![chunk, requests]).map(drop)
    }

    /// Writes down replies, by their lines. A line that has one keeps it, so fetching results twice counts once; a
    /// success takes the place of an error.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn answer(&self, chunk: i64, replies: &[(u32, u16, Vec<u8>)]) -> Result<(), JournalError> {
        self.writing(|database| {
            let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let known = places(&transaction, chunk)?;
            let mut had: FxHashMap<u32, bool> = FxHashMap::default();
            let (mut heads, mut bodies) = (Vec::new(), Vec::new());
            for (line, status, reply) in replies {
                let head = Head { line: *line, status: *status, start: bodies.len(), length: reply.len() };
                let before = known.get(line).map(|(_, head)| head.is_success());
                let before = had.get(line).copied().or(before);
                if before.is_none_or(|is_success| !is_success && head.is_success()) {
                    had.insert(*line, head.is_success());
                    head.write(&mut heads);
                    bodies.extend_from_slice(reply);
                }
            }
            if !heads.is_empty() {
                let add = "INSERT INTO batch_replies (batch, heads, bodies) VALUES (?1, ?2, ?3)";
                transaction.prepare_cached(add)?.execute(params![chunk, heads, bodies])?;
            }
            transaction.commit()
        })?;
        self.unload(chunk);
        Ok(())
    }

    /// The reply to a line, if it is here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn reply(&self, chunk: i64, line: u32) -> Result<Option<(u16, Vec<u8>)>, JournalError> {
        self.with_held(chunk, |database, held| held.reply(database, line))
    }

    /// The next replies of a chunk, with the number of their part, which follows on `after`; `None`: there are no more.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn replies(&self, chunk: i64, after: i64) -> Result<Option<(i64, Vec<Replied>)>, JournalError> {
        self.with_held(chunk, |database, held| {
            let mut find = database.prepare_cached(
                "SELECT id, heads, bodies FROM batch_replies WHERE batch = ?1 AND id > ?2 ORDER BY id LIMIT 1",
            )?;
            let part = find.query_row(params![chunk, after], |row| Ok((row.get(0)?, bytes(row, 1)?, bytes(row, 2)?)));
            let part: Option<(i64, Vec<u8>, Vec<u8>)> = part.optional()?;
            let (Some((part, heads, bodies)), Some(requests)) = (part, Requests::of(database, chunk)?) else {
                return Ok(None);
            };
            let replies = Head::read(&heads).filter_map(|head| {
                let key = requests.key(head.line).filter(|_| held.places.get(&head.line) == Some(&(part, head)))?;
                let body = bodies.get(head.start..head.start + head.length)?;
                Some((key, head.line, head.status, body.to_vec()))
            });
            Ok(Some((part, replies.collect())))
        })
    }

    /// Forgets lines of a chunk: their items are done.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn forget(&self, chunk: i64, lines: &[u32]) -> Result<(), JournalError> {
        self.writing(|database| {
            let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if let Some(mut requests) = Requests::of(&transaction, chunk)? {
                lines.iter().for_each(|line| requests.forget(*line as usize));
                requests.write(&transaction, chunk)?;
            }
            transaction.commit()
        })?;
        self.unload(chunk);
        Ok(())
    }

    /// Forgets the lines of a chunk that have no reply; returns them.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn forget_unanswered(&self, chunk: i64) -> Result<Vec<(Key, u32)>, JournalError> {
        let unanswered = self.writing(|database| {
            let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut unanswered = Vec::new();
            if let Some(mut requests) = Requests::of(&transaction, chunk)? {
                let places = places(&transaction, chunk)?;
                let left = requests.left().filter(|(line, _)| !places.contains_key(line));
                unanswered = left.map(|(line, key)| (key, line)).collect();
                if !unanswered.is_empty() {
                    unanswered.iter().for_each(|(_, line)| requests.forget(*line as usize));
                    requests.write(&transaction, chunk)?;
                }
            }
            transaction.commit()?;
            Ok(unanswered)
        })?;
        self.unload(chunk);
        Ok(unanswered)
    }

    /// Goes through the lines that items may ask for, in order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn each_open_line(&self, mut each: impl FnMut(OpenLine)) -> Result<(), JournalError> {
        self.with("reading", |database| {
            let mut find = database.prepare("SELECT batch, requests, gone FROM batch_requests ORDER BY batch")?;
            let chunks = find
                .query_map([], |row| Ok((row.get(0)?, Requests { requests: bytes(row, 1)?, gone: bytes(row, 2)? })))?;
            for found in chunks {
                let (chunk, requests): (i64, Requests) = match found {
                    Ok(found) => found,
                    // A row that is not ours is passed over.
                    Err(error) if is_of_a_value(&error) => continue,
                    Err(error) => return Err(error),
                };
                let places = places(database, chunk)?;
                requests.left().for_each(|(line, request)| {
                    each(OpenLine { chunk, line, request, is_answered: places.contains_key(&line) });
                });
            }
            Ok(())
        })
    }

    /// How many replies of a chunk are here and wait for their items.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn waiting(&self, chunk: i64) -> Result<u64, JournalError> {
        self.with("reading", |database| {
            let Some(requests) = Requests::of(database, chunk)? else { return Ok(0) };
            let places = places(database, chunk)?;
            Ok(places.keys().filter(|line| requests.key(**line).is_some()).count() as u64)
        })
    }

    /// Whether requests like these were answered in an earlier batch, or are in one that has not ended.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn has_answers(&self, route: &Route) -> Result<bool, JournalError> {
        self.with("reading", |database| {
            let mut find = database.prepare(
                "SELECT id, stage IN ('creating', 'open', 'ended') OR input_tokens > 0 OR output_tokens > 0 FROM batches \
                 WHERE account = ?1 AND model = ?2 AND endpoint = ?3",
            )?;
            let mut rows = find.query(params![&route.account[..], route.model, route.endpoint])?;
            while let Some(row) = rows.next()? {
                let (chunk, is_proof): (i64, bool) = (row.get(0)?, row.get(1)?);
                if is_proof || places(database, chunk)?.values().any(|(_, head)| (200..300).contains(&head.status)) {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }
}
