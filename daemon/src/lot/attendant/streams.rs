//! Streams in a lot: EventSource and WebSocket, as long as they have nothing to do but to wait and to write what is new.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use everpoll_protocol::{Ended, Flavor, PollRequest, Wire};

use super::{Attendant, Parked, READ, State, Streaming, What};
use crate::front;
use crate::head::HEAD_MAX;
use crate::hub::{Sleeper, Wake, lock};
use crate::lot::Ticket;
use crate::metrics::{COUNTS, Way};
use crate::seats::Seats;
use crate::server::Server;
use crate::transport::feed::{Follower, Found, LastWritten};
use crate::transport::{Connection, eventsource, frame, websocket};
use crate::visitors::Visit;

/// How often a WebSocket is read in a row. One that still has more is left to a task, which gives way to others.
const READS: usize = 16;

impl Attendant {
    /// Begins a stream; `false` when that is a task's affair.
    pub(super) fn begin_stream(
        &mut self,
        server: &Arc<Server>,
        entry: u32,
        mut request: PollRequest,
        connection: Connection,
    ) -> bool {
        if server.draining() || !server.has_room() {
            return false;
        }
        // Where there is no room, the task tells so, and counts it.
        let Some(visit) = Visit::begin(request.client, server.rules().patience.per_address) else {
            return false;
        };
        lock(&self.lot.topics).share(&mut request.channels);
        let way = Way::of(&request);
        let ticket = Ticket { entry, hold: self.entries[entry as usize].holds };
        let seat = match &request.wait_id {
            // Browsers do not count WebSockets among the connections to a host, so these take nobody's place.
            Some(wait_id) if request.flavor == Flavor::WebSocket => {
                let max = server.rules().patience.websockets_per_wait_id;
                let Some(place) = Seats::take_beside(&server.seats, wait_id, max) else { return false };
                Some(place)
            }
            Some(wait_id) => {
                let sleeper = Sleeper::Parked(self.lot.clone(), ticket);
                let place = Seats::take(&server.seats, wait_id, request.tab.as_ref(), sleeper);
                let Some(place) = place else { return false };
                Some(place)
            }
            None => None,
        };
        let head = match request.flavor {
            Flavor::WebSocket => websocket::head(&request).unwrap_or_default().into(),
            _ => eventsource::head(server, &request, connection),
        };
        COUNTS.requests[way as usize].one();
        let judged = request.judged;
        let follower = Follower::new(server, request);
        let due = Instant::now() + follower.interval();
        // In this order: who has seen the head misses nothing that is published from now on.
        self.enter(
            server,
            entry,
            What::Stream(Streaming { follower, passed_over: 0, asked: None }),
            seat,
            visit,
        );
        self.wake_at(entry, due);
        self.write_news(server, entry, head, &mut None);
        if let why @ Wake::Judged = server.first_wake(judged) {
            self.woken(server, entry, why);
        }
        true
    }

    /// Writes `before`, and what there is for a stream behind it. `last` is what another stream was just written.
    pub(super) fn write_news(
        &mut self,
        server: &Arc<Server>,
        entry: u32,
        before: Bytes,
        last: &mut LastWritten,
    ) {
        let mut bytes = before;
        loop {
            let Some(Parked { socket, state: State::Held(holding), .. }) = self.parked(entry) else { return };
            let What::Stream(Streaming { follower, .. }) = &mut holding.what else { return };
            if follower.is_expired() {
                return self.end_stream(server, entry, Ended::Expired);
            }
            let found = if follower.unread || bytes.is_empty() {
                follower.look(server, last)
            } else {
                Found::Nothing
            };
            let interval = follower.interval();
            let is_news = matches!(found, Found::News(_));
            match found {
                Found::News(written) if bytes.is_empty() => bytes = written.bytes.clone(),
                Found::News(written) => bytes = [&bytes[..], &written.bytes[..]].concat().into(),
                Found::Nothing if bytes.is_empty() => return,
                Found::Nothing => {}
                Found::Miss => return self.stream_to_task(server, entry, bytes, Vec::new()),
            }
            match socket.write(&bytes) {
                Ok(written) if written == bytes.len() => {}
                Ok(written) => {
                    return self.stream_to_task(server, entry, bytes.slice(written..), Vec::new());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.stream_to_task(server, entry, bytes, Vec::new());
                }
                Err(_) => return self.close(server, entry),
            }
            bytes = Bytes::new();
            if is_news {
                self.wake_at(entry, Instant::now() + interval);
            }
            let Some(Parked { state: State::Held(holding), .. }) = self.parked(entry) else { return };
            match &holding.what {
                What::Stream(stream) if stream.follower.unread => {}
                _ => return,
            }
        }
    }

    /// A stream has had nothing to say for a while.
    pub(super) fn heartbeat(&mut self, server: &Arc<Server>, entry: u32) {
        let Some(Parked { state: State::Held(holding), .. }) = self.parked(entry) else { return };
        let What::Stream(Streaming { follower, asked, .. }) = &mut holding.what else { return };
        let mut bytes = Vec::new();
        let record = follower.heartbeat().map(|record| follower.written(&record));
        if follower.wire() == Wire::Frames {
            if asked.is_some_and(|asked| asked.elapsed() >= websocket::silence_max(server)) {
                return self.close(server, entry);
            }
            asked.get_or_insert_with(Instant::now);
            frame::write(frame::PING, b"", &mut bytes);
            if let Some(record) = record {
                frame::write(frame::TEXT, &record, &mut bytes);
            }
        } else {
            bytes = record.unwrap_or_else(|| eventsource::HEARTBEAT.to_vec());
        }
        let due = Instant::now() + follower.interval();
        self.wake_at(entry, due);
        self.write_news(server, entry, bytes.into(), &mut None);
    }

    /// What a stream's client sends is a sign of life, and else of no interest.
    pub(super) fn listen(&mut self, server: &Arc<Server>, entry: u32) {
        for reads in 1.. {
            let Some(Parked { socket, state: State::Held(holding), .. }) = self.parked(entry) else { return };
            let What::Stream(Streaming { follower, passed_over, asked }) = &mut holding.what else { return };
            let is_websocket = follower.wire() == Wire::Frames;
            // One that sends more than that to an EventSource is not watched any longer.
            if !is_websocket && *passed_over >= HEAD_MAX {
                return;
            }
            let mut some = [0; READ];
            let read = match socket.read(&mut some) {
                Ok(0) => return self.close(server, entry),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return self.close(server, entry),
            };
            *passed_over += read;
            if !is_websocket {
                continue;
            }
            *asked = None;
            match frame::read(&some[..read]) {
                _ if reads == READS => {
                    return self.stream_to_task(server, entry, Bytes::new(), some[..read].to_vec());
                }
                frame::Read::Reply(reply) if reply.is_empty() => {}
                frame::Read::Reply(reply) => self.write_news(server, entry, reply.into(), &mut None),
                frame::Read::Else => {
                    return self.stream_to_task(server, entry, Bytes::new(), some[..read].to_vec());
                }
            }
        }
    }

    /// Lets a task go on with a stream: `rest` is still to be sent, `before` was read.
    fn stream_to_task(&mut self, server: &Arc<Server>, entry: u32, rest: Bytes, before: Vec<u8>) {
        let Some((What::Stream(Streaming { follower, .. }), place)) = self.leave_keeping(server, entry)
        else {
            return;
        };
        match self.take(server, entry) {
            Some(stream) => {
                tokio::spawn(front::stream(stream, server.clone(), follower, place, rest, before));
            }
            None => {
                if let Some(place) = place {
                    Seats::give_back(&server.seats, &place);
                }
            }
        }
    }

    /// Ends a stream.
    pub(super) fn end_stream(&mut self, server: &Arc<Server>, entry: u32, why: Ended) {
        let Some(What::Stream(Streaming { follower, .. })) = self.leave(server, entry) else { return };
        let is_websocket = follower.wire() == Wire::Frames;
        let last = (!is_websocket).then(|| eventsource::last(server, &follower, why));
        if let Some(stream) = self.take(server, entry) {
            tokio::spawn(front::end_stream(stream, server.clone(), last, why));
        }
    }
}
