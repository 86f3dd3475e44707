//! Stopping: SIGTERM and SIGINT end the daemon without an error that any client sees.

use std::collections::BTreeSet;
use std::io::Read;
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address, Connection};
use everpoll_tests::pollers::{Poller, Pollers};
use everpoll_tests::{Daemon, Sqlite, TestDir, wait};

#[test]
fn held_polls_are_answered_and_told_to_come_back_spread_over_seconds() {
    let log = Sqlite::new();
    // Longer than the test may take: whoever waits for it is found out.
    let mut daemon = Daemon::on(log.url()).setting("EVERPOLL_DRAIN_TIMEOUT", 120).start();
    let newest = daemon.publish(r#"{"channel":"other","type":"made","data":1}"#)[0];
    let mut held: Vec<_> = (0..200)
        .map(|n| {
            let envelope = n % 2;
            http::get(&format!("/e/cheese/w{n}?tab=a&n=2&envelope={envelope}"))
                .header("Connection", "keep-alive")
                .begin(daemon.address())
        })
        .collect();
    held.extend((0..20).map(|n| {
        let post = http::request("POST", &format!("/e/cheese/p{n}")).header("Connection", "keep-alive");
        post.body("hold=20&tab=a&n=2").begin(daemon.address())
    }));
    for wait_id in (0..200).map(|n| format!("w{n}")).chain((0..20).map(|n| format!("p{n}"))) {
        // An earlier request of the same tab is sent away once the later one is held, and not before.
        let earlier = http::get(&format!("/e/cheese/{wait_id}?tab=a&n=1")).send(daemon.address());
        assert_eq!(earlier.reconnect_in(), 5);
    }
    let mut idle = Connection::open(daemon.address()).expect("it listens");
    idle.exchange(&http::get("/e/cheese?hold=0").header("Connection", "keep-alive")).expect("a reply");

    let start = Instant::now();
    daemon.process().terminate();
    let mut delays = BTreeSet::new();
    for held in held {
        let reply = held.reply();
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!((reply.events().len(), reply.cursor()), (0, newest));
        assert_eq!(reply.header("connection"), Some("close"), "or the client would send into a closed one");
        assert!((1..=5).contains(&reply.reconnect_in()), "{reply:?}");
        delays.insert(reply.reconnect_in());
    }
    assert!(delays.len() >= 4, "220 clients come back after {delays:?} s");
    let mut byte = [0; 1];
    assert_eq!(idle.stream().read(&mut byte).expect("closed, not broken"), 0);
    let status = daemon.process().wait(wait::PATIENCE);
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    assert!(start.elapsed() < Duration::from_secs(60), "it waited for something: {:?}", start.elapsed());
}

#[test]
fn restart_is_not_seen_by_clients_that_do_as_they_are_told() {
    let log = Sqlite::new();
    let mut daemon = Daemon::on(log.url()).start();
    let crowd = (0..200).map(|n| {
        Poller::new(daemon.address(), "cheese", 0)
            .wait_id(format!("w{n}"))
            .reconnect_cap(Duration::from_millis(500))
    });
    let crowd = Pollers::start(crowd);
    crowd.wait_until_held(Duration::from_millis(200), wait::PATIENCE);
    let mut last = 0;
    for _ in 0..2 {
        assert_eq!(daemon.stop().code(), Some(0));
        daemon.start_again();
        for _ in 0..5 {
            last = daemon.publish(r#"{"channel":"cheese","type":"made","data":1}"#)[0];
        }
        crowd.wait_until_reached(last, wait::PATIENCE);
        crowd.wait_until_held(Duration::from_millis(200), wait::PATIENCE);
    }
    let (readings, tally) = crowd.stop();
    assert_eq!(tally.statuses.keys().copied().collect::<Vec<_>>(), [200], "{tally:?}");
    // While nobody listens, connecting fails; what had been sent was answered.
    assert!(tally.errors.keys().all(|error| error.contains("refused")), "{tally:?}");
    for reading in readings {
        assert_eq!((reading.events.len(), reading.cursor), (10, last));
    }
}

#[test]
fn interrupt_stops_like_terminate_and_the_socket_goes() {
    let (log, directory) = (Sqlite::new(), TestDir::new());
    let path = directory.join("daemon.sock");
    let mut daemon = Daemon::on(log.url()).at(&Address::Unix(path.clone())).start();
    let held = http::get("/e/cheese").begin(daemon.address());
    wait::until("it is held or at least read", wait::PATIENCE, || daemon.is_ready());
    daemon.process().interrupt();
    assert_eq!(held.reply().status, 200);
    assert_eq!(daemon.process().wait(wait::PATIENCE).code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn publish_in_hand_is_committed_and_answered() {
    let log = Sqlite::new();
    let mut daemon = Daemon::on(log.url()).start();
    // Read in part: the rest comes when the daemon has been told to stop.
    let request = http::post_json("/publish", r#"{"channel":"cheese","type":"made","data":1}"#).bytes();
    let (first, rest) = request.split_at(request.len() - 10);
    let mut connection = Connection::open(daemon.address()).expect("it listens");
    connection.send(first).expect("it reads");
    let mut idle = http::get("/e/cheese").begin(daemon.address());
    daemon.process().terminate();
    wait::until("it stops", wait::PATIENCE, || !idle.is_waiting());
    connection.send(rest).expect("it still reads");
    let reply = connection.read_reply(false).expect("a reply");
    assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(daemon.process().wait(wait::PATIENCE).code(), Some(0));
    daemon.start_again();
    assert_eq!(daemon.get("/e/cheese?last_event_id=0").events().len(), 1);
}

#[test]
fn connection_that_was_there_before_the_stop_is_served() {
    let log = Sqlite::new();
    let mut daemon = Daemon::on(log.url()).start();
    // One whose request is half there, and one that has sent nothing yet.
    let request = http::get("/e/cheese?hold=20").bytes();
    let (first, rest) = request.split_at(10);
    let mut half = Connection::open(daemon.address()).expect("it listens");
    half.send(first).expect("it reads");
    let mut silent = Connection::open(daemon.address()).expect("it listens");
    let mut idle = http::get("/e/cheese").begin(daemon.address());
    daemon.process().terminate();
    wait::until("it stops", wait::PATIENCE, || !idle.is_waiting());
    silent.send(&request).expect("it still reads");
    half.send(rest).expect("it still reads");
    for connection in [&mut silent, &mut half] {
        let reply = connection.read_reply(false).expect("a reply");
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")), "{reply:?}");
    }
    assert_eq!(daemon.process().wait(wait::PATIENCE).code(), Some(0));
}
