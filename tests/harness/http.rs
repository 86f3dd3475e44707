//! A small HTTP/1.1 client that shows a test the bytes.
//!
//! Libraries hide what these tests are about: the order and case of headers, framing, a connection that stays open
//! without an answer. This client sends exactly what it is told, and reads replies to the byte. Anything that is no
//! proper reply fails the test with the bytes in the text.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

mod address;
mod connection;
mod reply;

pub use address::{Address, Stream};
pub use connection::{Connection, Held};
pub use reply::{Event, Reply, ReplyParser};

/// Longest wait for a reply: longer than the default hold of 25 s.
const REPLY_DEADLINE: Duration = Duration::from_secs(40);

/// A request to be sent. `Host` and `Connection: close` are added unless the test sets them.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    version: &'static str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    instead: Option<Vec<u8>>,
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
    Request {
        method: method.to_owned(),
        target: target.to_owned(),
        version: "HTTP/1.1",
        headers: Vec::new(),
        body: Vec::new(),
        instead: None,
    }
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

    /// Speaks HTTP/1.0, as old proxies do: neither `Host` nor `Connection` is added.
    #[must_use]
    pub fn http10(mut self) -> Self {
        self.version = "HTTP/1.0";
        self
    }

    /// Sends these bytes instead, which need not be a request.
    #[must_use]
    pub fn instead(mut self, bytes: Vec<u8>) -> Self {
        self.instead = Some(bytes);
        self
    }

    /// The target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The bytes that are sent.
    pub fn bytes(&self) -> Vec<u8> {
        if let Some(bytes) = &self.instead {
            return bytes.clone();
        }
        let has = |name: &str| self.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let mut head = format!("{} {} {}\r\n", self.method, self.target, self.version);
        let http11 = self.version == "HTTP/1.1";
        if http11 && !has("host") {
            head.push_str("Host: localhost\r\n");
        }
        if http11 && !has("connection") {
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
            connection.send(&self.bytes())?;
            Ok(connection)
        });
        match connection {
            Ok(connection) => Held::new(what, self.is_head(), connection),
            Err(error) => panic!("{what}: {error}"),
        }
    }

    fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;
    use std::net::{Ipv4Addr, TcpListener};

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
