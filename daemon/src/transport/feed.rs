//! Follows the log for one stream.
//!
//! A stream is served like a row of polls, so it needs no queue of its own: it reads on only when its client has taken what
//! was read before. A client that is slow falls behind in the log, not in memory.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use everpoll_protocol::{Batch, Channels, Cursor, Ended, Page, Place, PollRequest, Record, Stream, Wire};
use tokio::time::{Sleep, sleep};

use super::frame;
use super::hold::{Hold, Refused, look};
use crate::hub::{Wake, lock};
use crate::metrics::{COUNTS, Way};
use crate::server::{self, Server};

/// One stream that is served by a task.
pub(super) struct Feed<'a> {
    server: &'a Server,
    follower: Follower,
    /// Or why it is not held.
    hold: Result<Hold<'a>, Refused>,
    timer: Pin<Box<Sleep>>,
}

/// One stream's place in the log.
pub(crate) struct Follower {
    pub(crate) request: PollRequest,
    stream: Stream,
    cursor: Cursor,
    greeted: bool,
    /// Whether the log may have more than was read.
    pub(crate) unread: bool,
    /// When its client may read no longer.
    until: Option<Instant>,
}

/// What a look at the window says to a stream.
pub(crate) enum Found {
    /// This is written.
    News(Arc<Written>),
    /// There is nothing to write.
    Nothing,
    /// Only the database knows.
    Miss,
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
    /// The texts of frames, where the transport has some.
    pub(super) parts: Vec<Bytes>,
    /// All of it, as it is on the wire.
    pub(crate) bytes: Bytes,
    batch: Batch,
}

/// What makes the writing of two streams the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    channels: Channels,
    cursor: u64,
    wire: Wire,
}

/// What the last stream was written, for the next one: thousands stand at the same place, and each that finds itself there needs
/// neither a lock nor a hash.
pub(crate) type LastWritten = Option<(Key, Arc<Written>)>;

impl<'a> Feed<'a> {
    /// From here on no event is missed.
    pub(super) fn begin(server: &'a Server, request: PollRequest) -> Self {
        let hold = Hold::begin(server, &request);
        Self::new(server, Follower::new(server, request), hold)
    }

    /// Goes on with a stream that has waited in a lot, and had this place.
    pub(super) fn resume(server: &'a Server, mut follower: Follower, place: Option<Place>) -> Self {
        let hold = Hold::resume(server, &follower.request, place);
        follower.unread = true;
        Self::new(server, follower, Ok(hold))
    }

    fn new(server: &'a Server, follower: Follower, hold: Result<Hold<'a>, Refused>) -> Self {
        let timer = Box::pin(sleep(follower.interval()));
        Self { server, follower, hold, timer }
    }

    /// The stream itself.
    pub(super) fn follower(&self) -> &Follower {
        &self.follower
    }

    /// Waits for what is to be done next. `closed` is ready when the client has left. Cancel safe.
    pub(super) async fn next(&mut self, mut closed: impl FnMut(&mut Context<'_>) -> Poll<()>) -> Next {
        loop {
            if self.follower.is_expired() {
                return Next::End(Ended::Expired);
            }
            if self.follower.unread {
                let found = match self.follower.look(self.server, &mut None) {
                    Found::Miss => match Box::pin(self.follower.look_up(self.server)).await {
                        Ok(found) => found,
                        Err(why) => return Next::End(why),
                    },
                    found => found,
                };
                let Found::News(written) = found else { continue };
                self.rest();
                return Next::Write(written);
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
                Some(Wake::Judged) => return Next::End(Ended::Expired),
                Some(Wake::Replaced) => return Next::End(Ended::Replaced),
                Some(Wake::News) if self.follower.is_expired() => {}
                Some(Wake::News) if self.timer.is_elapsed() => {
                    self.rest();
                    return Next::Heartbeat(self.follower.heartbeat());
                }
                Some(Wake::News) => self.follower.unread = true,
            }
        }
    }

    /// Begins the time anew after which a sign of life is due.
    fn rest(&mut self) {
        let due = Instant::now() + self.follower.interval();
        self.timer.as_mut().reset(due.into());
    }
}

impl Follower {
    /// A stream that has read nothing yet.
    pub(crate) fn new(server: &Server, request: PollRequest) -> Self {
        let (stream, cursor) = (Stream::new(&request, server.rules().limits.heartbeat), request.cursor);
        let until = request.valid_for.and_then(|valid_for| Instant::now().checked_add(valid_for));
        Self { request, stream, cursor, greeted: false, unread: true, until }
    }

    /// How its records are written.
    pub(crate) fn wire(&self) -> Wire {
        self.stream.wire()
    }

    /// When it is to give its next sign of life, or to end.
    pub(crate) fn interval(&self) -> Duration {
        let interval = self.stream.interval();
        self.until.map_or(interval, |until| interval.min(until.saturating_duration_since(Instant::now())))
    }

    /// Whether its client may read no longer. It begins in any case, so that it can be told why it ends.
    pub(crate) fn is_expired(&self) -> bool {
        self.greeted && self.until.is_some_and(|until| until <= Instant::now())
    }

    /// The sign of life that is due: a record, or one that scripts cannot see. The log is read as well: a wake-up may have been
    /// lost.
    pub(crate) fn heartbeat(&mut self) -> Option<Record> {
        self.unread = true;
        self.stream.heartbeat(server::now())
    }

    /// One record, written.
    pub(crate) fn written(&self, record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        self.wire().write(record, &mut out);
        out
    }

    /// The last record, for a client that is to come back in `reconnect_in` seconds.
    pub(crate) fn end(&self, why: Ended, reconnect_in: u32) -> Record {
        self.stream.end(why, reconnect_in, server::now())
    }

    /// Looks once what there is, in memory. What the `last` one was written is good enough, even where there is more by now.
    pub(crate) fn look(&mut self, server: &Server, last: &mut LastWritten) -> Found {
        if let Some((key, written)) = last
            && self.is_at(key)
        {
            self.take(written);
            return self.found(written.clone());
        }
        let generation = lock(&server.window).generation();
        let key = self.key();
        if let Some(key) = &key
            && let Some(written) = server.streams.find(&generation, key)
        {
            self.take(&written);
            *last = Some((key.clone(), written.clone()));
            return self.found(written);
        }
        match look(server, &self.request, self.cursor, self.greeted) {
            Some(page) => self.read(server, &page, generation, key),
            None => Found::Miss,
        }
    }

    /// Asks the database once what there is.
    pub(crate) async fn look_up(&mut self, server: &Server) -> Result<Found, Ended> {
        let generation = lock(&server.window).generation();
        let read = server.catch_up.read(&self.request.channels, self.cursor).await;
        let page = read.map_err(Ended::Failed)?;
        Ok(self.read(server, &page, generation, self.key()))
    }

    fn read(&mut self, server: &Server, page: &Page, generation: u64, key: Option<Key>) -> Found {
        let batch = page.batch(self.request.wait_id.as_ref());
        let from = self.cursor;
        (self.cursor, self.unread) = (Cursor::After(batch.cursor), batch.more);
        if self.greeted && batch.gap.is_none() && batch.records.is_empty() {
            self.stream.wrote(&batch);
            return Found::Nothing;
        }
        let shared = batch.gap.is_none() && page.records.iter().all(|record| record.exclude.is_none());
        self.greeted = true;
        let records = self.stream.read(&batch, from, server::now());
        let (parts, bytes) = self.write(&records);
        let written = Arc::new(Written { parts, bytes, batch });
        if let (true, Some(key)) = (shared, key)
            && lock(&server.window).generation() == generation
        {
            server.streams.keep(&generation, key, written.clone());
        }
        self.found(written)
    }

    fn found(&self, written: Arc<Written>) -> Found {
        COUNTS.deliveries[Way::of(&self.request) as usize].add(written.batch.records.len());
        Found::News(written)
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

    fn is_at(&self, key: &Key) -> bool {
        let at_cursor = matches!(self.cursor, Cursor::After(cursor) if cursor == key.cursor);
        at_cursor && self.greeted && self.stream.wire() == key.wire && self.request.channels == key.channels
    }

    /// Takes over what another stream, standing at the same place, has written.
    fn take(&mut self, written: &Written) {
        self.stream.wrote(&written.batch);
        (self.cursor, self.unread) = (Cursor::After(written.batch.cursor), written.batch.more);
    }

    /// The texts of the frames, if there are any, and all bytes.
    fn write(&self, records: &[Arc<Record>]) -> (Vec<Bytes>, Bytes) {
        let wire = self.stream.wire();
        let (mut parts, mut all) = (Vec::new(), Vec::new());
        for record in records {
            if wire == Wire::Frames {
                let text = self.written(record);
                frame::write(frame::TEXT, &text, &mut all);
                parts.push(text.into());
            } else {
                wire.write(record, &mut all);
            }
        }
        (parts, all.into())
    }
}
