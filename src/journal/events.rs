//! What else a journal keeps: what was done to its runs from outside (paused, changed, sent again), and how they ended.
//!
//! An event is a JSON object of its writer's, `python/batch_llm/_control/`. Here only requests to send items again are
//! read: records from before them are not used any more. Only this floor uses it, and the bridge.

use rusqlite::{Connection, OptionalExtension, params};
use rustc_hash::FxHashSet;
use serde::Deserialize;

use super::error::is_of_a_value;
use super::record::Head;

/// Longest event that is written or read, bytes.
pub const LONGEST: usize = 1 << 20;
/// So many are read, the last ones.
const MOST: usize = 1_000;

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, run INTEGER NOT NULL, event TEXT NOT NULL)";

/// Adds an event to a database.
pub(super) fn add(database: &Connection, run: u64, event: &str) -> rusqlite::Result<()> {
    database.execute_batch(TABLE)?;
    database.execute("INSERT INTO events VALUES (NULL, ?1, ?2)", params![run, event]).map(drop)
}

/// The events of a database, in order.
pub(super) fn read(database: &Connection) -> rusqlite::Result<Vec<String>> {
    let found = database.query_row("SELECT 1 FROM sqlite_master WHERE name = 'events'", [], |_| Ok(())).optional()?;
    if found.is_none() {
        return Ok(Vec::new());
    }
    let query = "SELECT event FROM events WHERE octet_length(event) <= ?1 ORDER BY id DESC LIMIT ?2";
    let mut rows = database.prepare(query)?;
    let rows = rows.query_map(params![LONGEST, MOST], |row| row.get(0))?;
    let mut events: Vec<String> =
        rows.filter(|row| !row.as_ref().is_err_and(is_of_a_value)).collect::<Result<_, _>>()?;
    events.reverse();
    Ok(events)
}

/// Keeps an event that was read, and no more than the last ones.
pub(super) fn keep(events: &mut Vec<String>, event: &str) {
    if event.len() <= LONGEST {
        if events.len() >= 2 * MOST {
            events.drain(..MOST);
        }
        events.push(event.to_owned());
    }
}

/// A request to send items again: records from before it do not count.
#[derive(Debug, Deserialize)]
pub struct Requeue {
    #[serde(rename = "type")]
    kind: String,
    /// Seconds since 1970.
    at: f64,
    /// These; `None`: all that have failed.
    #[serde(default)]
    items: Option<FxHashSet<String>>,
    /// Of those that have failed, the ones of this category.
    #[serde(default)]
    category: Option<String>,
}

impl Requeue {
    /// Reads an event; `None`: it is another one.
    pub fn of(event: &str) -> Option<Self> {
        serde_json::from_str(event).ok().filter(|requeue: &Self| requeue.kind == "requeue")
    }

    /// Whether it concerns this record.
    pub fn voids(&self, head: &Head) -> bool {
        self.concerns(head.recorded_at, &head.item_id, head.success, head.error_category.as_ref())
    }

    /// The same, of what is known of a record.
    pub fn concerns(&self, recorded_at: f64, item_id: &str, success: bool, category: Option<&String>) -> bool {
        recorded_at <= self.at
            && match &self.items {
                Some(items) => items.contains(item_id),
                None => !success && (self.category.is_none() || self.category.as_ref() == category),
            }
    }
}
