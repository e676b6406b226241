//! The HTTP server: one thread with its own runtime, so that it neither shares nor outlives anything of a run.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::answers::Model;
use super::batches::serve::{self as batch_endpoints, Encrypted};
use super::batches::{Batches, Settings as BatchSettings, Snapshot as BatchSnapshot};
use super::caches::{self, Caches};
use super::clouds::{self, CloudCounts, Clouds, Settings as CloudSettings};
use super::dialect::{Answer, Dialect, output_tokens};
use super::dialects::{self, PATHS};
use super::faults::{Fault, FaultKind};
use super::invalid::Invalid;
use super::latency::Latency;
use super::ledger::{Counts, FaultHit, Violation};
use super::metrics;
use super::model::Question;
use super::prompt_caches::{CacheCounts, PromptCaches, Settings};
use super::quota::{Limits, Quota};
use super::replies::{self, Body, Reset, add, json};
use super::streams::event::Form;
use super::tls::{self, Tls};

static PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");

/// Longest request, bytes; the real ones take less.
const LONGEST_BODY: usize = 64 << 20;

/// What a client is told that does not encrypt.
const IN_CLEAR_TEXT: &str = "this simulated provider speaks TLS: use https:// in place of http://";

/// How the simulated provider behaves.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// The time to a reply.
    pub latency: Latency,
    /// Scheduled faults; the first that hits counts.
    pub faults: Vec<Fault>,
    /// Reply templates; empty = an echo, or a value that fits the schema.
    pub replies: Vec<String>,
    /// The only key accepted; `None` = any or none.
    pub api_key: Option<String>,
    /// Limits per minute.
    pub limits: Limits,
    /// Another seed gives other answers.
    pub seed: u64,
    /// Whether it is counted how often each question came.
    pub counts_questions: bool,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// How prompt caches behave; `None` = there are none.
    pub prompt_caches: Option<Settings>,
    /// How batches behave.
    pub batches: BatchSettings,
    /// How clouds behave; `None` = they let in anybody, and give no credentials.
    pub clouds: Option<CloudSettings>,
    /// How many requests of others wait, as its page of metrics says; `None` = it has no such page.
    pub queued: Option<u64>,
}

struct Shared {
    behaviour: Behaviour,
    began: Instant,
    requests: AtomicU64,
    open: AtomicU64,
    counts: Mutex<Counts>,
    quota: Mutex<Quota>,
    model: Arc<Model>,
    prompt_caches: Option<PromptCaches>,
    batches: Arc<Batches>,
    clouds: Option<Clouds>,
}

/// A running server. Stops when dropped.
pub struct Simulator {
    address: SocketAddr,
    ca: Option<String>,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Simulator {
    /// Starts on a loopback port; 0 picks a free one.
    ///
    /// # Errors
    /// When the port cannot be had; with TLS, also when the system has no random numbers.
    pub fn start(behaviour: Behaviour, port: u16) -> std::io::Result<Self> {
        let tls = behaviour.tls.then(Tls::new).transpose()?;
        let ca = behaviour.tls.then(tls::ca).transpose()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let model = Arc::new(Model {
            seed: behaviour.seed,
            replies: behaviour.replies.clone(),
            caches: Caches::new(behaviour.prompt_caches),
            reads_prompts: behaviour.prompt_caches.is_some(),
        });
        let batches = Batches::new(behaviour.batches.clone(), Arc::clone(&model), behaviour.counts_questions);
        let shared = Arc::new(Shared {
            quota: Mutex::new(Quota::new(&behaviour.limits)),
            batches: Arc::new(batches),
            model,
            prompt_caches: behaviour.prompt_caches.map(PromptCaches::new),
            clouds: behaviour.clouds.map(Clouds::new),
            behaviour,
            began: Instant::now(),
            requests: AtomicU64::new(0),
            open: AtomicU64::new(0),
            counts: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("simulated-provider".to_owned()).spawn(move || {
            runtime.block_on(async {
                // Errors of accepting are those of single connections; the loop ends only by `stopped`.
                if let Ok(listener) = TcpListener::from_std(listener) {
                    tokio::select! { _ = stopped => {}, () = accept(listener, serving, tls) => {} }
                }
            });
        })?;
        Ok(Self { address, ca, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of the authority that clients must trust, PEM; None without TLS.
    pub fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// What it has seen so far.
    pub fn counts(&self) -> Counts {
        self.shared.counts().clone()
    }

    /// The ledger of its prompt caches; `None`: it has none.
    pub fn cache_counts(&self) -> Option<CacheCounts> {
        let caches = self.shared.prompt_caches.as_ref()?;
        Some(caches.counts(self.shared.model.caches.ledger()))
    }

    /// What its batches are, and what they and the live endpoints were paid for.
    pub fn batches(&self) -> BatchSnapshot {
        self.shared.batches.snapshot()
    }

    /// What its clouds have given and checked; `None`: there are none.
    pub fn cloud_counts(&self) -> Option<CloudCounts> {
        Some(self.shared.clouds.as_ref()?.counts())
    }

    /// Puts the clock of batches forward.
    pub fn advance(&self, by: Duration) {
        self.shared.batches.advance(by);
    }

    /// Changes the limits from now on; buckets begin full.
    pub fn set_limits(&self, limits: &Limits) {
        *self.shared.quota.lock().unwrap_or_else(PoisonError::into_inner) = Quota::new(limits);
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

async fn accept(listener: TcpListener, shared: Arc<Shared>, tls: Option<Tls>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let (shared, tls) = (Arc::clone(&shared), tls.clone());
                    connections.spawn(async move {
                        match tls {
                            None => {
                                let is_http2 = begins_with_http2(&stream).await;
                                serve(Either::Left(stream), is_http2, Some(shared)).await;
                            }
                            // In a box, for it is larger.
                            Some(tls) => Box::pin(encrypt(stream, &tls, shared)).await,
                        }
                    });
                }
                // Out of file descriptors, for instance: give connections time to end.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A connection. One type for both, or the whole server would be in the library twice.
type Connection = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Serves a connection to its end. Without what is shared it only says that it is for TLS.
async fn serve(connection: Connection, is_http2: bool, shared: Option<Arc<Shared>>) {
    let is_encrypted = matches!(connection, Either::Right(_));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let shared = shared.clone();
        if is_encrypted {
            request.extensions_mut().insert(Encrypted);
        }
        async move {
            match shared {
                Some(shared) => answer(shared, request).await,
                None => Ok(json(400, &dialects::DEFAULT.invalid(&Invalid::new(IN_CLEAR_TEXT)), 0)),
            }
        }
    });
    let connection = TokioIo::new(connection);
    // A client that goes away in the middle is its own business.
    if is_http2 {
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(connection, service).await;
    } else {
        let _ = http1::Builder::new().serve_connection(connection, service).await;
    }
}

/// Serves a connection that is to be encrypted. A request in clear text is told what to mend, and nothing else.
async fn encrypt(stream: TcpStream, tls: &Tls, shared: Arc<Shared>) {
    let mut first = [0];
    match tokio::time::timeout(tls::HANDSHAKE, stream.peek(&mut first)).await {
        Ok(Ok(1)) if tls::may_be_tls(first[0]) => {
            if let Some(stream) = tls.accept(stream).await {
                let is_http2 = tls::is_http2(&stream);
                serve(Either::Right(Box::new(stream)), is_http2, Some(shared)).await;
            }
        }
        Ok(Ok(1)) => {
            let _ = tokio::time::timeout(tls::HANDSHAKE, serve(Either::Left(stream), false, None)).await;
        }
        _ => {}
    }
}

/// Whether a client speaks HTTP/2 without being asked, as it may where it knows the server (RFC 9113, section 3.3): its
/// first bytes are those of the connection preface, which are those of no method.
async fn begins_with_http2(stream: &TcpStream) -> bool {
    let mut first = [0; 3];
    matches!(stream.peek(&mut first).await, Ok(3)) && &first == b"PRI"
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer has been paid for.
    fn paid(&self, question: &Question, output: usize) {
        self.counts().paid(question.input_tokens(), output);
        self.batches.paid_live(question, output);
    }
}

/// Counts a request as open for as long as it lives, also when the client drops it.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Reset> {
    if request.uri().path() == metrics::PATH {
        return Ok(metrics::page(shared.open.load(Ordering::Relaxed), shared.behaviour.queued));
    }
    let number = shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let open = shared.open.fetch_add(1, Ordering::Relaxed) + 1;
    let is_open = Open(Arc::clone(&shared));
    shared.counts().arrived(
        shared.began.elapsed().as_secs_f64(),
        open,
        &batch_endpoints::counted(request.uri().path()),
    );
    let response = respond(&shared, number, request).await;
    shared.counts().answered(response.as_ref().map_or(0, |response| response.status().as_u16()));
    // A reply that comes in parts is open until the last.
    response.map(|response| response.map(|body| replies::until_its_end(body, is_open)))
}

async fn respond(shared: &Shared, number: u64, request: Request<Incoming>) -> Result<Response<Body>, Reset> {
    let behaviour = &shared.behaviour;
    let began = Instant::now();
    let (head, body) = request.into_parts();
    if let Some((status, problem)) = foreign(&head) {
        return Ok(json(status, &dialects::DEFAULT.invalid(&Invalid::new(problem)), number));
    }
    if let Some(clouds) = &shared.clouds
        && let Some(route) = clouds::route(head.uri.path())
    {
        let body = Limited::new(body, LONGEST_BODY).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        return Ok(replies::credentials(clouds.give(route, &head, &body), number));
    }
    let fault = behaviour.faults.iter().find(|fault| fault.hits(number));
    let instead = fault.filter(|fault| fault.kind.takes_the_place());
    if let Some(route) = batch_endpoints::route(&head) {
        let body = match batch_endpoints::receive(&shared.batches, &route, &head, body, number).await {
            Ok(body) => body,
            Err(response) => return response,
        };
        if let Some(fault) = instead {
            return in_place(shared, route.dialect(), fault, number).await;
        }
        let api_key = behaviour.api_key.as_deref();
        return batch_endpoints::answer(&shared.batches, route, &head, body, api_key, number).await;
    }
    let body = Limited::new(body, LONGEST_BODY);
    if let Some(rest) = caches::rest_of(head.uri.path()) {
        if behaviour.api_key.as_ref().is_some_and(|key| !knows(dialects::CACHES, &head.headers, key)) {
            let (status, error) = dialects::CACHES.error(FaultKind::Status(401), None);
            return Ok(json(status, &error, number));
        }
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let (status, told) = shared.model.caches.answer(&head.method, rest, &body);
        return Ok(json(status, &told, number));
    }
    let Some((dialect, model)) = dialects::of(head.uri.path(), head.uri.query()) else {
        let message = format!("unknown path {}; the simulated provider serves {PATHS}", head.uri.path());
        return Ok(json(404, &dialects::DEFAULT.invalid(&Invalid::new(message)), number));
    };
    if head.method != Method::POST {
        return Ok(json(405, &dialect.invalid(&Invalid::new("use POST")), number));
    }
    let cloud = shared.clouds.as_ref().zip(clouds::cloud_of(head.uri.path(), &head.headers));
    if cloud.is_none() && behaviour.api_key.as_ref().is_some_and(|key| !knows(dialect, &head.headers, key)) {
        let (status, error) = dialect.error(FaultKind::Status(401), None);
        return Ok(json(status, &error, number));
    }
    let Ok(body) = body.collect().await else {
        let problem = format!("the body was truncated, or is longer than {LONGEST_BODY} bytes");
        return Ok(json(400, &dialect.invalid(&Invalid::new(problem)), number));
    };
    let body = body.to_bytes();
    if let Some((clouds, cloud)) = cloud
        && let Err((status, error)) = clouds.admit(cloud, &head, &body, behaviour.api_key.as_deref())
    {
        let mut response = json(status, &error, number);
        add(response.headers_mut(), vec![("date".to_owned(), httpdate::fmt_http_date(clouds.now()))]);
        return Ok(response);
    }
    if let Some(fault) = instead {
        return in_place(shared, dialect, fault, number).await;
    }
    let (mut question, prompt) = match shared.model.read(dialect, &body, model) {
        Ok(read) => read,
        Err((status, error)) => return Ok(json(status, &error, number)),
    };
    if dialect.only_counts() {
        let answer = Answer { question: &question, completions: &[], vectors: &[], digest: 0 };
        if let Some(fault) = fault {
            shared.counts().faulted(FaultHit { request: number, kind: fault.kind.name(), question: String::new() });
        }
        return Ok(replies::plain(dialect, &answer, fault.map(|fault| fault.kind), number));
    }
    let prompt = shared.prompt_caches.as_ref().zip(prompt);
    let (completions, vectors) = shared.model.think(&question);
    let (input, output) = (question.input_tokens(), output_tokens(&completions));
    let mut limits = Vec::new();
    if limited(shared) {
        match admit(shared, dialect, input + output, number) {
            Ok(headers) => limits = headers,
            Err(refusal) => return Ok(*refusal),
        }
    }
    let last = question.words.last().or(question.texts.last()).filter(|_| behaviour.counts_questions);
    if let Some(last) = last {
        shared.counts().requested(last);
    }
    if let Some(fault) = fault {
        let question = last.cloned().unwrap_or_default();
        shared.counts().faulted(FaultHit { request: number, kind: fault.kind.name(), question });
    }
    let writes = prompt.map(|(caches, prompt)| {
        let (charge, writes) = caches.look_up(&prompt);
        question.charge = charge;
        caches.paid(&prompt.model, charge, question.cached_tokens, input, output);
        (caches, writes)
    });
    let answer = Answer {
        question: &question,
        completions: &completions,
        vectors: &vectors,
        digest: question.digest(behaviour.seed),
    };
    let latency = behaviour.latency.of(number, behaviour.seed, output);
    let fault = fault.map(|fault| fault.kind);
    let streaming = dialect.streaming().filter(|_| question.form != Form::Whole);
    let mut response = if let Some(streaming) = streaming {
        // It is paid for, however much of it is read.
        shared.paid(&question, output);
        let (response, first_byte) = replies::streamed(dialect, streaming, &answer, latency, fault, number);
        if let Some((caches, writes)) = writes {
            caches.write(writes, first_byte, latency);
        }
        response
    } else {
        if let Some((caches, writes)) = writes {
            caches.write(writes, latency, latency);
        }
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        shared.paid(&question, output);
        replies::plain(dialect, &answer, fault, number)
    };
    add(response.headers_mut(), limits);
    // OpenAI's gives whole milliseconds; fractions are for those who measure.
    let micros = began.elapsed().as_micros();
    if let Ok(value) = HeaderValue::try_from(format!("{}.{:03}", micros / 1_000, micros % 1_000)) {
        response.headers_mut().insert(&PROCESSING_MS, value);
    }
    Ok(response)
}

/// The reply that a fault gives in place of every other.
async fn in_place(shared: &Shared, dialect: &dyn Dialect, fault: &Fault, number: u64) -> Result<Response<Body>, Reset> {
    shared.counts().faulted(FaultHit { request: number, kind: fault.kind.name(), question: String::new() });
    replies::in_place(dialect, fault, number).await
}

/// Whether a request comes from a page of somebody else that a browser shows: by a name of its own for this machine, or
/// from another site. Such a page could use it, and read what it answers.
fn foreign(head: &http::request::Parts) -> Option<(u16, &'static str)> {
    let header = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let host = header(header::HOST).or(head.uri.authority().map(http::uri::Authority::as_str));
    if head.headers.contains_key(header::HOST) && header(header::HOST).is_none()
        || host.is_some_and(|host| !is_here(host))
    {
        return Some((
            421,
            "call the simulated provider as 127.0.0.1, localhost or [::1]; other host names are rejected",
        ));
    }
    let here = |origin: &str| origin.split_once("://").is_some_and(|(_, host)| is_here(host));
    let is_foreign = match head.headers.get(header::ORIGIN) {
        Some(origin) => !origin.to_str().is_ok_and(here),
        None => head.headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site"),
    };
    is_foreign.then_some((403, "the simulated provider rejects requests from pages of other sites"))
}

/// Whether a host, perhaps with a port, is this machine.
fn is_here(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|number| number.to_canonical().is_loopback())
}

fn limited(shared: &Shared) -> bool {
    let quota = shared.quota.lock().unwrap_or_else(PoisonError::into_inner);
    quota.requests.is_some() || quota.tokens.is_some()
}

/// Takes a request off the quota: returns the headers that tell what is left, or the rate limit.
fn admit(
    shared: &Shared,
    dialect: &dyn Dialect,
    tokens: usize,
    number: u64,
) -> Result<Vec<(String, String)>, Box<Response<Body>>> {
    let now = shared.began.elapsed().as_secs_f64();
    let mut quota = shared.quota.lock().unwrap_or_else(PoisonError::into_inner);
    let verdict = quota.take(tokens, now);
    let headers = dialect.limit_headers(&quota, SystemTime::now());
    drop(quota);
    let Err(early) = verdict else { return Ok(headers) };
    shared.counts().violated(Violation { at: now, limit: early.limit, early_by: early.wait });
    let (status, body) = dialect.error(FaultKind::Status(429), Some(early.wait));
    let mut refusal = json(status, &body, number);
    add(refusal.headers_mut(), dialect.retry_headers(early.wait));
    add(refusal.headers_mut(), headers);
    Err(Box::new(refusal))
}

fn knows(dialect: &dyn Dialect, headers: &HeaderMap, key: &str) -> bool {
    dialect.key_headers().iter().any(|name| {
        let given = headers.get(*name).and_then(|value| value.to_str().ok());
        given.is_some_and(|given| given.strip_prefix("Bearer ").unwrap_or(given) == key)
    })
}
