//! A small HTTP/1.1 client that shows a test the bytes.
//!
//! Libraries hide what these tests are about: the order and case of headers, framing, a connection that stays open
//! without an answer. This client sends exactly what it is told, and reads replies to the byte. Anything that is no
//! proper reply fails the test with the bytes in the text.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

mod reply;

pub use reply::{Event, Reply, ReplyParser};

/// Longest wait for a reply: longer than the default hold of 25 s.
const REPLY_DEADLINE: Duration = Duration::from_secs(40);

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl Address {
    /// A port of 127.0.0.1.
    pub fn local(port: u16) -> Self {
        Self::Tcp((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(&self) -> io::Result<Stream> {
        let stream = match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, Duration::from_secs(10))?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Self::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        stream.set_deadline(REPLY_DEADLINE)?;
        Ok(stream)
    }
}

impl fmt::Display for Address {
    /// As `EVERPOLL_LISTEN` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connection, of either kind.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// How long a read or write may take before it is an error.
    ///
    /// # Errors
    /// When `deadline` is zero.
    pub fn set_deadline(&self, deadline: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(deadline))?;
                stream.set_write_timeout(Some(deadline))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(deadline))?;
                stream.set_write_timeout(Some(deadline))
            }
        }
    }

    /// Says that nothing more will be sent; the other side can still answer.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn finish_sending(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(on),
            Self::Unix(stream) => stream.set_nonblocking(on),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A request to be sent. `Host` and `Connection: close` are added unless the test sets them.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A GET of this target, such as `/e/cheese?last_event_id=7`.
pub fn get(target: &str) -> Request {
    request("GET", target)
}

/// A POST of a JSON body.
pub fn post_json(target: &str, body: impl Into<Vec<u8>>) -> Request {
    request("POST", target).header("Content-Type", "application/json").body(body)
}

/// A request of any method and target; nothing is checked.
pub fn request(method: &str, target: &str) -> Request {
    Request { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
}

/// Sends exactly these bytes and returns everything that comes back until the other side closes.
///
/// # Errors
/// When nobody listens, or the other side neither answers nor closes within 40 s.
pub fn raw(address: &Address, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = address.connect()?;
    // A server may answer and close before it has read all of a hostile request.
    let sent = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        // What was read before the reset counts: that is what a client sees, too.
        Err(error) if error.kind() == ErrorKind::ConnectionReset && !answer.is_empty() => {}
        Err(error) => return Err(error),
    }
    if answer.is_empty() { sent.map(|()| answer) } else { Ok(answer) }
}

impl Request {
    /// Adds a header, as it is.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body, and with it `Content-Length`, unless the test sets that itself.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The bytes that are sent.
    pub fn bytes(&self) -> Vec<u8> {
        let has = |name: &str| self.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !has("host") {
            head.push_str("Host: localhost\r\n");
        }
        if !has("connection") {
            head.push_str("Connection: close\r\n");
        }
        if !has("content-length")
            && !has("transfer-encoding")
            && (!self.body.is_empty() || self.method == "POST")
        {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends it on a connection of its own and waits for the reply.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn send(&self, address: &Address) -> Reply {
        match self.try_send(address) {
            Ok(reply) => reply,
            Err(error) => panic!("{} {} at {address}: {error}", self.method, self.target),
        }
    }

    /// Sends it on a connection of its own and waits for the reply.
    ///
    /// # Errors
    /// When nobody listens, the connection breaks, or what comes is no HTTP reply.
    pub fn try_send(&self, address: &Address) -> io::Result<Reply> {
        let mut connection = Connection::open(address)?;
        connection.exchange(self)
    }

    /// Sends it and does not wait: for polls that are held.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn begin(&self, address: &Address) -> Held {
        let what = format!("{} {} at {address}", self.method, self.target);
        let connection = Connection::open(address).and_then(|mut connection| {
            connection.stream.write_all(&self.bytes())?;
            Ok(connection)
        });
        match connection {
            Ok(connection) => Held { what, head_only: self.method == "HEAD", connection },
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

/// A connection for several requests, one after the other.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    parser: ReplyParser,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(address: &Address) -> io::Result<Self> {
        Ok(Self { stream: address.connect()?, parser: ReplyParser::default() })
    }

    /// Sends a request and reads its reply. Set the header `Connection: keep-alive` for another after it.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no HTTP reply.
    pub fn exchange(&mut self, request: &Request) -> io::Result<Reply> {
        let sent = self.stream.write_all(&request.bytes());
        match self.read_reply(request.method == "HEAD") {
            Ok(reply) => Ok(reply),
            // A server may answer and close before it has read all; why sending failed says more than the close.
            Err(error) => Err(sent.err().unwrap_or(error)),
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads one reply; `head_only` when it answers a HEAD.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no HTTP reply.
    pub fn read_reply(&mut self, head_only: bool) -> io::Result<Reply> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Some(reply) = self.parser.next(head_only, false)? {
                return Ok(reply);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    let end = || io::Error::new(ErrorKind::UnexpectedEof, "closed without a complete reply");
                    return self.parser.next(head_only, true)?.ok_or_else(end);
                }
                Ok(length) => self.parser.push(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(io::Error::new(ErrorKind::TimedOut, "no reply in time"));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The connection itself.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

/// A request that was sent and whose reply may take a while. Dropping it closes the connection: the client left.
#[derive(Debug)]
pub struct Held {
    what: String,
    head_only: bool,
    connection: Connection,
}

impl Held {
    /// Whether nothing at all has come back yet. A connection that was closed without a reply is not waiting.
    pub fn is_waiting(&mut self) -> bool {
        let mut byte = [0; 1];
        if !self.connection.parser.is_empty() {
            return false;
        }
        self.connection.stream.set_nonblocking(true).expect("it is a socket");
        let waiting = match self.connection.stream.read(&mut byte) {
            Ok(0) => false,
            Ok(length) => {
                self.connection.parser.push(&byte[..length]);
                false
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        self.connection.stream.set_nonblocking(false).expect("it is a socket");
        waiting
    }

    /// Waits for the reply, up to 40 s.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn reply(self) -> Reply {
        self.reply_within(REPLY_DEADLINE)
    }

    /// Waits for the reply.
    ///
    /// # Panics
    /// When there is none within `deadline`.
    #[track_caller]
    pub fn reply_within(mut self, deadline: Duration) -> Reply {
        self.connection.stream.set_deadline(deadline).expect("deadlines are not zero");
        match self.connection.read_reply(self.head_only) {
            Ok(reply) => reply,
            Err(error) => panic!("{}: {error}", self.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;
    use std::net::TcpListener;

    /// A server that answers each connection with the next of `answers`, when it has read a head and was told to.
    fn serve(answers: Vec<&'static str>) -> (Address, std::sync::mpsc::Sender<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let (go, gone) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 4096];
                let length = stream.read(&mut head).unwrap();
                assert!(head[..length].ends_with(b"\r\n\r\n"));
                if gone.recv().is_ok() {
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        (address, go)
    }

    #[test]
    fn held_request_waits_until_the_reply_comes() {
        let (address, go) = serve(vec!["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"]);
        let mut held = get("/e/cheese").begin(&address);
        assert!(held.is_waiting());
        go.send(()).unwrap();
        wait::until("the reply comes", wait::PATIENCE, || !held.is_waiting());
        assert_eq!(held.reply().body, b"[]");
    }

    #[test]
    fn connection_closed_without_a_reply_is_an_error_and_not_waiting() {
        let (address, go) = serve(vec!["", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[]"]);
        let mut held = get("/").begin(&address);
        go.send(()).unwrap();
        wait::until("the server closed", wait::PATIENCE, || !held.is_waiting());
        go.send(()).unwrap();
        let error = get("/").try_send(&address).unwrap_err();
        assert!(error.to_string().contains("without a complete reply"), "{error}");
    }

    #[test]
    fn request_is_sent_as_the_test_wrote_it() {
        let bytes = request("BREW", "/%zz").header("host", "a").header("X", "1").body("b").bytes();
        let text = "BREW /%zz HTTP/1.1\r\nConnection: close\r\nContent-Length: 1\r\nhost: a\r\nX: 1\r\n\r\nb";
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }
}
