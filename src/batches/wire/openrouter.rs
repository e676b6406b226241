//! OpenRouter's batches: requests come with the creation, results with the batch. There is nothing that a client could
//! mark, so a batch is found as Anthropic's are.
//!
//! Source: OpenRouter's "Batch API Quickstart" and API reference (2026).

use memchr::memmem;
use serde_json::{Value, json};

use super::fields::{self, count_at, instant_at, text_at};
use super::shape::{Finding, Frame, Limits, Line, Sealed, Seen, Wire};
use crate::providers::call::Call;

/// See the module.
pub struct OpenRouter {
    endpoint: String,
}

impl OpenRouter {
    /// For requests that would go to this path.
    pub fn new(path: &str) -> Self {
        Self { endpoint: format!("/v1/{path}") }
    }
}

impl Wire for OpenRouter {
    fn limits(&self) -> Limits {
        // 5,000 are allowed, but all results come in one reply.
        Limits { lines: 2_000, bytes: 200_000_000 }
    }

    fn finding(&self) -> Finding {
        Finding::Fingerprint
    }

    fn frame(&self, model: &str) -> Frame {
        // The body is read as a stream there: what holds for all requests comes before them.
        let (endpoint, model) = (json!(self.endpoint), json!(model));
        let before = format!("{{\"endpoint\":{endpoint},\"model\":{model},\"requests\":[");
        Frame { before, between: ",", after: "]}" }
    }

    fn unfit(&self, body: &[u8]) -> Option<&'static str> {
        // One of them would have the whole batch refused.
        let has_image = memmem::find(body, b"\"data:image/").is_some();
        has_image.then_some("OpenRouter accepts images in batches only by URL")
    }

    fn write(&self, custom_id: &str, body: &[u8], into: &mut Vec<u8>) {
        fields::write_line(custom_id, &fields::without_model(body), into);
    }

    fn create(&self, chunk: &Sealed, _file: Option<&str>) -> Call {
        Call::post("batches").json(chunk.body.clone())
    }

    fn look(&self, id: &str) -> Call {
        Call::get(format!("batches/{id}"))
    }

    fn read_batch(&self, body: &[u8]) -> Option<Seen> {
        seen(&fields::read(body)?)
    }

    fn list(&self, after: Option<&str>) -> Call {
        let call = Call::get("batches").query("limit", "100");
        match after {
            Some(after) => call.query("after", after),
            None => call,
        }
    }

    fn read_list(&self, body: &[u8], _after: Option<&str>) -> (Vec<Seen>, Option<String>) {
        let Some(page) = fields::read(body) else { return Default::default() };
        let batches = fields::each(&page, "data", seen);
        let has_more = page.get("has_more").and_then(Value::as_bool).unwrap_or(false);
        let last = text_at(&page, "/last_id").or_else(|| batches.last().map(|last| last.id.clone()));
        (batches, last.filter(|_| has_more))
    }

    fn cancel(&self, id: &str) -> Call {
        Call::post(format!("batches/{id}/cancel"))
    }

    fn results(&self, seen: &Seen) -> Vec<Call> {
        vec![self.look(&seen.id)]
    }

    fn has_pages(&self) -> bool {
        true
    }

    fn read_page(&self, seen: &Seen, body: &[u8], each: &mut dyn FnMut(&[u8])) -> Option<Option<Call>> {
        // The reference also has a list of results apart from the batch, in pages.
        let results = || Call::get(format!("batches/{}/results", seen.id));
        let page = fields::read_page(body, "results", each)?;
        if page.has_list {
            return Some(None);
        }
        let page = fields::read_page(body, "data", each)?;
        let next = page.next_cursor.filter(|cursor| !cursor.is_empty());
        Some(match (page.has_list, next) {
            (true, next) => next.map(|cursor| results().query("cursor", cursor)),
            (false, _) => Some(results()),
        })
    }

    fn read_line(&self, line: &[u8]) -> Option<Line> {
        fields::openai_line(line)
    }
}

fn seen(batch: &Value) -> Option<Seen> {
    let word = text_at(batch, "/status").unwrap_or_default();
    let count = |name: &str| count_at(batch, &format!("/request_counts/{name}"));
    Some(Seen {
        id: text_at(batch, "/id")?,
        state: fields::state(&word),
        word,
        created_at: instant_at(batch, "/created_at"),
        total: count("total"),
        done: count("completed").map(|done| (done, count("failed").unwrap_or_default())),
        problems: fields::problems(batch.get("error")),
        ..Seen::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::wire::{End, Outcome, State};
    use bytes::Bytes;

    fn wire() -> OpenRouter {
        OpenRouter::new("chat/completions")
    }

    #[test]
    fn what_holds_for_all_comes_before_the_requests() {
        let frame = wire().frame("openai/gpt-\"5");
        let mut body = frame.before.into_bytes();
        wire().write("a", b"{\"model\":\"m\",\"messages\":[]}", &mut body);
        body.extend_from_slice(frame.after.as_bytes());
        let text = String::from_utf8(body.clone()).unwrap();
        assert!(text.find("\"model\"").unwrap() < text.find("\"requests\"").unwrap(), "{text}");
        let read: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(read["model"], "openai/gpt-\"5");
        assert_eq!(read["requests"], json!([{"custom_id": "a", "body": {"messages": []}}]));
    }

    #[test]
    fn a_batch_is_read() {
        let batch = json!({"id": "b", "status": "completed", "created_at": 1_700_000_000, "error": null, "results": [1],
            "request_counts": {"total": 3, "completed": 2, "failed": 1}, "model": "m", "new": {}});
        let seen = wire().read_batch(batch.to_string().as_bytes()).unwrap();
        assert_eq!((seen.state, seen.total, seen.done), (State::Ended(End::Done), Some(3), Some((2, 1))));
        assert!(seen.problems.is_empty());
        for (word, state) in [("validating", State::Waiting), ("new", State::Running), ("", State::Running)] {
            let batch = json!({"id": "b", "status": word}).to_string();
            assert_eq!(wire().read_batch(batch.as_bytes()).unwrap().state, state, "{word}");
        }
        let failed = json!({"id": "b", "status": "failed", "error": "why"}).to_string();
        assert_eq!(wire().read_batch(failed.as_bytes()).unwrap().problems[0].message, "why");
        let page = json!({"data": [batch], "has_more": true}).to_string();
        assert_eq!(wire().read_list(page.as_bytes(), None).1.as_deref(), Some("b"));
    }

    #[test]
    fn results_are_in_the_batch_or_in_pages() {
        let seen = Seen { id: "b".to_owned(), ..Seen::default() };
        let pages = |body: &[u8]| {
            let mut lines = 0;
            let next = wire().read_page(&seen, body, &mut |_| lines += 1);
            (lines, next.map(|next| next.map(|call| (call.place, call.query))))
        };
        let place = crate::providers::call::Place::Base("batches/b/results".to_owned());
        assert_eq!(pages(b"{\"id\":\"b\",\"results\":[{},{}]}"), (2, Some(None)));
        assert_eq!(pages(b"{\"id\":\"b\"}"), (0, Some(Some((place.clone(), Vec::new())))));
        let cursor = vec![("cursor", "c".to_owned())];
        assert_eq!(pages(b"{\"data\":[{}],\"next_cursor\":\"c\"}"), (1, Some(Some((place, cursor)))));
        assert_eq!(pages(b"{\"data\":[{}],\"next_cursor\":null}"), (1, Some(None)));
        assert_eq!(pages(b"{\"results\":[{}"), (0, None));
    }

    #[test]
    fn results_are_as_lines_of_openai() {
        let line = b"{\"custom_id\":\"k\",\"response\":{\"status_code\":200,\"body\":{}},\"error\":null}";
        assert_eq!(wire().read_line(line).unwrap().outcome, Outcome::Reply(200, Bytes::from_static(b"{}")));
        let line = b"{\"custom_id\":\"k\",\"response\":null,\"error\":{\"code\":400,\"message\":\"why\"}}";
        assert!(matches!(wire().read_line(line).unwrap().outcome, Outcome::Reply(400, _)));
    }

    #[test]
    fn images_by_value_do_not_fit() {
        assert!(wire().unfit(b"{\"url\":\"data:image/png;base64,AA\"}").is_some());
        assert!(wire().unfit(b"{\"url\":\"https://h/a.png\"}").is_none());
    }
}
