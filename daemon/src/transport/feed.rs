//! Follows the log for one stream.
//!
//! A stream is served like a row of polls, so it needs no queue of its own: it reads on only when its client has taken what
//! was read before. A client that is slow falls behind in the log, not in memory.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use everpoll_protocol::{Batch, Channels, Cursor, Ended, PollRequest, Record, Stream, Wire};
use tokio::time::{Sleep, sleep};

use super::hold::{Hold, Refused, look};
use crate::hub::{Wake, lock};
use crate::metrics::{COUNTS, Way};
use crate::server::{self, Server};

/// One stream's place in the log.
pub(super) struct Feed<'a> {
    server: &'a Server,
    request: &'a PollRequest,
    stream: Stream,
    cursor: Cursor,
    /// Or why it is not held.
    hold: Result<Hold<'a>, Refused>,
    greeted: bool,
    /// Whether the log may have more than was read.
    unread: bool,
    timer: Pin<Box<Sleep>>,
}

/// What a stream does next.
pub(super) enum Next {
    /// It writes this.
    Write(Arc<Written>),
    /// It gives a sign of life: this, or one that scripts cannot see.
    Heartbeat(Option<Record>),
    /// It ends.
    End(Ended),
    /// Its client has left.
    Closed,
}

/// What is written of one batch.
#[derive(Debug)]
pub(crate) struct Written {
    /// Each record for itself, or all of them together where the transport has no frames.
    pub(super) parts: Vec<Bytes>,
    batch: Batch,
}

/// What makes the writing of two streams the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    channels: Channels,
    cursor: u64,
    wire: Wire,
}

impl<'a> Feed<'a> {
    /// From here on no event is missed.
    pub(super) fn begin(server: &'a Server, request: &'a PollRequest) -> Self {
        let stream = Stream::new(request, server.limits.heartbeat);
        let timer = Box::pin(sleep(stream.interval()));
        let hold = Hold::begin(server, request);
        Self { server, request, stream, cursor: request.cursor, hold, greeted: false, unread: true, timer }
    }

    /// How its records are written.
    pub(super) fn wire(&self) -> Wire {
        self.stream.wire()
    }

    /// One record, written.
    pub(super) fn written(&self, record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        self.wire().write(record, &mut out);
        out
    }

    /// The last record, for a client that is to come back in `reconnect_in` seconds.
    pub(super) fn end(&self, why: Ended, reconnect_in: u32) -> Record {
        self.stream.end(why, reconnect_in, server::now())
    }

    /// Waits for what is to be done next. `closed` is ready when the client has left. Cancel safe.
    pub(super) async fn next(&mut self, mut closed: impl FnMut(&mut Context<'_>) -> Poll<()>) -> Next {
        loop {
            if self.unread {
                match Box::pin(self.read()).await {
                    Ok(Some(written)) => {
                        self.rest();
                        COUNTS.deliveries[Way::of(self.request) as usize].add(written.batch.records.len());
                        return Next::Write(written);
                    }
                    Ok(None) => continue,
                    Err(why) => return Next::End(why),
                }
            }
            if self.server.draining() {
                return Next::End(Ended::Draining);
            }
            let hold = match &self.hold {
                Ok(hold) => hold,
                Err(Refused::PlaceTaken) => return Next::End(Ended::PlaceTaken),
                Err(Refused::Crowded) => return Next::End(Ended::ShortPoll),
            };
            let timer = &mut self.timer;
            let woken = poll_fn(|context| {
                if let Poll::Ready(why) = hold.waiter().poll_woken(context) {
                    return Poll::Ready(Some(why));
                }
                if closed(context).is_ready() {
                    return Poll::Ready(None);
                }
                timer.as_mut().poll(context).map(|()| Some(Wake::News))
            })
            .await;
            match woken {
                None => return Next::Closed,
                Some(Wake::Drain) => return Next::End(Ended::Draining),
                Some(Wake::Replaced) => return Next::End(Ended::Replaced),
                Some(Wake::News) if self.timer.is_elapsed() => {
                    self.rest();
                    // The log is read as well: a wake-up may have been lost.
                    self.unread = true;
                    return Next::Heartbeat(self.stream.heartbeat(server::now()));
                }
                Some(Wake::News) => self.unread = true,
            }
        }
    }

    /// Begins the time anew after which a sign of life is due.
    fn rest(&mut self) {
        let due = Instant::now() + self.stream.interval();
        self.timer.as_mut().reset(due.into());
    }

    /// Reads what there is, once; `None` when that is nothing to write.
    async fn read(&mut self) -> Result<Option<Arc<Written>>, Ended> {
        let generation = lock(&self.server.window).generation();
        let key = self.key();
        if let Some(written) = key.as_ref().and_then(|key| self.server.streams.find(&generation, key)) {
            self.take(&written);
            return Ok(Some(written));
        }
        let page = match look(self.server, self.request, self.cursor, self.greeted) {
            Some(page) => page,
            None => {
                let read = self.server.catch_up.read(&self.request.channels, self.cursor).await;
                read.map_err(Ended::Failed)?
            }
        };
        let batch = page.batch(self.request.wait_id.as_ref());
        let from = self.cursor;
        (self.cursor, self.unread) = (Cursor::After(batch.cursor), batch.more);
        if self.greeted && batch.gap.is_none() && batch.records.is_empty() {
            self.stream.wrote(&batch);
            return Ok(None);
        }
        let shared = batch.gap.is_none() && page.records.iter().all(|record| record.exclude.is_none());
        self.greeted = true;
        let records = self.stream.read(&batch, from, server::now());
        let parts = self.write(&records);
        let written = Arc::new(Written { parts, batch });
        if let (true, Some(key)) = (shared, key)
            && lock(&self.server.window).generation() == generation
        {
            self.server.streams.keep(&generation, key, written.clone());
        }
        Ok(Some(written))
    }

    /// Only those who have been greeted and stand at an id are alike.
    fn key(&self) -> Option<Key> {
        match self.cursor {
            Cursor::After(cursor) if self.greeted => {
                Some(Key { channels: self.request.channels.clone(), cursor, wire: self.stream.wire() })
            }
            _ => None,
        }
    }

    /// Takes over what another stream, standing at the same place, has written.
    fn take(&mut self, written: &Written) {
        self.stream.wrote(&written.batch);
        (self.cursor, self.unread) = (Cursor::After(written.batch.cursor), written.batch.more);
    }

    fn write(&self, records: &[Arc<Record>]) -> Vec<Bytes> {
        let wire = self.stream.wire();
        let mut parts = Vec::with_capacity(if wire == Wire::Frames { records.len() } else { 1 });
        let mut part = Vec::new();
        for record in records {
            wire.write(record, &mut part);
            if wire == Wire::Frames {
                parts.push(std::mem::take(&mut part).into());
            }
        }
        if !part.is_empty() {
            parts.push(part.into());
        }
        parts
    }
}
