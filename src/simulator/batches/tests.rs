//! Batches over the time of a clock that the tests move.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::faults::{Fault, FaultKind};
use super::ledger::Books;
use super::provider::Provider;
use super::settings::Settings;
use super::state::State;
use super::{Batches, Model, anthropic, gemini, openai};

const DAY: f64 = 86_400.0;

/// A provider at a time.
struct World {
    state: State,
    provider: Provider,
    now: f64,
}

impl World {
    fn new(provider: Provider, settings: Settings) -> Self {
        let state = State::new(Arc::new(settings), Arc::new(Model::default()), Books::new(true), 1.8e9);
        Self { state, provider, now: 0.0 }
    }

    /// With faults of the first batch, and a delay of 100 s.
    fn with(provider: Provider, faults: &[&str]) -> Self {
        let fault = |name: &&str| Fault { kind: FaultKind::from_name(name).unwrap(), every: 0, on: vec![1], lines: 4 };
        let faults = faults.iter().map(fault).collect();
        Self::new(provider, Settings { delay: 100.0, faults, ..Settings::default() })
    }

    fn raw(&mut self, method: Method, path: &str, kind: &'static str, body: Bytes) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(kind));
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let call = Call {
            provider: self.provider,
            method,
            path: path.to_owned(),
            query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            headers,
            body,
            account: 1,
            origin: "http://here".to_owned(),
        };
        let parts: Vec<&str> = path.split('/').collect();
        match self.provider {
            Provider::Anthropic => anthropic::answer(&mut self.state, &call, &parts[2..], self.now),
            Provider::Gemini => gemini::answer(&mut self.state, &call, &parts, self.now),
            _ => openai::answer(&mut self.state, &call, &parts, self.now),
        }
    }

    fn get(&mut self, path: &str) -> (u16, Value) {
        parts(self.raw(Method::GET, path, "", Bytes::new()))
    }

    fn post(&mut self, path: &str, body: &Value) -> (u16, Value) {
        parts(self.raw(Method::POST, path, "application/json", body.to_string().into()))
    }

    /// The lines of a file of results; `Err`: what was sent when the connection was closed.
    fn lines(&mut self, path: &str) -> Result<Vec<Value>, usize> {
        match self.raw(Method::GET, path, "", Bytes::new()) {
            Reply::Download(download) if download.is_cut => Err(download.bytes.len() / 2),
            Reply::Download(download) => {
                let lines = download.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                Ok(lines.map(|line| serde_json::from_slice(line).unwrap()).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    /// Uploads so many lines of OpenAI's: the file's id.
    fn upload(&mut self, count: usize) -> String {
        let line = |number: usize| {
            let body = json!({"model": "m", "messages": [{"role": "user", "content": format!("question {number}")}]});
            json!({"custom_id": format!("n-{number}"), "method": "POST", "url": "/v1/chat/completions", "body": body})
                .to_string()
        };
        let lines: Vec<String> = (0..count).map(line).collect();
        let form = format!(
            "--X\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--X\r\nContent-Disposition: \
             form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{}\r\n--X--\r\n",
            lines.join("\n")
        );
        let (status, file) = parts(self.raw(Method::POST, "files", "multipart/form-data; boundary=X", form.into()));
        assert_eq!(status, 200, "{file}");
        file["id"].as_str().unwrap().to_owned()
    }

    /// Makes a batch of OpenAI's.
    fn create(&mut self, count: usize) -> (u16, Value) {
        let file = self.upload(count);
        self.now += 100.0; // Azure has looked at it
        let requested = json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h",
            "metadata": {"nonce": "x"}});
        self.post("batches", &requested)
    }

    fn look(&mut self, batch: &Value) -> Value {
        self.get(&format!("batches/{}", batch["id"].as_str().unwrap())).1
    }

    fn ids(&mut self) -> Vec<Value> {
        self.get("batches").1["data"].as_array().unwrap().iter().map(|batch| batch["id"].clone()).collect()
    }

    fn rules(&self) -> Vec<&'static str> {
        self.state.ledger.open().violations.iter().map(|violation| violation.rule).collect()
    }
}

/// Status and body; 0 for a connection that was closed.
fn parts(reply: Reply) -> (u16, Value) {
    match reply {
        Reply::Json(status, value) | Reply::Headers(status, value, _) => (status, value),
        Reply::Reset => (0, Value::Null),
        Reply::Download(download) => panic!("{download:?}"),
    }
}

#[test]
fn a_batch_goes_its_way() {
    let mut world = World::with(Provider::OpenAi, &[]);
    let (_, batch) = world.create(20);
    let mut states = vec![batch["status"].clone()];
    for seconds in [50.0, 45.0, 5.0] {
        world.now += seconds;
        states.push(world.look(&batch)["status"].clone());
    }
    assert_eq!(states, ["validating", "in_progress", "finalizing", "completed"]);
    let done = world.look(&batch);
    assert_eq!(done["request_counts"], json!({"total": 20, "completed": 20, "failed": 0}));
    assert_eq!(done["completed_at"], json!(1_800_000_200));
    let content = format!("files/{}/content", done["output_file_id"].as_str().unwrap());
    assert_eq!(world.lines(&content).unwrap().len(), 20);
    world.now += 30.0 * DAY;
    let gone = parts(world.raw(Method::GET, &content, "", Bytes::new()));
    assert_eq!(gone.0, 404);
    assert_eq!(world.state.ledger.open().paid_twice, 0);
}

#[test]
fn creates_are_lost_and_repeated() {
    for (fault, status, made) in [
        ("create_lost", 0, 1),
        ("create_500_made", 500, 1),
        ("create_500_not_made", 500, 0),
        ("second_batch", 200, 2),
        ("queue_full:now", 429, 0),
        ("queue_full", 200, 1),
        ("no_credit", 400, 0),
        ("capital_states", 200, 1),
    ] {
        let mut world = World::with(Provider::OpenAi, &[fault]);
        assert_eq!((world.create(3).0, world.state.batches.len()), (status, made), "{fault}");
        assert_eq!(world.ids().len(), made, "{fault}");
        assert_eq!(world.create(3).0, 200, "the next is another");
        assert!(world.rules().is_empty(), "{fault}: there was a list in between");
        world.create(3);
        assert_eq!(world.rules(), ["create_without_list"], "{fault}");
    }
    let mut world = World::with(Provider::OpenAi, &["create_slow"]);
    assert_eq!((world.create(3).0, world.ids().len()), (504, 0));
    world.now += 60.0;
    assert_eq!(world.ids().len(), 1);
}

#[test]
fn a_batch_is_hidden_for_a_while() {
    let mut world = World::with(Provider::OpenAi, &["404_for:600", "label_dropped"]);
    let (_, batch) = world.create(3);
    assert_eq!((world.look(&batch)["error"]["type"].clone(), world.ids().len()), ("invalid_request_error".into(), 0));
    world.now += 600.0;
    let seen = world.look(&batch);
    assert_eq!((&seen["status"], &seen["metadata"], world.ids().len()), (&"completed".into(), &Value::Null, 1));
    let mut world = World::with(Provider::OpenAi, &["list_lag:60"]);
    let (_, batch) = world.create(3);
    assert_eq!((world.look(&batch)["id"].clone(), world.ids().len()), (batch["id"].clone(), 0));
    world.now += 60.0;
    assert_eq!(world.ids().len(), 1);
}

#[test]
fn some_never_end_and_some_end_early() {
    for (fault, before, end, done) in [
        ("stuck:validating", "validating", "expired", 0),
        ("stuck:in_progress", "in_progress", "expired", 10),
        ("stuck:finalizing", "finalizing", "expired", 20),
        ("expire_after:0.6", "in_progress", "expired", 12),
        ("cancel_after:0.6", "cancelled", "cancelled", 12),
    ] {
        let mut world = World::with(Provider::OpenAi, &[fault]);
        let (_, batch) = world.create(20);
        world.now += DAY - 1.0;
        assert_eq!(world.look(&batch)["status"], before, "{fault}");
        world.now += 1.0;
        let ended = world.look(&batch);
        assert_eq!((&ended["status"], &ended["request_counts"]["completed"]), (&end.into(), &done.into()), "{fault}");
        assert_eq!(world.state.ledger.open().texts.len(), done, "only what is done is paid for");
    }
    let mut world = World::with(Provider::Azure, &["stuck:running"]);
    let (_, batch) = world.create(20);
    world.now += 100.0 * DAY;
    assert_eq!(world.look(&batch)["status"], "in_progress", "there is no end at Azure");
    let mut world = World::with(Provider::OpenAi, &["stuck:cancelling"]);
    let (_, batch) = world.create(20);
    let id = batch["id"].as_str().unwrap();
    assert_eq!(world.post(&format!("batches/{id}/cancel"), &Value::Null).1["status"], "cancelling");
    world.now += DAY;
    assert_eq!(world.look(&batch)["status"], "cancelling");
}

#[test]
fn results_are_not_what_was_asked_for() {
    for (faults, succeeded, failed) in [
        (&["drop_lines"][..], Some(15), None),
        (&["repeat_lines"], Some(25), None),
        (&["foreign_lines"], Some(25), None),
        (&["line_status:503"], Some(15), Some(5)),
        (&["line_status:0"], Some(15), Some(5)),
        (&["all_failed"], None, Some(20)),
        (&["no_output_file"], None, None),
        (&["empty_error_file"], Some(20), Some(0)),
        (&["u2028"], Some(20), None),
    ] {
        let mut world = World::with(Provider::OpenAi, faults);
        let (_, batch) = world.create(20);
        world.now += 100.0;
        let ended = world.look(&batch);
        assert_eq!(ended["status"], "completed", "{faults:?}");
        let mut count = |name: &str| {
            let file = ended[name].as_str()?;
            Some(world.lines(&format!("files/{file}/content")).unwrap().len())
        };
        assert_eq!((count("output_file_id"), count("error_file_id")), (succeeded, failed), "{faults:?}");
        assert_eq!(world.state.ledger.open().paid_twice, 0, "{faults:?}");
    }
    let mut world = World::with(Provider::OpenAi, &["gone"]);
    let (_, batch) = world.create(20);
    world.now += 100.0;
    let file = world.look(&batch)["output_file_id"].as_str().unwrap().to_owned();
    assert_eq!(parts(world.raw(Method::GET, &format!("files/{file}/content"), "", Bytes::new())).0, 404);
    let mut world = World::with(Provider::OpenAi, &["cut_download"]);
    let (_, batch) = world.create(20);
    world.now += 100.0;
    let file = world.look(&batch)["output_file_id"].as_str().unwrap().to_owned();
    assert!(world.lines(&format!("files/{file}/content")).unwrap_err() > 0);
    assert_eq!(world.lines(&format!("files/{file}/content")).unwrap().len(), 20, "the second time it is whole");
}

#[test]
fn a_queue_has_a_limit() {
    let settings = Settings { delay: 1000.0, queue_tokens: Some(100), ..Settings::default() };
    let mut world = World::new(Provider::OpenAi, settings.clone());
    let (_, first) = world.create(20); // 60 tokens
    let (_, second) = world.create(20);
    assert_eq!(world.look(&second)["status"], "validating", "it is told later");
    world.now += 100.0;
    let failed = world.look(&second);
    assert_eq!(
        (&failed["status"], &failed["errors"]["data"][0]["code"]),
        (&"failed".into(), &"token_limit_exceeded".into())
    );
    let message = failed["errors"]["data"][0]["message"].as_str().unwrap();
    assert!(message.contains("for m in") && message.contains("Limit: 100 enqueued tokens"), "{message}");
    world.now += 1000.0;
    assert_eq!(world.look(&first)["status"], "completed");
    let (_, third) = world.create(20);
    world.now += 1000.0;
    assert_eq!(world.look(&third)["status"], "completed", "there is room again");
    assert_eq!(world.state.ledger.open().peak_queued, 60);
    let mut world = World::new(Provider::Azure, Settings { delay: 400.0, azure_at_once: true, ..settings });
    assert_eq!(world.create(20).0, 200);
    let (status, error) = world.create(20);
    assert_eq!((status, &error["error"]["code"]), (400, &"token_limit_exceeded".into()));
}

#[test]
fn too_many_and_too_often() {
    let settings = Settings { delay: 1e6, max_open: Some(1), poll_interval: Some(10.0), ..Settings::default() };
    let mut world = World::new(Provider::OpenAi, settings);
    let (_, batch) = world.create(1);
    world.look(&batch);
    world.now += 10.0;
    world.look(&batch);
    assert_eq!(world.rules(), [""; 0]);
    world.now += 9.0;
    world.look(&batch);
    assert_eq!((world.create(1).0, world.rules()), (429, vec!["poll", "open"]));
    let mut world = World::new(Provider::Azure, Settings::default());
    let (_, batch) = world.create(1);
    world.look(&batch);
    world.now += 59.0;
    world.look(&batch);
    assert_eq!(world.rules(), ["poll"], "Azure wants a minute");
}

#[test]
fn an_azure_file_is_looked_at_first() {
    let mut world = World::new(Provider::Azure, Settings { delay: 100.0, ..Settings::default() });
    let file = world.upload(1);
    let requested = json!({"input_file_id": file, "endpoint": "/chat/completions", "completion_window": "24h"});
    assert_eq!(world.get(&format!("files/{file}")).1["status"], "pending");
    assert_eq!(world.post("batches", &requested).0, 400);
    world.now = 25.0;
    assert_eq!(world.get(&format!("files/{file}")).1["status"], "processed");
    assert_eq!(world.post("batches", &requested).1["error_file_id"], "");
}

#[test]
fn gemini_gives_all_or_nothing_and_mixes_inline_answers_on_demand() {
    let requested = |count: usize| {
        let request = |number: usize| {
            json!({"request": {"contents": [{"parts": [{"text": format!("question {number}")}]}]},
                "metadata": {"key": format!("n-{number}")}})
        };
        let requests: Vec<Value> = (0..count).map(request).collect();
        json!({"batch": {"displayName": "x", "inputConfig": {"requests": {"requests": requests}}}})
    };
    for (fault, state, paid) in [
        ("expire_after:0.6", "BATCH_STATE_EXPIRED", 0),
        ("cancel_after:0.6", "BATCH_STATE_CANCELLED", 0),
        ("label_dropped", "BATCH_STATE_SUCCEEDED", 20),
    ] {
        let mut world = World::with(Provider::Gemini, &[fault]);
        let (_, made) = world.post("models/m:batchGenerateContent", &requested(20));
        world.now += 2.0 * DAY;
        let (_, parts) = world.get(made["name"].as_str().unwrap());
        assert_eq!((&parts["metadata"]["state"], world.state.ledger.open().texts.len()), (&state.into(), paid));
        assert_eq!(parts.get("response").is_some(), paid > 0, "{parts}");
        assert_eq!(parts["metadata"].get("displayName").is_some(), fault != "label_dropped");
    }
    for (fault, is_mixed) in [("gone", false), ("shuffle", true), ("no_content_type", false)] {
        let mut world = World::with(Provider::Gemini, &[fault]);
        let (_, made) = world.post("models/m:batchGenerateContent", &requested(20));
        world.now += DAY;
        let (_, parts) = world.get(made["name"].as_str().unwrap());
        let all = parts["response"]["inlinedResponses"]["inlinedResponses"].as_array();
        assert_eq!(all.is_none(), fault == "gone", "{parts}");
        let keys: Vec<_> = all.into_iter().flatten().map(|one| one["metadata"]["key"].as_str()).collect();
        assert_eq!(keys.iter().all(Option::is_none), is_mixed || fault == "gone");
    }
}

#[test]
fn anthropic_lines_end_in_four_ways() {
    let request = |number: usize| {
        let params = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]});
        json!({"custom_id": format!("n-{number}"), "params": params})
    };
    let requests: Vec<Value> = (0..20).map(request).collect();
    let mut world = World::with(Provider::Anthropic, &["expire_after:0.5", "line_status:0", "u2028"]);
    let (_, batch) = world.post("messages/batches", &json!({"requests": requests}));
    world.now += DAY;
    let id = batch["id"].as_str().unwrap().to_owned();
    let (_, ended) = world.get(&format!("messages/batches/{id}"));
    let counts = &ended["request_counts"];
    assert_eq!((&counts["expired"], &counts["processing"]), (&10.into(), &0.into()));
    let lines = world.lines(&format!("messages/batches/{id}/results")).unwrap();
    let errored: Vec<_> = lines.iter().filter(|line| line["result"]["type"] == "errored").collect();
    assert_eq!(json!(errored.len()), counts["errored"]);
    assert!(errored.iter().all(|line| line["result"]["error"]["error"]["type"] == "api_error"));
    assert!(lines.iter().any(|line| line["simulated"] == "\u{2028}\u{2029}\u{85}"));
    world.now += 28.0 * DAY;
    assert_eq!(world.get(&format!("messages/batches/{id}/results")).0, 404);
}

#[test]
fn uploads_have_faults_of_their_own_number() {
    let fault = |on: u64| Fault { kind: FaultKind::UploadCut, every: 0, on: vec![on], lines: 1 };
    let settings = Settings { faults: vec![fault(2)], ..Settings::default() };
    let batches = Batches::new(settings, Arc::new(Model::default()), false);
    assert_eq!([(); 3].map(|()| batches.cuts_upload()), [false, true, false]);
    assert_eq!(batches.snapshot().calls["upload"], 3);
}
