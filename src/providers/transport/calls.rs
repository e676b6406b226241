//! Requests that ask no question: see [`Call`](super::super::call::Call). They are never sent twice by themselves: what
//! makes something at the provider could make it twice.
//!
//! Redirects of a GET are followed: some providers have the contents of files elsewhere, at an address that is signed.
//! Another origin than the provider's gets no key and none of the usual headers.

use std::pin::pin;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use reqwest::{Request, Url};

use super::pool::Open;
use super::{Received, Transport, limited};
use crate::providers::call::Content;
use crate::providers::error::ProviderError;
use crate::providers::keys::KeyHeader;
use crate::providers::{bodies, status};

/// How long the reply to a call may take to begin, seconds: the provider may read 256 MB before.
const FIRST_BYTE: f64 = 600.0;
/// How long a reply may be silent, seconds.
const SILENCE: f64 = 120.0;
/// How many redirects are followed.
const REDIRECTS: u32 = 3;

impl Transport {
    /// Sends a request with these headers beside the usual ones, and reads the reply.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub async fn call(
        &self,
        request: (Method, Url, HeaderMap, Content),
        key: Option<&KeyHeader>,
    ) -> Result<Received, ProviderError> {
        let (mut response, headers) = self.open(request, key).await?;
        let body = self.read_body(&mut response, true).await?;
        Ok(Received { headers, body, first_token: None, is_stopped: false })
    }

    /// Gets a page of at most so many bytes.
    ///
    /// # Errors
    /// As [`post`](Self::post); also if it is longer.
    pub async fn page(&self, url: Url, most: usize) -> Result<Vec<u8>, ProviderError> {
        let (mut response, _) = self.open((Method::GET, url, HeaderMap::new(), Content::default()), None).await?;
        let mut page = Vec::new();
        while let Some(chunk) = self.next_chunk(&mut response).await? {
            if page.len() + chunk.len() > most {
                return Err(self.too_long(page.len() + chunk.len()));
            }
            page.extend_from_slice(&chunk);
        }
        Ok(page)
    }

    /// Sends a request, and passes on each line of the reply, without its end. Returns the reply's headers.
    ///
    /// # Errors
    /// As [`post`](Self::post), also when the reply is cut; the last line counts only where the reply is whole.
    pub async fn lines(
        &self,
        request: (Method, Url, HeaderMap, Content),
        key: Option<&KeyHeader>,
        each: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<HeaderMap, ProviderError> {
        let (mut response, headers) = self.open(request, key).await?;
        let mut rest = Vec::new();
        let mut pass_on = |line: &[u8]| each(line.strip_suffix(b"\r").unwrap_or(line));
        while let Some(chunk) = self.next_chunk(&mut response).await? {
            let mut parts = chunk.split(|byte| *byte == b'\n');
            let Some(mut last) = parts.next() else { continue };
            for next in parts {
                if rest.is_empty() {
                    pass_on(last);
                } else {
                    rest.extend_from_slice(last);
                    pass_on(&rest);
                    rest.clear();
                }
                last = next;
            }
            rest.extend_from_slice(last);
            if rest.len() > self.options.max_body_bytes {
                return Err(self.too_long(rest.len()));
            }
        }
        pass_on(&rest);
        Ok(headers)
    }

    async fn next_chunk(&self, response: &mut reqwest::Response) -> Result<Option<Bytes>, ProviderError> {
        let limit = self.options.idle_timeout.unwrap_or(SILENCE);
        let chunk = limited(Some(limit), "the next part of the reply", pin!(response.chunk())).await?;
        chunk.map_err(|error| self.failed(&error))
    }

    /// Sends a request; a reply with an error status is an error.
    async fn open(
        &self,
        (method, url, more, body): (Method, Url, HeaderMap, Content),
        key: Option<&KeyHeader>,
    ) -> Result<(reqwest::Response, HeaderMap), ProviderError> {
        let mut request = Request::new(method, url);
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        headers.remove(header::CONTENT_TYPE);
        // What reqwest unpacks by itself.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"));
        headers.extend(more);
        if let Some(key) = key {
            key.put_on(headers);
        }
        if let (Some(signer), None) = (&self.signer, key) {
            let signed = match (request.method(), body.bytes()) {
                (&Method::POST, Some(bytes)) => {
                    signer.sign(request.url(), request.headers(), &bytes.clone().into()).await?
                }
                _ => signer.sign_headers().await?,
            };
            signed.key.put_on(request.headers_mut());
        }
        let again = (request.method() == Method::GET).then(|| (request.url().clone(), request.headers().clone()));
        *request.body_mut() = Some(body.into());
        let shard = self.pool.next();
        let _open = Open::new(&shard.open);
        let sending = pin!(shard.client.execute(request));
        let sent = limited(Some(FIRST_BYTE), "the reply's first byte", sending).await?;
        let mut response = sent.map_err(|error| self.failed(&error))?;
        for _ in 0..REDIRECTS {
            let Some(request) = redirected(again.as_ref(), &response) else { break };
            let sending = pin!(shard.client.execute(request));
            let sent = limited(Some(FIRST_BYTE), "the reply's first byte", sending).await?;
            response = sent.map_err(|error| self.failed(&error))?;
        }
        let (code, headers) = (response.status(), std::mem::take(response.headers_mut()));
        if code.is_success() {
            return Ok((response, headers));
        }
        let mut body = Vec::new();
        while body.len() < bodies::LONGEST_ERROR
            && let Ok(Some(chunk)) = self.next_chunk(&mut response).await
        {
            body.extend_from_slice(&chunk);
        }
        body.truncate(bodies::LONGEST_ERROR);
        Err(status::read(code.as_u16(), &headers, &body))
    }
}

/// The request that a redirect of a GET with this address and these headers asks for; `None`: it is none, or it leads
/// to where nothing is sent.
fn redirected(get: Option<&(Url, HeaderMap)>, response: &reqwest::Response) -> Option<Request> {
    let (first, headers) = get?;
    let place = response.headers().get(header::LOCATION).filter(|_| response.status().is_redirection())?;
    let url = response.url().join(place.to_str().ok()?).ok()?;
    // Never from TLS to cleartext.
    if !matches!((response.url().scheme(), url.scheme()), (_, "https") | ("http", "http")) {
        return None;
    }
    let mut request = Request::new(Method::GET, url);
    if request.url().origin() == first.origin() {
        *request.headers_mut() = headers.clone();
    } else {
        request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"));
    }
    Some(request)
}
