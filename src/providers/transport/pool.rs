//! How to connect, and the connections to one server: which carries the next request, and when a new one is opened.
//! Transports use it; the options come from clients.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use reqwest::Url;
use serde::Deserialize;

use super::failures::describe;
use super::reuse::Answered;
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
    /// Limit of the time without an event of a stream, and without one that changes the answer.
    pub progress_timeout: Option<f64>,
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
    /// Further certificate authorities: a PEM file, or its text.
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
            progress_timeout: None,
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

/// Requests on one HTTP/2 connection, at most. Servers allow 100 streams or more (RFC 9113 recommends it); what is
/// above their limit waits inside the client without anybody seeing it, so another connection is opened before.
const STREAMS: usize = 90;
/// HTTP/2 connections, at most.
const MOST_SHARDS: usize = 256;
/// After so long without a byte the system probes a connection, and then so often: as the vendors' SDKs have it, so that
/// balancers and address translators on the way, which forget silent connections, do not.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// So many unanswered probes end a connection.
const PROBES: u32 = 5;
/// How often a connection of HTTP/2 with open requests is pinged.
const PING: Duration = Duration::from_secs(30);
/// How many bytes of an HTTP/2 stream a server may send before they are read.
const STREAM_WINDOW: u32 = 2 << 20;
/// The same for all streams of a connection. Not the protocol's 64 KB, not even to begin with: h2 ends a connection, and
/// all streams on it, if it has some hundred small parts for each 64 KB that are not yet read. Models answer in such
/// parts, and a busy machine is late to read them.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Idle HTTP/1.1 connections kept per host: as many as there were requests at the same time.
const IDLE_CONNECTIONS: usize = 65_536;

/// Every part of a PEM file begins so (RFC 7468, section 2), and no file's name has it.
const PEM_BEGINS: &str = "-----BEGIN ";

/// A client of its own, and so, with HTTP/2, a connection of its own.
pub struct Shard {
    /// Sends.
    pub client: reqwest::Client,
    /// How many requests are open; see [`Open`].
    pub open: AtomicUsize,
    born: Instant,
}

/// Connections to one server.
pub struct Pool {
    options: TransportOptions,
    /// One, or with HTTP/2 as many as the requests in flight take.
    pub shards: ArcSwap<Vec<Arc<Shard>>>,
    /// Whether the server speaks HTTP/2.
    pub multiplexed: AtomicBool,
    /// Held by whoever replaces shards.
    replacing: Mutex<()>,
    /// Connections that have been of use before.
    pub answered: Answered,
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

impl Pool {
    fn new(options: &TransportOptions) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            options: options.clone(),
            shards: ArcSwap::from_pointee(vec![Arc::new(Shard::new(options)?)]),
            multiplexed: AtomicBool::new(options.http2 == Http2::Always),
            replacing: Mutex::new(()),
            answered: Answered::default(),
            unpooled: OnceLock::new(),
        }))
    }

    /// The pool that is shared, if one is wanted and there; else a new one.
    pub fn of(options: &TransportOptions, url: &Url) -> Result<Arc<Self>, String> {
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

    /// A client without idle connections, for a request that met a closed one.
    pub fn unpooled(&self, shard: &Shard) -> &reqwest::Client {
        // It worked before; a file may have gone since. Then the pool has to serve.
        self.unpooled.get_or_init(|| Shard::client(&self.options, 0).unwrap_or_else(|_| shard.client.clone()))
    }

    /// The connections for the next request.
    pub fn next(&self) -> Arc<Shard> {
        let shards = self.shards.load();
        let chosen = if self.multiplexed.load(Ordering::Relaxed) {
            shards.iter().min_by_key(|shard| shard.open.load(Ordering::Relaxed))
        } else {
            shards.first()
        };
        let Some(chosen) = chosen else { return self.replaced(None) };
        let full = shards.len() < MOST_SHARDS
            && self.multiplexed.load(Ordering::Relaxed)
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
        let _guard = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.shards.load_full();
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
        self.shards.store(Arc::new(kept.chain([Arc::clone(&fresh)]).collect()));
        fresh
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
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_keepalive_interval(KEEP_ALIVE)
            .tcp_keepalive_retries(PROBES)
            .http2_keep_alive_interval(PING)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
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
        if let Some(ca_bundle) = &options.ca_bundle {
            builder = builder.tls_certs_merge(authorities(ca_bundle)?);
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

/// A client for a few requests to other servers, connected as the options say. Proxies are those of the environment, or
/// the options' own.
///
/// # Errors
/// As [`Transport::new`](super::Transport::new).
pub fn aside(options: &TransportOptions) -> Result<reqwest::Client, String> {
    super::install_tls();
    Shard::client(options, 1)
}

/// The certificates of a PEM file, or of its text.
fn authorities(ca_bundle: &str) -> Result<Vec<reqwest::Certificate>, String> {
    let (name, pem) = if ca_bundle.contains(PEM_BEGINS) {
        ("ca_bundle".to_owned(), ca_bundle.as_bytes().into())
    } else {
        let name = format!("ca_bundle {ca_bundle:?}");
        let pem = std::fs::read(ca_bundle).map_err(|error| format!("{name} cannot be read: {error}"))?;
        (name, Cow::Owned(pem))
    };
    let certificates = reqwest::Certificate::from_pem_bundle(&pem)
        .map_err(|error| format!("{name} is not a PEM file of certificates: {}", describe(&error)))?;
    if certificates.is_empty() {
        return Err(format!("{name} contains no certificate"));
    }
    Ok(certificates)
}

/// Counts a request as open for as long as it lives, also when it is dropped.
pub struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    pub fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
