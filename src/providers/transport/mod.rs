//! Requests to one server, each of which ends in a body or a [`ProviderError`]. Clients use it.
//!
//! [`pool`] has the connections, [`calls`] other requests than questions, [`reuse`] tells a connection that the server had
//! just closed, [`failures`] what went wrong on one.

mod calls;
mod failures;
mod pool;
mod reuse;
#[cfg(test)]
mod tests;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use reqwest::{Request, Url};

#[cfg(test)]
pub use self::pool::Http2;
pub use self::pool::{TransportOptions, aside};

use self::failures::{describe, is_short_of_files, too_few_files, transport_error, was_not_processed};
use self::pool::{Open, Pool};
use super::auth::Signer;
use super::bodies::Packing;
use super::error::{Contact, ProviderError};
use super::keys::KeyHeader;
use super::listener::Listener;
use super::shared::Payload;
use super::streams::{Clocks, Fold, Folded, Watch};
use super::{bodies, proxy, status};
use crate::engine::seconds;

const USER_AGENT: &str = concat!("batch-llm/", env!("CARGO_PKG_VERSION"));
/// How often a request is sent again at once because the server has not looked at it. More is for the engine to decide.
const MOST_REFUSALS: u32 = 2;
/// How long a request waits for one of this process's own connections to end, where no more may be opened.
const FILES_PATIENCE: Duration = Duration::from_secs(30);
/// How long it waits at first, and at most, before it looks again.
const FILES_WAITS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Requests of one strategy, and the connections for them.
pub struct Transport {
    options: TransportOptions,
    url: Url,
    /// Those that all requests have.
    headers: HeaderMap,
    pool: Arc<Pool>,
    /// What signs requests that have no key.
    signer: Option<Arc<Signer>>,
    /// The origin of the proxy that requests go through, for messages.
    via: Option<String>,
}

/// A success reply.
pub struct Received {
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// From the request to the first part of the answer, where the reply came as a stream.
    pub first_token: Option<Duration>,
    /// Whether it was ended by whoever followed it.
    pub is_stopped: bool,
}

/// A reply that is to come as a stream.
pub struct Reading<'a> {
    /// Where to ask for it.
    pub url: &'a Url,
    /// Puts it together.
    pub fold: fn() -> Box<dyn Fold>,
    /// How long it may be silent.
    pub clocks: Clocks,
    /// Who follows it.
    pub listener: Option<Arc<Listener>>,
    /// After an error, or a reply that is the error at the end of a stream: the body as far as it had come, if there was
    /// an event.
    pub so_far: Option<String>,
}
impl Transport {
    /// Connections for requests to `url`, with these headers on every one. Certificates are checked against the system's
    /// trust store; proxies come from the usual environment variables; redirects of questions
    /// are not followed: no API sends any, and a key must not travel along. A user and a password in `url` become a header
    /// (RFC 7617), if there is none with a key.
    ///
    /// # Errors
    /// A message that names the option that cannot be used.
    pub fn new(options: TransportOptions, url: Url, headers: HeaderMap) -> Result<Self, String> {
        let options = TransportOptions { direct: options.direct || proxy::is_direct(&url), ..options };
        install_tls();
        let pool = Pool::of(&options, &url)?;
        let request = pool.shards.load()[0].client.post(url).headers(headers).build();
        let request = request.map_err(|error| format!("base_url cannot be used: {}", describe(&error)))?;
        // Complete, for what is missing reqwest would add to each request anew; with room for what depends on the request.
        let mut whole = HeaderMap::with_capacity(request.headers().len() + 8);
        whole.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        whole.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, br, zstd"));
        whole.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        whole.extend(request.headers().clone());
        let url = request.url().clone();
        let via = proxy::through(options.proxy.as_deref(), options.direct, &url);
        Ok(Self { options, url, headers: whole, pool, signer: None, via })
    }

    /// The same, whose requests are signed where they have no key of their own.
    #[must_use]
    pub fn signed_by(self, signer: Option<Arc<Signer>>) -> Self {
        Self { signer, ..self }
    }

    /// Posts a body, with a key's header in place of the usual one, and reads the reply.
    ///
    /// # Errors
    /// [`ProviderError::Connection`], [`ProviderError::Timeout`], or [`ProviderError::Status`] for an error status.
    pub async fn post(&self, body: &Payload, key: Option<&KeyHeader>) -> Result<Received, ProviderError> {
        if let (Some(signer), None) = (&self.signer, key) {
            // In a box, for most requests have none.
            return Box::pin(self.signed(signer, body, None)).await;
        }
        let whole = pin!(self.exchange(body, key, None));
        limited(self.options.total_timeout, "the whole reply", whole).await?
    }

    /// Posts a body to the stream's address, and reads the reply as a stream.
    ///
    /// # Errors
    /// As [`post`](Self::post); what had come of the reply is in `stream`.
    pub async fn stream(
        &self,
        body: &Payload,
        key: Option<&KeyHeader>,
        stream: &mut Reading<'_>,
    ) -> Result<Received, ProviderError> {
        match (&self.signer, key) {
            (Some(signer), None) => Box::pin(self.signed(signer, body, Some(stream))).await,
            (_, key) => self.exchange(body, key, Some(stream)).await,
        }
    }

    /// The same, signed; and once more if something is wrong with the signature that can be mended.
    async fn signed(
        &self,
        signer: &Signer,
        body: &Payload,
        mut stream: Option<&mut Reading<'_>>,
    ) -> Result<Received, ProviderError> {
        let mut is_mended = false;
        loop {
            let url = stream.as_ref().map_or(&self.url, |stream| stream.url);
            let signed = signer.sign(url, &self.headers, body).await?;
            let limit = self.options.total_timeout.filter(|_| stream.is_none());
            let whole = pin!(self.exchange(body, Some(&signed.key), stream.as_deref_mut()));
            match limited(limit, "the whole reply", whole).await? {
                Err(error) if !is_mended && signer.mend(&signed, &error) => is_mended = true,
                outcome => return outcome,
            }
        }
    }

    // What is awaited while a request is open is kept small: there are thousands of them, and what is passed by value
    // an asynchronous function holds twice.
    async fn exchange(
        &self,
        body: &Payload,
        key: Option<&KeyHeader>,
        stream: Option<&mut Reading<'_>>,
    ) -> Result<Received, ProviderError> {
        let mut refusals = 0;
        let mut fresh = None;
        let (mut has_no_file, mut waited) = (false, Duration::ZERO);
        loop {
            // Here, for nothing else is held now.
            if std::mem::take(&mut has_no_file) {
                waited += Box::pin(pause_for_files(waited)).await;
            }
            let shard = self.pool.next();
            let _open = Open::new(&shard.open);
            let client = fresh.unwrap_or(&shard.client);
            let began = Instant::now();
            let url = stream.as_ref().map_or(&self.url, |stream| stream.url);
            let sending = pin!(client.execute(self.request(url, body, key, stream.is_some())));
            let limit = self.options.first_byte_timeout.or(stream.as_ref().map(|stream| stream.clocks.first_byte));
            let mut response = match limited(limit, "the reply's first byte", sending).await? {
                Ok(response) => response,
                Err(error) if refusals < MOST_REFUSALS && was_not_processed(&error) => {
                    refusals += 1;
                    continue;
                }
                // In a box, for it is held only then.
                Err(error)
                    if fresh.is_none() && Box::pin(self.pool.answered.met_a_closed_connection(&error, began)).await =>
                {
                    fresh = Some(self.pool.unpooled(&shard));
                    continue;
                }
                // Nothing was sent. When one of the other requests ends, its connection serves.
                Err(error) if is_short_of_files(&error) && waited < FILES_PATIENCE => {
                    has_no_file = true;
                    continue;
                }
                Err(error) if is_short_of_files(&error) => return Err(too_few_files(&error)),
                Err(error) => return Err(self.failed(&error)),
            };
            if response.version() != Version::HTTP_2 {
                self.pool.answered.on(&response);
            } else if !self.pool.multiplexed.load(Ordering::Relaxed) {
                self.pool.multiplexed.store(true, Ordering::Relaxed);
            }
            let (code, headers) = (response.status(), std::mem::take(response.headers_mut()));
            if let Some(stream) = stream.filter(|_| code.is_success()) {
                // In a box, for most requests never hold it.
                return Box::pin(self.read_any_stream(&mut response, headers, stream, began)).await;
            }
            let body = self.read_body(&mut response, code.is_success()).await;
            return self.received(code, headers, body);
        }
    }

    /// Unpacks a reply that was read, or reads what is wrong from it.
    fn received(
        &self,
        code: StatusCode,
        headers: HeaderMap,
        body: Result<Bytes, ProviderError>,
    ) -> Result<Received, ProviderError> {
        let packings = bodies::packings(&headers);
        if code.is_success() {
            let body = if packings.is_empty() { body? } else { self.unpacked(&body?, &packings)? };
            return Ok(Received { headers, body, first_token: None, is_stopped: false });
        }
        // A body that is cut or badly compressed leaves it to status and headers. The connection of one that is not read
        // to its end is dropped.
        let mut body = body.unwrap_or_default();
        if !packings.is_empty() {
            body = bodies::unpacked(&body, &packings, bodies::LONGEST_ERROR).0.into();
        }
        if let Some(signer) = &self.signer {
            signer.note_time(&headers);
        }
        Err(status::read(code.as_u16(), &headers, &body))
    }

    async fn read_any_stream(
        &self,
        response: &mut reqwest::Response,
        headers: HeaderMap,
        stream: &mut Reading<'_>,
        began: Instant,
    ) -> Result<Received, ProviderError> {
        match &*bodies::packings(&headers) {
            [] => self.read_stream(response, headers, stream, began).await,
            packings => self.read_packed_stream(response, headers, stream, packings).await,
        }
    }

    fn request(&self, url: &Url, body: &Payload, key: Option<&KeyHeader>, is_for_a_stream: bool) -> Request {
        let mut request = Request::new(Method::POST, url.clone());
        *request.headers_mut() = self.headers.clone();
        if is_for_a_stream {
            // What is unpacked part by part: the others have to be there as a whole.
            request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"));
        }
        if let Some(key) = key {
            key.put_on(request.headers_mut());
        }
        *request.body_mut() = Some(body.into());
        request
    }

    /// Reads a body to its end; that of an error no further than it is of use.
    async fn read_body(&self, response: &mut reqwest::Response, to_the_end: bool) -> Result<Bytes, ProviderError> {
        let most = if to_the_end { self.options.max_body_bytes } else { bodies::LONGEST_ERROR };
        if to_the_end
            && let Some(length) = response.content_length().and_then(|length| usize::try_from(length).ok())
            && length > most
        {
            return Err(self.too_long(length));
        }
        let Some(first) = self.chunk(response).await? else { return Ok(Bytes::new()) };
        if first.len() > most {
            return if to_the_end { Err(self.too_long(first.len())) } else { Ok(first) };
        }
        // Nearly every reply is one chunk: only longer ones are copied together.
        let Some(second) = self.chunk(response).await? else { return Ok(first) };
        // In a box, for most requests never hold it.
        Box::pin(self.read_on(response, first, second, to_the_end)).await
    }

    /// Reads the rest of a body of several chunks.
    async fn read_on(
        &self,
        response: &mut reqwest::Response,
        first: Bytes,
        second: Bytes,
        to_the_end: bool,
    ) -> Result<Bytes, ProviderError> {
        let most = if to_the_end { self.options.max_body_bytes } else { bodies::LONGEST_ERROR };
        let mut body = Vec::with_capacity(first.len() + second.len());
        body.put(first);
        body.put(second);
        let mut held = bodies::ALL.begin();
        held.grow(body.len()).await;
        loop {
            if body.len() > most {
                return if to_the_end { Err(self.too_long(body.len())) } else { Ok(body.into()) };
            }
            match self.chunk(response).await? {
                Some(chunk) => {
                    held.grow(chunk.len()).await;
                    body.put(chunk);
                }
                None => return Ok(body.into()),
            }
        }
    }

    /// Reads a stream to its end.
    async fn read_stream(
        &self,
        response: &mut reqwest::Response,
        headers: HeaderMap,
        stream: &mut Reading<'_>,
        began: Instant,
    ) -> Result<Received, ProviderError> {
        let (mut has_begun, mut first_token) = (false, None);
        let mut folded = Folded::new((stream.fold)(), stream.listener.clone());
        let TransportOptions { idle_timeout, progress_timeout, total_timeout, .. } = self.options;
        let mut watch = Watch::new(&stream.clocks.with(idle_timeout, progress_timeout, total_timeout));
        let mut held = bodies::ALL.begin();
        let mut known = 0;
        // One for the whole stream: it is moved when it rings, not with each part.
        let mut alarm = pin!(tokio::time::sleep_until(watch.end()));
        let error = loop {
            let next = async {
                match &stream.listener {
                    None => Some(response.chunk().await),
                    Some(listener) => tokio::select! {
                        chunk = response.chunk() => Some(chunk),
                        () = listener.stopped() => None,
                    },
                }
            };
            let next = tokio::select! {
                biased;
                next = next => Some(next),
                () = &mut alarm => None,
            };
            let chunk = match next {
                Some(Some(Ok(Some(chunk)))) => chunk,
                // Something has come since the alarm was set.
                None if tokio::time::Instant::now() < watch.end() => {
                    alarm.as_mut().reset(watch.end());
                    continue;
                }
                Some(None) => {
                    let body = folded.so_far().unwrap_or_default().into();
                    return Ok(Received { headers, body, first_token, is_stopped: true });
                }
                Some(Some(Ok(None))) => match self.ended(&mut folded, stream) {
                    Ok(body) => return Ok(Received { headers, body, first_token, is_stopped: false }),
                    Err(error) => break error,
                },
                Some(Some(Err(error))) => break self.failed(&error),
                None => {
                    let message = watch.fired(&folded.last());
                    break ProviderError::Timeout { message, contact: Contact::Some };
                }
            };
            let heard = folded.push(&chunk);
            watch.heard(heard);
            if folded.is_damaged() {
                let message = format!("{}: {}", self.url.origin().ascii_serialization(), folded.last());
                break ProviderError::Connection { message, contact: Contact::Lost };
            }
            if !has_begun && !folded.has_failed() {
                has_begun = true;
                stream.listener.iter().for_each(|listener| listener.begin());
            }
            if heard.progress {
                first_token.get_or_insert_with(|| began.elapsed());
            }
            if heard.held > self.options.max_body_bytes {
                break self.too_long(heard.held);
            }
            if heard.held > known {
                held.grow(heard.held - known).await;
                known = heard.held;
            }
        };
        stream.so_far = folded.so_far();
        Err(error)
    }

    /// Reads a stream in an encoding that is unpacked only as a whole.
    async fn read_packed_stream(
        &self,
        response: &mut reqwest::Response,
        headers: HeaderMap,
        stream: &mut Reading<'_>,
        packings: &[Packing],
    ) -> Result<Received, ProviderError> {
        let body = self.unpacked(&self.read_body(response, true).await?, packings)?;
        let mut folded = Folded::new((stream.fold)(), stream.listener.clone());
        folded.push(&body);
        if !folded.has_failed() {
            stream.listener.iter().for_each(|listener| listener.begin());
        }
        match self.ended(&mut folded, stream) {
            Ok(body) => Ok(Received { headers, body, first_token: None, is_stopped: false }),
            Err(error) => {
                stream.so_far = folded.so_far();
                Err(error)
            }
        }
    }

    /// The body that a stream has come to at its end.
    fn ended(&self, folded: &mut Folded, stream: &mut Reading<'_>) -> Result<Bytes, ProviderError> {
        if let Some(body) = folded.end() {
            stream.so_far = folded.has_failed().then(|| folded.so_far()).flatten();
            return Ok(body.into());
        }
        let (origin, last) = (self.url.origin().ascii_serialization(), folded.last());
        let message = format!("{origin}: the stream ended before the reply was complete; {last}");
        Err(ProviderError::Connection { message, contact: Contact::Lost })
    }

    fn too_long(&self, length: usize) -> ProviderError {
        let most = self.options.max_body_bytes;
        ProviderError::Connection {
            message: format!("the reply is longer than {most} bytes (at least {length}); raise max_body_bytes"),
            contact: Contact::Some,
        }
    }

    fn failed(&self, error: &reqwest::Error) -> ProviderError {
        transport_error(error, self.via.as_deref())
    }

    fn unpacked(&self, body: &[u8], packings: &[Packing]) -> Result<Bytes, ProviderError> {
        let (unpacked, read) = bodies::unpacked(body, packings, self.options.max_body_bytes);
        if unpacked.len() > self.options.max_body_bytes {
            return Err(self.too_long(unpacked.len()));
        }
        match read {
            Ok(()) => Ok(unpacked.into()),
            Err(error) => {
                let origin = self.url.origin().ascii_serialization();
                let names: Vec<_> = packings.iter().map(|packing| packing.name()).collect();
                let problem = format!("{origin}: the body is not valid {}: {error}", names.join(", "));
                Err(ProviderError::Protocol { protocol: "HTTP", problem, excerpt: String::new() })
            }
        }
    }

    async fn chunk(&self, response: &mut reqwest::Response) -> Result<Option<Bytes>, ProviderError> {
        let chunk = limited(self.options.idle_timeout, "the next part of the reply", pin!(response.chunk())).await?;
        chunk.map_err(|error| self.failed(&error))
    }
}

/// Has TLS done by ring. Whoever embeds us may have installed a provider already: then that one serves.
fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Awaits a future, but not for longer than `limit`. It is borrowed: moved in, each level would hold it twice, and an
/// open request would take kilobytes more. Most have no limit, and no room for its timer.
async fn limited<F: Future>(limit: Option<f64>, what: &str, future: Pin<&mut F>) -> Result<F::Output, ProviderError> {
    match limit {
        None => Ok(future.await),
        Some(limit) => {
            Box::pin(tokio::time::timeout(seconds(limit), future)).await.map_err(|_| ProviderError::Timeout {
                message: format!("{what} did not arrive within {limit} s"),
                contact: Contact::Some,
            })
        }
    }
}

/// Waits a while for one of this process's own connections to end, after having `waited` so long; returns for how long.
async fn pause_for_files(waited: Duration) -> Duration {
    let wait = waited.clamp(FILES_WAITS.0, FILES_WAITS.1).mul_f64(0.5 + fastrand::f64());
    tokio::time::sleep(wait).await;
    wait
}
