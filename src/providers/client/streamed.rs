//! Streams that come though nobody asked for one, as from proxies that always stream; and what a stream that fails had
//! said. Used by the client alone.

use http::{HeaderMap, header};

use crate::providers::dialect::Dialect;
use crate::providers::error::{Contact, Cut, ProviderError};
use crate::providers::streams::Folded;
use crate::providers::transport::Received;

/// Puts a stream together that came in place of a plain reply; any other reply stays as it is.
///
/// # Errors
/// [`ProviderError::Cut`] when it ends in the middle.
pub fn fold_unrequested(dialect: &dyn Dialect, model: &str, mut received: Received) -> Result<Received, ProviderError> {
    let Some(streaming) = is_stream(&received).then(|| dialect.streaming(model)).flatten() else { return Ok(received) };
    let mut folded = Folded::new((streaming.fold)(), None);
    let progress = folded.push(&received.body).progress;
    let Some(body) = folded.end() else {
        // A plain reply in the frame of an event.
        if !progress && !folded.is_damaged() {
            return Ok(received);
        }
        let message = format!("the stream ended before the reply was complete; {}", folded.last());
        let error = ProviderError::Connection { message, contact: Contact::Lost };
        return with_beginning(dialect, Err(error), &folded.so_far().unwrap_or_default());
    };
    received.body = body.into();
    match folded.has_failed().then(|| folded.so_far()).flatten() {
        Some(so_far) => with_beginning(dialect, Ok(received), &so_far),
        None => Ok(received),
    }
}

/// Adds what had come of a stream to the error that it ended with.
pub fn with_beginning(
    dialect: &dyn Dialect,
    outcome: Result<Received, ProviderError>,
    so_far: &str,
) -> Result<Received, ProviderError> {
    let answer = dialect.read(so_far.as_bytes(), &HeaderMap::new()).unwrap_or_default();
    let text = answer.choices.into_iter().next().map(|choice| choice.text).unwrap_or_default();
    match outcome.map(|received| (dialect.read(&received.body, &received.headers), received)) {
        // The error that ended the stream.
        Ok((Err(error), _)) => Err(error.with_usage(answer.usage).with_beginning(text)),
        Ok((_, received)) => Ok(received),
        Err(error) => {
            let (category, message) = (error.category(), error.to_string());
            Err(ProviderError::Cut(Box::new(Cut { category, message, text, usage: answer.usage })))
        }
    }
}

/// Whether a reply is one of events, or (Gemini without `alt=sse`) a list of them.
fn is_stream(received: &Received) -> bool {
    let kind = received.headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes()).unwrap_or_default();
    let body = received.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&received.body).trim_ascii_start();
    kind.to_ascii_lowercase().starts_with(b"text/event-stream")
        || [&b"data:"[..], b"event:", b"["].iter().any(|begin| body.starts_with(begin))
}
