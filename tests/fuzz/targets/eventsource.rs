//! Streams of events, written by the protocol and read back as browsers read them.
//!
//! The input is the query of a poll, a line feed, and then what somebody publishes: an event or an array of events, as for
//! `POST /publish`. All of it is streamed, in pieces, with signs of life in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use everpoll_protocol::{
    Batch, Cursor, Ended, Event, Flavor, Gap, GapReason, Head, NewEvent, PollRequest, Record, Request,
    ServeError, Stream, Timestamp, Wire,
};
use serde_json::Value;
use serde_json::value::RawValue;

use super::parser::{Message, Parser};
use super::publish::IsJson;
use super::request::Fields;

/// Where the stream of a client begins that has seen everything so far.
const BEFORE: u64 = 41;

/// What was published arrives, once, in order and as it was; and wherever a stream breaks, its reader knows where to go on.
pub(crate) fn check(input: &[u8]) {
    let split = input.iter().position(|b| *b == b'\n').unwrap_or(input.len());
    let body = input.get(split + 1..).unwrap_or_default();
    let query = [b"/e/cheese?flavor=eventsource&", &input[..split]].concat();
    let (Some(request), Some(events)) = (poll(&query), publish(body)) else { return };
    let mut frames = request.clone();
    frames.flavor = Flavor::WebSocket;
    check_blocks(&request, &events);
    check_frames(&frames, &events);
}

fn poll(target: &[u8]) -> Option<PollRequest> {
    let headers = Fields::of(std::iter::empty());
    match super::replies::check(&super::raw("GET", target, &headers, b"")) {
        Ok(Request::Poll(request)) if request.flavor == Flavor::EventSource => Some(request),
        _ => None,
    }
}

fn publish(body: &[u8]) -> Option<Vec<NewEvent>> {
    match Request::parse(&super::raw("POST", b"/publish", &IsJson, body), &super::limits()) {
        Ok(Request::Publish(request)) => Some(request.events),
        _ => None,
    }
}

fn time() -> Timestamp {
    Timestamp::from_micros(1_406_125_522_123_000)
}

/// The events in the log: each has a hole before it, as if others had been rolled back.
fn records(events: &[NewEvent]) -> Vec<Arc<Record>> {
    let ids = (BEFORE + 2..).step_by(2);
    let records = ids.zip(events).map(|(id, event)| {
        Record::from(&Event {
            id,
            channel: event.channel.clone(),
            kind: event.kind.clone(),
            data: event.data.clone(),
            ts: time(),
            exclude: None,
        })
    });
    records.map(Arc::new).collect()
}

/// All that a stream says to `request` when these are streamed, one read of the log for each three events.
fn stream(request: &PollRequest, records: &[Arc<Record>], mut say: impl FnMut(Wire, &Record, u64)) -> Stream {
    let mut stream = Stream::new(request, Duration::from_secs(15));
    let (wire, mut from) = (stream.wire(), Cursor::After(BEFORE));
    let gap = Gap { after: BEFORE, before: BEFORE + 2, reason: GapReason::Trimmed };
    let mut reads: Vec<_> = records.chunks(3).collect();
    reads.push(&[]);
    for (number, read) in reads.into_iter().enumerate() {
        // Behind the last event the log goes on, on other channels.
        let cursor = read.last().map_or(BEFORE + 10_000, |last| last.id);
        let gap = (number == 0).then_some(gap);
        let batch = Batch { gap, records: read.to_vec(), cursor, more: false };
        for record in stream.read(&batch, from, time()) {
            say(wire, &record, record.id);
        }
        from = Cursor::After(cursor);
        let beat = stream.heartbeat(time());
        // Between events a page is told only what it does not know, unless it asks for more.
        assert_eq!(beat.is_some(), request.beat.is_some() || read.is_empty());
        if let Some(beat) = beat {
            say(wire, &beat, cursor);
        }
    }
    let end = stream.end(Ended::Failed(ServeError::LogUnavailable), 7, time());
    say(wire, &end, BEFORE + 10_000);
    stream
}

fn check_blocks(request: &PollRequest, events: &[NewEvent]) {
    let head = Stream::head(request, Head { keep_alive: true, http10: false, date: "now" }, 1234);
    let body = head.windows(4).position(|four| four == b"\r\n\r\n").expect("a head ends") + 4;
    let mut bytes = head[body..].to_vec();
    assert_eq!(bytes.len() > 2048, request.padding);
    let mut cursors = Vec::new();
    stream(request, &records(events), |wire, record, cursor| {
        wire.write(record, &mut bytes);
        cursors.push(cursor);
    });
    // As it comes, in pieces of any length: the same.
    let mut reader = Parser::default();
    let messages = reader.push(&bytes);
    let mut slow = Parser::default();
    assert!(bytes.chunks(7).flat_map(|piece| slow.push(piece)).eq(messages.iter().cloned()));
    assert_eq!(reader.retry(), Some(1234));
    assert_eq!(
        reader.comments(),
        [format!(" everpoll{}", " ".repeat(if request.padding { 2038 } else { 0 }))]
    );

    // What is Everpoll's own comes first and last; between them stands what was published.
    let said: Vec<_> = messages.iter().map(|message| Said::of(message, request.envelope)).collect();
    let kinds: Vec<_> = said.iter().map(|said| said.kind.as_str()).collect();
    assert_eq!(kinds[..2], ["everpoll:hello", "everpoll:gap"]);
    assert_eq!(kinds[kinds.len() - 1], "everpoll:end");
    check_theirs(said, events);
    // Whoever comes back with the id of any of them has all before it and none behind it.
    let ids: Vec<u64> =
        messages.iter().map(|message| message.last_event_id.parse().expect("an id")).collect();
    assert_eq!(ids, cursors);
    assert!(ids.windows(2).all(|two| two[0] <= two[1]));
}

fn check_frames(request: &PollRequest, events: &[NewEvent]) {
    let mut frames = Vec::new();
    stream(request, &records(events), |wire, record, _| {
        let mut frame = Vec::new();
        wire.write(record, &mut frame);
        frames.push(String::from_utf8(frame).expect("ASCII"));
    });
    let frames = frames.iter().map(|frame| {
        assert!(frame.is_ascii());
        let fields = fields(frame);
        assert!(fields.keys().copied().eq(["channel_id", "data", "id", "ts", "type"]), "{frame}");
        Said { kind: string(fields["type"]), data: fields["data"].get().to_owned() }
    });
    check_theirs(frames.collect(), events);
}

/// Of all that was said, what is not Everpoll's own is what was published.
fn check_theirs(mut said: Vec<Said>, events: &[NewEvent]) {
    said.retain(|said| !said.kind.starts_with("everpoll:"));
    assert_eq!(said.len(), events.len());
    for (said, event) in said.into_iter().zip(events) {
        assert_eq!(said.kind, event.kind.as_str());
        // The deepest data and the largest numbers are JSON that this parser does not hold.
        let published = serde_json::from_str::<Value>(event.data.as_str());
        if let (Ok(published), Ok(got)) = (published, serde_json::from_str::<Value>(&said.data)) {
            assert_eq!(got, published);
        }
    }
}

/// What one block or frame says.
struct Said {
    kind: String,
    data: String,
}

impl Said {
    /// With an envelope, a block has no type, and its data is the whole record.
    fn of(message: &Message, envelope: bool) -> Self {
        if !envelope {
            return Self { kind: message.kind.clone(), data: message.data.clone() };
        }
        assert_eq!(message.kind, "message");
        let event = fields(fields(&message.data)["data"].get());
        Self { kind: string(event["type"]), data: event["data"].get().to_owned() }
    }
}

fn fields(json: &str) -> BTreeMap<&str, &RawValue> {
    serde_json::from_str(json).expect("an object")
}

fn string(json: &RawValue) -> String {
    serde_json::from_str(json.get()).expect("a string")
}
