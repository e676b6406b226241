//! Headers that users add to requests. Clients check them here.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::shown::Quoted;

/// Headers that say where a message goes and how it is cut out of a connection (RFC 9110, section 7.6.1): who sets them
/// can smuggle in a request of his own.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Longest name of a header that is shown, bytes; what is longer is likely to be something else.
const LONGEST_NAME: usize = 36;

/// The name of a header as an error shows it: without what is no name, such as a value that was put there.
fn shown_name(name: &str) -> String {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter);
    let end = name.find(|letter| !is_part(letter)).unwrap_or(name.len());
    let (kept, is_whole) = if end > LONGEST_NAME { (8, false) } else { (end, end == name.len()) };
    Quoted(&format!("{}{}", name.get(..kept).unwrap_or_default(), if is_whole { "" } else { "..." })).to_string()
}

/// Headers that the user adds. Their values may be secret.
pub fn extra_headers(headers: &[(String, String)]) -> Result<HeaderMap, String> {
    headers
        .iter()
        .map(|(name, value)| {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("extra_headers: {} is not a valid header name", shown_name(name)))?;
            if FRAMING.contains(&header.as_str()) || header.as_str().starts_with("proxy-") {
                return Err(format!(
                    "extra_headers cannot set {}, which the HTTP client sets itself; leave it out{}",
                    shown_name(name),
                    if header == header::HOST { ", and set the host in base_url" } else { "" }
                ));
            }
            let mut value = HeaderValue::from_str(value).map_err(|_| {
                format!(
                    "extra_headers: the value of {} has characters that are not allowed in a header; remove them",
                    shown_name(name)
                )
            })?;
            value.set_sensitive(true);
            Ok((header, value))
        })
        .collect()
}
