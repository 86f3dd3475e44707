//! Where connections wait: idle ones for a request, held polls for news.
//!
//! A task, a timer and a channel for each would cost 1.5 KB; here a connection is an entry in a list, and one thread waits for
//! all of its sockets and times. What is simple is done right here: a poll that comes in one piece and is answered from
//! memory never becomes a task. Whatever may have to wait for something else (half a request, the database, a client that does
//! not take its reply) is handed to a [task](crate::front), and comes back when that is over.
//!
//! What a newcomer gets wrong: nothing here may block, since it would block thousands. And the order of a hold: first the
//! browser's place, then the entry under its channels, then one more look at the window, so that no event slips through.

mod attendant;
mod topics;

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use everpoll_protocol::{Channel, Poll, PollRequest};
use mio::Waker;
use mio::event::Source;
use mio::unix::SourceFd;

pub(crate) use attendant::Attendant;
use topics::Topics;

use crate::hub::{Wake, lock};
use crate::metrics::COUNTS;
use crate::server::Server;
use crate::stream::peer_at;
use crate::tls::Secured;
use crate::transport::Connection;
use crate::visitors::Visit;

/// All lots of a daemon; connections are dealt out in turn.
#[derive(Default)]
pub(crate) struct Lots {
    lots: Box<[Arc<Lot>]>,
    next: AtomicUsize,
}

/// One lot, as other threads see it.
pub(crate) struct Lot {
    topics: Mutex<Topics>,
    inbox: Mutex<Inbox>,
    waker: Waker,
}

/// What its thread is told.
#[derive(Default)]
struct Inbox {
    arrivals: Vec<Arrival>,
    news: Vec<Channel>,
    woken: Vec<(Ticket, Wake)>,
    stopping: bool,
    rung: bool,
}

/// A connection that comes to wait.
struct Arrival {
    socket: Socket,
    wants: Wants,
}

/// What a connection waits for.
pub(crate) enum Wants {
    /// A request.
    Request {
        /// Whether it is the first one of this connection.
        first: bool,
    },
    /// News.
    News(Box<Held>),
}

/// A poll that is to be held, or is.
pub(crate) struct Held {
    pub(crate) request: PollRequest,
    pub(crate) poll: Poll,
    pub(crate) connection: Connection,
    /// What the client has sent meanwhile.
    pub(crate) pipelined: Vec<u8>,
    /// Whether the database was asked for it.
    pub(crate) looked_up: bool,
}

impl Held {
    /// A poll that has just been read.
    pub(crate) fn new(request: PollRequest, connection: Connection, server: &Server) -> Self {
        let poll = Poll::new(&request, server.longest_hold(&request), Instant::now());
        Self { request, poll, connection, pipelined: Vec::new(), looked_up: false }
    }
}

/// A hold of a connection in a lot; of no effect once that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    entry: u32,
    hold: u32,
}

impl Lots {
    /// So many lots, and those who attend to them.
    ///
    /// # Errors
    ///
    /// When the system has no file left.
    pub(crate) fn open(count: usize) -> io::Result<(Self, Vec<Attendant>)> {
        let attendants = (0..count.max(1)).map(|_| Attendant::new()).collect::<io::Result<Vec<_>>>()?;
        let lots = attendants.iter().map(|attendant| attendant.lot().clone()).collect();
        Ok((Self { lots, next: AtomicUsize::new(0) }, attendants))
    }

    /// Lets a connection wait. It counts as open already.
    pub(crate) fn park(&self, socket: Socket, wants: Wants) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.lots.len();
        self.lots[next].tell(|inbox| inbox.arrivals.push(Arrival { socket, wants }));
    }

    /// Tells those who wait for one of these channels that there may be news.
    pub(crate) fn wake(&self, channels: &[Channel]) {
        for lot in &self.lots {
            let topics = lock(&lot.topics);
            let news: Vec<_> = channels.iter().filter(|&channel| topics.has(channel)).cloned().collect();
            drop(topics);
            if !news.is_empty() {
                lot.tell(|inbox| inbox.news.extend(news));
            }
        }
    }

    /// The daemon stops: from now on, nobody waits for another request.
    pub(crate) fn stop(&self) {
        for lot in &self.lots {
            lot.tell(|inbox| inbox.stopping = true);
        }
    }

    /// All who are held.
    pub(crate) fn everybody(&self) -> Vec<(Arc<Lot>, Ticket)> {
        let all = |lot: &Arc<Lot>| {
            let tickets = lock(&lot.topics).everybody();
            tickets.into_iter().map(|ticket| (lot.clone(), ticket)).collect::<Vec<_>>()
        };
        self.lots.iter().flat_map(all).collect()
    }

    /// The channels that somebody waits for, in no order; some of them several times.
    pub(crate) fn channels(&self) -> Vec<Channel> {
        self.lots.iter().flat_map(|lot| lock(&lot.topics).names()).collect()
    }
}

impl Lot {
    /// Wakes one who is held.
    pub(crate) fn wake(&self, ticket: Ticket, why: Wake) {
        self.tell(|inbox| inbox.woken.push((ticket, why)));
    }

    fn tell(&self, tell: impl FnOnce(&mut Inbox)) {
        let mut inbox = lock(&self.inbox);
        tell(&mut inbox);
        if !std::mem::replace(&mut inbox.rung, true) {
            drop(inbox);
            // It fails only where its thread is gone, and the process with it.
            let _ = self.waker.wake();
        }
    }
}

impl std::fmt::Debug for Lot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lot").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Lots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lots").field("lots", &self.lots.len()).finish_non_exhaustive()
    }
}

/// A client's connection without a reactor.
pub(crate) enum Socket {
    /// From a TCP port.
    Tcp(TcpStream, Visit),
    /// From a unix socket.
    Unix(UnixStream),
    /// From a TCP port that speaks TLS, before it has.
    Fresh(TcpStream, Visit),
    /// From a TCP port, with TLS.
    Tls(Secured<TcpStream>, Visit),
}

impl Socket {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        COUNTS.watch(match self {
            Self::Tcp(stream, _) | Self::Fresh(stream, _) => Read::read(&mut &*stream, buffer),
            Self::Unix(stream) => Read::read(&mut &*stream, buffer),
            Self::Tls(secured, _) => secured.read_now(buffer),
        })
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        COUNTS.watch(match self {
            Self::Tcp(stream, _) | Self::Fresh(stream, _) => Write::write(&mut &*stream, bytes),
            Self::Unix(stream) => Write::write(&mut &*stream, bytes),
            Self::Tls(secured, _) => secured.write_now(bytes),
        })
    }

    /// Whether a task has to serve what comes, whatever it is.
    fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh(..))
    }

    /// Whether there is something to read of which the system knows nothing any more.
    fn has_plaintext(&self) -> bool {
        matches!(self, Self::Tls(secured, _) if secured.has_plaintext())
    }

    /// Whether the other end is this machine, and its address.
    fn peer(&self) -> (bool, Option<IpAddr>) {
        match self {
            Self::Tcp(stream, _) | Self::Fresh(stream, _) => peer_at(stream.peer_addr()),
            Self::Tls(secured, _) => peer_at(secured.socket().peer_addr()),
            Self::Unix(_) => (true, None),
        }
    }

    fn watch(&self, registry: &mio::Registry, token: mio::Token) -> io::Result<()> {
        self.with_source(|source| source.register(registry, token, mio::Interest::READABLE))
    }

    fn unwatch(&self, registry: &mio::Registry) -> io::Result<()> {
        self.with_source(|source| source.deregister(registry))
    }

    fn with_source<T>(&self, call: impl FnOnce(&mut SourceFd<'_>) -> T) -> T {
        use std::os::fd::AsRawFd;
        let number = match self {
            Self::Tcp(stream, _) | Self::Fresh(stream, _) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
            Self::Tls(secured, _) => secured.socket().as_raw_fd(),
        };
        call(&mut SourceFd(&number))
    }
}
