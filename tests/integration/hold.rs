//! Of one browser one request is held: who is held, who is sent away, and what frees the place.
//!
//! A newcomer would look whether a request is held by waiting a while. Here the place itself is asked: a request of the
//! same browser that would be held for a moment only is either held for that moment, or told to come back in 5 s.

use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address, Held, Request};
use everpoll_tests::{Daemon, Sqlite, TestDir, process, wait};

/// The reconnect of a request whose browser has another one held.
const HOLDER_ELSEWHERE: u32 = 5;

fn daemon() -> (Sqlite, Daemon) {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).start();
    (log, daemon)
}

/// Whether a request of this browser is held.
#[track_caller]
fn place_is_taken(address: &Address, wait_id: &str) -> bool {
    let reply = http::get(&format!("/e/probe/{wait_id}?hold=0.05")).send(address);
    assert_eq!((reply.status, reply.text()), (200, "[]"));
    match (reply.reconnect_in(), reply.header("x-shortpoll-info")) {
        (HOLDER_ELSEWHERE, Some("true")) => true,
        (0, Some("false")) => false,
        other => panic!("neither held nor sent away: {other:?}"),
    }
}

/// Sends a request of this browser and returns when it is held.
#[track_caller]
fn hold(address: &Address, wait_id: &str, request: &Request) -> Held {
    let mut held = request.begin(address);
    wait::until("the request is held", wait::PATIENCE, || {
        let taken = place_is_taken(address, wait_id);
        if !held.is_waiting() {
            // The question itself had the place at the wrong moment, and the request was sent away.
            held = request.begin(address);
            return false;
        }
        taken
    });
    held
}

/// Waits until the place is free and returns how long that took.
#[track_caller]
fn freed_after(address: &Address, wait_id: &str) -> Duration {
    let start = Instant::now();
    wait::until("the place is free", wait::PATIENCE, || !place_is_taken(address, wait_id));
    start.elapsed()
}

fn poll(wait_id: &str, query: &str) -> Request {
    http::get(&format!("/e/cheese/{wait_id}?{query}"))
}

fn publish(daemon: &Daemon, channel: &str) -> u64 {
    daemon.publish(&format!(r#"{{"channel":"{channel}","type":"made","data":1}}"#))[0]
}

#[track_caller]
fn assert_sent_away(reply: &everpoll_tests::Reply) {
    assert_eq!((reply.reconnect_in(), reply.text()), (HOLDER_ELSEWHERE, "[]"));
    assert_eq!(reply.header("x-shortpoll-info"), Some("true"));
}

#[test]
fn second_request_of_a_browser_is_sent_away_and_its_end_frees_nothing() {
    let (_log, daemon) = daemon();
    let newest = publish(&daemon, "other");
    let mut first = hold(daemon.address(), "w", &poll("w", ""));
    for _ in 0..3 {
        let second = poll("w", "").send(daemon.address());
        assert_sent_away(&second);
        assert_eq!(second.cursor(), newest);
    }
    // Neither do those that leave without having read their reply.
    drop(poll("w", "").begin(daemon.address()));
    assert!(place_is_taken(daemon.address(), "w"));
    assert!(first.is_waiting());

    let id = publish(&daemon, "cheese");
    let reply = first.reply();
    assert_eq!((reply.events()[0].id, reply.cursor(), reply.reconnect_in()), (id, id, 0));
    assert_eq!(reply.header("x-shortpoll-info"), Some("false"));
    assert!(!place_is_taken(daemon.address(), "w"), "the end of the holder frees the place");
}

#[test]
fn news_is_for_everybody_also_for_those_without_the_place() {
    let (_log, daemon) = daemon();
    let seen = publish(&daemon, "cheese");
    let mut first = hold(daemon.address(), "w", &poll("w", ""));
    let id = publish(&daemon, "wine");
    let second = http::get(&format!("/e/wine/w?last_event_id={seen}")).send(daemon.address());
    assert_eq!((second.events()[0].id, second.reconnect_in()), (id, 0));
    assert!(first.is_waiting());
}

#[test]
fn requests_of_other_browsers_and_of_none_are_held_beside_it() {
    let (_log, daemon) = daemon();
    let one = hold(daemon.address(), "one", &poll("one", ""));
    let two = hold(daemon.address(), "two", &poll("two", ""));
    let nameless = [(); 3].map(|()| http::get("/e/cheese?last_event_id=0").begin(daemon.address()));
    let post = http::request("POST", "/e/cheese/three").body("hold=20");
    let three = hold(daemon.address(), "three", &post);
    let id = publish(&daemon, "cheese");
    for held in nameless.into_iter().chain([one, two, three]) {
        assert_eq!(held.reply().events()[0].id, id);
    }
}

#[test]
fn client_that_leaves_is_forgotten_within_a_second() {
    let (log, daemon) = daemon();
    let directory = TestDir::new();
    let socket = Address::Unix(directory.join("daemon.sock"));
    let on_socket = Daemon::on(log.url()).at(&socket).start();
    let requests = [
        ("GET", poll("w", "")),
        ("GET with keep-alive", poll("w", "").header("Connection", "keep-alive")),
        ("POST", http::request("POST", "/e/cheese/w").body("hold=20")),
        ("HTTP/1.0", poll("w", "").http10()),
    ];
    for (name, request) in &requests {
        for address in [daemon.address(), on_socket.address()] {
            drop(hold(address, "w", request));
            let time = freed_after(address, "w");
            assert!(time < Duration::from_secs(1), "{name} at {address} was forgotten after {time:?}");
        }
    }
}

#[test]
fn clients_that_leave_leave_no_memory_behind() {
    const CLIENTS: usize = 1000;
    let (_log, mut daemon) = daemon();
    let mut kilobytes = Vec::new();
    for round in 0..6 {
        let held: Vec<_> = (0..CLIENTS)
            .map(|n| {
                // Names that were never seen before, or what is kept by name would not show.
                let name = format!("{round}-{n}-{}", "x".repeat(80));
                http::get(&format!("/e/{name},a{name}/{name}?tab={n}&n=1")).begin(daemon.address())
            })
            .collect();
        // All were read when the last of them is held, give or take a few.
        let last = format!("{round}-last");
        drop(hold(daemon.address(), &last, &poll(&last, "")));
        drop(held);
        freed_after(daemon.address(), &last);
        kilobytes.push(process::resident_kilobytes(daemon.process().id()));
    }
    println!("after each round of {CLIENTS} clients that left, the daemon has {kilobytes:?} KB");
    // What one round leaves behind, all six rounds may; the allocator never gives everything back at once.
    let grown = kilobytes[5].saturating_sub(kilobytes[1]);
    assert!(grown < 2048, "grew by {grown} KB in four rounds: {kilobytes:?}");
}

#[test]
fn later_request_of_the_same_tab_replaces_its_ghost() {
    let (_log, daemon) = daemon();
    let newest = publish(&daemon, "other");
    let address = daemon.address();
    let ghost = hold(address, "w", &poll("w", "tab=a&n=1"));
    for query in ["tab=b&n=9", "tab=a&n=0", ""] {
        assert_sent_away(&poll("w", query).send(address));
    }

    let mut later = poll("w", "tab=a&n=2").begin(address);
    let reply = ghost.reply();
    assert_sent_away(&reply);
    assert_eq!(reply.cursor(), newest);
    // The end of the ghost frees nothing: the place is the later one's.
    assert!(place_is_taken(address, "w"));
    assert_sent_away(&poll("w", "tab=a&n=1").send(address));
    assert!(later.is_waiting());

    // The same for polls that hyper serves, in either direction.
    let post = |n: u32| http::request("POST", "/e/cheese/w").body(format!("tab=a&n={n}"));
    let mut posted = post(3).begin(address);
    assert_sent_away(&later.reply());
    assert!(place_is_taken(address, "w") && posted.is_waiting());
    let last = poll("w", "tab=a&n=4").begin(address);
    assert_sent_away(&posted.reply());

    let id = publish(&daemon, "cheese");
    assert_eq!(last.reply().events()[0].id, id);
    assert!(!place_is_taken(address, "w"));
}

#[test]
fn ghost_that_ends_late_does_not_free_the_place_of_its_successor() {
    let (_log, daemon) = daemon();
    let address = daemon.address();
    let ghost = hold(address, "w", &poll("w", "tab=a&n=1"));
    let mut later = poll("w", "tab=a&n=2").begin(address);
    assert_sent_away(&ghost.reply());
    // Another ghost, whose client has left without a sign: a copy of the request that is held.
    drop(poll("w", "tab=a&n=1").begin(address));
    assert!(place_is_taken(address, "w"));
    assert!(later.is_waiting());
}

#[test]
fn copies_of_one_request_are_held_together() {
    let (_log, daemon) = daemon();
    let address = daemon.address();
    let copy = || poll("w", "tab=a&n=7");
    let mut copies: Vec<_> = (0..4).map(|_| copy().begin(address)).collect();
    // Proxies were seen to send up to four; a fifth is no copy but a flood.
    wait::until("four copies are held", wait::PATIENCE, || {
        let fifth = poll("w", "tab=a&n=7&hold=0.05").send(address);
        // It may have come before the fourth, which was sent away then.
        let mut all = true;
        for held in &mut copies {
            if !held.is_waiting() {
                (*held, all) = (copy().begin(address), false);
            }
        }
        all && fifth.reconnect_in() == HOLDER_ELSEWHERE
    });
    assert!(copies.iter_mut().all(Held::is_waiting));

    // The place is free when the last of them has ended.
    copies.truncate(1);
    assert!(place_is_taken(address, "w"));
    wait::until("the copies that left are forgotten", wait::PATIENCE, || {
        poll("w", "tab=a&n=7&hold=0.05").send(address).reconnect_in() == 0
    });
    assert!(place_is_taken(address, "w"));
    let id = publish(&daemon, "cheese");
    assert_eq!(copies.remove(0).reply().events()[0].id, id);
    assert!(!place_is_taken(address, "w"));
}

#[test]
fn copy_that_outlives_another_can_still_be_replaced() {
    let (_log, daemon) = daemon();
    let address = daemon.address();
    let held = hold(address, "w", &poll("w", "tab=a&n=1"));
    assert_eq!(poll("w", "tab=a&n=1&hold=0.05").send(address).reconnect_in(), 0);
    let _later = poll("w", "tab=a&n=2").begin(address);
    // Far sooner than its hold of 25 s ends.
    assert_sent_away(&held.reply_within(Duration::from_secs(10)));
}

#[test]
fn hold_that_ends_without_news_frees_the_place() {
    let (_log, daemon) = daemon();
    let newest = publish(&daemon, "other");
    let start = Instant::now();
    let reply = poll("w", "hold=0.4&last_event_id=0").send(daemon.address());
    assert!(start.elapsed() >= Duration::from_millis(400));
    assert_eq!((reply.text(), reply.reconnect_in(), reply.cursor()), ("[]", 0, newest));
    assert_eq!(reply.header("x-shortpoll-info"), Some("false"));
    assert!(!place_is_taken(daemon.address(), "w"));
}
