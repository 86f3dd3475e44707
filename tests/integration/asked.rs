//! One question, "what is there after this cursor?", put in each way that there is: every transport of the daemon, and the
//! fallback as FastCGI and as CGI.
//!
//! What counts is what a page is given: complete replies, dispatched blocks, whole frames. All answers come in one form,
//! [`Told`](crate::gap::Told), so that a test can say once what must come.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address, Event, Request};
use everpoll_tests::web::Places;
use everpoll_tests::websocket::{self, Received, opcode};
use everpoll_tests::{EventStream, Reply, WebServer, WebSocket, sse, wait};
use serde_json::{Value, json};

use crate::gap::{Told, understand};
use crate::site::Site;

/// A way to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    LongPoll,
    Padded,
    ShortPoll,
    /// EventSource, blocks with a type.
    Blocks,
    /// EventSource, whole records.
    Records,
    Socket,
    FallbackPoll,
    FallbackStream,
    CgiPoll,
    CgiStream,
}

pub(crate) const ALL: [Way; 10] = [
    Way::LongPoll,
    Way::Padded,
    Way::ShortPoll,
    Way::Blocks,
    Way::Records,
    Way::Socket,
    Way::FallbackPoll,
    Way::FallbackStream,
    Way::CgiPoll,
    Way::CgiStream,
];

/// Who can be asked.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    daemon: Address,
    fallback: Address,
    cgi: Address,
}

/// How long something is waited for that must not come.
const SILENCE: Duration = Duration::from_millis(25);

impl Doors {
    /// The doors of a site, and a web server that runs the fallback once for each request.
    pub(crate) fn of(site: &Site) -> (Self, WebServer) {
        let cgi = WebServer::lighttpd("As CGI", Places::new(site.store.url()));
        let [(_, daemon), (_, fallback)] = site.doors();
        let doors = Self { daemon: daemon.clone(), fallback: fallback.clone(), cgi: cgi.address().clone() };
        (doors, cgi)
    }

    fn of_way(&self, way: Way) -> &Address {
        match way {
            Way::FallbackPoll | Way::FallbackStream => &self.fallback,
            Way::CgiPoll | Way::CgiStream => &self.cgi,
            _ => &self.daemon,
        }
    }
}

impl Way {
    /// Whether each answer stands for itself, and the client asks again.
    pub(crate) fn is_poll(self) -> bool {
        matches!(self, Self::LongPoll | Self::Padded | Self::ShortPoll | Self::FallbackPoll | Self::CgiPoll)
    }

    /// What a client is told that asks for `channels` after `cursor`, up to `last`: the id of the last event that it is to
    /// get, if it is to get any. It goes on until it is there, and a moment longer, for what should not come. A gap that is
    /// not at the beginning fails the test.
    ///
    /// For a stream, the cursor in the answer is where it would go on.
    #[track_caller]
    pub(crate) fn ask(self, doors: &Doors, channels: &str, cursor: &str, last: Option<u64>) -> Told {
        if self.is_poll() {
            return self.poll_on(doors, channels, cursor, last);
        }
        let who = format!("{self:?} from {cursor} on {channels}");
        let (mut events, mut seen, mut content) = (Vec::new(), None, false);
        let mut took = |event: Event| {
            let counts = event.kind == "everpoll:gap" || !event.kind.starts_with("everpoll:");
            // A hello may have no id; and it says nothing about what is to come.
            seen = Some(event.id).filter(|id| counts || *id > 0).or(seen);
            content = last.is_none_or(|last| content || counts && event.id >= last);
            events.extend(counts.then_some(event));
            (content, seen)
        };
        let mut from = cursor.to_owned();
        loop {
            let (content, seen) = match self {
                Self::Socket => read_socket(doors.of_way(self), channels, &from, &mut took),
                _ => self.read_stream(doors.of_way(self), channels, &from, &mut took),
            };
            if content {
                break;
            }
            // The fallback's streams end behind each batch.
            let next = seen.map_or_else(String::new, |id| id.to_string());
            assert_ne!(next, from, "{who}: nothing moves");
            from = next;
        }
        understand(events, seen.unwrap_or(0), channels, &who)
    }

    /// One poll; its events, gap records included, and where to go on.
    ///
    /// # Panics
    /// When the answer is not 200.
    #[track_caller]
    pub(crate) fn poll(self, doors: &Doors, channels: &str, cursor: &str) -> (Vec<Event>, u64) {
        let target = |query: &str| http::get(&format!("/e/{channels}?last_event_id={cursor}&{query}"));
        let request = match self {
            Self::LongPoll => target("hold=0.1"),
            Self::Padded => target("pad=2048&beat=1&hold=0.1&envelope=1"),
            Self::ShortPoll => target("flavor=short-poll&envelope=1"),
            Self::FallbackPoll => target(""),
            Self::CgiPoll => target("envelope=1"),
            _ => panic!("{self:?} is no poll"),
        };
        let reply = request.send(self.address(doors));
        assert_eq!(reply.status, 200, "{self:?} from {cursor}: {}", reply.text());
        (reply.events(), next(&reply))
    }

    /// The first `count` records that a client gets that asks for `channels` after `cursor`, gap included, or a few more: for
    /// one that does not know what is there.
    #[track_caller]
    pub(crate) fn first(self, doors: &Doors, channels: &str, cursor: &str, count: usize) -> Vec<Event> {
        if self.is_poll() {
            return self.poll(doors, channels, cursor).0;
        }
        let mut events = Vec::new();
        let mut took = |event: Event| {
            let counts = event.kind == "everpoll:gap" || !event.kind.starts_with("everpoll:");
            events.extend(counts.then_some(event));
            (events.len() >= count, None)
        };
        match self {
            Self::Socket => read_socket(doors.of_way(self), channels, cursor, &mut took),
            _ => self.read_stream(doors.of_way(self), channels, cursor, &mut took),
        };
        events
    }

    fn address(self, doors: &Doors) -> &Address {
        doors.of_way(self)
    }

    #[track_caller]
    fn poll_on(self, doors: &Doors, channels: &str, cursor: &str, last: Option<u64>) -> Told {
        let who = format!("{self:?} from {cursor} on {channels}");
        let (events, next) = self.poll(doors, channels, cursor);
        let mut told = understand(events, next, channels, &who);
        while last.is_some_and(|last| told.cursor < last) {
            let (events, next) = self.poll(doors, channels, &told.cursor.to_string());
            assert!(next > told.cursor, "{who}: nothing moves at {}", told.cursor);
            let more = understand(events, next, channels, &who);
            assert_eq!(more.gap, None, "{who}: a gap comes first");
            told.ids.extend(more.ids);
            told.cursor = more.cursor;
        }
        told
    }

    /// Reads until `took` is content and nothing more comes, or the stream's end.
    #[track_caller]
    fn read_stream(
        self,
        address: &Address,
        channels: &str,
        cursor: &str,
        took: &mut impl FnMut(Event) -> Standing,
    ) -> Standing {
        let envelope = if self == Self::Blocks { "" } else { "&envelope=1" };
        let request = sse::get(&format!("/e/{channels}?last_event_id={cursor}{envelope}"));
        let mut stream = open(address, &request);
        let mut patience = Patience::new();
        loop {
            match stream.try_next(patience.left()) {
                Ok(Some(message)) => patience.after(took(event(&message, channels))),
                Ok(None) => return patience.standing,
                Err(error) if error.kind() == ErrorKind::TimedOut && patience.standing.0 => {
                    return patience.standing;
                }
                Err(error) => panic!("{self:?} from {cursor}: {error}; so far: {stream}"),
            }
        }
    }
}

#[track_caller]
fn open(address: &Address, request: &Request) -> EventStream {
    let stream = EventStream::open(address, request);
    assert_eq!(stream.head.status, 200, "{stream}");
    stream
}

#[track_caller]
fn read_socket(
    address: &Address,
    channels: &str,
    cursor: &str,
    took: &mut impl FnMut(Event) -> Standing,
) -> Standing {
    let target = format!("/e/{channels}?last_event_id={cursor}&flavor=websocket");
    let mut socket = match WebSocket::try_open(address, &websocket::request(&target)) {
        Ok(socket) => socket,
        Err(error) => panic!("a WebSocket from {cursor}: {error}"),
    };
    let mut patience = Patience::new();
    loop {
        match socket.receive(patience.left()) {
            Ok(Received::Frame(frame)) if frame.opcode == opcode::TEXT => {
                let message: Value = serde_json::from_slice(&frame.payload).expect("a frame is JSON");
                let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
                let event = Event {
                    id: message["id"].as_u64().unwrap_or(0),
                    channel: text("channel_id"),
                    kind: text("type"),
                    data: message["data"].clone(),
                };
                patience.after(took(event));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::TimedOut && patience.standing.0 => {
                return patience.standing;
            }
            Err(error) => panic!("a WebSocket from {cursor}: {error}"),
        }
    }
}

/// Whether all is there, and the last id that was told, if any.
type Standing = (bool, Option<u64>);

/// How long the next message is waited for: long until all is there, a moment afterwards.
struct Patience {
    end: Instant,
    standing: Standing,
}

impl Patience {
    fn new() -> Self {
        Self { end: Instant::now() + wait::PATIENCE, standing: (false, None) }
    }

    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    fn after(&mut self, standing: Standing) {
        self.standing = standing;
        self.end = Instant::now() + if standing.0 { SILENCE } else { wait::PATIENCE };
    }
}

/// Where a page goes on after a poll.
fn next(reply: &Reply) -> u64 {
    let told = reply.json()["cursor"].as_str().and_then(|cursor| cursor.parse().ok());
    told.unwrap_or_else(|| reply.cursor())
}

/// A block as an event. One with a type does not name its channel: the test's data does; a gap is the first channel's.
fn event(message: &sse::Message, channels: &str) -> Event {
    let value = message.json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let id = message.last_event_id.parse().unwrap_or(0);
    if message.kind == "message" {
        return Event {
            id,
            channel: text(&value["channel_id"]),
            kind: text(&value["data"]["type"]),
            data: value["data"]["data"].clone(),
        };
    }
    let first = json!(channels.split(',').min());
    let channel = if message.kind == "everpoll:gap" { &first } else { &value["channel"] };
    Event { id, channel: text(channel), kind: message.kind.clone(), data: value.clone() }
}
