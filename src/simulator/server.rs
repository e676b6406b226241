//! The HTTP server: one thread with its own runtime, so that it neither shares nor outlives anything of a run.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::{Fault, chat};

/// How the simulated provider behaves.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Least time to a reply.
    pub latency: Duration,
    /// Added to the latency: up to this much, different for each request number but the same in every run.
    pub latency_spread: Duration,
    /// Scheduled errors; the first that hits counts.
    pub faults: Vec<Fault>,
    /// Reply templates; empty = an echo.
    pub replies: Vec<String>,
    /// The only key accepted; `None` = any or none.
    pub api_key: Option<String>,
}

/// What the server has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests received.
    pub requests: u64,
    /// Requests in work at the same time, at most.
    pub peak_concurrency: u64,
    /// Replies by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
}

struct Shared {
    behaviour: Behaviour,
    requests: AtomicU64,
    open: AtomicU64,
    peak: AtomicU64,
    statuses: Mutex<BTreeMap<u16, u64>>,
}

/// A running server. Stops when dropped.
pub struct Simulator {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Simulator {
    /// Starts on a loopback port; 0 picks a free one.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub fn start(behaviour: Behaviour, port: u16) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared {
            behaviour,
            requests: AtomicU64::new(0),
            open: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            statuses: Mutex::new(BTreeMap::new()),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("simulated-provider".to_owned()).spawn(move || {
            runtime.block_on(async {
                // Errors of accepting are those of single connections; the loop ends only by `stopped`.
                if let Ok(listener) = TcpListener::from_std(listener) {
                    tokio::select! { _ = stopped => {}, () = accept(listener, serving) => {} }
                }
            });
        })?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has seen so far.
    pub fn counts(&self) -> Counts {
        Counts {
            requests: self.shared.requests.load(Ordering::Relaxed),
            peak_concurrency: self.shared.peak.load(Ordering::Relaxed),
            statuses: self.shared.statuses.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Stops and closes all connections. Idempotent.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                        // A client that goes away in the middle is its own business.
                        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                    });
                }
                // Out of file descriptors, for instance: give connections time to end.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Counts a request as open for as long as it lives, also when the client drops it.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared) -> Self {
        let open = shared.open.fetch_add(1, Ordering::Relaxed) + 1;
        shared.peak.fetch_max(open, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let _open = Open::new(&shared);
    let response = respond(&shared.behaviour, number, request).await;
    let mut statuses = shared.statuses.lock().unwrap_or_else(PoisonError::into_inner);
    *statuses.entry(response.status().as_u16()).or_default() += 1;
    drop(statuses);
    Ok(response)
}

async fn respond(behaviour: &Behaviour, number: u64, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() != "/v1/chat/completions" {
        return error(404, "unknown path; the simulated provider serves /v1/chat/completions");
    }
    if request.method() != Method::POST {
        return error(405, "use POST");
    }
    if let Some(key) = &behaviour.api_key {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if given.and_then(|value| value.strip_prefix("Bearer ")) != Some(key) {
            return fault(&Fault { status: 401, every: 0, on: Vec::new(), retry_after: None }, number);
        }
    }
    let Ok(body) = request.into_body().collect().await else { return error(400, "the body was cut") };
    let latency = behaviour.latency + behaviour.latency_spread.mul_f64(spread(number));
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    if let Some(hit) = behaviour.faults.iter().find(|fault| fault.hits(number)) {
        return fault(hit, number);
    }
    match chat::reply(&body.to_bytes(), &behaviour.replies) {
        Ok(text) => json(200, text, number),
        Err(problem) => error(400, &format!("the body is not a Chat Completions request: {problem}")),
    }
}

/// A number in [0, 1) that depends on the request's number only (the fractional part of multiples of the golden
/// ratio, which spread evenly).
fn spread(number: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let number = number as f64;
    (number * 0.618_033_988_749_894_9).fract()
}

fn fault(fault: &Fault, number: u64) -> Response<Full<Bytes>> {
    let mut response = json(fault.status, fault.body(), number);
    if let Some(wait) = fault.retry_after
        && let Ok(value) = wait.to_string().parse()
    {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

fn error(status: u16, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({"error": {"message": message, "type": "invalid_request_error", "code": null}});
    json(status, body.to_string(), 0)
}

fn json(status: u16, body: String, number: u64) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if let Ok(value) = format!("req_{number}").parse() {
        headers.insert("x-request-id", value);
    }
    response
}
