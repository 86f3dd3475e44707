//! The thread of one lot.

mod news;
mod polls;
mod streams;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use everpoll_protocol::{Client, Flavor, Place, PollRequest, RawRequest, Request};
use mio::{Events, Token, Waker};
use tokio::runtime::Handle;

use super::topics::Places;
use super::{Arrival, Held, Lot, Socket, Ticket, Wants};
use crate::front;
use crate::head::{self, HEAD_MAX, Parsed};
use crate::hub::{Wake, lock};
use crate::metrics::Way;
use crate::seats::Seats;
use crate::server::{self, Server};
use crate::stream::Stream;
use crate::transport::Connection;
use crate::transport::feed::Follower;
use crate::visitors::Visit;

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
    _visit: Visit,
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
    /// With whom it was counted for.
    Stream(PollRequest, Connection, Option<Client>),
    /// Its answer is made already.
    Refused(Bytes, Connection),
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
        // What was decrypted already is told by nobody.
        if self.parked(entry).is_some_and(|parked| parked.socket.has_plaintext()) {
            self.readable(server, entry, false);
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
        if parked.socket.is_fresh() {
            return self.hand_over(server, entry, Vec::new());
        }
        let mut some = [0; READ];
        let read = match parked.socket.read(&mut some) {
            Ok(0) => return self.close(server, entry),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => return self.close(server, entry),
        };
        let bytes = &some[..read];
        if read == READ {
            // There may be more, of which nobody tells again.
            return self.hand_over(server, entry, bytes.to_vec());
        }
        match simple(bytes, &parked.socket, server) {
            Some(Simple::Poll(held)) => self.begin(server, entry, held),
            Some(Simple::Stream(request, connection, client)) => {
                if !self.begin_stream(server, entry, request, connection) {
                    // The task counts it again.
                    server.rules().limits.rates.give_back(client);
                    self.hand_over(server, entry, bytes.to_vec());
                }
            }
            Some(Simple::Refused(bytes, connection)) => {
                self.write(server, entry, bytes, connection, Vec::new());
            }
            None => self.hand_over(server, entry, bytes.to_vec()),
        }
    }

    /// From here on it is held.
    fn enter(&mut self, server: &Server, entry: u32, what: What, seat: Option<Place>, visit: Visit) {
        server.busy.fetch_add(1, Ordering::SeqCst);
        server.held[Way::of(what.request()) as usize].fetch_add(1, Ordering::SeqCst);
        let ticket = Ticket { entry, hold: self.entries[entry as usize].holds };
        let places = lock(&self.lot.topics).enter(&what.request().channels, ticket);
        if let Some(parked) = self.parked(entry) {
            parked.state = State::Held(Box::new(Holding { what, places, seat, _visit: visit }));
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
        let Holding { what, places, seat, _visit } = *holding;
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
    let Ok(Parsed::Poll(head)) = head::parse(bytes, server.rules().limits.head_max) else { return None };
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
        web_server: None,
        now: server::now(),
    };
    let connection = Connection { keep_alive: head.keep_alive, http10: head.http10 };
    let sender = server.rules().limits.fronts.sender_of(&raw);
    if let Err(error) = server.rules().limits.count(sender, raw.now) {
        return Some(Simple::Refused(front::too_many(error, &raw, connection, server), connection));
    }
    match Request::parse_of(&raw, &server.rules().limits, sender) {
        Ok(Request::Poll(request)) if is_stream(&request) && !request.came_too_early() => {
            Some(Simple::Stream(request, connection, sender.client()))
        }
        Ok(Request::Poll(request)) if !is_stream(&request) && request.pad.is_none() => {
            Some(Simple::Poll(Held::new(request, connection, server)))
        }
        _ => {
            // The task counts it again.
            server.rules().limits.rates.give_back(sender.client());
            None
        }
    }
}

fn is_stream(request: &PollRequest) -> bool {
    matches!(request.flavor, Flavor::EventSource | Flavor::WebSocket)
}
