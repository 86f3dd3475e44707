//! The snippets of `docs/how-to/`, run by the servers that they are for.
//!
//! In the fallback's place there is a script that shows what it was handed, or a stand-in for its socket. What the
//! fallback itself answers is compared with the daemon elsewhere.

use std::collections::BTreeMap;

use everpoll_tests::http::{self, Address, Request};
use everpoll_tests::stub::{Act, Stub};
use everpoll_tests::web::Places;
use everpoll_tests::{Daemon, EventStream, Fallback, Reply, TestDir, WebServer, WebSocket, sse, websocket};

use crate::site::Store;

/// Answers with its environment and its input.
const SHOW: &str = r#"#!/bin/sh
printf 'Status: 203 Shown\r\nContent-Type: text/plain\r\nx-ps-reconnect-in: 7\r\n\r\n'
env
printf '\nBODY='
[ -z "$CONTENT_LENGTH" ] || head -c "$CONTENT_LENGTH"
"#;

const DATABASE: &str = "sqlite:/nowhere/test.db";

fn places() -> Places {
    Places::with_program(SHOW, DATABASE)
}

/// What the script was handed; of several lines with one name the last.
fn shown(reply: &Reply) -> BTreeMap<&str, &str> {
    reply.text().lines().filter_map(|line| line.split_once('=')).collect()
}

/// What each CGI host must hand over for the fallback to know the request.
#[track_caller]
fn assert_hands_over(server: &WebServer) {
    let reply = post("/e.php/a%20b/w?c=%2F").send(server.address());
    assert_eq!((reply.status, reply.reconnect_in()), (203, 7), "{}", server.log());
    let shown = shown(&reply);
    let expected = [
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_URI", "/e.php/a%20b/w?c=%2F"),
        ("QUERY_STRING", "c=%2F"),
        ("CONTENT_TYPE", "application/x-www-form-urlencoded"),
        ("CONTENT_LENGTH", "15"),
        ("HTTP_LAST_EVENT_ID", "434"),
        ("HTTP_AUTHORIZATION", "Bearer secret"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("EVERPOLL_DATABASE_URL", DATABASE),
        ("EVERPOLL_ACCESS", "open"),
        ("BODY", "last_event_id=7"),
    ];
    for (name, value) in expected {
        assert_eq!(shown.get(name), Some(&value), "{name}\n{}", reply.text());
    }
    let scripts = ["/everpoll.js", "/everpoll.0123456789abcdef.js"];
    for target in ["/e/a/w", "/e/a%2Fb", "/e", "/publish"].into_iter().chain(scripts) {
        assert_eq!(http::get(target).send(server.address()).status, 203, "{target}");
    }
    for target in ["/everything", "/e.phpx", "/published", "/", "/everpoll.min.js", "/everpoll.jsx"] {
        assert_ne!(http::get(target).send(server.address()).status, 203, "{target}");
    }
}

/// The same, handed to a listening fallback.
#[track_caller]
fn assert_hands_over_to(fallback: &Stub, server: &WebServer) {
    let scripts = ["/everpoll.js", "/everpoll.0123456789abcdef.js"];
    for target in ["/e/a/w", "/e.php/a%20b/w?c=%2F", "/e/a%2Fb", "/e", "/publish"].into_iter().chain(scripts)
    {
        let reply = post(target).send(server.address());
        assert_eq!((reply.status, reply.text()), (203, "shown"), "{target}\n{}", server.log());
        let received = fallback.received().pop().expect("it answered");
        let expected = [
            ("REQUEST_METHOD", "POST"),
            ("REQUEST_URI", target),
            ("QUERY_STRING", target.split_once('?').map_or("", |(_, query)| query)),
            ("HTTP_LAST_EVENT_ID", "434"),
            ("HTTP_AUTHORIZATION", "Bearer secret"),
            ("REMOTE_ADDR", "127.0.0.1"),
        ];
        for (name, value) in expected {
            let got = received.fields.get(name).map_or("(none)", String::as_str);
            assert_eq!(got, value, "{name} of {target}: {:?}", received.fields);
        }
        assert_eq!(received.body, b"last_event_id=7");
    }
    for target in ["/everything", "/e.phpx", "/published", "/", "/everpoll.min.js", "/everpoll.jsx"] {
        assert_ne!(http::get(target).send(server.address()).status, 203, "{target}");
    }
}

fn post(target: &str) -> Request {
    http::request("POST", target)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Last-Event-Id", "434")
        .header("Authorization", "Bearer secret")
        .body("last_event_id=7")
}

fn fallback() -> Stub {
    Stub::fallback(Act::Answer("Status: 203 Shown\r\nContent-Length: 5\r\n\r\nshown".to_owned()))
}

#[test]
fn apache_runs_the_fallback_as_cgi() {
    assert_hands_over(&WebServer::apache("As CGI", places()));
}

#[test]
fn apache_passes_to_a_listening_fallback() {
    let fallback = fallback();
    let places = places().fallback(fallback.address());
    assert_hands_over_to(&fallback, &WebServer::apache("As FastCGI", places));
}

#[test]
fn lighttpd_runs_the_fallback_as_cgi() {
    assert_hands_over(&WebServer::lighttpd("As CGI", places()));
}

#[test]
fn lighttpd_passes_to_a_listening_fallback() {
    let fallback = fallback();
    let places = places().fallback(fallback.address());
    assert_hands_over_to(&fallback, &WebServer::lighttpd("As FastCGI", places));
}

#[test]
fn python_runs_the_fallback_as_cgi() {
    let server = WebServer::python("The script", places());
    let reply = post("/cgi-bin/e.php/a%20b/w?last_event_id=434").send(server.address());
    let shown = shown(&reply);
    let expected = [
        ("REQUEST_METHOD", "POST"),
        ("SCRIPT_NAME", "/cgi-bin/e.php"),
        ("PATH_INFO", "/a b/w"),
        ("QUERY_STRING", "last_event_id=434"),
        ("CONTENT_LENGTH", "15"),
        ("EVERPOLL_DATABASE_URL", DATABASE),
        ("BODY", "last_event_id=7"),
    ];
    for (name, value) in expected {
        assert_eq!(shown.get(name), Some(&value), "{name}\n{}", reply.text());
    }
    // What the page says is missing; when it no longer is, the page is to be changed.
    assert!(!shown.contains_key("HTTP_LAST_EVENT_ID") && !shown.contains_key("REQUEST_URI"));
    assert_eq!(reply.status, 200);
}

#[test]
fn apache_in_front_of_the_daemon_goes_on_with_the_fallback() {
    let daemon = Stub::daemon(Act::Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]".to_owned()));
    let fallback = fallback();
    let places = places().daemon(daemon.address()).fallback(fallback.address());
    let server = WebServer::apache("In front of the daemon", places);
    for target in ["/e/a%20b/w?x=%2F", "/e.php/a/w"] {
        let pretended =
            post(target).header("X-Everpoll-Channels", "*").header("x-everpoll-until", "9999999999");
        assert_eq!(pretended.send(server.address()).text(), "[]");
        let received = daemon.received().pop().expect("it answered");
        let names = ["x-everpoll-channels", "x-everpoll-until"];
        assert!(!names.iter().any(|name| received.fields.contains_key(*name)), "{:?}", received.fields);
        assert_eq!(received.line, format!("POST {target} HTTP/1.1"));
        assert_eq!(
            (received.fields["last-event-id"].as_str(), &received.body[..]),
            ("434", &b"last_event_id=7"[..])
        );
    }

    // A poll that is held when the daemon dies is lost, as the page says.
    daemon.act(Act::HangUp);
    assert_eq!(http::get("/e/a").send(server.address()).status, 502);
    drop(daemon);
    // This one finds out that the daemon is away; had it a body, that would be lost, as the page says.
    assert_eq!(http::get("/e/a").send(server.address()).text(), "shown");
    for target in ["/e/a%20b/w?x=%2F", "/e.php/a/w"] {
        let reply = post(target).send(server.address());
        assert_eq!((reply.status, reply.text()), (203, "shown"), "{}", server.log());
        let received = fallback.received().pop().expect("it answered");
        assert_eq!(received.fields["REQUEST_URI"], target);
        assert_eq!(received.body, b"last_event_id=7");
    }
}

#[test]
fn apache_in_front_of_the_daemon_passes_streams_on() {
    let (store, directory) = (Store::sqlite(), TestDir::new());
    let socket = Address::Unix(directory.join("daemon.sock"));
    let mut daemon = Daemon::on(store.url()).at(&socket).setting("EVERPOLL_HEARTBEAT", 1).start();
    let fallback = Fallback::on(store.url()).start();
    let places = Places::new(store.url()).daemon(daemon.address()).fallback(fallback.address());
    let server = WebServer::apache("In front of the daemon", places);
    let address = server.address();

    let mut stream = EventStream::open(address, &sse::get("/e/cheese?last_event_id=0"));
    stream.expect("everpoll:hello");
    let mut socket = WebSocket::open(address, "/e/cheese?flavor=websocket&last_event_id=0");
    socket.expect("everpoll:hello");
    let padded = http::get("/e/cheese?last_event_id=0&pad=1024&beat=1&envelope=1").begin(address);
    // Each by itself: what is buffered would come later, or not at all.
    stream.wait_for("a heartbeat passes", |text| text.ends_with(":\n"));
    let id = daemon.publish(r#"{"channel":"cheese","type":"made","data":1}"#)[0];
    assert_eq!(stream.expect("made").1, id.to_string());
    assert_eq!(socket.expect("made")["id"], id);
    let padded = padded.reply();
    assert_eq!((padded.body.len(), &padded.json()["cursor"]), (1024, &id.to_string().into()));
    let script = http::get("/everpoll.js").send(address);
    assert_eq!((script.status, script.header("cache-control")), (200, Some("public, max-age=3600")));

    drop((stream, socket));
    daemon.stop();
    // The first finds out that the daemon is away; from then on the fallback is asked.
    http::get("/e/cheese?flavor=short-poll").send(address);
    let mut stream = EventStream::open(address, &sse::get("/e/cheese?last_event_id=0"));
    stream.expect("everpoll:hello");
    assert_eq!(stream.expect("made").1, id.to_string());
    assert_eq!(stream.expect("everpoll:end").0["reason"], "short_poll");
    let refused = websocket::request("/e/cheese?flavor=websocket").send(address);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (426, Some("upgrade_required")));
    assert!(http::get("/everpoll.js").send(address).body == script.body);
}
