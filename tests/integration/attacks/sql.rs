//! SQL in everything that reaches the log: it stays text, on both databases.

use everpoll_tests::http;
use everpoll_tests::websocket;
use serde_json::json;

use super::Stage;
use crate::site::Store;

/// What a statement that is put together from text would stumble over, or do.
const TEXTS: &[&str] = &[
    "'; DROP TABLE everpoll.events CASCADE; --",
    "'; DROP TABLE events; --",
    "\"; DELETE FROM positions; --",
    "') OR 1=1 --",
    "' UNION SELECT * FROM everpoll.events --",
    "1; UPDATE everpoll.log SET low = 1000000",
    "\\'; TRUNCATE everpoll.positions; --",
    "E'\\\\' OR true",
    "$$; DROP SCHEMA everpoll CASCADE; $$",
    "$1",
    "?1",
    ":channel",
    "%",
    "_",
    "chees%",
    "*",
    "cheese' || pg_sleep(10) || '",
    "cheese'||(SELECT randomblob(1000000000))||'",
    "\u{2bc}; DROP TABLE events; --",
    "\u{ff07}; DROP TABLE events; --",
    "cheese -- ",
    "NULL",
    "' OR ''='",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "'); ATTACH DATABASE 'evil' AS evil; --",
    "[cheese]",
    "`cheese`",
    "{cheese}",
    "(cheese)",
];

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// What the tables are, and how much is in them that was not published by the test.
fn tables(store: &Store) -> String {
    match store {
        Store::Postgres(database) => database.psql(
            "SELECT string_agg(table_schema || '.' || table_name || '.' || column_name || ':' || data_type, ',' ORDER BY 1) \
             FROM (SELECT * FROM information_schema.columns WHERE table_schema IN ('everpoll', 'public') ORDER BY table_schema, table_name, column_name) AS c",
        ),
        Store::Sqlite(sqlite) => {
            let mut command = std::process::Command::new("sqlite3");
            command.arg(sqlite.path()).arg("SELECT group_concat(type || name || sql, ';') FROM sqlite_master ORDER BY name; PRAGMA integrity_check;");
            let (status, shown, errors) = everpoll_tests::process::run(command, b"");
            assert!(status.success() && shown.trim_end().ends_with("ok"), "{shown}{errors}");
            shown
        }
    }
}

fn check(store: Store) {
    let mut stage = Stage::with(store, &[("EVERPOLL_JSONP", "true")]);
    let before = tables(&stage.store);
    let cheese = stage.daemon.publish(r#"{"channel":"cheese","type":"made","data":"gouda"}"#)[0];
    // Published by both programs; the third door is the fallback's.
    for (number, text) in TEXTS.iter().enumerate() {
        let [_, (_, nginx), (_, fallback)] = stage.doors();
        let address = if number % 2 == 0 { nginx } else { fallback };
        // What may be a name may be one; the others are in all other places.
        let channel = text.replace(['/', ','], "");
        let event = json!({"channel": channel, "type": text, "data": text, "key": text, "exclude": text});
        let reply = http::post_json("/publish", event.to_string()).send(address);
        assert_eq!(reply.status, 201, "{text}: {reply:?} {}", String::from_utf8_lossy(&reply.body));
        // Its key is known by both from now on.
        for (name, address) in stage.doors() {
            let again = http::post_json("/publish", event.to_string()).send(address);
            assert_eq!(again.json()["ids"], reply.json()["ids"], "{text} at the {name}");
        }
    }
    for (name, address) in stage.doors() {
        for plain in TEXTS {
            let text = *plain;
            let channel = encoded(&text.replace(['/', ','], ""));
            let ask = |target: &str| http::get(&format!("{target}&flavor=short-poll")).send(address);
            let events = ask(&format!("/e/{channel}?last_event_id=0")).events();
            // That one, and no other: no name is a pattern.
            assert_eq!(events.len(), 1, "{text} at the {name}: {events:?}");
            assert_eq!((&*events[0].kind, &events[0].data), (text, &json!(text)), "at the {name}");
            // Whom it is not for, by the same text.
            let text = encoded(text);
            assert_eq!(
                ask(&format!("/e/{channel}/{text}?last_event_id=0")).events(),
                [],
                "{text} at the {name}"
            );
            assert_eq!(ask(&format!("/e/cheese/{text}?last_event_id=0")).events()[0].id, cheese, "{text}");
            for refused in ["last_event_id", "hold", "cb", "ct", "pad", "cut", "envelope"] {
                // As the name of a function these will do.
                if refused == "cb" && ["_", "NULL"].contains(plain) {
                    continue;
                }
                let reply = ask(&format!("/e/cheese?{refused}={text}"));
                assert_eq!(reply.status, 400, "{refused}={text} at the {name}: {reply:?}");
            }
            let tab = encoded(&plain.chars().take(16).collect::<String>());
            let tab = ask(&format!("/e/cheese/w?last_event_id=0&tab={tab}&n=1&token={text}&{text}={text}"));
            assert_eq!(tab.events().len(), 1, "{text} at the {name}");
        }
        // In headers, as far as they can have it.
        for text in TEXTS.iter().filter(|text| text.is_ascii()) {
            let poll = http::get("/e/cheese?last_event_id=0&flavor=short-poll");
            let poll = poll.header("X-Forwarded-For", text).header("Cookie", text).header("Origin", text);
            assert_eq!(poll.send(address).events().len(), 1, "{text} at the {name}");
            let poll = http::get("/e/cheese?flavor=short-poll").header("Last-Event-Id", text);
            assert_eq!(poll.send(address).status, 400, "{text} at the {name}");
        }
    }
    // And by the transports that go on by themselves.
    let text = encoded(TEXTS[0]);
    let mut socket = everpoll_tests::WebSocket::try_open(
        stage.daemon.address(),
        &websocket::request(&format!("/e/{text}/{}?last_event_id=0", encoded(TEXTS[1]))),
    )
    .expect("it is a channel like any other");
    socket.expect("everpoll:hello");
    assert_eq!(socket.message()["type"], TEXTS[0]);
    assert_eq!(tables(&stage.store), before);
    let all = http::get("/e/cheese?last_event_id=0&flavor=short-poll").send(stage.daemon.address());
    assert_eq!(all.events()[0].data, json!("gouda"));
    stage.assert_well();
}

#[test]
fn sql_stays_text_on_postgres() {
    check(Store::postgres());
}

#[test]
fn sql_stays_text_on_sqlite() {
    check(Store::sqlite());
}
