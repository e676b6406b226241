//! A stream on its way to a body.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::fields::Fields;
use super::fold::{Fold, Step};
use super::frames::Frames;
use super::sse::{Event, Events};
use crate::providers::json;
use crate::providers::listener::Listener;

/// A stream on its way to a body.
pub struct Folded {
    events: Events,
    /// Where events come in AWS's binary frames.
    frames: Option<Frames>,
    fold: Box<dyn Fold>,
    state: State,
    last: String,
    listener: Option<Arc<Listener>>,
}

enum State {
    /// Nothing has come but blanks and comments.
    Begins,
    Streams,
    /// It is no stream: the server does not know how to, or answers with an error.
    Plain(Vec<u8>),
    /// It ends with an error.
    Failed(String),
    /// Something has changed its bytes on the way: why nothing after that can be read.
    Damaged(String),
}

/// What bytes meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether there was an event.
    pub events: bool,
    /// Whether the answer has changed.
    pub progress: bool,
    /// Bytes that are held.
    pub held: usize,
}

impl Folded {
    /// A stream that nothing has come of, and who follows it.
    pub fn new(fold: Box<dyn Fold>, listener: Option<Arc<Listener>>) -> Self {
        Self { events: Events::default(), frames: None, fold, state: State::Begins, last: String::new(), listener }
    }

    /// Takes bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Progress {
        if let State::Plain(body) = &mut self.state {
            body.extend_from_slice(bytes);
            return Progress { events: true, progress: true, held: body.len() };
        }
        if matches!(self.state, State::Begins) {
            let first = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start().first();
            match first {
                // Lines of events begin with a letter or a colon.
                Some(b'{' | b'[' | b'<') => {
                    self.state = State::Plain(bytes.to_vec());
                    return Progress { events: true, progress: true, held: bytes.len() };
                }
                // The length of a frame, which is less than 16 MB.
                Some(0 | 1) => {
                    self.state = State::Streams;
                    self.frames = Some(Frames::default());
                }
                Some(_) => self.state = State::Streams,
                None => {}
            }
        }
        let Self { events, frames, fold, state, last, listener } = self;
        let listener = listener.as_deref();
        let mut heard = Progress::default();
        let mut each = |event: &Event| {
            heard.events = true;
            heard.progress |= take(&mut **fold, state, last, listener, event);
        };
        let held = match frames {
            None => Ok(events.push(bytes, &mut each)),
            Some(frames) => frames.push(bytes, &mut each),
        };
        match held {
            Ok(held) => heard.held = held,
            Err(problem) => *state = State::Damaged(problem),
        }
        heard
    }

    /// Whether nothing more can be read of it.
    pub fn is_damaged(&self) -> bool {
        matches!(self.state, State::Damaged(_))
    }

    /// Takes the end of the stream, and gives the whole body: that of a reply, or of an error. `None`: it ended in the
    /// middle.
    pub fn end(&mut self) -> Option<Vec<u8>> {
        self.take_list();
        let Self { events, frames, fold, state, last, listener } = self;
        let listener = listener.as_deref();
        let was_damaged = matches!(state, State::Damaged(_));
        events.end(&mut |event| {
            take(&mut **fold, state, last, listener, event);
        });
        if !was_damaged && matches!(state, State::Damaged(_)) {
            // The connection has closed within the last event; whether the answer is whole, the others say.
            *state = State::Streams;
        }
        match state {
            State::Plain(body) => Some(std::mem::take(body)),
            State::Failed(error) => Some(std::mem::take(error).into_bytes()),
            State::Damaged(_) => None,
            State::Streams if frames.as_ref().is_some_and(|frames| !frames.is_at_an_end()) => None,
            State::Begins | State::Streams => fold.body().map(String::into_bytes),
        }
    }

    /// Takes the events of a body that is a list of them: Gemini streams so where a proxy leaves `alt=sse` out.
    fn take_list(&mut self) {
        let Self { fold, state, last, listener, .. } = self;
        let State::Plain(body) = state else { return };
        let Ok(events) = json::read::<Vec<Box<RawValue>>>(body) else { return };
        let body = std::mem::take(body);
        *state = State::Streams;
        let mut progress = false;
        for event in &events {
            progress |= take_value(&mut **fold, state, last, listener.as_deref(), "", event);
        }
        if !progress {
            *state = State::Plain(body);
        }
    }

    /// What came last, for an error.
    pub fn last(&self) -> String {
        match &self.state {
            State::Begins => "no event has arrived".to_owned(),
            State::Plain(_) => "the reply is not a stream".to_owned(),
            State::Damaged(problem) => problem.clone(),
            _ => format!("the last event was {:?}", self.last),
        }
    }

    /// Whether it ended with an error.
    pub fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed(_))
    }

    /// The body as far as it has come, if there was an event.
    pub fn so_far(&self) -> Option<String> {
        let has_events =
            matches!(self.state, State::Streams | State::Failed(_) | State::Damaged(_)) && !self.last.is_empty();
        has_events.then(|| self.fold.so_far())
    }
}

/// Takes an event; whether the answer has changed.
fn take(fold: &mut dyn Fold, state: &mut State, last: &mut String, listener: Option<&Listener>, event: &Event) -> bool {
    if !matches!(state, State::Begins | State::Streams) {
        return false;
    }
    *state = State::Streams;
    // Whoever follows a stream is told of each part of it.
    if listener.is_none()
        && let Some((shown, progress)) = fold.take_repeated(&event.name, &event.data)
    {
        show(last, shown);
        return progress;
    }
    if let Ok(data) = serde_json::from_str(&event.data) {
        return take_value(fold, state, last, listener, &event.name, data);
    }
    match values(&json::proper(event.data.trim_start_matches('\u{feff}').trim_start())) {
        Ok(values) => {
            let mut progress = false;
            for data in values {
                progress |= take_value(fold, state, last, listener, &event.name, data);
            }
            if event.data.trim_end().ends_with("[DONE]") {
                fold.done();
            }
            progress
        }
        Err(problem) => {
            // What was in it is lost: nothing after it makes the answer whole.
            *state = State::Damaged(format!("an event of the stream is not valid JSON: {problem}"));
            false
        }
    }
}

/// The JSON values in the data of an event that are not one value: `[DONE]` and other words are none; a server that
/// forgets the empty line between events sends several.
fn values(text: &str) -> Result<Vec<&RawValue>, serde_json::Error> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    let mut found = Vec::new();
    loop {
        let at = values.byte_offset();
        match values.next() {
            Some(Ok(value)) => found.push(value),
            Some(Err(error)) if text[at..].trim_start().starts_with('{') => return Err(error),
            Some(Err(_)) | None => return Ok(found),
        }
    }
}

/// Takes a value of an event; whether the answer has changed.
fn take_value(
    fold: &mut dyn Fold,
    state: &mut State,
    last: &mut String,
    listener: Option<&Listener>,
    given: &str,
    data: &RawValue,
) -> bool {
    if !matches!(state, State::Streams) {
        return false;
    }
    let fields = Fields::of(data);
    let name = if given.is_empty() { fields.text("type").unwrap_or_default() } else { given.into() };
    // Those of Chat Completions have no name.
    let shown = if name.is_empty() { "data" } else { &*name };
    show(last, shown);
    let step = match fields.get("error") {
        Some(_) => Step::Failed(data.get().to_owned()),
        None if name == "error" => Step::Failed(format!("{{\"error\":{}}}", data.get())),
        None => fold.take(&name, &fields),
    };
    if let Some(listener) = listener.filter(|_| step == Step::Progress) {
        fold.parts(&name, &fields, &mut |part, text| listener.hear(part, text));
    }
    if listener.is_none() && step == Step::Progress {
        fold.expect_like(given, data.get(), &fields);
    }
    if let Step::Failed(body) = step {
        *state = State::Failed(body);
        return true;
    }
    step == Step::Progress
}

/// Takes note of an event's name.
fn show(last: &mut String, name: &str) {
    if **last != *name {
        last.clear();
        last.push_str(name);
    }
}
