//! Requests for credentials: small, bounded in size and time, tried again where that may help. What comes back is shown
//! only without the secrets that were sent. Used by the sources of credentials.

use std::time::Duration;

use reqwest::{Client, Method, Url};
use serde_json::Value;
use url::Host;

use super::failure::Failure;
use crate::providers::shown::escape_controls;

/// Longest reply, bytes.
const LONGEST: usize = 256 << 10;
/// Longest part of an error that is shown, characters.
const SHOWN: usize = 300;
/// Of a request over the internet.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of a request to the service of the machine itself.
const NEAR_PATIENCE: Duration = Duration::from_secs(3);
const TRIES: u32 = 3;

/// Two ways to send requests.
#[derive(Clone)]
pub struct Http {
    /// To servers on the internet, as the user's transport goes there.
    outside: Client,
    /// To the service of this machine, past all proxies.
    near: Client,
}

/// A request for credentials.
pub struct Request<'a> {
    /// Whom it asks, for errors.
    pub who: &'a str,
    /// The method.
    pub method: Method,
    /// Where it goes.
    pub url: &'a str,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// Further headers, which a file names.
    pub more: Vec<(String, String)>,
    /// Its body.
    pub body: Option<String>,
    /// What no error may show.
    pub secrets: Vec<&'a str>,
    /// Statuses beside the usual ones after which it is tried again.
    pub passing: &'static [u16],
}

impl<'a> Request<'a> {
    /// A `GET`.
    pub fn get(who: &'a str, url: &'a str) -> Self {
        let (headers, more, secrets) = (Vec::new(), Vec::new(), Vec::new());
        Self { who, method: Method::GET, url, headers, more, body: None, secrets, passing: &[] }
    }

    /// A form that is posted.
    pub fn form(who: &'a str, url: &'a str, fields: &[(&str, &str)]) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let headers = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
        Self { method: Method::POST, headers, body: Some(body), ..Self::get(who, url) }
    }

    /// JSON that is posted.
    pub fn json(who: &'a str, url: &'a str, body: &Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { method: Method::POST, headers, body: Some(body.to_string()), ..Self::get(who, url) }
    }

    /// The same with a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same, whose errors must not show these.
    #[must_use]
    pub fn hiding(mut self, secrets: &[&'a str]) -> Self {
        self.secrets.extend(secrets);
        self
    }
}

impl Http {
    /// `outside`: sends over the internet.
    ///
    /// # Errors
    /// When there can be no such client.
    pub fn new(outside: Client) -> Result<Self, String> {
        let near = Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(1))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_| "the HTTP client for credentials could not be built".to_owned())?;
        Ok(Self { outside, near })
    }

    /// The text of the reply.
    ///
    /// # Errors
    /// What went wrong, without secrets.
    pub async fn text(&self, request: &Request<'_>) -> Result<String, Failure> {
        let url = checked(request)?;
        let is_near = url.scheme() == "http";
        let mut tries = 0;
        loop {
            tries += 1;
            let limit = if is_near { NEAR_PATIENCE } else { PATIENCE };
            let sending = self.send(request, url.clone(), is_near);
            let outcome = tokio::time::timeout(limit, sending).await;
            let (may_pass, failure) = match outcome {
                Ok(Ok((200..300, text))) => return Ok(text),
                Ok(Ok((status, text))) => {
                    let may_pass = matches!(status, 429 | 500..) || request.passing.contains(&status);
                    (may_pass, request.error_reply(status, &text, may_pass))
                }
                Ok(Err(())) => (true, Failure::away(format!("{} ({}) cannot be reached", request.who, shown(&url)))),
                Err(_) => {
                    let message = format!("{} ({}) did not answer within", request.who, shown(&url));
                    (true, Failure::away(format!("{message} {} s", limit.as_secs())))
                }
            };
            if !may_pass || tries >= TRIES {
                return Err(failure);
            }
            tokio::time::sleep(Duration::from_millis(250 << tries)).await;
        }
    }

    /// The reply as JSON.
    ///
    /// # Errors
    /// As [`text`](Self::text), and when it is none.
    pub async fn json(&self, request: &Request<'_>) -> Result<Value, Failure> {
        let text = self.text(request).await?;
        serde_json::from_str(&text).map_err(|_| Failure::away(format!("the reply of {} is not JSON", request.who)))
    }

    async fn send(&self, request: &Request<'_>, url: Url, is_near: bool) -> Result<(u16, String), ()> {
        let client = if is_near { &self.near } else { &self.outside };
        let mut sending = client.request(request.method.clone(), url);
        for (name, value) in &request.headers {
            sending = sending.header(*name, value);
        }
        for (name, value) in &request.more {
            sending = sending.header(name, value);
        }
        if let Some(body) = &request.body {
            sending = sending.body(body.clone());
        }
        // What is wrong may show the address, which may hold a secret.
        let mut response = sending.send().await.map_err(drop)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(drop)? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST {
                return Err(());
            }
        }
        Ok((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
    }
}

impl Request<'_> {
    /// What an error reply says.
    fn error_reply(&self, status: u16, body: &str, may_pass: bool) -> Failure {
        let said = serde_json::from_str::<Value>(body).ok().and_then(|value| words(&value));
        let mut said = said.or_else(|| tag(body, "Message").map(str::to_owned)).unwrap_or_default();
        for secret in self.secrets.iter().filter(|secret| secret.len() >= 4) {
            said = said.replace(secret, "[REDACTED]");
        }
        if let Some((end, _)) = said.char_indices().nth(SHOWN) {
            said.truncate(end);
        }
        escape_controls(&mut said);
        let colon = if said.is_empty() { "" } else { ": " };
        let message = format!("{} answered with HTTP {status}{colon}{said}", self.who);
        if may_pass { Failure::away(message) } else { Failure::rejected(message) }
    }
}

/// The words of an error: those of OAuth (RFC 6749, section 5.2), of Google's APIs, of AWS.
fn words(value: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let error = value.get("error");
    let parts: Vec<String> = [
        error.and_then(text),
        error.and_then(|error| text(error.get("message")?)),
        value.get("error_description").and_then(text),
        value.get("message").or(value.get("Message")).and_then(text),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!parts.is_empty()).then(|| parts.join(": "))
}

/// What stands between the first tags of this name in XML that has no other structure of interest.
pub fn tag<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner.trim())
}

/// An address without its query, which may hold a token.
fn shown(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Credentials are sent and fetched over TLS, or within this machine and its host.
fn checked(request: &Request<'_>) -> Result<Url, Failure> {
    let wrong = |problem| Failure::rejected(format!("the address of {} {problem}", request.who));
    let url = Url::parse(request.url).map_err(|_| wrong("is not a valid URL"))?;
    let is_near = match url.host() {
        Some(Host::Domain(name)) => {
            name == "localhost" || name.ends_with(".localhost") || name == "metadata.google.internal"
        }
        Some(Host::Ipv4(number)) => number.is_loopback() || number.is_link_local(),
        // fd00:ec2::254 and fd00:ec2::23 are AWS's.
        Some(Host::Ipv6(number)) => number.to_canonical().is_loopback() || number.is_unique_local(),
        None => return Err(wrong("has no host")),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_near => Ok(url),
        _ => Err(wrong("must begin with https://")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_over_tls_or_stay_here() {
        let check = |url| checked(&Request::get("it", url)).is_ok();
        for url in [
            "https://sts.amazonaws.com",
            "http://169.254.169.254/latest",
            "http://127.0.0.1:80/x",
            "http://[fd00:ec2::254]/x",
            "http://metadata.google.internal/x",
        ] {
            assert!(check(url), "{url}");
        }
        for url in ["http://sts.amazonaws.com", "http://10.0.0.1/", "ftp://localhost", "x", "file:///etc/passwd"] {
            assert!(!check(url), "{url}");
        }
    }

    #[test]
    fn errors_show_no_secrets() {
        let request = Request::get("the token endpoint", "https://h").hiding(&["s3cret-value"]);
        let failure =
            request.error_reply(400, r#"{"error":"invalid_grant","error_description":"s3cret-value is\nbad"}"#, false);
        let text = format!("{failure:?}");
        assert!(text.contains("invalid_grant: [REDACTED] is") && !text.contains("s3cret"), "{text}");
        let xml = "<ErrorResponse><Error><Message>no such role</Message></Error></ErrorResponse>";
        assert!(format!("{:?}", request.error_reply(403, xml, false)).contains("HTTP 403: no such role"));
    }
}
