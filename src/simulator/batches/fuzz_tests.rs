//! Whatever comes is answered: no request makes an imitation panic.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use super::call::{Call, Reply};
use super::provider::Provider;
use super::settings::Settings;
use super::{Batches, Model};

const PROVIDERS: [Provider; 9] = [
    Provider::OpenAi,
    Provider::Azure,
    Provider::Anthropic,
    Provider::Gemini,
    Provider::Mistral,
    Provider::Groq,
    Provider::Together,
    Provider::Xai,
    Provider::OpenRouter,
];

/// Parts of paths and of bodies; `@` stands for an id that was told before.
const PATHS: &[&str] = &[
    "files",
    "files/@",
    "files/@/content",
    "batches",
    "batches/@",
    "batches/@/cancel",
    "batches/@:cancel",
    "batches/@/requests",
    "batches/@/results",
    "messages/batches",
    "messages/batches/@",
    "messages/batches/@/results",
    "messages/batches/@/cancel",
    "batch/jobs",
    "batch/jobs/@",
    "batch/jobs/@/cancel",
    "upload/files",
    "download/files/@",
    "models/m:batchGenerateContent",
    "models/m:asyncBatchEmbedContent",
    "uploads",
    "uploads/@/parts",
    "uploads/@/complete",
    "files/@/preprocess",
    "",
    "/",
    "files//",
];

const BODIES: &[&str] = &[
    "",
    "{",
    "[]",
    "null",
    "{\"input_file_id\": \"@\", \"endpoint\": \"/v1/chat/completions\", \"completion_window\": \"24h\"}",
    "--X\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--X\r\nContent-Disposition: form-data; \
     name=\"file\"\r\n\r\n{\"custom_id\": \"a\", \"body\": {}}\r\n--X--",
    "{\"requests\": [{\"custom_id\": \"a-b\", \"params\": {\"model\": \"m\"}}, {}]}",
    "{\"requests\": [{\"custom_id\": \"a-b\", \"params\": {\"model\": \"m\", \"max_tokens\": 1, \"messages\": [{}]}}]}",
    "{\"batch\": {\"displayName\": \"x\", \"inputConfig\": {\"requests\": {\"requests\": [{\"request\": {}}]}}}}",
    "{\"batch\": {\"displayName\": \"x\", \"inputConfig\": {\"fileName\": \"@\"}}}",
    "{\"endpoint\": \"/v1/embeddings\", \"model\": \"m\", \"requests\": [{\"custom_id\": \"\", \"body\": {\"input\": [1]}}]}",
    "{\"endpoint\": \"/v1/chat/completions\", \"model\": \"m\", \"input_files\": [\"@\"], \"metadata\": {\"a\": \"b\"}}",
    "{\"name\": \"x\"}",
    "{\"batch_requests\": [{\"batch_request_id\": \"a\", \"batch_request\": {\"responses\": {}}}]}",
    "{\"filename\": \"a\", \"purpose\": \"batch\", \"bytes\": 0, \"part_ids\": []}",
    "{\"part_ids\": [\"@\"]}",
    "{\"file\": {\"name\": \"files/a\"}}",
    "\u{feff}{}",
    "{\"input_file_id\": 1, \"limit\": 1e400}",
];

/// Everything in a reply that may be an id.
fn ids(reply: &Reply, into: &mut Vec<String>) {
    let (Reply::Json(_, value) | Reply::Headers(_, value, _)) = reply else { return };
    for place in ["/id", "/batch_id", "/name", "/job/id", "/file/name", "/output_file_id"] {
        if let Some(id) = value.pointer(place).and_then(serde_json::Value::as_str) {
            into.push(id.rsplit('/').next().unwrap_or_default().to_owned());
            into.push(id.to_owned());
        }
    }
}

proptest! {
    #[test]
    fn everything_is_answered(
        calls in prop::collection::vec((0..9usize, 0..5usize, 0..PATHS.len(), 0..BODIES.len(), any::<prop::sample::Index>(), ".{0,20}"), 1..60)
    ) {
        let batches = Batches::new(Settings { delay: 1.0, ..Settings::default() }, Arc::new(Model::default()), true);
        let mut known = vec!["nothing".to_owned()];
        for (provider, method, path, body, id, query) in calls {
            let id = id.get(&known).clone();
            let mut headers = HeaderMap::new();
            headers.insert("content-type", HeaderValue::from_static("multipart/form-data; boundary=X"));
            headers.insert("x-goog-upload-command", HeaderValue::from_static("start"));
            let methods = [Method::GET, Method::POST, Method::POST, Method::DELETE, Method::PUT];
            let names = ["limit", "after", "after_id", "before_id", "pageSize", "pageToken", "page", "pagination_token"];
            let call = Call {
                provider: PROVIDERS[provider],
                method: methods[method].clone(),
                path: PATHS[path].replace('@', &id),
                query: names.iter().map(|name| ((*name).to_owned(), query.clone())).take(query.len() % 9).collect(),
                headers,
                body: Bytes::from(BODIES[body].replace('@', &id)),
                account: 1,
                origin: String::new(),
            };
            ids(&batches.answer(&call), &mut known);
            batches.advance(Duration::from_secs(body as u64));
        }
        batches.snapshot();
    }

    #[test]
    fn any_bytes_are_read_as_forms_and_lines(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
        let rules = super::lines::Rules { most_lines: 3, ..Default::default() };
        let _ = super::lines::Checked::file(&Bytes::from(bytes.clone()), &rules);
        let _ = super::multipart::fields("multipart/form-data; boundary=X", &Bytes::from(bytes));
        let form = BODIES[5].as_bytes();
        let _ = super::multipart::fields("multipart/form-data; boundary=X", &Bytes::copy_from_slice(&form[..cut.index(form.len())]));
    }
}
