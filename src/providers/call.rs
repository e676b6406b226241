//! Requests to a provider that ask no question: its files and batches. `crate::batches` makes them, clients send them, long
//! bodies piece by piece.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method};
use hyper::body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use super::error::ProviderError;
use super::prompt::Ask;
use super::reply::Reply;
use super::transport::Received;
use crate::spool::Stored;

/// Where a call goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Below the base URL.
    Base(String),
    /// Beside the version at the end of the base URL, as `upload/v1beta/files` beside `v1beta`.
    Beside(String),
    /// A path and a query at the provider's origin, told by the provider itself.
    Origin(String),
}

/// A request to a provider.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Where it goes.
    pub place: Place,
    /// Its query.
    pub query: Vec<(&'static str, String)>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// What kind the body is of, and the body; none: no body.
    pub content: Option<(String, Content)>,
}

/// The body of a call. It may be long, so that some of it is on the disk.
#[derive(Debug, Clone, Default)]
pub struct Content(Vec<Piece>);

#[derive(Debug, Clone)]
enum Piece {
    Bytes(Bytes),
    Stored(Arc<Stored>),
}

impl Content {
    /// Bytes on the disk.
    pub fn stored(stored: Stored) -> Self {
        Self(vec![Piece::Stored(Arc::new(stored))])
    }

    /// The same with another one at the end.
    #[must_use]
    pub fn then(mut self, other: impl Into<Self>) -> Self {
        self.0.extend(other.into().0);
        self
    }

    /// All of it, if that is in memory in one piece.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.0[..] {
            [Piece::Bytes(bytes)] => Some(bytes),
            _ => None,
        }
    }

    /// How long it is, bytes.
    pub fn size(&self) -> u64 {
        let length = |piece: &Piece| match piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Stored(stored) => stored.size(),
        };
        self.0.iter().map(length).sum()
    }

    /// All of it.
    ///
    /// # Errors
    /// When the disk cannot be read.
    #[cfg(test)]
    pub fn whole(&self) -> std::io::Result<Vec<u8>> {
        let mut whole = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Bytes(bytes) => whole.extend_from_slice(bytes),
                Piece::Stored(stored) => whole.extend_from_slice(&stored.read(0, usize::MAX)?),
            }
        }
        Ok(whole)
    }
}

impl<T: Into<Bytes>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self(vec![Piece::Bytes(bytes.into())])
    }
}

impl From<Content> for reqwest::Body {
    fn from(content: Content) -> Self {
        match &content.0[..] {
            [] => Bytes::new().into(),
            [Piece::Bytes(bytes)] => bytes.clone().into(),
            _ => {
                let left = content.size();
                Self::wrap(Sending { pieces: content.0, piece: 0, at: 0, left, reading: None })
            }
        }
    }
}

/// Bytes that are read from the disk at once.
const AT_ONCE: usize = 256 << 10;

/// A body that is sent piece by piece.
struct Sending {
    pieces: Vec<Piece>,
    /// The present one, and how much of it is sent.
    piece: usize,
    at: u64,
    left: u64,
    reading: Option<JoinHandle<std::io::Result<Bytes>>>,
}

impl hyper::body::Body for Sending {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        loop {
            let (piece, at) = (self.piece, self.at);
            let stored = match self.pieces.get(piece) {
                None => return Poll::Ready(None),
                Some(Piece::Bytes(bytes)) => {
                    let bytes = bytes.clone();
                    self.piece += 1;
                    self.left -= bytes.len() as u64;
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Piece::Stored(stored)) => Arc::clone(stored),
            };
            // The disk may take its time, and this thread has other connections.
            let read = move || stored.read(at, AT_ONCE);
            let reading = self.reading.get_or_insert_with(|| tokio::task::spawn_blocking(read));
            let read = std::task::ready!(Pin::new(reading).poll(context));
            self.reading = None;
            let bytes = match read.map_err(std::io::Error::other).flatten() {
                Ok(bytes) => bytes,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            if bytes.is_empty() {
                (self.piece, self.at) = (piece + 1, 0);
                continue;
            }
            self.at += bytes.len() as u64;
            self.left -= bytes.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Call {
    fn new(method: Method, path: String) -> Self {
        Self { method, place: Place::Base(path), query: Vec::new(), headers: Vec::new(), content: None }
    }

    /// Reads what is at a path below the base URL.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path.into())
    }

    /// Posts to a path below the base URL, without a body.
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path.into())
    }

    /// Deletes what is at a path below the base URL.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path.into())
    }

    /// The same with a body of JSON.
    #[must_use]
    pub fn json(self, body: impl Into<Content>) -> Self {
        self.body("application/json", body)
    }

    /// The same with a body.
    #[must_use]
    pub fn body(self, kind: impl Into<String>, body: impl Into<Content>) -> Self {
        Self { content: Some((kind.into(), body.into())), ..self }
    }

    /// The same elsewhere.
    #[must_use]
    pub fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// The same with a field in its query.
    #[must_use]
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// The same with a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// What becomes of a call.
pub type Calling<'a, T> = Pin<Box<dyn Future<Output = Result<T, ProviderError>> + Send + 'a>>;

/// A provider whose questions can be lines of a batch.
pub trait Batchable: Send + Sync + 'static {
    /// The body of the request for a question, as a line of a batch has it: the same question, the same bytes.
    ///
    /// # Errors
    /// When the question cannot be written in this provider's dialect.
    fn line(&self, ask: &mut Ask) -> Result<Bytes, ProviderError>;

    /// Reads the reply to a line: the status and the body that the request would have had by itself.
    ///
    /// # Errors
    /// As an attempt.
    fn read(&self, status: u16, body: Bytes) -> Result<Reply, ProviderError>;

    /// The model.
    fn model(&self) -> &str;

    /// Where a single question would go, below the base URL.
    fn path(&self) -> String;

    /// The base URL, without a user and a password.
    fn base_url(&self) -> String;

    /// What the account is known by: its key, which the caller must not keep. Empty: none.
    fn key(&self) -> Vec<u8>;

    /// Sends a call, and reads the reply.
    ///
    /// # Errors
    /// [`ProviderError::Connection`], [`ProviderError::Timeout`], or [`ProviderError::Status`] for an error status.
    fn call(&self, call: Call) -> Calling<'_, Received>;

    /// Sends a call, and passes on each line of the reply as it comes, without its end. Returns the headers.
    ///
    /// # Errors
    /// As [`call`](Self::call); the lines that were whole have been passed on.
    fn call_lines<'a>(&'a self, call: Call, each: &'a mut (dyn FnMut(&[u8]) + Send)) -> Calling<'a, HeaderMap>;
}
