//! OpenAI's uploads in parts: begun, sent in any order, and put together as a file.

use http::Method;
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::files::File;
use super::multipart::fields;
use super::sessions::Session;
use super::state::State;
use super::uploads::tell;

/// Most bytes of a part.
const MOST_OF_PART: usize = 64 << 20;
/// For so many seconds an upload may be completed.
const LIFE: f64 = 3600.0;

/// Answers a request below `uploads`. `rest`: the parts of the path after it.
pub fn answer(state: &mut State, call: &Call, rest: &[&str], now: f64) -> Reply {
    match (&call.method, rest) {
        (&Method::POST, []) => begin(state, call, now),
        (&Method::POST, [id, "parts"]) => part(state, call, id, now),
        (&Method::POST, [id, "complete"]) => complete(state, call, id, now),
        (&Method::POST, [id, "cancel"]) => {
            if !is_own(state, call, id) {
                return call.missing("Upload", id);
            }
            state.sessions.end(id);
            Reply::ok(json!({"id": id, "object": "upload", "status": "cancelled"}))
        }
        _ => call.unknown(),
    }
}

fn is_own(state: &mut State, call: &Call, id: &str) -> bool {
    state.sessions.get(id).is_some_and(|session| session.account == call.account)
}

fn begin(state: &mut State, call: &Call, now: f64) -> Reply {
    let requested = match call.json() {
        Ok(requested) => requested,
        Err(reply) => return reply,
    };
    let text = |name: &str| requested.get(name).and_then(Value::as_str);
    let (Some(name), Some("batch")) = (text("filename"), text("purpose")) else {
        return call.error(400, "filename and purpose are required, and the purpose must be 'batch'");
    };
    let id = format!("upload_{}", state.letters("0123456789abcdef", 32));
    let session = Session {
        account: call.account,
        id: requested.get("bytes").and_then(Value::as_u64).unwrap_or_default().to_string(),
        name: name.to_owned(),
        kind: text("mime_type").unwrap_or_default().to_owned(),
        bytes: Vec::new(),
    };
    let told = upload(&id, &session, state.epoch + now, "pending");
    match state.sessions.begin(id, session) {
        Ok(()) => Reply::ok(told),
        Err(problem) => call.error(429, &problem),
    }
}

#[allow(clippy::cast_possible_truncation)]
fn upload(id: &str, session: &Session, unix: f64, status: &str) -> Value {
    json!({"id": id, "object": "upload", "bytes": session.id.parse::<u64>().unwrap_or_default(),
        "created_at": unix as i64, "filename": session.name, "purpose": "batch", "status": status,
        "expires_at": (unix + LIFE) as i64})
}

#[allow(clippy::cast_possible_truncation)]
fn part(state: &mut State, call: &Call, id: &str, now: f64) -> Reply {
    if !is_own(state, call, id) {
        return call.missing("Upload", id);
    }
    let form = match fields(call.header("content-type").unwrap_or_default(), &call.body) {
        Ok(form) => form,
        Err(problem) => return call.error(400, &problem),
    };
    let Some(data) = form.into_iter().find(|field| field.name == "data") else {
        return call.error(400, "the form has no data");
    };
    if data.value.len() > MOST_OF_PART {
        return call.error(400, &format!("a part may have {MOST_OF_PART} bytes"));
    }
    let part = format!("part_{}", state.letters("0123456789abcdef", 32));
    let session = Session { account: call.account, id: id.to_owned(), ..Session::default() };
    let kept = state.sessions.begin(part.clone(), session).and_then(|()| {
        let kept = state.sessions.append(&part, 0, &data.value);
        kept.inspect_err(|_| drop(state.sessions.end(&part)))
    });
    match kept {
        Ok(_) => {
            let created = (state.epoch + now) as i64;
            Reply::ok(json!({"id": part, "object": "upload.part", "created_at": created, "upload_id": id}))
        }
        Err(problem) => call.error(429, &problem),
    }
}

fn complete(state: &mut State, call: &Call, id: &str, now: f64) -> Reply {
    let requested = match call.json() {
        Ok(requested) => requested,
        Err(reply) => return reply,
    };
    if !is_own(state, call, id) {
        return call.missing("Upload", id);
    }
    let parts = requested.get("part_ids").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut bytes = Vec::new();
    for part in parts.clone() {
        match state.sessions.get(part).filter(|session| session.id == id) {
            Some(session) => bytes.extend_from_slice(&session.bytes),
            None => return call.missing("part", part),
        }
    }
    let length = state.sessions.get(id).and_then(|session| session.id.parse().ok());
    if length != Some(bytes.len()) {
        let message = format!("the parts have {} bytes, and {} were announced", bytes.len(), length.unwrap_or(0));
        return call.error(400, &message);
    }
    for part in parts {
        state.sessions.end(part);
    }
    let Some(session) = state.sessions.end(id) else { return call.missing("Upload", id) };
    let mut told = upload(id, &session, state.epoch + now, "completed");
    let file = File {
        id: state.file_id(call.provider),
        account: call.account,
        name: session.name,
        purpose: "batch".to_owned(),
        kind: session.kind,
        bytes: bytes.into(),
        created: now,
        expires: now + call.provider.keeps_uploads(),
        ready: now,
        batch: None,
        is_read: false,
    };
    told["file"] = tell(call.provider, &file, state.epoch, now);
    match state.files.add(file) {
        Ok(()) => Reply::ok(told),
        Err(problem) => call.error(413, &problem),
    }
}
