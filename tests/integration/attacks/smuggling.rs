//! Requests whose end can be told in more than one way: what one server takes for a body, the next takes for a request.
//!
//! In each of them hides a publish, which this machine may do without a key. It must never be done, nor must there be a second
//! reply: on a connection that a web server shares among clients, it would be somebody else's.

use std::sync::Mutex;

use everpoll_tests::http;
use everpoll_tests::websocket;

use super::{MEMORY_MAX, Stage, attack, code, each};

/// What is hidden.
const INNER: &str = "POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 48\r\n\r\n\
                     {\"channel\":\"smuggled\",\"type\":\"made\",\"data\":\"in\"}\n";

/// What the first server may see of it.
enum Then {
    /// A request that is none: it is refused, and the connection is closed.
    Refused,
    /// A body, whatever is in it. The reply is the only one, and the connection is closed as was asked for.
    Body,
    /// Either: nginx forgives some, and passes on what is well formed.
    Either,
}

use Then::{Body, Either, Refused};

fn shapes() -> Vec<(String, Vec<u8>, Then)> {
    let length = INNER.len();
    let chunked = format!("0\r\n\r\n{INNER}");
    let in_a_chunk = format!("{length:x}\r\n{INNER}\r\n0\r\n\r\n");
    let post = |fields: &str, body: &str| {
        let start = "POST /e/cheese?flavor=short-poll HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
        format!("{start}{fields}\r\n\r\n{body}").into_bytes()
    };
    let mut shapes: Vec<(String, Vec<u8>, Then)> = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>, then| shapes.push((name.to_owned(), bytes, then));
    let both = format!("Content-Length: {}\r\nTransfer-Encoding: chunked", chunked.len());
    add("length, then chunks", post(&both, &chunked), Refused);
    let both = format!("Transfer-Encoding: chunked\r\nContent-Length: {}", chunked.len());
    add("chunks, then length", post(&both, &chunked), Refused);
    add("chunks and length 0", post("Transfer-Encoding: chunked\r\nContent-Length: 0", &in_a_chunk), Refused);
    for coding in [
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        "chunked, chunked",
        "gzip, chunked",
        "chunked;q=1",
        "\"chunked\"",
        "cow",
        "",
        "identity",
        "\x0bchunked",
        "chunked\x00",
        "chun\rked",
    ] {
        add(&format!("coding {coding:?}"), post(&format!("Transfer-Encoding: {coding}"), &chunked), Refused);
    }
    for fields in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\r\n\tTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding",
        ": chunked",
        "Transfer\0-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
    ] {
        let with_length = format!("{fields}\r\nContent-Length: {}", chunked.len());
        add(&format!("{fields:?} and a length"), post(&with_length, &chunked), Refused);
        add(&format!("{fields:?}"), post(fields, &chunked), Refused);
    }
    for wrong in [
        format!("-{length}"),
        format!("+{length}"),
        format!("0x{length:x}"),
        format!("{length}, {length}"),
        format!("0, {length}"),
        format!("{length} {length}"),
        format!("{length}.0"),
        format!("{length};"),
        format!("{length}e0"),
        "18446744073709551616".to_owned(),
        "18446744073709551615".to_owned(),
        "\u{666}\u{667}".to_owned(),
        "one".to_owned(),
    ] {
        add(&format!("length {wrong:?}"), post(&format!("Content-Length: {wrong}"), INNER), Refused);
    }
    for (first, second) in [(0, length), (length, 0), (length, length)] {
        let fields = format!("Content-Length: {first}\r\nContent-Length: {second}");
        add(&format!("lengths {first} and {second}"), post(&fields, INNER), Refused);
    }
    for size in ["-1", "+5", "0x5", "5 5", "g", "ffffffffffffffff1", "ffffffffffffffff", ";", "5\n", "\r\n"] {
        let body = format!("{size}\r\n{INNER}\r\n0\r\n\r\n");
        add(&format!("a chunk of {size:?}"), post("Transfer-Encoding: chunked", &body), Refused);
    }
    let unended = format!("3\r\nx=yy0\r\n\r\n{INNER}");
    add("a chunk that ends late", post("Transfer-Encoding: chunked", &unended), Refused);
    let extended = format!("3;{}\r\nx=y\r\n0\r\n\r\n", "e".repeat(1 << 20));
    add("an extension of a mebibyte", post("Transfer-Encoding: chunked", &extended), Either);
    let start = "POST /e/cheese HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    add("chunks in HTTP/1.0", format!("{start}{chunked}").into_bytes(), Refused);
    for line in [
        "GET POLL HTTP/1.1 HTTP/1.1",
        "GET  POLL HTTP/1.1",
        "GET POLL HTTP/1.1\r",
        "GET\tPOLL\tHTTP/1.1",
        " GET POLL HTTP/1.1",
    ] {
        let line = line.replace("POLL", "/e/cheese?flavor=short-poll");
        let head = format!("{line}\r\nHost: a\r\nConnection: close\r\n\r\n{INNER}");
        add(&format!("{line:?}"), head.into_bytes(), Either);
    }

    add("in the body", post(&format!("Content-Length: {length}"), INNER), Body);
    add("in a chunk", post("Transfer-Encoding: chunked", &in_a_chunk), Body);
    add("in a chunk, in capitals", post("TRANSFER-ENCODING: CHUNKED", &in_a_chunk), Body);
    let extended =
        format!("{length:x};name=\"value\"\r\n{INNER}\r\n0\r\nContent-Length: 5\r\nHost: b\r\n\r\n");
    add("in a chunk with an extension, and trailers", post("Transfer-Encoding: chunked", &extended), Body);
    let fields = format!("Transfer_Encoding: chunked\r\nContent-Length: {length}");
    add("with an underscore", post(&fields, INNER), Body);
    let fields = format!("Content-Length: {length}\r\nExpect: 100-continue");
    add("unasked, although it was to be asked for", post(&fields, INNER), Body);
    let get = format!(
        "GET /e/cheese?flavor=short-poll HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{INNER}"
    );
    add("in the body of a GET", get.into_bytes(), Body);
    shapes
}

#[test]
fn hidden_requests_are_not_served() {
    let mut stage = Stage::new();
    let mut bystanders = stage.bystanders();
    let shapes = shapes();
    println!("{} shapes", shapes.len());
    for (name, address) in stage.doors() {
        let wrong = Mutex::new(Vec::new());
        bystanders.during(&format!("hidden requests at the {name}"), MEMORY_MAX, || {
            each(&shapes, |(what, bytes, then)| {
                let answer = attack(address, bytes);
                let replies = answer.replies();
                let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
                let fine = match then {
                    // Where a server closes with bytes unread, its reply may not arrive.
                    Refused => matches!(statuses[..], [] | [400 | 405 | 408 | 413 | 431 | 501]),
                    Body => statuses == [200],
                    Either => matches!(statuses[..], [] | [200 | 400 | 413 | 431]),
                };
                // The daemon says what is wrong, in JSON.
                let told = name != "daemon"
                    || !matches!(then, Refused)
                    || replies.iter().all(|reply| !code(reply).is_empty());
                if !fine || !answer.closed || !told {
                    let told = format!("{what}, closed: {}: {}", answer.closed, answer.text());
                    wrong.lock().expect("nobody panics with it").push(told);
                }
            });
        });
        let wrong = wrong.into_inner().expect("nobody panics with it");
        assert!(wrong.is_empty(), "at the {name}:\n{}", wrong.join("\n"));
        let smuggled = http::get("/e/smuggled?last_event_id=0&flavor=short-poll").send(address);
        assert_eq!(smuggled.events(), [], "through the {name}");
    }
    // Sent by itself it would be done.
    assert!(
        attack(stage.daemon.address(), INNER.replace("Host: a", "Host: a\r\nConnection: close").as_bytes())
            .text()
            .contains("201")
    );
    bystanders.finish();
    stage.assert_well();
}

/// Behind a handshake that is refused, nginx must not take the connection for a tunnel to the daemon: what follows is a request to
/// nginx, which shows nothing of what is the daemon's own.
#[test]
fn refused_handshakes_open_no_tunnel() {
    let stage = Stage::new();
    let [_, (_, nginx), (_, fallback)] = stage.doors();
    let inner = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let metrics = http::get("/metrics").send(stage.daemon.address());
    assert!(metrics.text().contains("everpoll_"), "the daemon itself shows them");
    let upgrade = |protocol: &str, more: &str| {
        format!(
            "GET /e/cheese?hold=0 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{more}\r\n{inner}"
        )
    };
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for address in [nginx, fallback] {
        for bytes in [
            upgrade("websocket", &format!("{key}Sec-WebSocket-Version: 777\r\n")),
            upgrade("websocket", "Sec-WebSocket-Version: 13\r\n"),
            upgrade(
                "websocket",
                &format!("{key}Sec-WebSocket-Version: 13\r\nOrigin: http://evil.example\r\n"),
            ),
            upgrade("h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"),
            upgrade("TLS/1.0", ""),
        ] {
            let answer = attack(address, bytes.as_bytes());
            let replies = answer.replies();
            assert!(!answer.text().contains("everpoll_"), "{}", answer.text());
            assert!(!answer.text().contains("HTTP/1.1 101"), "{}", answer.text());
            // The second is nginx' own, if there is one.
            assert!(replies.len() < 2 || replies[1].status == 404, "{bytes}: {}", answer.text());
        }
    }
    // Behind one that is agreed on, it is no frame.
    let mut socket = everpoll_tests::WebSocket::open(nginx, "/e/cheese?last_event_id=0");
    socket.expect("everpoll:hello");
    socket.send_bytes(inner.as_bytes()).expect("it is open");
    assert_eq!(socket.closed().0, 1002);
    // And the daemon, which is asked for this protocol, does not take another.
    let reply = websocket::request("/e/cheese?hold=0").header("X", "y").send(fallback);
    assert_eq!(reply.status, 426);
}
