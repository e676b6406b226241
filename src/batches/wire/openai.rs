//! Batches in the way of OpenAI: a file of lines, a batch made from it, files with the results. Azure, Groq and Together
//! do it with differences of their own.
//!
//! Source: OpenAI's API reference (files, batches), Azure's "How to use global batch", Groq's and Together's batch guides
//! (2026).

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::fields::{self, add_body, count_at, instant_at, text_at};
use super::shape::{Finding, Limits, Line, Sealed, Seen, Upload, Wire};
use crate::providers::call::{Call, Content};

/// Megabyte.
const MB: usize = 1_000_000;

/// What differs.
pub struct OpenAi {
    limits: Limits,
    finding: Finding,
    /// What files are for.
    purpose: &'static str,
    /// Where they are uploaded to.
    upload: &'static str,
    /// How the endpoint is written.
    endpoint: String,
    /// Whether a line has a method and a URL.
    has_urls: bool,
    /// Whether an uploaded file must be looked at before it is used.
    waits_for_file: bool,
    /// Parameters of the list.
    page: Option<&'static str>,
    window: &'static str,
}

impl OpenAi {
    fn new(endpoint: String) -> Self {
        Self {
            limits: Limits { lines: 50_000, bytes: 200 * MB },
            finding: Finding::Label,
            purpose: "batch",
            upload: "files",
            endpoint,
            has_urls: true,
            waits_for_file: false,
            page: Some("100"),
            window: "24h",
        }
    }

    /// OpenAI.
    pub fn itself(path: &str) -> Self {
        Self::new(format!("/v1/{path}"))
    }

    /// Azure: more lines, and files that take their time.
    pub fn azure(path: &str) -> Self {
        let limits = Limits { lines: 100_000, bytes: 200 * MB };
        Self { limits, waits_for_file: true, ..Self::new(format!("/v1/{path}")) }
    }

    /// Groq: lists without pages. A longer window finishes more.
    pub fn groq(path: &str) -> Self {
        let limits = Limits { lines: 50_000, bytes: 100 * MB };
        Self { limits, page: None, window: "7d", ..Self::new(format!("/v1/{path}")) }
    }

    /// Together: no metadata, so a batch is found by its file.
    pub fn together(path: &str) -> Self {
        Self {
            limits: Limits { lines: 50_000, bytes: 100 * MB },
            finding: Finding::File,
            purpose: "batch-api",
            upload: "files/upload",
            has_urls: false,
            page: None,
            ..Self::new(format!("/v1/{path}"))
        }
    }
}

/// The key of the nonce in a batch's metadata.
pub const LABEL: &str = "bllm_nonce";

impl Wire for OpenAi {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn finding(&self) -> Finding {
        self.finding
    }

    fn write(&self, custom_id: &str, body: &[u8], into: &mut Vec<u8>) {
        // Writing to memory does not fail.
        let _ = write!(into, "{{\"custom_id\":\"{custom_id}\",");
        if self.has_urls {
            let _ = write!(into, "\"method\":\"POST\",\"url\":\"{}\",", self.endpoint);
        }
        into.extend_from_slice(b"\"body\":");
        add_body(body, into);
        into.push(b'}');
    }

    fn least_wait(&self) -> Duration {
        if self.waits_for_file { Duration::from_secs(60) } else { Duration::ZERO }
    }

    fn settling(&self) -> Duration {
        // OpenAI: "cancelling" takes up to ten minutes.
        Duration::from_secs(720)
    }

    fn is_cheaper(&self, model: &str) -> bool {
        // Together's price list of batches (2026): half for this one, the usual price for others.
        self.has_urls || model.contains("Llama-3.3-70B-Instruct-Turbo")
    }

    fn upload(&self, chunk: &Sealed) -> Upload {
        let name = chunk.file_name();
        // Together wants the name and the type apart, too.
        let fields = [("purpose", self.purpose), ("file_name", &name), ("file_type", "jsonl")];
        let fields = if self.upload == "files" { &fields[..1] } else { &fields[..] };
        let (kind, body) = multipart(&chunk.nonce, fields, &name, &chunk.body);
        Upload::One(Call::post(self.upload).body(kind, body))
    }

    fn look_at_file(&self, file: &str) -> Option<Call> {
        self.waits_for_file.then(|| Call::get(format!("files/{file}")))
    }

    fn is_file_ready(&self, body: &[u8]) -> bool {
        let status = fields::read(body).and_then(|file| text_at(&file, "/status"));
        !status.is_some_and(|status| ["pending", "uploaded", "running"].contains(&status.to_ascii_lowercase().as_str()))
    }

    fn delete_file(&self, file: &str) -> Option<Call> {
        Some(Call::delete(format!("files/{file}")))
    }

    fn create(&self, chunk: &Sealed, file: Option<&str>) -> Call {
        let mut batch = json!({
            "input_file_id": file.unwrap_or_default(),
            "endpoint": self.endpoint,
            "completion_window": self.window,
        });
        if self.finding == Finding::Label {
            batch["metadata"] = json!({ LABEL: chunk.nonce });
        }
        Call::post("batches").json(batch.to_string())
    }

    fn look(&self, id: &str) -> Call {
        Call::get(format!("batches/{id}"))
    }

    fn read_batch(&self, body: &[u8]) -> Option<Seen> {
        seen(&fields::read(body)?)
    }

    fn list(&self, after: Option<&str>) -> Call {
        let mut call = Call::get("batches");
        if let Some(most) = self.page {
            call = call.query("limit", most);
        }
        match after {
            Some(after) => call.query("after", after),
            None => call,
        }
    }

    fn read_list(&self, body: &[u8], _after: Option<&str>) -> (Vec<Seen>, Option<String>) {
        let Some(page) = fields::read(body) else { return Default::default() };
        let Some(list) = page.as_array().or_else(|| page.get("data")?.as_array()) else { return Default::default() };
        let batches: Vec<Seen> = list.iter().filter_map(seen).collect();
        let has_more = page.get("has_more").and_then(Value::as_bool).unwrap_or(false) && self.page.is_some();
        let last = text_at(&page, "/last_id").or_else(|| batches.last().map(|last| last.id.clone()));
        (batches, last.filter(|_| has_more))
    }

    fn cancel(&self, id: &str) -> Call {
        Call::post(format!("batches/{id}/cancel"))
    }

    fn results(&self, seen: &Seen) -> Vec<Call> {
        seen.outputs.iter().map(|file| Call::get(format!("files/{file}/content"))).collect()
    }

    fn read_line(&self, line: &[u8]) -> Option<Line> {
        fields::openai_line(line)
    }
}

fn seen(batch: &Value) -> Option<Seen> {
    let batch = batch.get("job").unwrap_or(batch);
    let word = text_at(batch, "/status").unwrap_or_default();
    let errors = batch.pointer("/errors/data").or_else(|| batch.get("error"));
    Some(Seen {
        id: text_at(batch, "/id")?,
        state: fields::state(&word),
        word,
        created_at: instant_at(batch, "/created_at"),
        total: count_at(batch, "/request_counts/total").filter(|total| *total > 0),
        done: count_at(batch, "/request_counts/completed")
            .map(|done| (done, count_at(batch, "/request_counts/failed").unwrap_or_default())),
        label: text_at(batch, &format!("/metadata/{LABEL}")),
        file: text_at(batch, "/input_file_id"),
        outputs: ["/output_file_id", "/error_file_id"].iter().filter_map(|place| text_at(batch, place)).collect(),
        problems: fields::problems(errors),
    })
}

/// A form with one file (RFC 7578): its content type, and its body. The nonce, which is in no line before this, is the
/// boundary.
pub fn multipart(nonce: &str, fields: &[(&str, &str)], name: &str, file: &Content) -> (String, Content) {
    let boundary = format!("----bllm{nonce}boundary");
    let mut body = Vec::new();
    for (field, value) in fields {
        // Writing to memory does not fail.
        let _ = write!(body, "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n");
    }
    let _ = write!(
        body,
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: \
         application/jsonl\r\n\r\n"
    );
    let body = Content::from(body).then(file.clone()).then(format!("\r\n--{boundary}--\r\n"));
    (format!("multipart/form-data; boundary={boundary}"), body)
}
