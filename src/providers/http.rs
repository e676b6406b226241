//! What all native providers share: the client, and a request that ends in a body or a [`ProviderError`].

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::error::excerpt;
use super::{ProviderError, Transport, retry_after};

/// A client with pooled connections. Certificates are checked against the system's trust store; proxies come from
/// the usual environment variables. Redirects are not followed: no API sends any, and a key must not travel along.
///
/// # Errors
/// A message when the TLS stack cannot be set up.
pub fn client(transport: &Transport, headers: HeaderMap) -> Result<reqwest::Client, String> {
    // Whoever embeds us may have installed a provider already: then that one serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("batch-llm/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .connect_timeout(transport.connect_timeout)
        .pool_max_idle_per_host(transport.max_idle_connections)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| format!("the HTTP client could not be built: {}", describe(&error)))
}

/// A success reply.
pub struct Answer {
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Sends a request and reads the reply.
///
/// # Errors
/// [`ProviderError::Connection`], [`ProviderError::Timeout`], or [`ProviderError::Status`] for an error status.
pub async fn send(request: reqwest::RequestBuilder, max_body: usize) -> Result<Answer, ProviderError> {
    let mut response = request.send().await.map_err(|error| transport_error(&error))?;
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    let body = read_body(response, max_body).await?;
    if status.is_success() { Ok(Answer { headers, body }) } else { Err(status_error(status, &headers, &body)) }
}

async fn read_body(mut response: reqwest::Response, max_body: usize) -> Result<Bytes, ProviderError> {
    let too_long = |length| ProviderError::Connection {
        message: format!("the reply is longer than {max_body} bytes (at least {length}); raise max_body_bytes"),
    };
    let Some(first) = response.chunk().await.map_err(|error| transport_error(&error))? else {
        return Ok(Bytes::new());
    };
    if first.len() > max_body {
        return Err(too_long(first.len()));
    }
    // Nearly every reply is one chunk: only longer ones are copied together.
    let Some(second) = response.chunk().await.map_err(|error| transport_error(&error))? else {
        return Ok(first);
    };
    let mut body = Vec::with_capacity(first.len() + second.len());
    body.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(chunk) = next {
        body.extend_from_slice(&chunk);
        if body.len() > max_body {
            return Err(too_long(body.len()));
        }
        next = response.chunk().await.map_err(|error| transport_error(&error))?;
    }
    Ok(body.into())
}

/// The error object of OpenAI-like bodies: `{"error": {"message", "type", "code"}}`, `{"error": "text"}`, or flat.
#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorBody {
    Nested { error: ErrorObject },
    Text { error: String },
    Flat(ErrorObject),
}

#[derive(Deserialize)]
struct ErrorObject {
    message: String,
    #[serde(default, rename = "type")]
    kind: serde_json::Value,
    #[serde(default)]
    code: serde_json::Value,
}

fn status_error(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProviderError {
    let (message, code) = match serde_json::from_slice(body) {
        Ok(ErrorBody::Nested { error } | ErrorBody::Flat(error)) => {
            let code = [&error.code, &error.kind].into_iter().find_map(|value| value.as_str().map(str::to_owned));
            (error.message, code)
        }
        Ok(ErrorBody::Text { error }) => (error, None),
        Err(_) => match excerpt(body) {
            text if text.is_empty() => (status.canonical_reason().unwrap_or("no message").to_owned(), None),
            text => (text, None),
        },
    };
    ProviderError::Status {
        status: status.as_u16(),
        message,
        code,
        retry_after: retry_after::read(headers, SystemTime::now()),
        request_id: request_id(headers),
    }
}

/// The provider's id of a request.
pub fn request_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-request-id").or_else(|| headers.get("request-id"))?;
    value.to_str().ok().map(str::to_owned)
}

fn transport_error(error: &reqwest::Error) -> ProviderError {
    let message = describe(error);
    if error.is_timeout() { ProviderError::Timeout { message } } else { ProviderError::Connection { message } }
}

/// An error and its causes, without the URL: a user may have put a key into it.
fn describe(error: &reqwest::Error) -> String {
    let mut cause = std::error::Error::source(error);
    let mut parts = Vec::new();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if parts.last() != Some(&text) {
            parts.push(text);
        }
        cause = inner.source();
    }
    if parts.is_empty() { "request failed".to_owned() } else { parts.join(": ") }
}
