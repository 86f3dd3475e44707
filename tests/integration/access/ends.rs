//! What is held ends with the right to it, while events flow.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use everpoll_tests::http::{self, Address};
use everpoll_tests::{EventStream, WebSocket, sse, wait, websocket};
use serde_json::json;

use super::Guarded;
use super::signer::{Signer, now};
use crate::background::Background;

/// After the end of a right nothing may come any more, later than this: a loaded machine delivers late what was sent in time.
const LATE: f64 = 2.0;

/// A test that fails is to end as well: so long after its beginning, readers give up.
const GIVE_UP: f64 = 30.0;

/// What somebody got, and how it ended.
#[derive(Debug)]
struct Got {
    events: usize,
    last_at: f64,
    end: String,
}

/// Publishes a hundred events a second.
pub(super) fn publish_on(address: &Address) -> Background<()> {
    let address = address.clone();
    Background::start(move |stopping| {
        while !stopping.load(Ordering::Relaxed) {
            let event = r#"{"channel":"cheese","type":"made","data":1}"#;
            assert_eq!(http::post_json("/publish", event).send(&address).status, 201);
            thread::sleep(Duration::from_millis(10));
        }
    })
}

/// Reads by polls with these parameters until they are refused.
fn poll(address: &Address, parameters: &str) -> Got {
    let (mut got, mut cursor) = (Got { events: 0, last_at: 0.0, end: String::new() }, "0".to_owned());
    let began = now();
    loop {
        if now() > began + GIVE_UP {
            return got;
        }
        let reply =
            http::get(&format!("/e/cheese?envelope=1&last_event_id={cursor}&{parameters}")).send(address);
        if reply.status != 200 {
            got.end = reply.json()["code"].as_str().unwrap_or_default().to_owned();
            return got;
        }
        let body = reply.json();
        let events = body["events"].as_array().map_or(0, Vec::len);
        if events > 0 {
            (got.events, got.last_at) = (got.events + events, now());
        }
        cursor = body["cursor"].as_str().expect("an envelope has a cursor").to_owned();
    }
}

fn eventsource(address: &Address, parameters: &str) -> Got {
    let mut got = Got { events: 0, last_at: 0.0, end: String::new() };
    let mut stream =
        EventStream::open(address, &sse::get(&format!("/e/cheese?last_event_id=0&{parameters}")));
    let began = now();
    while let Some(event) = stream.try_next(wait::PATIENCE).expect("it ends in time") {
        if now() > began + GIVE_UP {
            return got;
        }
        match &*event.kind {
            "made" => (got.events, got.last_at) = (got.events + 1, now()),
            "everpoll:end" => got.end = event.json()["reason"].as_str().unwrap_or_default().to_owned(),
            _ => {}
        }
    }
    got
}

fn websocket(address: &Address, parameters: &str) -> Got {
    let mut got = Got { events: 0, last_at: 0.0, end: String::new() };
    let mut socket = WebSocket::open(address, &format!("/e/cheese?last_event_id=0&{parameters}"));
    let began = now();
    loop {
        if now() > began + GIVE_UP {
            return got;
        }
        match socket.receive(wait::PATIENCE).expect("it ends in time") {
            websocket::Received::Frame(frame) if frame.opcode == 8 => {
                got.end = String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default()).into_owned();
                return got;
            }
            websocket::Received::Frame(frame) => {
                if String::from_utf8_lossy(&frame.payload).contains("\"made\"") {
                    (got.events, got.last_at) = (got.events + 1, now());
                }
            }
            websocket::Received::End => return got,
        }
    }
}

#[test]
fn nothing_comes_after_the_end_of_a_token_on_any_transport() {
    let signer = Signer::new();
    let guarded = Guarded::by_token(&signer, &[("EVERPOLL_TOKEN_LEEWAY", "0")]);
    // The fallback's streams end at once, with what there is.
    guarded.daemon.publish(r#"{"channel":"cheese","type":"made","data":0}"#);
    // Long enough for all to begin on a loaded machine.
    let end = now() + 4.0;
    let token = format!("token={}", signer.good(&json!({"exp": end, "channels": ["cheese"]})));
    let padded = format!("{token}&pad=4096&beat=1");
    let publisher = publish_on(guarded.daemon.address());
    thread::scope(|scope| {
        let (token, padded) = (&token, &padded);
        let mut readers = Vec::new();
        for (door, address) in guarded.doors() {
            readers.push((format!("poll, {door}"), scope.spawn(move || poll(address, token))));
            readers.push((format!("eventsource, {door}"), scope.spawn(move || eventsource(address, token))));
        }
        let daemon = guarded.to_daemon.address();
        readers.push(("padded".into(), scope.spawn(move || poll(daemon, padded))));
        readers.push(("websocket".into(), scope.spawn(move || websocket(daemon, token))));
        for (name, reader) in readers {
            let got = reader.join().expect("it reads");
            println!(
                "{name}: {} events, the last {:.2} s after the end, {:?}",
                got.events,
                got.last_at - end,
                got.end
            );
            assert!(got.events > 0, "{name}: {got:?}");
            assert!(got.last_at < end + LATE, "{name}: {got:?}");
            // The fallback's streams end at once in any case.
            let expected = match &*name {
                "eventsource, daemon" => "expired",
                "eventsource, fallback" => "short_poll",
                "websocket" => "reconnect_in=0 expired",
                _ => "token_expired",
            };
            assert_eq!(got.end, expected, "{name}");
        }
    });
    publisher.stop();
}

#[test]
fn quiet_holds_and_streams_end_with_their_token() {
    let signer = Signer::new();
    let guarded = Guarded::by_token(&signer, &[("EVERPOLL_TOKEN_LEEWAY", "0")]);
    let end = now() + 3.0;
    let token = signer.good(&json!({"exp": end, "channels": ["cheese"]}));
    let address = guarded.to_daemon.address();
    let target = |more: &str| format!("/e/cheese?last_event_id=0&token={token}{more}");
    let held = http::get(&target("")).begin(address);
    let padded = http::get(&target("&pad=4096&beat=1")).begin(address);
    let mut stream = EventStream::open(address, &sse::get(&target("")));
    let mut socket = WebSocket::open(address, &target(""));
    // Far sooner than a hold or a heartbeat would end them.
    let last = stream.rest().pop().expect("it ends with a record");
    assert_eq!(last.json()["reason"], "expired");
    assert_eq!(socket.closed(), (1013, "reconnect_in=0 expired".to_owned()));
    assert!(now() >= end && now() < end + 10.0, "ended {} s after the token", now() - end);
    for held in [held, padded] {
        let reply = held.reply();
        assert_eq!((reply.status, reply.events()), (200, vec![]));
    }
    assert!(now() < end + 10.0, "ended {} s after the token", now() - end);
    let refused = http::get(&target("")).send(address);
    assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("token_expired")));
}
