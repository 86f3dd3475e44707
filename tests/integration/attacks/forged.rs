//! Clients that pretend to be the web server in front: its headers, its variables, another address.
//!
//! What a header named so does from a peer that is not listed is told in `access::proxy`; here it comes in all spellings, many at
//! once, and over FastCGI itself.

use std::io::{Read, Write};

use everpoll_tests::http::{self, Address};
use everpoll_tests::stub::{Act, Stub};
use everpoll_tests::{Daemon, Fallback, TestDir, WebServer};
use serde_json::Value;

use super::{attack, code};
use crate::nginx::asking;
use crate::site::{self, Store};

/// What web servers and programs say to each other about who somebody is, in all spellings that one of them may take for it.
fn pretences() -> Vec<String> {
    let names =
        ["Everpoll-Channels", "Everpoll-Until", "Forwarded-For", "Real-IP", "Original-URI", "Remote-User"];
    let value = |name: &str| match name {
        "Everpoll-Channels" => "*",
        "Everpoll-Until" => "9999999999",
        "Original-URI" => "/e/public",
        "Remote-User" => "admin",
        _ => "127.0.0.1",
    };
    let mut all = Vec::new();
    for name in names {
        let under = name.replace('-', "_");
        let value = value(name);
        for spelt in [
            format!("X-{name}"),
            format!("x-{}", name.to_lowercase()),
            format!("X_{under}"),
            format!("X-{under}"),
            format!("X_{name}"),
            format!("HTTP_X_{under}"),
            format!("HTTP-X-{name}"),
            format!("REDIRECT_X_{under}"),
            format!("REDIRECT_HTTP_X_{under}"),
            format!("X--{name}"),
            format!("X-{name}-"),
            format!("X.{name}"),
        ] {
            all.push(format!("{spelt}: {value}\r\n"));
        }
        all.push(format!("X-{name}: {value}\r\nX-{name}: {value}\r\n"));
        all.push(format!("X-{name}: \r\nX-{name}: {value}\r\n"));
        all.push(format!("Connection: close, X-{name}\r\n"));
    }
    for (name, value) in [
        ("Remote-Addr", "127.0.0.1"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("Client-IP", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
        ("Request-Uri", "/e/public"),
        ("X-Rewrite-URL", "/e/public"),
        ("X-Original-URL", "/e/public"),
        ("X-HTTP-Method-Override", "OPTIONS"),
        ("Document-Root", "/"),
        ("Script-Name", "/e/public"),
        ("Path-Info", "/public"),
        ("Gateway-Interface", "CGI/1.1"),
        ("EVERPOLL_ACCESS", "open"),
        ("Everpoll-Access", "open"),
        ("Proxy", "http://127.0.0.1:1"),
        ("X-Accel-Redirect", "/metrics"),
        ("X-Sendfile", "/etc/passwd"),
    ] {
        all.push(format!("{name}: {value}\r\n"));
    }
    let together =
        all.iter().filter(|one| !one.starts_with("Connection")).take(60).cloned().collect::<String>();
    all.push(together);
    all
}

fn poll(more: &str) -> Vec<u8> {
    let close = if more.contains("Connection:") { "" } else { "Connection: close\r\n" };
    format!("GET /e/cheese?last_event_id=0&flavor=short-poll HTTP/1.1\r\nHost: a\r\n{close}{more}\r\n")
        .into_bytes()
}

/// An nginx that asks an application which lets everybody read `public`, and nothing else.
fn nginx(daemon: &Address, fallback: &Address, application: &Stub) -> WebServer {
    let url = format!("http://unix:{}:/may-poll", application.path().display());
    WebServer::nginx_with(daemon, fallback, |config| asking(config, &url))
}

#[test]
fn headers_of_clients_grant_nothing() {
    let (store, directory) = (Store::sqlite(), TestDir::new());
    let socket = |name: &str| Address::Unix(directory.join(name));
    let daemon =
        Daemon::on(store.url()).at(&socket("daemon.sock")).setting("EVERPOLL_ACCESS", "proxy").start();
    // The same over TCP, where nobody is listed, and where somebody else is.
    let [open, listed] = ["none", "192.0.2.0/24"].map(|peers| {
        let start = Daemon::on(store.url()).setting("EVERPOLL_ACCESS", "proxy");
        start.setting("EVERPOLL_ACCESS_PEERS", peers).start()
    });
    let fallback = Fallback::on(store.url()).setting("EVERPOLL_ACCESS", "proxy").start();
    let says = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Everpoll-Channels: public\r\n\r\n";
    let application = Stub::daemon(Act::Answer(says.to_owned()));
    let to_daemon = nginx(daemon.address(), fallback.address(), &application);
    let to_fallback = nginx(&socket("nobody.sock"), fallback.address(), &application);
    daemon.publish(r#"{"channel":"cheese","type":"made","data":"gouda"}"#);
    let pretences = pretences();
    println!("{} pretences", pretences.len());
    for (name, address, expected) in [
        ("nginx and daemon", to_daemon.address(), "channel_forbidden"),
        ("nginx and fallback", to_fallback.address(), "channel_forbidden"),
        ("daemon, nobody listed", open.address(), "access_untrusted"),
        ("daemon, others listed", listed.address(), "access_untrusted"),
    ] {
        for pretence in &pretences {
            let answer = attack(address, &poll(pretence));
            let replies = answer.replies();
            assert_eq!(replies.len(), 1, "{pretence} at the {name}: {}", answer.text());
            assert!(!answer.text().contains("gouda"), "{pretence} at the {name}: {}", answer.text());
            // nginx refuses some by itself.
            let of_nginx = replies[0].status == 400 && name.starts_with("nginx");
            assert!(of_nginx || code(&replies[0]) == expected, "{pretence} at the {name}: {}", answer.text());
        }
        // More than a server takes are refused, and not cut off somewhere.
        let many = "X-Everpoll-Channels: *\r\n".repeat(1000);
        let answer = attack(address, &poll(&many));
        assert!(
            answer.replies().iter().all(|reply| reply.status == 431 || reply.status == 400),
            "{}",
            answer.text()
        );
    }
}

/// A request over FastCGI with these variables: status and body.
fn fastcgi(address: &Address, variables: &[(&str, &str)], body: &str) -> (String, Value) {
    let record = |kind: u8, content: &[u8]| {
        let length = u16::try_from(content.len()).expect("short").to_be_bytes();
        [&[1, kind, 0, 1, length[0], length[1], 0, 0], content].concat()
    };
    let mut params = Vec::new();
    for (name, value) in variables {
        for text in [name, value] {
            let length = u32::try_from(text.len()).expect("short") | 0x8000_0000;
            params.extend_from_slice(&length.to_be_bytes());
        }
        params.extend([*name, *value].concat().bytes());
    }
    let parts = [
        record(1, &[0, 1, 0, 0, 0, 0, 0, 0]),
        record(4, &params),
        record(4, b""),
        record(5, body.as_bytes()),
    ];
    let mut stream = address.connect().expect("it listens");
    let end = if body.is_empty() { Vec::new() } else { record(5, b"") };
    stream.write_all(&[parts.concat(), end].concat()).expect("it reads");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("it answers");
    let (mut text, mut rest) = (Vec::new(), bytes.as_slice());
    while let [_, kind, _, _, high, low, padding, _, behind @ ..] = rest {
        let (content, behind) = behind.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        if *kind == 6 {
            text.extend_from_slice(content);
        }
        rest = &behind[usize::from(*padding)..];
    }
    let text = String::from_utf8(text).expect("it is text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no reply: {text:?}"));
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    (status.to_owned(), serde_json::from_str(body).unwrap_or_else(|_| panic!("{body}")))
}

const POLL: [(&str, &str); 3] =
    [("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/e/cheese?last_event_id=0"), ("REMOTE_ADDR", "192.0.2.7")];

/// What a client can make a web server pass on: any name that begins with `HTTP_`, twice as well, and before and behind its own.
#[test]
fn variables_of_clients_grant_nothing() {
    let store = Store::sqlite();
    let (_daemon, fallback) = site::programs(&store, &[("EVERPOLL_ACCESS", "proxy")]);
    let forged = [
        ("HTTP_X_EVERPOLL_CHANNELS", "*"),
        ("HTTP_X_EVERPOLL_UNTIL", "9999999999"),
        ("HTTP_HTTP_X_EVERPOLL_CHANNELS", "*"),
        ("HTTP_REMOTE_ADDR", "127.0.0.1"),
        ("HTTP_REQUEST_URI", "/e/public?last_event_id=0"),
        ("HTTP_REQUEST_METHOD", "OPTIONS"),
        ("HTTP_X_FORWARDED_FOR", "127.0.0.1"),
        ("HTTP_X_REAL_IP", "127.0.0.1"),
        ("HTTP_EVERPOLL_ACCESS", "open"),
        ("HTTP_", "*"),
        ("HTTP_X", "X_EVERPOLL_CHANNELS=*"),
        ("HTTP_X=\0X_EVERPOLL_CHANNELS", "*"),
        ("http_x_everpoll_channels", "*"),
        ("X_EVERPOLL_CHANNELS ", "*"),
        ("x_everpoll_channels", "*"),
        ("X-EVERPOLL-CHANNELS", "*"),
    ];
    for own in [None, Some(("X_EVERPOLL_CHANNELS", "")), Some(("X_EVERPOLL_CHANNELS", "public"))] {
        let expected = match own {
            Some((_, "public")) => "channel_forbidden",
            _ => "access_missing",
        };
        for behind in [false, true] {
            let mut variables = POLL.to_vec();
            if behind {
                variables.extend(forged);
            }
            variables.extend(own);
            if !behind {
                variables.extend(forged);
            }
            let (status, problem) = fastcgi(fallback.address(), &variables, "");
            assert_eq!(
                (&*status, problem["code"].as_str()),
                ("403 Forbidden", Some(expected)),
                "{own:?}: {problem}"
            );
        }
    }
    // What the web server says itself counts.
    let variables = [&POLL[..], &[("X_EVERPOLL_CHANNELS", "cheese")]].concat();
    assert_eq!(fastcgi(fallback.address(), &variables, "").0, "200 OK");
}

#[test]
fn nobody_far_away_becomes_this_machine() {
    let store = Store::sqlite();
    let (daemon, fallback) = site::programs(&store, &[]);
    let event = r#"{"channel":"cheese","type":"made","data":1}"#;
    let length = event.len().to_string();
    let publish = |address: &str, more: &[(&str, &str)]| {
        let own = [
            ("REQUEST_METHOD", "POST"),
            ("REQUEST_URI", "/publish"),
            ("CONTENT_TYPE", "application/json"),
            ("CONTENT_LENGTH", &*length),
            ("REMOTE_ADDR", address),
        ];
        let (status, reply) = fastcgi(fallback.address(), &[&own, more].concat(), event);
        (status, reply["code"].as_str().unwrap_or_default().to_owned())
    };
    let refused = ("403 Forbidden".to_owned(), "publish_not_local".to_owned());
    for address in [
        "192.0.2.7",
        "",
        "unix:",
        "localhost",
        "127.0.0.1, 192.0.2.7",
        "0.0.0.0",
        "::",
        "::ffff:192.0.2.7",
        "127.0.0.1 ",
        "0177.0.0.1",
        "2130706433",
        "127.1",
    ] {
        assert_eq!(publish(address, &[]), refused, "{address}");
        let claims = [
            ("HTTP_REMOTE_ADDR", "127.0.0.1"),
            ("HTTP_X_FORWARDED_FOR", "127.0.0.1"),
            ("HTTP_X_REAL_IP", "::1"),
            ("HTTP_CLIENT_IP", "127.0.0.1"),
        ];
        assert_eq!(publish(address, &claims), refused, "{address}");
    }
    // What a web server on this machine passes on for somebody else.
    for far in [
        "192.0.2.7",
        "127.0.0.1, 192.0.2.7",
        "192.0.2.7, 127.0.0.1",
        "localhost",
        "unknown",
        ",",
        "127.0.0.1,",
        "::ffff:192.0.2.7",
        "127.0.0.1:80",
    ] {
        assert_eq!(publish("127.0.0.1", &[("HTTP_X_FORWARDED_FOR", far)]), refused, "{far}");
        for fields in [
            format!("X-Forwarded-For: {far}\r\n"),
            format!("X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-For: {far}\r\n"),
            format!("X-Forwarded-For: {far}\r\nX-Forwarded-For: 127.0.0.1\r\n"),
            format!("X-Real-IP: {far}\r\nX-Forwarded-For: 127.0.0.1\r\n"),
            "Forwarded: for=127.0.0.1\r\n".to_owned(),
        ] {
            let request = format!(
                "POST /publish HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{fields}\r\n{event}"
            );
            let reply = super::refusal(&fields, daemon.address(), request.as_bytes());
            assert_eq!((reply.status, &*code(&reply)), (403, "publish_not_local"), "{fields}");
        }
    }
    assert_eq!(http::get("/e/cheese?last_event_id=0&flavor=short-poll").send(daemon.address()).events(), []);
    assert_eq!(publish("127.0.0.1", &[]).0, "201 Created");
}
