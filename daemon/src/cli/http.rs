//! One HTTP request at a time, without TLS: for publishing to a daemon, and for asking whether one is ready.
//!
//! It speaks HTTP/1.0 with `Connection: close`: then no reply is chunked, whichever proxy stands in between, and the
//! body ends where the connection does.

use std::fmt;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Longest silence. A commit may wait for another one, but not for this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest reply that is read, bytes: those to publishing are small.
const MAX_REPLY: u64 = 1024 * 1024;

/// Most header fields of a reply.
const MAX_FIELDS: usize = 64;

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// `host:port`.
    Tcp(String),
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Server {
    /// Parses `http://host[:port][/]` or `unix:/path`.
    pub(super) fn parse(url: &str) -> std::result::Result<Self, String> {
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let Some(authority) = url.strip_prefix("http://") else {
            return Err(format!(
                "{url:?} is neither http://host:port nor unix:/path; TLS is not spoken, use curl for https"
            ));
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let authority = authority.strip_suffix("/publish").unwrap_or(authority);
        let bad = |c: char| matches!(c, '/' | '@' | '?' | '#') || c.is_whitespace() || c.is_control();
        if authority.is_empty() || authority.contains(bad) {
            return Err(format!(
                "{url:?} is no address; give http://host:port, such as http://127.0.0.1:8377"
            ));
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(Self::Tcp(if has_port { authority.to_owned() } else { format!("{authority}:80") }))
    }

    /// Sends one request and reads the whole reply. `fields` are header lines, each with its CRLF.
    pub(super) fn request(&self, method: &str, target: &str, fields: &str, body: &[u8]) -> Result<Reply> {
        let host = match self {
            Self::Tcp(authority) => authority,
            Self::Unix(_) => "localhost",
        };
        let length = body.len();
        let mut request = format!(
            "{method} {target} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n{fields}Content-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        request.extend_from_slice(body);
        match self {
            Self::Tcp(authority) => {
                let stream = connect(authority)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                exchange(stream, &request)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                exchange(stream, &request)
            }
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Connects to the first of the name's addresses that answers.
fn connect(authority: &str) -> Result<TcpStream> {
    let mut last = Error::new(ErrorKind::NotFound, "the name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> Result<Reply> {
    // A server that refuses a large body may answer and close before it has read it all: read what it said.
    let sent = stream.write_all(request);
    let mut reply = Vec::new();
    let read = stream.take(MAX_REPLY).read_to_end(&mut reply);
    parse(&reply).ok_or_else(|| match (sent, read) {
        (Err(error), _) | (_, Err(error)) => error,
        _ => Error::new(ErrorKind::InvalidData, "its answer is not HTTP, or is cut short"),
    })
}

fn parse(reply: &[u8]) -> Option<Reply> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head_bytes) = head.parse(reply).ok()? else { return None };
    let body = &reply[head_bytes..];
    let length = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse::<usize>().ok());
    let body = body.get(..length.unwrap_or(body.len()))?;
    Some(Reply { status: head.code?, body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_has_a_port_even_when_none_is_written() {
        let tcp = |url| Server::parse(url).unwrap();
        assert_eq!(tcp("http://localhost:1/"), Server::Tcp("localhost:1".into()));
        assert_eq!(tcp("http://example.org"), Server::Tcp("example.org:80".into()));
        assert_eq!(tcp("http://[::1]"), Server::Tcp("[::1]:80".into()));
        assert_eq!(tcp("http://[::1]:8/publish"), Server::Tcp("[::1]:8".into()));
        assert_eq!(tcp("unix:/run/e.sock"), Server::Unix("/run/e.sock".into()));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in [
            "localhost:1",
            "https://localhost",
            "http://",
            "http://h/x",
            "http://u@h",
            "http://h:1/?a",
            "http://a b",
        ] {
            assert!(Server::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn reply_cut_short_is_none() {
        assert!(parse(b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\n1234").is_none());
        assert!(parse(b"HTTP/1.1 201 Created\r\nContent-Le").is_none());
        let reply = parse(b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\n1234").unwrap();
        assert_eq!((reply.status, reply.body.as_slice()), (201, b"1234".as_slice()));
    }
}
