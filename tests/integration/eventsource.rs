//! What an EventSource gets, to the byte: from the daemon, which goes on, and from the fallback, which tells what there is.
//!
//! Read by the rules of the HTML standard (`harness/sse.rs`), and looked at as text where browsers and proxies care for the
//! bytes. [`life`] is about streams that last: who is held, who is sent away, and how a stream ends.

use std::collections::BTreeSet;

use everpoll_tests::http::{self, Request};
use everpoll_tests::sse::{self, Message};
use everpoll_tests::{EventStream, Reply};
use serde_json::{Value, json};

use crate::site::{Site, Store, collect};

mod life;

/// What a page asks with that starts at `cursor`.
pub(crate) fn ask(channels: &str, cursor: u64, parameters: &str) -> Request {
    sse::get(&format!("/e/{channels}?last_event_id={cursor}&{parameters}"))
}

pub(crate) fn open(site: &Site, channels: &str, cursor: u64, parameters: &str) -> EventStream {
    EventStream::open(site.daemon.address(), &ask(channels, cursor, parameters))
}

/// What the fallback answers, to its end.
fn from_fallback(site: &Site, channels: &str, cursor: u64, parameters: &str) -> (EventStream, Vec<Message>) {
    let [_, (_, fallback)] = site.doors();
    let mut stream = EventStream::open(fallback, &ask(channels, cursor, parameters));
    let events = stream.rest();
    (stream, events)
}

/// All that the fallback has, in as many answers as it takes, without hellos and ends.
fn all_from_fallback(site: &Site, channels: &str) -> Vec<Message> {
    let (mut all, mut cursor) = (Vec::new(), 0);
    loop {
        let (stream, mut events) = from_fallback(site, channels, cursor, "");
        let end = events.pop().expect("an end");
        assert_eq!(end.kind, "everpoll:end");
        all.extend(events.into_iter().skip(1));
        if end.json()["reconnect_in"] != 0 {
            return all;
        }
        cursor = stream.parser().last_event_id().parse().expect("a cursor");
    }
}

/// The head without what HTTP says about the connection and the body's length.
fn essence(head: &Reply) -> BTreeSet<(String, String)> {
    let own = ["connection", "date", "server", "keep-alive", "content-length", "transfer-encoding"];
    let headers = head.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    headers.filter(|(name, _)| !own.contains(&name.as_str())).collect()
}

fn kinds(events: &[Message]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

#[test]
fn stream_begins_with_head_comment_retry_and_hello() {
    let site = Site::on(Store::sqlite());
    let seen = site.publish("cheese", "1");
    let mut stream = open(&site, "cheese", seen, "");
    stream.wait_for("the hello came", |text| text.ends_with("\n\n"));
    let head = &stream.head;
    assert_eq!((head.version.as_str(), head.status), ("HTTP/1.1", 200));
    let expected = [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "private, no-cache, no-store, must-revalidate, max-age=0, no-transform"),
        ("pragma", "no-cache"),
        ("expires", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
        ("connection", "close"),
    ];
    for (name, value) in expected {
        assert_eq!(head.header(name), Some(value), "{head:?}");
    }
    // With either, a proxy would wait for the end, or an old client choke.
    assert_eq!((head.header("content-length"), head.header("transfer-encoding")), (None, None));

    let retry = stream.parser().retry().expect("the client is told when to come back");
    let hello = format!("event: everpoll:hello\ndata: {{\"cursor\":\"{seen}\",\"beat\":15}}\nid: {seen}\n\n");
    assert_eq!(stream.text(), format!(": everpoll\nretry: {retry}\n{hello}"));

    // They do not all come back in the same moment.
    let retries: BTreeSet<_> = (0..20)
        .map(|_| {
            let mut stream = open(&site, "cheese", seen, "");
            stream.expect("everpoll:hello");
            stream.parser().retry().expect("each is told")
        })
        .collect();
    assert!(retries.iter().all(|retry| (1000..=3000).contains(retry)) && retries.len() > 5, "{retries:?}");
}

#[test]
fn event_is_a_block_and_comes_at_once() {
    let site = Site::on(Store::sqlite());
    let seen = site.publish("other", "1");
    let mut stream = open(&site, "cheese", seen, "");
    stream.expect("everpoll:hello");
    let before = stream.text().len();
    site.publish("other", "2");
    let id = site.publish("cheese", r#"{"name":"Gouda"}"#);
    stream.expect("made");
    assert_eq!(stream.text()[before..], format!("event: made\ndata: {{\"name\":\"Gouda\"}}\nid: {id}\n\n"));

    // The same for whoever comes later, from both programs.
    let (fallback, events) = from_fallback(&site, "cheese", seen, "");
    assert_eq!(kinds(&events), ["everpoll:hello", "made", "everpoll:end"]);
    assert!(fallback.text().contains(&stream.text()[before..]), "{}", fallback.text());
    let mut late = open(&site, "cheese", seen, "");
    late.expect("everpoll:hello");
    assert_eq!(late.expect("made"), (json!({"name": "Gouda"}), id.to_string()));
}

#[test]
fn whatever_was_published_arrives_as_it_was() {
    let site = Site::on(Store::sqlite());
    let data = [
        json!("two\nlines\r\nand a \r and \u{2028} \u{85} \u{b}"),
        json!("\u{1f9c0} k\u{e4}se \u{feff} \0 \"quoted\" \\ </script>"),
        json!({"nested": [1, 2.5, -1e-7, null, true, {"\n": "\r"}]}),
        json!("data: x\n\nid: 7\nevent: evil\n\n"),
        json!(""),
        json!(null),
        json!(12345678901234567890_u64),
        json!("x".repeat(1_048_574)),
    ];
    let types = [
        "message",
        "error",
        "open",
        "a:b",
        ": comment",
        " with spaces ",
        "\u{e4}\u{1f9c0}",
        "\"quoted\"",
        "data",
        "id: 7",
        "\u{2028}\u{2029}",
        "\u{feff}",
    ];
    let mut published = Vec::new();
    for data in &data {
        published.push(json!({"channel": "cheese", "type": "made", "data": data}));
    }
    for kind in types {
        published.push(json!({"channel": "cheese", "type": kind, "data": kind}));
    }
    // Twice: what is there before and what comes while the stream is open go different ways.
    let mut live = open(&site, "cheese", 0, "");
    live.expect("everpoll:hello");
    let ids: Vec<_> = published.iter().flat_map(|event| site.daemon.publish(&event.to_string())).collect();
    let caught_up = open(&site, "cheese", 0, "");
    let fallback = all_from_fallback(&site, "cheese");
    assert_eq!(fallback.len(), ids.len());
    let streams: [(&str, Box<dyn Iterator<Item = Message>>); 3] = [
        ("live", Box::new(live)),
        ("later", Box::new(caught_up.skip(1))),
        ("fallback", Box::new(fallback.into_iter())),
    ];
    for (name, mut stream) in streams {
        for (sent, id) in published.iter().zip(&ids) {
            let event = stream.next().expect("the next one");
            assert_eq!((event.json(), event.id()), (sent["data"].clone(), *id), "{name}");
            assert_eq!(event.kind, sent["type"].as_str().expect("a type"), "{name}: {event:?}");
            assert!(
                event.data.is_ascii(),
                "{name}: a proxy that takes it for Latin-1 does no harm: {event:?}"
            );
        }
    }
    let (_, fallback) = from_fallback(&site, "cheese", ids[ids.len() - 2], "");
    assert_eq!(kinds(&fallback), ["everpoll:hello", "\u{feff}", "everpoll:end"]);
}

#[test]
fn envelope_has_whole_records_without_a_type() {
    let site = Site::on(Store::sqlite());
    let ids: Vec<_> = ["error", "made"]
        .into_iter()
        .flat_map(|kind| {
            site.daemon.publish(&json!({"channel": "cheese", "type": kind, "data": {"n": 1}}).to_string())
        })
        .collect();
    let (polled, _) = collect(site.daemon.address(), "cheese", 0, 2);
    let mut stream = open(&site, "cheese", 0, "envelope=1");
    let (fallback, _) = from_fallback(&site, "cheese", 0, "envelope=1");
    let (hello, _) = stream.expect("message");
    assert_eq!(
        (hello["data"]["type"].as_str(), hello["channel_id"].as_str()),
        (Some("everpoll:hello"), Some("cheese"))
    );
    assert_eq!(hello["data"]["data"], json!({"cursor": "0", "beat": 15}));
    for (event, id) in polled.iter().zip(&ids) {
        let (record, last_event_id) = stream.expect("message");
        assert_eq!((record["id"].as_u64(), last_event_id), (Some(*id), id.to_string()));
        assert_eq!(
            (record["data"]["type"].as_str(), &record["data"]["data"]),
            (Some(event.kind.as_str()), &event.data)
        );
    }
    assert!(!stream.text().contains("event:"), "{}", stream.text());
    // The record is the poll's, to the byte.
    let poll = site.daemon.get("/e/cheese?last_event_id=0&flavor=short-poll");
    let records = poll.text().trim_matches(['[', ']']).replace("},{\"id\"", "}\n{\"id\"");
    for (record, id) in records.split('\n').zip(&ids) {
        let block = format!("\n\ndata: {record}\nid: {id}\n\n");
        assert!(
            stream.text().contains(&block) && fallback.text().contains(&block),
            "{block}{}",
            fallback.text()
        );
    }
}

#[test]
fn gap_comes_after_the_hello_and_says_what_is_gone() {
    for store in Store::both() {
        let site = Site::on(store);
        for _ in 0..3 {
            site.publish("cheese", "0");
        }
        site.store.run_well(&["trim", "--count", "1"]);
        site.settle();
        let poll = site.daemon.get("/e/cheese?last_event_id=1&flavor=short-poll");
        let expected = poll.events();
        assert_eq!((expected[0].kind.as_str(), expected.len()), ("everpoll:gap", 2));
        let (_, fallback) = from_fallback(&site, "cheese", 1, "");
        let daemon = open(&site, "cheese", 1, "").take(3).collect();
        for events in [daemon, fallback[..3].to_vec()] {
            assert_eq!(kinds(&events), ["everpoll:hello", "everpoll:gap", "made"]);
            assert_eq!(events[0].id(), 1, "whoever is cut here must hear of the gap again");
            for (event, expected) in events[1..].iter().zip(&expected) {
                assert_eq!((event.json(), event.id()), (expected.data.clone(), expected.id));
            }
            assert_eq!(events[1].json()["reason"], "trimmed");
        }
        let mut ahead = open(&site, "cheese", 1000, "");
        ahead.expect("everpoll:hello");
        assert_eq!(ahead.expect("everpoll:gap").0["reason"], "ahead");
    }
}

#[test]
fn old_clients_are_served_as_they_ask() {
    let site = Site::on(Store::sqlite());
    let seen = site.publish("cheese", "1");
    let first = |parameters: &str| {
        let mut stream = open(&site, "cheese", seen, parameters);
        stream.expect("everpoll:hello");
        let (fallback, events) = from_fallback(&site, "cheese", seen, parameters);
        assert_eq!(kinds(&events), ["everpoll:hello", "everpoll:end"]);
        [stream, fallback]
    };
    for stream in first("padding=1") {
        let text = stream.text();
        let line = text.lines().next().expect("a first line");
        assert!(line.starts_with(": everpoll") && line.len() >= 2048, "{}", line.len());
    }
    for stream in first("ct=text") {
        assert_eq!(stream.head.header("content-type"), Some("text/plain; charset=utf-8"));
    }
    // HTTP/1.0 has no chunks; the stream has none in any case.
    let mut old = EventStream::open(site.daemon.address(), &ask("cheese", seen, "").http10());
    old.expect("everpoll:hello");
    assert_eq!((old.head.status, old.head.header("content-length")), (200, None));
    let id = site.publish("cheese", "2");
    assert_eq!(old.expect("made").1, id.to_string());
    // Whoever wants a head gets one, at once, and so does the next request of the connection.
    for (_, address) in site.doors() {
        let head = http::request("HEAD", "/e/cheese").header("Accept", "text/event-stream").send(address);
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
}

#[test]
fn stream_is_asked_for_by_accept_or_flavor() {
    let site = Site::on(Store::sqlite());
    let id = site.publish("cheese", "1");
    let requests = [
        http::get("/e/cheese?last_event_id=0&flavor=eventsource"),
        http::get("/e/cheese?last_event_id=0").header("flavor", "eventsource"),
        http::get("/e/cheese?last_event_id=0").header("Accept", "text/event-stream"),
        http::get("/e.php/cheese?last_event_id=0").header("Accept", "Text/Event-Stream"),
        // A client that reconnects has the cursor of its first request in the URL.
        sse::get("/e/cheese?last_event_id=99").header("Last-Event-ID", "0"),
        sse::get("/e/cheese?last_event_id=rt-1"),
    ];
    for request in &requests {
        for (name, address) in site.doors() {
            let mut stream = EventStream::open(address, request);
            let hello = stream.next().expect("a hello");
            assert_eq!(hello.kind, "everpoll:hello", "{name}: {request:?} {stream}");
            assert_eq!(stream.next().map(|event| event.id()), Some(id), "{name}: {request:?} {stream}");
        }
    }
    // What a browser's address bar accepts is no wish for a stream.
    let poll = http::get("/e/cheese?last_event_id=0")
        .header("Accept", "text/html, */*;q=0.8")
        .send(site.daemon.address());
    assert_eq!(poll.events().len(), 1);
}

#[test]
fn mistakes_of_the_client_are_errors_and_no_streams() {
    let site = Site::on(Store::sqlite());
    for (target, code) in [
        ("/e/cheese?last_event_id=x", "cursor_malformed"),
        ("/e/cheese?beat=0", "beat_malformed"),
        ("/e/cheese?beat=61", "beat_malformed"),
        ("/e/", "channel_empty"),
        ("/e/cheese?ct=html", "content_type_unknown"),
    ] {
        for (name, address) in site.doors() {
            let reply = sse::get(target).send(address);
            assert_eq!((reply.status, reply.json()["code"].as_str()), (400, Some(code)), "{name}: {target}");
            assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        }
    }
}

#[test]
fn many_channels_are_one_stream_in_order() {
    let site = Site::on(Store::postgres());
    let names: Vec<_> = (0..64).map(|number| format!("c{number}")).collect();
    let mut stream = open(&site, &names.join(","), 0, "envelope=1");
    stream.expect("message");
    let mut published = Vec::new();
    for round in 0..3 {
        let events: Vec<Value> =
            names.iter().rev().map(|name| json!({"channel": name, "type": "made", "data": round})).collect();
        published.extend(site.daemon.publish(&json!(events).to_string()).into_iter().zip(names.iter().rev()));
        site.publish("elsewhere", "0");
    }
    for (id, channel) in published {
        let (record, _) = stream.expect("message");
        assert_eq!(
            (record["id"].as_u64(), record["channel_id"].as_str()),
            (Some(id), Some(channel.as_str()))
        );
    }
}

#[test]
fn event_is_kept_from_the_browser_that_it_excludes() {
    let site = Site::on(Store::sqlite());
    let mut me = EventStream::open(site.daemon.address(), &sse::get("/e/cheese/me?last_event_id=0"));
    let mut you = EventStream::open(site.daemon.address(), &sse::get("/e/cheese/you?last_event_id=0"));
    me.expect("everpoll:hello");
    you.expect("everpoll:hello");
    let hidden = site.daemon.publish(r#"{"channel":"cheese","type":"made","data":1,"exclude":"me"}"#)[0];
    let shown = site.publish("cheese", "2");
    assert_eq!((you.expect("made").1, you.expect("made").1), (hidden.to_string(), shown.to_string()));
    assert_eq!(me.expect("made").1, shown.to_string());
    // The same when it comes back, and from the fallback.
    for (_, address) in site.doors() {
        let mut later = EventStream::open(address, &sse::get("/e/cheese/me?last_event_id=0"));
        assert_eq!(later.nth(1).map(|event| event.id()), Some(shown));
    }
}

#[test]
fn thousands_of_events_are_caught_up_in_order_and_then_it_is_live() {
    for store in Store::both() {
        // The oldest are not in memory.
        let site = Site::with(store, &[("EVERPOLL_WINDOW_BYTES", "64KiB")]);
        let events = |count: usize| {
            let events: Vec<_> =
                (0..count).map(|n| json!({"channel": "cheese", "type": "made", "data": n})).collect();
            site.daemon.publish(&json!(events).to_string())
        };
        let mut ids: Vec<_> = (0..4).flat_map(|_| events(900)).collect();
        let mut stream = open(&site, "cheese", 0, "");
        stream.expect("everpoll:hello");
        // Some come while it catches up.
        ids.extend(events(10));
        let mut seen: Vec<_> = stream.by_ref().take(ids.len()).map(|event| event.id()).collect();
        assert_eq!(seen, ids);
        ids.push(site.publish("cheese", "0"));
        seen.push(stream.next().expect("the live one").id());
        assert_eq!(seen, ids);
    }
}

#[test]
fn fallback_tells_what_there_is_and_when_to_come_back() {
    let site = Site::on(Store::sqlite());
    let many: Vec<_> = (0..900).map(|n| json!({"channel": "cheese", "type": "made", "data": n})).collect();
    let ids = [many.clone(), many].map(|many| site.daemon.publish(&json!(many).to_string())).concat();
    let daemon = open(&site, "cheese", 0, "");
    let (mut got, mut cursor) = (Vec::new(), 0);
    while got.len() < ids.len() {
        let (stream, events) = from_fallback(&site, "cheese", cursor, "");
        assert_eq!(essence(&stream.head), essence(&daemon.head), "the head is the daemon's");
        assert!(stream.text().starts_with(": everpoll\nretry: "), "{stream}");
        let length = stream.head.header("content-length").and_then(|length| length.parse().ok());
        assert_eq!(length, Some(stream.text().len()));
        let [hello, batch @ .., end] = &events[..] else { panic!("{stream}") };
        assert_eq!(
            (hello.kind.as_str(), hello.json()["cursor"].as_str()),
            ("everpoll:hello", Some(&*cursor.to_string()))
        );
        got.extend(batch.iter().map(Message::id));
        cursor = stream.parser().last_event_id().parse().expect("a cursor");
        assert_eq!((end.kind.as_str(), end.json()["reason"].as_str()), ("everpoll:end", Some("short_poll")));
        let seconds = end.json()["reconnect_in"].as_u64().expect("seconds");
        let retry = stream.parser().retry().expect("a delay");
        // At once where a batch ended before the log did.
        let expected = if got.len() < ids.len() { 0..=0 } else { 5..=30 };
        assert!(expected.contains(&seconds), "{end:?}");
        assert_eq!(retry, if seconds == 0 { retry.min(100) } else { seconds * 1000 }, "{end:?}");
    }
    assert_eq!(got, ids);
}
