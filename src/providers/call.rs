//! Requests to a provider that ask no question: its files and batches. `crate::batches` makes them, clients send them.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::error::ProviderError;
use super::prompt::Ask;
use super::reply::Reply;
use super::transport::Received;

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
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Where it goes.
    pub place: Place,
    /// Its query.
    pub query: Vec<(&'static str, String)>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// What the body is; none: no body.
    pub content: Option<(String, Bytes)>,
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
    pub fn json(self, body: impl Into<Bytes>) -> Self {
        self.body("application/json", body)
    }

    /// The same with a body.
    #[must_use]
    pub fn body(self, kind: impl Into<String>, body: impl Into<Bytes>) -> Self {
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
