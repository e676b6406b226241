//! Tests of connections and requests against small servers.

use super::*;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;

use crate::simulator::{Behaviour, Simulator};

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
                let _ = builder.max_concurrent_streams(streams).serve_connection(TokioIo::new(stream), service).await;
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
            tokio::spawn(async move { transport.post(&Bytes::new().into(), None).await.map(|got| got.body) })
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
    transport.post(&Bytes::new().into(), None).await.unwrap();
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

#[cfg(target_os = "linux")]
#[tokio::test]
async fn silent_connections_are_probed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/").parse().unwrap();
    let transport = Transport::new(TransportOptions::default(), url, HeaderMap::new()).unwrap();
    let request = tokio::spawn(async move { transport.post(&Bytes::new().into(), None).await });
    let (_silent, _) = listener.accept().await.unwrap();
    // Of the client's end: remote address, and a timer (2: of keep-alive) with hundredths of a second.
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let remote = format!("0100007F:{port:04X}");
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|row| row[2] == remote);
    let (timer, ticks) = row.as_ref().unwrap()[5].split_once(':').unwrap();
    assert_eq!(timer, "02");
    assert!((5_900..=6_000).contains(&u32::from_str_radix(ticks, 16).unwrap()), "{ticks}");
    request.abort();
}

#[tokio::test]
async fn each_wait_has_its_limit() {
    let peak = Arc::new(AtomicUsize::new(0));
    let url = few_streams(100, peak).await;
    for (first_byte_timeout, total_timeout, says) in
        [(Some(0.02), None, "first byte"), (None, Some(0.02), "whole reply")]
    {
        let options =
            TransportOptions { http2: Http2::Always, first_byte_timeout, total_timeout, ..TransportOptions::default() };
        let transport = Transport::new(options, url.clone(), HeaderMap::new()).unwrap();
        let error = transport.post(&Bytes::new().into(), None).await.err().unwrap();
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
    let reply = to(url).post(&Bytes::from_static(b"{}").into(), None).await.unwrap();
    assert_eq!(reply.body, Bytes::from_static(b"{}"));
    assert_eq!(seen.load(Ordering::SeqCst), 3);
    // Not for ever, and only if it says so.
    let (url, seen) = refusing(|_| Some(h2::Reason::REFUSED_STREAM)).await;
    assert!(matches!(to(url).post(&Bytes::new().into(), None).await, Err(ProviderError::Connection { .. })));
    assert_eq!(seen.load(Ordering::SeqCst), 3);
    let (url, seen) = refusing(|_| Some(h2::Reason::INTERNAL_ERROR)).await;
    let transport = to(url);
    assert!(matches!(transport.post(&Bytes::new().into(), None).await, Err(ProviderError::Connection { .. })));
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    assert_eq!(transport.pool.shards.load()[0].open.load(Ordering::SeqCst), 0);
}

#[test]
fn a_user_in_the_address_is_a_header() {
    let to = |headers| {
        let url = "http://user:word@localhost/v1".parse().unwrap();
        let transport = Transport::new(TransportOptions::default(), url, headers).unwrap();
        transport.request(&transport.url, &Bytes::new().into(), None, false)
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
    let text = with(|options| {
        options.ca_bundle = Some("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----".to_owned())
    });
    assert_eq!(text, "ca_bundle contains no certificate");
    assert!(with(|options| options.client_certificate = Some("/nowhere".to_owned())).contains("client_certificate"));
    assert!(with(|options| options.proxy = Some("http://".to_owned())).contains("proxy"));
}

/// A transport to a simulated provider with TLS, which trusts it, and the provider.
fn encrypted(http2: Http2, ca_bundle: impl FnOnce(&str) -> Option<String>) -> (Transport, Simulator) {
    let simulator = Simulator::start(Behaviour { tls: true, ..Behaviour::default() }, 0).unwrap();
    let url = format!("https://{}/v1/chat/completions", simulator.address()).parse().unwrap();
    let options = TransportOptions {
        http2,
        ca_bundle: ca_bundle(simulator.ca().unwrap()),
        // Whatever proxies this machine has.
        direct: true,
        ..TransportOptions::default()
    };
    (Transport::new(options, url, HeaderMap::new()).unwrap(), simulator)
}

const QUESTION: Payload =
    Payload::One(Bytes::from_static(br#"{"model": "m", "messages": [{"role": "user", "content": "x"}]}"#));

#[tokio::test]
async fn the_server_offers_http2_and_the_option_decides() {
    for (http2, expected) in [(Http2::Auto, true), (Http2::Never, false), (Http2::Always, true)] {
        let (transport, simulator) = encrypted(http2, |ca| Some(ca.to_owned()));
        for _ in 0..3 {
            let reply = transport.post(&QUESTION, None).await.unwrap();
            assert!(reply.body.starts_with(b"{"));
        }
        assert_eq!(transport.pool.multiplexed.load(Ordering::SeqCst), expected);
        assert_eq!(simulator.counts().requests, 3);
    }
}

#[tokio::test]
async fn authorities_come_from_a_file_or_a_text() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let (transport, _simulator) = encrypted(Http2::Auto, |ca| {
        std::fs::write(&file, format!("# A comment.\n{ca}")).unwrap();
        Some(path)
    });
    transport.post(&QUESTION, None).await.unwrap();
    let (transport, _simulator) = encrypted(Http2::Auto, |ca| Some(format!("# A comment.\n{ca}")));
    transport.post(&QUESTION, None).await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_encryption_is_told_with_the_remedy() {
    let to = |address: String, ca_bundle: Option<&str>| {
        let options =
            TransportOptions { ca_bundle: ca_bundle.map(str::to_owned), direct: true, ..TransportOptions::default() };
        Transport::new(options, address.parse().unwrap(), HeaderMap::new()).unwrap()
    };
    let (_, simulator) = encrypted(Http2::Auto, |_| None);
    let plain = Simulator::start(Behaviour::default(), 0).unwrap();
    let (port, ca) = (simulator.address().port(), simulator.ca());
    for (url, ca_bundle, says) in [
        (format!("https://127.0.0.1:{port}/"), None, "transport=Transport(ca_bundle=...)"),
        (format!("https://[::ffff:127.0.0.1]:{port}/"), ca, "the server's certificate is for another name"),
        (format!("https://{}/", plain.address()), ca, "does not speak TLS on this port"),
    ] {
        // Not all systems connect to an address of IPv4 by one of IPv6.
        if cfg!(target_os = "linux") || !url.contains("::ffff") {
            let error = to(url, ca_bundle).post(&QUESTION, None).await.err().unwrap();
            assert!(matches!(error, ProviderError::Connection { contact: Contact::None, .. }), "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
    }
    let error = to(format!("http://127.0.0.1:{port}/v1/chat/completions"), None).post(&QUESTION, None).await;
    assert!(matches!(error, Err(ProviderError::Status { status: 400, .. })));
    assert!(error.err().unwrap().to_string().contains("https://"));
    assert_eq!(simulator.counts().requests, 0);
}

#[tokio::test]
async fn a_reader_that_is_late_does_not_end_a_connection_of_http2() {
    const PART: Bytes = Bytes::from_static(b"data: {\"text\": \"some\"}\n\n");
    const PARTS: usize = 1_000;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let (sent, all_are_sent) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut body = respond.send_response(http::Response::new(()), false).unwrap();
        for _ in 0..PARTS {
            body.send_data(PART, false).unwrap();
        }
        // Until all is written, and then until the client leaves.
        let _ = tokio::time::timeout(Duration::from_millis(200), connection.accept()).await;
        sent.send(()).unwrap();
        body.send_data(Bytes::new(), true).unwrap();
        while connection.accept().await.is_some() {}
    });
    let options = TransportOptions { http2: Http2::Always, ..TransportOptions::default() };
    let transport = Transport::new(options, url, HeaderMap::new()).unwrap();
    let client = &transport.pool.shards.load()[0].client;
    let mut response =
        client.execute(transport.request(&transport.url, &Payload::One(Bytes::new()), None, false)).await.unwrap();
    all_are_sent.await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut length = 0;
    while let Some(chunk) = response.chunk().await.unwrap() {
        length += chunk.len();
    }
    assert_eq!(length, PARTS * PART.len());
}

#[tokio::test]
async fn a_connection_of_http2_ends_if_pings_are_not_answered() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const HEADERS: u8 = 1;
    const PING: u8 = 6;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let options = TransportOptions { http2: Http2::Always, direct: true, ..TransportOptions::default() };
    let transport = Transport::new(options, url, HeaderMap::new()).unwrap();
    let request = tokio::spawn(async move { transport.post(&QUESTION, None).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    // Its settings, and then nothing any more.
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    stream.read_exact(&mut [0; 24]).await.unwrap();
    // The type of the next frame.
    let mut next = async || {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).await?;
        Ok::<_, std::io::Error>(head[3])
    };
    while next().await.unwrap() != HEADERS {}
    tokio::time::pause();
    let mut pings = 0;
    while let Ok(kind) = next().await {
        pings += usize::from(kind == PING);
    }
    assert!(pings > 0);
    let error = request.await.unwrap().err().unwrap();
    assert!(matches!(error, ProviderError::Connection { contact: Contact::Lost, .. }), "{error}");
}
