//! Streams that last: signs of life, the browser's one place, clients that leave or do not read, and how a stream ends.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address, Request};
use everpoll_tests::sse::{self, Message};
use everpoll_tests::{Daemon, EventStream, Postgres, Sqlite, TestDir, WebServer, wait};
use serde_json::json;

use super::{ask, kinds, open};
use crate::site::{Site, Store, hold};

/// A request of a browser with a key of its own.
fn of(wait_id: &str, query: &str) -> Request {
    sse::get(&format!("/e/cheese/{wait_id}?last_event_id=0&{query}"))
}

/// Whether a request of this browser would be held.
fn place_is_free(address: &Address, wait_id: &str) -> bool {
    let reply = http::get(&format!("/e/nothing/{wait_id}?hold=0.05")).send(address);
    reply.reconnect_in() == 0
}

/// Waits until the stream ends and returns how: its last event, and the delay in milliseconds.
#[track_caller]
fn end(stream: &mut EventStream) -> (serde_json::Value, Option<u64>) {
    let rest = stream.rest();
    assert_eq!(rest.last().map(|event| event.kind.as_str()), Some("everpoll:end"), "{stream}");
    (rest[rest.len() - 1].json(), stream.parser().retry())
}

#[test]
fn quiet_stream_gives_signs_of_life_for_as_long_as_it_lasts() {
    // The longest hold is for polls.
    let site = Site::with(Store::sqlite(), &[("EVERPOLL_HEARTBEAT", "1"), ("EVERPOLL_HOLD_MAX", "1")]);
    let seen = site.publish("cheese", "1");
    let mut stream = open(&site, "cheese", seen, "");
    stream.expect("everpoll:hello");
    let before = stream.text().len();
    // A comment, and no blank line, which some readers take for an empty event.
    stream.wait_for("three heartbeats", |text| text[before..] == *":\n:\n:\n");

    // Somebody else's event moves the cursor, and retention must not overtake a client that does not know.
    let newest = site.publish("other", "1");
    let (beat, id) = stream.expect("everpoll:beat");
    assert_eq!((beat["cursor"].as_str(), id.as_str()), (Some(&*newest.to_string()), &*newest.to_string()));
    let before = stream.text().len();
    stream.wait_for("comments again", |text| text[before..] == *":\n:\n");
    let id = site.publish("cheese", "2");
    assert_eq!(stream.expect("made").1, id.to_string());
}

#[test]
fn beats_that_a_page_can_see_come_when_it_asks_for_them() {
    let site = Site::on(Store::sqlite());
    let seen = site.publish("cheese", "1");
    let mut stream = open(&site, "cheese", seen, "beat=1");
    assert_eq!(stream.expect("everpoll:hello").0["beat"], 1);
    let began = Instant::now();
    for n in 1..=3 {
        let (beat, id) = stream.expect("everpoll:beat");
        assert_eq!((beat, id), (json!({"n": n, "cursor": seen.to_string()}), seen.to_string()));
    }
    assert!(began.elapsed() > Duration::from_millis(2500), "{:?}", began.elapsed());
    // As whole records, too.
    let mut records = open(&site, "cheese", seen, "beat=1&envelope=1");
    records.expect("message");
    assert_eq!(records.expect("message").0["data"]["type"], "everpoll:beat");
}

#[test]
fn stream_takes_its_browsers_place_until_it_leaves() {
    let site = Site::on(Store::sqlite());
    let address = site.daemon.address();
    let mut first = EventStream::open(address, &of("w", ""));
    first.expect("everpoll:hello");
    assert!(!place_is_free(address, "w"));
    let id = site.publish("cheese", "1");
    // Another stream is told what there is, and sent away.
    let mut second = EventStream::open(address, &of("w", ""));
    second.expect("everpoll:hello");
    assert_eq!(second.expect("made").1, id.to_string());
    assert_eq!(end(&mut second), (json!({"reconnect_in": 5, "reason": "place_taken"}), Some(5000)));
    assert!(!place_is_free(address, "w"), "only the holder's end frees it");
    assert_eq!(first.expect("made").1, id.to_string());

    drop(first);
    let left = Instant::now();
    wait::until("the place is free", wait::PATIENCE, || place_is_free(address, "w"));
    assert!(left.elapsed() < Duration::from_secs(5), "{:?}", left.elapsed());
    // Others have places of their own, and so has who has no key.
    let streams = [of("w", ""), of("v", ""), ask("cheese", 0, ""), ask("cheese", 0, "")];
    let mut streams = streams.map(|request| EventStream::open(address, &request));
    let id = site.publish("cheese", "2");
    for stream in &mut streams {
        wait::until("the event comes", wait::PATIENCE, || {
            stream.next().is_some_and(|event| event.id() == id)
        });
    }
}

#[test]
fn stream_is_sent_away_while_a_poll_is_held_and_replaces_its_own_ghost() {
    let site = Site::on(Store::sqlite());
    let address = site.daemon.address();
    let held = hold(&site, "nothing", 0, "w");
    let mut stream = EventStream::open(address, &of("w", ""));
    assert_eq!(end(&mut stream).0["reason"], "place_taken");
    drop(held);

    let mut ghost = EventStream::open(address, &of("g", "tab=a&n=1"));
    ghost.expect("everpoll:hello");
    let mut stream = EventStream::open(address, &of("g", "tab=a&n=2"));
    stream.expect("everpoll:hello");
    assert_eq!(end(&mut ghost).0["reason"], "replaced");
    let id = site.publish("cheese", "1");
    assert_eq!(stream.expect("made").1, id.to_string());
    // A poll of the same tab replaces a stream as well.
    let poll = http::get("/e/nothing/g?tab=a&n=3").begin(address);
    assert_eq!(end(&mut stream).0["reason"], "replaced");
    drop(poll);
}

#[test]
fn streams_are_ended_properly_when_the_daemon_stops() {
    let mut site = Site::on(Store::sqlite());
    let seen = site.publish("cheese", "1");
    let mut streams: Vec<_> =
        (0..50).map(|n| open(&site, "cheese", 0, &format!("envelope={}", n % 2))).collect();
    for stream in &mut streams {
        assert!(stream.by_ref().take(2).last().is_some_and(|event| event.id() == seen));
    }
    let began = Instant::now();
    site.daemon.process().terminate();
    for (number, stream) in streams.iter_mut().enumerate() {
        let rest = stream.rest();
        let [last] = &rest[..] else { panic!("{stream}") };
        let end = if number % 2 == 0 { last.json() } else { last.json()["data"]["data"].clone() };
        assert_eq!((end["reason"].as_str(), last.id()), (Some("draining"), seen), "{stream}");
        // As long as a daemon needs to come back, and not all at once.
        let retry = stream.parser().retry().expect("a delay");
        assert_eq!(Some(retry / 1000), end["reconnect_in"].as_u64(), "{stream}");
        assert!((1000..=5000).contains(&retry), "{retry}");
    }
    assert_eq!(site.daemon.process().wait(wait::PATIENCE).code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn killed_daemon_loses_nothing_for_a_stream_that_comes_back() {
    for store in Store::both() {
        let mut site = Site::on(store);
        let (mut cursor, mut seen, mut sent) = ("0".to_owned(), Vec::new(), Vec::new());
        for round in 0..3 {
            let request = sse::get("/e/cheese").header("Last-Event-ID", &cursor);
            let mut stream = EventStream::open(site.daemon.address(), &request);
            stream.expect("everpoll:hello");
            sent.extend((0..20).map(|n| site.publish("cheese", &format!("{}", round * 20 + n))));
            // Not all of them: some are on their way when it dies.
            seen.extend(stream.by_ref().take(10).map(|event| event.id()));
            site.daemon.kill_9();
            while let Ok(Some(event)) = stream.try_next(wait::PATIENCE) {
                seen.extend((event.kind == "made").then(|| event.id()));
            }
            stream.parser().last_event_id().clone_into(&mut cursor);
            site.daemon.start_again();
        }
        let last =
            EventStream::open(site.daemon.address(), &sse::get("/e/cheese").header("Last-Event-ID", &cursor));
        let missing = sent.len() - seen.len();
        seen.extend(last.skip(1).take(missing).map(|event| event.id()));
        assert_eq!(seen, sent);
    }
}

#[test]
fn reader_that_takes_nothing_is_cut_off_and_the_others_go_on() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).setting("EVERPOLL_WRITE_TIMEOUT", 2).start();
    let mut slow = daemon.address().connect().expect("it listens");
    slow.write_all(&of("slow", "").bytes()).expect("it reads");
    let mut good = EventStream::open(daemon.address(), &of("good", ""));
    good.expect("everpoll:hello");
    wait::until("the slow one is held", wait::PATIENCE, || !place_is_free(daemon.address(), "slow"));
    // More than the kernel keeps for it.
    let event = json!({"channel": "cheese", "type": "made", "data": "x".repeat(1_000_000)}).to_string();
    let began = Instant::now();
    let mut last = 0;
    for _ in 0..30 {
        last = daemon.publish(&event)[0];
        assert_eq!(good.expect("made").1, last.to_string());
    }
    wait::until("the slow one is cut off", wait::PATIENCE, || place_is_free(daemon.address(), "slow"));
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    // What it finds when it reads at last: a part of the stream, and the end of the connection.
    let mut found = Vec::new();
    let ended = slow.read_to_end(&mut found);
    assert!(found.len() < 29_000_000, "{} bytes, {ended:?}", found.len());
    let mut again = EventStream::open(daemon.address(), &of("slow", &format!("last_event_id={}", last - 1)));
    again.expect("everpoll:hello");
    let id = daemon.publish(r#"{"channel":"cheese","type":"small","data":1}"#)[0];
    assert_eq!(good.expect("small").1, id.to_string());
}

#[test]
fn reader_that_is_slow_but_reads_gets_everything() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).setting("EVERPOLL_WRITE_TIMEOUT", 2).start();
    let mut slow = EventStream::open(daemon.address(), &of("slow", ""));
    slow.expect("everpoll:hello");
    let event = json!({"channel": "cheese", "type": "made", "data": "x".repeat(500_000)}).to_string();
    std::thread::scope(|scope| {
        // Beside the reader: on a busy machine that takes longer than the limit.
        let publishing = scope.spawn(|| (0..40).flat_map(|_| daemon.publish(&event)).collect::<Vec<_>>());
        // Twice as long as the limit, a little all the time.
        let mut seen = Vec::new();
        for _ in 0..40 {
            std::thread::sleep(Duration::from_millis(100));
            seen.push(slow.next().expect("it goes on").id());
        }
        assert_eq!(seen, publishing.join().expect("it publishes"));
    });
}

#[test]
fn stream_is_told_to_come_back_while_the_log_is_away_and_goes_on_through_it() {
    let postgres = Postgres::start();
    let database = postgres.create_database();
    database.migrate();
    database.psql(
        "INSERT INTO everpoll.events (channel, type, data) SELECT 'old', 't', to_json(repeat('x', 1000)) \
         FROM generate_series(1, 200)",
    );
    let mut site = Site::with(Store::Postgres(database), &[("EVERPOLL_WINDOW_BYTES", "64KiB")]);
    let newest = site.cursor("cheese");
    let mut open_before = open(&site, "cheese", newest, "");
    open_before.expect("everpoll:hello");
    postgres.stop_fast();
    wait::until("the daemon has noticed", wait::PATIENCE, || !site.daemon.is_ready());
    // A browser gives up for good on any status but 200.
    for (name, address) in site.doors() {
        let mut stream = EventStream::open(address, &ask("cheese", 1, ""));
        assert_eq!(stream.head.status, 200, "{name}");
        let (why, retry) = end(&mut stream);
        assert_eq!(why["reason"], "log_unavailable", "{name}: {stream}");
        let seconds = why["reconnect_in"].as_u64().expect("seconds");
        assert_eq!(retry, Some(seconds * 1000), "{name}: {stream}");
        assert!(seconds >= 1);
    }
    postgres.start_again();
    site.daemon.wait_until_ready();
    let id = site.publish("cheese", "1");
    assert_eq!(open_before.expect("made").1, id.to_string(), "it was not ended");
}

#[test]
fn stream_passes_nginx_unbuffered_and_the_fallback_takes_over() {
    let (store, directory) = (Store::sqlite(), TestDir::new());
    let site = Site::on(store);
    let socket = Address::Unix(directory.join("daemon.sock"));
    let mut daemon = Daemon::on(site.store.url()).at(&socket).setting("EVERPOLL_HEARTBEAT", 1).start();
    let nginx = WebServer::nginx(daemon.address(), site.fallback.address());
    let mut stream = EventStream::open(nginx.address(), &of("w", ""));
    assert_eq!(stream.head.header("content-type"), Some("text/event-stream; charset=utf-8"));
    stream.expect("everpoll:hello");
    let id = site.publish("cheese", "1");
    assert_eq!(stream.expect("made").1, id.to_string());
    let before = stream.text().len();
    stream.wait_for("heartbeats", |text| text[before..] == *":\n:\n");

    daemon.kill_9();
    while let Ok(Some(_)) = stream.try_next(wait::PATIENCE) {}
    let missed = site.publish("cheese", "2");
    let request = sse::get("/e/cheese/w").header("Last-Event-ID", stream.parser().last_event_id());
    let events: Vec<Message> = EventStream::open(nginx.address(), &request).collect();
    assert_eq!(kinds(&events), ["everpoll:hello", "made", "everpoll:end"]);
    assert_eq!((events[1].id(), events[2].json()["reason"].as_str()), (missed, Some("short_poll")));
    daemon.start_again();
    let request = sse::get("/e/cheese/w").header("Last-Event-ID", &missed.to_string());
    let mut stream = EventStream::open(nginx.address(), &request);
    stream.expect("everpoll:hello");
    let id = site.publish("cheese", "3");
    assert_eq!(stream.expect("made").1, id.to_string());
}
