//! TLS of the simulated provider: an authority of each process, certificates for the names of this machine, handshakes
//! that end in time.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Limit of a handshake. Real clients of this machine take milliseconds.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// The names by which the server may be called.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Some systems reject certificates that are valid for more than about two years.
const VALID: Duration = DAY.saturating_mul(365);
/// The first byte of a TLS connection: that of a record with a part of a handshake (RFC 8446, section 5.1).
const RECORD_OF_HANDSHAKE: u8 = 22;
/// In the order in which they are preferred.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
const HTTP2: &[u8] = b"h2";

type Authority = CertifiedIssuer<'static, KeyPair>;
static AUTHORITY: OnceLock<Result<Authority, rcgen::Error>> = OnceLock::new();

/// How connections are encrypted: TLS 1.3, and HTTP/2 or HTTP/1.1 as the client prefers (ALPN).
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// With a new certificate.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new() -> io::Result<Self> {
        let (certificate, key) = issued_by(authority()?).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
            .map_err(io::Error::other)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands. None if the client does not, or takes too long.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Option<TlsStream<S>> {
        tokio::time::timeout(HANDSHAKE, self.0.accept(stream)).await.ok()?.ok()
    }
}

/// The certificate of this process's authority, PEM. It is made when it is first needed, and its key never leaves the
/// process.
///
/// # Errors
/// When the system has no random numbers.
pub fn ca() -> io::Result<String> {
    Ok(authority()?.pem())
}

/// Whether a connection may be one of TLS, by its first byte.
pub fn may_be_tls(first: u8) -> bool {
    first == RECORD_OF_HANDSHAKE
}

/// Whether the client has chosen HTTP/2.
pub fn is_http2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

fn authority() -> io::Result<&'static Authority> {
    AUTHORITY.get_or_init(new_authority).as_ref().map_err(|error| io::Error::other(error.clone()))
}

fn new_authority() -> Result<Authority, rcgen::Error> {
    // Each has a name of its own, for clients look for authorities by name.
    let mut params = params(&format!("CA of a simulated provider {:08x}", fastrand::u32(..)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Authority::self_signed(params, KeyPair::generate()?)
}

fn issued_by(authority: &Authority) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = params("simulated provider");
    params.subject_alt_names = CertificateParams::new(NAMES.map(str::to_owned))?.subject_alt_names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, authority)?;
    Ok((certificate.into(), PrivateKeyDer::Pkcs8(key.serialize_der().into())))
}

/// What both certificates have.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // Clocks of other machines in a test may be behind.
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + VALID).into();
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::{Behaviour, Simulator};
    use rustls::pki_types::ServerName;
    use rustls::pki_types::pem::PemObject;
    use rustls::version::TLS12;
    use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;

    const REQUEST: &[u8] = b"GET /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

    fn simulator() -> Simulator {
        Simulator::start(Behaviour { tls: true, ..Behaviour::default() }, 0).unwrap()
    }

    /// A client that trusts these certificates.
    fn client(ca: &str, version: &'static SupportedProtocolVersion, protocols: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    async fn connect(
        client: &TlsConnector,
        to: SocketAddr,
        name: &'static str,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        client.connect(ServerName::try_from(name).unwrap(), TcpStream::connect(to).await?).await
    }

    /// What the server answers to a plain request of HTTP/1.1.
    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
        stream.write_all(REQUEST).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_client_chooses_among_protocols_and_names() {
        let simulator = simulator();
        for (offered, chosen) in [
            (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
            (&["http/1.1", "h2"], Some(b"h2")),
            (&["http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ] {
            let client = client(simulator.ca().unwrap(), &TLS13, offered);
            for name in NAMES {
                let stream = connect(&client, simulator.address(), name).await.unwrap();
                assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
                if chosen != Some(b"h2") {
                    assert!(answer(stream).await.starts_with("HTTP/1.1 405"));
                }
            }
            assert!(connect(&client, simulator.address(), "example.com").await.is_err());
        }
        let other = client(simulator.ca().unwrap(), &TLS13, &["imap"]);
        assert!(connect(&other, simulator.address(), "localhost").await.is_err());
    }

    #[tokio::test]
    async fn older_versions_and_other_authorities_are_rejected() {
        let simulator = simulator();
        let old = client(simulator.ca().unwrap(), &TLS12, &[]);
        let error = connect(&old, simulator.address(), "localhost").await.unwrap_err().to_string();
        assert!(error.contains("ProtocolVersion"), "{error}");
        let wrong = client(&new_authority().unwrap().pem(), &TLS13, &[]);
        let error = connect(&wrong, simulator.address(), "localhost").await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
        let right = client(simulator.ca().unwrap(), &TLS13, &[]);
        connect(&right, simulator.address(), "localhost").await.unwrap();
    }

    #[tokio::test]
    async fn all_servers_of_a_process_have_one_authority() {
        let (first, second) = (simulator(), simulator());
        assert_eq!(first.ca(), second.ca());
        let client = client(first.ca().unwrap(), &TLS13, &[]);
        connect(&client, second.address(), "localhost").await.unwrap();
        let plain = Simulator::start(Behaviour::default(), 0).unwrap();
        assert_eq!(plain.ca(), None);
    }

    #[tokio::test]
    async fn clear_text_is_rejected_with_the_remedy() {
        let simulator = simulator();
        let answer = answer(TcpStream::connect(simulator.address()).await.unwrap()).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https://"), "{answer}");
        assert_eq!(simulator.counts().requests, 0);
    }

    #[tokio::test]
    async fn whoever_breaks_off_or_stalls_harms_nobody_else() {
        let simulator = simulator();
        let mut stalled = Vec::new();
        let beginnings: [&[u8]; 6] =
            [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\x00\xff", b"P", b"\x16\xff\xff\xff\xff"];
        for sent in beginnings {
            for stays in [true, false] {
                let mut stream = TcpStream::connect(simulator.address()).await.unwrap();
                stream.write_all(sent).await.unwrap();
                if stays {
                    stalled.push(stream);
                }
            }
        }
        let client = client(simulator.ca().unwrap(), &TLS13, &[]);
        for _ in 0..5 {
            let stream = connect(&client, simulator.address(), "localhost").await.unwrap();
            assert!(answer(stream).await.starts_with("HTTP/1.1 405"));
        }
        assert_eq!(simulator.counts().requests, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_stalls_ends_in_time() {
        let tls = Tls::new().unwrap();
        let began = tokio::time::Instant::now();
        // The other end stays open, and says nothing.
        let (_silent, stream) = tokio::io::duplex(1024);
        assert!(tls.accept(stream).await.is_none());
        assert_eq!(began.elapsed(), HANDSHAKE);
    }
}
