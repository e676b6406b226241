//! Anthropic's Message Batches. A batch has no label: it is found by its time and size, and proved by its results.
//!
//! Source: Anthropic's API reference, "Message Batches" (2026).

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::fields::{self, add_body, count_at, instant_at, text_at};
use super::shape::{End, Finding, Frame, Limits, Line, Outcome, Sealed, Seen, State, Wire};
use crate::providers::call::Call;

/// See the module.
pub struct Anthropic;

const PATH: &str = "v1/messages/batches";

impl Wire for Anthropic {
    fn limits(&self) -> Limits {
        Limits { lines: 100_000, bytes: 256_000_000 }
    }

    fn finding(&self) -> Finding {
        Finding::Fingerprint
    }

    fn frame(&self, _model: &str) -> Frame {
        Frame { before: "{\"requests\":[".to_owned(), between: ",", after: "]}" }
    }

    fn write(&self, custom_id: &str, body: &[u8], into: &mut Vec<u8>) {
        into.extend_from_slice(b"{\"custom_id\":\"");
        into.extend_from_slice(custom_id.as_bytes());
        into.extend_from_slice(b"\",\"params\":");
        add_body(body, into);
        into.push(b'}');
    }

    fn create(&self, chunk: &Sealed, _file: Option<&str>) -> Call {
        Call::post(PATH).json(chunk.body.clone())
    }

    fn look(&self, id: &str) -> Call {
        Call::get(format!("{PATH}/{id}"))
    }

    fn read_batch(&self, body: &[u8]) -> Option<Seen> {
        seen(&fields::read(body)?)
    }

    fn list(&self, after: Option<&str>) -> Call {
        let call = Call::get(PATH).query("limit", "1000");
        match after {
            Some(after) => call.query("after_id", after),
            None => call,
        }
    }

    fn read_list(&self, body: &[u8], _after: Option<&str>) -> (Vec<Seen>, Option<String>) {
        let Some(page) = fields::read(body) else { return Default::default() };
        let has_more = page.get("has_more").and_then(Value::as_bool).unwrap_or(false);
        (fields::each(&page, "data", seen), text_at(&page, "/last_id").filter(|_| has_more))
    }

    fn cancel(&self, id: &str) -> Call {
        Call::post(format!("{PATH}/{id}/cancel"))
    }

    fn results(&self, seen: &Seen) -> Vec<Call> {
        // Not the address in the batch: the key is for this one.
        vec![Call::get(format!("{PATH}/{}/results", seen.id))]
    }

    fn read_line(&self, line: &[u8]) -> Option<Line> {
        let Answered { custom_id, result } = serde_json::from_slice(line).ok()?;
        let bytes = |raw: &RawValue| Bytes::copy_from_slice(raw.get().as_bytes());
        let outcome = match (&*result.kind, result.message, result.error) {
            ("succeeded", Some(message), _) => Outcome::Reply(200, bytes(message)),
            ("canceled" | "cancelled" | "expired", ..) => Outcome::NotDone,
            (_, _, Some(error)) => Outcome::Reply(status_of(error), bytes(error)),
            _ => Outcome::Reply(500, Bytes::from_static(b"{}")),
        };
        Some(Line { custom_id: custom_id.into_owned(), outcome })
    }
}

#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(borrow)]
    custom_id: Cow<'a, str>,
    #[serde(borrow)]
    result: Of<'a>,
}

#[derive(Deserialize)]
struct Of<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// The status that a single request with this error would have had (API reference, "Errors").
fn status_of(error: &RawValue) -> u16 {
    let kind = fields::read(error.get().as_bytes()).and_then(|error| text_at(&error, "/error/type"));
    match kind.as_deref() {
        Some("invalid_request_error") => 400,
        Some("authentication_error") => 401,
        Some("billing_error") => 402,
        Some("permission_error") => 403,
        Some("not_found_error") => 404,
        Some("request_too_large") => 413,
        Some("rate_limit_error") => 429,
        Some("timeout_error") => 504,
        Some("overloaded_error") => 529,
        _ => 500,
    }
}

fn seen(batch: &Value) -> Option<Seen> {
    let word = text_at(batch, "/processing_status").unwrap_or_default();
    let count = |name: &str| count_at(batch, &format!("/request_counts/{name}")).unwrap_or_default();
    let (errored, canceled, expired) = (count("errored"), count("canceled"), count("expired"));
    let done = count("succeeded");
    let state = match word.as_str() {
        "ended" if expired > 0 => State::Ended(End::Expired),
        "ended" if canceled > 0 => State::Ended(End::Cancelled),
        word => fields::state(word),
    };
    Some(Seen {
        id: text_at(batch, "/id")?,
        state,
        word,
        created_at: instant_at(batch, "/created_at"),
        total: Some(count("processing") + done + errored + canceled + expired),
        done: Some((done, errored)),
        ..Seen::default()
    })
}
