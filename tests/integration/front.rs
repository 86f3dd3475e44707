//! HTTP itself: methods, sizes, old versions, kept connections, and clients that misbehave.
//!
//! The daemon serves polls itself and lends everything else to hyper, request by request. A client must not see which of the
//! two answers, so what is promised here is asked of both.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address, Connection};
use everpoll_tests::{Daemon, Reply, Sqlite, TestDir, WebSocket, wait, websocket};

fn daemon() -> (Sqlite, Daemon) {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).start();
    (log, daemon)
}

fn publish(daemon: &Daemon) -> u64 {
    daemon.publish(r#"{"channel":"cheese","type":"made","data":1}"#)[0]
}

/// An error of a request, as every client gets it.
#[track_caller]
fn assert_problem(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status, status, "{reply:?} {}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    let problem = reply.json();
    assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some(code), Some(status.into())));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 20), "{problem}");
    assert!(reply.reconnect_in() > 0);
    assert!(reply.header("cache-control").is_some_and(|value| value.contains("no-store")));
}

/// The reply to exactly these bytes, on a connection of its own.
#[track_caller]
fn answer(daemon: &Daemon, bytes: &[u8]) -> Reply {
    let mut connection = Connection::open(daemon.address()).expect("it listens");
    // It may be answered before all is sent.
    let _ = connection.send(bytes);
    connection.read_reply(false).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn reply_has_the_headers_that_proxies_need() {
    let (_log, daemon) = daemon();
    let id = publish(&daemon);
    let get = http::get("/e/cheese?last_event_id=0").send(daemon.address());
    let post = http::request("POST", "/e/cheese").body("last_event_id=0").send(daemon.address());
    for reply in [get, post] {
        let expected = [
            ("content-type", "application/json; charset=utf-8"),
            ("cache-control", "private, no-cache, no-store, must-revalidate, max-age=0, no-transform"),
            ("pragma", "no-cache"),
            ("expires", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("x-accel-buffering", "no"),
            ("x-content-type-options", "nosniff"),
            ("x-ps-reconnect-in", "0"),
            ("x-shortpoll-info", "true"),
            ("x-ps-cursor", &id.to_string()),
            ("content-length", &reply.body.len().to_string()),
        ];
        for (name, value) in expected {
            assert_eq!(reply.header(name), Some(value), "{name}");
        }
        assert!(reply.header("date").is_some_and(|date| date.ends_with(" GMT")));
        for absent in ["transfer-encoding", "etag", "last-modified", "set-cookie", "server"] {
            assert_eq!(reply.header(absent), None);
        }
        assert!(reply.body.is_ascii() && reply.body[0] == b'[');
    }
}

#[test]
fn head_is_answered_at_once_and_without_a_body() {
    let (_log, daemon) = daemon();
    publish(&daemon);
    let get = http::get("/e/cheese?last_event_id=0").send(daemon.address());
    let head = http::request("HEAD", "/e/cheese?last_event_id=0").send(daemon.address());
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), get.header("content-length"));
    let start = Instant::now();
    let nothing_new = http::request("HEAD", "/e/cheese").send(daemon.address());
    assert!(start.elapsed() < Duration::from_secs(5), "it was held");
    assert_eq!(nothing_new.header("content-length"), Some("2"));
    assert!(nothing_new.reconnect_in() >= 5);
    for (target, status) in [("/e/a%2Fb", 400), ("/nothing", 404), ("/publish", 405), ("/healthz", 200)] {
        let head = http::request("HEAD", target).send(daemon.address());
        assert_eq!((head.status, head.body.len()), (status, 0), "{target}");
        assert_ne!(head.header("content-length"), Some("0"), "{target}");
    }
}

#[test]
fn options_name_the_methods() {
    let (_log, daemon) = daemon();
    for (target, allow) in [("/e/cheese", "GET, HEAD, POST, OPTIONS"), ("/publish", "POST, OPTIONS")] {
        let reply = http::request("OPTIONS", target)
            .header("Origin", "https://shop.example")
            .header("Access-Control-Request-Method", "GET")
            .send(daemon.address());
        assert_eq!((reply.status, reply.header("allow")), (200, Some(allow)));
        assert!(!reply.body.is_empty());
        // Another site's pages are not let in.
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
}

#[test]
fn methods_and_paths_that_do_not_exist_have_their_errors() {
    let (_log, daemon) = daemon();
    for method in ["PUT", "DELETE", "PATCH", "TRACE", "get", "FOO"] {
        let reply = http::request(method, "/e/cheese").send(daemon.address());
        assert_problem(&reply, 405, "method_not_allowed");
        assert_eq!(reply.header("allow"), Some("GET, HEAD, POST, OPTIONS"));
    }
    let reply = http::get("/publish").send(daemon.address());
    assert_problem(&reply, 405, "method_not_allowed");
    assert_eq!(reply.header("allow"), Some("POST, OPTIONS"));
    for target in [
        "/",
        "/e",
        "/e.php",
        "/E/cheese",
        "/e/a/b/c",
        "/publish/",
        "/metrics/x",
        "/e/../etc/passwd",
        "/%65/cheese",
    ] {
        let reply = http::get(target).send(daemon.address());
        assert_problem(&reply, 404, "not_found");
    }
    assert_problem(&http::get("/e/").send(daemon.address()), 400, "channel_empty");
    assert_problem(&http::get("/e.php/").send(daemon.address()), 400, "channel_empty");
    assert_problem(&http::get("/e/a,,b").send(daemon.address()), 400, "channel_empty");
    assert_problem(&http::get("/e/a%2Fb").send(daemon.address()), 400, "channel_character");
    assert_problem(&http::get("/e/%FF").send(daemon.address()), 400, "channel_not_utf8");
    let many = ["x"; 65].join(",");
    assert_problem(&http::get(&format!("/e/{many}")).send(daemon.address()), 400, "too_many_channels");
    assert_eq!(http::get("http://shop.example/e/cheese?hold=0").send(daemon.address()).status, 200);
}

#[test]
fn sizes_have_limits_and_what_fits_passes() {
    let (_log, daemon) = daemon();
    let target = |bytes: usize| {
        let start = "/e/cheese?flavor=short-poll&x=";
        format!("{start}{}", "y".repeat(bytes - start.len()))
    };
    assert_eq!(http::get(&target(8192)).send(daemon.address()).status, 200);
    assert_problem(&http::get(&target(8193)).send(daemon.address()), 414, "target_too_long");
    assert_problem(&http::get(&target(100_000)).send(daemon.address()), 414, "target_too_long");

    let head = |bytes: usize| {
        let start = "GET /e/cheese?hold=0 HTTP/1.1\r\nHost: a\r\nCookie: ";
        format!("{start}{}\r\n\r\n", "c".repeat(bytes - start.len() - 4))
    };
    assert_eq!(answer(&daemon, head(16 * 1024).as_bytes()).status, 200);
    assert_problem(&answer(&daemon, head(16 * 1024 + 1).as_bytes()), 431, "head_too_large");
    assert_problem(&answer(&daemon, head(2_000_000).as_bytes()), 431, "head_too_large");
    let fields = |count: usize| {
        format!("GET /e/cheese?hold=0 HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(count - 1))
    };
    assert_eq!(answer(&daemon, fields(100).as_bytes()).status, 200);
    assert_problem(&answer(&daemon, fields(101).as_bytes()), 431, "head_too_large");

    let post = |bytes: usize| http::request("POST", "/e/cheese?hold=0").body(vec![b'x'; bytes]);
    assert_eq!(post(64 * 1024).send(daemon.address()).status, 200);
    assert_problem(&post(64 * 1024 + 1).send(daemon.address()), 413, "body_too_large");
    let chunks = format!(
        "POST /e/cheese?hold=0 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        format!("1000\r\n{}\r\n", "x".repeat(4096)).repeat(17)
    );
    assert_problem(&answer(&daemon, chunks.as_bytes()), 413, "body_too_large");
    let publish = http::post_json("/publish", vec![b' '; 8 * 1024 * 1024 + 1]);
    assert_problem(&publish.send(daemon.address()), 413, "body_too_large");
}

#[test]
fn heads_that_are_no_http_are_refused() {
    let (_log, daemon) = daemon();
    for head in [
        "GET /e/cheese\r\n\r\n",
        "GET /e/cheese HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET /e/che ese HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /e/cheese HTTP/1.1\r\n\r\n",
        "GET /e/cheese HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /e/cheese HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET /e/cheese HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        "GET /e/cheese HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        assert_problem(&answer(&daemon, head.as_bytes()), 400, "head_malformed");
    }
}

#[test]
fn request_that_does_not_arrive_in_time_is_answered_with_408() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).setting("EVERPOLL_HEAD_TIMEOUT", 1).start();
    let start = Instant::now();
    assert_problem(&answer(&daemon, b"GET /e/cheese HT"), 408, "head_timeout");
    assert!(start.elapsed() >= Duration::from_secs(1));
    // One byte now and then does not buy more time.
    let mut connection = Connection::open(daemon.address()).expect("it listens");
    let start = Instant::now();
    let mut bytes = b"GET /e/cheese HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'y'));
    wait::until("it is answered", wait::PATIENCE, || {
        let byte = *bytes.next().expect("it never ends");
        let _ = connection.send(&[byte]);
        connection.stream().set_deadline(Duration::from_millis(20)).expect("not zero");
        matches!(connection.read_reply(false), Ok(reply) if reply.status == 408)
    });
    assert!(start.elapsed() < Duration::from_secs(10));

    let part = b"POST /e/cheese HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhold";
    assert_problem(&answer(&daemon, part), 408, "body_timeout");
}

#[test]
fn old_clients_are_served_in_their_own_version() {
    let (_log, daemon) = daemon();
    for request in [http::get("/e/cheese?hold=0"), http::request("POST", "/e/cheese").body("hold=0")] {
        let mut connection = Connection::open(daemon.address()).expect("it listens");
        let reply = connection.exchange(&request.clone().http10()).expect("a reply");
        assert_eq!((reply.status, reply.text()), (200, "[]"));
        assert!(!reply.keeps_connection() || reply.version == "HTTP/1.0", "{reply:?}");
        assert_closed(&mut connection);

        // Many said so before there was HTTP/1.1, and need it said back.
        let request = request.http10().header("Connection", "Keep-Alive");
        let mut connection = Connection::open(daemon.address()).expect("it listens");
        for _ in 0..3 {
            let reply = connection.exchange(&request).expect("a reply");
            assert_eq!((reply.status, reply.text()), (200, "[]"));
            assert!(reply.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")));
        }
    }
}

#[track_caller]
fn assert_closed(connection: &mut Connection) {
    let mut byte = [0; 1];
    let read = connection.stream().read(&mut byte).expect("closed, not broken");
    assert_eq!(read, 0, "the connection was kept");
}

#[test]
fn connection_is_kept_for_requests_of_all_kinds() {
    let (_log, daemon) = daemon();
    let mut connection = Connection::open(daemon.address()).expect("it listens");
    let kept = |request: http::Request| request.header("Connection", "keep-alive");
    for round in 0..3 {
        let poll = connection.exchange(&kept(http::get("/e/cheese?hold=0.05"))).expect("a reply");
        assert_eq!((poll.status, poll.text(), poll.header("connection")), (200, "[]", None));
        let missing = connection.exchange(&kept(http::get("/e/"))).expect("a reply");
        assert_problem(&missing, 400, "channel_empty");
        let head = connection.exchange(&kept(http::request("HEAD", "/e/cheese"))).expect("a reply");
        assert_eq!(head.status, 200);
        if round == 2 {
            break;
        }
        let event = r#"{"channel":"other","type":"made","data":1}"#;
        let published = connection.exchange(&kept(http::post_json("/publish", event))).expect("a reply");
        assert_eq!(published.status, 201);
        let id = published.json()["ids"][0].as_u64().expect("an id");
        let post = http::request("POST", "/e/other").body(format!("last_event_id={}", id - 1));
        let poll = connection.exchange(&kept(post)).expect("a reply");
        assert_eq!((poll.events()[0].id, poll.events().len()), (id, 1));
    }
    let last = connection.exchange(&http::get("/e/cheese?hold=0")).expect("a reply");
    assert_eq!(last.header("connection"), Some("close"));
    assert_closed(&mut connection);
}

#[test]
fn request_of_any_kind_is_understood_behind_one_that_is_no_poll() {
    let (_log, daemon) = daemon();
    let kept = |request: http::Request| request.header("Connection", "keep-alive").bytes();
    let event = r#"{"channel":"other","type":"made","data":1}"#;
    let firsts = [
        kept(http::post_json("/publish", event)),
        kept(http::post_json("/publish", "")),
        kept(http::request("POST", "/e/other").body("flavor=short-poll")),
        kept(http::request("GET", "/e/other?flavor=short-poll").body("x")),
        kept(http::get("/everpoll.js")),
        kept(http::get("/demo")),
        kept(http::get("/healthz")),
        kept(http::get("/nothing")),
    ];
    let malformed = b"GET /e/che ese HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    let large = http::get("/healthz").header("Cookie", &"x".repeat(17_000)).bytes();
    let seconds = [(malformed, 400, "head_malformed"), (large, 431, "head_too_large")];
    for first in &firsts {
        let what = String::from_utf8_lossy(first.split(|byte| *byte == b'\r').next().expect("a line"));
        for (second, status, code) in &seconds {
            // In one write, and one after the other.
            for together in [true, false] {
                let mut connection = Connection::open(daemon.address()).expect("it listens");
                let joined = if together { [first.as_slice(), second].concat() } else { first.clone() };
                connection.send(&joined).expect("it reads");
                connection.read_reply(false).unwrap_or_else(|error| panic!("{what}: {error}"));
                if !together {
                    connection.send(second).expect("it reads");
                }
                let reply = connection.read_reply(false);
                let reply = reply.unwrap_or_else(|error| panic!("{code} behind {what}, {together}: {error}"));
                assert_problem(&reply, *status, code);
            }
        }
        // It stays a task for a moment, and waits in a lot then; what comes is served in both.
        let pauses = if first == &firsts[0] { [0, 700].as_slice() } else { &[0] };
        for pause in pauses {
            let mut stream = daemon.address().connect().expect("it listens");
            stream.write_all(first).expect("it reads");
            read_one_reply(&mut stream);
            std::thread::sleep(Duration::from_millis(*pause));
            stream.write_all(&websocket::request("/e/cheese").bytes()).expect("it reads");
            let mut socket = WebSocket::on(stream).unwrap_or_else(|error| panic!("behind {what}: {error}"));
            socket.expect("everpoll:hello");
            let id = publish(&daemon);
            assert_eq!(socket.expect("made")["id"], id, "behind {what}");
        }
    }
}

/// Reads one reply with a `Content-Length`, and not a byte more.
#[track_caller]
fn read_one_reply(stream: &mut http::Stream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("ASCII").to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next()?.parse().ok());
    stream.read_exact(&mut vec![0; length.expect("a length")]).expect("a body");
}

#[test]
fn requests_in_one_write_are_answered_in_order() {
    let (_log, daemon) = daemon();
    let id = publish(&daemon);
    let kept = |request: http::Request| request.header("Connection", "keep-alive").bytes();
    let mut bytes = Vec::new();
    for _ in 0..2 {
        bytes.extend(kept(http::get("/e/cheese?last_event_id=0")));
        bytes.extend(kept(http::get("/e/cheese?hold=0&envelope=1")));
        bytes.extend(kept(http::get("/nothing")));
        bytes.extend(kept(http::request("POST", "/e/cheese").body("last_event_id=0")));
    }
    bytes.extend(http::get("/e/").bytes());
    // In one write, in two, and byte by byte.
    for piece in [bytes.len(), bytes.len() / 2 + 7, 1] {
        let mut connection = Connection::open(daemon.address()).expect("it listens");
        for part in bytes.chunks(piece) {
            connection.send(part).expect("it reads");
        }
        for _ in 0..2 {
            let mut read = || connection.read_reply(false).expect("a reply");
            assert_eq!(read().events()[0].id, id);
            assert!(read().text().starts_with("{\"events\":[]"));
            assert_problem(&read(), 404, "not_found");
            assert_eq!(read().events()[0].id, id);
        }
        assert_problem(&connection.read_reply(false).expect("a reply"), 400, "channel_empty");
        assert_closed(&mut connection);
    }
}

#[test]
fn request_behind_a_held_one_is_answered_after_it() {
    let (_log, daemon) = daemon();
    let before = publish(&daemon);
    let mut connection = Connection::open(daemon.address()).expect("it listens");
    let held = http::get(&format!("/e/cheese/w?last_event_id={before}&tab=a&n=2"));
    connection.send(&held.header("Connection", "keep-alive").bytes()).expect("it reads");
    // An earlier request of the same tab is sent away once the later one is held, and not before.
    let is_held = || http::get("/e/cheese/w?tab=a&n=1").send(daemon.address()).reconnect_in() == 5;
    assert!(is_held());
    // In two pieces, the second of which comes when the first has been read.
    let behind = http::get("/e/cheese?last_event_id=0").bytes();
    connection.send(&behind[..20]).expect("it reads");
    assert!(is_held());
    connection.send(&behind[20..]).expect("it reads");
    assert!(is_held(), "what follows does not end the hold");
    let id = publish(&daemon);
    let ids = |reply: Reply| reply.events().iter().map(|event| event.id).collect::<Vec<_>>();
    assert_eq!(ids(connection.read_reply(false).expect("a reply")), [id]);
    assert_eq!(ids(connection.read_reply(false).expect("a reply")), [before, id]);
    assert_closed(&mut connection);
}

#[test]
fn client_that_floods_while_it_is_held_is_not_read_without_end() {
    let (_log, mut daemon) = daemon();
    let mut connection = Connection::open(daemon.address()).expect("it listens");
    let held = http::get("/e/cheese/w?last_event_id=0").header("Connection", "keep-alive");
    connection.send(&held.bytes()).expect("it reads");
    connection.stream().set_deadline(Duration::from_millis(500)).expect("not zero");
    let before = everpoll_tests::process::resident_kilobytes(daemon.process().id());
    let flood = vec![b'x'; 1 << 20];
    // Ends when the sockets' buffers are full and nobody reads them.
    let sent = (0..64).take_while(|_| connection.stream().write_all(&flood).is_ok()).count();
    assert!(sent < 64, "64 MiB were taken in behind a held poll");
    let after = everpoll_tests::process::resident_kilobytes(daemon.process().id());
    assert!(after < before + 4096, "{before} KB became {after} KB");
    let id = publish(&daemon);
    connection.stream().set_deadline(wait::PATIENCE).expect("not zero");
    assert_eq!(connection.read_reply(false).expect("its own reply").events()[0].id, id);
}

#[test]
fn idle_connections_are_closed() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).setting("EVERPOLL_IDLE_TIMEOUT", 1).start();
    let kept = |request: http::Request| request.header("Connection", "keep-alive");
    let mut fresh = Connection::open(daemon.address()).expect("it listens");
    let mut polled = Connection::open(daemon.address()).expect("it listens");
    polled.exchange(&kept(http::get("/e/cheese?hold=0"))).expect("a reply");
    let mut posted = Connection::open(daemon.address()).expect("it listens");
    posted.exchange(&kept(http::request("POST", "/e/cheese").body("hold=0"))).expect("a reply");
    // A hold longer than the idle timeout is not idle.
    let held = kept(http::get("/e/cheese?hold=3&last_event_id=0")).begin(daemon.address());
    for connection in [&mut fresh, &mut polled, &mut posted] {
        let start = Instant::now();
        connection.stream().set_deadline(Duration::from_secs(15)).expect("not zero");
        assert_closed(connection);
        assert!(start.elapsed() < Duration::from_secs(13));
    }
    assert_eq!(held.reply().status, 200);
}

#[test]
fn connections_above_the_limit_are_sent_away_and_told_when_to_come_back() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).setting("EVERPOLL_CONNECTIONS_MAX", 20).start();
    // One of 20 is kept for those who are not held: somebody who has not asked yet takes it.
    let mut held: Vec<_> = (0..19).map(|_| http::get("/e/cheese").begin(daemon.address())).collect();
    // Whoever was answered may still be counted for a moment, so it is asked again and again; who is sent away takes no place.
    let (mut half, mut refused) = (Vec::new(), 0);
    wait::until("the daemon is full, and stays so", wait::PATIENCE, || {
        if http::get("/healthz").try_send(daemon.address()).is_ok_and(|reply| reply.status == 503) {
            refused += 1;
        } else {
            refused = 0;
            let mut connection = Connection::open(daemon.address()).expect("it listens");
            connection.send(b"GET /e/cheese").expect("it reads");
            half.push(connection);
        }
        refused == 20
    });
    for _ in 0..5 {
        let mut connection = Connection::open(daemon.address()).expect("it listens");
        let reply = connection.read_reply(false).expect("told without having been asked");
        assert_problem(&reply, 503, "overloaded");
        assert!(reply.reconnect_in() >= 5, "{reply:?}");
        assert_eq!(reply.header("connection"), Some("close"));
    }
    held.truncate(10);
    // Room again, also for a publisher, who wakes those that were held all the time.
    let id = wait::until_some("there is room again", wait::PATIENCE, || {
        let event = r#"{"channel":"cheese","type":"made","data":1}"#;
        let reply = http::post_json("/publish", event).try_send(daemon.address()).ok()?;
        (reply.status == 201).then(|| reply.json()["ids"][0].as_u64())?
    });
    for held in held {
        assert_eq!(held.reply().events()[0].id, id);
    }
}

#[test]
fn slow_reader_blocks_nobody_and_is_given_up() {
    let log = Sqlite::new();
    let mut daemon = Daemon::on(log.url()).setting("EVERPOLL_WRITE_TIMEOUT", 2).start();
    let data = "x".repeat(1_000_000);
    for _ in 0..4 {
        daemon.publish(&format!(r#"{{"channel":"cheese","type":"made","data":"{data}"}}"#));
    }
    // Each asks for 32 MB that it never reads.
    let pipelined =
        http::get("/e/cheese?last_event_id=0").header("Connection", "keep-alive").bytes().repeat(32);
    let mut slow: Vec<_> = (0..50)
        .map(|_| {
            let mut connection = Connection::open(daemon.address()).expect("it listens");
            connection.send(&pipelined).expect("it reads");
            connection
        })
        .collect();
    let address = daemon.address().clone();
    for _ in 0..50 {
        let start = Instant::now();
        assert_eq!(http::get("/e/cheese?hold=0").send(&address).status, 200);
        assert!(start.elapsed() < Duration::from_secs(2), "a slow reader held up another client");
    }
    let kilobytes = everpoll_tests::process::resident_kilobytes(daemon.process().id());
    println!("with 50 readers that do not read, the daemon has {kilobytes} KB");
    assert!(kilobytes < 300_000, "{kilobytes} KB");
    for connection in &mut slow {
        // Sending fails once the daemon has closed.
        wait::until("the reader is given up", wait::PATIENCE, || connection.send(b"x").is_err());
        connection.stream().set_deadline(wait::PATIENCE).expect("not zero");
        let mut sink = vec![0; 1 << 16];
        let mut total = 0;
        while let Ok(read @ 1..) = connection.stream().read(&mut sink) {
            total += read;
        }
        assert!(total < 30_000_000, "it got all although it did not read for so long");
    }
}

#[test]
fn unix_socket_serves_as_tcp_does() {
    let (log, directory) = (Sqlite::new(), TestDir::new());
    let address = Address::Unix(directory.join("daemon.sock"));
    let daemon = Daemon::on(log.url()).at(&address).start();
    let held = http::get("/e/cheese?last_event_id=0").begin(daemon.address());
    let id = publish(&daemon);
    assert_eq!(held.reply().events()[0].id, id);
    assert_problem(&http::get("/").send(daemon.address()), 404, "not_found");
}
