//! The thread of one lot.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use everpoll_protocol::{Channel, Ended, Flavor, Input, Place, PollRequest, RawRequest, Request, Step, Wire};
use mio::{Events, Token, Waker};
use tokio::runtime::Handle;

use super::topics::Places;
use super::{Arrival, Held, Lot, Socket, Ticket, Wants};
use crate::front;
use crate::head::{self, HEAD_MAX, Parsed};
use crate::hub::{Sleeper, Wake, lock};
use crate::metrics::{COUNTS, Way};
use crate::seats::Seats;
use crate::server::{self, Server};
use crate::stream::Stream;
use crate::transport::feed::{Follower, Found};
use crate::transport::long_poll::{self, Answered, Turn};
use crate::transport::{Connection, eventsource, frame, websocket};

/// How many sockets are looked at before it is seen who else was told something.
const EVENTS: usize = 256;

/// What is read at a time. A request that is longer is read by a task.
const READ: usize = 4096;

/// The token of the waker; entries have their number.
const WAKER: Token = Token(usize::MAX);

/// Attends to one lot.
pub(crate) struct Attendant {
    lot: Arc<Lot>,
    poll: mio::Poll,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Milliseconds since `start`, and an entry; see [`Parked::alarm`].
    alarms: BTreeSet<(u64, u32)>,
    start: Instant,
    stopping: bool,
}

/// A place for a connection.
#[derive(Default)]
struct Entry {
    /// How many holds there were here: each gets a number of its own.
    holds: u32,
    parked: Option<Parked>,
}

/// A connection that waits.
struct Parked {
    socket: Socket,
    /// When its wait is over, in milliseconds since the start.
    due: u64,
    /// When it is looked whether it is: not later than that. What is due later than before, as with each answer and each
    /// next poll, so costs nothing.
    alarm: u64,
    state: State,
}

enum State {
    /// No request is here; its first one?
    Idle { first: bool },
    /// A poll waits for news.
    Held(Box<Holding>),
}

/// A request that is held.
struct Holding {
    what: What,
    places: Places,
    seat: Option<Place>,
}

enum What {
    Poll(Held),
    Stream(Streaming),
}

/// A stream that has written all that there is.
struct Streaming {
    follower: Follower,
    /// How much its client has sent that is of no interest.
    passed_over: usize,
    /// Since when a ping is unanswered. Not since when nothing was heard: while there are events, no ping is sent.
    asked: Option<Instant>,
}

impl What {
    fn request(&self) -> &PollRequest {
        match self {
            Self::Poll(held) => &held.request,
            Self::Stream(stream) => &stream.follower.request,
        }
    }
}

/// What was read, as far as it is simple.
enum Simple {
    Poll(Held),
    Stream(PollRequest, Connection),
}

impl Attendant {
    pub(super) fn new() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let lot = Lot { topics: Default::default(), inbox: Default::default(), waker };
        Ok(Self {
            lot: lot.into(),
            poll,
            entries: Vec::new(),
            free: Vec::new(),
            alarms: BTreeSet::new(),
            start: Instant::now(),
            stopping: false,
        })
    }

    pub(super) fn lot(&self) -> &Arc<Lot> {
        &self.lot
    }

    /// Attends to it for ever. Tasks are started by `runtime`.
    pub(crate) fn run(mut self, server: &Arc<Server>, runtime: &Handle) {
        // Sockets of tasks belong to the reactor of this one.
        let _entered = runtime.enter();
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let now = self.now();
            let timeout = self.alarms.first().map(|(at, _)| Duration::from_millis(at.saturating_sub(now)));
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => panic!("the system says no more which sockets are ready: {error}"),
            }
            self.take_inbox(server);
            for event in &events {
                let Token(entry) = event.token();
                if let Ok(entry) = u32::try_from(entry) {
                    self.readable(server, entry, event.is_read_closed() || event.is_error());
                }
            }
            self.ring_alarms(server);
        }
    }

    /// Does what other threads have said.
    fn take_inbox(&mut self, server: &Arc<Server>) {
        let inbox = std::mem::take(&mut *lock(&self.lot.inbox));
        for channel in &inbox.news {
            self.news(server, channel);
        }
        for (ticket, why) in inbox.woken {
            if self.is_held(ticket) {
                self.woken(server, ticket.entry, why);
            }
        }
        for arrival in inbox.arrivals {
            self.arrives(server, arrival);
        }
        if inbox.stopping && !std::mem::replace(&mut self.stopping, true) {
            for entry in 0..self.entries.len() as u32 {
                if matches!(self.state(entry), Some(State::Idle { .. })) {
                    // What is there is served; what is on its way was sent by a client that knows that a kept connection may
                    // close.
                    self.readable(server, entry, false);
                    self.wait_for_request(server, entry);
                }
            }
        }
    }

    fn news(&mut self, server: &Arc<Server>, channel: &Channel) {
        let members = lock(&self.lot.topics).members(channel);
        for member in members {
            // Each answer may be the end of others: of the same browser, for example.
            if self.is_held(member.ticket) {
                self.woken(server, member.ticket.entry, Wake::News);
            }
        }
    }

    fn is_held(&self, ticket: Ticket) -> bool {
        let entry = self.entries.get(ticket.entry as usize);
        entry.is_some_and(|entry| {
            entry.holds == ticket.hold && matches!(entry.parked, Some(Parked { state: State::Held(_), .. }))
        })
    }

    fn state(&self, entry: u32) -> Option<&State> {
        Some(&self.entries.get(entry as usize)?.parked.as_ref()?.state)
    }

    fn parked(&mut self, entry: u32) -> Option<&mut Parked> {
        self.entries.get_mut(entry as usize)?.parked.as_mut()
    }

    fn arrives(&mut self, server: &Arc<Server>, Arrival { socket, wants }: Arrival) {
        let entry = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            u32::try_from(self.entries.len() - 1).expect("the number of open files ends long before")
        });
        // Whatever has come before is told as ready, too.
        if socket.watch(self.poll.registry(), Token(entry as usize)).is_err() {
            self.free.push(entry);
            server.connections.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let state = State::Idle { first: matches!(wants, Wants::Request { first: true }) };
        let parked = Parked { socket, due: u64::MAX, alarm: u64::MAX, state };
        self.entries[entry as usize].parked = Some(parked);
        match wants {
            Wants::Request { .. } => self.wait_for_request(server, entry),
            Wants::News(held) => {
                let until = held.poll.hold_until().unwrap_or_else(Instant::now);
                self.hold(server, entry, *held, until);
            }
        }
    }

    /// A connection without a request has so long to begin one.
    fn wait_for_request(&mut self, server: &Server, entry: u32) {
        let stopping = self.stopping;
        let Some(Parked { state: State::Idle { first }, .. }) = self.parked(entry) else { return };
        let patience = front::patience(server, *first, stopping);
        self.wake_at(entry, Instant::now() + patience);
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn wake_at(&mut self, entry: u32, at: Instant) {
        // Rounded up: nothing is over before its time.
        let due = at.saturating_duration_since(self.start).as_micros().div_ceil(1000) as u64;
        let Some(parked) = self.entries[entry as usize].parked.as_mut() else { return };
        parked.due = due;
        if due < parked.alarm {
            self.alarms.remove(&(parked.alarm, entry));
            parked.alarm = due;
            self.alarms.insert((due, entry));
        }
    }

    fn ring_alarms(&mut self, server: &Arc<Server>) {
        let now = self.now();
        while let Some(&(alarm, entry)) = self.alarms.first()
            && alarm <= now
        {
            self.alarms.pop_first();
            let Some(parked) = self.entries[entry as usize].parked.as_mut() else { continue };
            if parked.due > now {
                parked.alarm = parked.due;
                self.alarms.insert((parked.due, entry));
                continue;
            }
            parked.alarm = u64::MAX;
            match &parked.state {
                State::Idle { .. } => self.close(server, entry),
                // The log is read as well: the wake-up may have been lost.
                State::Held(holding) => match holding.what {
                    What::Poll(_) => self.woken(server, entry, Wake::News),
                    What::Stream(_) => self.heartbeat(server, entry),
                },
            }
        }
    }

    /// The socket has something to read, or `closed` says that nothing more will come.
    fn readable(&mut self, server: &Arc<Server>, entry: u32, closed: bool) {
        match self.state(entry) {
            None => return,
            Some(State::Idle { .. }) => self.request(server, entry),
            Some(State::Held(_)) => self.pipelined(server, entry),
        }
        // Its end is not told again.
        if closed {
            match self.state(entry) {
                None => {}
                Some(State::Idle { .. }) => self.request(server, entry),
                Some(State::Held(_)) => self.pipelined(server, entry),
            }
        }
    }

    /// What a client sends while its poll is held is kept, or says that it has left.
    fn pipelined(&mut self, server: &Arc<Server>, entry: u32) {
        let Some(Parked { socket, state: State::Held(holding), .. }) = self.parked(entry) else { return };
        let kept = match &mut holding.what {
            What::Poll(held) => &mut held.pipelined,
            What::Stream(_) => return self.listen(server, entry),
        };
        // One that sends more than that is not watched any longer, and its poll ends with its hold.
        while kept.len() < HEAD_MAX {
            let mut some = [0; 512];
            match socket.read(&mut some) {
                Ok(0) => return self.close(server, entry),
                Ok(read) => kept.extend_from_slice(&some[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(server, entry),
            }
        }
    }

    /// Reads a request, and serves it if that is simple.
    fn request(&mut self, server: &Arc<Server>, entry: u32) {
        let Some(parked) = self.parked(entry) else { return };
        let mut some = [0; READ];
        let read = match parked.socket.read(&mut some) {
            Ok(0) => return self.close(server, entry),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => return self.close(server, entry),
        };
        let bytes = &some[..read];
        match simple(bytes, &parked.socket, server) {
            Some(Simple::Poll(held)) => self.begin(server, entry, held),
            Some(Simple::Stream(request, connection)) => {
                if !self.begin_stream(server, entry, request, connection) {
                    self.hand_over(server, entry, bytes.to_vec());
                }
            }
            None => self.hand_over(server, entry, bytes.to_vec()),
        }
    }

    /// Serves a poll that has just been read.
    fn begin(&mut self, server: &Arc<Server>, entry: u32, mut held: Held) {
        COUNTS.requests[Way::of(&held.request) as usize].one();
        match long_poll::turn(server, &held.request, &mut held.poll, None, false) {
            Turn::Answered(answered) => self.answer(server, entry, held, answered),
            Turn::Hold(until) => self.hold(server, entry, held, until),
            Turn::Miss(_) => self.look_up(server, entry, held),
        }
    }

    /// Lets the poll wait for news.
    fn hold(&mut self, server: &Arc<Server>, entry: u32, mut held: Held, until: Instant) {
        let input = if server.draining() {
            Some(Input::Draining)
        } else if !server.may_hold() {
            Some(Input::Crowded)
        } else {
            None
        };
        let ticket = Ticket { entry, hold: self.entries[entry as usize].holds };
        let seat = match (&input, &held.request.wait_id) {
            (None, Some(wait_id)) => {
                let sleeper = Sleeper::Parked(self.lot.clone(), ticket);
                match Seats::take(&server.seats, wait_id, held.request.tab.as_ref(), sleeper) {
                    Some(place) => Ok(Some(place)),
                    None => Err(Input::PlaceTaken),
                }
            }
            _ => input.map_or(Ok(None), Err),
        };
        let seat = match seat {
            Ok(seat) => seat,
            Err(input) => {
                if let Step::Reply(answer) = long_poll::handle(&mut held.poll, input, &held.request) {
                    self.answer(server, entry, held, Answered::Own(answer, None));
                }
                return;
            }
        };
        self.enter(server, entry, What::Poll(held), seat);
        self.wake_at(entry, until);
        // What came before the entry is read now.
        self.woken(server, entry, Wake::News);
    }

    /// From here on it is held.
    fn enter(&mut self, server: &Server, entry: u32, what: What, seat: Option<Place>) {
        server.busy.fetch_add(1, Ordering::SeqCst);
        server.held[Way::of(what.request()) as usize].fetch_add(1, Ordering::SeqCst);
        let ticket = Ticket { entry, hold: self.entries[entry as usize].holds };
        let places = lock(&self.lot.topics).enter(&what.request().channels, ticket);
        if let Some(parked) = self.parked(entry) {
            parked.state = State::Held(Box::new(Holding { what, places, seat }));
        }
    }

    /// Begins a stream; `false` when that is a task's affair.
    fn begin_stream(
        &mut self,
        server: &Arc<Server>,
        entry: u32,
        request: PollRequest,
        connection: Connection,
    ) -> bool {
        if server.draining() || !server.has_room() {
            return false;
        }
        let way = Way::of(&request);
        let ticket = Ticket { entry, hold: self.entries[entry as usize].holds };
        let seat = match &request.wait_id {
            // Browsers do not count WebSockets among the connections to a host, so these take nobody's place.
            Some(wait_id) if request.flavor != Flavor::WebSocket => {
                let sleeper = Sleeper::Parked(self.lot.clone(), ticket);
                let place = Seats::take(&server.seats, wait_id, request.tab.as_ref(), sleeper);
                let Some(place) = place else { return false };
                Some(place)
            }
            _ => None,
        };
        let head = match request.flavor {
            Flavor::WebSocket => websocket::head(&request).unwrap_or_default().into(),
            _ => eventsource::head(server, &request, connection),
        };
        COUNTS.requests[way as usize].one();
        let follower = Follower::new(server, request);
        let due = Instant::now() + follower.interval();
        // In this order: who has seen the head misses nothing that is published from now on.
        self.enter(server, entry, What::Stream(Streaming { follower, passed_over: 0, asked: None }), seat);
        self.wake_at(entry, due);
        self.write_news(server, entry, head);
        true
    }

    /// Writes `before`, and what there is for a stream behind it.
    fn write_news(&mut self, server: &Arc<Server>, entry: u32, before: Bytes) {
        let mut bytes = before;
        loop {
            let Some(Parked { socket, state: State::Held(holding), .. }) = self.parked(entry) else { return };
            let What::Stream(Streaming { follower, .. }) = &mut holding.what else { return };
            if follower.is_expired() {
                return self.end_stream(server, entry, Ended::Expired);
            }
            let found =
                if follower.unread || bytes.is_empty() { follower.look(server) } else { Found::Nothing };
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
    fn heartbeat(&mut self, server: &Arc<Server>, entry: u32) {
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
        self.write_news(server, entry, bytes.into());
    }

    /// What a stream's client sends is a sign of life, and else of no interest.
    fn listen(&mut self, server: &Arc<Server>, entry: u32) {
        loop {
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
                frame::Read::Reply(reply) if reply.is_empty() => {}
                frame::Read::Reply(reply) => self.write_news(server, entry, reply.into()),
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
    fn end_stream(&mut self, server: &Arc<Server>, entry: u32, why: Ended) {
        let Some(What::Stream(Streaming { follower, .. })) = self.leave(server, entry) else { return };
        let is_websocket = follower.wire() == Wire::Frames;
        let last = (!is_websocket).then(|| eventsource::last(server, &follower, why));
        if let Some(stream) = self.take(server, entry) {
            tokio::spawn(front::end_stream(stream, server.clone(), last, why));
        }
    }

    /// Something may have happened for one who is held.
    fn woken(&mut self, server: &Arc<Server>, entry: u32, why: Wake) {
        let Some(Parked { state: State::Held(holding), .. }) = self.parked(entry) else { return };
        let Held { request, poll, connection, .. } = match &mut holding.what {
            What::Poll(held) => held,
            What::Stream(_) => {
                return match why {
                    Wake::News => self.write_news(server, entry, Bytes::new()),
                    Wake::Replaced => self.end_stream(server, entry, Ended::Replaced),
                    Wake::Drain => self.end_stream(server, entry, Ended::Draining),
                };
            }
        };
        let input = match why {
            Wake::News => match long_poll::turn(server, request, poll, Some(*connection), true) {
                Turn::Answered(answered) => return self.end(server, entry, answered),
                Turn::Hold(_) => return,
                Turn::Miss(_) => {
                    let Some(What::Poll(held)) = self.leave(server, entry) else { return };
                    return self.look_up(server, entry, held);
                }
            },
            Wake::Replaced => Input::Replaced,
            Wake::Drain => Input::Draining,
        };
        if let Step::Reply(answer) = long_poll::handle(poll, input, request) {
            self.end(server, entry, Answered::Own(answer, None));
        }
    }

    /// Ends a hold with an answer.
    fn end(&mut self, server: &Arc<Server>, entry: u32, answered: Answered) {
        if let Some(What::Poll(held)) = self.leave(server, entry) {
            self.answer(server, entry, held, answered);
        }
    }

    /// Gives back what a hold had; the connection is without a request then.
    fn leave(&mut self, server: &Server, entry: u32) -> Option<What> {
        let (what, place) = self.leave_keeping(server, entry)?;
        if let Some(place) = place {
            Seats::give_back(&server.seats, &place);
        }
        Some(what)
    }

    /// As [`leave`](Self::leave), but for the browser's place.
    fn leave_keeping(&mut self, server: &Server, entry: u32) -> Option<(What, Option<Place>)> {
        let Entry { holds, parked } = self.entries.get_mut(entry as usize)?;
        let parked = parked.as_mut()?;
        let state = std::mem::replace(&mut parked.state, State::Idle { first: false });
        let State::Held(holding) = state else {
            parked.state = state;
            return None;
        };
        // Whoever has the ticket of this one wakes nobody from now on.
        *holds = holds.wrapping_add(1);
        let Holding { what, places, seat } = *holding;
        lock(&self.lot.topics).leave(&what.request().channels, &places, |moved| {
            let other = self.entries[moved.ticket.entry as usize].parked.as_mut();
            if let Some(Parked { state: State::Held(holding), .. }) = other {
                holding.places.set(moved);
            }
        });
        server.held[Way::of(what.request()) as usize].fetch_sub(1, Ordering::SeqCst);
        server.busy.fetch_sub(1, Ordering::SeqCst);
        Some((what, seat))
    }

    /// Writes an answer; what the socket does not take at once is a task's affair.
    fn answer(&mut self, server: &Arc<Server>, entry: u32, held: Held, answered: Answered) {
        let Held { request, connection, pipelined, .. } = held;
        let bytes = long_poll::to_bytes(server, &request, connection, answered);
        let Some(parked) = self.parked(entry) else { return };
        match parked.socket.write(&bytes) {
            Ok(written) if written == bytes.len() => {}
            Ok(written) => return self.write_rest(server, entry, bytes, written, connection, pipelined),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return self.write_rest(server, entry, bytes, 0, connection, pipelined);
            }
            Err(_) => return self.close(server, entry),
        }
        if !front::stays_open(server, connection) {
            self.close(server, entry);
        } else if pipelined.is_empty() {
            if let Some(parked) = self.parked(entry) {
                parked.state = State::Idle { first: false };
            }
            self.wait_for_request(server, entry);
        } else {
            self.hand_over(server, entry, pipelined);
        }
    }

    fn write_rest(
        &mut self,
        server: &Arc<Server>,
        entry: u32,
        bytes: Bytes,
        written: usize,
        connection: Connection,
        pipelined: Vec<u8>,
    ) {
        let Some(stream) = self.take(server, entry) else { return };
        tokio::spawn(front::finish(stream, server.clone(), bytes, written, connection, pipelined));
    }

    /// Lets a task ask the database for a poll.
    fn look_up(&mut self, server: &Arc<Server>, entry: u32, held: Held) {
        let Some(stream) = self.take(server, entry) else { return };
        tokio::spawn(front::look_up(stream, server.clone(), Box::new(held)));
    }

    /// Lets a task serve the connection, of which these bytes were read.
    fn hand_over(&mut self, server: &Arc<Server>, entry: u32, bytes: Vec<u8>) {
        let Some(stream) = self.take(server, entry) else { return };
        tokio::spawn(front::serve(stream, bytes, server.clone()));
    }

    /// Takes a connection without a request out of the lot, for a task.
    fn take(&mut self, server: &Server, entry: u32) -> Option<Stream> {
        let socket = self.remove(entry)?;
        let stream = match socket.unwatch(self.poll.registry()) {
            Ok(()) => Stream::of(socket),
            Err(error) => Err(error),
        };
        if stream.is_err() {
            // The system has no room for it: it is closed.
            server.connections.fetch_sub(1, Ordering::SeqCst);
        }
        stream.ok()
    }

    fn remove(&mut self, entry: u32) -> Option<Socket> {
        let Parked { socket, alarm, .. } = self.entries.get_mut(entry as usize)?.parked.take()?;
        self.alarms.remove(&(alarm, entry));
        self.free.push(entry);
        Some(socket)
    }

    /// Closes a connection; whoever left in the middle of a hold gives back what that had.
    fn close(&mut self, server: &Server, entry: u32) {
        self.leave(server, entry);
        // Closed, it is watched no longer.
        if self.remove(entry).is_some() {
            server.connections.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The poll or the stream that was read, if it is complete, nothing follows it, and no padding is wanted.
fn simple(bytes: &[u8], socket: &Socket, server: &Server) -> Option<Simple> {
    let Ok(Parsed::Poll(head)) = head::parse(bytes) else { return None };
    if head.length != bytes.len() {
        return None;
    }
    let (peer_is_local, peer) = socket.peer();
    let raw = RawRequest {
        method: head.method,
        target: head.target,
        headers: &head.fields,
        body: b"",
        peer_is_local,
        peer,
        may_upgrade: !head.http10,
        now: server::now(),
    };
    let Ok(Request::Poll(request)) = Request::parse(&raw, &server.limits) else { return None };
    let connection = Connection { keep_alive: head.keep_alive, http10: head.http10 };
    match request.flavor {
        Flavor::EventSource | Flavor::WebSocket => Some(Simple::Stream(request, connection)),
        _ if request.pad.is_some() => None,
        Flavor::LongPoll | Flavor::ShortPoll => Some(Simple::Poll(Held::new(request, connection, server))),
    }
}
