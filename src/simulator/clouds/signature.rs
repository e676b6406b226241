//! Signatures of AWS, version 4, as a server checks them: from what it has received, byte by byte. It shares no code with
//! the client's half, so that each is a second opinion on the other.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::request::Parts;
use ring::{digest, hmac};

/// How far the time of a signature may be from the server's.
const WINDOW: Duration = Duration::from_secs(300);

/// What a request says of its signature.
pub struct Given<'a> {
    /// The public half of the keys.
    pub id: &'a str,
    scope: &'a str,
    signed: Vec<&'a str>,
    signature: &'a str,
    date: &'a str,
}

/// Reads it. `None`: there is none.
pub fn read(headers: &HeaderMap) -> Option<Given<'_>> {
    let text = headers.get("authorization")?.to_str().ok()?.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let field = |name: &str| text.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
    let (id, scope) = field("Credential")?.split_once('/')?;
    Some(Given {
        id,
        scope,
        signed: field("SignedHeaders")?.split(';').collect(),
        signature: field("Signature")?,
        date: headers.get("x-amz-date")?.to_str().ok()?,
    })
}

/// Whether its time is about the server's.
///
/// # Errors
/// What is wrong, in the service's words.
pub fn is_timely(given: &Given<'_>, now: SystemTime) -> Result<(), String> {
    let Some(date) = seconds(given.date) else { return Err("Date must be in ISO-8601 'basic format'.".to_owned()) };
    let date = UNIX_EPOCH + Duration::from_secs(date);
    if date + WINDOW < now {
        return Err(format!("Signature expired: {} is now earlier than the server's time - 5 min.", given.date));
    }
    if date > now + WINDOW {
        return Err(format!(
            "Signature not yet current: {} is still later than the server's time + 5 min.",
            given.date
        ));
    }
    Ok(())
}

/// `20150830T123600Z` as seconds since 1970.
fn seconds(date: &str) -> Option<u64> {
    let time = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", date).ok()?.to_datetime().ok()?;
    u64::try_from(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second()).ok()
}

/// Whether it is the signature of this request with this secret.
///
/// # Errors
/// What is wrong, in the service's words, which hold the canonical request.
pub fn verify(given: &Given<'_>, secret: &str, head: &Parts, body: &[u8]) -> Result<(), String> {
    let parts: Vec<&str> = given.scope.split('/').collect();
    let [day, region, service, "aws4_request"] = parts[..] else {
        return Err("Credential should be scoped to a valid region and service.".to_owned());
    };
    if !given.date.starts_with(day) || service != "bedrock" && service != "sts" {
        return Err("Credential should be scoped to correct service.".to_owned());
    }
    let must: &[&str] = &["host", "x-amz-date", "x-amz-security-token"];
    if let Some(name) =
        must.iter().find(|name| (**name == "host" || head.headers.contains_key(**name)) && !given.signed.contains(name))
    {
        return Err(format!("'{name}' must be a signed header."));
    }
    let canonical = canonical(given, head, body);
    let text = format!("AWS4-HMAC-SHA256\n{}\n{}\n{}", given.date, given.scope, sha256(canonical.as_bytes()));
    let sign = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    let mut key = sign(format!("AWS4{secret}").as_bytes(), day);
    for part in [region, service, "aws4_request", &text] {
        key = sign(key.as_ref(), part);
    }
    if hex(key.as_ref()) == given.signature {
        return Ok(());
    }
    Err(format!(
        "The request signature we calculated does not match the signature you provided. The Canonical String for this \
         request should have been\n'{canonical}'"
    ))
}

fn canonical(given: &Given<'_>, head: &Parts, body: &[u8]) -> String {
    // What was sent is encoded once more, whatever it is.
    let path: String = head.uri.path().bytes().map(|byte| encoded(byte, true)).collect();
    let mut pairs: Vec<String> = head.uri.query().unwrap_or_default().split('&').map(str::to_owned).collect();
    pairs.sort();
    let host = head.uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let headers: String = given
        .signed
        .iter()
        .map(|name| {
            let values = head.headers.get_all(*name).iter().filter_map(|value| value.to_str().ok());
            let value = values.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
            // With HTTP/2 the host is no header.
            let value = if *name == "host" && value.is_empty() { host.to_owned() } else { value.join(",") };
            format!("{name}:{value}\n")
        })
        .collect();
    let (method, signed) = (head.method.as_str(), given.signed.join(";"));
    format!("{method}\n{path}\n{}\n{headers}\n{signed}\n{}", pairs.join("&"), sha256(body))
}

fn encoded(byte: u8, keeps_slashes: bool) -> String {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        b'/' if keeps_slashes => "/".to_owned(),
        byte => format!("%{byte:02X}"),
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
