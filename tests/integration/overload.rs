//! Limits that are hit: the daemon says so instead of falling over, counts it, and everybody else is served.

use std::collections::BTreeSet;

use everpoll_tests::http::{self, Address, Connection};
use everpoll_tests::process::resident_kilobytes;
use everpoll_tests::web::read;
use everpoll_tests::{Daemon, EventStream, Sqlite, WebSocket, sse, wait};
use socket2::{SockFilter, SockRef};

#[test]
fn polls_above_the_limit_of_holds_are_answered_at_once() {
    let log = Sqlite::new();
    let daemon =
        Daemon::on(log.url()).setting("EVERPOLL_HOLDS_MAX", 3).setting("EVERPOLL_HOLD_MAX", 3600).start();
    let at = daemon.address();
    let held: Vec<_> = (0..2).map(|_| http::get("/e/cheese?last_event_id=0").begin(at)).collect();
    let mut stream = EventStream::open(at, &sse::get("/e/cheese?last_event_id=0"));
    stream.expect("everpoll:hello");
    wait::until("three are held", wait::PATIENCE, || {
        metric(at, "everpoll_held{transport=\"long_poll\"}")
            + metric(at, "everpoll_held{transport=\"eventsource\"}")
            == 3
    });
    let reply = http::get("/e/cheese?last_event_id=0").send(at);
    assert_eq!(
        (reply.status, reply.events().len(), reply.header("x-shortpoll-info")),
        (200, 0, Some("true"))
    );
    assert!(reply.reconnect_in() >= 5, "{reply:?}");
    let mut ended = EventStream::open(at, &sse::get("/e/cheese?last_event_id=0"));
    ended.expect("everpoll:hello");
    assert_eq!(ended.expect("everpoll:end").0["reason"], "short_poll");
    let mut closed = WebSocket::open(at, "/e/cheese");
    closed.expect("everpoll:hello");
    let (code, reason) = closed.closed();
    assert!(code == 1013 && reason.contains("short_poll"), "{code} {reason}");
    assert_eq!(metric(at, "everpoll_limit_hits_total{limit=\"holds_max\"}"), 3);
    assert_eq!(daemon.log().matches("the limit holds_max is hit").count(), 1, "{}", daemon.log());
    // Those who are held are served as ever, and leave room.
    let id = daemon.publish(r#"{"channel":"cheese","type":"made","data":1}"#)[0];
    for held in held {
        assert_eq!(held.reply().events()[0].id, id);
    }
    stream.expect("made");
    let _held = http::get(&format!("/e/cheese?last_event_id={id}")).begin(at);
    wait::until("there is room again", wait::PATIENCE, || {
        metric(at, "everpoll_held{transport=\"long_poll\"}") == 1
    });
}

#[test]
fn replies_that_nobody_takes_need_bounded_memory() {
    let log = Sqlite::new();
    let mut daemon = Daemon::on(log.url())
        .setting("EVERPOLL_UNSENT_MAX", "8MiB")
        .setting("EVERPOLL_WRITE_TIMEOUT", 3600)
        .start();
    let at = daemon.address().clone();
    let data = "x".repeat(1_000_000);
    for _ in 0..2 {
        daemon.publish(&format!(r#"{{"channel":"cheese","type":"made","data":"{data}"}}"#));
    }
    let before = resident_kilobytes(daemon.process().id());
    // Each has a reply of its own, since each has another cursor, and reads nothing.
    let mut slow = Vec::new();
    for number in 0..150 {
        let mut connection = Connection::open(&at).expect("it listens");
        let _ = tcp(&mut connection).set_recv_buffer_size(4096);
        let request = http::get(&format!("/e/cheese,other-{number}?last_event_id=0"));
        // Several, so that the kernel's buffers are full.
        let _ = connection.send(&request.header("Connection", "keep-alive").bytes().repeat(8));
        slow.push(connection);
    }
    wait::until("the limit is hit", wait::PATIENCE, || {
        metric(&at, "everpoll_limit_hits_total{limit=\"unsent_max\"}") > 0
    });
    let unsent = metric(&at, "everpoll_unsent_bytes");
    assert!(unsent <= 8 << 20, "{unsent} bytes");
    let after = resident_kilobytes(daemon.process().id());
    eprintln!(
        "150 clients that read nothing: {unsent} bytes wait for them; {before} kB before, {after} kB after"
    );
    assert!(after < before + 60_000, "{before} kB before, {after} kB after");
    // Whoever reads gets the same whole.
    assert_eq!(daemon.get("/e/cheese?last_event_id=0").events().len(), 1);
    assert!(daemon.log().contains("the limit unsent_max is hit"), "{}", daemon.log());
}

#[test]
fn reply_to_a_posted_poll_that_nobody_takes_is_given_up() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).setting("EVERPOLL_WRITE_TIMEOUT", 1).start();
    let at = daemon.address();
    let data = "x".repeat(1_000_000);
    daemon.publish(&format!(r#"{{"channel":"cheese","type":"made","data":"{data}"}}"#));
    let mut connection = Connection::open(at).expect("it listens");
    let _ = tcp(&mut connection).set_recv_buffer_size(4096);
    let poll = http::request("POST", "/e/cheese").header("Connection", "keep-alive").body("last_event_id=0");
    connection.send(&poll.bytes().repeat(8)).expect("it reads");
    wait::until("it is given up", wait::PATIENCE, || {
        metric(at, "everpoll_limit_hits_total{limit=\"write_timeout\"}") == 1
    });
    wait::until("its connection is closed", wait::PATIENCE, || metric(at, "everpoll_connections") == 1);
}

#[test]
fn clients_that_vanish_without_a_word_are_noticed() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url())
        .setting("EVERPOLL_GHOST_TIMEOUT", 5)
        .setting("EVERPOLL_HOLD_MAX", 3600)
        .setting("EVERPOLL_HEARTBEAT", 1)
        .start();
    let at = daemon.address();
    let mut ghosts: Vec<_> = ["/e/cheese/one", "/e/cheese/two?flavor=eventsource"]
        .into_iter()
        .map(|target| {
            let mut connection = Connection::open(at).expect("it listens");
            connection.send(&http::get(target).bytes()).expect("it reads");
            connection
        })
        .collect();
    let held = || {
        ["long_poll", "eventsource"].map(|way| metric(at, &format!("everpoll_held{{transport=\"{way}\"}}")))
    };
    wait::until("both are held", wait::PATIENCE, || held() == [1, 1]);
    for ghost in &mut ghosts {
        // From here on it sees no packet: it acknowledges nothing, and says no goodbye.
        let drop_all = SockFilter::new(0x06, 0, 0, 0);
        tcp(ghost).attach_filter(&[drop_all]).expect("Linux has it");
    }
    let _still_there = http::get("/e/cheese/three").begin(at);
    wait::until("both are noticed, and nobody else", wait::PATIENCE, || held() == [1, 0]);
    assert_eq!(metric(at, "everpoll_ghosts_total"), 2);
    // And the place of their browser is free.
    let id = daemon.publish(r#"{"channel":"cheese","type":"made","data":1}"#)[0];
    let again = http::get(&format!("/e/cheese/one?last_event_id={id}")).begin(at);
    wait::until("its browser is held again", wait::PATIENCE, || held() == [1, 0]);
    drop(again);
}

#[test]
fn metrics_are_those_of_the_reference_and_tell_what_was_done() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).start();
    let at = daemon.address();
    let _held: Vec<_> = (0..3).map(|_| http::get("/e/cheese?last_event_id=0").begin(at)).collect();
    wait::until("three are held", wait::PATIENCE, || {
        metric(at, "everpoll_held{transport=\"long_poll\"}") == 3
    });
    daemon.publish(
        r#"[{"channel":"cheese","type":"made","data":1},{"channel":"other","type":"made","data":1}]"#,
    );
    wait::until("all have it", wait::PATIENCE, || {
        metric(at, "everpoll_deliveries_total{transport=\"long_poll\"}") == 3
    });
    assert_eq!(daemon.get("/e/cheese?last_event_id=x").status, 400);
    for (name, value) in [
        ("everpoll_held{transport=\"long_poll\"}", 0),
        ("everpoll_requests_total{transport=\"long_poll\"}", 3),
        ("everpoll_events_read_total", 2),
        ("everpoll_published_events_total", 2),
        ("everpoll_window_events", 2),
        ("everpoll_newest_event_id", 2),
        ("everpoll_errors_total{code=\"cursor_malformed\"}", 1),
        ("everpoll_catch_up_questions_total", 0),
        ("everpoll_draining", 0),
    ] {
        assert_eq!(metric(at, name), value, "{name}");
    }
    let reply = http::get("/metrics").send(at);
    assert!(
        reply.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text"))
    );
    assert!(reply.text().ends_with("# EOF\n"));
    // A counter is described without its `_total`.
    let counters: BTreeSet<_> =
        described(reply.text(), "counter").map(|name| format!("{name}_total")).collect();
    let told: BTreeSet<_> = described(reply.text(), "gauge").map(str::to_owned).chain(counters).collect();
    let page = read("docs/reference/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `everpoll_"));
    // Those of the fallback are its own, and this daemon has no certificate.
    let rows = rows.filter(|row| !row.starts_with("fallback_") && !row.starts_with("tls_certificate_"));
    let documented: BTreeSet<_> =
        rows.filter_map(|row| row.split(['`', '{']).next()).map(|name| format!("everpoll_{name}")).collect();
    assert_eq!(told, documented, "docs/reference/metrics.md must name all metrics and no others");
}

fn described<'a>(page: &'a str, kind: &'a str) -> impl Iterator<Item = &'a str> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .filter_map(|line| line.split_once(' '))
        .filter(move |(_, other)| *other == kind)
        .map(|(name, _)| name)
}

/// A figure of `/metrics`; 0 where there is none yet.
fn metric(address: &Address, name: &str) -> u64 {
    let page = http::get("/metrics").send(address);
    let value = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}")))
}

/// The socket of a TCP connection.
fn tcp(connection: &mut Connection) -> SockRef<'_> {
    match connection.stream() {
        http::Stream::Tcp(stream) => SockRef::from(&*stream),
        _ => panic!("the daemon listens on TCP here"),
    }
}
