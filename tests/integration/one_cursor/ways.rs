//! One step of a client: ask in one way, take what comes, and know where to go on.
//!
//! What counts as received is what a page would have been given: complete replies, dispatched blocks, whole frames. What was
//! on its way when the client left does not count, and comes again.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address, Event, Request};
use everpoll_tests::websocket::{self, Received, opcode};
use everpoll_tests::{EventStream, Reply, WebSocket, sse};
use serde_json::Value;

use crate::writers::Random;

/// A way to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    LongPoll,
    LongPollThroughNginx,
    Post,
    Padded,
    ShortPoll,
    Jsonp,
    Stream,
    StreamOfRecords,
    StreamThroughNginx,
    Socket,
    SocketThroughNginx,
    FallbackPoll,
    FallbackJsonp,
    FallbackStream,
    CgiPoll,
    CgiStream,
}

pub(super) const ALL: [Way; 16] = [
    Way::LongPoll,
    Way::LongPollThroughNginx,
    Way::Post,
    Way::Padded,
    Way::ShortPoll,
    Way::Jsonp,
    Way::Stream,
    Way::StreamOfRecords,
    Way::StreamThroughNginx,
    Way::Socket,
    Way::SocketThroughNginx,
    Way::FallbackPoll,
    Way::FallbackJsonp,
    Way::FallbackStream,
    Way::CgiPoll,
    Way::CgiStream,
];

/// Who can be asked.
#[derive(Clone)]
pub(super) struct Doors {
    pub(super) daemon: Address,
    /// The other daemon, and the fallback when that is away.
    pub(super) nginx: Address,
    /// The fallback as FastCGI.
    pub(super) fallback: Address,
    /// The fallback as CGI.
    pub(super) cgi: Address,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Ids and channels, in the order in which they came.
    pub(super) events: Vec<(u64, String)>,
    pub(super) gaps: u32,
    /// Where to go on; none where the client was told nothing.
    pub(super) cursor: Option<String>,
    /// Why it ended, if not because the client left or was told to.
    broken: Option<io::Error>,
}

/// The fallback's streams end by themselves.
const TO_ITS_END: Duration = Duration::from_secs(20);

/// Does one step. When it fails, the client is where it was.
pub(super) fn step(
    way: Way,
    doors: &Doors,
    channels: &str,
    cursor: &str,
    client: u64,
    random: &mut Random,
) -> Step {
    let target = |query: &str| format!("/e/{channels}/client-{client}?last_event_id={cursor}&{query}");
    let time = Duration::from_millis(random.below(400));
    let pad = 1024 + random.below(4000);
    let envelope = random.below(2);
    let polled =
        |request: Request, address: &Address| request.try_send(address).map(|reply| from_poll(&reply));
    let step = match way {
        // The header wins over what the URL says.
        Way::LongPoll => {
            let request = http::get(&format!("/e/{channels}?last_event_id=0&hold=0.3&envelope={envelope}"));
            polled(request.header("Last-Event-Id", cursor), &doors.daemon)
        }
        Way::LongPollThroughNginx => polled(http::get(&target("hold=0.3")), &doors.nginx),
        Way::Post => {
            let body = format!("last_event_id={cursor}&hold=0.2&envelope={envelope}");
            let request = http::request("POST", &format!("/e/{channels}"));
            polled(
                request.header("Content-Type", "application/x-www-form-urlencoded").body(body),
                &doors.daemon,
            )
        }
        Way::Padded => {
            polled(http::get(&target(&format!("pad={pad}&beat=1&hold=1.5&envelope=1"))), &doors.daemon)
        }
        Way::ShortPoll => polled(http::get(&target("flavor=short-poll")), &doors.daemon),
        Way::Jsonp => from_script(&target("cb=a.b&hold=0.2"), &doors.daemon),
        Way::Stream => from_stream(&sse::get(&target("")), &doors.daemon, time),
        Way::StreamOfRecords => from_stream(&sse::get(&target("envelope=1")), &doors.daemon, time),
        Way::StreamThroughNginx => from_stream(&sse::get(&target("envelope=1")), &doors.nginx, time),
        Way::Socket => from_socket(&target("flavor=websocket"), &doors.daemon, time),
        Way::SocketThroughNginx => from_socket(&target("flavor=websocket"), &doors.nginx, time),
        Way::FallbackPoll => polled(http::get(&target(&format!("envelope={envelope}"))), &doors.fallback),
        Way::FallbackJsonp => from_script(&target("cb=f"), &doors.fallback),
        Way::FallbackStream => from_stream(&sse::get(&target("envelope=1")), &doors.fallback, TO_ITS_END),
        Way::CgiPoll => polled(http::get(&target(&format!("envelope={envelope}"))), &doors.cgi),
        Way::CgiStream => from_stream(&sse::get(&target("envelope=1")), &doors.cgi, TO_ITS_END),
    };
    let through_nginx =
        matches!(way, Way::LongPollThroughNginx | Way::StreamThroughNginx | Way::SocketThroughNginx);
    // Those who are answered at once come back later, or the machine would do nothing else.
    random.pause(50);
    match step {
        Ok(Step { broken: Some(error), .. }) if !through_nginx => panic!("{way:?} from {cursor}: {error}"),
        Ok(step) => step,
        // The daemon behind nginx dies in this test; what was not complete is as if it had never been.
        Err(_) if through_nginx => Step::default(),
        Err(error) => panic!("{way:?} from {cursor}: {error}"),
    }
}

impl Step {
    fn of(events: Vec<Event>, cursor: Option<String>) -> Self {
        let mut step = Self { cursor, ..Self::default() };
        for event in events {
            step.take(event.id, &event.channel, &event.kind);
        }
        step
    }

    fn take(&mut self, id: u64, channel: &str, kind: &str) {
        match kind {
            "everpoll:gap" => self.gaps += 1,
            _ if kind.starts_with("everpoll:") => {}
            _ => self.events.push((id, channel.to_owned())),
        }
    }
}

fn from_poll(reply: &Reply) -> Step {
    assert_eq!(reply.status, 200, "{reply:?}");
    let told = reply.json()["cursor"].as_str().map(str::to_owned);
    Step::of(reply.events(), told.or_else(|| reply.header("x-ps-cursor").map(str::to_owned)))
}

fn from_script(target: &str, address: &Address) -> io::Result<Step> {
    let mut reply = http::get(target).try_send(address)?;
    let script = reply.text().to_owned();
    let json = script.strip_prefix("/**/").and_then(|script| script.split_once('('));
    let json = json.and_then(|(_, json)| json.trim_end().strip_suffix(");"));
    json.unwrap_or_else(|| panic!("no script: {script}")).as_bytes().clone_into(&mut reply.body);
    Ok(from_poll(&reply))
}

fn from_stream(request: &Request, address: &Address, time: Duration) -> io::Result<Step> {
    let mut stream = EventStream::try_open(address, request)?;
    assert_eq!(stream.head.status, 200, "{stream}");
    let (end, mut step) = (Instant::now() + time, Step::default());
    loop {
        match stream.try_next(end.saturating_duration_since(Instant::now())) {
            Ok(Some(message)) => take_message(&mut step, &message),
            Ok(None) => break,
            Err(error) => {
                step.broken = Some(error).filter(|error| error.kind() != ErrorKind::TimedOut);
                break;
            }
        }
    }
    let cursor = stream.parser().last_event_id();
    step.cursor = (!cursor.is_empty()).then(|| cursor.to_owned());
    Ok(step)
}

fn take_message(step: &mut Step, message: &sse::Message) {
    let json = message.json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let id = message.last_event_id.parse().unwrap_or(0);
    if message.kind == "message" {
        step.take(id, &text(&json["channel_id"]), &text(&json["data"]["type"]));
    } else {
        // Such a block does not name its channel; the data does.
        step.take(id, &text(&json["channel"]), &message.kind);
    }
}

fn from_socket(target: &str, address: &Address, time: Duration) -> io::Result<Step> {
    let mut socket = WebSocket::try_open(address, &websocket::request(target))?;
    let (end, mut step) = (Instant::now() + time, Step::default());
    loop {
        match socket.receive(end.saturating_duration_since(Instant::now())) {
            Ok(Received::Frame(frame)) if frame.opcode == opcode::TEXT => {
                let message: Value = serde_json::from_slice(&frame.payload)?;
                let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
                let id = message["id"].as_u64().unwrap_or(0);
                step.take(id, &text("channel_id"), &text("type"));
                // A page that began with a time may have no place yet.
                step.cursor = (id > 0).then(|| id.to_string()).or(step.cursor);
            }
            Err(error) => {
                step.broken = Some(error).filter(|error| error.kind() != ErrorKind::TimedOut);
                return Ok(step);
            }
            Ok(_) => return Ok(step),
        }
    }
}
