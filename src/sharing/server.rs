//! A TCP server over a board: one thread with its own runtime, so that it neither shares nor outlives anything of a run.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Board;
use super::wire::{Call, LONGEST_LINE, Reply, Request};

/// A connection on which nothing comes for so long is closed. Clients connect again.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// So long a reply may take to be written.
const LONGEST_WRITE: Duration = Duration::from_secs(5);
/// Connections at the same time; further ones are closed at once.
const MOST_CONNECTIONS: usize = 4096;
/// How long to wait after an error of accepting: the process is out of descriptors, for instance.
const PAUSE: Duration = Duration::from_millis(50);

/// A running server. Stops when dropped.
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts to listen; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn start(host: &str, port: u16, token: SecretString, board: Arc<dyn Board>) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((host, port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::new(Serving { token, board });
        let thread = std::thread::Builder::new().name("batch-llm-limits".to_owned()).spawn(move || {
            runtime.block_on(async {
                if let Ok(listener) = TcpListener::from_std(listener) {
                    tokio::select! { _ = stopped => {}, () = accept(listener, serving) => {} }
                }
            });
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
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

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Serving {
    token: SecretString,
    board: Arc<dyn Board>,
}

async fn accept(listener: TcpListener, serving: Arc<Serving>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    let serving = Arc::clone(&serving);
                    connections.spawn(async move {
                        let _place = place;
                        // A client that goes away in the middle is its own business.
                        let _ = serve(stream, &serving).await;
                    });
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, serving: &Serving) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        timeout(LONGEST_SILENCE, (&mut stream).take(LONGEST_LINE).read_until(b'\n', &mut line)).await??;
        if line.is_empty() {
            return Ok(());
        }
        let reply = answer(&line, serving);
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        timeout(LONGEST_WRITE, stream.write_all(&text)).await??;
        if matches!(reply, Reply::Rejected | Reply::Error(_)) {
            return Ok(());
        }
    }
}

fn answer(line: &[u8], serving: &Serving) -> Reply {
    let Ok(Request { token, call }) = serde_json::from_slice(line) else {
        return Reply::Error("invalid request".to_owned());
    };
    if !bool::from(token.as_bytes().ct_eq(serving.token.expose_secret().as_bytes())) {
        return Reply::Rejected;
    }
    let outcome = match call {
        Call::Renew { scope, holder, demand } => serving.board.renew(&scope, &holder, &demand).map(Reply::Share),
        Call::Report { job, holder, report } => serving.board.report(&job, &holder, report).map(Reply::Verdict),
        Call::Leave { scope, holder } => serving.board.leave(&scope, &holder).map(|()| Reply::Left),
    };
    outcome.unwrap_or_else(|error| Reply::Error(error.to_string()))
}
