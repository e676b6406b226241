//! How replies are sent: at once or in parts, well or badly.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tokio::time::Instant;

use super::clouds::Answered;
use super::dialect::{Answer, Dialect, text};
use super::faults::{Fault, FaultKind};
use super::streams::event::{Form, Streaming, parts};

static REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const PAGE: &str = "<!doctype html><html><body>Please sign in.</body></html>";
/// Between two signs of life, where nothing else comes.
const PING_PAUSE: Duration = Duration::from_millis(50);
/// For each byte of the plain reply, where a reply comes byte by byte.
const DRIP_PAUSE: Duration = Duration::from_millis(20);
/// Longer than anybody waits; the connection's end ends it too.
pub const FOREVER: Duration = Duration::from_secs(3600);

/// Makes hyper close the connection without a reply, or in the middle of one.
#[derive(Debug, thiserror::Error)]
#[error("the connection is to be reset")]
pub struct Reset;

type Part = Result<Frame<Bytes>, Reset>;
type Parts = StreamBody<Pin<Box<dyn Stream<Item = Part> + Send>>>;
/// Of a reply: whole, or in parts.
pub type Body = Either<Full<Bytes>, Parts>;

/// What comes after the parts of a reply that are sent.
enum Ending {
    /// Its regular end.
    Regular,
    /// The connection's end.
    Reset,
    /// Nothing, but the connection stays.
    Silence,
    /// Signs of life.
    Pings(&'static str),
}

/// A reply in parts, each with the time when it is sent.
struct Sending {
    parts: Vec<(Duration, Bytes)>,
    ending: Ending,
    kind: &'static str,
    /// Sent again and again until the next part is due; empty: nothing is.
    meanwhile: &'static str,
}

/// A good answer in one piece, unless a fault says otherwise.
pub fn plain(dialect: &dyn Dialect, answer: &Answer<'_>, fault: Option<FaultKind>, number: u64) -> Response<Body> {
    let body = dialect.answer(answer);
    let Some(fault) = fault else { return whole(200, body, number) };
    let drip = drip(&body);
    // As if it were a stream of two events, the first of which is nothing.
    let parts = match fault {
        FaultKind::StreamError => vec![text(&overloaded(dialect))],
        _ => vec![Vec::new(), body],
    };
    Sending::new(parts, Duration::ZERO, JSON).with(fault, drip, "\n").response(number)
}

/// A good answer as a stream that takes as long as the plain reply, unless a fault says otherwise; and the time until its
/// first part.
pub fn streamed(
    dialect: &dyn Dialect,
    streaming: &Streaming,
    answer: &Answer<'_>,
    takes: Duration,
    fault: Option<FaultKind>,
    number: u64,
) -> (Response<Body>, Duration) {
    let form = answer.question.form;
    let body = dialect.answer(answer);
    let mut plain: Value = serde_json::from_slice(&body).unwrap_or_default();
    if form == (Form::Events { usage: false })
        && let Some(fields) = plain.as_object_mut()
    {
        fields.shift_remove("usage");
    }
    let mut events = (streaming.events)(&plain, answer.output_tokens() / answer.completions.len().max(1));
    if fault == Some(FaultKind::StreamError) {
        events.truncate(events.len() / 2);
        events.push((streaming.error)(&overloaded(dialect), events.len()));
    }
    let (kind, is_text) = match form {
        Form::Array => (JSON, false),
        Form::Frames { .. } => ("application/vnd.amazon.eventstream", false),
        _ => ("text/event-stream; charset=utf-8", true),
    };
    let mut parts = match fault {
        Some(FaultKind::Quirk(quirk)) if is_text => {
            quirk.frames(events, &plain).into_iter().map(String::into_bytes).collect()
        }
        _ => parts(&events, form),
    };
    if fault == Some(FaultKind::Checksum) && matches!(form, Form::Frames { .. }) {
        let middle = parts.len() / 2;
        // In the payload: what it says is another thing now.
        if let Some(byte) = parts.get_mut(middle).and_then(|part| part.iter_mut().nth_back(8)) {
            *byte ^= 1;
        }
    }
    let sending = Sending::new(parts, takes, kind);
    let sending = match fault {
        Some(fault) => sending.with(fault, takes + drip(&body), streaming.ping),
        None => sending,
    };
    let first = sending.parts.first().map_or(takes, |(at, _)| *at);
    let mut response = sending.response(number);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    (response, first)
}

fn overloaded(dialect: &dyn Dialect) -> Value {
    dialect.error(FaultKind::Status(503), None).1
}

/// What a fault answers in place of everything else, if it does.
pub async fn in_place(dialect: &dyn Dialect, fault: &Fault, number: u64) -> Result<Response<Body>, Reset> {
    let (status, body) = match fault.kind {
        FaultKind::Hang => {
            tokio::time::sleep(FOREVER).await;
            return Err(Reset);
        }
        FaultKind::ErrorInside(_) => (200, dialect.error(fault.kind, fault.retry_after).1),
        FaultKind::Status(_) | FaultKind::Billing | FaultKind::DailyQuota => {
            dialect.error(fault.kind, fault.retry_after)
        }
        _ => return Err(Reset),
    };
    let mut response = json(status, &body, number);
    if let Some(wait) = fault.retry_after {
        add(response.headers_mut(), vec![("retry-after".to_owned(), wait.to_string())]);
    }
    Ok(response)
}

/// How long it takes byte by byte.
fn drip(body: &[u8]) -> Duration {
    DRIP_PAUSE.saturating_mul(u32::try_from(body.len()).unwrap_or(u32::MAX))
}

/// Parts that are spread over a time, so that the last comes at its end.
fn spread(parts: impl ExactSizeIterator<Item = Bytes>, takes: Duration) -> Vec<(Duration, Bytes)> {
    #[allow(clippy::cast_precision_loss)]
    let share = |place: usize, all: usize| place as f64 / all as f64;
    let all = parts.len();
    parts.enumerate().map(|(place, part)| (takes.mul_f64(share(place + 1, all)), part)).collect()
}

impl Sending {
    fn new(parts: Vec<Vec<u8>>, takes: Duration, kind: &'static str) -> Self {
        Self { parts: spread(parts.into_iter().map(Bytes::from), takes), ending: Ending::Regular, kind, meanwhile: "" }
    }

    /// The same with a fault. `drip`: how long it takes byte by byte.
    fn with(mut self, fault: FaultKind, drip: Duration, ping: &'static str) -> Self {
        match fault {
            FaultKind::Malformed => self.halve_bytes(),
            FaultKind::Cut => {
                self.halve_bytes();
                self.ending = Ending::Reset;
            }
            FaultKind::Stall | FaultKind::PingOnly => {
                self.parts.truncate(self.parts.len() / 2);
                self.ending = if fault == FaultKind::Stall { Ending::Silence } else { Ending::Pings(ping) };
            }
            FaultKind::Drip => {
                let bytes =
                    Bytes::from(self.parts.iter().flat_map(|(_, part)| part.iter().copied()).collect::<Vec<_>>());
                self.parts = spread((0..bytes.len()).map(|at| bytes.slice(at..=at)), drip);
            }
            FaultKind::KeepAlive => {
                self.parts.insert(0, (Duration::ZERO, Bytes::from_static(b"\n\n: keep-alive\n\n")));
            }
            FaultKind::Thinking => {
                let end = self.parts.last().map_or(Duration::ZERO, |(at, _)| *at);
                for (place, (at, _)) in self.parts.iter_mut().enumerate() {
                    *at = if place == 0 { Duration::ZERO } else { end };
                }
                self.meanwhile = ping;
            }
            FaultKind::Html => return Self::new(vec![PAGE.into()], Duration::ZERO, HTML),
            _ => {}
        }
        self
    }

    /// Drops the second half of the bytes.
    fn halve_bytes(&mut self) {
        let mut left = self.parts.iter().map(|(_, part)| part.len()).sum::<usize>() / 2;
        for (_, part) in &mut self.parts {
            part.truncate(left);
            left -= part.len();
        }
    }

    fn response(self, number: u64) -> Response<Body> {
        let Self { parts, ending, kind, meanwhile } = self;
        let began = Instant::now();
        let parts = parts.into_iter().filter(|(_, part)| !part.is_empty()).peekable();
        let stream = stream::unfold((parts, ending), move |(mut parts, ending)| async move {
            let (now, due) = (Instant::now(), parts.peek().map(|(at, _)| began + *at));
            if !meanwhile.is_empty() && due.is_some_and(|due| now + PING_PAUSE < due) {
                tokio::time::sleep(PING_PAUSE).await;
                return Some((Ok(Frame::data(Bytes::from_static(meanwhile.as_bytes()))), (parts, ending)));
            }
            if let (Some(due), Some((_, part))) = (due, parts.next()) {
                if due > now {
                    tokio::time::sleep_until(due).await;
                }
                return Some((Ok(Frame::data(part)), (parts, ending)));
            }
            let (pause, last) = match ending {
                Ending::Regular => return None,
                // Time for what was sent before.
                Ending::Reset => (Duration::from_millis(1), Err(Reset)),
                Ending::Silence => (FOREVER, Err(Reset)),
                Ending::Pings(ping) => (PING_PAUSE, Ok(Frame::data(Bytes::from_static(ping.as_bytes())))),
            };
            tokio::time::sleep(pause).await;
            Some((last, (parts, ending)))
        });
        response(200, Either::Right(StreamBody::new(Box::pin(stream))), number, kind)
    }
}

/// The same body, which holds something as long as it is sent in parts.
pub fn until_its_end<T: Send + 'static>(body: Body, held: T) -> Body {
    match body {
        Either::Right(parts) => Either::Right(StreamBody::new(Box::pin(parts.map(move |part| {
            let _ = &held;
            part
        })))),
        whole => whole,
    }
}

/// JSON in one piece.
pub fn json(status: u16, body: &Value, number: u64) -> Response<Body> {
    // AWS names errors in a header.
    let Some(name) = body.get("__type").and_then(Value::as_str) else { return whole(status, text(body), number) };
    let mut said = body.clone();
    if let Some(fields) = said.as_object_mut() {
        fields.shift_remove("__type");
    }
    let mut response = whole(status, text(&said), number);
    let value = format!("{name}:http://internal.amazon.com/coral/com.amazon.bedrock/");
    add(response.headers_mut(), vec![("x-amzn-errortype".to_owned(), value)]);
    response
}

/// An answer about credentials.
pub fn credentials(answered: Answered, number: u64) -> Response<Body> {
    let Answered { status, body, is_google } = answered;
    let kind = match body.as_bytes().first() {
        Some(b'{') => JSON,
        Some(b'<') => "text/xml",
        _ => "text/plain",
    };
    let mut response = whole(status, body.into_bytes(), number);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if is_google {
        add(response.headers_mut(), vec![("metadata-flavor".to_owned(), "Google".to_owned())]);
    }
    response
}

/// A file. Without a media type if that is empty; `is_cut`: the connection is closed in the middle.
pub fn download(bytes: Bytes, kind: &'static str, is_cut: bool, number: u64) -> Response<Body> {
    let mut response = if is_cut {
        let parts = vec![(Duration::ZERO, bytes)];
        let mut sending = Sending { parts, ending: Ending::Reset, kind, meanwhile: "" };
        sending.halve_bytes();
        sending.response(number)
    } else {
        response(200, Either::Left(Full::new(bytes)), number, kind)
    };
    if kind.is_empty() {
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    response
}

fn whole(status: u16, body: Vec<u8>, number: u64) -> Response<Body> {
    response(status, Either::Left(Full::new(Bytes::from(body))), number, JSON)
}

fn response(status: u16, body: Body, number: u64, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(value) = HeaderValue::try_from(format!("req_{number}")) {
        headers.insert(&REQUEST_ID, value.clone());
        headers.insert(&X_REQUEST_ID, value);
    }
    response
}

/// Adds headers.
pub fn add(headers: &mut HeaderMap, more: Vec<(String, String)>) {
    for (name, value) in more {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test(start_paused = true)]
    async fn a_model_that_thinks_shows_that_it_is_there_until_its_answer_comes() {
        let parts = ["first", "second", "third"].map(|part| part.as_bytes().to_vec()).to_vec();
        let sending =
            Sending::new(parts, Duration::from_secs(1), JSON).with(FaultKind::Thinking, Duration::ZERO, "ping");
        let mut body = sending.response(1).into_body();
        let (began, mut seen) = (Instant::now(), Vec::new());
        while let Some(frame) = body.frame().await {
            seen.push((began.elapsed(), frame.unwrap().into_data().unwrap()));
        }
        let words: Vec<&[u8]> = seen.iter().map(|(_, part)| part.as_ref()).collect();
        let pings = words.iter().filter(|word| **word == b"ping").count();
        assert!((15..20).contains(&pings), "{pings} in a second, one in 50 ms");
        assert_eq!(words[0], b"first");
        assert_eq!(words[pings + 1..], [b"second".as_ref(), b"third".as_ref()]);
        assert_eq!(seen[0].0, Duration::ZERO);
        assert!(seen[pings + 1].0 >= Duration::from_secs(1));
        let longest = seen.windows(2).map(|two| two[1].0 - two[0].0).max().unwrap();
        assert!(longest < PING_PAUSE * 2 + Duration::from_millis(5), "a silence of {longest:?}");
    }
}
