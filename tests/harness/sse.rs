//! Event streams: one request whose reply goes on, read as a browser's `EventSource` reads it.
//!
//! The bytes are kept beside the events, since many tests are about those. Reading has a deadline each time, so a stream
//! that falls silent fails its test and does not hang it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{self, Address, Reply, ReplyParser, Request, Stream};
use crate::wait;

mod parser;

pub use parser::{Message, Parser};

/// The head and what has come of the body.
#[derive(Debug)]
pub struct EventStream {
    /// The reply's head, with an empty body.
    pub head: Reply,
    stream: Stream,
    framing: Framing,
    /// What was read and not unframed yet.
    framed: Vec<u8>,
    body: Vec<u8>,
    parser: Parser,
    events: VecDeque<Message>,
    ended: bool,
}

/// How the end of the body is told.
#[derive(Debug)]
enum Framing {
    /// The connection is closed.
    UntilClosed,
    /// So many bytes are still to come.
    Length(usize),
    /// Chunks, as nginx makes them of a stream.
    Chunks,
}

/// A GET as `EventSource` sends it.
pub fn get(target: &str) -> Request {
    http::get(target).header("Accept", "text/event-stream").header("Cache-Control", "no-cache")
}

impl EventStream {
    /// Asks, and waits for the head.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn open(address: &Address, request: &Request) -> Self {
        match Self::try_open(address, request) {
            Ok(stream) => stream,
            Err(error) => panic!("{} at {address}: {error}", request.target()),
        }
    }

    /// Asks, and waits for the head.
    ///
    /// # Errors
    /// When nobody listens, or what comes is no HTTP reply.
    pub fn try_open(address: &Address, request: &Request) -> io::Result<Self> {
        let mut stream = address.connect()?;
        stream.write_all(&request.bytes())?;
        Self::on(stream)
    }

    /// Takes over a connection on which the request was sent, and waits for the head.
    ///
    /// # Errors
    /// When what comes is no HTTP reply.
    pub fn on(mut stream: Stream) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let mut some = [0; 4096];
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut some)? {
                0 => {
                    return Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "closed before the head was complete",
                    ));
                }
                length => bytes.extend_from_slice(&some[..length]),
            }
        };
        let framed = bytes.split_off(end);
        let mut parser = ReplyParser::default();
        parser.push(&bytes);
        // As if it answered a HEAD: the body is this reader's.
        let head = parser.next(true, false)?.ok_or(ErrorKind::InvalidData)?;
        let framing = match (head.header("content-length"), head.header("transfer-encoding")) {
            (None, Some("chunked")) => Framing::Chunks,
            (Some(length), None) => Framing::Length(length.parse().map_err(io::Error::other)?),
            (None, None) => Framing::UntilClosed,
            both => return Err(io::Error::other(format!("framed twice, or unknown: {both:?}"))),
        };
        let mut this = Self {
            head,
            stream,
            framing,
            framed,
            body: Vec::new(),
            parser: Parser::default(),
            events: VecDeque::new(),
            ended: false,
        };
        this.unframe()?;
        Ok(this)
    }

    /// The next event, or `None` at the stream's end.
    ///
    /// # Errors
    /// When neither comes within `deadline`, or the connection breaks.
    pub fn try_next(&mut self, deadline: Duration) -> io::Result<Option<Message>> {
        self.read_until(deadline, |this| !this.events.is_empty())?;
        Ok(self.events.pop_front())
    }

    /// The next event, which is of this type; its data and its id.
    ///
    /// # Panics
    /// When it is another one, none comes, or its data is no JSON.
    #[track_caller]
    pub fn expect(&mut self, kind: &str) -> (Value, String) {
        let event = self.next();
        match event {
            Some(event) if event.kind == kind => (event.json(), event.last_event_id),
            other => panic!("{kind} should have come, and not {other:?}; so far: {self}"),
        }
    }

    /// Reads until the body so far fulfils `condition`.
    ///
    /// # Panics
    /// When that does not happen in time.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, condition: impl Fn(&str) -> bool) {
        let read = self.read_until(wait::PATIENCE, |this| condition(&this.text()));
        if read.is_err() || !condition(&self.text()) {
            panic!("{what}: {read:?}; so far: {self}");
        }
    }

    /// Reads to the end and returns the events that were not taken yet.
    ///
    /// # Panics
    /// When it does not end in time.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<Message> {
        if let Err(error) = self.read_until(wait::PATIENCE, |_| false) {
            panic!("no end: {error}; so far: {self}");
        }
        self.events.drain(..).collect()
    }

    /// All of the body that has been read.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What the rules say about it so far: id, retry, comments.
    pub fn parser(&self) -> &Parser {
        &self.parser
    }

    /// The connection.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn read_until(&mut self, deadline: Duration, done: impl Fn(&Self) -> bool) -> io::Result<()> {
        let end = Instant::now() + deadline;
        let mut some = vec![0; 64 * 1024];
        while !self.ended && !done(self) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(ErrorKind::TimedOut, format!("nothing within {deadline:?}")));
            }
            self.stream.set_deadline(left)?;
            match self.stream.read(&mut some) {
                Ok(0) if matches!(self.framing, Framing::UntilClosed) => self.ended = true,
                Ok(0) => {
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed in the middle of the body"));
                }
                Ok(length) => {
                    self.framed.extend_from_slice(&some[..length]);
                    self.unframe()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes what is complete out of `framed`.
    fn unframe(&mut self) -> io::Result<()> {
        loop {
            let payload = match &mut self.framing {
                Framing::UntilClosed => std::mem::take(&mut self.framed),
                Framing::Length(left) => {
                    let length = self.framed.len().min(*left);
                    *left -= length;
                    self.ended = *left == 0;
                    self.framed.drain(..length).collect()
                }
                Framing::Chunks => match chunk(&mut self.framed)? {
                    Some(payload) => {
                        self.ended = payload.is_empty();
                        payload
                    }
                    None => return Ok(()),
                },
            };
            self.events.extend(self.parser.push(&payload));
            self.body.extend_from_slice(&payload);
            if self.framed.is_empty() || self.ended {
                return Ok(());
            }
        }
    }
}

impl Iterator for EventStream {
    type Item = Message;

    /// The next event, whatever its type, or `None` at the stream's end.
    ///
    /// # Panics
    /// When neither comes in time, or the connection breaks.
    #[track_caller]
    fn next(&mut self) -> Option<Message> {
        match self.try_next(wait::PATIENCE) {
            Ok(event) => event,
            Err(error) => panic!("no event: {error}; so far: {self}"),
        }
    }
}

impl std::fmt::Display for EventStream {
    /// The end of what came, for a test that fails.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.text();
        let start = text.floor_char_boundary(text.len().saturating_sub(2000));
        write!(f, "{} {:?}", self.head.status, &text[start..])
    }
}

impl Message {
    /// Its data as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.data) {
            Ok(value) => value,
            Err(error) => panic!("{error}: {self:?}"),
        }
    }

    /// Its id as a number.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn id(&self) -> u64 {
        self.last_event_id.parse().unwrap_or_else(|_| panic!("no id: {self:?}"))
    }
}

/// The first chunk, if it is complete; empty: the last.
fn chunk(bytes: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let Some(line) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let size = std::str::from_utf8(&bytes[..line]).map_err(io::Error::other)?;
    let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
    if bytes.len() < line + 2 + size + 2 {
        return Ok(None);
    }
    if &bytes[line + 2 + size..line + 4 + size] != b"\r\n" {
        return Err(io::Error::other("a chunk without its end"));
    }
    let payload = bytes[line + 2..line + 2 + size].to_vec();
    bytes.drain(..line + 4 + size);
    Ok(Some(payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    /// A server that answers with these pieces, each when the one before has surely been read, and closes.
    fn serve(pieces: Vec<&'static str>) -> Address {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            assert_ne!(stream.read(&mut [0; 4096]).unwrap(), 0);
            for piece in pieces {
                stream.write_all(piece.as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        address
    }

    #[test]
    fn stream_is_read_in_all_framings() {
        let until_closed = vec!["HTTP/1.1 200 OK\r\n\r\nda", "ta: 1\n\n", "data: 2\nid: 4\n\n"];
        let length =
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 24\r\n", "\r\ndata: 1\n\ndata: 2\n", "id: 4\n\n"];
        let chunks = vec![
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:",
            "\r\n4\r\n 1\n\n\r\n",
            "f\r\ndata: 2\nid: 4\n\n\r\n0\r\n\r\n",
        ];
        for pieces in [until_closed, length, chunks] {
            let mut stream = EventStream::open(&serve(pieces), &get("/"));
            assert_eq!(stream.expect("message").0, 1);
            assert_eq!(stream.rest().iter().map(Message::id).collect::<Vec<_>>(), [4]);
            assert_eq!((stream.next(), stream.text().as_str()), (None, "data: 1\n\ndata: 2\nid: 4\n\n"));
        }
    }

    #[test]
    fn silence_and_a_cut_body_are_errors() {
        let mut cut =
            EventStream::open(&serve(vec!["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ndata"]), &get("/"));
        assert!(cut.try_next(wait::PATIENCE).unwrap_err().to_string().contains("in the middle"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = Address::Tcp(listener.local_addr().unwrap()).connect().unwrap();
        let mut server = listener.accept().unwrap().0;
        server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let mut silent = EventStream::on(stream).unwrap();
        assert_eq!(silent.try_next(Duration::from_millis(20)).unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
