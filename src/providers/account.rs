//! Calls to a provider that ask no question, with the address, the key and the connections of the client that makes them.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use reqwest::Url;

use super::address::endpoint;
use super::call::{Batchable, Call, Calling, Content, Place};
use super::error::ProviderError;
use super::keys::{KeyHeader, Keys};
use super::prompt::Ask;
use super::redact::Secrets;
use super::reply::Reply;
use super::status;
use super::transport::{Received, Transport};

/// What of a client such calls need.
pub struct Account<'a> {
    /// Where the provider is.
    pub base_url: &'a str,
    /// Its keys.
    pub keys: &'a Keys,
    /// Its connections.
    pub transport: &'a Transport,
    /// What must not be in what comes back.
    pub secrets: &'a Secrets,
}

/// A client with an account, whose questions can be lines of a batch. What this asks for differs; the rest of
/// [`Batchable`] is the same for all.
pub trait OfAccount: Send + Sync + 'static {
    /// Its account.
    fn account(&self) -> Account<'_>;

    /// See [`Batchable::line`].
    ///
    /// # Errors
    /// As there.
    fn line(&self, ask: &mut Ask) -> Result<Bytes, ProviderError>;

    /// Reads the reply to a line that succeeded, without secrets.
    ///
    /// # Errors
    /// As an attempt.
    fn read_success(&self, body: Bytes) -> Result<Reply, ProviderError>;

    /// The model.
    fn model(&self) -> &str;

    /// See [`Batchable::path`].
    fn path(&self) -> String;
}

impl<T: OfAccount> Batchable for T {
    fn line(&self, ask: &mut Ask) -> Result<Bytes, ProviderError> {
        OfAccount::line(self, ask)
    }

    fn read(&self, status: u16, body: Bytes) -> Result<Reply, ProviderError> {
        let secrets = self.account().secrets;
        let mut outcome = match status {
            200..300 => self.read_success(secrets.masked(body, None)),
            _ => Err(status::read(status, &HeaderMap::new(), &body)),
        };
        if let Err(error) = &mut outcome {
            secrets.remove(error, None);
        }
        outcome
    }

    fn model(&self) -> &str {
        OfAccount::model(self)
    }

    fn path(&self) -> String {
        OfAccount::path(self)
    }

    fn base_url(&self) -> String {
        self.account().base_url()
    }

    fn key(&self) -> Vec<u8> {
        self.account().key()
    }

    fn call(&self, call: Call) -> Calling<'_, Received> {
        Box::pin(async move { self.account().call(call).await })
    }

    fn call_lines<'a>(&'a self, call: Call, each: &'a mut (dyn FnMut(&[u8]) + Send)) -> Calling<'a, HeaderMap> {
        Box::pin(async move { self.account().call_lines(call, each).await })
    }
}

impl Account<'_> {
    /// The base URL, without a user, a password and a query.
    pub fn base_url(&self) -> String {
        let url = endpoint(self.base_url, "").map(|mut url| {
            url.set_query(None);
            bare(url).as_str().trim_end_matches('/').to_owned()
        });
        url.unwrap_or_default()
    }

    /// The key. Empty: none.
    pub fn key(&self) -> Vec<u8> {
        self.keys.usual_header().map(|key| key.value.as_bytes().to_vec()).unwrap_or_default()
    }

    /// See [`Batchable::call`].
    ///
    /// # Errors
    /// As there.
    pub async fn call(&self, call: Call) -> Result<Received, ProviderError> {
        self.call_with(call, None).await
    }

    /// The same, with a key of its own if that is not the usual one.
    ///
    /// # Errors
    /// As there.
    pub async fn call_with(&self, call: Call, key: Option<&KeyHeader>) -> Result<Received, ProviderError> {
        let request = self.request_of(call)?;
        let usual = if key.is_none() { self.keys.usual_header() } else { None };
        let mut outcome = self.transport.call(request, key.or(usual.as_ref())).await;
        let own = key.map(|key| &key.value);
        match &mut outcome {
            Ok(received) => self.secrets.mask(received, own),
            Err(error) => self.secrets.remove(error, own),
        }
        outcome
    }

    /// See [`Batchable::call_lines`].
    ///
    /// # Errors
    /// As there.
    pub async fn call_lines(
        &self,
        call: Call,
        each: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<HeaderMap, ProviderError> {
        let request = self.request_of(call)?;
        let mut outcome = self.transport.lines(request, self.keys.usual_header().as_ref(), each).await;
        if let Err(error) = &mut outcome {
            self.secrets.remove(error, None);
        }
        outcome
    }

    fn request_of(&self, call: Call) -> Result<(Method, Url, HeaderMap, Content), ProviderError> {
        let Call { method, place, query, headers: more, content } = call;
        let url = match place {
            Place::Base(path) => endpoint(self.base_url, &path),
            Place::Beside(path) => endpoint(self.base_url, "").map(|url| beside(url, &path)),
            Place::Origin(path) => endpoint(self.base_url, "").map(|url| at_origin(url, &path)),
        };
        // A user and a password there are a header already.
        let mut url = bare(url.map_err(ProviderError::Request)?);
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, &value);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in more {
            let value = HeaderValue::from_str(&value)
                .map_err(|_| ProviderError::Request(format!("the header {name} cannot be sent")))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let Some((kind, body)) = content else { return Ok((method, url, headers, Content::default())) };
        let kind = HeaderValue::from_str(&kind)
            .map_err(|_| ProviderError::Request(format!("the content type {kind:?} cannot be sent")))?;
        headers.insert(header::CONTENT_TYPE, kind);
        Ok((method, url, headers, body))
    }
}

/// Without a user and a password.
fn bare(mut url: Url) -> Url {
    // Neither fails for a URL with a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// A path in place of the version, with what is before the version kept.
fn beside(mut url: Url, path: &str) -> Url {
    let base = url.path().trim_end_matches('/');
    let before = base.rsplit_once('/').map_or("", |(before, _)| before);
    let whole = format!("{before}/{path}");
    url.set_path(&whole);
    url
}

/// A path and a query at the same origin.
fn at_origin(mut url: Url, told: &str) -> Url {
    let (path, query) = told.split_once('?').map_or((told, None), |(path, query)| (path, Some(query)));
    url.set_path(path);
    url.set_query(query);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_go_where_they_are_meant_to() {
        let url = |text: &str| Url::parse(text).unwrap();
        assert_eq!(beside(url("http://h/v1beta/"), "upload/v1beta/files").as_str(), "http://h/upload/v1beta/files");
        assert_eq!(beside(url("http://h/g/v1beta/"), "upload/v1beta/files").as_str(), "http://h/g/upload/v1beta/files");
        assert_eq!(at_origin(url("http://h/g/v1beta"), "/up/x?id=1").as_str(), "http://h/up/x?id=1");
        assert_eq!(bare(url("http://me:secret@h/v1")).as_str(), "http://h/v1");
    }
}
