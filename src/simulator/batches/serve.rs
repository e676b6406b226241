//! Requests to batch endpoints as they come over the network, and the replies to them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::Batches;
use super::call::{Call, Download, Reply};
use super::provider::Provider;
use crate::simulator::dialect::Dialect;
use crate::simulator::dialects;
use crate::simulator::model::hash;
use crate::simulator::replies::{self, Body, Reset};

/// What a request may be longer than the lines in it, bytes.
const AROUND: usize = 1 << 20;
/// Longest file that is taken in any provider's place, bytes.
const LONGEST_FILE: usize = 512 << 20;
/// Headers that may carry a key.
const KEYS: [&str; 4] = ["authorization", "x-api-key", "api-key", GOOGLES_KEY];
const GOOGLES_KEY: &str = "x-goog-api-key";
/// Headers that tell accounts of one key apart.
const ACCOUNTS: [&str; 3] = ["openai-project", "openai-organization", "anthropic-workspace-id"];

/// What ids come after.
const COLLECTIONS: [&str; 4] = ["/batches/", "/files/", "/jobs/", "/uploads/"];

/// Whose imitation answers a path.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    provider: Provider,
    /// The path after the version.
    path: String,
}

/// Where a request leads, if it is one of batches. Google's SDK also has its paths below `/v1`, where OpenAI has others of
/// the same names: what carries Google's key is for Google.
pub fn route(head: &Parts) -> Option<Route> {
    route_of(head.uri.path(), head.headers.contains_key(GOOGLES_KEY))
}

fn route_of(path: &str, is_google: bool) -> Option<Route> {
    let (below, rest) = dialects::below(path);
    let to = |provider: Provider, path: &str| Some(Route { provider, path: path.trim_end_matches('/').to_owned() });
    let is_of = |path: &str, names: &[&str]| names.contains(&path.split('/').next().unwrap_or_default());
    if let Some(provider) = below.and_then(Provider::from_name) {
        let path = rest.strip_prefix("/v1/").filter(|path| is_of(path, &["files", "uploads", "batches", "batch"]))?;
        return to(provider, path);
    }
    for direction in ["upload", "download"] {
        let path = rest.strip_prefix('/').and_then(|rest| rest.strip_prefix(direction));
        if let Some(path) = path.and_then(|path| path.strip_prefix("/v1beta/").or_else(|| path.strip_prefix("/v1/"))) {
            return is_of(path, &["files"]).then(|| to(Provider::Gemini, &format!("{direction}/{path}"))).flatten();
        }
    }
    let (path, is_beta) = match rest.strip_prefix("/v1beta/") {
        Some(path) => (path, true),
        None => (rest.strip_prefix("/v1/")?, false),
    };
    let verb = path.rsplit_once(':').map(|(_, verb)| verb);
    if matches!(verb, Some("batchGenerateContent" | "asyncBatchEmbedContent")) {
        return to(Provider::Gemini, path);
    }
    let provider = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["files" | "batches", ..] if is_beta || is_google => Provider::Gemini,
        ["files" | "uploads" | "batches", ..] => Provider::OpenAi,
        ["messages", "batches", ..] if !is_beta => Provider::Anthropic,
        ["batch", "jobs", ..] if !is_beta => Provider::Mistral,
        _ => return None,
    };
    to(provider, path)
}

/// A path as it is counted: without the ids that are in those of batches.
pub fn counted(path: &str) -> Cow<'_, str> {
    if !COLLECTIONS.iter().any(|name| path.contains(name)) || route_of(path, false).is_none() {
        return Cow::Borrowed(path);
    }
    let mut is_id = false;
    let parts = path.split('/').map(|part| {
        let verb = part.find(':').map_or("", |at| &part[at..]);
        let shown = if is_id { format!("ID{verb}") } else { part.to_owned() };
        is_id = COLLECTIONS.iter().any(|name| name.trim_matches('/') == part);
        shown
    });
    Cow::Owned(parts.collect::<Vec<_>>().join("/"))
}

impl Route {
    /// The dialect of the provider's errors.
    pub fn dialect(&self) -> &'static dyn Dialect {
        match self.provider {
            Provider::Anthropic => dialects::MESSAGES,
            Provider::Gemini => dialects::CACHES,
            _ => dialects::DEFAULT,
        }
    }

    fn is_upload(&self, head: &Parts) -> bool {
        let is_file = self.path == "files" || self.path == "files/upload" || self.path.starts_with("upload/");
        let is_part = self.path.starts_with("uploads/") && self.path.ends_with("/parts");
        (is_file || is_part) && head.method != http::Method::GET && !self.begins_session(head)
    }

    /// Whether it only asks where to send a file to.
    fn begins_session(&self, head: &Parts) -> bool {
        head.headers.get("x-goog-upload-command").is_some_and(|command| command == "start")
    }
}

/// Reads the body of a request.
///
/// # Errors
/// The reply to a body that is too long or was cut, or that is not read to its end.
pub async fn receive(
    batches: &Batches,
    route: &Route,
    head: &Parts,
    body: Incoming,
    number: u64,
) -> Result<Bytes, Result<Response<Body>, Reset>> {
    let is_upload = route.is_upload(head);
    if is_upload && batches.cuts_upload() {
        half(head, body).await;
        return Err(Err(Reset));
    }
    let longest =
        if is_upload { LONGEST_FILE } else { batches.settings.most_bytes(route.provider).max(AROUND) } + AROUND;
    match Limited::new(body, longest).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => {
            let message = format!("the body was truncated, or is longer than {longest} bytes");
            if error.is::<LengthLimitError>() {
                batches.ledger.open().violated(batches.clock.now(), "size", message.clone());
            }
            Err(Ok(replies::json(413, &route.provider.error(413, None, &message), number)))
        }
    }
}

/// Reads half of a body.
async fn half(head: &Parts, mut body: Incoming) {
    let length = head.headers.get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut left: usize = length.unwrap_or(AROUND) / 2;
    let mut read = BytesMut::new();
    while left > 0 {
        let Some(Ok(frame)) = body.frame().await else { return };
        let length = frame.data_ref().map_or(0, Bytes::len);
        left = left.saturating_sub(length);
        read.clear();
    }
}

/// Answers a request.
///
/// # Errors
/// When the connection is to be closed without a reply.
pub async fn answer(
    batches: &Arc<Batches>,
    route: Route,
    head: &Parts,
    body: Bytes,
    api_key: Option<&str>,
    number: u64,
) -> Result<Response<Body>, Reset> {
    let query = head.uri.query().unwrap_or_default();
    let query: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let key = key_of(head, &query);
    let provider = route.provider;
    // An address that was given out for an upload is its own key.
    let is_given = query.iter().any(|(name, _)| name == "upload_id");
    if !is_given && api_key.is_some_and(|right| key != right) {
        return Ok(replies::json(
            401,
            &provider.error(401, Some("invalid_api_key"), "the API key is not valid"),
            number,
        ));
    }
    let call = Call {
        provider,
        method: head.method.clone(),
        path: route.path,
        query,
        account: account_of(head, &key),
        headers: head.headers.clone(),
        origin: origin_of(head),
        body,
    };
    // A large batch is read for a second, in which others are answered.
    let (batches, clock) = (Arc::clone(batches), Arc::clone(batches));
    let reply = tokio::task::spawn_blocking(move || batches.answer(&call)).await.unwrap_or(Reply::Reset);
    let mut response = respond(reply, number)?;
    // Clients compare the server's clock with theirs, and with the times of batches.
    if let Ok(date) = HeaderValue::try_from(clock.clock.date()) {
        response.headers_mut().insert(http::header::DATE, date);
    }
    Ok(response)
}

fn key_of(head: &Parts, query: &[(String, String)]) -> String {
    let header = |name: &&str| head.headers.get(*name).and_then(|value| value.to_str().ok());
    let named = query.iter().filter(|(name, _)| name == "key").map(|(_, value)| value.as_str());
    let given = KEYS.iter().filter_map(header).chain(named).map(|key| key.strip_prefix("Bearer").unwrap_or(key).trim());
    given.into_iter().find(|key| !key.is_empty()).unwrap_or_default().to_owned()
}

fn account_of(head: &Parts, key: &str) -> u64 {
    let more = ACCOUNTS.iter().filter_map(|name| head.headers.get(*name));
    more.fold(hash(0, key.as_bytes()), |account, value| hash(account, value.as_bytes()))
}

/// Scheme and host under which the client knows this server.
fn origin_of(head: &Parts) -> String {
    let host = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or(head.uri.authority().map(http::uri::Authority::as_str)).unwrap_or("127.0.0.1");
    let is_tls = head.extensions.get::<Encrypted>().is_some();
    format!("{}://{host}", if is_tls { "https" } else { "http" })
}

/// Marks requests of encrypted connections.
#[derive(Debug, Clone, Copy)]
pub struct Encrypted;

fn respond(reply: Reply, number: u64) -> Result<Response<Body>, Reset> {
    Ok(match reply {
        Reply::Json(status, value) => replies::json(status, &value, number),
        Reply::Headers(status, value, headers) => {
            let mut response = replies::json(status, &value, number);
            replies::add(response.headers_mut(), headers);
            response
        }
        Reply::Download(Download { bytes, kind, is_cut }) => replies::download(bytes, kind, is_cut, number),
        Reply::Reset => return Err(Reset),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_providers() {
        for (path, provider, rest) in [
            ("/v1/files", Provider::OpenAi, "files"),
            ("/v1/batches/b/cancel", Provider::OpenAi, "batches/b/cancel"),
            ("/openai/v1/files/f", Provider::Azure, "files/f"),
            ("/azure/openai/v1/batches", Provider::Azure, "batches"),
            ("/groq/openai/v1/batches", Provider::Groq, "batches"),
            ("/mistral/v1/batch/jobs", Provider::Mistral, "batch/jobs"),
            ("/v1/batch/jobs/j", Provider::Mistral, "batch/jobs/j"),
            ("/together/v1/files/upload", Provider::Together, "files/upload"),
            ("/xai/v1/batches/b:cancel", Provider::Xai, "batches/b:cancel"),
            ("/api/v1/batches", Provider::OpenRouter, "batches"),
            ("/openrouter/api/v1/batches", Provider::OpenRouter, "batches"),
            ("/v1/messages/batches", Provider::Anthropic, "messages/batches"),
            ("/v1beta/batches/b:cancel", Provider::Gemini, "batches/b:cancel"),
            ("/upload/v1beta/files", Provider::Gemini, "upload/files"),
            ("/v1beta/models/m:batchGenerateContent", Provider::Gemini, "models/m:batchGenerateContent"),
        ] {
            assert_eq!(route_of(path, false), Some(Route { provider, path: rest.to_owned() }), "{path}");
        }
        for (path, rest) in
            [("/v1/batches", "batches"), ("/upload/v1/files", "upload/files"), ("/v1/files/f", "files/f")]
        {
            assert_eq!(
                route_of(path, true),
                Some(Route { provider: Provider::Gemini, path: rest.to_owned() }),
                "{path}"
            );
        }
        for path in ["/v1/chat/completions", "/v1/messages", "/v1beta/models/m:generateContent", "/xai/v1/models", "/"]
        {
            assert_eq!(route_of(path, false), None, "{path}");
        }
    }

    #[test]
    fn paths_are_counted_without_ids() {
        for (path, told) in [
            ("/v1/batches/batch_1/cancel", "/v1/batches/ID/cancel"),
            ("/v1beta/batches/b:cancel", "/v1beta/batches/ID:cancel"),
            ("/v1/files", "/v1/files"),
            ("/v1/messages/batches/b/results", "/v1/messages/batches/ID/results"),
            ("/elsewhere/files/a", "/elsewhere/files/a"),
        ] {
            assert_eq!(counted(path), told);
        }
    }
}
