//! Connections, and a request that ends in a body or a [`ProviderError`].

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::{BufMut, Bytes};
use http::{HeaderMap, HeaderValue, Method, Version, header};
use reqwest::{Request, Url};
use serde::Deserialize;

use super::error::{Contact, ProviderError};
use super::keys::KeyHeader;
use super::reuse::Answered;
use super::streams::{Clocks, Fold, Folded, Watch};
use super::{bodies, proxy, status};
use crate::engine::seconds;

/// How to connect. All durations in seconds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransportOptions {
    /// Limit of making a connection, name resolution and TLS included.
    pub connect_timeout: f64,
    /// Limit of the wait for the reply's headers.
    pub first_byte_timeout: Option<f64>,
    /// Limit of the wait for each further part of the reply.
    pub idle_timeout: Option<f64>,
    /// Limit of the whole request.
    pub total_timeout: Option<f64>,
    /// Longest reply body accepted, bytes.
    pub max_body_bytes: usize,
    /// After this long connections are replaced, names resolved anew.
    pub connection_max_age: f64,
    /// A proxy for all requests, in place of the environment's.
    pub proxy: Option<String>,
    /// Whether the environment's proxies are not for this server; `NO_PROXY` may say so as well.
    pub direct: bool,
    /// A PEM file with further certificate authorities.
    pub ca_bundle: Option<String>,
    /// A PEM file with a client certificate and its key.
    pub client_certificate: Option<String>,
    /// `auto`: HTTP/2 where the server offers it; `never`; `always`: also without TLS.
    pub http2: Http2,
    /// Transports with one number, the same options and the same server share their connections.
    pub shared: Option<u64>,
}

/// When to speak HTTP/2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Http2 {
    /// Where the server offers it.
    #[default]
    Auto,
    /// Never.
    Never,
    /// Always, also without TLS.
    Always,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            connect_timeout: 10.0,
            first_byte_timeout: None,
            idle_timeout: None,
            total_timeout: None,
            max_body_bytes: 64 << 20,
            connection_max_age: 300.0,
            proxy: None,
            direct: false,
            ca_bundle: None,
            client_certificate: None,
            http2: Http2::Auto,
            shared: None,
        }
    }
}

const USER_AGENT: &str = concat!("batch-llm/", env!("CARGO_PKG_VERSION"));
/// Requests on one HTTP/2 connection, at most. Servers allow 100 streams or more (RFC 9113 recommends it); what is
/// above their limit waits inside the client without anybody seeing it, so another connection is opened before.
const STREAMS: usize = 90;
/// HTTP/2 connections, at most.
const MOST_SHARDS: usize = 256;
/// How often a request is sent again at once because the server has not looked at it. More is for the engine to decide.
const MOST_REFUSALS: u32 = 2;
/// Idle HTTP/1.1 connections kept per host: as many as there were requests at the same time.
const IDLE_CONNECTIONS: usize = 65_536;

/// A client of its own, and so, with HTTP/2, a connection of its own.
struct Shard {
    client: reqwest::Client,
    open: AtomicUsize,
    born: Instant,
}

/// Requests of one strategy, and the connections for them.
pub struct Transport {
    options: TransportOptions,
    url: Url,
    /// Those that all requests have.
    headers: HeaderMap,
    pool: Arc<Pool>,
}

/// Connections to one server.
struct Pool {
    shards: ArcSwap<Vec<Arc<Shard>>>,
    /// Whether the server speaks HTTP/2.
    multiplexed: AtomicBool,
    /// Held by whoever replaces shards.
    replacing: Mutex<()>,
    /// Connections that have been of use before.
    answered: Answered,
    /// For a request that met a closed connection: each gets a new one.
    unpooled: OnceLock<reqwest::Client>,
}

/// A pool that is shared, and for whom. After a fork the parent's connections are of no use to the child.
struct SharedPool {
    process: u32,
    options: TransportOptions,
    origin: url::Origin,
    pool: Weak<Pool>,
}

static SHARED: Mutex<Vec<SharedPool>> = Mutex::new(Vec::new());

/// A success reply.
pub struct Received {
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// A reply that is to come as a stream.
pub struct Reading<'a> {
    /// Where to ask for it.
    pub url: &'a Url,
    /// Puts it together.
    pub fold: fn() -> Box<dyn Fold>,
    /// How long it may be silent.
    pub clocks: Clocks,
    /// After an error, or a reply that is the error at the end of a stream: the body as far as it had come, if there was
    /// an event.
    pub so_far: Option<String>,
}

impl Transport {
    /// Connections for requests to `url`, with these headers on every one. Certificates are checked against the system's
    /// trust store; proxies come from the usual environment variables; redirects are not followed: no API sends any, and
    /// a key must not travel along. A user and a password in `url` become a header (RFC 7617), if there is none with a
    /// key.
    ///
    /// # Errors
    /// A message that names the option that cannot be used.
    pub fn new(options: TransportOptions, url: Url, headers: HeaderMap) -> Result<Self, String> {
        let options = TransportOptions { direct: options.direct || proxy::is_direct(&url), ..options };
        // Whoever embeds us may have installed a provider already: then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
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
        Ok(Self { options, url, headers: whole, pool })
    }

    /// Posts a body, with a key's header in place of the usual one, and reads the reply.
    ///
    /// # Errors
    /// [`ProviderError::Connection`], [`ProviderError::Timeout`], or [`ProviderError::Status`] for an error status.
    pub async fn post(&self, body: &Bytes, key: Option<&KeyHeader>) -> Result<Received, ProviderError> {
        let whole = pin!(self.exchange(body, key, None));
        limited(self.options.total_timeout, "the whole reply", whole).await?
    }

    /// Posts a body to the stream's address, and reads the reply as a stream.
    ///
    /// # Errors
    /// As [`post`](Self::post); what had come of the reply is in `stream`.
    pub async fn stream(
        &self,
        body: &Bytes,
        key: Option<&KeyHeader>,
        stream: &mut Reading<'_>,
    ) -> Result<Received, ProviderError> {
        self.exchange(body, key, Some(stream)).await
    }

    // What is awaited while a request is open is kept small: there are thousands of them, and what is passed by value
    // an asynchronous function holds twice.
    async fn exchange(
        &self,
        body: &Bytes,
        key: Option<&KeyHeader>,
        stream: Option<&mut Reading<'_>>,
    ) -> Result<Received, ProviderError> {
        let mut refusals = 0;
        let mut fresh = None;
        loop {
            let shard = self.shard();
            let _open = Open::new(&shard.open);
            let client = fresh.unwrap_or(&shard.client);
            let began = Instant::now();
            let url = stream.as_ref().map_or(&self.url, |stream| stream.url);
            let sending = pin!(client.execute(self.request(url, body, key)));
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
                    fresh = Some(self.pool.unpooled.get_or_init(|| self.without_a_pool(&shard)));
                    continue;
                }
                Err(error) => return Err(transport_error(&error)),
            };
            if response.version() != Version::HTTP_2 {
                self.pool.answered.on(&response);
            } else if !self.pool.multiplexed.load(Ordering::Relaxed) {
                self.pool.multiplexed.store(true, Ordering::Relaxed);
            }
            let (code, headers) = (response.status(), std::mem::take(response.headers_mut()));
            let is_zstd =
                headers.get(header::CONTENT_ENCODING).is_some_and(|how| how.as_bytes().eq_ignore_ascii_case(b"zstd"));
            if let Some(stream) = stream.filter(|_| code.is_success() && !is_zstd) {
                // In a box, for most requests never hold it.
                return Box::pin(self.read_stream(&mut response, headers, stream)).await;
            }
            let body = self.read_body(&mut response, code.is_success()).await;
            return if code.is_success() {
                let body = if is_zstd { self.unpacked(&body?)? } else { body? };
                Ok(Received { headers, body })
            } else {
                // A body that is cut or badly compressed leaves it to status and headers. The connection of one that is
                // not read to its end is dropped.
                let body = body.unwrap_or_default();
                let body = if is_zstd { bodies::unpacked(&body, bodies::LONGEST_ERROR).0.into() } else { body };
                Err(status::read(code.as_u16(), &headers, &body))
            };
        }
    }

    fn without_a_pool(&self, shard: &Shard) -> reqwest::Client {
        // It worked before; a file may have gone since. Then the pool has to serve.
        Shard::client(&self.options, 0).unwrap_or_else(|_| shard.client.clone())
    }

    fn request(&self, url: &Url, body: &Bytes, key: Option<&KeyHeader>) -> Request {
        let mut request = Request::new(Method::POST, url.clone());
        *request.headers_mut() = self.headers.clone();
        if let Some((name, value)) = key {
            request.headers_mut().insert(name, value.clone());
        }
        *request.body_mut() = Some(body.clone().into());
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
    ) -> Result<Received, ProviderError> {
        let mut folded = Folded::new((stream.fold)());
        let mut watch = Watch::new(&stream.clocks, self.options.idle_timeout, self.options.total_timeout);
        let mut held = bodies::ALL.begin();
        let mut known = 0;
        let error = loop {
            let chunk = match tokio::time::timeout_at(watch.end(), response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => match folded.end() {
                    Some(body) => {
                        stream.so_far = folded.has_failed().then(|| folded.so_far()).flatten();
                        return Ok(Received { headers, body: body.into() });
                    }
                    None => {
                        let (origin, last) = (self.url.origin().ascii_serialization(), folded.last());
                        let message = format!("{origin}: the stream ended before the reply was complete; {last}");
                        break ProviderError::Connection { message, contact: Contact::Lost };
                    }
                },
                Ok(Err(error)) => break transport_error(&error),
                Err(_) => {
                    let message = watch.fired(&folded.last());
                    break ProviderError::Timeout { message, contact: Contact::Some };
                }
            };
            let heard = folded.push(&chunk);
            watch.heard(heard);
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

    fn too_long(&self, length: usize) -> ProviderError {
        let most = self.options.max_body_bytes;
        ProviderError::Connection {
            message: format!("the reply is longer than {most} bytes (at least {length}); raise max_body_bytes"),
            contact: Contact::Some,
        }
    }

    fn unpacked(&self, body: &[u8]) -> Result<Bytes, ProviderError> {
        let (unpacked, read) = bodies::unpacked(body, self.options.max_body_bytes);
        if unpacked.len() > self.options.max_body_bytes {
            return Err(self.too_long(unpacked.len()));
        }
        match read {
            Ok(()) => Ok(unpacked.into()),
            Err(error) => {
                let problem =
                    format!("{}: the body is not valid zstd: {error}", self.url.origin().ascii_serialization());
                Err(ProviderError::Protocol { protocol: "HTTP", problem, excerpt: String::new() })
            }
        }
    }

    async fn chunk(&self, response: &mut reqwest::Response) -> Result<Option<Bytes>, ProviderError> {
        let chunk = limited(self.options.idle_timeout, "the next part of the reply", pin!(response.chunk())).await?;
        chunk.map_err(|error| transport_error(&error))
    }

    /// The client for the next request.
    fn shard(&self) -> Arc<Shard> {
        let shards = self.pool.shards.load();
        let chosen = if self.pool.multiplexed.load(Ordering::Relaxed) {
            shards.iter().min_by_key(|shard| shard.open.load(Ordering::Relaxed))
        } else {
            shards.first()
        };
        let Some(chosen) = chosen else { return self.replaced(None) };
        let full = shards.len() < MOST_SHARDS
            && self.pool.multiplexed.load(Ordering::Relaxed)
            && chosen.open.load(Ordering::Relaxed) >= STREAMS;
        if full {
            return self.replaced(None);
        }
        if chosen.born.elapsed() > seconds(self.options.connection_max_age) {
            return self.replaced(Some(chosen));
        }
        Arc::clone(chosen)
    }

    /// A new shard, in place of `old` or beside the others. Requests in flight end on the old one.
    fn replaced(&self, old: Option<&Arc<Shard>>) -> Arc<Shard> {
        let _guard = self.pool.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.pool.shards.load_full();
        // Somebody else may have been here first.
        match old {
            Some(old) if !current.iter().any(|shard| Arc::ptr_eq(shard, old)) => {
                if let Some(fresh) = current.iter().min_by_key(|shard| shard.open.load(Ordering::Relaxed)) {
                    return Arc::clone(fresh);
                }
            }
            None => {
                let free = current.iter().find(|shard| shard.open.load(Ordering::Relaxed) < STREAMS);
                if let Some(free) = free {
                    return Arc::clone(free);
                }
            }
            Some(_) => {}
        }
        let Ok(fresh) = Shard::new(&self.options) else {
            // It worked before; a file may have gone since. The old connections still serve.
            return Arc::clone(&current[0]);
        };
        let fresh = Arc::new(fresh);
        let kept = current.iter().filter(|shard| old.is_none_or(|old| !Arc::ptr_eq(shard, old))).cloned();
        self.pool.shards.store(Arc::new(kept.chain([Arc::clone(&fresh)]).collect()));
        fresh
    }
}

impl Pool {
    fn new(options: &TransportOptions) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            shards: ArcSwap::from_pointee(vec![Arc::new(Shard::new(options)?)]),
            multiplexed: AtomicBool::new(options.http2 == Http2::Always),
            replacing: Mutex::new(()),
            answered: Answered::default(),
            unpooled: OnceLock::new(),
        }))
    }

    /// The pool that is shared, if one is wanted and there; else a new one.
    fn of(options: &TransportOptions, url: &Url) -> Result<Arc<Self>, String> {
        if options.shared.is_none() {
            return Self::new(options);
        }
        let (process, origin) = (std::process::id(), url.origin());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|one| one.process == process && one.pool.strong_count() > 0);
        let mut same = shared.iter().filter(|one| one.origin == origin && one.options == *options);
        if let Some(pool) = same.find_map(|one| one.pool.upgrade()) {
            return Ok(pool);
        }
        let pool = Self::new(options)?;
        shared.push(SharedPool { process, options: options.clone(), origin, pool: Arc::downgrade(&pool) });
        Ok(pool)
    }
}

impl Shard {
    fn new(options: &TransportOptions) -> Result<Self, String> {
        let client = Self::client(options, IDLE_CONNECTIONS)?;
        Ok(Self { client, open: AtomicUsize::new(0), born: Instant::now() })
    }

    /// A client that keeps so many idle connections.
    fn client(options: &TransportOptions, idle: usize) -> Result<reqwest::Client, String> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(seconds(options.connect_timeout))
            .pool_max_idle_per_host(idle)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .http2_adaptive_window(true)
            // We do it ourselves: reqwest would keep a copy of each request for as long as it is open.
            .retry(reqwest::retry::never().max_retries_per_request(0))
            .redirect(reqwest::redirect::Policy::none());
        builder = match options.http2 {
            Http2::Auto => builder,
            Http2::Never => builder.http1_only(),
            Http2::Always => builder.http2_prior_knowledge(),
        };
        if options.direct {
            builder = builder.no_proxy();
        }
        if let Some(url) = &options.proxy {
            let proxy = reqwest::Proxy::all(url).map_err(|_| "proxy is not a valid proxy URL".to_owned())?;
            builder = builder.proxy(proxy);
        }
        if let Some(path) = &options.ca_bundle {
            let pem = std::fs::read(path).map_err(|error| format!("ca_bundle {path:?} cannot be read: {error}"))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| format!("ca_bundle {path:?} is not a PEM file of certificates: {error}"))?;
            if certificates.is_empty() {
                return Err(format!("ca_bundle {path:?} contains no certificate"));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        if let Some(path) = &options.client_certificate {
            let pem =
                std::fs::read(path).map_err(|error| format!("client_certificate {path:?} cannot be read: {error}"))?;
            let identity = reqwest::Identity::from_pem(&pem)
                .map_err(|_| format!("client_certificate {path:?} is not a PEM file with a certificate and its key"))?;
            builder = builder.identity(identity);
        }
        builder.build().map_err(|error| format!("the HTTP client could not be built: {}", describe(&error)))
    }
}

/// Counts a request as open for as long as it lives, also when it is dropped.
struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
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

/// Whether an HTTP/2 server says that it has not looked at the request, which then may be sent again without any harm
/// (RFC 9113, section 8.7): it refused the stream, or closes the connection and had not got so far.
fn was_not_processed(error: &reqwest::Error) -> bool {
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

fn transport_error(error: &reqwest::Error) -> ProviderError {
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
fn describe(error: &reqwest::Error) -> String {
    let mut cause = std::error::Error::source(error);
    let mut parts = Vec::new();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if parts.last() != Some(&text) {
            parts.push(text);
        }
        cause = inner.source();
    }
    if parts.is_empty() { "the request failed without a cause".to_owned() } else { parts.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use std::convert::Infallible;

    /// A server that speaks HTTP/2 with few streams per connection, and how many requests it holds at most.
    async fn few_streams(streams: u32, peak: Arc<AtomicUsize>) -> reqwest::Url {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            let open = Arc::new(AtomicUsize::new(0));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (open, peak) = (Arc::clone(&open), Arc::clone(&peak));
                tokio::spawn(async move {
                    let service = service_fn(move |_request| {
                        let (open, peak) = (Arc::clone(&open), Arc::clone(&peak));
                        async move {
                            peak.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_millis(300)).await;
                            open.fetch_sub(1, Ordering::SeqCst);
                            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"{}"))))
                        }
                    });
                    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ =
                        builder.max_concurrent_streams(streams).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        url
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn http2_has_no_hidden_plateau() {
        let peak = Arc::new(AtomicUsize::new(0));
        let url = few_streams(100, Arc::clone(&peak)).await;
        let options = TransportOptions { http2: Http2::Always, ..TransportOptions::default() };
        let transport = Arc::new(Transport::new(options, url, HeaderMap::new()).unwrap());
        let requests: Vec<_> = (0..600)
            .map(|_| {
                let transport = Arc::clone(&transport);
                tokio::spawn(async move { transport.post(&Bytes::new(), None).await.map(|got| got.body) })
            })
            .collect();
        for request in requests {
            assert_eq!(request.await.unwrap().unwrap(), Bytes::from_static(b"{}"));
        }
        // One connection would have held 100.
        assert!(peak.load(Ordering::SeqCst) > 400, "{}", peak.load(Ordering::SeqCst));
        assert!(transport.pool.shards.load().iter().all(|shard| shard.open.load(Ordering::SeqCst) == 0));
    }

    #[tokio::test]
    async fn old_connections_are_replaced() {
        let peak = Arc::new(AtomicUsize::new(0));
        let url = few_streams(100, peak).await;
        let options = TransportOptions { http2: Http2::Always, connection_max_age: 0.0, ..TransportOptions::default() };
        let transport = Transport::new(options, url.clone(), HeaderMap::new()).unwrap();
        let first = Arc::clone(&transport.pool.shards.load()[0]);
        tokio::time::sleep(Duration::from_millis(2)).await;
        transport.post(&Bytes::new(), None).await.unwrap();
        let shards = transport.pool.shards.load();
        assert!(shards.len() == 1 && !Arc::ptr_eq(&shards[0], &first));
    }

    #[test]
    fn who_shares_connections_has_the_same_number_options_and_server() {
        let with = |shared, url: &str, first_byte_timeout| {
            let options = TransportOptions { shared, first_byte_timeout, ..TransportOptions::default() };
            Transport::new(options, url.parse().unwrap(), HeaderMap::new()).unwrap().pool
        };
        let first = with(Some(u64::MAX), "http://localhost:1/a", None);
        assert!(Arc::ptr_eq(&first, &with(Some(u64::MAX), "http://localhost:1/b", None)));
        for other in [
            with(None, "http://localhost:1/a", None),
            with(Some(u64::MAX - 1), "http://localhost:1/a", None),
            with(Some(u64::MAX), "http://localhost:2/a", None),
            with(Some(u64::MAX), "http://localhost:1/a", Some(1.0)),
        ] {
            assert!(!Arc::ptr_eq(&first, &other));
        }
    }

    #[tokio::test]
    async fn each_wait_has_its_limit() {
        let peak = Arc::new(AtomicUsize::new(0));
        let url = few_streams(100, peak).await;
        for (first_byte_timeout, total_timeout, says) in
            [(Some(0.02), None, "first byte"), (None, Some(0.02), "whole reply")]
        {
            let options = TransportOptions {
                http2: Http2::Always,
                first_byte_timeout,
                total_timeout,
                ..TransportOptions::default()
            };
            let transport = Transport::new(options, url.clone(), HeaderMap::new()).unwrap();
            let error = transport.post(&Bytes::new(), None).await.err().unwrap();
            assert!(matches!(&error, ProviderError::Timeout { message, .. } if message.contains(says)), "{error}");
        }
    }

    /// A server that answers each request of HTTP/2 as `refuses` says, by the number of the request: with a reset for this
    /// reason, or (`None`) a reply. Returns also how many requests have come.
    async fn refusing(refuses: fn(usize) -> Option<h2::Reason>) -> (reqwest::Url, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let seen = Arc::clone(&counter);
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        match refuses(seen.fetch_add(1, Ordering::SeqCst)) {
                            Some(reason) => respond.send_reset(reason),
                            None => {
                                let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                                body.send_data(Bytes::from_static(b"{}"), true).unwrap();
                            }
                        }
                    }
                });
            }
        });
        (url, seen)
    }

    #[tokio::test]
    async fn what_the_server_has_not_looked_at_is_sent_again() {
        let to = |url| {
            let options = TransportOptions { http2: Http2::Always, ..TransportOptions::default() };
            Transport::new(options, url, HeaderMap::new()).unwrap()
        };
        let (url, seen) = refusing(|number| (number < 2).then_some(h2::Reason::REFUSED_STREAM)).await;
        let reply = to(url).post(&Bytes::from_static(b"{}"), None).await.unwrap();
        assert_eq!(reply.body, Bytes::from_static(b"{}"));
        assert_eq!(seen.load(Ordering::SeqCst), 3);
        // Not for ever, and only if it says so.
        let (url, seen) = refusing(|_| Some(h2::Reason::REFUSED_STREAM)).await;
        assert!(matches!(to(url).post(&Bytes::new(), None).await, Err(ProviderError::Connection { .. })));
        assert_eq!(seen.load(Ordering::SeqCst), 3);
        let (url, seen) = refusing(|_| Some(h2::Reason::INTERNAL_ERROR)).await;
        let transport = to(url);
        assert!(matches!(transport.post(&Bytes::new(), None).await, Err(ProviderError::Connection { .. })));
        assert_eq!(seen.load(Ordering::SeqCst), 1);
        assert_eq!(transport.pool.shards.load()[0].open.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_user_in_the_address_is_a_header() {
        let to = |headers| {
            let url = "http://user:word@localhost/v1".parse().unwrap();
            let transport = Transport::new(TransportOptions::default(), url, headers).unwrap();
            transport.request(&transport.url, &Bytes::new(), None)
        };
        let request = to(HeaderMap::new());
        assert_eq!(request.url().as_str(), "http://localhost/v1");
        assert_eq!(request.headers()[header::AUTHORIZATION], "Basic dXNlcjp3b3Jk");
        assert!(request.headers()[header::AUTHORIZATION].is_sensitive());
        let key = to(HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Bearer k"))]));
        assert_eq!(key.headers().get_all(header::AUTHORIZATION).iter().collect::<Vec<_>>(), ["Bearer k"]);
    }

    #[test]
    fn options_that_cannot_be_used_are_named() {
        let with = |change: fn(&mut TransportOptions)| {
            let mut options = TransportOptions::default();
            change(&mut options);
            Transport::new(options, "http://localhost".parse().unwrap(), HeaderMap::new()).err().unwrap()
        };
        assert!(with(|options| options.ca_bundle = Some("/nowhere.pem".to_owned())).contains("ca_bundle"));
        assert!(
            with(|options| options.client_certificate = Some("/nowhere".to_owned())).contains("client_certificate")
        );
        assert!(with(|options| options.proxy = Some("http://".to_owned())).contains("proxy"));
    }
}
