//! Reads what batch APIs reply: JSON of which only some fields matter, and where the rest may be anything.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::shape::{End, Line, Outcome, Problem, State};
use crate::providers::json;

/// A document, whatever it is.
pub fn read(body: &[u8]) -> Option<Value> {
    json::read(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)).ok()
}

/// A text at a place (RFC 6901), if it is not empty.
pub fn text_at(value: &Value, place: &str) -> Option<String> {
    value.pointer(place).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A whole number at a place, also one in a text.
pub fn count_at(value: &Value, place: &str) -> Option<u64> {
    let found = value.pointer(place)?;
    found.as_u64().or_else(|| found.as_str()?.parse().ok())
}

/// An instant at a place, seconds since 1970: a number, or RFC 3339.
pub fn instant_at(value: &Value, place: &str) -> Option<f64> {
    let found = value.pointer(place)?;
    found.as_f64().or_else(|| {
        let text = found.as_str()?;
        #[allow(clippy::cast_precision_loss)]
        text.parse::<jiff::Timestamp>().ok().map(|instant| instant.as_millisecond() as f64 / 1e3)
    })
}

/// The server's clock, seconds since 1970.
pub fn date(headers: &HeaderMap) -> Option<f64> {
    let date = httpdate::parse_http_date(headers.get(header::DATE)?.to_str().ok()?).ok()?;
    Some(date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64())
}

/// The state that a word of OpenAI, or of those that imitate it, means. What is not known is running.
pub fn state(word: &str) -> State {
    match word.to_ascii_lowercase().trim_start_matches("batch_state_").trim_start_matches("job_state_") {
        "validating" | "queued" | "pending" | "scheduled" | "submitted" | "creating" => State::Waiting,
        "finalizing" | "writing_results" => State::Writing,
        "cancelling" | "canceling" | "cancellation_requested" => State::Cancelling,
        "completed" | "ended" | "succeeded" | "success" | "partially_succeeded" => State::Ended(End::Done),
        "failed" => State::Ended(End::Failed),
        "expired" | "timeout_exceeded" => State::Ended(End::Expired),
        "cancelled" | "canceled" => State::Ended(End::Cancelled),
        _ => State::Running,
    }
}

/// What can be read of a list in a document.
pub fn each<T>(page: &Value, name: &str, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    page.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(read).collect()
}

/// A line of results. `None`: it is none.
pub fn line<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Option<T> {
    serde_json::from_slice(line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line)).ok()
}

/// The same line as strict JSON, where a server has written something else: NaN, control characters, bytes that are not
/// UTF-8. `None`: it is no JSON at all.
pub fn mended(line: &[u8]) -> Option<Box<RawValue>> {
    json::read(line).ok()
}

/// A part of a line, as it was written; null, or missing: nothing.
#[derive(Deserialize, Default)]
#[serde(transparent)]
pub struct Raw<'a>(#[serde(borrow)] Option<&'a RawValue>);

impl Raw<'_> {
    /// Its bytes.
    pub fn body(&self) -> Option<Bytes> {
        self.0.map(|raw| Bytes::copy_from_slice(raw.get().as_bytes()))
    }
}

/// Adds the body of a request to a line. Line breaks between its values become spaces, and what some readers take for
/// line breaks is escaped (U+2028, U+2029, U+0085).
pub fn add_body(body: &[u8], into: &mut Vec<u8>) {
    let mut rest = body;
    while let Some(at) = memchr::memchr3(b'\n', 0xE2, 0xC2, rest) {
        into.extend_from_slice(&rest[..at]);
        let (escaped, length): (&[u8], usize) = match &rest[at..] {
            [b'\n', ..] => (b" ", 1),
            [0xE2, 0x80, 0xA8, ..] => (b"\\u2028", 3),
            [0xE2, 0x80, 0xA9, ..] => (b"\\u2029", 3),
            [0xC2, 0x85, ..] => (b"\\u0085", 2),
            other => (&other[..1], 1),
        };
        into.extend_from_slice(escaped);
        rest = &rest[at + length..];
    }
    into.extend_from_slice(rest);
}

/// A line of `{custom_id, body}`.
pub fn write_line(custom_id: &str, body: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(b"{\"custom_id\":\"");
    into.extend_from_slice(custom_id.as_bytes());
    into.extend_from_slice(b"\",\"body\":");
    add_body(body, into);
    into.push(b'}');
}

/// The body of a request without its model, where that is named once for all.
pub fn without_model(body: &[u8]) -> Cow<'_, [u8]> {
    let Ok(mut fields) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(body) else { return body.into() };
    match fields.remove("model") {
        Some(_) => serde_json::to_vec(&fields).map_or(body.into(), Cow::Owned),
        None => body.into(),
    }
}

/// A page of results: what else than the list matters.
#[derive(Debug, Default)]
pub struct Page {
    /// Whether the list was there.
    pub has_list: bool,
    /// What stands for the next page (xAI).
    pub pagination_token: Option<String>,
    /// The same (OpenRouter).
    pub next_cursor: Option<String>,
}

/// Reads a page of results, and passes on each of those in the list, as a line would be. `None`: it cannot be read.
pub fn read_page(body: &[u8], list: &str, each: &mut dyn FnMut(&[u8])) -> Option<Page> {
    let proper;
    let fields = match self::line::<BTreeMap<String, &RawValue>>(body) {
        Some(fields) => fields,
        None => {
            proper = mended(body)?;
            self::line(proper.get().as_bytes())?
        }
    };
    let text = |name: &str| serde_json::from_str(fields.get(name)?.get()).ok();
    let results: Option<Vec<&RawValue>> = fields.get(list).and_then(|list| serde_json::from_str(list.get()).ok());
    results.iter().flatten().for_each(|result| each(result.get().as_bytes()));
    Some(Page {
        has_list: results.is_some(),
        pagination_token: text("pagination_token"),
        next_cursor: text("next_cursor"),
    })
}

/// What became of a line that has neither a reply nor an error.
pub fn no_reply() -> Outcome {
    Outcome::Reply(500, Bytes::from_static(b"{\"error\":{\"message\":\"the batch has no answer to this request\"}}"))
}

/// The problems in a list.
pub fn problems(list: Option<&Value>) -> Vec<Problem> {
    let one = |value: &Value| Problem {
        code: text_at(value, "/code").unwrap_or_default(),
        message: text_at(value, "/message").or_else(|| value.as_str().map(str::to_owned)).unwrap_or_default(),
        line: value.pointer("/line").and_then(Value::as_u64).and_then(|line| usize::try_from(line).ok()),
    };
    match list {
        Some(Value::Array(list)) => list.iter().map(one).collect(),
        Some(value @ (Value::Object(_) | Value::String(_))) => vec![one(value)],
        _ => Vec::new(),
    }
}

/// A line of results in the form of OpenAI.
#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(borrow)]
    custom_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    response: Option<Response<'a>>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Response<'a> {
    status_code: Option<Value>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// Reads a line of results in the form of OpenAI: `{custom_id, response: {status_code, body}, error}`.
pub fn openai_line(line: &[u8]) -> Option<Line> {
    let Answered { custom_id, response, error } = self::line(line)?;
    let custom_id = custom_id?.into_owned();
    let outcome = match (response, error.filter(|error| !error.is_null())) {
        (Some(Response { status_code, body: Some(body) }), error) => {
            let status = status_code.as_ref().and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
            // The status comes first: `error` is null beside a status of 400 too. None, or 0, is the provider's fault.
            let status = match (status.and_then(|status| u16::try_from(status).ok()), error.is_some()) {
                (Some(status @ 100..=599), _) => status,
                (None, false) => 200,
                _ => 500,
            };
            Outcome::Reply(status, Bytes::copy_from_slice(body.get().as_bytes()))
        }
        (_, Some(error)) => error_outcome(&error),
        (_, None) => no_reply(),
    };
    Some(Line { custom_id, outcome })
}

/// What an error in place of a reply means: that the line was not done, or a failure of the provider.
fn error_outcome(error: &Value) -> Outcome {
    let code = text_at(error, "/code").unwrap_or_default();
    if ["batch_expired", "batch_cancelled", "batch_canceled"].contains(&code.as_str()) {
        return Outcome::NotDone;
    }
    let status = error.pointer("/code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let status = status.filter(|status| (400..600).contains(status)).unwrap_or(500);
    Outcome::Reply(status, serde_json::json!({ "error": error }).to_string().into())
}
