//! What failed on a connection, and whether the server had looked at the request. Only the transport uses it.

use std::error::Error;
use std::io;

use rustls::{CertificateError, InvalidMessage};

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

/// "Too many open files", in this process or on this machine: the same numbers on all systems but Windows, which has no
/// such limit.
const SHORT_OF_FILES: [i32; 2] = [24, 23];

/// Whether no connection could be opened because this process has as many as it may.
pub fn is_short_of_files(error: &reqwest::Error) -> bool {
    let number = cause_of::<io::Error>(error).and_then(io::Error::raw_os_error);
    cfg!(unix) && error.is_connect() && number.is_some_and(|number| SHORT_OF_FILES.contains(&number))
}

/// The failure of a request that has waited for another's connection in vain.
pub fn too_few_files(error: &reqwest::Error) -> ProviderError {
    let message =
        format!("{}; raise this process's limit of open files (ulimit -n), or lower the concurrency", describe(error));
    ProviderError::Connection { message, contact: Contact::None }
}

/// What a failure of the connection is to the caller. `via`: the origin of the proxy in between.
pub fn transport_error(error: &reqwest::Error, via: Option<&str>) -> ProviderError {
    // The origin tells which server it was, and holds neither a password nor a key. Where there was no connection, it may
    // be the proxy that does not answer, or does not pass on.
    let via = via.filter(|_| error.is_connect()).map(|via| format!(" through the proxy {via}")).unwrap_or_default();
    let origin = error.url().map(|url| format!("{}{via}: ", url.origin().ascii_serialization()));
    let remedy = remedy(error).map(|remedy| format!("; {remedy}"));
    let message = format!("{}{}{}", origin.unwrap_or_default(), describe(error), remedy.unwrap_or_default());
    let contact = if error.is_connect() { Contact::None } else { Contact::Lost };
    // Of a connection that was there, silence is its end: pings or the system's probes were not answered.
    if error.is_timeout() && contact == Contact::None {
        ProviderError::Timeout { message, contact }
    } else if error.is_decode() && cause_of::<hyper::Error>(error).is_none() {
        // All of it came, but it cannot be unpacked.
        ProviderError::Protocol { protocol: "HTTP", problem: message, excerpt: String::new() }
    } else {
        ProviderError::Connection { message, contact }
    }
}

/// What the user can do about a connection that cannot be encrypted.
fn remedy(error: &reqwest::Error) -> Option<&'static str> {
    Some(match cause_of::<rustls::Error>(error)? {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "if you trust this server, pass the certificate of its authority: transport=Transport(ca_bundle=...)"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the server's certificate is for another name; base_url must have that name"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server must renew its certificate, unless this machine's clock is wrong"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "set this machine's clock, unless the server's certificate is wrong"
            }
            _ => return None,
        },
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server does not speak TLS on this port; a server without TLS has a base_url with http://"
        }
        _ => return None,
    })
}

/// The first of an error's causes that is of this kind.
fn cause_of<E: Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref::<E>() {
            return Some(found);
        }
        // Errors of input and output do not name what they wrap as their cause, but only its cause.
        let wrapped = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = wrapped.map_or_else(|| inner.source(), |wrapped| Some(wrapped));
    }
    None
}

/// What rustls says of a connection that was cut.
const NO_NOTICE: &str = "peer closed connection without sending TLS close_notify";

/// An error and its causes, without the URL: a user may have put a key into it.
pub fn describe(error: &reqwest::Error) -> String {
    let mut cause = std::error::Error::source(error);
    let mut parts = Vec::new();
    while let Some(inner) = cause {
        let mut text = inner.to_string();
        // What follows is the address of a page for those who program with rustls.
        if let Some(at) = text.find(NO_NOTICE) {
            text.truncate(at + NO_NOTICE.len());
        }
        if parts.last() != Some(&text) {
            parts.push(text);
        }
        cause = inner.source();
    }
    if parts.is_empty() { "the request failed, and the HTTP client gave no cause".to_owned() } else { parts.join(": ") }
}
