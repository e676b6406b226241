//! Long texts that many requests have in common: a system prompt, an image. Each is written as JSON once, and bodies of
//! requests are lists of parts, so that all requests in flight hold the same bytes.
//!
//! A dialect serializes a [`SharedText`] as any other string. A [`Body`](super::dialect::Body) recognizes its bytes, and
//! takes them as a part of its own; any other writer copies them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::hash::Hasher;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use rustc_hash::FxHasher;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// From so many bytes on a text is a part of its own. Shorter ones are copied, which costs less than a part.
pub const LONG: usize = 16 << 10;

thread_local! {
    /// The long text that is being serialized on this thread.
    static WRITTEN: RefCell<Option<Bytes>> = const { RefCell::new(None) };
}

/// A text and the JSON string that requests send of it. Clones share both.
#[derive(Clone)]
pub struct SharedText {
    written: Arc<Written>,
    /// The bytes of the JSON string.
    bytes: Bytes,
}

struct Written {
    json: Box<RawValue>,
    /// A number of the text's own, once it is wanted.
    digest: OnceLock<u64>,
    /// The text, if it is not what stands between the quotes of `json`.
    text: Option<Box<str>>,
}

impl Written {
    fn text(&self) -> &str {
        match &self.text {
            Some(text) => text,
            None => {
                let json = self.json.get();
                json.get(1..json.len().saturating_sub(1)).unwrap_or_default()
            }
        }
    }
}

/// A text of a prompt: of its own, or shared with others.
#[derive(Debug, Clone)]
pub enum Text {
    /// Of its own.
    Own(String),
    /// A long one that others may have too.
    Shared(SharedText),
}

impl Text {
    /// A text; a long one is shared with those that are equal to it and in use now.
    pub fn of(text: &str) -> Self {
        if text.len() < LONG { Self::Own(text.to_owned()) } else { Self::Shared(SharedText::known(text)) }
    }

    /// As a string of its own.
    pub fn into_string(self) -> String {
        match self {
            Self::Own(text) => text,
            Self::Shared(text) => text.text().to_owned(),
        }
    }

    /// A number that equal texts have, and hardly any others.
    pub fn digest(&self) -> u64 {
        match self {
            Self::Own(text) => digest(text),
            Self::Shared(text) => text.digest(),
        }
    }

    /// How many bytes it has for itself in the body of a request.
    pub fn own_bytes(&self) -> usize {
        match self {
            Self::Own(text) => text.len(),
            Self::Shared(_) => 0,
        }
    }

    /// How many bytes it adds to what is in memory: a text that others have too adds none.
    pub fn added_bytes(&self) -> usize {
        match self {
            Self::Own(text) => text.len(),
            Self::Shared(text) if text.is_alone() => text.text().len(),
            Self::Shared(_) => 0,
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(if text.len() < LONG { Self::Own(text) } else { Self::of(&text) })
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Own(text)
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Own(text) => text,
            Self::Shared(text) => text.text(),
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Own(text) => serializer.serialize_str(text),
            Self::Shared(text) => text.serialize(serializer),
        }
    }
}

fn digest(text: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Texts that were shared last, as long as they are in use.
static KNOWN: Mutex<VecDeque<Weak<Written>>> = Mutex::new(VecDeque::new());
/// So many are looked at for an equal one.
const MOST_KNOWN: usize = 16;

struct Owner(Arc<Written>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.json.get().as_bytes()
    }
}

impl SharedText {
    /// Writes a text.
    pub fn new(text: &str) -> Self {
        // A string can be written.
        let json = serde_json::value::to_raw_value(text).unwrap_or_default();
        let is_plain = json.get().len() == text.len() + 2;
        Self::of(Arc::new(Written { json, digest: OnceLock::new(), text: (!is_plain).then(|| text.into()) }))
    }

    fn of(written: Arc<Written>) -> Self {
        Self { bytes: Bytes::from_owner(Owner(Arc::clone(&written))), written }
    }

    /// A text that may have been written before, and may come again.
    fn known(text: &str) -> Self {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        known.retain(|one| {
            let Some(one) = one.upgrade() else { return false };
            if found.is_none() && one.text() == text {
                found = Some(one);
            }
            true
        });
        if let Some(found) = found {
            return Self::of(found);
        }
        let fresh = Self::new(text);
        if known.len() == MOST_KNOWN {
            known.pop_front();
        }
        known.push_back(Arc::downgrade(&fresh.written));
        fresh
    }

    /// The text.
    pub fn text(&self) -> &str {
        self.written.text()
    }

    /// A number that equal texts have, and hardly any others.
    pub fn digest(&self) -> u64 {
        *self.written.digest.get_or_init(|| digest(self.text()))
    }

    /// Whether nobody else has it.
    fn is_alone(&self) -> bool {
        // Its bytes own it as well.
        Arc::strong_count(&self.written) <= 2
    }

    /// Its bytes, if these are they.
    fn taken(buffer: &[u8]) -> Option<Bytes> {
        let written = WRITTEN.take()?;
        std::ptr::eq(written.as_ref(), buffer).then_some(written)
    }
}

impl Serialize for SharedText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.bytes.len() < LONG {
            return self.written.json.serialize(serializer);
        }
        WRITTEN.set(Some(self.bytes.clone()));
        let outcome = self.written.json.serialize(serializer);
        WRITTEN.set(None);
        outcome
    }
}

impl PartialEq for SharedText {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.written, &other.written) || self.text() == other.text()
    }
}

impl Eq for SharedText {}

impl fmt::Debug for SharedText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.written.json.get())
    }
}

/// Bytes that are written one after another; long texts that are shared are not copied.
#[derive(Default)]
pub struct Writing {
    parts: Vec<Bytes>,
    open: Vec<u8>,
}

impl Writing {
    /// Begins with `head`, with room for so many bytes of its own.
    pub fn new(head: Bytes, room: usize) -> Self {
        let mut writing = Self { parts: Vec::new(), open: Vec::with_capacity(room + head.len() % LONG) };
        if head.len() < LONG {
            writing.open.extend_from_slice(&head);
        } else {
            writing.parts.push(head);
        }
        writing
    }

    /// Adds a byte.
    pub fn push(&mut self, byte: u8) {
        self.open.push(byte);
    }

    /// The byte that was written last.
    pub fn last(&self) -> Option<u8> {
        self.open.last().or_else(|| self.parts.last()?.last()).copied()
    }

    /// All of it.
    pub fn finish(mut self) -> Payload {
        if self.parts.is_empty() {
            return Payload::One(self.open.into());
        }
        if !self.open.is_empty() {
            self.parts.push(self.open.into());
        }
        Payload::Many(self.parts.into())
    }
}

impl std::io::Write for Writing {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.write_all(buffer).map(|()| buffer.len())
    }

    fn write_all(&mut self, buffer: &[u8]) -> std::io::Result<()> {
        match Some(buffer).filter(|buffer| buffer.len() >= LONG).and_then(SharedText::taken) {
            None => self.open.extend_from_slice(buffer),
            Some(shared) => {
                if !self.open.is_empty() {
                    self.parts.push(std::mem::take(&mut self.open).into());
                }
                self.parts.push(shared);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The body of a request, which may be sent several times.
#[derive(Debug, Clone)]
pub enum Payload {
    /// In one piece.
    One(Bytes),
    /// In parts.
    Many(Arc<[Bytes]>),
}

impl Payload {
    /// The bytes in one piece, copied together if there are several.
    pub fn joined(&self) -> Bytes {
        match self {
            Self::One(bytes) => bytes.clone(),
            Self::Many(parts) => parts.concat().into(),
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::One(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::One(bytes.into())
    }
}

impl From<&Payload> for reqwest::Body {
    fn from(payload: &Payload) -> Self {
        match payload {
            Payload::One(bytes) => bytes.clone().into(),
            Payload::Many(parts) => {
                let left = parts.iter().map(|part| part.len() as u64).sum();
                Self::wrap(Parts { parts: Arc::clone(parts), next: 0, left })
            }
        }
    }
}

/// A body that is sent part by part.
struct Parts {
    parts: Arc<[Bytes]>,
    next: usize,
    left: u64,
}

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(part) = self.parts.get(self.next).cloned() else { return Poll::Ready(None) };
        self.next += 1;
        self.left -= part.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.next == self.parts.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use serde_json::json;

    #[derive(Serialize)]
    struct Message<'a> {
        #[serde(flatten)]
        inner: Inner<'a>,
    }

    #[derive(Serialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Inner<'a> {
        Text { text: &'a SharedText },
    }

    fn parts_of(payload: &Payload) -> Vec<Bytes> {
        match payload {
            Payload::One(bytes) => vec![bytes.clone()],
            Payload::Many(parts) => parts.to_vec(),
        }
    }

    #[test]
    fn a_text_is_what_it_was_made_of() {
        for text in ["", "plain", "with \"quotes\"\nand lines", "\u{1f600}"] {
            let shared = SharedText::new(text);
            assert_eq!((shared.text(), serde_json::to_value(&shared).unwrap()), (text, json!(text)));
            assert_eq!(format!("{shared:?}"), json!(text).to_string());
        }
    }

    #[test]
    fn equal_long_texts_are_one_as_long_as_they_are_in_use() {
        let long = "\"".repeat(LONG);
        let bytes = |text: &Text| match text {
            Text::Shared(text) => text.bytes.as_ptr(),
            Text::Own(_) => panic!("it is long"),
        };
        let (one, other) = (Text::of(&long), Text::of(&long));
        assert_eq!((bytes(&one), one.own_bytes()), (bytes(&other), 0));
        assert_ne!(bytes(&Text::of(&"'".repeat(LONG))), bytes(&one));
        let weak = match &one {
            Text::Shared(text) => Arc::downgrade(&text.written),
            Text::Own(_) => panic!("it is long"),
        };
        drop((one, other));
        assert!(weak.upgrade().is_none());
        assert!(matches!(Text::of("short"), Text::Own(_)));
    }

    #[test]
    fn long_texts_are_parts_of_their_own_and_short_ones_are_not() {
        for (length, parts) in [(LONG - 3, 1), (LONG - 2, 5)] {
            let shared = SharedText::new(&"x".repeat(length));
            let mut writing = Writing::new(Bytes::from_static(b"["), 0);
            for place in 0..2 {
                if place > 0 {
                    writing.push(b',');
                }
                serde_json::to_writer(&mut writing, &Message { inner: Inner::Text { text: &shared } }).unwrap();
            }
            writing.push(b']');
            assert_eq!(writing.last(), Some(b']'));
            let payload = writing.finish();
            let found = parts_of(&payload);
            assert_eq!(found.len(), parts);
            assert_eq!(found.iter().filter(|part| part.as_ptr() == shared.bytes.as_ptr()).count(), parts / 2);
            let one = json!({"type": "text", "text": shared.text()});
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&payload.joined()).unwrap(), json!([one, one]));
        }
    }

    #[test]
    fn what_is_not_shared_is_copied() {
        let (text, shared) = ("y".repeat(LONG), SharedText::new(&"x".repeat(LONG)));
        let mut other = Vec::new();
        serde_json::to_writer(&mut other, &shared).unwrap();
        let mut writing = Writing::new(Bytes::from(vec![b' '; LONG]), 0);
        assert_eq!(writing.last(), Some(b' '));
        serde_json::to_writer(&mut writing, &text).unwrap();
        let payload = writing.finish();
        assert_eq!(parts_of(&payload).len(), 2);
        assert_eq!(serde_json::from_slice::<String>(&payload.joined()).unwrap(), text);
    }

    #[tokio::test]
    async fn parts_are_sent_one_after_another_and_their_length_is_known() {
        let parts: Arc<[Bytes]> = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")].into();
        let body = Parts { parts: Arc::clone(&parts), next: 0, left: 3 };
        assert_eq!(hyper::body::Body::size_hint(&body).exact(), Some(3));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        let body = reqwest::Body::from(&Payload::Many(parts));
        assert_eq!(hyper::body::Body::size_hint(&body).exact(), Some(3));
    }
}
