//! Mistral's batch jobs: like OpenAI's batches, but a job names the model once for all of its lines.
//!
//! Source: Mistral's API reference ("Batch", "Files") and batch guide (2026).

use serde_json::{Value, json};

use super::fields::{self, count_at, instant_at, text_at};
use super::openai::{LABEL, multipart};
use super::shape::{Finding, Limits, Line, Sealed, Seen, Upload, Wire};
use crate::providers::call::Call;

/// See the module.
pub struct Mistral {
    endpoint: String,
}

impl Mistral {
    /// For requests that would go to this path.
    pub fn new(path: &str) -> Self {
        Self { endpoint: format!("/v1/{path}") }
    }
}

const JOBS: &str = "batch/jobs";
/// Jobs on a page of the list.
const PAGE: u64 = 100;

impl Wire for Mistral {
    fn limits(&self) -> Limits {
        Limits { lines: 100_000, bytes: 500_000_000 }
    }

    fn finding(&self) -> Finding {
        Finding::Label
    }

    fn write(&self, custom_id: &str, body: &[u8], into: &mut Vec<u8>) {
        fields::write_line(custom_id, &fields::without_model(body), into);
    }

    fn upload(&self, chunk: &Sealed) -> Upload {
        let (kind, body) = multipart(&chunk.nonce, &[("purpose", "batch")], &chunk.file_name(), &chunk.body);
        Upload::One(Call::post("files").body(kind, body))
    }

    fn delete_file(&self, file: &str) -> Option<Call> {
        Some(Call::delete(format!("files/{file}")))
    }

    fn create(&self, chunk: &Sealed, file: Option<&str>) -> Call {
        let job = json!({
            "endpoint": self.endpoint,
            "model": chunk.model,
            "input_files": [file.unwrap_or_default()],
            "metadata": {LABEL: chunk.nonce},
        });
        Call::post(JOBS).json(job.to_string())
    }

    fn look(&self, id: &str) -> Call {
        Call::get(format!("{JOBS}/{id}"))
    }

    fn read_batch(&self, body: &[u8]) -> Option<Seen> {
        seen(&fields::read(body)?)
    }

    fn list(&self, after: Option<&str>) -> Call {
        // Pages have numbers, from 0 on.
        let call = Call::get(JOBS).query("page_size", PAGE.to_string()).query("order_by", "-created");
        call.query("page", after.unwrap_or("0"))
    }

    fn read_list(&self, body: &[u8], after: Option<&str>) -> (Vec<Seen>, Option<String>) {
        let Some(page) = fields::read(body) else { return Default::default() };
        let jobs = fields::each(&page, "data", seen);
        let next = after.and_then(|page| page.parse::<u64>().ok()).unwrap_or(0).saturating_add(1);
        let is_more = count_at(&page, "/total").is_some_and(|total| next.saturating_mul(PAGE) < total);
        let next = (is_more && !jobs.is_empty()).then(|| next.to_string());
        (jobs, next)
    }

    fn cancel(&self, id: &str) -> Call {
        Call::post(format!("{JOBS}/{id}/cancel"))
    }

    fn results(&self, seen: &Seen) -> Vec<Call> {
        seen.outputs.iter().map(|file| Call::get(format!("files/{file}/content"))).collect()
    }

    fn read_line(&self, line: &[u8]) -> Option<Line> {
        fields::openai_line(line)
    }
}

fn seen(job: &Value) -> Option<Seen> {
    let word = text_at(job, "/status").unwrap_or_default();
    Some(Seen {
        id: text_at(job, "/id")?,
        state: fields::state(&word),
        word,
        created_at: instant_at(job, "/created_at"),
        total: count_at(job, "/total_requests").filter(|total| *total > 0),
        done: count_at(job, "/succeeded_requests")
            .map(|done| (done, count_at(job, "/failed_requests").unwrap_or_default())),
        label: text_at(job, &format!("/metadata/{LABEL}")),
        file: text_at(job, "/input_files/0"),
        outputs: ["/output_file", "/error_file"].iter().filter_map(|place| text_at(job, place)).collect(),
        problems: fields::problems(job.get("errors")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::wire::{End, Outcome, State};
    use bytes::Bytes;

    fn wire() -> Mistral {
        Mistral::new("chat/completions")
    }

    fn job() -> Value {
        json!({
            "id": "job-1", "object": "batch", "input_files": ["in"], "endpoint": "/v1/chat/completions",
            "model": "mistral-small", "metadata": {LABEL: "nonce"}, "status": "RUNNING", "output_file": null,
            "error_file": "", "errors": [], "outputs": null, "created_at": 1_700_000_000, "started_at": null,
            "total_requests": 3, "completed_requests": 2, "succeeded_requests": 1, "failed_requests": 1,
        })
    }

    fn read(job: &Value) -> Seen {
        wire().read_batch(job.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_job_is_read() {
        let seen = read(&job());
        assert_eq!(
            (seen.id.as_str(), seen.state, seen.total, seen.done),
            ("job-1", State::Running, Some(3), Some((1, 1)))
        );
        assert_eq!((seen.label.as_deref(), seen.file.as_deref()), (Some("nonce"), Some("in")));
        assert!(seen.outputs.is_empty() && seen.problems.is_empty());
        for (word, state) in [
            ("QUEUED", State::Waiting),
            ("SUCCESS", State::Ended(End::Done)),
            ("FAILED", State::Ended(End::Failed)),
            ("TIMEOUT_EXCEEDED", State::Ended(End::Expired)),
            ("CANCELLATION_REQUESTED", State::Cancelling),
            ("CANCELLED", State::Ended(End::Cancelled)),
            ("SOMETHING_NEW", State::Running),
        ] {
            let mut job = job();
            (job["status"], job["output_file"], job["error_file"]) = (word.into(), "out".into(), "err".into());
            let seen = read(&job);
            assert_eq!((seen.state, wire().results(&seen).len()), (state, 2), "{word}");
        }
        assert_eq!(read(&json!({"id": "job-1"})).state, State::Running);
        let failed = read(&json!({"id": "j", "status": "FAILED", "errors": [{"message": "why", "count": 2}]}));
        assert_eq!(failed.problems[0].message, "why");
    }

    #[test]
    fn the_model_is_named_once() {
        let mut line = Vec::new();
        wire().write("id", b"{\"model\":\"m\",\n\"messages\":[{\"model\":\"kept\"}]}", &mut line);
        let line: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(line, json!({"custom_id": "id", "body": {"messages": [{"model": "kept"}]}}));
        let chunk = Sealed { nonce: "n".to_owned(), model: "m".to_owned(), body: Bytes::new().into(), count: 1 };
        let body: Value =
            serde_json::from_slice(&wire().create(&chunk, Some("f")).content.unwrap().1.whole().unwrap()).unwrap();
        assert_eq!(
            (&body["model"], &body["input_files"], &body["metadata"][LABEL]),
            (&"m".into(), &json!(["f"]), &"n".into())
        );
    }

    #[test]
    fn pages_have_numbers() {
        let page = json!({"data": [job()], "object": "list", "total": 250}).to_string();
        assert_eq!(wire().read_list(page.as_bytes(), None).1.as_deref(), Some("1"));
        assert_eq!(wire().read_list(page.as_bytes(), Some("1")).1.as_deref(), Some("2"));
        assert_eq!(wire().read_list(page.as_bytes(), Some("2")).1, None);
        assert_eq!(wire().read_list(b"{\"data\":[],\"total\":250}", None), (Vec::new(), None));
        assert!(wire().list(None).query.contains(&("page", "0".to_owned())));
    }

    #[test]
    fn lines_are_as_those_of_openai() {
        let line = b"{\"id\":\"x\",\"custom_id\":\"k\",\"response\":{\"status_code\":200,\"body\":{}},\"error\":null}";
        assert_eq!(wire().read_line(line).unwrap().outcome, Outcome::Reply(200, Bytes::from_static(b"{}")));
    }
}
