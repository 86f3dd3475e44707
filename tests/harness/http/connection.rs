//! Connections that take several requests, and requests whose reply may take a while.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Address, REPLY_DEADLINE, Reply, ReplyParser, Request, Stream};

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

    /// Connects from this address of the machine, such as 127.0.0.2.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open_from(source: Ipv4Addr, address: &Address) -> io::Result<Self> {
        Ok(Self { stream: address.connect_from(source)?, parser: ReplyParser::default() })
    }

    /// Sends a request and reads its reply. Set the header `Connection: keep-alive` for another after it.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no HTTP reply.
    pub fn exchange(&mut self, request: &Request) -> io::Result<Reply> {
        let sent = self.stream.write_all(&request.bytes());
        match self.read_reply(request.is_head()) {
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
                // A machine that was halted for a moment wakes those who read with a time limit.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
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
    pub(super) fn new(what: String, head_only: bool, connection: Connection) -> Self {
        Self { what, head_only, connection }
    }

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
