//! AWS Signature Version 4: what proves that a request comes from who has a secret key, which is not sent.
//!
//! As AWS's reference describes it (2026), with the path encoded once more than it is sent, as every service but S3 wants
//! it. Pure: the time is an argument. Used by [`signer`](super::signer), and by [`aws`](super::aws) for STS.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderValue;
use reqwest::Url;
use ring::{digest, hmac};
use secrecy::{ExposeSecret, SecretString};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DAY: u64 = 86_400;

/// Credentials of AWS.
pub struct AwsKeys {
    /// The public half.
    pub id: String,
    secret: SecretString,
    /// Of those that end.
    pub session: Option<SecretString>,
    /// The session, as it is sent.
    pub session_header: Option<HeaderValue>,
    prepared: Mutex<Option<Arc<Prepared>>>,
}

/// What signatures of one second have in common that are for the same address: all but the body's digest. The token of a
/// session is hashed here, which is longer than all the rest.
struct Prepared {
    /// Seconds since 1970.
    since: u64,
    scope: Scope,
    method: String,
    url: Url,
    headers: Vec<(String, String)>,
    date: String,
    /// The canonical request up to the body's digest.
    canonical: digest::Context,
    /// What is signed, up to the digest of the canonical request, with the key of the day.
    to_sign: hmac::Context,
    /// The header up to the signature.
    authorization: String,
}

/// What a signature is valid for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The region.
    pub region: String,
    /// The service's name in signatures.
    pub service: &'static str,
}

/// A request as it is signed.
pub struct ToSign<'a> {
    /// The method.
    pub method: &'a str,
    /// Where it goes.
    pub url: &'a Url,
    /// Headers beside `host` and those of the signature itself, names in lower case.
    pub headers: &'a [(&'a str, &'a str)],
    /// The SHA-256 of the body, in hexadecimal digits.
    pub payload: &'a str,
}

/// The values of the headers that a signed request has.
pub struct Signature {
    /// `authorization`.
    pub authorization: String,
    /// `x-amz-date`.
    pub date: String,
}

impl AwsKeys {
    /// A pair of keys, and the token of a session if they are of one.
    pub fn new(id: String, secret: SecretString, session: Option<SecretString>) -> Self {
        let session_header = session.as_ref().map(|token| sensitive(token.expose_secret().to_owned()));
        Self { id, secret, session, session_header, prepared: Mutex::new(None) }
    }

    /// The secret key, for what must not show it.
    pub fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// What the request has in common with others. Nearly always that is what the one before had.
    fn prepared(&self, request: &ToSign<'_>, scope: &Scope, since: u64) -> Arc<Prepared> {
        let mut known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| known.is_of(request, scope, since)) {
            return Arc::clone(known);
        }
        let fresh = Arc::new(self.prepare(request, scope, since));
        *known = Some(Arc::clone(&fresh));
        fresh
    }

    fn prepare(&self, request: &ToSign<'_>, scope: &Scope, since: u64) -> Prepared {
        let date = instant(since);
        let day = &date[..8];
        let first = format!("AWS4{}", self.secret.expose_secret());
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, first.as_bytes());
        for part in [day, &scope.region, scope.service, "aws4_request"] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
        }
        let (text, signed) = canonical(request, &date, self.session.as_ref().map(ExposeSecret::expose_secret));
        let mut canonical = digest::Context::new(&digest::SHA256);
        canonical.update(text.as_bytes());
        let range = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
        let mut to_sign = hmac::Context::with_key(&key);
        to_sign.update(format!("{ALGORITHM}\n{date}\n{range}\n").as_bytes());
        let authorization = format!("{ALGORITHM} Credential={}/{range}, SignedHeaders={signed}, Signature=", self.id);
        let headers = request.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (scope, method, url) = (scope.clone(), request.method.to_owned(), request.url.clone());
        Prepared { since, scope, method, url, headers, date, canonical, to_sign, authorization }
    }

    /// Signs a request that is sent at a time.
    pub fn sign(&self, request: &ToSign<'_>, scope: &Scope, at: SystemTime) -> Signature {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let prepared = self.prepared(request, scope, since);
        let mut canonical = prepared.canonical.clone();
        canonical.update(request.payload.as_bytes());
        let mut to_sign = prepared.to_sign.clone();
        to_sign.update(hex(canonical.finish().as_ref()).as_bytes());
        let authorization = format!("{}{}", prepared.authorization, hex(to_sign.sign().as_ref()));
        Signature { authorization, date: prepared.date.clone() }
    }
}

impl Prepared {
    fn is_of(&self, request: &ToSign<'_>, scope: &Scope, since: u64) -> bool {
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.since == since
            && self.method == request.method
            && self.url == *request.url
            && self.scope == *scope
            && headers.eq(request.headers.iter().copied())
    }
}

/// A header's value that is not shown. What cannot be sent in a header is no credential; the server says what is missing.
pub fn sensitive(text: String) -> HeaderValue {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// The request in the one way to write it, up to the digest of its body, and the names of its headers.
fn canonical(request: &ToSign<'_>, date: &str, session: Option<&str>) -> (String, String) {
    let host = host_of(request.url);
    let mut headers: Vec<(&str, &str)> = Vec::with_capacity(request.headers.len() + 3);
    headers.extend_from_slice(request.headers);
    headers.push(("host", &host));
    headers.push(("x-amz-date", date));
    headers.extend(session.map(|token| ("x-amz-security-token", token)));
    headers.sort_by_key(|(name, _)| *name);
    let mut out = String::with_capacity(512 + session.map_or(0, str::len));
    out.push_str(request.method);
    out.push('\n');
    encode(request.url.path(), true, &mut out);
    out.push('\n');
    query(request.url, &mut out);
    out.push('\n');
    for (name, value) in &headers {
        out.push_str(name);
        out.push(':');
        for (place, word) in value.split_ascii_whitespace().enumerate() {
            if place > 0 {
                out.push(' ');
            }
            out.push_str(word);
        }
        out.push('\n');
    }
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let signed = names.join(";");
    out.push('\n');
    out.push_str(&signed);
    out.push('\n');
    (out, signed)
}

/// The host as the client sends it: with its port if that is not the scheme's usual one.
fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn query(url: &Url, out: &mut String) {
    let mut pairs: Vec<(String, String)> = url
        .query_pairs()
        .map(|(name, value)| {
            let encoded = |text: &str| {
                let mut out = String::new();
                encode(text, false, &mut out);
                out
            };
            (encoded(&name), encoded(&value))
        })
        .collect();
    pairs.sort();
    for (place, (name, value)) in pairs.iter().enumerate() {
        let and = if place > 0 { "&" } else { "" };
        // Writing to a string does not fail.
        let _ = write!(out, "{and}{name}={value}");
    }
}

/// Percent-encoding of all but unreserved characters (RFC 3986, section 2.3), and perhaps slashes.
pub fn encode(text: &str, keeps_slashes: bool, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keeps_slashes && byte == b'/') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// The SHA-256 of what comes in parts, in hexadecimal digits.
pub fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.into_iter().for_each(|part| context.update(part));
    hex(context.finish().as_ref())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

/// Seconds since 1970 as `20150830T123600Z`.
fn instant(seconds: u64) -> String {
    let (days, rest) = (seconds / DAY, seconds % DAY);
    // Days since 1970 as a date: Howard Hinnant's `civil_from_days`.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn keys(session: Option<&str>) -> AwsKeys {
        let secret = SecretString::from("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        AwsKeys::new("AKIDEXAMPLE".to_owned(), secret, session.map(SecretString::from))
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// The time of AWS's test suite.
    const SUITE: u64 = 1_440_938_160;

    fn signed(method: &str, url: &str) -> String {
        let url = url.parse().unwrap();
        let scope = Scope { region: "us-east-1".to_owned(), service: "service" };
        let request = ToSign { method, url: &url, headers: &[], payload: EMPTY };
        let signature = keys(None).sign(&request, &scope, at(SUITE));
        assert_eq!(signature.date, "20150830T123600Z");
        let (head, signature) = signature.authorization.rsplit_once("Signature=").unwrap();
        assert_eq!(
            head,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, "
        );
        signature.to_owned()
    }

    #[test]
    fn signatures_of_the_published_suite() {
        for (method, url, expected) in [
            ("GET", "/", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"), // get-vanilla
            (
                "GET",
                "/?Param2=value2&Param1=value1", // get-vanilla-query-order-key-case
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            ("POST", "/", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"), // post-vanilla
        ] {
            assert_eq!(signed(method, &format!("https://example.amazonaws.com{url}")), expected, "{method} {url}");
        }
    }

    /// Computed with botocore 1.44.8, at noon of 2026-11-28.
    #[test]
    fn signatures_of_botocore() {
        let noon = 1_795_867_200;
        for (host, path, body, session, region, expected) in [
            (
                "https://bedrock-runtime.us-east-1.amazonaws.com",
                "/model/amazon.nova-pro-v1%3A0/converse",
                "{\"messages\":[]}",
                None,
                "us-east-1",
                "793086053e950b51fb734ece020b1401e510440ef17606e75767b9ab973e90b9",
            ),
            (
                "https://bedrock-runtime.us-east-1.amazonaws.com",
                "/model/amazon.nova-pro-v1:0/converse",
                "{\"messages\":[]}",
                None,
                "us-east-1",
                "e014cca8e2f6bea174e7f6d7e4006de076cb0fb9233ad48535566ce614a0cd3a",
            ),
            (
                "https://bedrock-runtime.eu-west-1.amazonaws.com",
                "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Aapplication-inference-profile%2Fx/invoke",
                "{\"a\":\"\u{e9}\"}",
                Some("AQoD/session+token=="),
                "eu-west-1",
                "5acedd2c0d77d4e81555ea82ccb55b4e3f98ad41276372764b2aef4aa18eea00",
            ),
            (
                "http://127.0.0.1:8080",
                "/model/m/converse-stream",
                "",
                None,
                "us-east-1",
                "9afdd4495445ddeede7572cd5a2d692036cc7052088ff4b1509ef5ef29b13cc3",
            ),
        ] {
            let url = format!("{host}{path}").parse().unwrap();
            let (scope, payload) = (Scope { region: region.to_owned(), service: "bedrock" }, sha256([body.as_bytes()]));
            let headers = [("content-type", "application/json")];
            let request = ToSign { method: "POST", url: &url, headers: &headers, payload: &payload };
            let signature = keys(session).sign(&request, &scope, at(noon));
            assert_eq!(signature.date, "20261128T120000Z");
            assert_eq!(signature.authorization.rsplit_once("Signature=").unwrap().1, expected, "{path}");
        }
    }

    #[test]
    fn paths_are_encoded_twice() {
        let path = |url: &str| {
            let mut out = String::new();
            encode(Url::parse(url).unwrap().path(), true, &mut out);
            out
        };
        assert_eq!(path("https://h/model/m-v1%3A0/converse"), "/model/m-v1%253A0/converse");
        assert_eq!(path("https://h/model/m-v1:0/converse"), "/model/m-v1%3A0/converse");
        assert_eq!(path("https://h/model/arn%3Aaws%2Fp/invoke"), "/model/arn%253Aaws%252Fp/invoke");
    }

    #[test]
    fn what_requests_have_in_common_is_prepared_once_and_never_mistaken() {
        let keys = keys(Some("token"));
        let urls = ["converse", "invoke"].map(|end| {
            Url::parse(&format!("https://bedrock-runtime.eu-central-1.amazonaws.com/model/m/{end}")).unwrap()
        });
        let scopes =
            ["eu-central-1", "eu-west-1"].map(|region| Scope { region: region.to_owned(), service: "bedrock" });
        let sign = |keys: &AwsKeys, (seconds, url, scope, kind, body): (u64, usize, usize, &str, &str)| {
            let (payload, headers) = (sha256([body.as_bytes()]), [("content-type", kind)]);
            let request = ToSign { method: "POST", url: &urls[url], headers: &headers, payload: &payload };
            keys.sign(&request, &scopes[scope], at(seconds)).authorization
        };
        let prepared = |keys: &AwsKeys| Arc::as_ptr(keys.prepared.lock().unwrap().as_ref().unwrap());
        let first = sign(&keys, (SUITE, 0, 0, "a", "{}"));
        assert!(first.contains("SignedHeaders=content-type;host;x-amz-date;x-amz-security-token,"));
        let before = prepared(&keys);
        let mut seen = vec![first.clone()];
        seen.push(sign(&keys, (SUITE, 0, 0, "a", "{ }")));
        assert_eq!(prepared(&keys), before);
        for request in [
            (SUITE + 1, 0, 0, "a", "{}"),
            (SUITE + DAY, 0, 0, "a", "{}"),
            (SUITE, 1, 0, "a", "{}"),
            (SUITE, 0, 1, "a", "{}"),
            (SUITE, 0, 0, "b", "{}"),
        ] {
            let fresh = AwsKeys::new(keys.id.clone(), keys.secret().clone(), keys.session.clone());
            seen.push(sign(&keys, request));
            assert_eq!(seen.last(), Some(&sign(&fresh, request)), "as if nothing had been prepared");
            assert_eq!(sign(&keys, (SUITE, 0, 0, "a", "{}")), first);
        }
        assert_eq!(seen.len(), 7);
        assert!((1..7).all(|place| !seen[..place].contains(&seen[place])), "{seen:?}");
    }

    #[test]
    fn instants_are_written() {
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_798_761_599, "20261231T235959Z"),
        ] {
            assert_eq!(instant(seconds), expected);
        }
    }
}
