//! How a WebSocket is opened, and how each mistake is told to whoever makes it.

use everpoll_tests::http::{self, Request};
use everpoll_tests::{Daemon, Reply, Sqlite, WebSocket, websocket};

use crate::site::{Site, Store};

const TARGET: &str = "/e/cheese?last_event_id=0&flavor=websocket";

/// The handshake with one header replaced, or left out.
fn with(name: &str, value: Option<&str>) -> Request {
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let others = headers.into_iter().filter(|(other, _)| *other != name);
    let request = others.fold(http::get(TARGET), |request, (name, value)| request.header(name, value));
    match value {
        Some(value) => request.header(name, value),
        None => request,
    }
}

#[track_caller]
fn assert_refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?}");
    assert_eq!(reply.json()["code"].as_str(), Some(code), "{reply:?}");
    assert!(reply.json()["detail"].as_str().is_some_and(|detail| detail.len() > 20), "{reply:?}");
}

#[test]
fn good_handshakes_are_answered_as_the_rfc_says() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).start();
    let good = [
        with("Upgrade", Some("WebSocket")),
        with("Connection", Some("keep-alive, upgrade")),
        // Offers that are not taken up: neither compression nor a protocol is agreed on (the harness looks at that).
        with("x", None).header("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
        with("x", None).header("Sec-WebSocket-Protocol", "chat, superchat"),
        with("x", None).header("Origin", "http://localhost"),
        with("Host", Some("shop.example:8080")).header("Origin", "https://shop.example"),
        // Without the parameter: whoever says Upgrade means it.
        websocket::request("/e/cheese"),
        websocket::request("/e.php/cheese/w?flavor=websocket"),
    ];
    for request in &good {
        match WebSocket::try_open(daemon.address(), request) {
            Ok(mut socket) => {
                assert_eq!(socket.head.reason, "Switching Protocols");
                assert_eq!(socket.head.header("content-length"), None, "{:?}", socket.head);
                socket.expect("everpoll:hello");
            }
            Err(error) => panic!("{request:?}: {error}"),
        }
    }
}

#[test]
fn mistakes_in_a_handshake_are_told_apart() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).start();
    for version in [None, Some("8"), Some("14"), Some("x")] {
        let reply = with("Sec-WebSocket-Version", version).send(daemon.address());
        assert_refused(&reply, 426, "websocket_version");
        assert_eq!(reply.header("sec-websocket-version"), Some("13"), "{reply:?}");
    }
    for key in
        [None, Some(""), Some("short"), Some("dGhlIHNhbXBsZSBub25jZQ=A"), Some("dGhlIHNhbXBsZSBub25jZR==")]
    {
        assert_refused(
            &with("Sec-WebSocket-Key", key).send(daemon.address()),
            400,
            "websocket_key_malformed",
        );
    }
    // What is wrong with the poll itself is told as for any other.
    let bad = websocket::request("/e/cheese?last_event_id=x&flavor=websocket").send(daemon.address());
    assert_refused(&bad, 400, "cursor_malformed");
}

#[test]
fn request_whose_upgrade_was_stripped_is_refused_at_once() {
    let site = Site::on(Store::sqlite());
    let stripped = [
        with("Upgrade", None),
        with("Connection", Some("keep-alive")),
        with("Connection", Some("close")),
        with("Upgrade", Some("h2c")),
        http::get(TARGET),
        http::get("/e/cheese").header("flavor", "websocket"),
        // HTTP/1.0 knows no upgrade.
        with("x", None).header("Host", "localhost").http10(),
    ];
    for request in &stripped {
        for (_, address) in site.doors() {
            let reply = request.send(address);
            assert_refused(&reply, 426, "upgrade_required");
            assert_eq!(reply.header("upgrade"), Some("websocket"), "{reply:?}");
        }
    }
    // The fallback holds nothing, so it cannot be one, whatever the request says.
    let [_, (_, fallback)] = site.doors();
    assert_refused(&with("x", None).send(fallback), 426, "upgrade_required");
}

#[test]
fn post_is_no_handshake() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).start();
    let post = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .fold(http::request("POST", TARGET), |request, (name, value)| request.header(name, value));
    let reply = post.header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==").send(daemon.address());
    assert!((400..500).contains(&reply.status), "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?}");
}

#[test]
fn pages_of_other_hosts_are_refused_unless_they_are_allowed() {
    let log = Sqlite::new();
    let closed = Daemon::on(log.url()).start();
    let open = Daemon::on(log.url()).setting("EVERPOLL_ALLOW_ORIGINS", "https://shop.example").start();
    let from = |origin: &str| with("Host", Some("events.example")).header("Origin", origin);
    for origin in
        ["https://evil.example", "null", "https://events.example.evil.example", "https://shop.example:444"]
    {
        for daemon in [&closed, &open] {
            assert_refused(&from(origin).send(daemon.address()), 403, "origin_not_allowed");
        }
    }
    assert_refused(&from("https://shop.example").send(closed.address()), 403, "origin_not_allowed");
    for (daemon, origin) in [
        (&closed, "https://events.example"),
        (&open, "https://events.example"),
        (&open, "https://shop.example"),
    ] {
        let socket = WebSocket::try_open(daemon.address(), &from(origin));
        assert!(socket.is_ok(), "{origin}: {socket:?}");
    }
    // A program that is no browser has no origin.
    assert!(WebSocket::try_open(closed.address(), &with("Host", Some("events.example"))).is_ok());
}

#[test]
fn frame_sent_with_the_handshake_is_read() {
    use everpoll_tests::websocket::{Frame, Received, opcode};
    use std::io::Write;
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).start();
    let mut stream = daemon.address().connect().expect("it listens");
    let ping = Frame::new(opcode::PING, "early").masked();
    stream.write_all(&[with("x", None).bytes(), ping].concat()).expect("it reads");
    let mut socket = WebSocket::on(stream).expect("it agrees");
    let mut pong = false;
    while !pong {
        match socket.receive(everpoll_tests::wait::PATIENCE) {
            Ok(Received::Frame(frame)) => pong = frame == Frame::new(opcode::PONG, "early"),
            other => panic!("{other:?}"),
        }
    }
}
