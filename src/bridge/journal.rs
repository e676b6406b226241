//! Journals and caches as Python sees them. Their user is `python/batch_llm/_store/run_store.py`; for what looks into them
//! see `journal_view.rs`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustc_hash::FxHashSet;

use super::convert;
use super::errors::journal_error;
use super::json::{Readable, Writing};
use super::run::RunHandle;
use super::runtime::Process;
use super::timing::Timing;
use crate::dispatch::mailbox::{Mailbox, Message};
use crate::journal::bound_over_time;
use crate::journal::cache::{self, Answers, Bounds};
use crate::journal::error::JournalError;
use crate::journal::events::{self, Requeue};
use crate::journal::fingerprint::Fingerprint;
use crate::journal::gate;
use crate::journal::index::Index;
use crate::journal::place::{self, Format};
use crate::journal::record::{Entry, Head, Key, Kind, Reuse, Spent, Stored, now};
use crate::journal::sqlite::LONGEST;
use crate::journal::writer::{News, Writer};
use crate::journal::{self as journals, Durability, Opened, Options, Reader, Repairs};

/// Fingerprints are made anew when this changes.
const REQUEST: &str = "batch-llm request 1";
const MOST: u64 = i64::MAX.unsigned_abs();

/// `"sqlite"`, `"jsonl"` or `"segments"`: what a file is, or by its name is to be; `None`: none of them.
#[pyfunction]
pub fn format_of(py: Python<'_>, path: PathBuf) -> PyResult<Option<&'static str>> {
    let format = place::format_of(&path).map_err(|error| journal_error(py, &error))?;
    Ok(format.map(|format| match format {
        Format::Sqlite => "sqlite",
        Format::Jsonl => "jsonl",
        Format::Segments => "segments",
    }))
}

pub(super) fn format(name: &str) -> PyResult<Format> {
    match name {
        "sqlite" => Ok(Format::Sqlite),
        "jsonl" => Ok(Format::Jsonl),
        "segments" => Ok(Format::Segments),
        other => Err(PyValueError::new_err(format!("unknown store format {other:?}"))),
    }
}

/// The fingerprint of anything that JSON can say. `to_json_value` converts other things. With `within` that of a
/// request: `within` is the fingerprint of the strategy's identity.
#[pyfunction]
#[pyo3(signature = (value, to_json_value, within = None))]
pub fn fingerprint<'py>(
    py: Python<'py>,
    value: &Bound<'py, PyAny>,
    to_json_value: &Bound<'py, PyAny>,
    within: Option<&[u8]>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut fingerprint = Fingerprint::new(REQUEST);
    fingerprint.raw(within.unwrap_or_default());
    Writing { canonical: true, to_json_value }.write(value, &mut fingerprint)?;
    Ok(PyBytes::new(py, &fingerprint.key().0))
}

/// How a file is opened: from an object with these attributes.
#[derive(FromPyObject)]
pub struct PyOptions {
    fsync: bool,
    busy_timeout: f64,
    package_version: String,
    user_metadata: Option<String>,
}

impl PyOptions {
    pub(super) fn with(self, reuse: Reuse) -> Options {
        Options {
            durability: if self.fsync { Durability::Fsync } else { Durability::Flush },
            busy_timeout: Duration::try_from_secs_f64(self.busy_timeout).unwrap_or_default(),
            reuse,
            package_version: self.package_version,
            user_metadata: self.user_metadata,
        }
    }
}

/// A record as Python hands it over; a test compares it with `_Record` in `_core.pyi`. Tuples, for one is made of every item,
/// and objects with names take longer than all the rest of the way to the journal's thread.
#[derive(FromPyObject)]
struct Record<'py>(i64, Request, Outcome, Spending<'py>, Bound<'py, PyAny>, Option<Py<Timing>>);

/// Fingerprint, number of the identity, id of the item, its place in the run.
type Request = ([u8; 16], i64, Readable, u64);

/// Whether it is a success, the error category if not, and who may use it again.
type Outcome = (bool, Option<String>, u8);

/// Usage so far, what of it is in earlier records, price per token, cost if it is not that by the price.
type Spending<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Option<convert::GivenPrice>, Option<f64>);

impl Record<'_> {
    fn stored(self, py: Python<'_>, to_json_value: &Bound<'_, PyAny>) -> PyResult<Stored> {
        let Self(kind, request, (success, error_category, reuse), (usage, earlier, price, cost), body, timing) = self;
        let (key, identity, item_id, submission_index) = request;
        let body = text(py, &body, timing.as_ref().map(|timing| (timing.get(), success)), to_json_value)?;
        let before = convert::read_usage(&earlier).unwrap_or_default();
        let usage = convert::read_usage(&usage).unwrap_or_default().minus(&before);
        let head = Head {
            kind: Kind::of(kind),
            run: 0,
            key: Key(key),
            identity,
            item_id: item_id.0,
            submission_index,
            recorded_at: now(),
            success,
            error_category,
            reuse: Reuse::of(reuse.into()),
            spent: Spent {
                input_tokens: usage.input.min(MOST),
                output_tokens: usage.output.min(MOST),
                cached_input_tokens: usage.cached.min(MOST),
                cost: cost.or_else(|| price.map(|price| convert::price(price).of(&usage))),
            },
        };
        Ok(Stored { head, body })
    }
}

/// A body as JSON, with the timing of what has ended so.
fn text(
    py: Python<'_>,
    body: &Bound<'_, PyAny>,
    timing: Option<(&Timing, bool)>,
    to_json_value: &Bound<'_, PyAny>,
) -> PyResult<String> {
    let mut text = Vec::with_capacity(512);
    Writing { canonical: false, to_json_value }.write(body, &mut text)?;
    if let Some((timing, success)) = timing
        && text.pop_if(|last| *last == b'}').is_some()
    {
        text.extend_from_slice(br#","timing":"#);
        timing.write(py, success, &mut text);
        text.push(b'}');
    }
    if text.len() > LONGEST - (1 << 20) {
        let length = text.len();
        return Err(PyValueError::new_err(format!("it has {length} bytes; at most {LONGEST} can be stored")));
    }
    // What was written is JSON, and so UTF-8.
    String::from_utf8(text).map_err(|error| PyValueError::new_err(error.to_string()))
}

type Listener = Arc<Mutex<Option<Arc<Mailbox>>>>;

/// Opens a journal. A fork waits for files of SQLite, and not for a network.
fn open(path: &Path, format: Format, options: &Options) -> Result<Opened, JournalError> {
    let _passed = (format != Format::Segments).then(gate::pass);
    journals::open(path, format, options)
}

pub(super) fn behind_gate<R>(open: impl FnOnce() -> R) -> R {
    let _passed = gate::pass();
    open()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A journal that is written to.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct Journal {
    process: Process,
    writer: Writer<Entry>,
    /// None when it is closed, and where nothing is to be used again.
    known: Mutex<Option<(Box<dyn Reader>, Index)>>,
    listener: Listener,
    repairs: Repairs,
    identities: Mutex<FxHashSet<i64>>,
    /// What is to be requested again, whatever is there.
    requeues: Mutex<Vec<Requeue>>,
}

#[pymethods]
impl Journal {
    /// Opens it, and finds what may be used again: `reuse` 2: successes, 1: failures too, 3: nothing.
    #[new]
    fn new(py: Python<'_>, path: PathBuf, kind: &str, options: PyOptions, reuse: u8) -> PyResult<Self> {
        let format = format(kind)?;
        let options = options.with(if reuse == 1 { Reuse::Failure } else { Reuse::Success });
        let opened = py.detach(|| open(&path, format, &options)).map_err(|error| journal_error(py, &error))?;
        let listener: Listener = Arc::default();
        let heard = Arc::clone(&listener);
        let writer = Writer::begin(opened.backend, move |news| {
            let mailbox = locked(&heard).clone();
            if let Some(mailbox) = mailbox {
                mailbox.post(match news {
                    News::Written(count) => Message::Written(count),
                    News::Failed(problem) => Message::Unwritten(problem),
                });
            }
        })?;
        Ok(Self {
            process: Process::current(),
            writer,
            known: Mutex::new((reuse <= 2).then_some((opened.reader, opened.index))),
            listener,
            repairs: opened.repairs,
            identities: Mutex::default(),
            requeues: Mutex::new(opened.events.iter().filter_map(|event| Requeue::of(event)).collect()),
        })
    }

    /// The run that gets messages of what is written.
    fn attach(&self, handle: &RunHandle) {
        *locked(&self.listener) = Some(handle.mailbox());
    }

    /// Bytes of a torn last line that were cut off, and damaged records that were passed over.
    #[getter]
    fn repairs(&self) -> (u64, u64) {
        (self.repairs.torn, self.repairs.damaged)
    }

    /// Files of a folder or bucket that are no segments, or that cannot be read: how many, and what is wrong with one.
    #[getter]
    fn ignored(&self) -> Option<(u64, &str)> {
        ignored(&self.repairs)
    }

    /// How many records may be used again.
    #[getter]
    fn found(&self) -> usize {
        locked(&self.known).as_ref().map_or(0, |(_, index)| index.count())
    }

    /// Takes a record that answers a request: its JSON, whether it is a success, and its category if not. With `request`, a
    /// step of a conversation that began with it.
    #[pyo3(signature = (key, item_id, request = None))]
    fn look_up(
        &self,
        py: Python<'_>,
        key: [u8; 16],
        item_id: Readable,
        request: Option<[u8; 16]>,
    ) -> PyResult<Option<(String, bool, Option<String>)>> {
        self.process.check()?;
        let mut known = locked(&self.known);
        let Some((reader, index)) = &mut *known else { return Ok(None) };
        let key = Key(key);
        reader.refresh(index);
        while let Some(place) = match request {
            None => index.claim(key, &item_id.0),
            Some(request) => index.claim_step(key, &item_id.0, Key(request)),
        } {
            match reader.read(place).map_err(|error| journal_error(py, &error))? {
                Some(Stored { head, .. }) if locked(&self.requeues).iter().any(|requeue| requeue.voids(&head)) => {}
                // The index goes by half of the key.
                Some(Stored { head, body }) if head.key == key => {
                    return Ok(Some((body, head.success, head.error_category)));
                }
                Some(_) => {}
                // It is not what was written: no JSON, for whoever reads it.
                None => return Ok(Some((String::new(), false, None))),
            }
        }
        Ok(None)
    }

    /// Says what an identity is, before the first record that has it.
    fn identify(&self, py: Python<'_>, number: i64, identity: Readable) -> PyResult<()> {
        self.process.check()?;
        if locked(&self.identities).insert(number) {
            self.hand_over(py, Entry::Identity(number, identity.0))?;
        }
        Ok(())
    }

    /// Hands over a record; returns the number that says when it is written.
    fn append<'py>(&self, py: Python<'py>, record: Record<'py>, to_json_value: &Bound<'py, PyAny>) -> PyResult<u64> {
        self.process.check()?;
        let stored = record.stored(py, to_json_value)?;
        self.hand_over(py, Entry::Record(Box::new(stored)))
    }

    /// Hands over an event, a JSON object: what was done to the run.
    fn note(&self, py: Python<'_>, event: String) -> PyResult<u64> {
        self.process.check()?;
        if event.len() > events::LONGEST {
            return Err(PyValueError::new_err(format!(
                "an event has {} bytes; at most {} can be stored",
                event.len(),
                events::LONGEST
            )));
        }
        if let Some(requeue) = Requeue::of(&event) {
            locked(&self.requeues).push(requeue);
        }
        self.hand_over(py, Entry::Event(event))
    }

    /// Hands over what bounded the run over time, a JSON object, in place of the one before.
    fn note_bound_over_time(&self, py: Python<'_>, text: String) -> PyResult<u64> {
        self.process.check()?;
        if text.len() > bound_over_time::LONGEST {
            let (length, most) = (text.len(), bound_over_time::LONGEST);
            return Err(PyValueError::new_err(format!(
                "what bounded a run over time has {length} bytes; at most {most} can be stored"
            )));
        }
        self.hand_over(py, Entry::BoundOverTime(text))
    }

    /// How many records are written.
    #[getter]
    fn written(&self) -> PyResult<u64> {
        self.process.check()?;
        Ok(self.writer.written())
    }

    /// Waits until everything is written, or cannot be.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.process.check()?;
        py.detach(|| self.writer.flush());
        Ok(())
    }

    /// Writes everything and closes the file.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.process.check()?;
        *locked(&self.known) = None;
        py.detach(|| self.writer.close()).map_err(|error| journal_error(py, &error))
    }
}

impl Journal {
    fn hand_over(&self, py: Python<'_>, entry: Entry) -> PyResult<u64> {
        self.writer.append(entry).map_err(|error| journal_error(py, &error))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.process.check().is_err() {
            self.writer.abandon();
            // Closing a file takes locks that SQLite's files share, and it is the parent's.
            std::mem::forget(locked(&self.known).take());
        }
    }
}

/// A cache of answers that is open.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct Cache {
    process: Process,
    writer: Writer<cache::Entry>,
    answers: Arc<Answers>,
    problem: Arc<Mutex<Option<String>>>,
}

#[pymethods]
impl Cache {
    /// Opens it. `ttl` in seconds.
    #[new]
    #[pyo3(signature = (path, options, ttl, max_bytes))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        options: PyOptions,
        ttl: Option<f64>,
        max_bytes: Option<u64>,
    ) -> PyResult<Self> {
        let (options, bounds) = (options.with(Reuse::Success), Bounds { ttl, bytes: max_bytes });
        let (file, answers) = py
            .detach(|| behind_gate(|| cache::open(&path, bounds, &options)))
            .map_err(|error| journal_error(py, &error))?;
        let problem: Arc<Mutex<Option<String>>> = Arc::default();
        let listener = Arc::clone(&problem);
        let writer = Writer::begin(Box::new(file), move |news| {
            if let News::Failed(problem) = news {
                *locked(&listener) = Some(problem);
            }
        })?;
        Ok(Self { process: Process::current(), writer, answers: Arc::new(answers), problem })
    }

    /// The next answer to a request, as JSON, with its number among equal ones.
    fn look_up(&self, py: Python<'_>, key: [u8; 16]) -> PyResult<(u32, Option<String>)> {
        self.process.check()?;
        let (sample, body) = self.answers.look_up(Key(key)).map_err(|error| journal_error(py, &error))?;
        if body.is_some() {
            // If that cannot be noted, nothing is lost.
            let _ = self.writer.append(cache::Entry::Used(Key(key), sample));
        }
        Ok((sample, body))
    }

    /// Stores an answer.
    fn keep<'py>(
        &self,
        key: [u8; 16],
        sample: u32,
        body: &Bound<'py, PyAny>,
        to_json_value: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        self.process.check()?;
        let mut text = Vec::with_capacity(512);
        Writing { canonical: false, to_json_value }.write(body, &mut text)?;
        if text.len() > LONGEST {
            return Ok(()); // nobody could read it again
        }
        let body = String::from_utf8(text).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let _ = self.writer.append(cache::Entry::Answer { key: Key(key), sample, body });
        Ok(())
    }

    /// Why nothing more is stored, if that is so.
    #[getter]
    fn problem(&self) -> Option<String> {
        locked(&self.problem).clone()
    }

    /// Writes everything and closes the file.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.process.check()?;
        py.detach(|| {
            self.answers.close();
            self.writer.close()
        })
        .map_err(|error| journal_error(py, &error))
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if self.process.check().is_err() {
            self.writer.abandon();
            std::mem::forget(Arc::clone(&self.answers));
        }
    }
}

pub(super) fn ignored(repairs: &Repairs) -> Option<(u64, &str)> {
    repairs.example.as_deref().map(|example| (repairs.foreign + repairs.unreadable, example))
}
