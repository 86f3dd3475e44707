//! One connection: its socket, what is being received, and what is being sent.
//!
//! [`Connection::advance`] does whatever can be done without waiting. The sockets are watched for edges, so it goes on
//! until the kernel says that it would wait, or says [`Turn::Again`] when others should have their turn first.
//!
//! It reads nothing while something is to be sent or a request is being served. That is what bounds the memory of a
//! client that asks and never reads, and a second request simply waits in the kernel.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use socket2::Socket;
use tracing::debug;

use super::params::Params;
use super::receiver::{Incoming, Receiver, Request, Waiting};
use crate::counts::COUNTS;

/// Reads of one turn.
const READS_PER_TURN: usize = 16;

/// Pause of a body after which its sender is given up. Old Internet Explorers repeat a POST without its body.
pub(super) const BODY_PATIENCE: Duration = Duration::from_secs(5);

/// Longest time from the beginning of a request to its end.
const REQUEST_PATIENCE: Duration = Duration::from_secs(60);

/// How long a sender may go on behind an answer that ends its connection. Closed at once, it might lose the answer:
/// TCP drops what was sent when data comes in for a socket that is gone.
const LINGER: Duration = Duration::from_secs(2);

/// Answers to questions about the connection are sent together once they are this long.
const ANSWERS_BYTES: usize = 4096;

/// How long a web server may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Without a request.
    pub(super) idle: Duration,
    /// For a request's variables.
    pub(super) params: Duration,
    /// Without taking anything of a response.
    pub(super) write: Duration,
}

/// What all connections share.
pub(super) struct Shared<'a> {
    pub(super) patience: Patience,
    pub(super) body_max: &'a dyn Fn(&Params) -> usize,
    /// The program stops: connections are closed as soon as they are idle.
    pub(super) stopping: bool,
    pub(super) now: Instant,
}

/// What is to be done with a connection now.
#[derive(Debug)]
#[must_use]
pub(super) enum Turn {
    /// Nothing until the socket or a worker has something.
    Wait,
    /// Call [`Connection::advance`] again, after others.
    Again,
    /// Serve this; [`Connection::send`] takes the reply.
    Serve(Request),
    /// Close it.
    Close,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    receiver: Receiver,
    /// Was read together with the end of a request, and comes after it.
    ahead: Vec<u8>,
    out: Vec<u8>,
    /// Bytes of `out` that are sent.
    sent: usize,
    phase: Phase,
    /// When it is given up; without effect while a request is served.
    deadline: Instant,
    /// When the request in hand began.
    since: Instant,
    /// Whether the kernel may have something to read. Asking it for nothing costs as much as asking it for a request.
    may_read: bool,
    /// Whether the web server has said all it will say.
    heard_all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Receives.
    Open,
    /// A request is with the workers.
    Busy,
    /// Ends once everything is sent.
    Ending,
    /// Everything is sent, and the web server knows that nothing follows.
    Lingering,
}

impl Connection {
    pub(super) fn new(socket: Socket, receiver: Receiver, shared: &Shared<'_>) -> Self {
        Self {
            socket,
            receiver,
            ahead: Vec::new(),
            out: Vec::new(),
            sent: 0,
            phase: Phase::Open,
            deadline: shared.now + shared.patience.idle,
            since: shared.now,
            may_read: true,
            heard_all: false,
        }
    }

    /// Takes in that there is something to read; `ends` if that is the end.
    pub(super) fn hear(&mut self, ends: bool) {
        self.may_read = true;
        self.heard_all |= ends;
    }

    /// Does what can be done without waiting. `buffer` is used to read into.
    pub(super) fn advance(&mut self, buffer: &mut [u8], shared: &Shared<'_>) -> Turn {
        for _ in 0..READS_PER_TURN {
            match self.write(shared) {
                Ok(true) => {}
                Ok(false) => return Turn::Wait,
                Err(_) => return Turn::Close,
            }
            match self.phase {
                Phase::Busy => return Turn::Wait,
                Phase::Ending => {
                    // The web server may have closed it already.
                    let _ = self.socket.shutdown(Shutdown::Write);
                    self.phase = Phase::Lingering;
                    self.deadline = shared.now + LINGER;
                }
                Phase::Open | Phase::Lingering => {}
            }
            let ahead = std::mem::take(&mut self.ahead);
            let input = if ahead.is_empty() {
                if !self.may_read {
                    return if shared.stopping && self.is_idle() { Turn::Close } else { Turn::Wait };
                }
                match (&self.socket).read(buffer) {
                    Ok(0) => return Turn::Close,
                    Ok(bytes) => {
                        // What comes behind a read that was not full is told as news (epoll(7), question 9), but for an end that
                        // was told before.
                        self.may_read = self.heard_all || bytes == buffer.len();
                        &buffer[..bytes]
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.may_read = false;
                        continue;
                    }
                    Err(_) => return Turn::Close,
                }
            } else {
                ahead.as_slice()
            };
            if self.phase == Phase::Lingering {
                continue;
            }
            match self.take(input, shared) {
                None => {}
                Some(turn) => return turn,
            }
        }
        Turn::Again
    }

    /// Sends the records that answer the request that was served.
    pub(super) fn send(&mut self, keep: bool, mut response: Vec<u8>, shared: &Shared<'_>) {
        match self.out.is_empty() {
            // It may be megabytes.
            true => self.out = response,
            false => self.out.append(&mut response),
        }
        self.phase = if keep && !shared.stopping { Phase::Open } else { Phase::Ending };
        self.since = shared.now;
        self.deadline = shared.now + shared.patience.write;
    }

    /// Gives the web server up when it took too long. A request that is late is returned, so that it can be told.
    pub(super) fn expire(&mut self, shared: &Shared<'_>) -> Turn {
        if self.phase == Phase::Busy || shared.now < self.deadline {
            return Turn::Wait;
        }
        let receives = self.phase == Phase::Open && self.out.is_empty();
        if self.is_sending() {
            COUNTS.hit("write_timeout");
        }
        match self.receiver.give_up().filter(|_| receives) {
            Some(request) => {
                self.phase = Phase::Busy;
                Turn::Serve(request)
            }
            None => Turn::Close,
        }
    }

    /// Whether nothing of a request is there.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Open
            && self.out.is_empty()
            && self.ahead.is_empty()
            && self.receiver.waiting() == Waiting::Idle
    }

    /// Whether something waits to be sent.
    pub(super) fn is_sending(&self) -> bool {
        !self.out.is_empty()
    }

    /// Takes what was read.
    fn take(&mut self, mut input: &[u8], shared: &Shared<'_>) -> Option<Turn> {
        let was_idle = self.receiver.waiting() == Waiting::Idle;
        while !input.is_empty() && self.out.len() < ANSWERS_BYTES {
            match self.receiver.receive(&mut input, shared.body_max) {
                Ok(None) => {}
                Ok(Some(Incoming::Answer(mut bytes))) => self.out.append(&mut bytes),
                Ok(Some(Incoming::Aborted { mut answer, close })) => {
                    self.out.append(&mut answer);
                    if close || shared.stopping {
                        self.phase = Phase::Ending;
                        return None;
                    }
                }
                Ok(Some(Incoming::Request(request))) => {
                    self.ahead = input.to_vec();
                    self.phase = Phase::Busy;
                    return Some(Turn::Serve(request));
                }
                Err(error) => {
                    debug!("closed a connection: {error}");
                    return Some(Turn::Close);
                }
            }
        }
        self.ahead = input.to_vec();
        if was_idle {
            self.since = shared.now;
        }
        self.deadline = match self.receiver.waiting() {
            Waiting::Idle => shared.now + shared.patience.idle,
            Waiting::Params => self.since + shared.patience.params,
            Waiting::Body => (shared.now + BODY_PATIENCE).min(self.since + REQUEST_PATIENCE),
        };
        None
    }

    /// Sends; whether everything is sent.
    fn write(&mut self, shared: &Shared<'_>) -> io::Result<bool> {
        if self.out.is_empty() {
            return Ok(true);
        }
        while self.sent < self.out.len() {
            match (&self.socket).write(&self.out[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    self.sent += bytes;
                    self.deadline = shared.now + shared.patience.write;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        // An idle connection keeps no memory.
        self.out = Vec::new();
        self.sent = 0;
        self.deadline = match self.receiver.waiting() {
            Waiting::Idle => shared.now + shared.patience.idle,
            _ => shared.now + shared.patience.params,
        };
        Ok(true)
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
