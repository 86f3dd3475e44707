//! Padded holds, to the byte: a head at once, a space now and then, the answer, and spaces to the length that was promised.
//!
//! To a client all of it is one JSON text, since JSON may have white space around it; to a proxy it is a reply that comes, if
//! slowly. What a newcomer gets wrong: a poll that is answered at once is not padded, whatever it asked for.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address, Connection, Request, Stream};
use everpoll_tests::{Postgres, Reply, process, wait};
use serde_json::{Value, json};

use crate::site::{SOON, Site, Store, ids};

/// A padded hold of `cheese` that asks with its cursor in an envelope.
fn padded(cursor: u64, query: &str) -> Request {
    http::get(&format!("/e/cheese?last_event_id={cursor}&envelope=1&{query}"))
}

/// A reply that comes bit by bit.
struct Slowly {
    stream: Stream,
    bytes: Vec<u8>,
}

impl Slowly {
    fn begin(address: &Address, request: &Request) -> Self {
        let mut stream = address.connect().expect("it listens");
        stream.write_all(&request.bytes()).expect("it reads");
        Self { stream, bytes: Vec::new() }
    }

    /// Reads until this much of the body has come; the head and the body so far.
    #[track_caller]
    fn read(&mut self, body: usize) -> (String, Vec<u8>) {
        loop {
            let head = self.bytes.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = head.map(|head| head + 4)
                && self.bytes.len() >= end + body
            {
                let head = String::from_utf8(self.bytes[..end].to_vec()).expect("a head is ASCII");
                return (head, self.bytes[end..].to_vec());
            }
            let mut some = [0; 4096];
            match self.stream.read(&mut some) {
                Ok(length) if length > 0 => self.bytes.extend_from_slice(&some[..length]),
                end => panic!("{end:?} after {:?}", String::from_utf8_lossy(&self.bytes)),
            }
        }
    }
}

/// The JSON of a padded body, which is this long.
#[track_caller]
fn json_in(reply: &Reply, length: usize) -> Value {
    assert_eq!(reply.header("content-length"), Some(length.to_string().as_str()), "{reply:?}");
    let text = reply.text();
    let json = text.trim_matches(' ');
    assert!(json.starts_with(['{', '[']) && json.ends_with(['}', ']']), "{text:?}");
    reply.json()
}

/// Whether it was answered at once, like a poll that asks for no padding.
#[track_caller]
fn assert_plain(reply: &Reply) {
    let body = reply.text();
    assert_eq!((reply.status, body.trim()), (200, body), "{reply:?}");
    assert!(reply.header("x-ps-cursor").is_some(), "{reply:?}");
}

#[test]
fn head_comes_at_once_and_says_only_what_is_known() {
    let site = Site::on(Store::sqlite());
    let seen = site.publish("cheese", "1");
    let began = Instant::now();
    let mut held = Slowly::begin(site.daemon.address(), &padded(seen, "pad=4096&beat=60"));
    let (head, body) = held.read(0);
    assert!(began.elapsed() < SOON && body.is_empty());
    let lines: Vec<_> = head.lines().map(str::to_ascii_lowercase).collect();
    for expected in [
        "http/1.1 200 ok",
        "content-type: application/json; charset=utf-8",
        "content-length: 4096",
        "cache-control: private, no-cache, no-store, must-revalidate, max-age=0, no-transform",
        "pragma: no-cache",
        "x-accel-buffering: no",
        "x-content-type-options: nosniff",
        "x-ps-reconnect-in: 0",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected}: {head}");
    }
    // Nobody knows it yet, and a wrong one would lose events.
    assert!(!head.to_ascii_lowercase().contains("x-ps-cursor"), "{head}");
    let id = site.publish("cheese", r#"{"name":"Gouda"}"#);
    let (_, body) = held.read(4096);
    let answer: Value = serde_json::from_slice(&body).expect("JSON with spaces around it");
    assert_eq!(
        (answer["events"][0]["id"].as_u64(), answer["cursor"].as_str()),
        (Some(id), Some(&*id.to_string()))
    );
    assert_eq!((answer["reconnect_in"].as_u64(), answer["end"].as_u64()), (Some(0), Some(1)));
    assert_eq!(body[0], b'{');
    let end = body.iter().rposition(|byte| *byte != b' ').expect("an end");
    assert!(body[end] == b'}' && body.len() == 4096);
}

#[test]
fn space_comes_with_each_beat_and_the_answer_follows() {
    let site = Site::on(Store::sqlite());
    let seen = site.publish("cheese", "1");
    let mut held = Slowly::begin(site.daemon.address(), &padded(seen, "pad=1024&beat=1&hold=60"));
    held.read(0);
    let began = Instant::now();
    for beat in 1..=3 {
        let (_, body) = held.read(beat);
        assert_eq!(body, vec![b' '; beat]);
        let due = Duration::from_millis(900) * u32::try_from(beat).expect("few");
        assert!(began.elapsed() >= due, "space {beat} after {:?}", began.elapsed());
    }
    let id = site.publish("cheese", "2");
    let (_, body) = held.read(1024);
    assert_eq!(body.len(), 1024);
    assert_eq!(serde_json::from_slice::<Value>(&body).expect("JSON")["events"][0]["id"], id);
    // The head cannot tell the cursor, so it is an envelope also where none was asked for.
    let held =
        http::get(&format!("/e/cheese?last_event_id={id}&pad=1024&beat=1")).begin(site.daemon.address());
    let id = site.publish("cheese", "3");
    let reply = held.reply();
    let body = json_in(&reply, 1024);
    assert_eq!((body["events"][0]["id"].as_u64(), &body["cursor"]), (Some(id), &Value::from(id.to_string())));
}

#[test]
fn hold_ends_when_the_client_and_the_settings_say() {
    let site = Site::with(Store::sqlite(), &[("EVERPOLL_PADDED_HOLD_MAX", "2"), ("EVERPOLL_HOLD_MAX", "1")]);
    let seen = site.publish("other", "1");
    for (query, seconds) in [("hold=0.5", 0.5), ("hold=100", 2.0), ("", 1.0)] {
        let began = Instant::now();
        let reply = padded(seen, &format!("pad=2048&beat=1&{query}")).send(site.daemon.address());
        let took = began.elapsed().as_secs_f64();
        assert!((seconds..seconds + 5.0).contains(&took), "{query:?} took {took} s");
        let answer = json_in(&reply, 2048);
        assert_eq!((&answer["events"], &answer["reconnect_in"]), (&json!([]), &json!(0)));
        assert_eq!(answer["cursor"], seen.to_string());
    }
    // Switched off: a hold like any other.
    let off = Site::with(Store::sqlite(), &[("EVERPOLL_PADDED_HOLD_MAX", "0")]);
    assert_plain(&padded(0, "pad=2048&hold=0.2").send(off.daemon.address()));
}

#[test]
fn what_is_answered_at_once_is_not_padded() {
    let site = Site::on(Store::sqlite());
    let id = site.publish("cheese", "1");
    let _holder = crate::site::hold(&site, "cheese", id, "w");
    for (name, request) in [
        ("news", padded(0, "pad=4096")),
        ("short-poll", padded(id, "pad=4096&flavor=short-poll")),
        ("a hold of nothing", padded(id, "pad=4096&hold=0")),
        ("the place is taken", http::get(&format!("/e/cheese/w?last_event_id={id}&pad=4096"))),
        ("POST", http::request("POST", "/e/cheese").body(format!("last_event_id={id}&pad=4096&hold=0.2"))),
    ] {
        let reply = request.send(site.daemon.address());
        assert_plain(&reply);
        assert_ne!(reply.header("content-length"), Some("4096"), "{name}");
    }
    let head = http::request("HEAD", "/e/cheese?pad=4096").send(site.daemon.address());
    assert!(head.header("content-length") != Some("4096"), "{head:?}");
    // The fallback holds nothing, so it pads nothing.
    let [_, (_, fallback)] = site.doors();
    assert_plain(&padded(id, "pad=4096").send(fallback));
}

#[test]
fn wishes_that_make_no_sense_are_refused() {
    let site = Site::on(Store::sqlite());
    for (query, code) in [
        ("pad=1023", "pad_malformed"),
        ("pad=65537", "pad_malformed"),
        ("pad=x", "pad_malformed"),
        ("pad=4096&beat=0", "beat_malformed"),
        ("pad=4096&beat=61", "beat_malformed"),
    ] {
        for (name, address) in site.doors() {
            let reply = padded(0, query).send(address);
            assert_eq!((reply.status, reply.json()["code"].as_str()), (400, Some(code)), "{name}: {query}");
        }
    }
}

#[test]
fn news_fills_the_room_to_the_last_byte_and_the_rest_waits() {
    let site = Site::on(Store::sqlite());
    let mut cursor = site.publish("cheese", "1");
    let publish = |length: usize| site.publish("cheese", &json!("x".repeat(length)).to_string());
    // How long the answer is around such an event; ids of one length are looked for first.
    let around = |cursor: u64, id: u64| {
        let reply = padded(cursor, "flavor=short-poll").send(site.daemon.address());
        assert_eq!(reply.events()[0].id, id);
        // It says `"short_poll":true`, and a hold says `false`.
        reply.body.len() + 1
    };
    let id = publish(0);
    let empty = around(cursor, id);
    cursor = id;
    for (room, fits) in [(1024, true), (1024, false), (4096, true), (4096, false)] {
        let mut held = padded(cursor, &format!("pad={room}&beat=60")).begin(site.daemon.address());
        wait::until("the head has come", wait::PATIENCE, || !held.is_waiting());
        let digits = (cursor + 1).to_string().len() - id.to_string().len();
        // The id stands in the record and in the cursor.
        let id = publish(room - empty - 2 * digits + usize::from(!fits));
        let reply = held.reply();
        let answer = json_in(&reply, room);
        if fits {
            assert_eq!(reply.text().trim_end_matches(' ').len(), room, "{answer}");
            assert_eq!(ids(&reply.events()), [id]);
        } else {
            assert_eq!(
                (answer["events"].as_array().map(Vec::len), &answer["reconnect_in"]),
                (Some(0), &json!(0))
            );
            assert_eq!(answer["cursor"], cursor.to_string(), "it is where it was");
            let next = padded(cursor, &format!("pad={room}&beat=60")).send(site.daemon.address());
            assert_plain(&next);
            assert_eq!(ids(&next.events()), [id]);
        }
        cursor = id;
    }
}

#[test]
fn many_events_at_once_are_split_where_the_room_ends() {
    let site = Site::on(Store::sqlite());
    let seen = site.publish("cheese", "1");
    let mut held = padded(seen, "pad=2048&beat=60").begin(site.daemon.address());
    wait::until("the head has come", wait::PATIENCE, || !held.is_waiting());
    let events: Vec<_> =
        (0..50).map(|_| json!({"channel": "cheese", "type": "made", "data": "x".repeat(100)})).collect();
    let published = site.daemon.publish(&json!(events).to_string());
    let reply = held.reply();
    let answer = json_in(&reply, 2048);
    let mut got = ids(&reply.events());
    assert_eq!(answer["reconnect_in"], 0);
    let cursor: u64 = answer["cursor"].as_str().and_then(|id| id.parse().ok()).expect("a cursor");
    assert_eq!(cursor, got.last().copied().unwrap_or(seen));
    got.extend(ids(&padded(cursor, "pad=2048").send(site.daemon.address()).events()));
    assert_eq!(got, published);
}

#[test]
fn connection_is_of_use_afterwards() {
    let site = Site::on(Store::sqlite());
    let mut cursor = site.publish("cheese", "1");
    let mut connection = Connection::open(site.daemon.address()).expect("it listens");
    for round in 0..3 {
        let request = padded(cursor, "pad=1024&beat=1&hold=20").header("Connection", "keep-alive");
        connection.send(&request.bytes()).expect("it reads");
        let id = site.publish("cheese", &round.to_string());
        let reply = connection.read_reply(false).expect("a reply");
        assert!(reply.keeps_connection(), "{reply:?}");
        assert_eq!(ids(&reply.events()), [id]);
        cursor = id;
        // An ended hold and a plain poll on the same connection.
        for query in ["pad=1024&hold=0.1", "hold=0.1", "flavor=short-poll"] {
            let request = padded(cursor, query).header("Connection", "keep-alive");
            let reply = connection.exchange(&request).expect("a reply");
            assert_eq!((reply.events(), reply.keeps_connection()), (vec![], true));
        }
    }
    // HTTP/1.0 has Content-Length as well.
    let held = padded(cursor, "pad=1024&beat=1").http10().begin(site.daemon.address());
    let id = site.publish("cheese", "2");
    let reply = held.reply();
    assert_eq!(ids(&reply.events()), [id]);
    json_in(&reply, 1024);
}

#[test]
fn stop_and_replacement_are_told_in_the_body() {
    let mut site = Site::on(Store::sqlite());
    let seen = site.publish("cheese", "1");
    let of = |n: u64| {
        http::get(&format!("/e/cheese/w?last_event_id={seen}&envelope=1&pad=1024&beat=60&tab=a&n={n}"))
    };
    let mut ghost = of(1).begin(site.daemon.address());
    wait::until("the head has come", wait::PATIENCE, || !ghost.is_waiting());
    let mut held = of(2).begin(site.daemon.address());
    let answer = json_in(&ghost.reply_within(SOON), 1024);
    assert_eq!(
        (answer["reconnect_in"].as_u64(), answer["cursor"].as_str()),
        (Some(5), Some(&*seen.to_string()))
    );
    wait::until("the head has come", wait::PATIENCE, || !held.is_waiting());
    site.daemon.process().terminate();
    let reply = held.reply();
    let answer = json_in(&reply, 1024);
    assert_eq!(
        (reply.status, &answer["events"], answer["cursor"].as_str()),
        (200, &json!([]), Some(&*seen.to_string()))
    );
    assert!((1..=5).contains(&answer["reconnect_in"].as_u64().expect("seconds")), "{answer}");
    assert_eq!(site.daemon.process().wait(wait::PATIENCE).code(), Some(0));
}

#[test]
fn failure_after_the_head_is_a_problem_in_the_body() {
    let postgres = Postgres::start();
    let database = postgres.create_database();
    database.migrate();
    let site = Site::with(Store::Postgres(database), &[("EVERPOLL_WINDOW_BYTES", "64KiB")]);
    let (seen, name) = (site.cursor("cheese"), site.store.database().name());
    let mut application = site.store.database().connect();
    let mut held = padded(seen, "pad=2048&beat=1&hold=60").begin(site.daemon.address());
    wait::until("the head has come", wait::PATIENCE, || !held.is_waiting());
    // The daemon hears of news, more than it keeps in memory, on the connection that it has, and gets no other one to
    // read it with.
    postgres.psql(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
    application
        .batch_execute(
            "INSERT INTO everpoll.events (channel, type, data) SELECT 'cheese', 't', to_json(repeat('x', 10000)) \
             FROM generate_series(1, 20)",
        )
        .expect("this connection is still there");
    let reply = held.reply();
    let answer = json_in(&reply, 2048);
    assert_eq!((reply.status, answer["status"].as_u64()), (200, Some(503)), "{answer}");
    assert_eq!(answer["code"], "log_unavailable");
    assert!(answer["reconnect_in"].as_u64().is_some_and(|seconds| seconds >= 1), "{answer}");
    assert!(answer["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{answer}");
}

#[test]
fn client_that_leaves_is_noticed_within_two_beats() {
    let site = Site::on(Store::sqlite());
    let address = site.daemon.address();
    let free = |wait_id: &str| {
        http::get(&format!("/e/nothing/{wait_id}?hold=0.05")).send(address).reconnect_in() == 0
    };
    let hold = |wait_id: &str| {
        let target = format!("/e/cheese/{wait_id}?last_event_id=0&pad=4096&beat=1&hold=100");
        let mut held = Slowly::begin(address, &http::get(&target));
        held.read(0);
        held
    };
    let held = hold("closes");
    assert!(!free("closes"));
    drop(held);
    let left = Instant::now();
    wait::until("the place is free", wait::PATIENCE, || free("closes"));
    assert!(left.elapsed() < Duration::from_secs(2) + SOON / 5, "{:?}", left.elapsed());

    // Through a proxy that keeps its own connection: only what it writes tells the daemon. nginx closes it when its
    // client is gone, which it finds out by the space that it cannot pass on.
    let nginx = everpoll_tests::WebServer::nginx_with(address, site.fallback.address(), |config| {
        config
            .replace("proxy_ignore_client_abort off;", "")
            .replace("proxy_http_version 1.1;", "proxy_http_version 1.1; proxy_ignore_client_abort on;")
    });
    let target = "/e/cheese/proxied?last_event_id=0&pad=4096&beat=1&hold=100";
    let mut held = Slowly::begin(nginx.address(), &http::get(target));
    held.read(1);
    assert!(!free("proxied"));
    drop(held);
    let left = Instant::now();
    wait::until("the place is free", wait::PATIENCE, || free("proxied"));
    assert!(left.elapsed() < SOON, "{:?}", left.elapsed());
}

#[test]
fn client_that_takes_nothing_holds_no_memory() {
    let mut site = Site::on(Store::sqlite());
    let before = process::resident_kilobytes(site.daemon.process().id());
    // As many as would show, were the padding kept.
    let held: Vec<_> = (0..200)
        .map(|n| Slowly::begin(site.daemon.address(), &padded(0, &format!("pad=65536&beat=60&_={n}"))))
        .collect();
    let id = site.publish("cheese", "1");
    for mut held in held {
        let (_, body) = held.read(65536);
        assert_eq!(serde_json::from_slice::<Value>(&body).expect("JSON")["cursor"], id.to_string());
    }
    let after = process::resident_kilobytes(site.daemon.process().id());
    assert!(after < before + 40_000, "{before} KB, then {after} KB");
}

#[test]
fn padded_hold_behind_a_publish_on_one_connection_is_not_held_in_silence() {
    let site = Site::on(Store::sqlite());
    let mut connection = Connection::open(site.daemon.address()).expect("it listens");
    let event = r#"{"channel":"cheese","type":"made","data":1}"#;
    let publish = http::post_json("/publish", event).header("Connection", "keep-alive");
    let seen = |published: Reply| published.json()["ids"][0].as_u64().expect("an id");
    let published = seen(connection.exchange(&publish).expect("a reply"));
    let poll = padded(published, "pad=4096&hold=1").header("Connection", "keep-alive");
    let reply = connection.exchange(&poll).expect("a reply");
    assert_eq!((&json_in(&reply, 4096)["reconnect_in"], reply.keeps_connection()), (&json!(0), true));
    // Behind a body in chunks there is no padding, and a silent hold is what such a client flees from.
    let head = "POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bytes = format!("{head}{:x}\r\n{event}\r\n0\r\n\r\n", event.len());
    connection.send(bytes.as_bytes()).expect("it reads");
    let published = seen(connection.read_reply(false).expect("a reply"));
    let began = Instant::now();
    let poll = padded(published, "pad=4096&hold=60").header("Connection", "keep-alive");
    let reply = connection.exchange(&poll).expect("a reply");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_plain(&reply);
    // The next one finds a connection where there is padding.
    assert_eq!((&reply.json()["reconnect_in"], reply.keeps_connection()), (&json!(0), false));
}
