//! What a poll asks for and what it is answered: cursors, channels, batches, forms.
//!
//! Each promise is looked at on both databases, and with a window so small that the daemon has to read the log. What a
//! client sees must not depend on either.

use std::time::Instant;

use everpoll_tests::http;
use everpoll_tests::{Daemon, Reply, Sqlite, wait};
use serde_json::{Value, json};

use crate::site::{Store, ids as ids_of};

/// Smallest window that the settings allow.
const SMALL_WINDOW: &str = "64KiB";

/// No ids.
const NONE: [u64; 0] = [];

/// Runs a test on one database and then on the other.
fn on_both(test: impl Fn(&Store)) {
    Store::both().iter().for_each(test);
}

/// Runs a test on both databases, served from memory and from the log.
fn everywhere(test: impl Fn(&Daemon)) {
    on_both(|log| {
        test(&Daemon::on(log.url()).start());
    });
    on_both(|log| {
        eprintln!("with a small window:");
        test(&Daemon::on(log.url()).setting("EVERPOLL_WINDOW_BYTES", SMALL_WINDOW).start());
    });
}

/// Makes a small window forget what was published before.
fn fill_window(daemon: &Daemon) -> u64 {
    let data = "x".repeat(1000);
    let events: Vec<_> = (0..100).map(|_| json!({"channel": "filler", "type": "t", "data": data})).collect();
    publish_all(daemon, &events).last().copied().expect("a hundred")
}

fn publish_all(daemon: &Daemon, events: &[Value]) -> Vec<u64> {
    daemon.publish(&Value::from(events).to_string())
}

fn publish(daemon: &Daemon, channel: &str, data: impl Into<Value>) -> u64 {
    publish_all(daemon, &[json!({"channel": channel, "type": "made", "data": data.into()})])[0]
}

fn ids(reply: &Reply) -> Vec<u64> {
    ids_of(&reply.events())
}

/// A poll that is never held.
fn short(daemon: &Daemon, target: &str) -> Reply {
    http::get(target).header("flavor", "short-poll").send(daemon.address())
}

#[test]
fn cursor_says_where_the_reply_begins() {
    everywhere(|daemon| {
        let one = publish(daemon, "cheese", 1);
        let two = publish(daemon, "cheese", 2);
        let newest = fill_window(daemon);
        let after = |cursor: &str| ids(&short(daemon, &format!("/e/cheese?last_event_id={cursor}")));
        assert_eq!(after("0"), [one, two]);
        assert_eq!(after(&one.to_string()), [two]);
        assert_eq!(after(&two.to_string()), NONE);
        assert_eq!(after("now"), NONE);
        assert_eq!(after(""), NONE);
        let absent = short(daemon, "/e/cheese");
        assert_eq!((absent.text(), absent.cursor()), ("[]", newest));
        // Even when nothing is new on its channels, the client goes on from the newest event.
        assert_eq!(short(daemon, &format!("/e/cheese?last_event_id={two}")).cursor(), newest);
        for (cursor, code) in [("x", 400), ("-1", 400), ("1.5", 400), ("rt-", 400), ("rt-yesterday", 400)] {
            let reply = short(daemon, &format!("/e/cheese?last_event_id={cursor}"));
            assert_eq!((reply.status, reply.json()["code"].as_str()), (code, Some("cursor_malformed")));
        }
    });
}

#[test]
fn time_cursor_goes_back_two_seconds_more() {
    everywhere(|daemon| {
        let id = publish(daemon, "cheese", 1);
        let placed = placed_at(&short(daemon, "/e/cheese?last_event_id=0"));
        let since = |seconds: f64| ids(&short(daemon, &format!("/e/cheese?last_event_id=rt-{seconds:.3}")));
        for _ in 0..2 {
            assert_eq!(since(placed - 3600.0), [id]);
            assert_eq!(since(placed), [id]);
            assert_eq!(since(placed + 1.9), [id], "the clocks of page and server differ");
            assert_eq!(since(placed + 2.1), NONE);
            assert_eq!(since(placed + 1e9), NONE);
            assert_eq!(since(0.0), [id]);
            // And once more, from the log where the window is small.
            fill_window(daemon);
        }
    });
}

/// The time of the only event of a reply, in seconds since 1970.
fn placed_at(reply: &Reply) -> f64 {
    let json = reply.json();
    let text = json[0]["ts"].as_str().expect("an event has a time").to_owned();
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().expect("digits");
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days since 1970 in the Gregorian calendar, counted in years that begin in March.
    let year = if month < 3 { year - 1 } else { year };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * ((month + 9) % 12) + 2) / 5 + day - 719_469;
    let seconds = days * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    seconds as f64 + number(20..23) as f64 / 1000.0
}

#[test]
fn poll_that_began_with_now_goes_on_without_a_hole() {
    everywhere(|daemon| {
        let before = publish(daemon, "cheese", 0);
        for cursor in ["now", "", "rt-99999999999"] {
            let mut held = http::get("/e/cheese").header("Last-Event-Id", cursor).begin(daemon.address());
            // Where "now" was, only the first event that it gets tells; all later ones must follow.
            wait::until("it got an event", wait::PATIENCE, || {
                publish(daemon, "cheese", 1);
                !held.is_waiting()
            });
            let reply = held.reply();
            let got = [ids(&reply), after(daemon, reply.cursor())].concat();
            let all = after(daemon, before);
            let from = all.iter().position(|id| *id == got[0]).expect("it was published after the first");
            assert_eq!(got, all[from..], "cursor {cursor:?}");
        }
    });
}

/// All events of a channel behind a cursor.
fn after(daemon: &Daemon, cursor: u64) -> Vec<u64> {
    ids(&short(daemon, &format!("/e/cheese?last_event_id={cursor}")))
}

#[test]
fn header_wins_over_query_and_query_over_body() {
    everywhere(|daemon| {
        let all: Vec<_> = (0..4).map(|n| publish(daemon, "cheese", n)).collect();
        let form = |body: String| {
            http::request("POST", &format!("/e/cheese?flavor=short-poll&last_event_id={}", all[1]))
                .header("Content-Type", "application/x-www-form-urlencoded")
                .body(body)
        };
        let body = || format!("last_event_id={}", all[0]);
        let with_header = form(body()).header("Last-Event-Id", &all[2].to_string());
        assert_eq!(ids(&with_header.send(daemon.address())), all[3..]);
        assert_eq!(ids(&form(body()).send(daemon.address())), all[2..]);
        for (kind, body) in [
            ("application/x-www-form-urlencoded", format!("flavor=short-poll&last_event_id={}", all[0])),
            ("application/json", format!(r#"{{"flavor":"short-poll","last_event_id":"{}"}}"#, all[0])),
            (
                "application/json; charset=utf-8",
                format!(r#"{{"flavor":"short-poll","last_event_id":{}}}"#, all[0]),
            ),
            // XDomainRequest cannot say what it sends.
            ("text/plain", format!(r#" {{"flavor":"short-poll","last_event_id":{}}}"#, all[0])),
        ] {
            let request = http::request("POST", "/e/cheese").header("Content-Type", kind).body(body);
            assert_eq!(ids(&request.send(daemon.address())), all[1..], "{kind}");
        }
    });
}

#[test]
fn poll_of_several_channels_gets_one_order() {
    everywhere(|daemon| {
        let names = ["cheese", "wine", "b\u{e4}r", "a+b c"];
        let published: Vec<_> = (0..20).map(|n| (publish(daemon, names[n % 4], n), names[n % 4])).collect();
        for _ in 0..2 {
            let reply = short(daemon, "/e/wine,cheese,b%C3%A4r,a+b%20c,nobody,wine?last_event_id=0");
            let got: Vec<_> = reply.events().into_iter().map(|event| (event.id, event.channel)).collect();
            let expected: Vec<_> = published.iter().map(|(id, name)| (*id, (*name).to_owned())).collect();
            assert_eq!(got, expected);
            let reply = short(daemon, "/e/wine,b%C3%A4r?last_event_id=0");
            assert!(
                reply.events().iter().all(|event| ["wine", "b\u{e4}r"].contains(&event.channel.as_str()))
            );
            assert_eq!(reply.events().len(), 10);
            fill_window(daemon);
        }
    });
}

#[test]
fn held_poll_of_several_channels_is_woken_by_each() {
    on_both(|log| {
        let daemon = Daemon::on(log.url()).start();
        for name in ["one", "two", "three"] {
            let cursor = publish(&daemon, "other", 0);
            let held = http::get(&format!("/e/one,two,three?last_event_id={cursor}")).begin(daemon.address());
            publish(&daemon, "other", 0);
            let id = publish(&daemon, name, 1);
            assert_eq!(ids(&held.reply()), [id]);
        }
    });
}

#[test]
fn batch_ends_at_a_thousand_events_and_the_next_is_fetched_at_once() {
    everywhere(|daemon| {
        let mut published = Vec::new();
        for _ in 0..3 {
            let events: Vec<_> =
                (0..800).map(|n| json!({"channel": "cheese", "type": "t", "data": n})).collect();
            published.extend(publish_all(daemon, &events));
        }
        let (mut cursor, mut got, mut sizes) = (0, Vec::new(), Vec::new());
        while got.len() < published.len() {
            let reply = short(daemon, &format!("/e/cheese?last_event_id={cursor}"));
            sizes.push(reply.events().len());
            got.extend(ids(&reply));
            cursor = reply.cursor();
            if got.len() < published.len() {
                assert_eq!((reply.reconnect_in(), cursor), (0, *got.last().expect("a thousand")));
            } else {
                assert!(reply.reconnect_in() >= 5, "nothing is left, so it comes back later");
            }
        }
        assert_eq!((sizes, got), (vec![1000, 1000, 400], published));
    });
}

#[test]
fn batch_ends_at_a_mebibyte_but_a_larger_event_goes_out_alone() {
    const MIB: usize = 1024 * 1024;
    everywhere(|daemon| {
        let sizes = [10, MIB - 2, 10, 400_000, 400_000, 400_000, 10];
        let published: Vec<_> =
            sizes.iter().map(|size| publish(daemon, "cheese", "x".repeat(*size))).collect();
        let (mut cursor, mut batches) = (0, Vec::new());
        while batches.iter().flatten().count() < published.len() {
            let reply = short(daemon, &format!("/e/cheese?last_event_id={cursor}"));
            let alone = reply.events().len() == 1;
            assert!(alone || reply.body.len() <= MIB + 2048, "{} bytes", reply.body.len());
            batches.push(ids(&reply));
            cursor = reply.cursor();
        }
        let expected = [&published[..1], &published[1..2], &published[2..5], &published[5..]];
        assert_eq!(batches, expected);
    });
}

#[test]
fn held_poll_gets_what_does_not_fit_at_once_afterwards() {
    let log = Store::sqlite();
    let daemon = Daemon::on(log.url()).start();
    let start = publish(&daemon, "cheese", 0);
    let held = http::get(&format!("/e/cheese?last_event_id={start}")).begin(daemon.address());
    let events: Vec<_> =
        (0..3).map(|_| json!({"channel": "cheese", "type": "t", "data": "x".repeat(500_000)})).collect();
    let published = publish_all(&daemon, &events);
    let first = held.reply();
    assert_eq!((ids(&first), first.reconnect_in()), (published[..2].to_vec(), 0));
    let second = http::get(&format!("/e/cheese?last_event_id={}", first.cursor())).send(daemon.address());
    assert_eq!((ids(&second), second.reconnect_in()), (published[2..].to_vec(), 0));
}

#[test]
fn event_is_not_for_the_browser_that_it_excludes() {
    everywhere(|daemon| {
        let event = |exclude: &str, n: u32| json!({"channel": "cheese", "type": "made", "data": n, "exclude": exclude});
        let start = publish(daemon, "cheese", 0);
        let target = |wait_id: &str| format!("/e/cheese{wait_id}?last_event_id={start}");
        let me = http::get(&target("/me")).begin(daemon.address());
        let you = http::get(&target("/you")).begin(daemon.address());
        let nobody = http::get(&target("")).begin(daemon.address());
        let excluded = publish_all(daemon, &[event("me", 1)])[0];
        // Those that it is for are woken by it; the browser that it excludes stays held and gets the next one.
        assert_eq!(ids(&you.reply()), [excluded]);
        assert_eq!(ids(&nobody.reply()), [excluded]);
        let next = publish(daemon, "cheese", 2);
        let reply = me.reply();
        assert_eq!((ids(&reply), reply.cursor()), (vec![next], next));

        let last = publish_all(daemon, &[event("me", 3), event("you", 4), event("me", 5)]);
        let mut newest = last[2];
        for _ in 0..2 {
            let mine = short(daemon, &target("/me"));
            assert_eq!((ids(&mine), mine.cursor()), (vec![next, last[1]], newest));
            assert_eq!(ids(&short(daemon, &target("/you"))), [excluded, next, last[0], last[2]]);
            assert_eq!(ids(&short(daemon, &target(""))).len(), 5);
            newest = fill_window(daemon);
        }
    });
}

#[test]
fn event_comes_to_each_who_waits_in_the_form_that_it_wants() {
    // In turns, so that each stands between those who want another form of the same event.
    let forms = [
        ("/e/cheese/plain", "", "HTTP/1.1", "["),
        ("/e/cheese/envelope", "&envelope=1", "HTTP/1.1", "{\"events\":["),
        ("/e/cheese/old", "", "HTTP/1.0", "["),
        ("/e/cheese,wine/both", "", "HTTP/1.1", "["),
    ];
    let (log, rounds) = (Sqlite::new(), 40);
    let daemon = Daemon::on(log.url()).start();
    let cursor = publish(&daemon, "other", 0);
    let begin = |(target, query, version, _): (&str, &str, &str, &str), round: usize| {
        let mut request = http::get(&format!("{target}-{round}?last_event_id={cursor}{query}"))
            .header("Connection", if round.is_multiple_of(2) { "keep-alive" } else { "close" });
        if version == "HTTP/1.0" {
            request = request.http10();
        }
        request.begin(daemon.address())
    };
    let held: Vec<_> = (0..rounds)
        .flat_map(|round| forms.map(|form| (round, form)))
        .map(|(round, form)| (round, form, begin(form, round)))
        .collect();
    wait::until("all are held", wait::PATIENCE, || {
        let metrics = http::get("/metrics").send(daemon.address());
        metrics.text().contains(&format!("everpoll_held{{transport=\"long_poll\"}} {}\n", held.len()))
    });
    let id = publish(&daemon, "cheese", 1);
    for (round, (target, _, version, begins), held) in held {
        let (reply, who) = (held.reply(), format!("{target}-{round}"));
        assert_eq!(reply.cursor(), id, "{who}");
        assert!(reply.text().starts_with(begins), "{who}: {}", reply.text());
        assert!(reply.text().contains(&format!("\"id\":{id},")), "{who}: {}", reply.text());
        let connection = reply.header("connection").map(str::to_ascii_lowercase);
        let stays = match (round % 2, version) {
            (0, "HTTP/1.1") => None,
            (0, _) => Some("keep-alive"),
            _ => Some("close"),
        };
        assert_eq!(connection.as_deref(), stays, "{who} by {version}");
    }
}

#[test]
fn hold_is_as_long_as_the_client_asks_up_to_the_servers_own() {
    let log = Store::sqlite();
    let daemon = Daemon::on(log.url()).setting("EVERPOLL_HOLD_MAX", 1).start();
    let timed = |query: &str| {
        let start = Instant::now();
        let reply = http::get(&format!("/e/cheese?{query}")).send(daemon.address());
        assert_eq!((reply.status, reply.text()), (200, "[]"));
        (start.elapsed().as_millis(), reply)
    };
    for (query, at_least) in [("hold=0.3", 300), ("hold=1", 1000), ("hold=3600", 1000), ("", 1000)] {
        let (took, reply) = timed(query);
        assert!((at_least..at_least + 900).contains(&took), "{query:?} was held for {took} ms");
        assert_eq!((reply.reconnect_in(), reply.header("x-shortpoll-info")), (0, Some("false")));
    }
    for query in ["hold=0", "hold=0.0", "flavor=short-poll", "flavor=short-poll&hold=1"] {
        let (took, reply) = timed(query);
        assert!(took < 900, "{query:?} was held for {took} ms");
        // Otherwise the client would come back at once, for ever.
        assert!(reply.reconnect_in() >= 5, "{reply:?}");
        assert_eq!(reply.header("x-shortpoll-info"), Some("true"));
    }
    for query in ["hold=-1", "hold=x", "hold=1e9"] {
        let reply = http::get(&format!("/e/cheese?{query}")).send(daemon.address());
        assert_eq!((reply.status, reply.json()["code"].as_str()), (400, Some("hold_malformed")));
    }
}

#[test]
fn envelope_says_what_the_headers_say_and_ends_with_end() {
    let log = Store::sqlite();
    let daemon = Daemon::on(log.url()).setting("EVERPOLL_HOLD_MAX", 17).start();
    let reply = http::get("/e/cheese?envelope=1&hold=0.2").send(daemon.address());
    let said = r#"{"events":[],"cursor":"0","reconnect_in":0,"hold":17,"short_poll":false,"end":1}"#;
    assert_eq!(reply.text(), said);

    let held = http::get("/e/cheese?envelope=1&last_event_id=0").begin(daemon.address());
    let id = publish(&daemon, "cheese", "\u{e4}</script>");
    let reply = held.reply();
    let json = reply.json();
    assert_eq!((ids(&reply), reply.reconnect_in(), reply.cursor()), (vec![id], 0, id));
    assert_eq!((&json["cursor"], &json["reconnect_in"]), (&id.to_string().into(), &0.into()));
    assert_eq!(json["events"][0]["data"]["data"], "\u{e4}</script>");
    assert!(
        reply.text().is_ascii() && reply.text().ends_with(r#","short_poll":false,"end":1}"#),
        "{}",
        reply.text()
    );
    assert!(!reply.text().contains('<'), "a page may write it into a script element");

    let plain = http::get("/e/cheese?envelope=0&last_event_id=0").send(daemon.address());
    assert_eq!(plain.json(), json["events"]);
    let post = http::request("POST", "/e/cheese").body("last_event_id=0&envelope=1").send(daemon.address());
    assert_eq!(post.json()["events"], json["events"]);
    let bad = http::get("/e/cheese?envelope=yes").send(daemon.address());
    assert_eq!((bad.status, bad.json()["code"].as_str()), (400, Some("envelope_malformed")));
}

#[test]
fn transport_that_nobody_knows_is_refused_by_name() {
    let log = Store::sqlite();
    let daemon = Daemon::on(log.url()).start();
    for request in [
        http::get("/e/cheese?flavor=x"),
        http::get("/e/cheese").header("flavor", "telegraph"),
        http::get("/e/cheese?flavor=EventSource"),
    ] {
        let reply = request.send(daemon.address());
        assert_eq!((reply.status, reply.json()["code"].as_str()), (400, Some("flavor_unknown")));
    }
}

#[test]
fn unknown_parameters_are_passed_over() {
    let log = Store::sqlite();
    let daemon = Daemon::on(log.url()).start();
    let id = publish(&daemon, "cheese", 1);
    let target = "/e/cheese?_=1406125522123&last_event_id=0&x&=&&%zz=1&last_event_id=7#not";
    assert_eq!(ids(&short(&daemon, target)), [id], "of a parameter that comes twice, the first counts");
}
