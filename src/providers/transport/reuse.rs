//! Connections that were of use before, and requests that met one which the server had just closed.
//!
//! A server may close an idle HTTP/1.1 connection at any time, also while a request is on its way to it. Such a request
//! fails though nobody has looked at it. It is known by this: the connection has carried a reply before, and breaks
//! at once and before any byte of another. On a new connection the same failure means something else, and is reported.

use std::error::Error;
use std::io::ErrorKind;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper_util::client::legacy::connect::HttpInfo;

/// A connection that was closed before shows itself within a round trip. Whatever breaks later was being worked on.
const AT_ONCE: Duration = Duration::from_secs(2);
/// So much later than a failure somebody may say that the connection had been of use before.
const LATE_WORD: Duration = Duration::from_millis(20);
const PORTS: usize = 1 << 16;

/// The local ports of connections that have carried a reply: a bit for each.
#[derive(Default)]
pub struct Answered(OnceLock<Box<[AtomicU64]>>);

impl Answered {
    /// A reply has come.
    pub fn on(&self, response: &reqwest::Response) {
        let Some(info) = response.extensions().get::<HttpInfo>() else { return };
        let ports = self.0.get_or_init(|| (0..PORTS / 64).map(|_| AtomicU64::new(0)).collect());
        let (word, bit) = place(info.local_addr().port());
        // Looked at before it is written: nearly all replies come on a connection that has carried one.
        if let Some(word) = ports.get(word)
            && word.load(Ordering::Relaxed) & bit == 0
        {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether a request that was sent at `began` failed because the server had closed its connection, which had been
    /// of use before.
    pub async fn met_a_closed_connection(&self, error: &reqwest::Error, began: Instant) -> bool {
        let Some(port) = closed(error, began) else { return false };
        if self.forget(port) {
            return true;
        }
        // Whoever had its reply before may be about to say so: a connection is free for others a moment earlier.
        tokio::time::sleep(LATE_WORD).await;
        self.forget(port)
    }

    /// Whether this connection was of use before. It is gone: the next one with this port is another.
    fn forget(&self, port: u16) -> bool {
        let (word, bit) = place(port);
        let word = self.0.get().and_then(|ports| ports.get(word));
        word.is_some_and(|word| word.fetch_and(!bit, Ordering::Relaxed) & bit != 0)
    }
}

/// The local port of a connection that was closed before a reply came.
fn closed(error: &reqwest::Error, began: Instant) -> Option<u16> {
    if error.is_connect() || error.is_timeout() || began.elapsed() > AT_ONCE {
        return None;
    }
    let (mut port, mut is_closed) = (None, false);
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<h2::Error>() {
            return None;
        }
        if let Some(error) = inner.downcast_ref::<hyper_util::client::legacy::Error>() {
            port = port.or_else(|| local_port(error));
        }
        if let Some(error) = inner.downcast_ref::<hyper::Error>() {
            is_closed |= error.is_incomplete_message() || error.is_canceled() || error.is_closed();
        }
        if let Some(error) = inner.downcast_ref::<std::io::Error>() {
            is_closed |= matches!(
                error.kind(),
                ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::BrokenPipe
                    | ErrorKind::NotConnected
                    | ErrorKind::UnexpectedEof
            );
        }
        cause = inner.source();
    }
    port.filter(|_| is_closed)
}

fn place(port: u16) -> (usize, u64) {
    (usize::from(port) / 64, 1 << (port % 64))
}

fn local_port(error: &hyper_util::client::legacy::Error) -> Option<u16> {
    let mut extensions = http::Extensions::new();
    error.connect_info()?.get_extras(&mut extensions);
    extensions.get::<HttpInfo>().map(|info| info.local_addr().port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::ProviderError;
    use crate::providers::error::Contact;
    use crate::providers::transport::{Http2, Transport, TransportOptions};
    use crate::simulator::tls::{self, Tls};
    use bytes::Bytes;
    use http::HeaderMap;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// What a server does with a connection after a reply.
    #[derive(Clone, Copy)]
    enum After {
        /// Closes it a little later.
        Closes(Duration),
        /// Closes it as soon as another request begins to come, and reads none of it: what a client sees that has
        /// sent just before it heard of the end.
        ClosesOnNext,
    }

    /// A server that answers one request on each connection, without a word that it will close it. `answers`: or reads
    /// it and closes the connection. Returns also how many requests it has read.
    async fn server(after: After, answers: bool, tls: Option<Tls>) -> (reqwest::Url, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, tls) = (Arc::clone(&counter), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, |stream| stream, after, answers, &seen).await,
                        Some(tls) => {
                            if let Some(stream) = tls.accept(stream).await {
                                serve(stream, |stream| stream.get_ref().0, after, answers, &seen).await;
                            }
                        }
                    }
                });
            }
        });
        (url, seen)
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        mut stream: S,
        socket: fn(&S) -> &TcpStream,
        after: After,
        answers: bool,
        seen: &AtomicUsize,
    ) {
        if !read_request(&mut stream).await {
            return;
        }
        seen.fetch_add(1, Ordering::SeqCst);
        if !answers {
            return;
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
        let _ = stream.flush().await;
        match after {
            After::Closes(later) => tokio::time::sleep(later).await,
            After::ClosesOnNext => drop(socket(&stream).readable().await),
        }
    }

    async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> bool {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n{}") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return false,
            }
        }
        true
    }

    fn to(url: reqwest::Url) -> Arc<Transport> {
        let ca_bundle = (url.scheme() == "https").then(|| tls::ca().unwrap());
        let options = TransportOptions { ca_bundle, http2: Http2::Never, ..TransportOptions::default() };
        Arc::new(Transport::new(options, url, HeaderMap::new()).unwrap())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_connection_that_the_server_has_just_closed_costs_no_attempt() {
        for after in [
            After::ClosesOnNext,
            After::Closes(Duration::ZERO),
            After::Closes(Duration::from_micros(100)),
            After::Closes(Duration::from_millis(5)),
        ] {
            for (at_once, encrypted) in [(1, false), (10, false), (1, true), (10, true)] {
                let tls = encrypted.then(|| Tls::new().unwrap());
                let (url, seen) = server(after, true, tls).await;
                let transport = to(url);
                let tasks: Vec<_> = (0..at_once)
                    .map(|_| {
                        let transport = Arc::clone(&transport);
                        tokio::spawn(async move {
                            for _ in 0..100 / at_once {
                                let reply = transport.post(&Bytes::from_static(b"{}").into(), None).await;
                                assert_eq!(reply.unwrap().body, Bytes::from_static(b"{}"));
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
                assert_eq!(seen.load(Ordering::SeqCst), 100);
            }
        }
    }

    #[tokio::test]
    async fn what_breaks_on_a_new_connection_is_not_sent_twice() {
        for tls in [None, Some(Tls::new().unwrap())] {
            let (url, seen) = server(After::ClosesOnNext, false, tls).await;
            let transport = to(url);
            for sent in 1..=5 {
                let error = transport.post(&Bytes::from_static(b"{}").into(), None).await.err().unwrap();
                assert!(matches!(error, ProviderError::Connection { contact: Contact::Lost, .. }), "{error}");
                assert!(error.server_away() && error.was_sent());
                assert_eq!(seen.load(Ordering::SeqCst), sent);
            }
        }
    }

    #[tokio::test]
    async fn where_nobody_listens_nothing_was_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let error = to(url).post(&Bytes::from_static(b"{}").into(), None).await.err().unwrap();
        assert!(error.server_away() && !error.was_sent(), "{error}");
    }
}
