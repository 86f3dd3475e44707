//! A connection that is lent to hyper for one request.
//!
//! hyper keeps a connection until it is closed, with buffers of its own, and answers what it does not understand without a word.
//! So it is given one request and no byte behind it. Once that is answered, the front has the connection back, and with it the
//! next request, of whatever kind.
//!
//! What a newcomer gets wrong: hyper does not say when an answer is out, and it reads on while one is made, to notice that a
//! client leaves. The first is seen here, by the answer's body that is gone and a flush behind that; to the second this says
//! what it wants to know, and keeps what comes.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Rewound, Stream};
use crate::head::HEAD_MAX;
use crate::hub::lock;

/// What is known of a request that hyper serves.
#[derive(Debug)]
pub(crate) struct Loan {
    /// Bytes of it that hyper has not read.
    left: AtomicU64,
    /// What the client has sent behind it.
    behind: Mutex<Vec<u8>>,
    /// Whether the answer is with hyper.
    answered: AtomicBool,
    /// Whether it is out.
    sent: AtomicBool,
}

impl Loan {
    /// A request of so many bytes, of which these were read, and perhaps more than these.
    pub(crate) fn new(length: u64, read: &mut Vec<u8>) -> Arc<Self> {
        let behind = match usize::try_from(length) {
            Ok(length) if length < read.len() => read.split_off(length),
            _ => Vec::new(),
        };
        Arc::new(Self {
            left: length.into(),
            behind: behind.into(),
            answered: false.into(),
            sent: false.into(),
        })
    }

    /// Whether hyper has read the whole request.
    pub(crate) fn is_read(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Whether the request is read and its answer is out.
    pub(crate) fn is_over(&self) -> bool {
        self.is_read() && self.sent.load(Ordering::Relaxed)
    }

    /// What the client has sent behind the request.
    pub(crate) fn behind(&self) -> Vec<u8> {
        std::mem::take(&mut *lock(&self.behind))
    }
}

/// The connection, as hyper has it.
pub(crate) struct Lent<'a> {
    rewound: Rewound<&'a Stream>,
    loan: Arc<Loan>,
}

impl<'a> Lent<'a> {
    /// Begins with the bytes that were `read`. Writing fails when the client takes nothing for as long as `patience`.
    pub(crate) fn new(stream: &'a Stream, read: Vec<u8>, loan: Arc<Loan>, patience: Duration) -> Self {
        Self { rewound: Rewound::new(read, stream, Some(patience)), loan }
    }
}

impl AsyncRead for Lent<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { rewound, loan } = &mut *self;
        let left = loan.left.load(Ordering::Relaxed);
        if left == 0 {
            // Only the end is told.
            return rewound.stream().poll_closed(&mut lock(&loan.behind), HEAD_MAX, context).map(Ok);
        }
        let before = buffer.filled().len();
        let read = rewound.poll_read_most(context, buffer, usize::try_from(left).unwrap_or(usize::MAX));
        loan.left.store(left - (buffer.filled().len() - before) as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Lent<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rewound).poll_write(context, bytes)
    }

    /// hyper does this when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.loan.answered.load(Ordering::Relaxed) {
            self.loan.sent.store(true, Ordering::Relaxed);
        }
        Pin::new(&mut self.rewound).poll_flush(context)
    }

    /// The front does that.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// An answer's body, that is gone once hyper has taken the whole answer.
pub(crate) struct Answer<B> {
    body: B,
    loan: Arc<Loan>,
}

impl<B> Answer<B> {
    pub(crate) fn new(body: B, loan: Arc<Loan>) -> Self {
        Self { body, loan }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.loan.answered.store(true, Ordering::Relaxed);
    }
}
