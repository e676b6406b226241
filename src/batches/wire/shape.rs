//! What a batch API is: what is sent to it, and what is read from it. Each provider's is a [`Wire`].

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::fields;
use crate::providers::call::{Call, Content};

/// What a chunk may hold at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Lines.
    pub lines: usize,
    /// Bytes of the whole.
    pub bytes: usize,
}

/// How a batch is found whose id is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// By the nonce, which its label in the list is.
    Label,
    /// By the file that it was made from.
    File,
    /// By its time and its size alone; its results prove it.
    Fingerprint,
}

/// How a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All lines were answered, each in its way.
    Done,
    /// None was.
    Failed,
    /// Its time was over; what was done is there.
    Expired,
    /// It was cancelled; what was done is there.
    Cancelled,
}

/// Where a batch is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing has begun.
    Waiting,
    /// Lines are answered. Also any state that is not known.
    #[default]
    Running,
    /// All are, and the results are being written.
    Writing,
    /// It is being cancelled.
    Cancelling,
    /// It has ended.
    Ended(End),
}

/// What was wrong with a batch as a whole, or with one of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The provider's code; empty: none.
    pub code: String,
    /// In words.
    pub message: String,
    /// The line, counted from 0.
    pub line: Option<usize>,
}

/// A batch as its provider describes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// The provider's id.
    pub id: String,
    /// Where it is.
    pub state: State,
    /// The provider's word for it.
    pub word: String,
    /// When it was made, seconds since 1970.
    pub created_at: Option<f64>,
    /// Lines in it, where that is told.
    pub total: Option<u64>,
    /// Lines that are done, successes and errors, where that is told. For display only.
    pub done: Option<(u64, u64)>,
    /// The nonce, where the provider keeps one.
    pub label: Option<String>,
    /// The file that it was made from.
    pub file: Option<String>,
    /// Where its results are: files, or whatever [`Wire::results`] makes calls of.
    pub outputs: Vec<String>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// What became of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The reply that the request would have had by itself: an HTTP status, and a body.
    Reply(u16, Bytes),
    /// It was not answered, and not paid for: its batch expired or was cancelled before.
    NotDone,
}

/// A line of the results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The id that we gave it.
    pub custom_id: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// A chunk that is complete, and ready to be sent.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Its nonce.
    pub nonce: String,
    /// The model.
    pub model: String,
    /// The lines as they are sent.
    pub body: Content,
    /// How many there are.
    pub count: usize,
}

impl Sealed {
    /// The name of the file that it is uploaded as.
    pub fn file_name(&self) -> String {
        file_name(&self.nonce)
    }
}

/// The name of the file of a chunk with this nonce.
pub fn file_name(nonce: &str) -> String {
    format!("bllm-{nonce}.jsonl")
}

/// How a chunk is uploaded before its batch is made.
pub enum Upload {
    /// It is sent with the request that makes the batch.
    None,
    /// In one call, whose reply has the file's id.
    One(Call),
    /// In two: the reply to the first has the address of the second in this header.
    Resumable(Call, &'static str),
}

/// The framing of lines.
pub struct Frame {
    /// Before the first line.
    pub before: String,
    /// Between two lines.
    pub between: &'static str,
    /// After the last.
    pub after: &'static str,
}

impl Frame {
    /// A line of a file each.
    pub fn lines() -> Self {
        Self { before: String::new(), between: "\n", after: "\n" }
    }
}

/// Reads a line as the provider's [`Wire`] does, also one that is not strict JSON: it is paid for.
pub fn read_line(wire: &dyn Wire, line: &[u8]) -> Option<Line> {
    wire.read_line(line).or_else(|| wire.read_line(fields::mended(line)?.get().as_bytes()))
}

/// The batch API of a provider.
pub trait Wire: Send + Sync + 'static {
    /// What a batch may hold.
    fn limits(&self) -> Limits;

    /// How a batch is found whose id is not known.
    fn finding(&self) -> Finding;

    /// What is around the lines.
    fn frame(&self, _model: &str) -> Frame {
        Frame::lines()
    }

    /// Why a request cannot be in a batch, although it could be sent by itself.
    fn unfit(&self, _body: &[u8]) -> Option<&'static str> {
        None
    }

    /// Adds a line: the body of a request, and its id.
    fn write(&self, custom_id: &str, body: &[u8], into: &mut Vec<u8>);

    /// Uploads a chunk.
    fn upload(&self, _chunk: &Sealed) -> Upload {
        Upload::None
    }

    /// The second call of an upload in two.
    fn upload_rest(&self, _chunk: &Sealed, _place: String) -> Option<Call> {
        None
    }

    /// The id of the file in the reply to an upload.
    fn read_upload(&self, body: &[u8]) -> Option<String> {
        fields::text_at(&fields::read(body)?, "/id")
    }

    /// Asks whether a file can be used; `None`: it can, once it is uploaded.
    fn look_at_file(&self, _file: &str) -> Option<Call> {
        None
    }

    /// Whether the reply says that it can.
    fn is_file_ready(&self, _body: &[u8]) -> bool {
        true
    }

    /// Deletes the file of a chunk that is settled.
    fn delete_file(&self, _file: &str) -> Option<Call> {
        None
    }

    /// Makes the batch.
    fn create(&self, chunk: &Sealed, file: Option<&str>) -> Call;

    /// Reads the reply to that.
    fn read_created(&self, body: &[u8]) -> Option<Seen> {
        self.read_batch(body)
    }

    /// Asks how a batch is.
    fn look(&self, id: &str) -> Call;

    /// Reads a batch.
    fn read_batch(&self, body: &[u8]) -> Option<Seen>;

    /// Lists batches, the newest first; `after`: what [`read_list`](Self::read_list) has returned for the next page.
    fn list(&self, after: Option<&str>) -> Call;

    /// Reads the list that was asked for with `after`, and where its next page begins.
    fn read_list(&self, body: &[u8], after: Option<&str>) -> (Vec<Seen>, Option<String>);

    /// Cancels a batch: a wish, for some lines may still be answered.
    fn cancel(&self, id: &str) -> Call;

    /// Whether a batch of so many lines, this long after its creation, has ended.
    fn has_ended(&self, seen: &Seen, _lines: u64, _age: Duration) -> bool {
        matches!(seen.state, State::Ended(_))
    }

    /// Fetches the results of a batch that has ended: lines, or [pages](Self::has_pages).
    fn results(&self, seen: &Seen) -> Vec<Call>;

    /// Whether results come as documents with lists of them, and not as lines.
    fn has_pages(&self) -> bool {
        false
    }

    /// Reads such a document: passes on each result as a line would be, and returns the call for the next document, if
    /// there is one. `None`: it cannot be read.
    fn read_page(&self, _seen: &Seen, _body: &[u8], _each: &mut dyn FnMut(&[u8])) -> Option<Option<Call>> {
        None
    }

    /// Reads a line of the results, or one result of a page. `None`: it is none.
    fn read_line(&self, line: &[u8]) -> Option<Line>;

    /// The provider is not asked more often than this.
    fn least_wait(&self) -> Duration {
        Duration::ZERO
    }

    /// The pauses before each look at the list of batches for one whose create was not answered: lists may lag.
    fn looks(&self) -> Vec<Duration> {
        // A body of 256 MB may have been under way, and where nothing labels it, only its time tells.
        let last = (self.finding() == Finding::Fingerprint).then_some(645);
        [0, 15, 60, 180].into_iter().chain(last).map(Duration::from_secs).collect()
    }

    /// How long a batch that is cancelled may take to end, and its results to be fetched.
    fn settling(&self) -> Duration {
        Duration::from_secs(300)
    }

    /// Whether requests for a model cost less in a batch, where nothing else is known of prices.
    fn is_cheaper(&self, _model: &str) -> bool {
        true
    }

    /// How far the provider's clock is ahead of ours, seconds, as far as a reply tells.
    fn skew(&self, headers: &HeaderMap, now: f64) -> f64 {
        fields::date(headers).map_or(0.0, |theirs| theirs - now)
    }
}
