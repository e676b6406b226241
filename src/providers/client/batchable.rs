//! A client's questions as lines of a batch, and its calls to the provider's files and batches.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Url;

use super::{Client, Inner, with_type};
use crate::providers::address::endpoint;
use crate::providers::call::{Batchable, Call, Calling, Place};
use crate::providers::dialect::Body;
use crate::providers::error::{Category, ProviderError, Unusable};
use crate::providers::prompt::Ask;
use crate::providers::reply::{Finish, Reply};
use crate::providers::status;
use crate::providers::transport::Received;

impl Batchable for Client {
    fn line(&self, ask: &mut Ask) -> Result<Bytes, ProviderError> {
        let inner = &self.0;
        // Without what prompt caches are told: that depends on the other questions of this run, and the next run has to
        // find the line by its bytes.
        ask.plan = OnceLock::from(None);
        let mut body = Body::new(inner.head.of(ask), ask.own_bytes());
        inner.dialect.conversation(&inner.options, ask, &mut body).map_err(ProviderError::Request)?;
        Ok(body.finish().joined())
    }

    fn read(&self, status: u16, body: Bytes) -> Result<Reply, ProviderError> {
        let mut outcome = self.0.read_line(status, body);
        if let Err(error) = &mut outcome {
            self.0.secrets.remove(error, None);
        }
        outcome
    }

    fn model(&self) -> &str {
        &self.0.options.model
    }

    fn path(&self) -> String {
        self.0.dialect.path(&self.0.options.model)
    }

    fn base_url(&self) -> String {
        let url = endpoint(&self.0.base_url, "").map(|mut url| {
            url.set_query(None);
            bare(url).as_str().trim_end_matches('/').to_owned()
        });
        url.unwrap_or_default()
    }

    fn key(&self) -> Vec<u8> {
        self.0.keys.usual_header().map(|(_, value)| value.as_bytes().to_vec()).unwrap_or_default()
    }

    fn call(&self, call: Call) -> Calling<'_, Received> {
        Box::pin(async move {
            let request = self.0.request_of(call)?;
            let mut outcome = self.0.transport.call(request, self.0.keys.usual_header().as_ref()).await;
            match &mut outcome {
                Ok(received) => self.0.secrets.mask(received, None),
                Err(error) => self.0.secrets.remove(error, None),
            }
            outcome
        })
    }

    fn call_lines<'a>(&'a self, call: Call, each: &'a mut (dyn FnMut(&[u8]) + Send)) -> Calling<'a, HeaderMap> {
        Box::pin(async move {
            let request = self.0.request_of(call)?;
            let mut outcome = self.0.transport.lines(request, self.0.keys.usual_header().as_ref(), each).await;
            if let Err(error) = &mut outcome {
                self.0.secrets.remove(error, None);
            }
            outcome
        })
    }
}

impl Inner {
    fn request_of(&self, call: Call) -> Result<(http::Method, Url, HeaderMap, Bytes), ProviderError> {
        let Call { method, place, query, headers: more, content } = call;
        let url = match place {
            Place::Base(path) => endpoint(&self.base_url, &path),
            Place::Beside(path) => endpoint(&self.base_url, "").map(|url| beside(url, &path)),
            Place::Origin(path) => endpoint(&self.base_url, "").map(|url| at_origin(url, &path)),
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
        let Some((kind, body)) = content else { return Ok((method, url, headers, Bytes::new())) };
        let kind = HeaderValue::from_str(&kind)
            .map_err(|_| ProviderError::Request(format!("the content type {kind:?} cannot be sent")))?;
        headers.insert(header::CONTENT_TYPE, kind);
        Ok((method, url, headers, body))
    }

    fn read_line(&self, status: u16, body: Bytes) -> Result<Reply, ProviderError> {
        let headers = HeaderMap::new();
        if !(200..300).contains(&status) {
            return Err(status::read(status, &headers, &body));
        }
        let body = self.secrets.masked(body, None);
        let received = Received { headers, body, first_token: None, is_stopped: false };
        let answer =
            self.dialect.read(&received.body, &received.headers).map_err(|error| with_type(error, &received))?;
        if answer.unfinished.is_none() {
            return self.finish(answer, received);
        }
        // It could go on in a request of its own, which would not be one of the batch.
        let text = answer.choices.into_iter().next().unwrap_or_default().text;
        Err(ProviderError::Unusable(Box::new(Unusable {
            category: Category::Truncated,
            retryable: false,
            finish_reason: Finish::Interrupted { overloaded: false }.name(),
            native_finish: Some("pause_turn".to_owned()),
            text,
            usage: answer.usage,
            request_id: None,
        })))
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
