//! xAI's batches, made of a file. They have no status: counts tell when they have ended. Results are pages of a list.
//!
//! Source: xAI's API reference ("Batches"), its protocol buffers, and its guide to the batch API (2026).

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::fields::{self, Raw, add_body, count_at, instant_at, text_at};
use super::openai::multipart;
use super::shape::{End, Finding, Limits, Line, Outcome, Sealed, Seen, State, Upload, Wire};
use crate::providers::call::Call;

/// See the module.
pub struct Xai;

/// Before the nonce in the names of batches.
const MARK: &str = "bllm-";
/// After this time, a batch in which nothing is pending has ended, even if it never had all of its requests.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

impl Wire for Xai {
    fn limits(&self) -> Limits {
        // The guide says 200 MB, the page about files 50.
        Limits { lines: 50_000, bytes: 50_000_000 }
    }

    fn finding(&self) -> Finding {
        Finding::Label
    }

    fn write(&self, custom_id: &str, body: &[u8], into: &mut Vec<u8>) {
        // Writing to memory does not fail.
        let _ = write!(
            into,
            "{{\"custom_id\":\"{custom_id}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":"
        );
        add_body(body, into);
        into.push(b'}');
    }

    fn upload(&self, chunk: &Sealed) -> Upload {
        let (kind, body) = multipart(&chunk.nonce, &[], &chunk.file_name(), &chunk.body);
        Upload::One(Call::post("files").body(kind, body))
    }

    fn delete_file(&self, file: &str) -> Option<Call> {
        Some(Call::delete(format!("files/{file}")))
    }

    fn create(&self, chunk: &Sealed, file: Option<&str>) -> Call {
        let batch = json!({"name": format!("{MARK}{}", chunk.nonce), "input_file_id": file.unwrap_or_default()});
        Call::post("batches").json(batch.to_string())
    }

    fn look(&self, id: &str) -> Call {
        Call::get(format!("batches/{id}"))
    }

    fn read_batch(&self, body: &[u8]) -> Option<Seen> {
        seen(&fields::read(body)?)
    }

    fn has_ended(&self, seen: &Seen, lines: u64, age: Duration) -> bool {
        // Requests may still be on their way from the file into the batch.
        let is_whole = seen.total.is_some_and(|total| total >= lines) || age > LONGEST;
        matches!(seen.state, State::Ended(_)) && is_whole
    }

    fn list(&self, after: Option<&str>) -> Call {
        page(Call::get("batches").query("limit", "100"), after)
    }

    fn read_list(&self, body: &[u8], _after: Option<&str>) -> (Vec<Seen>, Option<String>) {
        let Some(page) = fields::read(body) else { return Default::default() };
        (fields::each(&page, "batches", seen), text_at(&page, "/pagination_token"))
    }

    fn cancel(&self, id: &str) -> Call {
        Call::post(format!("batches/{id}:cancel"))
    }

    fn results(&self, seen: &Seen) -> Vec<Call> {
        vec![results(seen, None)]
    }

    fn has_pages(&self) -> bool {
        true
    }

    fn read_page(&self, seen: &Seen, body: &[u8], each: &mut dyn FnMut(&[u8])) -> Option<Option<Call>> {
        let next = fields::read_page(body, "results", each)?.pagination_token.filter(|token| !token.is_empty());
        Some(next.map(|token| results(seen, Some(&token))))
    }

    fn read_line(&self, line: &[u8]) -> Option<Line> {
        let Answered { batch_request_id, batch_result, error, error_message } = fields::line(line)?;
        let Of { response, error: inner } = batch_result.unwrap_or_default();
        let error = [error, inner, error_message].into_iter().flatten().find(|error| !error.is_null());
        let outcome = match (response.and_then(|Response { chat_get_completion: chat }| chat.body()), error) {
            (Some(body), _) => Outcome::Reply(200, body),
            (None, Some(error)) => error_outcome(&error),
            (None, None) => fields::no_reply(),
        };
        Some(Line { custom_id: batch_request_id?, outcome })
    }
}

#[derive(Deserialize)]
struct Answered<'a> {
    batch_request_id: Option<String>,
    #[serde(borrow)]
    batch_result: Option<Of<'a>>,
    error: Option<Value>,
    error_message: Option<Value>,
}

#[derive(Deserialize, Default)]
struct Of<'a> {
    #[serde(borrow)]
    response: Option<Response<'a>>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    chat_get_completion: Raw<'a>,
}

/// A call for the page that a token stands for.
fn page(call: Call, token: Option<&str>) -> Call {
    match token {
        Some(token) => call.query("pagination_token", token),
        None => call,
    }
}

fn results(seen: &Seen, token: Option<&str>) -> Call {
    page(Call::get(format!("batches/{}/results", seen.id)).query("limit", "1000"), token)
}

/// The reply that a single request with this error would have had. The error may be a text or an object, and its code a
/// status or a word.
fn error_outcome(error: &Value) -> Outcome {
    let code = text_at(error, "/code").unwrap_or_default().to_ascii_lowercase();
    if code.contains("cancel") || code.contains("expired") {
        return Outcome::NotDone;
    }
    let status = count_at(error, "/code").and_then(|code| u16::try_from(code).ok());
    let status = status.filter(|status| (400..600).contains(status)).unwrap_or(500);
    let error = if error.is_object() { error.clone() } else { json!({ "message": error }) };
    Outcome::Reply(status, Bytes::from(json!({ "error": error }).to_string()))
}

fn seen(batch: &Value) -> Option<Seen> {
    let count = |name: &str| count_at(batch, &format!("/state/{name}"));
    let (total, pending) = (count("num_requests"), count("num_pending"));
    let is_cancelled = text_at(batch, "/cancel_time").is_some();
    let (state, word) = match (total, pending) {
        // Nothing is pending before anything was added, too.
        (None | Some(0), _) => (State::Waiting, "empty"),
        (_, Some(0)) if count("num_cancelled").is_some_and(|cancelled| cancelled > 0) => {
            (State::Ended(End::Cancelled), "cancelled")
        }
        (_, Some(0)) => (State::Ended(End::Done), "done"),
        _ if is_cancelled => (State::Cancelling, "cancelling"),
        _ => (State::Running, "pending"),
    };
    Some(Seen {
        id: text_at(batch, "/batch_id")?,
        state,
        word: word.to_owned(),
        created_at: instant_at(batch, "/create_time"),
        total,
        done: count("num_success").map(|done| (done, count("num_error").unwrap_or_default())),
        label: text_at(batch, "/name").map(|name| name.strip_prefix(MARK).unwrap_or(&name).to_owned()),
        file: text_at(batch, "/input_file_id"),
        ..Seen::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(total: u64, pending: u64, cancelled: u64) -> Value {
        json!({
            "batch_id": "b", "name": "bllm-nonce", "create_time": "2026-01-01T00:00:00Z", "input_file_id": "in",
            "expire_time": "2026-01-02T00:00:00Z", "cost_breakdown": {"total_cost_usd_ticks": 7}, "new": [],
            "state": {"num_requests": total, "num_pending": pending, "num_success": total - pending - cancelled,
                "num_error": 0, "num_cancelled": cancelled},
        })
    }

    fn read(batch: &Value) -> Seen {
        Xai.read_batch(batch.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn counts_tell_the_end() {
        let ended = |batch: &Value, age: u64| Xai.has_ended(&read(batch), 3, Duration::from_secs(age));
        assert!(!ended(&batch(0, 0, 0), 100_000));
        assert!(!ended(&batch(3, 1, 0), 100_000));
        assert!(ended(&batch(3, 0, 0), 1));
        // The file is not read to its end yet, or never will be.
        assert!(!ended(&batch(2, 0, 0), 1));
        assert!(ended(&batch(2, 0, 0), 100_000));
        assert_eq!(read(&batch(3, 0, 2)).state, State::Ended(End::Cancelled));
        let mut cancelling = batch(3, 1, 0);
        cancelling["cancel_time"] = "2026-01-01T00:00:01Z".into();
        assert_eq!(read(&cancelling).state, State::Cancelling);
        assert!(!ended(&json!({"batch_id": "b", "state": {}}), 100_000));
        assert!(!ended(&json!({"batch_id": "b", "state": {"num_requests": 3}}), 100_000));
    }

    #[test]
    fn a_batch_is_read() {
        let seen = read(&batch(3, 1, 0));
        assert_eq!((seen.id.as_str(), seen.total, seen.done), ("b", Some(3), Some((2, 0))));
        assert_eq!((seen.label.as_deref(), seen.file.as_deref()), (Some("nonce"), Some("in")));
        let mut nameless = batch(3, 1, 0);
        nameless["name"] = "".into();
        assert_eq!(read(&nameless).label, None);
        let page = json!({"batches": [batch(1, 1, 0), 7], "pagination_token": "more"}).to_string();
        let (list, next) = Xai.read_list(page.as_bytes(), None);
        assert_eq!((list.len(), next.as_deref()), (1, Some("more")));
        assert_eq!(Xai.read_list(b"{\"batches\":[],\"pagination_token\":null}", None), (Vec::new(), None));
    }

    #[test]
    fn results_are_pages() {
        let seen = read(&batch(3, 0, 0));
        let pages = |body: &[u8]| {
            let mut lines = Vec::new();
            let next = Xai.read_page(&seen, body, &mut |line| lines.push(String::from_utf8_lossy(line).into_owned()));
            (lines, next)
        };
        let (lines, next) = pages(b"{\"results\":[\n{\"a\":1},\n {\"b\": 2}],\"pagination_token\":\"1000\"}");
        assert_eq!(lines, ["{\"a\":1}", "{\"b\": 2}"]);
        assert_eq!(next.unwrap().unwrap().query[1], ("pagination_token", "1000".to_owned()));
        assert!(pages(b"{\"results\":[],\"pagination_token\":null}").1.is_some_and(|next| next.is_none()));
        assert!(pages(b"{\"results\":[{\"a\":1}").1.is_none());
    }

    #[test]
    fn results_have_a_reply_or_an_error() {
        let outcome = |line: &str| Xai.read_line(line.as_bytes()).map(|line| line.outcome);
        let line = "{\"batch_request_id\":\"k\",\"batch_result\":{\"response\":{\"chat_get_completion\":{\"id\":1}}}}";
        assert_eq!(outcome(line), Some(Outcome::Reply(200, Bytes::from_static(b"{\"id\":1}"))));
        for (error, status) in [
            ("\"error\":{\"code\":400,\"message\":\"why\"}", 400),
            ("\"error\":\"why\"", 500),
            ("\"error_message\":\"why\"", 500),
            ("\"batch_result\":{\"error\":{\"code\":\"429\",\"message\":\"why\"}}", 429),
            ("\"batch_result\":{\"response\":null,\"error\":\"why\"}", 500),
        ] {
            let Some(Outcome::Reply(found, body)) = outcome(&format!("{{\"batch_request_id\":\"k\",{error}}}")) else {
                panic!("{error}")
            };
            assert_eq!(found, status, "{error}");
            assert!(String::from_utf8_lossy(&body).contains("why"), "{error}");
        }
        assert_eq!(outcome("{\"batch_request_id\":\"k\",\"error\":{\"code\":\"cancelled\"}}"), Some(Outcome::NotDone));
        assert!(matches!(outcome("{\"batch_request_id\":\"k\",\"batch_result\":{}}"), Some(Outcome::Reply(500, _))));
        assert_eq!(outcome("{\"batch_result\":{}}"), None);
    }

    #[test]
    fn files_have_no_purpose() {
        let chunk =
            Sealed { nonce: "n".to_owned(), model: "m".to_owned(), body: Bytes::from_static(b"{}").into(), count: 1 };
        let Upload::One(call) = Xai.upload(&chunk) else { panic!() };
        assert!(!String::from_utf8_lossy(&call.content.unwrap().1.whole().unwrap()).contains("purpose"));
    }
}
