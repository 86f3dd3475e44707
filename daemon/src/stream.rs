//! A connection from TCP, with or without TLS, or a unix socket.

mod lent;
mod rewound;

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

pub(crate) use lent::{Answer, Lent, Loan};
pub(crate) use rewound::Rewound;

use crate::lot::Socket;
use crate::metrics::{COUNTS, Limit};
use crate::server::Patience;
use crate::tls::Secured;
use crate::visitors::Visit;

/// A client's connection.
pub(crate) enum Stream {
    /// From a TCP port.
    Tcp(TcpStream, Visit),
    /// From a unix socket.
    Unix(UnixStream),
    /// From a TCP port that speaks TLS, before it has.
    Fresh(TcpStream, Visit),
    /// From a TCP port, with TLS.
    Tls(Secured<TcpStream>, Visit),
}

/// Without TLS, what is called for a socket; with it, the same for its session.
macro_rules! each {
    ($self:expr, $stream:ident => $call:expr, $secured:ident => $with_tls:expr) => {
        match $self {
            Stream::Tcp($stream, _) | Stream::Fresh($stream, _) => $call,
            Stream::Unix($stream) => $call,
            Stream::Tls($secured, _) => $with_tls,
        }
    };
}

/// Only the socket matters.
macro_rules! either {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self {
            Stream::Tcp($stream, _) | Stream::Fresh($stream, _) => $call,
            Stream::Unix($stream) => $call,
            Stream::Tls(secured, _) => {
                let $stream = secured.socket();
                $call
            }
        }
    };
}

/// Whether the other end of a TCP connection is this machine, and its address.
pub(crate) fn peer_at(address: io::Result<SocketAddr>) -> (bool, Option<IpAddr>) {
    let address = address.ok().map(|address| address.ip());
    (address.is_some_and(|address| address.to_canonical().is_loopback()), address)
}

impl Stream {
    /// Of a socket that has waited in a lot. There must be a runtime.
    pub(crate) fn of(socket: Socket) -> io::Result<Self> {
        Ok(match socket {
            Socket::Tcp(stream, visit) => Self::Tcp(TcpStream::from_std(stream)?, visit),
            Socket::Unix(stream) => Self::Unix(UnixStream::from_std(stream)?),
            Socket::Fresh(stream, visit) => Self::Fresh(TcpStream::from_std(stream)?, visit),
            Socket::Tls(secured, visit) => Self::Tls(secured.map(TcpStream::from_std)?, visit),
        })
    }

    /// With the count of whose it is.
    pub(crate) fn of_visit(self, visit: Visit) -> Self {
        match self {
            Self::Tcp(stream, _) => Self::Tcp(stream, visit),
            Self::Fresh(stream, _) => Self::Fresh(stream, visit),
            Self::Tls(secured, _) => Self::Tls(secured, visit),
            Self::Unix(stream) => Self::Unix(stream),
        }
    }

    /// The socket, to wait in a lot.
    pub(crate) fn into_socket(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(stream, visit) => Socket::Tcp(stream.into_std()?, visit),
            Self::Unix(stream) => Socket::Unix(stream.into_std()?),
            Self::Fresh(stream, visit) => Socket::Fresh(stream.into_std()?, visit),
            Self::Tls(secured, visit) => Socket::Tls(secured.map(TcpStream::into_std)?, visit),
        })
    }

    /// Whether the other end is this machine, and its address; a unix socket has none. The system is asked each time.
    pub(crate) fn peer(&self) -> (bool, Option<IpAddr>) {
        match self {
            Self::Tcp(stream, _) | Self::Fresh(stream, _) => peer_at(stream.peer_addr()),
            Self::Tls(secured, _) => peer_at(secured.socket().peer_addr()),
            Self::Unix(_) => (true, None),
        }
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.poll_readable(context)).await
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        either!(self, stream => stream.writable().await)
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        COUNTS.watch(each!(self, stream => stream.try_read(buffer), secured => secured.try_read(buffer)))
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        COUNTS.watch(each!(self, stream => stream.try_write(bytes), secured => secured.try_write(bytes)))
    }

    /// Writes what the socket takes at once. Of one that has just come to its task, the reactor does not know yet that it takes
    /// something, and `try_write` would say that it does not; so this asks the socket itself.
    pub(crate) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, stream => SockRef::from(stream).send(bytes), secured => secured.write_now(bytes))
    }

    /// Writes all of `bytes`; an error also when the client takes nothing of it for too long, or when too much waits for
    /// clients that take their time.
    pub(crate) async fn send(&self, bytes: &[u8], patience: &Patience) -> io::Result<()> {
        // Nearly always the socket takes all at once, and no timer is needed.
        let mut sent = match self.write_now(bytes) {
            Ok(written) if written == bytes.len() => return Ok(()),
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        Box::pin(self.send_rest(bytes, &mut sent, patience)).await
    }

    /// Writes what of `bytes` is not `sent`, as [`send`](Self::send) does.
    pub(crate) async fn send_rest(
        &self,
        bytes: &[u8],
        sent: &mut usize,
        patience: &Patience,
    ) -> io::Result<()> {
        if *sent == bytes.len() {
            return Ok(());
        }
        // All of it: the part that is written already stays in memory with the rest.
        let _unsent = Unsent::keep(bytes.len(), patience.unsent_max)?;
        while *sent < bytes.len() {
            // From piece to piece: a mebibyte may take minutes on a bad line, and would begin anew each time.
            match timeout(patience.write, self.writable()).await {
                Ok(writable) => writable?,
                Err(late) => {
                    COUNTS.hit(Limit::WriteTime);
                    return Err(late.into());
                }
            }
            match self.try_write(&bytes[*sent..]) {
                Ok(written) => *sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there, once there is something; nothing is the end.
    fn poll_read(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_readable(context))?;
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// Writes what the socket takes, once it takes something.
    fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(either!(self, stream => stream.poll_write_ready(context)))?;
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Says that nothing follows any more. The client may go on.
    pub(crate) fn end(&self) {
        if let Self::Tls(secured, _) = self {
            secured.close();
        }
        // One that has left needs not be told.
        let _ = either!(self, stream => SockRef::from(stream).shutdown(Shutdown::Write));
    }

    /// Ready when there is something to read, or the client has left.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self, Self::Tls(secured, _) if secured.has_plaintext()) {
            return Poll::Ready(Ok(()));
        }
        either!(self, stream => stream.poll_read_ready(context))
    }

    /// Ready when the client has left. What it sends meanwhile is kept in `pipelined`, up to `max` bytes; a client
    /// that sends more than that is not watched any longer, and its poll ends with its hold.
    pub(crate) fn poll_closed(
        &self,
        pipelined: &mut Vec<u8>,
        max: usize,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        while pipelined.len() < max {
            match self.poll_readable(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
            }
            let mut some = [0; 512];
            match self.try_read(&mut some) {
                Ok(0) => return Poll::Ready(()),
                Ok(read) => pipelined.extend_from_slice(&some[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }
}

/// Bytes of replies that clients have not taken yet. Without a limit for all together, clients that ask for large replies and
/// read none of them would need as much memory as they like.
static UNSENT: AtomicUsize = AtomicUsize::new(0);

/// Bytes of replies that clients have not taken yet.
pub(crate) fn unsent() -> usize {
    UNSENT.load(Ordering::Relaxed)
}

/// A share of [`UNSENT`], given back when this is dropped.
struct Unsent(usize);

impl Unsent {
    fn keep(bytes: usize, limit: usize) -> io::Result<Self> {
        let kept = Self(bytes);
        // The first one may be larger than the limit.
        let before = UNSENT.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before.saturating_add(bytes) > limit {
            COUNTS.hit(Limit::Unsent);
            return Err(io::Error::other("too much waits for slow clients"));
        }
        Ok(kept)
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        UNSENT.fetch_sub(self.0, Ordering::Relaxed);
    }
}
