//! Segments that are written: what the runs of a process hand over within a short time becomes one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};

use super::place::Place;
use crate::journal::error::JournalError;
use crate::journal::lines::Encoder;
use crate::journal::options::Options;

/// How long a segment waits for more records. What arrives meanwhile waits in the runs, for as long again: so the
/// results of half a second are lost at most when the process is killed.
const WAIT: Duration = Duration::from_millis(250);
/// A segment of so many bytes waits no longer.
const FULL: usize = 4 << 20;
/// How long writing is tried again: shorter outages stop no run.
const PATIENCE: Duration = Duration::from_secs(60);

/// The end of a segment's name.
const SUFFIX: &str = ".jsonl";

/// Writes segments to a place.
pub struct Committer {
    place: Arc<dyn Place>,
    /// Who writes, in names: no two processes have the same.
    writer: u64,
    number: AtomicU64,
    open: Mutex<Option<Arc<Mutex<Batch>>>>,
    /// An open batch is full, or one is written.
    changed: Condvar,
}

/// A segment that is not written yet.
#[derive(Default)]
struct Batch {
    lines: Vec<u8>,
    records: i64,
    outcome: Option<Result<(), String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Committer {
    /// Of the segments of this process.
    ///
    /// # Errors
    /// When the operating system gives it no name.
    pub fn new(place: Arc<dyn Place>) -> Result<Self, JournalError> {
        let (writer, number) = (random()?, AtomicU64::default());
        Ok(Self { place, writer, number, open: Mutex::default(), changed: Condvar::new() })
    }

    /// Adds lines to the next segment; returns when it is written. The first caller waits for others, and writes; the
    /// segment says about itself what its options are.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn commit(&self, lines: &[u8], records: usize, options: &Options) -> Result<(), JournalError> {
        let mut open = locked(&self.open);
        let leads = open.is_none();
        let batch = Arc::clone(open.get_or_insert_default());
        let is_full = {
            let mut batch = locked(&batch);
            batch.lines.extend_from_slice(lines);
            batch.records += i64::try_from(records).unwrap_or_default();
            batch.lines.len() >= FULL
        };
        if !leads {
            if is_full {
                self.changed.notify_all();
            }
            loop {
                if let Some(outcome) = &locked(&batch).outcome {
                    return outcome.clone().map_err(JournalError::Shared);
                }
                open = self.changed.wait(open).unwrap_or_else(PoisonError::into_inner);
            }
        }
        let until = Instant::now() + WAIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || locked(&batch).lines.len() >= FULL {
                break;
            }
            open = self.changed.wait_timeout(open, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *open = None; // who comes now begins the next one
        drop(open);
        let (lines, records) = {
            let mut batch = locked(&batch);
            (std::mem::take(&mut batch.lines), batch.records)
        };
        let outcome = self.write(&lines, records, options, PATIENCE);
        // Under the lock, or somebody could begin to wait between looking and being told.
        let _open = locked(&self.open);
        locked(&batch).outcome = Some(outcome.as_ref().map_err(ToString::to_string).copied());
        self.changed.notify_all();
        outcome
    }

    /// Writes a segment of these lines; tries again for so long.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, lines: &[u8], records: i64, options: &Options, patience: Duration) -> Result<(), JournalError> {
        let mut encoder = Encoder::default();
        encoder.manifest(options, Some(records));
        encoder.buffer.extend_from_slice(lines);
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{:012x}-{number:06}{SUFFIX}", name_begins(SystemTime::now()), self.writer);
        self.place.write(&name, encoder.buffer, patience)
    }
}

/// A number that no other process has, of at most 12 hexadecimal digits. From the operating system: forked processes
/// would have the same state of any other generator.
///
/// # Errors
/// When the system gives none.
pub fn random() -> Result<u64, JournalError> {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes[2..]) {
        Ok(()) => Ok(u64::from_be_bytes(bytes)),
        Err(_) => Err(JournalError::Shared("the operating system provides no random numbers".to_owned())),
    }
}

/// How names of segments of that time begin. Later ones come later in the order of names.
pub fn name_begins(at: SystemTime) -> String {
    format!("{:013}", at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis())
}

/// Whether a file is a segment, by its name.
pub fn is_segment(name: &str) -> bool {
    let parts: Vec<&str> = name.strip_suffix(SUFFIX).unwrap_or_default().split('-').collect();
    let digits = |text: &str, least| text.len() >= least && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    matches!(parts[..], [at, writer, number] if digits(at, 13) && digits(writer, 12) && digits(number, 6))
}
