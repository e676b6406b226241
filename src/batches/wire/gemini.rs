//! Batches of Gemini's API: operations that read a file of lines and write another. Requests could also come with the
//! creation, but then their results may come in any order and without what joins them; so the file is the only way here.
//!
//! Source: Gemini's API reference ("Batch API", "Files") and batch guide (2026).

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::fields::{self, Raw, add_body, count_at, instant_at, text_at};
use super::shape::{End, Finding, Limits, Line, Outcome, Problem, Sealed, Seen, State, Upload, Wire};
use crate::providers::call::{Call, Place};

/// See the module.
pub struct Gemini {
    /// Where batches are made, below the base URL.
    create: String,
}

impl Gemini {
    /// For requests that would go to this path.
    ///
    /// # Errors
    /// The path itself, if batches cannot have such requests.
    pub fn new(path: &str) -> Result<Self, String> {
        let create = match path.rsplit_once(':') {
            Some((model, "generateContent")) => format!("{model}:batchGenerateContent"),
            Some((model, "batchEmbedContents")) => format!("{model}:asyncBatchEmbedContent"),
            _ => return Err(path.to_owned()),
        };
        Ok(Self { create })
    }
}

/// The header with the address of an upload.
const ADDRESS: &str = "x-goog-upload-url";
/// Before the nonce in the names of batches.
const MARK: &str = "bllm-";

impl Wire for Gemini {
    fn limits(&self) -> Limits {
        // A file may have 2 GB, but it is in memory here.
        Limits { lines: 200_000, bytes: 500_000_000 }
    }

    fn finding(&self) -> Finding {
        Finding::Label
    }

    fn write(&self, custom_id: &str, body: &[u8], into: &mut Vec<u8>) {
        into.extend_from_slice(b"{\"key\":\"");
        into.extend_from_slice(custom_id.as_bytes());
        into.extend_from_slice(b"\",\"request\":");
        add_body(body, into);
        into.push(b'}');
    }

    fn upload(&self, chunk: &Sealed) -> Upload {
        // The file could have a name of ours, but a second upload under it would be refused.
        let file = json!({"file": {"displayName": chunk.file_name()}});
        let call = Call::post("")
            .at(Place::Beside("upload/v1beta/files".to_owned()))
            .header("x-goog-upload-protocol", "resumable")
            .header("x-goog-upload-command", "start")
            .header("x-goog-upload-header-content-length", chunk.body.size().to_string())
            .header("x-goog-upload-header-content-type", "application/jsonl")
            .json(file.to_string());
        Upload::Resumable(call, ADDRESS)
    }

    fn upload_rest(&self, chunk: &Sealed, place: String) -> Option<Call> {
        let call = Call::post("")
            .at(Place::Origin(place))
            .header("x-goog-upload-offset", "0")
            .header("x-goog-upload-command", "upload, finalize");
        Some(call.body("application/jsonl", chunk.body.clone()))
    }

    fn read_upload(&self, body: &[u8]) -> Option<String> {
        text_at(&fields::read(body)?, "/file/name")
    }

    fn delete_file(&self, file: &str) -> Option<Call> {
        Some(Call::delete(file))
    }

    fn create(&self, chunk: &Sealed, file: Option<&str>) -> Call {
        let batch = json!({"batch": {
            "displayName": format!("{MARK}{}", chunk.nonce),
            "inputConfig": {"fileName": file.unwrap_or_default()},
        }});
        Call::post(self.create.clone()).json(batch.to_string())
    }

    fn look(&self, id: &str) -> Call {
        Call::get(id)
    }

    fn read_batch(&self, body: &[u8]) -> Option<Seen> {
        seen(&fields::read(body)?)
    }

    fn list(&self, after: Option<&str>) -> Call {
        let call = Call::get("batches").query("pageSize", "100");
        match after {
            Some(after) => call.query("pageToken", after),
            None => call,
        }
    }

    fn read_list(&self, body: &[u8], _after: Option<&str>) -> (Vec<Seen>, Option<String>) {
        let Some(page) = fields::read(body) else { return Default::default() };
        (fields::each(&page, "operations", seen), text_at(&page, "/nextPageToken"))
    }

    fn cancel(&self, id: &str) -> Call {
        Call::post(format!("{id}:cancel"))
    }

    fn results(&self, seen: &Seen) -> Vec<Call> {
        let place = |file: &String| Place::Beside(format!("download/v1beta/{file}:download"));
        seen.outputs.iter().map(|file| Call::get("").at(place(file)).query("alt", "media")).collect()
    }

    fn read_line(&self, line: &[u8]) -> Option<Line> {
        let Answered { key, response, error } = fields::line(line)?;
        let outcome = match (response.body(), error) {
            (Some(body), _) => Outcome::Reply(200, body),
            (None, Some(error)) => error_outcome(&error),
            (None, None) => fields::no_reply(),
        };
        Some(Line { custom_id: key?, outcome })
    }
}

#[derive(Deserialize)]
struct Answered<'a> {
    key: Option<String>,
    #[serde(borrow, default)]
    response: Raw<'a>,
    error: Option<Value>,
}

/// The HTTP status and the word for one of gRPC's codes (google.rpc.Code).
fn meaning(code: u64) -> (u16, &'static str) {
    match code {
        1 => (499, "CANCELLED"),
        3 => (400, "INVALID_ARGUMENT"),
        4 => (504, "DEADLINE_EXCEEDED"),
        5 => (404, "NOT_FOUND"),
        6 => (409, "ALREADY_EXISTS"),
        7 => (403, "PERMISSION_DENIED"),
        8 => (429, "RESOURCE_EXHAUSTED"),
        9 => (400, "FAILED_PRECONDITION"),
        10 => (409, "ABORTED"),
        11 => (400, "OUT_OF_RANGE"),
        12 => (501, "UNIMPLEMENTED"),
        14 => (503, "UNAVAILABLE"),
        16 => (401, "UNAUTHENTICATED"),
        _ => (500, "INTERNAL"),
    }
}

/// The reply that a single request with this error would have had.
fn error_outcome(error: &Value) -> Outcome {
    let (status, word) = match count_at(error, "/code") {
        Some(1) => return Outcome::NotDone,
        Some(status @ 400..=599) => (u16::try_from(status).unwrap_or(500), text_at(error, "/status")),
        code => {
            let (status, word) = meaning(code.unwrap_or_default());
            (status, Some(word.to_owned()))
        }
    };
    let mut inner = error.clone();
    if !inner.is_object() {
        inner = json!({ "message": error });
    }
    inner["code"] = status.into();
    inner["status"] = word.into();
    Outcome::Reply(status, Bytes::from(json!({ "error": inner }).to_string()))
}

/// Reads an operation, or the batch that it is about.
fn seen(operation: &Value) -> Option<Seen> {
    let about = operation.get("metadata").filter(|about| about.is_object()).unwrap_or(operation);
    let word = text_at(about, "/state").unwrap_or_default();
    let problem = operation.get("error").filter(|error| error.is_object()).map(problem);
    let outputs = output_of(operation);
    let is_done = operation.get("done").and_then(Value::as_bool).unwrap_or(false);
    let state = match fields::state(&word) {
        state @ State::Ended(_) => state,
        // That it is done is what all operations tell.
        _ if is_done => State::Ended(if problem.is_some() { End::Failed } else { End::Done }),
        state => state,
    };
    let count = |name: &str| count_at(about, &format!("/batchStats/{name}"));
    let done = || (count("successfulRequestCount").unwrap_or(0), count("failedRequestCount").unwrap_or(0));
    Some(Seen {
        id: text_at(operation, "/name")?,
        state,
        word,
        created_at: instant_at(about, "/createTime"),
        total: count("requestCount"),
        done: count("requestCount").map(|_| done()),
        label: text_at(about, "/displayName").map(|name| name.strip_prefix(MARK).unwrap_or(&name).to_owned()),
        file: text_at(about, "/inputConfig/fileName"),
        outputs: outputs.into_iter().collect(),
        problems: problem.into_iter().collect(),
    })
}

/// The file with the results. It is in the reply of the operation, or in what is told about it, at one of two levels.
fn output_of(operation: &Value) -> Option<String> {
    const PLACES: [&str; 6] = [
        "/response/responsesFile",
        "/metadata/output/responsesFile",
        "/response/output/responsesFile",
        "/output/responsesFile",
        "/metadata/responsesFile",
        "/responsesFile",
    ];
    PLACES.iter().find_map(|place| text_at(operation, place))
}

/// What is wrong with a whole batch, in the codes of the others.
fn problem(error: &Value) -> Problem {
    let code = match count_at(error, "/code").map(meaning) {
        Some((404, _)) => "model_not_found",
        Some((429, _)) => "token_limit_exceeded",
        Some((400..=499, _)) => "invalid_request",
        _ => "server_error",
    };
    Problem { code: code.to_owned(), message: text_at(error, "/message").unwrap_or_default(), line: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> Gemini {
        Gemini::new("models/gemini-2.5-flash:generateContent").unwrap()
    }

    fn read(operation: &Value) -> Seen {
        wire().read_batch(operation.to_string().as_bytes()).unwrap()
    }

    fn running() -> Value {
        json!({"name": "batches/abc", "metadata": {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "model": "models/gemini-2.5-flash", "displayName": "bllm-nonce", "createTime": "2025-12-01T10:00:00.5Z",
            "inputConfig": {"fileName": "files/in"}, "state": "BATCH_STATE_RUNNING", "name": "batches/abc",
            "batchStats": {"requestCount": "3", "pendingRequestCount": "1", "successfulRequestCount": "2"},
        }})
    }

    #[test]
    fn an_operation_is_read() {
        let seen = read(&running());
        assert_eq!(
            (seen.id.as_str(), seen.state, seen.word.as_str()),
            ("batches/abc", State::Running, "BATCH_STATE_RUNNING")
        );
        assert_eq!((seen.total, seen.done, seen.created_at), (Some(3), Some((2, 0)), Some(1_764_583_200.5)));
        assert_eq!((seen.label.as_deref(), seen.file.as_deref()), (Some("nonce"), Some("files/in")));
        assert_eq!(wire().look(&seen.id).place, Place::Base("batches/abc".to_owned()));
        assert_eq!(wire().cancel(&seen.id).place, Place::Base("batches/abc:cancel".to_owned()));
    }

    #[test]
    fn results_are_found_at_each_level() {
        for output in [
            json!({"response": {"responsesFile": "files/out"}}),
            json!({"metadata": {"output": {"responsesFile": "files/out"}, "state": "JOB_STATE_SUCCEEDED"}}),
            json!({"output": {"responsesFile": "files/out"}, "state": "SUCCEEDED"}),
        ] {
            let mut operation = json!({"name": "batches/abc", "done": true});
            operation.as_object_mut().unwrap().extend(output.as_object().unwrap().clone());
            let seen = read(&operation);
            assert_eq!(seen.state, State::Ended(End::Done), "{operation}");
            let [call] = &wire().results(&seen)[..] else { panic!("{operation}") };
            assert_eq!(call.place, Place::Beside("download/v1beta/files/out:download".to_owned()));
        }
    }

    #[test]
    fn only_ends_end_it() {
        for (state, end) in [
            ("BATCH_STATE_SUCCEEDED", Some(End::Done)),
            ("BATCH_STATE_PARTIALLY_SUCCEEDED", Some(End::Done)),
            ("BATCH_STATE_FAILED", Some(End::Failed)),
            ("JOB_STATE_EXPIRED", Some(End::Expired)),
            ("BATCH_STATE_CANCELLED", Some(End::Cancelled)),
            ("BATCH_STATE_PAUSED", None),
            ("BATCH_STATE_CANCELLING", None),
            ("SOMETHING_NEW", None),
            ("", None),
        ] {
            let mut operation = running();
            operation["metadata"]["state"] = state.into();
            let seen = read(&operation);
            match end {
                Some(end) => assert_eq!(seen.state, State::Ended(end), "{state}"),
                None => assert!(!matches!(seen.state, State::Ended(_)), "{state}"),
            }
            assert!(wire().results(&seen).is_empty(), "an expired batch has nothing to fetch");
        }
        assert_eq!(read(&json!({"name": "batches/abc"})).state, State::Running);
        assert_eq!(wire().read_batch(b"{}"), None);
    }

    #[test]
    fn the_error_of_a_batch_has_a_code() {
        for (code, expected) in
            [(3, "invalid_request"), (5, "model_not_found"), (8, "token_limit_exceeded"), (13, "server_error")]
        {
            let seen = read(&json!({"name": "batches/a", "done": true, "error": {"code": code, "message": "why"}}));
            assert_eq!(seen.state, State::Ended(End::Failed));
            assert_eq!((seen.problems[0].code.as_str(), seen.problems[0].message.as_str()), (expected, "why"));
        }
    }

    #[test]
    fn lines_have_a_reply_or_an_error() {
        let outcome = |line: &str| wire().read_line(line.as_bytes()).map(|line| (line.custom_id, line.outcome));
        let reply = Outcome::Reply(200, Bytes::from_static(b"{\"candidates\": []}"));
        assert_eq!(
            outcome("{\"key\":\"k\",\"response\":{\"candidates\": []},\"new\":1}"),
            Some(("k".to_owned(), reply))
        );
        assert_eq!(outcome("{\"response\":{}}"), None);
        assert_eq!(outcome("no line"), None);
        for (code, status) in
            [(3, 400), (4, 504), (5, 404), (7, 403), (8, 429), (13, 500), (14, 503), (16, 401), (429, 429), (77, 500)]
        {
            let line = json!({"key": "k", "error": {"code": code, "message": "why"}}).to_string();
            let Some((_, Outcome::Reply(found, body))) = outcome(&line) else { panic!("{line}") };
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (found, body["error"]["code"].as_u64(), body["error"]["message"].as_str()),
                (status, Some(status.into()), Some("why"))
            );
        }
        assert_eq!(outcome("{\"key\":\"k\",\"error\":{\"code\":1}}").unwrap().1, Outcome::NotDone);
        assert!(matches!(outcome("{\"key\":\"k\"}").unwrap().1, Outcome::Reply(500, _)));
    }

    #[test]
    fn batches_are_made_of_files() {
        let chunk = Sealed {
            nonce: "nonce".to_owned(),
            model: "m".to_owned(),
            body: Bytes::from_static(b"{}\n").into(),
            count: 1,
        };
        let call = wire().create(&chunk, Some("files/in"));
        assert_eq!(call.place, Place::Base("models/gemini-2.5-flash:batchGenerateContent".to_owned()));
        let body: Value = serde_json::from_slice(&call.content.unwrap().1.whole().unwrap()).unwrap();
        assert_eq!(body, json!({"batch": {"displayName": "bllm-nonce", "inputConfig": {"fileName": "files/in"}}}));
        let embeddings = Gemini::new("models/gemini-embedding-001:batchEmbedContents").unwrap();
        assert_eq!(embeddings.create, "models/gemini-embedding-001:asyncBatchEmbedContent");
        assert!(Gemini::new("models/m:predict").is_err());
        assert_eq!(wire().read_upload(b"{\"file\":{\"name\":\"files/in\"}}").as_deref(), Some("files/in"));
    }

    #[test]
    fn lists_have_pages() {
        let page = json!({"operations": [running(), {"odd": 1}], "nextPageToken": "more"}).to_string();
        let (batches, next) = wire().read_list(page.as_bytes(), None);
        assert_eq!((batches.len(), next.as_deref()), (1, Some("more")));
        assert_eq!(wire().read_list(b"{}", None), (Vec::new(), None));
        assert!(wire().list(Some("more")).query.contains(&("pageToken", "more".to_owned())));
    }
}
