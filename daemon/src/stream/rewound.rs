//! A connection that begins with bytes that were read from it before.

use std::borrow::Borrow;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep};

use super::Stream;
use crate::metrics::{COUNTS, Limit};

/// A connection that begins with bytes that were read from it before.
pub(crate) struct Rewound<S> {
    before: Vec<u8>,
    given: usize,
    stream: S,
    /// How long a client may take nothing; `None` is somebody else's affair.
    patience: Option<Duration>,
    /// Runs while it takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// How much was read in a row.
    in_turn: usize,
}

/// How much is read of one client in a row, in bytes. Frames may be tiny, and some thousands of them keep a processor busy for
/// longer than other clients should wait.
const TURN: usize = 1024;

/// Most that is read at a time: more than that would be prepared for nothing.
const READ: usize = 16 * 1024;

impl<S: Borrow<Stream>> Rewound<S> {
    /// Gives `before` first. Writing fails when the client takes nothing for as long as `patience`.
    pub(crate) fn new(before: Vec<u8>, stream: S, patience: Option<Duration>) -> Self {
        Self { before, given: 0, stream, patience, stalled: None, in_turn: 0 }
    }

    pub(super) fn stream(&self) -> &Stream {
        self.stream.borrow()
    }

    /// Reads at most so many bytes.
    pub(super) fn poll_read_most(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        most: usize,
    ) -> Poll<io::Result<()>> {
        let rest = &self.before[self.given..];
        let most = most.min(buffer.remaining());
        if !rest.is_empty() {
            let some = rest.len().min(most);
            buffer.put_slice(&rest[..some]);
            self.given += some;
            return Poll::Ready(Ok(()));
        }
        self.before = Vec::new();
        self.given = 0;
        if self.in_turn >= TURN {
            // Goes on behind those who wait for their turn, and after it has been looked who else has something to say; to wake
            // this task again would not do that.
            self.in_turn = 0;
            let _ = pin!(yield_now()).poll(context);
            return Poll::Pending;
        }
        let read = self.stream.borrow().poll_read(context, buffer.initialize_unfilled_to(most.min(READ)));
        if read.is_pending() {
            self.in_turn = 0;
        }
        let read = ready!(read)?;
        self.in_turn += read;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: Borrow<Stream> + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_read_most(context, buffer, usize::MAX)
    }
}

impl<S: Borrow<Stream> + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = this.stream.borrow().poll_write(context, bytes);
        let (Poll::Pending, Some(patience)) = (&written, this.patience) else {
            this.stalled = None;
            return written;
        };
        let timer = this.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        timer.as_mut().poll(context).map(|()| {
            COUNTS.hit(Limit::WriteTime);
            Err(io::ErrorKind::TimedOut.into())
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What a session of TLS owes is told as not written, so there is nothing that waits behind anybody's back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().end();
        Poll::Ready(Ok(()))
    }
}
