//! What bounded the runs of a journal over time: for each run one text, which takes the place of the one before.
//!
//! The text is a JSON object of its writer's, `python/batch_llm/_run/bound_over_time.py`; the engine sees to it that it
//! does not grow with the run. Only this floor uses it, and the bridge.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::is_of_a_value;

/// Longest text that is written or read, bytes.
pub const LONGEST: usize = 1 << 17;
/// Of so many runs it is read, the last ones.
const MOST: usize = 50;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS bound_over_time (run INTEGER PRIMARY KEY, seconds TEXT NOT NULL)";

/// Puts it into a database.
pub(super) fn put(database: &Connection, run: u64, text: &str) -> rusqlite::Result<()> {
    database.execute_batch(TABLE)?;
    database.execute("INSERT OR REPLACE INTO bound_over_time VALUES (?1, ?2)", params![run, text]).map(drop)
}

/// What a database has, in the order of the runs.
pub(super) fn read(database: &Connection) -> rusqlite::Result<Vec<(u64, String)>> {
    let found =
        database.query_row("SELECT 1 FROM sqlite_master WHERE name = 'bound_over_time'", [], |_| Ok(())).optional()?;
    if found.is_none() {
        return Ok(Vec::new());
    }
    let query = "SELECT run, seconds FROM bound_over_time WHERE octet_length(seconds) <= ?1 ORDER BY run DESC LIMIT ?2";
    let mut rows = database.prepare(query)?;
    let rows = rows.query_map(params![LONGEST, MOST], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut found: Vec<_> = rows.filter(|row| !row.as_ref().is_err_and(is_of_a_value)).collect::<Result<_, _>>()?;
    found.reverse();
    Ok(found)
}

/// Keeps a text that was read: the last one of its run, and no more than those of the last runs.
pub(super) fn keep(found: &mut Vec<(u64, String)>, run: u64, text: &str) {
    if text.len() <= LONGEST {
        found.retain(|(other, _)| *other != run);
        if found.len() >= MOST {
            found.remove(0);
        }
        found.push((run, text.to_owned()));
    }
}
