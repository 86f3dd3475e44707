//! A WebSocket client that can also misbehave.
//!
//! It does the handshake, reads strictly, and answers pings unless it is told not to; everything else is the test's: frames
//! that no client may send, a client that reads nothing, one that leaves without a word.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{self, Address, Reply, ReplyParser, Request, Stream};
use crate::wait;

mod frame;

pub use frame::{Frame, opcode};

/// A key, and what a server must answer to it: the example of RFC 6455, section 1.3. With a known answer this client needs
/// no SHA-1; clients of other origin use other keys.
const KEY: (&str, &str) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

/// An open WebSocket. Dropping it closes the connection without a word.
#[derive(Debug)]
pub struct WebSocket {
    /// The reply that opened it.
    pub head: Reply,
    /// Whether pings are answered.
    pub answers_pings: bool,
    stream: Stream,
    bytes: Vec<u8>,
    /// The message of which only a part has come.
    message: Option<Vec<u8>>,
    /// How many pings have come.
    pings: usize,
}

/// What comes from the server, control frames included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A frame; a text in pieces is put together first.
    Frame(Frame),
    /// The connection was closed.
    End,
}

/// The request that opens a WebSocket on `target`.
pub fn request(target: &str) -> Request {
    http::get(target)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", KEY.0)
}

impl WebSocket {
    /// Opens one.
    ///
    /// # Panics
    /// When the server does not agree.
    #[track_caller]
    pub fn open(address: &Address, target: &str) -> Self {
        match Self::try_open(address, &request(target)) {
            Ok(socket) => socket,
            Err(error) => panic!("{target} at {address}: {error}"),
        }
    }

    /// Opens one with a request of the test's own.
    ///
    /// # Errors
    /// When the server does not agree, or not in the way that a browser wants.
    pub fn try_open(address: &Address, request: &Request) -> io::Result<Self> {
        let mut stream = address.connect()?;
        stream.write_all(&request.bytes())?;
        Self::on(stream)
    }

    /// Takes over a connection on which the request was sent.
    ///
    /// # Errors
    /// When the server does not agree, or not in the way that a browser wants.
    pub fn on(mut stream: Stream) -> io::Result<Self> {
        let mut parser = ReplyParser::default();
        let mut bytes = Vec::new();
        let mut some = [0; 4096];
        let (head, bytes) = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = bytes.split_off(end + 4);
                parser.push(&bytes);
                // Whether it has a body or not: only the head is of interest.
                break (parser.next(true, true)?.ok_or(ErrorKind::InvalidData)?, rest);
            }
            match stream.read(&mut some)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                length => bytes.extend_from_slice(&some[..length]),
            }
        };
        let says =
            |name: &str, value: &str| head.header(name).is_some_and(|own| own.eq_ignore_ascii_case(value));
        let agreed = head.status == 101
            && says("upgrade", "websocket")
            && says("connection", "upgrade")
            && head.header("sec-websocket-accept") == Some(KEY.1)
            && head.header("sec-websocket-extensions").is_none()
            && head.header("sec-websocket-protocol").is_none();
        if !agreed {
            return Err(io::Error::other(format!(
                "no WebSocket: {head:?} {}",
                String::from_utf8_lossy(&bytes)
            )));
        }
        Ok(Self { head, answers_pings: true, stream, bytes, message: None, pings: 0 })
    }

    /// Sends a frame, masked.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.stream.write_all(&frame.masked())
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next thing that is no ping, or is one where pings are not answered.
    ///
    /// # Errors
    /// When nothing comes within `deadline`, the connection breaks, or what comes is malformed.
    pub fn receive(&mut self, deadline: Duration) -> io::Result<Received> {
        let end = Instant::now() + deadline;
        let mut some = vec![0; 64 * 1024];
        loop {
            while let Some(frame) = Frame::take(&mut self.bytes)? {
                if frame.opcode == opcode::PING {
                    self.pings += 1;
                    if self.answers_pings {
                        self.send(&Frame::new(opcode::PONG, frame.payload))?;
                        continue;
                    }
                }
                if let Some(frame) = self.assemble(frame)? {
                    return Ok(Received::Frame(frame));
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(ErrorKind::TimedOut, format!("nothing within {deadline:?}")));
            }
            self.stream.set_deadline(left)?;
            match self.stream.read(&mut some) {
                Ok(0) if self.bytes.is_empty() => return Ok(Received::End),
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed within a frame")),
                Ok(length) => self.bytes.extend_from_slice(&some[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next message, as JSON.
    ///
    /// # Panics
    /// When none comes in time, or something else does.
    #[track_caller]
    pub fn message(&mut self) -> Value {
        let message = match self.receive(wait::PATIENCE) {
            Ok(Received::Frame(frame)) if frame.opcode == opcode::TEXT => {
                serde_json::from_slice(&frame.payload)
            }
            other => panic!("a message should have come, and not {}", shown(&other)),
        };
        message.unwrap_or_else(|error| panic!("no JSON: {error}"))
    }

    /// The next message, which is of this type.
    ///
    /// # Panics
    /// When it is another one, or none comes in time.
    #[track_caller]
    pub fn expect(&mut self, kind: &str) -> Value {
        let message = self.message();
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// Skips messages until the server closes; its code and reason. Says goodbye as a browser does, and sees to it that the
    /// connection ends then.
    ///
    /// # Panics
    /// When it does not close in time.
    #[track_caller]
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            match self.receive(wait::PATIENCE) {
                Ok(Received::Frame(frame)) if frame.opcode == opcode::CLOSE => {
                    let (code, reason) = frame.close_code();
                    let _ =
                        self.send(&Frame::new(opcode::CLOSE, &frame.payload[..frame.payload.len().min(2)]));
                    self.assert_end();
                    return (code, reason.to_owned());
                }
                Ok(Received::Frame(_)) => {}
                other => panic!("a close should have come, and not {}", shown(&other)),
            }
        }
    }

    /// Sees to it that the connection ends without another frame.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn assert_end(&mut self) {
        match self.receive(wait::PATIENCE) {
            Ok(Received::End) => {}
            // What the client sent into the closed connection was answered so.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("the connection should have ended, and not {}", shown(&other)),
        }
    }

    /// How many pings have come.
    pub fn pings(&self) -> usize {
        self.pings
    }

    /// The connection.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Puts a text together that came in pieces; control frames may come in between.
    fn assemble(&mut self, frame: Frame) -> io::Result<Option<Frame>> {
        match (frame.opcode, &mut self.message) {
            (opcode::TEXT, None) if frame.last => return Ok(Some(frame)),
            (opcode::TEXT, message @ None) => *message = Some(frame.payload),
            (opcode::CONTINUATION, Some(message)) => {
                message.extend_from_slice(&frame.payload);
                if frame.last {
                    let whole = self.message.take().unwrap_or_default();
                    return Ok(Some(Frame::new(opcode::TEXT, whole)));
                }
            }
            (opcode::CLOSE | opcode::PING | opcode::PONG, _) => return Ok(Some(frame)),
            _ => return Err(io::Error::other(format!("out of place: {frame:?}"))),
        }
        Ok(None)
    }
}

fn shown(received: &io::Result<Received>) -> String {
    match received {
        Ok(Received::Frame(frame)) => {
            let start = &frame.payload[..frame.payload.len().min(500)];
            format!("a frame of type {} with {:?}", frame.opcode, String::from_utf8_lossy(start))
        }
        Ok(Received::End) => "the end of the connection".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread::JoinHandle;

    /// A server that answers a handshake with `head`, sends `bytes`, and returns what the client then sent.
    fn serve(head: &'static str, bytes: Vec<u8>) -> (Address, JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            assert_ne!(stream.read(&mut [0; 4096]).unwrap(), 0);
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut sent = Vec::new();
            stream.read_to_end(&mut sent).unwrap();
            sent
        });
        (address, thread)
    }

    const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn messages_are_put_together_and_pings_answered_in_between() {
        let frames = [
            Frame::new(opcode::TEXT, r#"{"type":"#).unfinished(),
            Frame::new(opcode::PING, "p"),
            Frame::new(opcode::CONTINUATION, r#""a"}"#),
            Frame::close(1001, "bye"),
        ];
        let (address, server) = serve(AGREED, frames.iter().flat_map(Frame::unmasked).collect());
        let mut socket = WebSocket::open(&address, "/");
        assert_eq!(socket.expect("a")["type"], "a");
        assert_eq!(socket.closed(), (1001, "bye".to_owned()));
        assert_eq!(socket.pings(), 1);
        drop(socket);
        let goodbye = Frame::new(opcode::CLOSE, 1001_u16.to_be_bytes());
        let expected =
            [Frame::new(opcode::PONG, "p"), goodbye].iter().flat_map(Frame::masked).collect::<Vec<_>>();
        assert_eq!(server.join().unwrap(), expected);
    }

    #[test]
    fn server_that_does_not_agree_is_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
            "HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        ] {
            let (address, server) = serve(head, Vec::new());
            assert!(WebSocket::try_open(&address, &request("/")).is_err(), "{head}");
            server.join().unwrap();
        }
    }
}
