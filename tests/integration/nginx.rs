//! nginx with the shipped configuration, in front of stand-ins that misbehave on command.
//!
//! What the programs themselves do behind nginx is told by the other files; here it is only what nginx does: who is
//! asked, what is handed over, what a client sees when one or both are gone, what lives how long.

use std::time::{Duration, Instant};

use everpoll_protocol::SCRIPT_HASH;
use everpoll_tests::http::{self, Address, Reply};
use everpoll_tests::stub::{Act, Received, Stub};
use everpoll_tests::{Daemon, EventStream, Fallback, TestDir, WebServer, WebSocket, sse, websocket};

use crate::site::Store;

const FROM_DAEMON: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Accel-Buffering: no\r\nX-From: daemon\r\n\r\n[]";
const FROM_FALLBACK: &str =
    "Status: 200 OK\r\nContent-Length: 2\r\nX-Accel-Buffering: no\r\nX-From: fallback\r\n\r\n[]";
const DAEMON_503: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nX-From: daemon\r\n\r\n{}";

/// An address where nobody listens, now and later.
struct Nobody {
    directory: TestDir,
}

impl Nobody {
    fn new() -> Self {
        Self { directory: TestDir::new() }
    }

    fn address(&self) -> Address {
        Address::Unix(self.directory.join("nobody.sock"))
    }
}

fn daemon() -> Stub {
    Stub::daemon(Act::Answer(FROM_DAEMON.to_owned()))
}

fn fallback() -> Stub {
    Stub::fallback(Act::Answer(FROM_FALLBACK.to_owned()))
}

#[track_caller]
fn assert_from(reply: &Reply, whom: &str) {
    assert_eq!((reply.status, reply.header("x-from")), (200, Some(whom)), "{reply:?}");
}

fn field<'a>(received: &'a Received, name: &str) -> &'a str {
    received.fields.get(name).map_or("(none)", String::as_str)
}

#[test]
fn daemon_gets_the_request_as_it_came() {
    let (daemon, fallback) = (daemon(), fallback());
    let nginx = WebServer::nginx(daemon.address(), fallback.address());
    for target in ["/e/a%2Fb,%C3%A4//w?x=%2F&_=1", "/e.php/a/w?x", "/e", "/e.php", "/e/", "/e/../e/a"] {
        assert_from(&http::get(target).header("Last-Event-Id", "434").send(nginx.address()), "daemon");
        let last = daemon.received().pop().unwrap();
        assert_eq!(last.line, format!("GET {target} HTTP/1.1"));
        assert_eq!((field(&last, "last-event-id"), field(&last, "connection")), ("434", "(none)"));
        assert_eq!(field(&last, "x-forwarded-for"), "127.0.0.1");
    }
    let head = http::request("HEAD", "/e/a").send(nginx.address());
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(fallback.received().is_empty());
}

#[test]
fn reply_passes_unbuffered_and_with_its_headers() {
    let (daemon, fallback) = (daemon(), fallback());
    let nginx = WebServer::nginx(daemon.address(), fallback.address());
    let reply = http::get("/e/a").header("Accept-Encoding", "gzip").send(nginx.address());
    assert_eq!(reply.header("content-length"), Some("2"));
    assert_eq!(reply.header("x-accel-buffering"), Some("no"));
    // A body that never ends: what is there must arrive all the same.
    daemon.act(Act::Answer("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst".to_owned()));
    let mut connection = http::Connection::open(nginx.address()).unwrap();
    connection.send(&http::get("/e/a").bytes()).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\nfirst") {
        let mut byte = [0; 1];
        std::io::Read::read_exact(connection.stream(), &mut byte).unwrap();
        seen.push(byte[0]);
    }
}

#[test]
fn upgrade_is_passed_on_with_its_connection_header() {
    let (daemon, fallback) = (daemon(), fallback());
    let nginx = WebServer::nginx(daemon.address(), fallback.address());
    http::get("/e/a").header("Connection", "Upgrade").header("Upgrade", "websocket").send(nginx.address());
    let last = daemon.received().pop().unwrap();
    assert_eq!((field(&last, "connection"), field(&last, "upgrade")), ("upgrade", "websocket"));
}

#[test]
fn fallback_answers_when_the_daemon_is_away_dies_or_says_503() {
    let (nobody, fallback) = (Nobody::new(), fallback());
    let away = WebServer::nginx(&nobody.address(), fallback.address());
    assert_from(&http::get("/e/a").send(away.address()), "fallback");

    let daemon = Stub::daemon(Act::HangUp);
    let nginx = WebServer::nginx(daemon.address(), fallback.address());
    assert_from(&http::get("/e/a").send(nginx.address()), "fallback");
    daemon.act(Act::Answer(DAEMON_503.to_owned()));
    assert_from(&http::get("/e/a").send(nginx.address()), "fallback");

    daemon.act(Act::Hold);
    let held = http::get("/e/a").begin(nginx.address());
    daemon.wait_for_requests(3);
    daemon.cut();
    assert_from(&held.reply(), "fallback");
}

#[test]
fn daemon_that_fails_once_is_asked_again_at_once() {
    let (daemon, fallback) = (Stub::daemon(Act::HangUp), fallback());
    let nginx = WebServer::nginx(daemon.address(), fallback.address());
    for _ in 0..5 {
        assert_from(&http::get("/e/a").send(nginx.address()), "fallback");
    }
    daemon.act(Act::Answer(FROM_DAEMON.to_owned()));
    assert_from(&http::get("/e/a").send(nginx.address()), "daemon");
}

#[test]
fn other_errors_of_the_daemon_are_its_own() {
    let (daemon, fallback) = (daemon(), fallback());
    let nginx = WebServer::nginx(daemon.address(), fallback.address());
    for status in [400, 403, 404, 405, 413, 414, 431, 500, 507] {
        daemon.act(Act::Answer(format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\n{{}}")));
        let reply = http::get("/e/a").send(nginx.address());
        assert_eq!((reply.status, reply.body.as_slice()), (status, &b"{}"[..]));
    }
    assert!(fallback.received().is_empty());
}

#[test]
fn fallback_gets_method_target_headers_and_body() {
    let (nobody, fallback) = (Nobody::new(), fallback());
    let nginx = WebServer::nginx(&nobody.address(), fallback.address());
    // Larger than nginx keeps in memory.
    let body = format!("last_event_id=7&x={}", "y".repeat(60_000));
    let reply = http::request("POST", "/e.php/a%2Fb/w?c=%2F")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Last-Event-Id", "434")
        .header("Proxy", "http://evil.example")
        .body(body.as_str())
        .send(nginx.address());
    assert_from(&reply, "fallback");
    assert_eq!(reply.header("x-accel-buffering"), Some("no"));
    let got = fallback.received().pop().unwrap();
    assert_eq!(got.body, body.as_bytes());
    let expected = [
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_URI", "/e.php/a%2Fb/w?c=%2F"),
        ("QUERY_STRING", "c=%2F"),
        ("CONTENT_TYPE", "application/x-www-form-urlencoded"),
        ("HTTP_LAST_EVENT_ID", "434"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        // An empty parameter of that name is left out, and so is the header.
        ("HTTP_PROXY", "(none)"),
    ];
    for (name, value) in expected {
        assert_eq!(field(&got, name), value, "{name}");
    }
    assert_eq!(field(&got, "CONTENT_LENGTH"), body.len().to_string());
    assert_eq!(http::request("HEAD", "/e/a").send(nginx.address()).status, 200);
    assert_eq!(field(&fallback.received().pop().unwrap(), "REQUEST_METHOD"), "HEAD");
}

#[test]
fn client_is_told_to_come_back_when_nobody_answers() {
    let (nobody, fallback) = (Nobody::new(), Stub::fallback(Act::HangUp));
    let mut server = WebServer::nginx(&nobody.address(), &nobody.address());
    for fallback_dies in [false, true] {
        if fallback_dies {
            server = WebServer::nginx(&nobody.address(), fallback.address());
        }
        // The fallback may have published before it died.
        let lost = if fallback_dies { "outcome_unknown" } else { "unreachable" };
        for (request, code) in [(http::get("/e/a"), "unreachable"), (http::post_json("/publish", "{}"), lost)]
        {
            let reply = request.send(server.address());
            assert_eq!((reply.status, reply.reconnect_in()), (503, 10));
            assert_eq!(reply.header("content-type"), Some("application/problem+json"));
            assert_eq!((&reply.json()["code"], &reply.json()["reconnect_in"]), (&code.into(), &10.into()));
        }
    }
}

#[test]
fn stream_that_nobody_answers_is_no_error_to_a_browser() {
    let nobody = Nobody::new();
    let nginx = WebServer::nginx(&nobody.address(), &nobody.address());
    for request in [
        sse::get("/e/a/w?last_event_id=7"),
        sse::get("/e.php/a/w"),
        http::get("/e/a").header("Accept", "text/html, text/event-stream;q=0.9"),
        http::get("/e/a?x=1&flavor=eventsource"),
        http::get("/e/a?flavor=short-poll").header("Flavor", "eventsource"),
    ] {
        let mut stream = EventStream::open(nginx.address(), &request);
        let kind = stream.head.header("content-type");
        assert_eq!((stream.head.status, kind), (200, Some("text/event-stream; charset=utf-8")));
        assert!(stream.head.header("cache-control").is_some_and(|cache| cache.contains("no-store")));
        let (end, id) = stream.expect("everpoll:end");
        assert_eq!((&end["reason"], &end["reconnect_in"]), (&"unreachable".into(), &10.into()));
        // Without one, the browser comes back with the one that it has.
        assert_eq!(id, "");
        assert_eq!((stream.rest().len(), stream.parser().retry()), (0, Some(10_000)));
    }
    for request in [
        http::get("/e/a?flavor=long-poll").header("Accept", "text/event-stream"),
        http::get("/e/a").header("Accept", "text/event-streams, */*").header("Flavor", "short-poll"),
        http::get("/e/a?xflavor=eventsource"),
        websocket::request("/e/a?flavor=websocket"),
    ] {
        assert_eq!(request.send(nginx.address()).status, 503, "{}", request.target());
    }
}

#[test]
fn what_is_never_silent_outlives_the_time_out() {
    let (store, directory) = (Store::sqlite(), TestDir::new());
    let socket = Address::Unix(directory.join("daemon.sock"));
    let daemon = Daemon::on(store.url()).at(&socket).setting("EVERPOLL_HEARTBEAT", 1).start();
    let nobody = Nobody::new();
    let nginx = WebServer::nginx_with(daemon.address(), &nobody.address(), |config| {
        config.replace("proxy_read_timeout 75s;", "proxy_read_timeout 3s;")
    });
    let address = nginx.address();
    // All at once, since each takes its time.
    let began = Instant::now();
    let silent = http::get("/e/b?hold=8").begin(address);
    let padded = http::get("/e/b?hold=8&pad=1024&beat=1&envelope=1").begin(address);
    let mut stream = EventStream::open(address, &sse::get("/e/a"));
    let mut socket = WebSocket::open(address, "/e/a?flavor=websocket");
    stream.expect("everpoll:hello");
    socket.expect("everpoll:hello");
    // It answers pings while it waits for what does not come.
    assert!(socket.receive(Duration::from_secs(5)).is_err());
    let json = r#"{"channel":"a","type":"made","data":1}"#;
    assert_eq!(http::post_json("/publish", json).send(daemon.address()).status, 201);
    stream.expect("made");
    socket.expect("made");

    // nginx gives up on the daemon, and nobody else is there.
    assert_eq!(silent.reply().status, 503);
    let padded = padded.reply();
    assert!(began.elapsed() >= Duration::from_secs(8), "{padded:?}");
    assert_eq!((padded.status, padded.body.len(), &padded.json()["end"]), (200, 1024, &1.into()));
    assert!(padded.text().starts_with("     "), "a space each second: {:?}", padded.text());
}

#[test]
fn browser_client_comes_from_either_program() {
    let (store, directory) = (Store::sqlite(), TestDir::new());
    let socket = Address::Unix(directory.join("daemon.sock"));
    let mut daemon = Daemon::on(store.url()).at(&socket).start();
    let fallback = Fallback::on(store.url()).start();
    let nginx = WebServer::nginx(daemon.address(), fallback.address());
    let versioned = format!("/everpoll.{SCRIPT_HASH}.js");
    let mut scripts = Vec::new();
    for daemon_runs in [true, false] {
        for (target, cache) in [
            ("/everpoll.js", "public, max-age=3600"),
            (versioned.as_str(), "public, max-age=31536000, immutable"),
            // From before an update: what there is now, and not for ever.
            ("/everpoll.0123456789abcdef.js", "public, max-age=3600"),
        ] {
            let reply = http::get(target).send(nginx.address());
            assert_eq!((reply.status, reply.header("cache-control")), (200, Some(cache)), "{target}");
            let tag = reply.header("etag").expect("it has a tag");
            let again = http::get(target).header("If-None-Match", tag).send(nginx.address());
            assert_eq!((again.status, again.body.len()), (304, 0), "{target}, daemon: {daemon_runs}");
            scripts.push(reply.body);
        }
        if daemon_runs {
            // Smaller on the way, and known under its weak tag.
            let packed = http::get("/everpoll.js").header("Accept-Encoding", "gzip").send(nginx.address());
            assert_eq!(packed.header("content-encoding"), Some("gzip"));
            let tag = packed.header("etag").expect("it has a tag");
            let again =
                http::get("/everpoll.js").header("Accept-Encoding", "gzip").header("If-None-Match", tag);
            assert_eq!(again.send(nginx.address()).status, 304);
            daemon.stop();
        }
    }
    assert!(!scripts[0].is_empty() && scripts.iter().all(|script| *script == scripts[0]));
}

#[test]
fn errors_of_the_fallback_are_its_own() {
    let (nobody, fallback) = (Nobody::new(), fallback());
    let nginx = WebServer::nginx(&nobody.address(), fallback.address());
    fallback
        .act(Act::Answer("Status: 503 No\r\nContent-Length: 2\r\nx-ps-reconnect-in: 7\r\n\r\n{}".to_owned()));
    let reply = http::get("/e/a").send(nginx.address());
    assert_eq!((reply.status, reply.reconnect_in(), reply.body.as_slice()), (503, 7, &b"{}"[..]));
}

#[test]
fn publish_that_never_reached_the_daemon_is_done_by_the_fallback() {
    let (nobody, fallback) = (Nobody::new(), fallback());
    let nginx = WebServer::nginx(&nobody.address(), fallback.address());
    let body = format!("{{\"data\":\"{}\"}}", "x".repeat(3_000_000));
    assert_from(&http::post_json("/publish", body.as_str()).send(nginx.address()), "fallback");
    assert!(fallback.received().pop().unwrap().body == body.as_bytes(), "the body arrived whole");
}

#[test]
fn publish_that_the_daemon_may_have_done_is_not_done_again() {
    let (daemon, fallback) = (Stub::daemon(Act::HangUp), fallback());
    let nginx = WebServer::nginx(daemon.address(), fallback.address());
    let reply = http::post_json("/publish", "{}").send(nginx.address());
    assert_eq!((reply.status, reply.json()["code"].as_str()), (503, Some("outcome_unknown")));

    daemon.act(Act::Answer(DAEMON_503.to_owned()));
    let reply = http::post_json("/publish", "{}").send(nginx.address());
    assert_eq!((reply.status, reply.header("x-from")), (503, Some("daemon")));
    assert_eq!(daemon.received().len(), 2);
    assert!(fallback.received().is_empty());
}

#[test]
fn nothing_else_of_the_daemon_is_reachable() {
    let (daemon, fallback) = (daemon(), fallback());
    let nginx = WebServer::nginx(daemon.address(), fallback.address());
    for target in
        ["/", "/healthz", "/readyz", "/metrics", "/everything", "/e.phpx", "/publish/x", "/publish.php"]
    {
        assert_eq!(http::get(target).send(nginx.address()).status, 404, "{target}");
    }
    assert!(daemon.received().is_empty());
}

#[test]
fn polls_above_the_limit_of_an_address_are_answered_by_the_fallback() {
    let (daemon, fallback) = (Stub::daemon(Act::Hold), fallback());
    // This machine's own addresses are not counted, so the test counts them, up to two.
    let nginx = WebServer::nginx_with(daemon.address(), fallback.address(), |config| {
        config
            .replace("127.0.0.0/8 0;", "127.0.0.0/8 1;")
            .replace("everpoll_clients 1000;", "everpoll_clients 2;")
    });
    // Whatever takes a connection for long counts.
    let mut held = [http::get("/e/a"), sse::get("/e/a")].map(|request| request.begin(nginx.address()));
    daemon.wait_for_requests(2);
    for request in [http::get("/e/a"), sse::get("/e/a"), websocket::request("/e/a?flavor=websocket")] {
        assert_from(&request.send(nginx.address()), "fallback");
    }
    assert!(held.iter_mut().all(http::Held::is_waiting));
}

/// A file of the shipped configuration with its comments about `auth_request` done: this application is asked.
pub(crate) fn asking(config: &str, application: &str) -> String {
    let lines = config.lines().map(|line| {
        let text = line.trim_start();
        let belongs = text.starts_with("#auth_request")
            || text.starts_with("#location")
            || text.starts_with("#    ")
            || text == "#}";
        if belongs && !text.contains("include") { text[1..].to_owned() } else { line.to_owned() }
    });
    lines.map(|line| line + "\n").collect::<String>().replace("http://127.0.0.1:8000/may-poll", application)
}

#[test]
fn application_is_asked_before_each_poll_whoever_answers_it() {
    let (daemon, fallback) = (daemon(), fallback());
    let application = Stub::daemon(Act::Answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()));
    let socket = format!("http://unix:{}:/may-poll", application.path().display());
    let nginx = WebServer::nginx_with(daemon.address(), fallback.address(), |config| asking(config, &socket));

    assert_from(&http::request("POST", "/e/a?x").body("hold=1").send(nginx.address()), "daemon");
    let asked = application.received().pop().unwrap();
    assert_eq!((asked.line.as_str(), field(&asked, "x-original-uri")), ("GET /may-poll HTTP/1.0", "/e/a?x"));
    assert_eq!(http::get("/everpoll-auth").send(nginx.address()).status, 404);

    application.act(Act::Answer("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_owned()));
    assert_eq!(http::get("/e/a").send(nginx.address()).status, 403);
    daemon.act(Act::HangUp);
    assert_eq!(http::get("/e/a").send(nginx.address()).status, 403);
    assert!(fallback.received().is_empty());
}

#[test]
fn websocket_opens_on_a_connection_that_had_a_poll_with_a_body() {
    let store = Store::sqlite();
    let (daemon, nobody) = (Daemon::on(store.url()).start(), Nobody::new());
    let nginx = WebServer::nginx(daemon.address(), &nobody.address());
    for round in 0..10 {
        let poll = http::request("POST", "/e/cheese").body("flavor=short-poll").send(nginx.address());
        assert_eq!(poll.status, 200, "{}", poll.text());
        let opened = WebSocket::try_open(nginx.address(), &websocket::request("/e/cheese"));
        let mut socket = opened.unwrap_or_else(|error| panic!("round {round}: {error}"));
        socket.expect("everpoll:hello");
    }
}

#[test]
fn body_that_the_daemon_refuses_early_is_answered_by_the_daemon() {
    let store = Store::sqlite();
    let daemon = Daemon::on(store.url()).setting("EVERPOLL_BODY_MAX", "1088KiB").start();
    let nobody = Nobody::new();
    let nginx = WebServer::nginx(daemon.address(), &nobody.address());
    for _ in 0..10 {
        let publish = http::post_json("/publish", "x".repeat(8_000_000)).send(nginx.address());
        assert_eq!((publish.status, publish.json()["code"].as_str()), (413, Some("body_too_large")));
        let poll = http::request("POST", "/e/cheese").body("x".repeat(120_000)).send(nginx.address());
        assert_eq!((poll.status, poll.json()["code"].as_str()), (413, Some("body_too_large")));
    }
}
