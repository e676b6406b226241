//! What holds for the batch APIs of all providers.

use proptest::prelude::*;
use serde_json::{Value, json};

use std::time::Duration;

use super::fields::add_body;
use super::*;

/// A provider, and where its requests go.
const ALL: [(&str, &str); 11] = [
    ("openai", "chat/completions"),
    ("openai", "embeddings"),
    ("azure", "responses"),
    ("groq", "chat/completions"),
    ("together", "chat/completions"),
    ("anthropic", "v1/messages"),
    ("gemini", "models/m:generateContent"),
    ("gemini", "models/m:batchEmbedContents"),
    ("mistral", "embeddings"),
    ("xai", "chat/completions"),
    ("openrouter", "chat/completions"),
];

fn all() -> impl Iterator<Item = (&'static str, Box<dyn Wire>)> {
    ALL.into_iter().map(|(provider, path)| (provider, wire_of(provider, path).unwrap()))
}

/// Reads bytes in all ways; a page that is read may be followed by another.
fn read_all(body: &[u8]) {
    for (_, wire) in all() {
        let seen = wire.read_batch(body).unwrap_or_default();
        wire.has_ended(&seen, 3, Duration::ZERO);
        wire.results(&seen);
        wire.read_created(body);
        wire.read_list(body, Some("1"));
        wire.read_line(body);
        wire.read_upload(body);
        wire.is_file_ready(body);
        wire.read_page(&seen, body, &mut |line| drop(wire.read_line(line)));
        wire.unfit(body);
        let mut line = Vec::new();
        wire.write("id", body, &mut line);
        assert!(!line.contains(&b'\n'));
    }
}

/// JSON with the fields that matter, and anything in them.
fn documents() -> impl Strategy<Value = Value> {
    const NAMES: &str = "id|name|batch_id|status|state|processing_status|metadata|data|operations|batches|results|job|\
                         request_counts|total|batchStats|requestCount|num_requests|num_pending|errors|error|code|\
                         message|line|custom_id|key|response|body|status_code|result|type|batch_result|created_at|\
                         createTime|output_file_id|responsesFile|has_more|pagination_token|done|files|input_files|x";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(completed|ended|SUCCEEDED|BATCH_STATE_EXPIRED|3|\\PC{0,6})".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((NAMES, inner), 0..6).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd(body: Vec<u8>) {
        read_all(&body);
    }

    #[test]
    fn no_document_is_too_odd(document in documents()) {
        read_all(document.to_string().as_bytes());
    }

    #[test]
    fn words_that_nobody_knows_end_nothing(word in "[A-Za-z_]{0,20}") {
        let known = ["completed", "ended", "succeeded", "success", "partially_succeeded", "failed", "expired",
            "timeout_exceeded", "cancelled", "canceled"];
        let bare = word.to_ascii_lowercase();
        prop_assume!(!known.iter().any(|known| bare.ends_with(known)));
        for (provider, wire) in all() {
            let batch = json!({"id": "b", "name": "b", "batch_id": "b", "status": word, "processing_status": word,
                "metadata": {"state": word}, "state": {"num_requests": 3, "num_pending": 1}, word.clone(): word});
            let seen = wire.read_batch(batch.to_string().as_bytes());
            prop_assert!(!matches!(seen.unwrap().state, State::Ended(_)), "{}", provider);
        }
    }
}

#[test]
fn missing_fields_end_nothing() {
    for (provider, wire) in all() {
        let seen = wire.read_batch(b"{\"id\":\"b\",\"name\":\"b\",\"batch_id\":\"b\"}").unwrap();
        assert!(!wire.has_ended(&seen, 1, Duration::from_secs(1_000_000)), "{provider}");
        assert_eq!(wire.read_batch(b"{}"), None, "{provider}");
        assert_eq!(wire.read_list(b"{}", None), (Vec::new(), None), "{provider}");
    }
}

#[test]
fn empty_names_of_files_are_none() {
    for name in [json!(null), json!("")] {
        for (provider, wire) in all().filter(|(_, wire)| !wire.has_pages()) {
            let batch = json!({"id": "b", "name": "b", "status": "completed", "processing_status": "in_progress",
                "output_file_id": name, "error_file_id": name, "output_file": name, "error_file": name,
                "response": {"responsesFile": name}, "metadata": {"output": {"responsesFile": name}}});
            let seen = wire.read_batch(batch.to_string().as_bytes()).unwrap();
            assert!(seen.outputs.is_empty(), "{provider}");
        }
    }
}

#[test]
fn what_has_no_batches_is_said() {
    for (provider, path, says) in [
        ("azure", "embeddings", "azure has no batches for embeddings"),
        ("together", "embeddings", "together has no batches for embeddings"),
        ("gemini", "models/m:predict", "gemini has no batches for models/m:predict"),
        ("vllm", "chat/completions", "vllm has no batches;"),
        ("openai-compatible", "chat/completions", "openai-compatible has no batches;"),
    ] {
        let message = wire_of(provider, path).err().unwrap();
        assert!(message.contains(says) && message.contains("lane='live'"), "{message}");
    }
}

#[test]
fn togethers_ways_are_known() {
    let wire = wire_of("together", "chat/completions").unwrap();
    let job = json!({"id": "j", "input_file_id": "in", "status": "IN_PROGRESS", "created_at": "2026-01-01T00:00:00Z"});
    let wrapped = json!({"job": job}).to_string();
    let seen = wire.read_created(wrapped.as_bytes()).unwrap();
    assert_eq!((seen.id.as_str(), seen.state, seen.file.as_deref()), ("j", State::Running, Some("in")));
    assert_eq!((wire.finding(), seen.created_at), (Finding::File, Some(1_767_225_600.0)));
    let (list, next) = wire.read_list(json!([job, job]).to_string().as_bytes(), None);
    assert_eq!((list.len(), next), (2, None));
    for (word, end) in
        [("COMPLETED", End::Done), ("FAILED", End::Failed), ("EXPIRED", End::Expired), ("CANCELLED", End::Cancelled)]
    {
        let ended = json!({"id": "j", "status": word, "error": "why"}).to_string();
        let seen = wire.read_batch(ended.as_bytes()).unwrap();
        assert_eq!((seen.state, seen.problems[0].message.as_str()), (State::Ended(end), "why"));
    }
    let error = json!({"custom_id": "k", "error": {"message": "why", "code": 422}}).to_string();
    assert!(matches!(wire.read_line(error.as_bytes()).unwrap().outcome, Outcome::Reply(422, _)));
    let chunk = Sealed { nonce: "n".to_owned(), model: "m".to_owned(), body: "{}".into(), count: 1 };
    let Upload::One(call) = wire.upload(&chunk) else { panic!() };
    let form = String::from_utf8(call.content.unwrap().1.whole().unwrap()).unwrap();
    assert!(form.contains("batch-api") && form.contains("name=\"file_name\"\r\n\r\nbllm-n.jsonl"), "{form}");
}

#[test]
fn bodies_stay_on_their_line_and_mean_the_same() {
    let body = "{\"a\":\n \"x\u{2028}y\u{2029}\u{85}\u{a0}\u{20ac}\"}";
    let mut line = Vec::new();
    add_body(body.as_bytes(), &mut line);
    let line = String::from_utf8(line).unwrap();
    assert!(!line.contains(['\n', '\u{2028}', '\u{2029}', '\u{85}']), "{line}");
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(read(&line), read(body));
}
