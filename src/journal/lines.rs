//! The lines of text journals: how they are written, and how they are read from a file that anybody may have made.
//!
//! A line ends with a checksum of what is before it, so that damage costs the line that it is in and no other.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::bound_over_time;
use super::error::JournalError;
use super::events;
use super::opened::{About, Reader};
use super::options::{Options, SCHEMA_VERSION};
use super::record::{Entry, Head, Stored, now};
use super::sqlite::LONGEST;

const SCHEMA: &str = "batch-llm-journal";
/// How files of ours begin.
const BEGINNING: &[u8] = br#"{"record_type":"manifest""#;
const RESULT: &[u8] = br#","result":"#;
const CHECKSUM: &str = r#","crc32":""#;
/// `,"crc32":"01234567"}`
const TAIL: usize = CHECKSUM.len() + 8 + 2;

/// A line that is no record: of a file, of a run, of an identity. (No enum: `serde` keeps raw JSON only in structs.)
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note<'a> {
    record_type: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_schema_version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package_version: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    user_metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<i64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    identity: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    event: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    seconds: Option<&'a RawValue>,
}

const MANIFEST: &str = "manifest";
const RUN: &str = "run";
const IDENTITY: &str = "identity";
const EVENT: &str = "event";
const BOUND_OVER_TIME: &str = "bound_over_time";

/// Makes lines.
#[derive(Default)]
pub(super) struct Encoder {
    /// Lines that were made and not taken yet.
    pub buffer: Vec<u8>,
}

impl Encoder {
    /// The first line of a file. `records`: how many follow, where that is known.
    pub fn manifest(&mut self, options: &Options, records: Option<i64>) {
        let metadata = options.user_metadata.as_deref().map(serde_json::from_str::<&RawValue>).transpose();
        self.note(&Note {
            record_type: MANIFEST.into(),
            schema: Some(SCHEMA.into()),
            artifact_schema_version: Some(i64::from(SCHEMA_VERSION)),
            at: Some(now()),
            package_version: Some(options.package_version.as_str().into()),
            user_metadata: metadata.unwrap_or_default(),
            number: records,
            ..Note::default()
        });
    }

    /// A run begins.
    pub fn run(&mut self, run: u64, options: &Options) {
        self.note(&Note {
            record_type: RUN.into(),
            run: Some(run),
            at: Some(now()),
            package_version: Some(options.package_version.as_str().into()),
            ..Note::default()
        });
    }

    /// What a run writes.
    pub fn entry(&mut self, run: u64, entry: &mut Entry) {
        match entry {
            Entry::Record(stored) => {
                stored.head.run = run;
                self.record(stored);
            }
            Entry::Identity(number, identity) => {
                let identity = std::mem::take(identity);
                let identity = serde_json::from_str(&identity).ok();
                self.note(&Note { record_type: IDENTITY.into(), number: Some(*number), identity, ..Note::default() });
            }
            Entry::Event(event) => self.event(run, event),
            Entry::BoundOverTime(text) => {
                let seconds = serde_json::from_str(text).ok();
                self.note(&Note { record_type: BOUND_OVER_TIME.into(), run: Some(run), seconds, ..Note::default() });
            }
        }
    }

    /// What was done to a run.
    pub fn event(&mut self, run: u64, event: &str) {
        let event = serde_json::from_str(event).ok();
        self.note(&Note { record_type: EVENT.into(), run: Some(run), event, ..Note::default() });
    }

    fn note(&mut self, note: &Note<'_>) {
        let before = self.buffer.len();
        if serde_json::to_writer(&mut self.buffer, note).is_ok() {
            self.buffer.pop();
            self.finish_line(before);
        }
    }

    fn record(&mut self, stored: &Stored) {
        let before = self.buffer.len();
        // A head holds nothing that JSON does not have.
        if serde_json::to_writer(&mut self.buffer, &stored.head).is_ok() {
            self.buffer.pop();
            self.buffer.extend_from_slice(RESULT);
            self.buffer.extend_from_slice(stored.body.as_bytes());
            self.finish_line(before);
        }
    }

    /// Ends the line that begins there in the buffer, without its closing brace yet.
    fn finish_line(&mut self, begin: usize) {
        let sum = crc32fast::hash(&self.buffer[begin..]);
        let _ = write!(self.buffer, "{CHECKSUM}{sum:08x}\"}}");
        self.buffer.push(b'\n');
    }
}

/// Reads single records of a file.
pub(super) struct Lines<F: Read + Seek> {
    /// What errors name.
    pub path: PathBuf,
    /// The file.
    pub file: BufReader<F>,
}

impl<F: Read + Seek + Send> Reader for Lines<F> {
    fn read(&mut self, place: u64) -> Result<Option<Stored>, JournalError> {
        let mut line = Vec::new();
        self.file
            .seek(SeekFrom::Start(place))
            .and_then(|_| read_line(&mut self.file, &mut line))
            .map_err(|error| JournalError::io(&self.path, "reading", error))?;
        match checked(line.strip_suffix(b"\n").unwrap_or(&line)).and_then(parts) {
            Some((head, body)) => Ok(Some(Stored { head, body: body.to_owned() })),
            None => Err(JournalError::Format {
                path: self.path.clone(),
                problem: format!("was changed by another program while it was in use (at byte {place})"),
            }),
        }
    }
}

/// A line that says something.
pub(super) enum Line<'a> {
    /// A record, and where it is.
    Record { head: Head, body: &'a str, at: u64 },
    /// What an identity is.
    Identity(i64, &'a str),
}

/// What was found in a file.
pub(super) struct Found {
    /// What it says about itself.
    pub about: About,
    /// Whether its first line is one of ours.
    pub has_manifest: bool,
    /// How many records it says that it has.
    pub records: Option<i64>,
    /// Bytes of whole lines.
    pub whole: u64,
}

/// What was read of a line.
struct Span {
    bytes: u64,
    is_whole: bool,
}

/// Reads a line with its end, as much of it as may be one of ours; the rest of a longer one is passed over, so that it is
/// not intact.
fn read_line(file: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<Span> {
    let most = LONGEST as u64;
    let mut bytes = file.by_ref().take(most).read_until(b'\n', line)? as u64;
    let mut is_whole = line.last() == Some(&b'\n');
    while !is_whole && bytes >= most {
        let buffer = file.fill_buf()?;
        if buffer.is_empty() {
            break;
        }
        let end = memchr::memchr(b'\n', buffer).map(|at| at + 1);
        let passed = end.unwrap_or(buffer.len());
        is_whole = end.is_some();
        file.consume(passed);
        bytes += passed as u64;
    }
    Ok(Span { bytes, is_whole })
}

/// Reads all whole lines of a file, which is at the beginning of one.
pub(super) fn walk<E: From<JournalError>>(
    path: &Path,
    file: impl Read,
    begin: u64,
    each: &mut dyn FnMut(Line<'_>) -> Result<(), E>,
) -> Result<Found, E> {
    let mut file = BufReader::with_capacity(1 << 18, file);
    let mut found = Found { about: About::default(), has_manifest: begin > 0, records: None, whole: begin };
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = read_line(&mut file, &mut line).map_err(|error| JournalError::io(path, "reading", error))?;
        if !read.is_whole {
            found.about.repairs.torn = read.bytes;
            break;
        }
        let content = line.strip_suffix(b"\n").unwrap_or_default();
        let at = found.whole;
        found.whole += read.bytes;
        let intact = checked(content);
        if at == 0 {
            read_manifest(path, content, intact, &mut found)?;
            continue;
        }
        let Some(intact) = intact else {
            found.about.repairs.damaged += 1;
            continue;
        };
        if let Some((head, body)) = parts(intact) {
            each(Line::Record { head, body, at })?;
            continue;
        }
        // Kinds of lines that are yet to be invented are no damage.
        let text = note(intact).unwrap_or_default();
        if let Ok(note) = serde_json::from_str::<Note<'_>>(&text) {
            if let (RUN, Some(run)) = (&*note.record_type, note.run) {
                found.about.runs = found.about.runs.max(run);
            }
            if let (EVENT, Some(event)) = (&*note.record_type, note.event) {
                events::keep(&mut found.about.events, event.get());
            }
            if let (BOUND_OVER_TIME, Some(run), Some(seconds)) = (&*note.record_type, note.run, note.seconds) {
                bound_over_time::keep(&mut found.about.bound_over_time, run, seconds.get());
            }
            if let (IDENTITY, Some(number), Some(identity)) = (&*note.record_type, note.number, note.identity) {
                each(Line::Identity(number, identity.get()))?;
            }
        }
    }
    if !found.has_manifest {
        // A file whose first line is torn: ours, if it begins as ours do.
        let begins = line.len().min(BEGINNING.len());
        if line[..begins] != BEGINNING[..begins] {
            return Err(foreign(path).into());
        }
    }
    Ok(found)
}

fn read_manifest(path: &Path, line: &[u8], intact: Option<&[u8]>, found: &mut Found) -> Result<(), JournalError> {
    let text = intact.and_then(note).unwrap_or_default();
    match serde_json::from_str::<Note<'_>>(&text) {
        Ok(note) if note.record_type == MANIFEST && note.schema.as_deref() == Some(SCHEMA) => {
            let version = note.artifact_schema_version.unwrap_or_default();
            if version > i64::from(SCHEMA_VERSION) {
                return Err(JournalError::Newer { path: path.to_owned(), found: version, known: SCHEMA_VERSION });
            }
            found.has_manifest = true;
            found.records = note.number;
            found.about.created_at = note.at.unwrap_or_default();
            found.about.user_metadata = note.user_metadata.map(|value| value.get().to_owned());
            Ok(())
        }
        _ if line.starts_with(BEGINNING) => {
            let problem = "was not written by batch-llm, or its first line is damaged".to_owned();
            Err(JournalError::Format { path: path.to_owned(), problem })
        }
        _ => Err(foreign(path)),
    }
}

fn foreign(path: &Path) -> JournalError {
    JournalError::Format { path: path.to_owned(), problem: "is not a store of batch-llm".to_owned() }
}

/// A line without its checksum and closing brace, if it is intact.
fn checked(line: &[u8]) -> Option<&[u8]> {
    let content = line.get(..line.len().checked_sub(TAIL)?)?;
    let sum = line[content.len()..].strip_prefix(CHECKSUM.as_bytes())?.strip_suffix(b"\"}")?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (crc32fast::hash(content) == sum).then_some(content)
}

/// The JSON of an intact line that is no record.
fn note(intact: &[u8]) -> Option<String> {
    Some(format!("{}}}", std::str::from_utf8(intact).ok()?))
}

/// The head and the body of an intact line, if it is a record.
fn parts(intact: &[u8]) -> Option<(Head, &str)> {
    // In a string the quotes would be escaped: the first one that is not is the field's.
    let text = std::str::from_utf8(intact).ok()?;
    let at = memchr::memmem::find(intact, RESULT)?;
    let mut head = Vec::with_capacity(at + 1);
    head.extend_from_slice(&intact[..at]);
    head.push(b'}');
    Some((serde_json::from_slice(&head).ok()?, &text[at + RESULT.len()..]))
}
