//! A server that knows nothing of batch-llm: `fixed_server BODY_FILE CONTENT_TYPE [PAUSE_MS [CA_FILE]]` answers every
//! request with the same body, over HTTP/1.1 or HTTP/2, and looks at no request. With CA_FILE it serves TLS, and writes
//! there (PEM) which certificate clients are to trust. It prints its URL, serves until its input ends, and
//! prints the CPU us of each request and the bytes of all bodies that it was sent.
//!
//! A body of the type `text/event-stream` is sent event by event, with a pause between them if one is given.

use std::convert::Infallible;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

type Events = StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

struct Fixed {
    whole: Bytes,
    events: Vec<Bytes>,
    kind: String,
    pause: Duration,
    requests: AtomicU64,
    received: AtomicU64,
}

impl Fixed {
    fn body(self: &Arc<Self>) -> Either<Full<Bytes>, Events> {
        if self.events.is_empty() {
            return Either::Left(Full::new(self.whole.clone()));
        }
        let fixed = Arc::clone(self);
        let stream = stream::unfold(0, move |place| {
            let fixed = Arc::clone(&fixed);
            async move {
                let event = fixed.events.get(place)?.clone();
                if place > 0 && !fixed.pause.is_zero() {
                    tokio::time::sleep(fixed.pause).await;
                }
                Some((Ok(Frame::data(event)), place + 1))
            }
        });
        Either::Right(StreamBody::new(Box::pin(stream)))
    }
}

async fn answer(
    fixed: Arc<Fixed>,
    request: Request<Incoming>,
) -> Result<Response<Either<Full<Bytes>, Events>>, hyper::Error> {
    fixed.requests.fetch_add(1, Ordering::Relaxed);
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            fixed.received.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
    }
    let mut response = Response::new(fixed.body());
    response.headers_mut().insert("content-type", fixed.kind.parse().expect("a content type"));
    Ok(response)
}

async fn accept(stream: TcpStream, tls: Option<TlsAcceptor>, fixed: Arc<Fixed>) {
    let _ = stream.set_nodelay(true);
    if let Some(tls) = tls {
        let Ok(stream) = tls.accept(stream).await else { return };
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        return serve(stream, is_http2, fixed).await;
    }
    let mut first = [0; 3];
    let is_http2 = matches!(stream.peek(&mut first).await, Ok(3)) && &first == b"PRI";
    serve(stream, is_http2, fixed).await;
}

/// TLS with a new certificate, which is written to a file.
fn tls(ca_file: &str) -> TlsAcceptor {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    std::fs::write(ca_file, made.cert.pem()).expect("a writable file");
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(vec![made.cert.into()], key).expect("a usable certificate");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, is_http2: bool, fixed: Arc<Fixed>) {
    let service = service_fn(move |request| answer(Arc::clone(&fixed), request));
    if is_http2 {
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    } else {
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// The events of a body, each with the blank line at its end.
fn events(body: &Bytes, kind: &str) -> Vec<Bytes> {
    let mut events = Vec::new();
    if kind.starts_with("text/event-stream") {
        let mut rest = body.clone();
        while let Some(end) = rest.windows(2).position(|two| two == b"\n\n") {
            events.push(rest.split_to(end + 2));
        }
    }
    events
}

#[allow(clippy::print_stdout)]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, kind, more @ ..] = arguments.as_slice() else { panic!("BODY_FILE CONTENT_TYPE [PAUSE_MS [CA_FILE]]") };
    let pause = more.first().map_or(0, |pause| pause.parse().expect("milliseconds"));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = more.get(1).map(|file| tls(file));
    let whole = Bytes::from(std::fs::read(file).expect("a readable file"));
    let events = events(&whole, kind);
    let (requests, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let pause = Duration::from_millis(pause);
    let fixed = Arc::new(Fixed { whole, events, kind: kind.clone(), pause, requests, received });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let serving = Arc::clone(&fixed);
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let scheme = if tls.is_some() { "https" } else { "http" };
            println!("{scheme}://{}/v1", listener.local_addr().expect("an address"));
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(accept(stream, tls.clone(), Arc::clone(&serving)));
                }
            }
        });
    });
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    #[allow(clippy::cast_precision_loss)]
    let requests = fixed.requests.load(Ordering::Relaxed).max(1) as f64;
    println!("{} {}", cpu_seconds() / requests * 1e6, fixed.received.load(Ordering::Relaxed));
}
