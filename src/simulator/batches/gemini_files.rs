//! Files of Gemini's API: uploaded in a session, and downloaded if they are results.

use std::fmt::Write as _;

use http::Method;
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::clock::rfc3339;
use super::files::File;
use super::provider::Provider;
use super::sessions::Session;
use super::state::State;

/// Most letters of a file's id; that of results is longer, so that they cannot be deleted.
const LONGEST_ID: usize = 40;
const PAGE: (usize, usize) = (10, 100);

/// Answers a request. `path`: its parts after the version, or from `upload` or `download` on.
pub fn answer(state: &mut State, call: &Call, path: &[&str], now: f64) -> Reply {
    match (&call.method, path) {
        (&Method::POST, ["upload", "files"]) => match call.header("x-goog-upload-command") {
            Some("start") => begin(state, call, now),
            Some(command) => go_on(state, call, command, now),
            None => call.error(400, "X-Goog-Upload-Protocol must be 'resumable', with X-Goog-Upload-Command"),
        },
        (&Method::GET, ["files"]) => list(state, call, now),
        (&Method::GET, ["download", "files", rest] | ["files", rest]) if rest.ends_with(":download") => {
            download(state, call, rest.trim_end_matches(":download"), now)
        }
        (&Method::GET, ["files", id]) => {
            let epoch = state.epoch;
            match state.files.get(&format!("files/{id}"), call.account, now) {
                Some(file) => Reply::ok(tell(call, file, epoch)),
                None => forbidden(call, id),
            }
        }
        (&Method::DELETE, ["files", id]) => {
            state.ledger.open().called("delete");
            if id.len() > LONGEST_ID {
                return call.error(400, &format!("the name of a file has at most {LONGEST_ID} characters"));
            }
            let name = format!("files/{id}");
            if state.files.get(&name, call.account, now).is_none() {
                return forbidden(call, id);
            }
            state.files.remove(&name);
            Reply::ok(json!({}))
        }
        _ => call.unknown(),
    }
}

fn forbidden(call: &Call, id: &str) -> Reply {
    call.error(403, &format!("You do not have permission to access the File {id} or it may not exist."))
}

fn begin(state: &mut State, call: &Call, now: f64) -> Reply {
    let requested = match call.json() {
        Ok(requested) => requested,
        Err(reply) => return reply,
    };
    let text = |name: &str| requested.pointer(name).and_then(Value::as_str).map(str::to_owned);
    let id = match text("/file/name") {
        None => state.file_id(Provider::Gemini),
        Some(name) => {
            let id = name.strip_prefix("files/").unwrap_or(&name).to_owned();
            let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
            if id.is_empty() || id.len() > LONGEST_ID || !id.chars().all(is_letter) {
                let rule = "lower-case letters, digits and hyphens";
                return call.error(400, &format!("file.name must have 1 to {LONGEST_ID} {rule}"));
            }
            format!("files/{id}")
        }
    };
    if state.files.get(&id, call.account, now).is_some() {
        return call.error(409, &format!("The file {id} already exists."));
    }
    let label = text("/file/displayName").or_else(|| text("/file/display_name")).unwrap_or_default();
    let kind = call.header("x-goog-upload-header-content-type").map(str::to_owned);
    let kind = kind.or_else(|| text("/file/mimeType")).unwrap_or_else(|| "application/octet-stream".to_owned());
    let key = state.letters("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", 40);
    let session = Session { account: call.account, id, name: label, kind, bytes: Vec::new() };
    if let Err(problem) = state.sessions.begin(key.clone(), session) {
        return call.error(429, &problem);
    }
    let url = format!("{}/upload/v1beta/files?upload_id={key}&upload_protocol=resumable", call.origin);
    Reply::Headers(200, json!({}), headers("active", Some(url)))
}

fn headers(status: &str, url: Option<String>) -> Vec<(String, String)> {
    let url = url.map(|url| ("x-goog-upload-url".to_owned(), url));
    [("x-goog-upload-status".to_owned(), status.to_owned())].into_iter().chain(url).collect()
}

fn go_on(state: &mut State, call: &Call, command: &str, now: f64) -> Reply {
    let Some(key) = call.param("upload_id").map(str::to_owned) else {
        return call.error(400, "the address has no upload_id");
    };
    if command == "query" {
        let Some(session) = state.sessions.get(&key) else { return call.error(404, "there is no such upload") };
        let mut told = headers("active", None);
        told.push(("x-goog-upload-size-received".to_owned(), session.bytes.len().to_string()));
        return Reply::Headers(200, json!({}), told);
    }
    if command == "cancel" {
        state.sessions.end(&key);
        return Reply::Headers(200, json!({}), headers("cancelled", None));
    }
    let words: Vec<&str> = command.split(',').map(str::trim).collect();
    if words.contains(&"upload") {
        let offset = call.header("x-goog-upload-offset").and_then(|offset| offset.parse().ok()).unwrap_or_default();
        if let Err(problem) = state.sessions.append(&key, offset, &call.body) {
            return call.error(400, &problem);
        }
    }
    if !words.contains(&"finalize") {
        return Reply::Headers(200, json!({}), headers("active", None));
    }
    let Some(session) = state.sessions.end(&key) else { return call.error(404, "there is no such upload") };
    let file = File {
        id: session.id,
        account: session.account,
        name: session.name,
        purpose: "batch".to_owned(),
        kind: session.kind,
        bytes: session.bytes.into(),
        created: now,
        expires: now + Provider::Gemini.keeps_uploads(),
        ready: now,
        batch: None,
        is_read: false,
    };
    let told = json!({"file": tell(call, &file, state.epoch)});
    match state.files.add(file) {
        Ok(()) => Reply::Headers(200, told, headers("final", None)),
        Err(problem) => call.error(429, &problem),
    }
}

fn list(state: &State, call: &Call, now: f64) -> Reply {
    let all: Vec<&File> = state.files.list(call.account, now).collect();
    let size = match call.number("pageSize", PAGE.0, PAGE.1) {
        Ok(size) => size,
        Err(reply) => return reply,
    };
    let from = match call.param("pageToken").filter(|token| !token.is_empty()) {
        None => 0,
        Some(token) => match all.iter().position(|file| file.id.ends_with(token)) {
            Some(place) => place + 1,
            None => return call.error(400, "the page token is not valid"),
        },
    };
    let page = &all[from..(from + size).min(all.len())];
    let files: Vec<Value> = page.iter().map(|file| tell(call, file, state.epoch)).collect();
    let mut told = json!({});
    if !files.is_empty() {
        told["files"] = files.into();
    }
    if let Some(last) = page.last().filter(|_| from + page.len() < all.len()) {
        told["nextPageToken"] = last.id.trim_start_matches("files/").into();
    }
    Reply::ok(told)
}

fn download(state: &mut State, call: &Call, id: &str, now: f64) -> Reply {
    let name = format!("files/{id}");
    if state.files.get(&name, call.account, now).is_some_and(|file| file.batch.is_none()) {
        return call.error(400, "Only generated files can be downloaded.");
    }
    match state.download(&name, call.account, now) {
        Some(found) => Reply::Download(found),
        None => forbidden(call, id),
    }
}

fn tell(call: &Call, file: &File, epoch: f64) -> Value {
    let at = |at: f64| rfc3339(epoch + at);
    let uri = format!("{}/v1beta/{}", call.origin, file.id);
    let digest = ring::digest::digest(&ring::digest::SHA256, &file.bytes);
    let hex = digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let mut told = json!({
        "name": file.id, "mimeType": file.kind, "sizeBytes": file.bytes.len().to_string(),
        "createTime": at(file.created), "updateTime": at(file.created), "expirationTime": at(file.expires),
        "sha256Hash": hex, "uri": uri, "state": "ACTIVE",
        "source": if file.batch.is_some() { "GENERATED" } else { "UPLOADED" },
    });
    if !file.name.is_empty() {
        told["displayName"] = file.name.clone().into();
    }
    if file.batch.is_some() {
        told["downloadUri"] = format!("{}/download/v1beta/{}:download?alt=media", call.origin, file.id).into();
    }
    told
}
