//! What is secret is written down nowhere: not by the programs, however talkative they are asked to be, not by nginx as shipped, and
//! not in what a client is told.

use everpoll_tests::http::{self, Request};
use everpoll_tests::websocket::{Frame, opcode};
use everpoll_tests::{Reply, WebSocket, sse, wait, websocket};
use serde_json::json;

use super::signer::{OLD, Signer, now};
use super::{Guarded, TRANSPORTS, ask};
use crate::site::Store;

/// In the data of each event, in a publishing key, in one that is wrong, and in cookies of the site's own.
const DATA: &str = "data-4f1c9e0b7d";
const KEY: &str = "key-9d2e6b41c07f4a5589ae";
const WRONG: &str = "key-that-is-wrong-0a1b2c3d";
const SESSION: &str = "session-77f0e1c4a9";

fn publish(channel: &str, key: &str) -> Request {
    let event = json!({"channel": channel, "type": "made", "data": DATA});
    http::post_json("/publish", event.to_string()).header("Authorization", &format!("Bearer {key}"))
}

/// Polls with this token in each of its places, by each transport, with a cookie of the site's own.
fn reads(token: &str) -> Vec<Request> {
    let mut all = Vec::new();
    for transport in TRANSPORTS {
        let request = |more: &str| {
            let target = format!("/e/cheese?last_event_id=0{more}");
            match transport {
                "POST" => http::request("POST", &target).body(format!("last_event_id=0{more}")),
                "websocket" => websocket::request(&target),
                "eventsource" => sse::get(&target),
                flavor => http::get(&format!("{target}&flavor={flavor}")),
            }
        };
        let session = format!("session={SESSION}");
        all.push(request("").header("Authorization", &format!("Bearer {token}")).header("Cookie", &session));
        all.push(request(&format!("&token={token}")).header("Cookie", &session));
        all.push(request("").header("Cookie", &format!("{session}; everpoll_token={token}")));
    }
    all
}

#[test]
fn secrets_are_in_no_log_and_no_error() {
    let signer = Signer::new();
    let (keys, publish_keys) =
        (signer.settings(), format!("shop = {{ key = '{KEY}', channels = ['cheese', 'refused'] }}"));
    let store = Store::postgres();
    let guarded = Guarded::on(
        store,
        &[
            ("EVERPOLL_ACCESS", "token"),
            ("EVERPOLL_TOKEN_KEYS", &keys),
            ("EVERPOLL_PUBLISH_KEYS", &publish_keys),
            ("EVERPOLL_LOG", "trace"),
        ],
    );
    // A database that refuses says why, with the row that it refuses.
    let sql = "ALTER TABLE everpoll.events ADD CONSTRAINT never CHECK (channel <> 'refused')";
    guarded._store.database().psql(sql);
    let good = signer.good(&json!({"exp": now() + 600.0, "channels": ["cheese"]}));
    let over = signer.good(&json!({"exp": now() - 600.0, "channels": ["cheese"]}));
    let mut told: Vec<(u16, String)> = Vec::new();
    let whole = |reply: Reply| {
        (reply.status, format!("{:?} {}", reply.headers, String::from_utf8_lossy(&reply.body)))
    };
    for (_, address) in guarded.doors() {
        assert_eq!(publish("cheese", KEY).send(address).status, 201);
        for (channel, key) in [("cheese", WRONG), ("wine", KEY), ("refused", KEY), ("a/b", KEY)] {
            let reply = publish(channel, key).send(address);
            assert!([400, 403].contains(&reply.status), "{reply:?}");
            told.push(whole(reply));
        }
        let broken = http::post_json("/publish", format!("{{\"channel\":\"cheese\",\"type\":\"{DATA}"));
        told.push(whole(broken.header("Authorization", &format!("Bearer {KEY}")).send(address)));
        for token in [&good, &over, &format!("{over}x"), &format!("{good}.x")] {
            for request in reads(token) {
                let (status, body) = ask(address, &request);
                if !matches!(status, 101 | 200) {
                    told.push((status, body));
                }
            }
        }
        // What goes on by itself gets something while it is open.
        if let Ok(mut socket) =
            WebSocket::try_open(address, &websocket::request(&format!("/e/cheese?token={good}")))
        {
            socket.expect("everpoll:hello");
            assert_eq!(publish("cheese", KEY).send(address).status, 201);
            assert_eq!(socket.expect("made")["data"], DATA);
            // The same where it is read and written by a library, as when a client sends a message in pieces.
            socket.send(&Frame::new(opcode::TEXT, "x").unfinished()).expect("it is open");
            assert_eq!(publish("cheese", KEY).send(address).status, 201);
            assert_eq!(socket.expect("made")["data"], DATA);
        }
    }
    told.push(whole(http::get("/metrics").send(guarded.daemon.address())));
    let parts = [&good, &over].map(|token| token.rsplit('.').next().unwrap_or_default().to_owned());
    let secrets = [DATA, KEY, WRONG, SESSION, OLD, &parts[0], &parts[1], &good[..60]];
    for secret in secrets {
        for (status, text) in &told {
            // Who publishes may be told what is wrong with it.
            let own = secret == DATA && *status == 400;
            assert!(own || !text.contains(secret), "{secret}: {text}");
        }
    }
    for nginx in [&guarded.to_daemon, &guarded.to_fallback] {
        wait::until("nginx has logged the requests", wait::PATIENCE, || {
            nginx.access_log().contains("\"GET /e/cheese\"")
        });
    }
    let logs = [
        ("daemon", guarded.daemon.log()),
        ("fallback", guarded.fallback.log()),
        ("nginx", guarded.to_daemon.access_log() + &guarded.to_fallback.access_log()),
    ];
    for (name, log) in &logs {
        assert!(log.len() > 200, "the {name} was to be talkative: {log}");
        for secret in secrets {
            let line = log.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{secret} is in the log of the {name}: {}", line.unwrap_or_default());
        }
    }
}
