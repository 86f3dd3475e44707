//! What is promised of every reply, whatever was asked.

use std::time::{Duration, Instant};

use everpoll_protocol::{
    Answer, Channels, Cursor, Data, Event, Failure, Flavor, Head, Input, Kind, Page, Poll, PollRequest,
    RawRequest, Record, Reply, Request, RequestError, ServeError, Step, Timestamp,
};
use serde_json::Value;
use serde_json::value::RawValue;

use super::parser::Parser;

const DATE: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

/// Parses a request and checks what it is answered with.
pub(super) fn check(raw: &RawRequest<'_>) -> Result<Request, RequestError> {
    let limits = super::limits();
    let parsed = Request::parse(raw, &limits);
    match &parsed {
        Ok(Request::Poll(request)) => check_poll(request),
        Ok(Request::Publish(request)) => super::publish::check_events(&request.events),
        Ok(Request::Options { allow, form }) => check_reply(&Reply::options(allow, form)),
        Ok(Request::Script(request)) => check_reply(&Reply::script(*request)),
        Err(error) => {
            check_error(error);
            check_reply(&Reply::refused(&Failure::Request(error.clone()), raw, &limits, || 5));
        }
    }
    parsed
}

pub(super) fn check_error(error: &RequestError) {
    assert!((400..=431).contains(&error.status()), "{error:?}");
    let code = error.code();
    assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{code}");
    check_reply(&Reply::request_error(error, false));
    // What an error repeats of the request must not be the request.
    assert!(error.to_string().len() < 2000, "{error}");
}

fn check_poll(request: &PollRequest) {
    let channels = request.channels.as_slice();
    assert!((1..=64).contains(&channels.len()));
    assert!(channels.windows(2).all(|pair| pair[0] < pair[1]));
    for channel in channels {
        let name = channel.as_str();
        assert!(
            (1..=200).contains(&name.len()) && !name.contains(['/', ',']) && !name.contains(char::is_control)
        );
    }
    assert!(request.wait_id.as_ref().is_none_or(|wait_id| (1..=128).contains(&wait_id.as_str().len())));
    assert!(request.tab.as_ref().is_none_or(|tab| tab.key.len() <= 64));

    assert!(request.pad.is_none_or(|pad| (1024..=65_536).contains(&pad.bytes)));
    for beat in request.pad.map(|pad| pad.beat).into_iter().chain(request.beat) {
        assert!((1.0..=60.0).contains(&beat.as_secs_f64()));
    }
    // Whoever opens a WebSocket has the key that the answer is made of; nobody else needs one.
    assert_eq!(request.flavor == Flavor::WebSocket, request.websocket_key.is_some());

    let now = Instant::now();
    let hold = super::limits().longest_hold(request, Some(Duration::from_secs(16)));
    assert!(hold <= Duration::from_secs(if request.pad.is_some() { 120 } else { 16 }));
    let mut poll = Poll::new(request, hold, now);
    let after = match request.cursor {
        Cursor::After(after) => after.min(u64::MAX - 1),
        Cursor::Since(_) | Cursor::Now => 7,
    };
    // None, then news on one of its channels.
    let event = Event {
        id: after + 1,
        channel: channels[0].clone(),
        kind: Kind::parse("made").expect("a plain name"),
        data: Data::parse("[1]").expect("JSON"),
        ts: Timestamp::from_micros(0),
        exclude: request.wait_id.clone(),
    };
    let page = Page { records: vec![Record::from(&event).into()], next: after + 1, ..Page::default() };
    let nothing = Page { next: after, ..Page::default() };
    let wait_id = request.wait_id.as_ref();
    let mut held = false;
    for page in [&nothing, &page] {
        match poll.handle(Input::Read(page), wait_id, now) {
            Step::Reply(answer) => check_answer(request, &answer, held),
            Step::Hold(until) => {
                assert!(until > now && until <= now + hold);
                held = true;
            }
            Step::ReadLog => panic!("a read asks for a read"),
        }
    }
    check_answer(request, &Answer::Error(ServeError::OutcomeUnknown), held);
}

fn check_answer(request: &PollRequest, answer: &Answer, held: bool) {
    check_reply(&answer.reply(request, 25, time(), |_| 5));
    if held {
        check_padded(request, answer);
    }
}

/// A padded reply has exactly the length that its head told, whatever is to be said.
fn check_padded(request: &PollRequest, answer: &Answer) {
    let Some(pad) = request.pad else { return };
    let head = Head { keep_alive: true, http10: false, date: DATE };
    let head = Answer::padded_head(request, head).expect("it is padded");
    let (status, fields, length) = parse_head(&head);
    assert_eq!((status, length), (200, head.len()));
    assert_eq!(fields.get("content-length"), Some(&*pad.bytes.to_string()));
    assert!(fields.get("x-ps-cursor").is_none(), "nobody knows yet");
    // The longest hold with the most beats.
    let room = usize::try_from(pad.bytes).expect("it is small") - 120;
    let body = answer.padded(request, room, 25, time(), |_| 5);
    assert_eq!(body.len(), room);
    check_body(fields.get("content-type").expect("it is always there"), body.trim_ascii_end());
}

fn time() -> Timestamp {
    Timestamp::from_micros(1_406_125_522_123_000)
}

/// The fields of a reply, by their names in lower case.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|field| field.0 == name).map(|field| field.1.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice");
        value
    }
}

/// Reads a head as any client would: its status, its fields, its length.
fn parse_head(bytes: &[u8]) -> (u16, Fields, usize) {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let length = head.parse(bytes).expect("a well-formed head").unwrap();
    let fields = head.headers.iter().map(|field| {
        (field.name.to_ascii_lowercase(), std::str::from_utf8(field.value).expect("ASCII").to_owned())
    });
    (head.code.expect("it is complete"), Fields(fields.collect()), length)
}

/// Every reply is one that any client reads back, and all but the script is kept from caches.
pub(super) fn check_reply(reply: &Reply) {
    let bytes = reply.to_http1(Head { keep_alive: true, http10: false, date: DATE });
    let (status, fields, length) = parse_head(&bytes);
    assert_eq!(status, reply.status);
    let body = &bytes[length..];
    assert_eq!(body, reply.body());
    assert_eq!(fields.0.len(), reply.headers().count() + 1, "a value began a header of its own");
    let cgi = reply.to_cgi();
    assert!(cgi.starts_with(format!("Status: {status} ").as_bytes()) && cgi.ends_with(body));
    // What is asked for with `*` is asked without cookies.
    match fields.get("access-control-allow-origin") {
        Some("*") | None => assert_eq!(fields.get("access-control-allow-credentials"), None),
        Some(origin) => {
            assert!(matches!(origin, "https://shop.example" | "http://[::1]:8080"), "{origin}");
            assert_eq!(fields.get("vary"), Some("Origin"));
        }
    }
    let cache = fields.get("cache-control").expect("it is always there");
    if fields.get("etag").is_some() {
        assert!(cache.starts_with("public, max-age="));
        if status == 304 {
            assert!(body.is_empty() && fields.get("content-length").is_none());
            return;
        }
    } else {
        assert!(cache.contains("no-store"));
    }
    let says: usize = fields.get("content-length").expect("it is always there").parse().expect("a number");
    assert!(says > 0, "an empty body cannot be told from one that was cut off");
    if !body.is_empty() {
        assert_eq!(says, body.len());
        let kind = fields.get("content-type").expect("it is always there");
        if fields.get("etag").is_none() {
            check_body(kind, body);
        }
    }
}

/// A body is what its type says, in ASCII.
fn check_body(kind: &str, body: &[u8]) {
    let text = std::str::from_utf8(body).expect("ASCII");
    assert!(text.is_ascii());
    match kind {
        "text/event-stream; charset=utf-8" => check_stream(text),
        "text/plain; charset=utf-8" if text.starts_with(':') => check_stream(text),
        "application/javascript; charset=utf-8" => {
            let call = text.strip_prefix("/**/").and_then(|call| call.strip_suffix(");")).expect("a call");
            let (name, json) = call.split_once('(').expect("a call");
            assert!((1..=64).contains(&name.len()));
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')));
            assert!(json.starts_with('{'), "scripts get what the headers say, too");
            serde_json::from_str::<&RawValue>(json).expect("JSON");
        }
        "application/json; charset=utf-8" | "application/problem+json" | "text/plain; charset=utf-8" => {
            assert!(text.starts_with(['[', '{']));
            serde_json::from_str::<&RawValue>(text).expect("JSON");
        }
        other => panic!("{other}"),
    }
}

/// A stream that ends says when to come back, and why.
fn check_stream(text: &str) {
    let mut parser = Parser::default();
    let messages = parser.push(text.as_bytes());
    assert_eq!(parser.comments().len(), 1);
    assert!(parser.retry().is_some_and(|retry| retry % 1000 == 0));
    let last = messages.last().expect("there is an end");
    let end: Value = serde_json::from_str(&last.data).expect("JSON");
    let said = if last.kind == "message" { &end["data"]["data"] } else { &end };
    assert_eq!(said["reconnect_in"].as_u64().map(|seconds| seconds * 1000), parser.retry());
    assert!(said["reason"].is_string(), "{end}");
}

/// Whether `channels` would be parsed again as they are from their own names.
pub(super) fn check_channels_again(channels: &Channels) {
    let names: Vec<_> = channels
        .as_slice()
        .iter()
        .map(|channel| {
            percent_encoding::utf8_percent_encode(channel.as_str(), percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        })
        .collect();
    assert_eq!(Channels::parse_segment(names.join(",").as_bytes()).as_ref(), Ok(channels));
}
