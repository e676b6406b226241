//! A board behind TCP, over one connection that is made again when it breaks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};

use super::wire::{Call, LONGEST_LINE, Reply, Request};
use super::{Board, Demand, Report, Share, Verdict};

/// How long connecting, a request and a reply may take, each.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nobody tries again to reach a server that could not be reached.
const PAUSE: Duration = Duration::from_millis(200);

/// See the module.
pub struct TcpBoard {
    host: String,
    port: u16,
    token: SecretString,
    connection: Mutex<Connection>,
}

#[derive(Default)]
struct Connection {
    stream: Option<BufReader<TcpStream>>,
    /// When the server could not be reached last, and what was said then.
    away: Option<(Instant, io::ErrorKind, String)>,
}

impl TcpBoard {
    /// Connects when it is used first.
    pub fn new(host: String, port: u16, token: SecretString) -> Self {
        Self { host, port, token, connection: Mutex::default() }
    }

    fn ask(&self, call: Call) -> io::Result<Reply> {
        let request = Request { token: self.token.expose_secret().to_owned(), call };
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, kind, problem)) = &connection.away
            && at.elapsed() < PAUSE
        {
            return Err(io::Error::new(*kind, problem.clone()));
        }
        let answer = self.ask_over(&mut connection, &line);
        connection.away = match &answer {
            Ok(_) => None,
            Err(error) => Some((Instant::now(), error.kind(), error.to_string())),
        };
        match answer? {
            Reply::Rejected => {
                connection.stream = None;
                let problem = format!(
                    "the limit server at {}:{} rejected the token; pass the URL of the server unchanged",
                    self.host, self.port
                );
                Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
            }
            Reply::Error(problem) => {
                connection.stream = None;
                Err(io::Error::other(format!("the limit server at {}:{}: {problem}", self.host, self.port)))
            }
            reply => Ok(reply),
        }
    }

    fn ask_over(&self, connection: &mut Connection, line: &[u8]) -> io::Result<Reply> {
        // A connection from before may have been closed by the other side; one that is new may not.
        if let Some(mut stream) = connection.stream.take()
            && let Ok(reply) = exchange(&mut stream, line)
        {
            connection.stream = Some(stream);
            return Ok(reply);
        }
        let problem = |error: io::Error| {
            let problem = format!("the limit server at {}:{} cannot be reached: {error}", self.host, self.port);
            io::Error::new(error.kind(), problem)
        };
        let mut stream = BufReader::new(self.connect().map_err(problem)?);
        let reply = exchange(&mut stream, line).map_err(problem)?;
        connection.stream = Some(stream);
        Ok(reply)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.set_write_timeout(Some(PATIENCE))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Board for TcpBoard {
    fn renew(&self, scope: &str, holder: &str, demand: &Demand) -> io::Result<Share> {
        let (scope, holder) = (scope.to_owned(), holder.to_owned());
        match self.ask(Call::Renew { scope, holder, demand: *demand })? {
            Reply::Share(share) => Ok(share),
            _ => Err(senseless()),
        }
    }

    fn report(&self, job: &str, holder: &str, report: Report) -> io::Result<Verdict> {
        let (job, holder) = (job.to_owned(), holder.to_owned());
        match self.ask(Call::Report { job, holder, report })? {
            Reply::Verdict(verdict) => Ok(verdict),
            _ => Err(senseless()),
        }
    }

    fn leave(&self, scope: &str, holder: &str) -> io::Result<()> {
        match self.ask(Call::Leave { scope: scope.to_owned(), holder: holder.to_owned() })? {
            Reply::Left => Ok(()),
            _ => Err(senseless()),
        }
    }
}

fn exchange(stream: &mut BufReader<TcpStream>, line: &[u8]) -> io::Result<Reply> {
    stream.get_mut().write_all(line)?;
    let mut reply = Vec::new();
    stream.take(LONGEST_LINE).read_until(b'\n', &mut reply)?;
    if reply.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
    }
    serde_json::from_slice(&reply).map_err(|_| senseless())
}

fn senseless() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the reply is not from a limit server of batch-llm; check the port")
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryBoard;
    use super::super::server::Server;
    use super::*;
    use std::sync::Arc;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    fn server(port: u16) -> Server {
        Server::start("127.0.0.1", port, secret("right"), Arc::new(MemoryBoard::default())).unwrap()
    }

    fn client(port: u16, token: &str) -> TcpBoard {
        TcpBoard::new("127.0.0.1".to_owned(), port, secret(token))
    }

    #[test]
    fn two_share_over_tcp_and_survive_a_restart() {
        let mut first = server(0);
        let port = first.address().port();
        let (one, two) = (client(port, "right"), client(port, "right"));
        assert!((one.renew("s", "one", &Demand::default()).unwrap().part - 1.0).abs() < 1e-9);
        assert!(two.renew("s", "two", &Demand::default()).unwrap().is_nothing());
        one.leave("s", "one").unwrap();
        assert!((two.renew("s", "two", &Demand::default()).unwrap().part - 1.0).abs() < 1e-9);
        first.stop();
        let error = two.renew("s", "two", &Demand::default()).unwrap_err();
        assert!(error.to_string().contains(&format!("127.0.0.1:{port} cannot be reached")), "{error}");
        let _second = server(port);
        std::thread::sleep(PAUSE);
        assert!((two.renew("s", "two", &Demand::default()).unwrap().part - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_wrong_token_is_rejected_and_not_shown() {
        let server = server(0);
        for token in ["wrong", "right ", "righ", ""] {
            let error = client(server.address().port(), token).renew("s", "one", &Demand::default()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(!error.to_string().contains("wrong"));
        }
    }

    #[test]
    fn whatever_else_comes_closes_its_connection_alone() {
        let server = server(0);
        let good = client(server.address().port(), "right");
        good.renew("s", "one", &Demand::default()).unwrap();
        let long = vec![b'x'; 2 * LONGEST_LINE as usize];
        for line in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"{}\n", b"\xff\xfe\n", &long] {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(line).unwrap();
            let mut reply = Vec::new();
            // A reset is as good as an end.
            let _ = stream.read_to_end(&mut reply);
            assert!(reply.is_empty() || reply.starts_with(b"{\"error\""), "{}", String::from_utf8_lossy(&reply));
        }
        assert!(good.renew("s", "one", &Demand::default()).is_ok());
    }

    #[test]
    fn a_server_of_something_else_is_named_so() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        });
        let error = client(port, "right").renew("s", "one", &Demand::default()).unwrap_err();
        other.join().unwrap();
        assert!(error.to_string().contains("check the port"), "{error}");
    }
}
