//! What failed on a connection, and whether the server had looked at the request. Only the transport uses it.

use crate::providers::error::{Contact, ProviderError};

/// Whether an HTTP/2 server says that it has not looked at the request, which then may be sent again without any harm
/// (RFC 9113, section 8.7): it refused the stream, or closes the connection and had not got so far.
pub fn was_not_processed(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<h2::Error>() {
            return error.is_remote()
                && (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
                    || error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR));
        }
        cause = inner.source();
    }
    false
}

/// What a failure of the connection is to the caller.
pub fn transport_error(error: &reqwest::Error) -> ProviderError {
    // The origin tells which server it was, and holds neither a password nor a key.
    let origin = error.url().map(|url| format!("{}: ", url.origin().ascii_serialization()));
    let message = format!("{}{}", origin.unwrap_or_default(), describe(error));
    let contact = if error.is_connect() { Contact::None } else { Contact::Lost };
    if error.is_timeout() {
        let contact = if contact == Contact::None { contact } else { Contact::Some };
        ProviderError::Timeout { message, contact }
    } else if error.is_decode() && !has_cause::<hyper::Error>(error) {
        // All of it came, but it cannot be unpacked.
        ProviderError::Protocol { protocol: "HTTP", problem: message, excerpt: String::new() }
    } else {
        ProviderError::Connection { message, contact }
    }
}

fn has_cause<E: std::error::Error + 'static>(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        // Decoders wrap what they are fed with into errors of input and output.
        let wrapped = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if inner.is::<E>() || wrapped.is_some_and(|wrapped| wrapped.is::<E>()) {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// An error and its causes, without the URL: a user may have put a key into it.
pub fn describe(error: &reqwest::Error) -> String {
    let mut cause = std::error::Error::source(error);
    let mut parts = Vec::new();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if parts.last() != Some(&text) {
            parts.push(text);
        }
        cause = inner.source();
    }
    if parts.is_empty() { "the request failed, and the HTTP client gave no cause".to_owned() } else { parts.join(": ") }
}
