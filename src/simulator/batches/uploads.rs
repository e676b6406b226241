//! Files as OpenAI has them, and as those have them who follow it: uploaded, listed, read, deleted.

use http::Method;
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::files::File;
use super::multipart::fields;
use super::provider::Provider;
use super::sessions::Session;
use super::state::State;

/// Part of the delay until Azure has looked at a file.
const AZURE_LOOKS: f64 = 0.25;
/// A file's shortest and longest life that may be asked for, seconds.
const LIFE: (f64, f64) = (3600.0, 2_592_000.0);
/// Media type of lines.
const JSONL: &str = "application/jsonl";

/// Answers a request below `files`. `rest`: the parts of the path after it.
pub fn answer(state: &mut State, call: &Call, rest: &[&str], now: f64) -> Reply {
    match (&call.method, rest) {
        (&Method::PUT, ["upload"]) if call.provider == Provider::Together => put(state, call),
        (&Method::POST, [id, "preprocess"]) if call.provider == Provider::Together => preprocess(state, call, id, now),
        (&Method::POST, [] | ["upload"]) => upload(state, call, now),
        (&Method::GET, []) => list(state, call, now),
        (&Method::GET, [id]) => {
            let epoch = state.epoch;
            let found = state.files.get(id, call.account, now);
            found.map_or_else(
                || call.missing("File object", id),
                |file| Reply::ok(tell(call.provider, file, epoch, now)),
            )
        }
        (&Method::GET, [id, "content"]) => {
            let found = state.download(id, call.account, now);
            found.map_or_else(|| call.missing("File object", id), Reply::Download)
        }
        (&Method::GET, [id, "url"]) if call.provider == Provider::Mistral => {
            Reply::ok(json!({"url": format!("{}/mistral/v1/files/{id}/content", call.origin)}))
        }
        (&Method::DELETE, [id]) => {
            state.ledger.open().called("delete");
            if state.files.get(id, call.account, now).is_none() {
                return call.missing("File object", id);
            }
            state.files.remove(id);
            Reply::ok(json!({"id": id, "object": "file", "deleted": true}))
        }
        _ => call.unknown(),
    }
}

fn upload(state: &mut State, call: &Call, now: f64) -> Reply {
    let form = match fields(call.header("content-type").unwrap_or_default(), &call.body) {
        Ok(form) => form,
        Err(problem) => return call.error(400, &problem),
    };
    let text = |name: &str| {
        let found = form.iter().find(|field| field.name == name);
        found.map(|field| String::from_utf8_lossy(&field.value).into_owned())
    };
    let Some(sent) = form.iter().find(|field| field.name == "file") else {
        return match text("file_name") {
            Some(name) if call.provider == Provider::Together => redirect(state, call, name),
            _ => call.error(400, "the form has no file"),
        };
    };
    let purpose = text("purpose").unwrap_or_default();
    let wanted = match call.provider {
        Provider::Together => "batch-api",
        Provider::Xai => "",
        _ => "batch",
    };
    if !wanted.is_empty() && purpose != wanted {
        return call.error(400, &format!("'{purpose}' is not the purpose of batches; use '{wanted}'"));
    }
    let life = ["expires_after[seconds]", "expires_after.seconds"].into_iter().find_map(text);
    let life = match life.map(|life| life.parse::<f64>()) {
        None => call.provider.keeps_uploads(),
        Some(Ok(life)) if (LIFE.0..=LIFE.1).contains(&life) => life,
        Some(_) => {
            return call.error(400, &format!("expires_after[seconds] must be from {} to {}", LIFE.0, LIFE.1));
        }
    };
    let looks = if call.provider == Provider::Azure { AZURE_LOOKS * state.settings.delay } else { 0.0 };
    let name = sent.file.clone().or_else(|| text("file_name")).unwrap_or_else(|| "upload.jsonl".to_owned());
    let file = File {
        id: state.file_id(call.provider),
        account: call.account,
        name,
        purpose,
        kind: JSONL.to_owned(),
        bytes: sent.value.clone(),
        created: now,
        expires: now + life,
        ready: now + looks,
        batch: None,
        is_read: false,
    };
    let told = tell(call.provider, &file, state.epoch, now);
    match state.files.add(file) {
        Ok(()) => Reply::ok(told),
        Err(problem) => call.error(413, &problem),
    }
}

/// Together's SDK asks where to send a file to, and says when it has been sent.
fn redirect(state: &mut State, call: &Call, name: String) -> Reply {
    let id = state.file_id(Provider::Together);
    let session = Session { account: call.account, id: id.clone(), name, kind: JSONL.to_owned(), bytes: Vec::new() };
    if let Err(problem) = state.sessions.begin(id.clone(), session) {
        return call.error(429, &problem);
    }
    let url = format!("{}/together/v1/files/upload?upload_id={id}", call.origin);
    Reply::Headers(302, json!({}), vec![("location".to_owned(), url), ("x-together-file-id".to_owned(), id)])
}

fn put(state: &mut State, call: &Call) -> Reply {
    let key = call.param("upload_id").unwrap_or_default();
    // One that is sent again replaces what was cut.
    if let Some(session) = state.sessions.get(key) {
        session.bytes.clear();
    }
    match state.sessions.append(key, 0, &call.body) {
        Ok(_) => Reply::ok(json!({})),
        Err(problem) => call.error(404, &problem),
    }
}

fn preprocess(state: &mut State, call: &Call, id: &str, now: f64) -> Reply {
    let is_own = state.sessions.get(id).is_some_and(|session| session.account == call.account);
    let Some(session) = Some(()).filter(|()| is_own).and_then(|()| state.sessions.end(id)) else {
        return call.missing("File object", id);
    };
    let file = File {
        id: session.id,
        account: session.account,
        name: session.name,
        purpose: "batch-api".to_owned(),
        kind: session.kind,
        bytes: session.bytes.into(),
        created: now,
        expires: now + Provider::Together.keeps_uploads(),
        ready: now,
        batch: None,
        is_read: false,
    };
    let told = tell(call.provider, &file, state.epoch, now);
    match state.files.add(file) {
        Ok(()) => Reply::ok(told),
        Err(problem) => call.error(413, &problem),
    }
}

fn list(state: &mut State, call: &Call, now: f64) -> Reply {
    let purpose = call.param("purpose");
    let search = call.param("search");
    let all = state.files.list(call.account, now).filter(|file| {
        purpose.is_none_or(|purpose| file.purpose == purpose)
            && search.is_none_or(|search| file.name.contains(search) || file.id.contains(search))
    });
    let mut all: Vec<&File> = all.collect();
    if call.param("order") == Some("asc") {
        all.reverse();
    }
    let told = |files: &[&File]| -> Vec<Value> {
        files.iter().map(|file| tell(call.provider, file, state.epoch, now)).collect()
    };
    if call.provider == Provider::Together {
        return Reply::ok(json!({"data": told(&all)}));
    }
    if call.provider == Provider::Mistral {
        let page = call.param("page").and_then(|page| page.parse::<usize>().ok()).unwrap_or_default();
        let size = match call.number("page_size", 100, 1000) {
            Ok(size) => size,
            Err(reply) => return reply,
        };
        let from = page.saturating_mul(size).min(all.len());
        let data = told(&all[from..(from + size).min(all.len())]);
        return Reply::ok(json!({"data": data, "object": "list", "total": all.len()}));
    }
    let limit = match call.number("limit", 10_000, 10_000) {
        Ok(limit) => limit,
        Err(reply) => return reply,
    };
    let from = match call.param("after") {
        None => 0,
        Some(after) => match all.iter().position(|file| file.id == after) {
            Some(place) => place + 1,
            None => return call.missing("File object", after),
        },
    };
    let page = &all[from..(from + limit).min(all.len())];
    Reply::ok(json!({
        "object": "list", "data": told(page), "first_id": page.first().map(|file| &file.id),
        "last_id": page.last().map(|file| &file.id), "has_more": from + page.len() < all.len(),
    }))
}

/// A file as it is told.
#[allow(clippy::cast_possible_truncation)]
pub fn tell(provider: Provider, file: &File, epoch: f64, now: f64) -> Value {
    let created = (epoch + file.created) as i64;
    let expires = file.expires.is_finite().then_some((epoch + file.expires) as i64);
    let mut told = json!({
        "id": file.id, "object": "file", "bytes": file.bytes.len(), "created_at": created, "expires_at": expires,
        "filename": file.name, "purpose": file.purpose,
        "status": if now < file.ready { "pending" } else { "processed" }, "status_details": null,
    });
    if provider == Provider::Mistral {
        let lines = memchr::memchr_iter(b'\n', &file.bytes).count();
        let sample = if file.batch.is_some() { "batch_result" } else { "batch_request" };
        // Both are files "for batches" there.
        told = json!({
            "id": file.id, "object": "file", "bytes": file.bytes.len(), "size_bytes": file.bytes.len(),
            "created_at": created, "filename": file.name, "purpose": "batch", "sample_type": sample,
            "num_lines": lines, "mimetype": file.kind, "source": "upload", "signature": null, "deleted": false,
        });
    }
    if provider == Provider::Together {
        told["FileType"] = "jsonl".into();
        told["Processed"] = true.into();
        told["LineCount"] = memchr::memchr_iter(b'\n', &file.bytes).count().into();
    }
    told
}
