//! The database goes away and comes back: what stays held, what is refused and how, and that all goes on by itself.
//!
//! No program is started again in these tests unless their name says so.

use std::time::{Duration, Instant};

use everpoll_tests::everpoll::{self, Output};
use everpoll_tests::http::{self, Address, Held};
use everpoll_tests::{Daemon, Database, Link, Postgres, Reply, wait};

use crate::site::{self, Site, Store, ids, poll};

/// Longer than any hold here is asked to last.
const HOLD_MAX: &str = "300";

const EVENT: &str = r#"{"channel":"cheese","type":"made","data":1}"#;

/// Both programs on a PostgreSQL server of the test's own, with so much in the log that the oldest of it is not in
/// the daemon's memory.
struct Scene {
    site: Site,
    postgres: Postgres,
    /// A cursor that the daemon knows nothing of.
    old: u64,
    /// The newest event.
    newest: u64,
}

/// A frozen server, thawed on drop: a test that fails must not leave it so, or taking it down would wait for ever.
struct Frozen(Postgres);

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.thaw();
    }
}

impl Scene {
    fn new() -> Self {
        let postgres = Postgres::start();
        let database = postgres.create_database();
        database.migrate();
        // Where the cheese is that is older than the window; its place must not be known by heart either.
        database.psql(
            "INSERT INTO everpoll.events (channel, type, data) SELECT 'old', 't', to_json(n) FROM generate_series(1, 3) n",
        );
        let filler = "INSERT INTO everpoll.events (channel, type, data) \
             SELECT 'filler', 't', to_json(repeat('x', 1000)) FROM generate_series(1, 100)";
        database.psql(filler);
        let settings = [
            ("EVERPOLL_WINDOW_BYTES", "64KiB"),
            ("EVERPOLL_HOLD_MAX", HOLD_MAX),
            // Shorter than the database's time limit, 10 s.
            ("EVERPOLL_DRAIN_TIMEOUT", "4"),
        ];
        let site = Site::with(Store::Postgres(database), &settings);
        let newest = site.cursor("cheese");
        Self { site, postgres, old: 1, newest }
    }

    fn database(&self) -> &Database {
        self.site.store.database()
    }

    fn daemon(&self) -> &Address {
        self.site.daemon.address()
    }

    fn freeze(&self) -> Frozen {
        self.postgres.freeze();
        Frozen(self.postgres.clone())
    }

    /// Waits until the daemon knows that the database is away.
    fn wait_until_lost(&self) {
        wait::until("the daemon has noticed", wait::PATIENCE, || {
            let reply = http::get("/readyz").send(self.daemon());
            (reply.status, reply.json()["status"].as_str()) == (503, Some("log_unavailable"))
        });
    }

    /// Waits until both programs serve again.
    fn wait_until_back(&mut self) {
        self.site.daemon.wait_until_ready();
        let [.., (_, fallback)] = self.site.doors();
        wait::until("the fallback serves again", wait::PATIENCE, || {
            poll("cheese", self.newest, "").send(fallback).status == 200
        });
    }

    /// Polls that are held, of all kinds.
    fn hold_some(&self, prefix: &str) -> Vec<Held> {
        let mut held: Vec<_> = (0..10)
            .map(|n| site::hold(&self.site, "cheese,wine", self.newest, &format!("{prefix}{n}")))
            .collect();
        // And one that hyper serves, and one that asked for `now`.
        let same = "tab=one&n=2";
        let post = http::request("POST", &format!("/e/cheese/{prefix}post")).body(same);
        let now = http::get(&format!("/e/cheese/{prefix}now?{same}"));
        for (wait_id, request) in [("post", post), ("now", now)] {
            let earlier = http::get(&format!("/e/cheese/{prefix}{wait_id}?tab=one&n=1"));
            held.push(request.begin(self.daemon()));
            assert_eq!(earlier.send(self.daemon()).reconnect_in(), 5);
        }
        held
    }

    fn publish_over_command_line(&self) -> Output {
        everpoll::command_line(&self.site.store.url(), &["publish", "cheese", "made", "1"], b"")
    }

    /// All events of the channel `cheese`, as the database has them.
    fn cheese(&self) -> Vec<u64> {
        let rows =
            self.database().psql("SELECT id FROM everpoll.positions WHERE channel = 'cheese' ORDER BY id");
        rows.lines().map(|id| id.parse().expect("a number")).collect()
    }

    /// Publishes in all ways, and sees that those who were held all the time and those who come now get it.
    fn assert_everything_flows(&mut self, held: Vec<Held>) {
        let before = *self.cheese().last().unwrap_or(&self.newest);
        let publish = |address: &Address| http::post_json("/publish", EVENT).send(address);
        self.database()
            .psql("INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', '0')");
        for held in held {
            let reply = held.reply();
            assert!(reply.events().iter().any(|event| event.id > before), "{reply:?}");
            assert!(site::was_held(&reply));
        }
        for (_, address) in self.site.doors() {
            assert_eq!(publish(address).status, 201);
        }
        assert_eq!(self.publish_over_command_line().status.code(), Some(0));
        let all = self.cheese();
        for (name, address) in self.site.doors() {
            let newest = *all.last().expect("four at least");
            wait::until(&format!("the {name} has it all"), wait::PATIENCE, || {
                poll("cheese", newest - 1, "flavor=short-poll").send(address).cursor() >= newest
            });
            let (events, _) = site::collect(address, "cheese", self.newest, all.len());
            assert_eq!(ids(&events), all, "{name}");
            // What was out of reach is there again.
            let (events, _) = site::collect(address, "old", 0, 3);
            assert_eq!(ids(&events), [1, 2, 3], "{name}");
        }
        let held = site::hold(&self.site, "cheese", *all.last().expect("some"), "after");
        let id = self.site.publish("cheese", "2");
        assert_eq!(ids(&held.reply().events()), [id]);
        assert!(self.site.daemon.process().is_running() && self.site.fallback.process().is_running());
    }
}

#[track_caller]
fn assert_unavailable(reply: &Reply, codes: &[&str]) {
    assert_eq!(reply.status, 503, "{reply:?} {}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    let problem = reply.json();
    assert!(codes.iter().any(|code| problem["code"] == *code), "{problem}");
    assert!((5..=60).contains(&reply.reconnect_in()), "{reply:?}");
}

#[track_caller]
fn assert_all_wait(held: &mut [Held]) {
    let waiting = held.iter_mut().filter_map(|held| held.is_waiting().then_some(())).count();
    assert_eq!(waiting, held.len(), "held polls were answered");
}

#[test]
fn held_polls_outlive_the_database_and_go_on_when_it_is_back() {
    let mut scene = Scene::new();
    let mut held = scene.hold_some("before");
    for round in 0..2 {
        scene.postgres.stop_immediate();
        scene.wait_until_lost();
        assert_all_wait(&mut held);
        // Whoever comes now with a cursor that is in memory is held as well.
        held.extend(scene.hold_some(&format!("meanwhile{round}-")));

        let short = poll("cheese", scene.newest, "flavor=short-poll").send(scene.daemon());
        assert_eq!((short.status, short.text()), (200, "[]"));
        // All others are told when to come back.
        for query in ["", "flavor=short-poll", "envelope=1"] {
            assert_unavailable(&poll("old", scene.old, query).send(scene.daemon()), &["log_unavailable"]);
        }
        let [.., (_, fallback)] = scene.site.doors();
        for cursor in [scene.old, scene.newest] {
            assert_unavailable(&poll("cheese", cursor, "").send(fallback), &["log_unavailable"]);
        }
        assert_eq!(http::request("HEAD", "/e/old?last_event_id=1").send(fallback).status, 503);
        for (_, address) in scene.site.doors() {
            assert_unavailable(&http::post_json("/publish", EVENT).send(address), &["log_unavailable"]);
        }
        let output = scene.publish_over_command_line();
        assert_eq!((output.status.code(), output.stdout.as_str()), (Some(1), ""), "{output:?}");
        assert!(output.stderr.len() > 20, "{output:?}");
        let url = format!("http://{}", scene.daemon());
        let over_http = everpoll::command_line(
            &scene.site.store.url(),
            &["publish", "cheese", "made", "1", "--url", &url],
            b"",
        );
        assert_eq!(over_http.status.code(), Some(1));
        assert!(over_http.stderr.contains("[log_unavailable]"), "{over_http:?}");
        assert_all_wait(&mut held);

        scene.postgres.start_again();
        scene.wait_until_back();
        assert_all_wait(&mut held);
        assert_eq!(scene.cheese(), [0; 0], "what was refused was not published");
    }
    scene.assert_everything_flows(held);
}

#[test]
fn what_was_published_before_the_programs_are_back_is_not_missed() {
    let mut scene = Scene::new();
    let held = scene.hold_some("w");
    scene.postgres.stop_immediate();
    scene.wait_until_lost();
    scene.postgres.start_again();
    // At once, with whatever the daemon is doing now.
    let rows = scene.database().psql(
        "INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', '1'); SELECT everpoll.cursor();",
    );
    let id: u64 = rows.trim().parse().expect("a cursor");
    let start = Instant::now();
    for held in held {
        let reply = held.reply();
        assert_eq!((ids(&reply.events()), reply.cursor()), (vec![id], id));
    }
    println!("held polls got the first event {:?} after it was published", start.elapsed());
    scene.wait_until_back();
    scene.assert_everything_flows(Vec::new());
}

#[test]
fn frozen_database_is_an_outage_too_and_nothing_that_failed_is_published_later() {
    let mut scene = Scene::new();
    let mut held = scene.hold_some("before");
    let frozen = scene.freeze();
    held.extend(scene.hold_some("meanwhile"));
    // They wait for the database's time limits, all at once.
    let [.., (_, fallback)] = scene.site.doors().map(|(name, address)| (name, address.clone()));
    let daemon = scene.daemon().clone();
    let start = Instant::now();
    let mut asked: Vec<(&str, Held)> = Vec::new();
    for address in [&daemon, &fallback] {
        asked.push(("publish", http::post_json("/publish", EVENT).begin(address)));
        asked.push(("poll", poll("old", scene.old, "flavor=short-poll").begin(address)));
    }
    let mut published = 0;
    for (what, held) in asked {
        let reply = held.reply();
        if what == "publish" {
            assert_unavailable(&reply, &["log_unavailable", "outcome_unknown"]);
            published += usize::from(reply.json()["code"] == "outcome_unknown");
        } else {
            assert_unavailable(&reply, &["log_unavailable"]);
        }
    }
    println!("with a frozen database, all were answered after {:?}", start.elapsed());
    scene.wait_until_lost();
    assert_all_wait(&mut held);
    drop(frozen);
    scene.wait_until_back();
    // Of what may have been published nobody knows; what was said to be refused must not appear.
    assert!(scene.cheese().len() <= published, "{:?} after {published} unknown outcomes", scene.cheese());
    scene.assert_everything_flows(held);
}

#[test]
fn firewall_that_forgets_all_connections_delays_events_by_seconds() {
    let database = Database::shared();
    database.migrate();
    let link = Link::to(&Address::local(database.postgres().port()));
    let mut daemon =
        Daemon::on(format!("postgres://postgres@127.0.0.1:{}/{}", link.port(), database.name())).start();
    // One that is away for a moment, and one that is away for longer than the daemon waits: it may have to connect twice. With
    // the limits of other statements it would be 13 s and more.
    for away in [2, 5] {
        let held =
            poll("cheese", site::cursor(daemon.address(), "cheese"), "hold=25").begin(daemon.address());
        let (began, away) = (Instant::now(), Duration::from_secs(away));
        link.black_hole();
        database.psql("INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', '1')");
        // All have said something by then, the tail by its sweep.
        wait::until("the firewall was away for a while", wait::PATIENCE, || began.elapsed() >= away);
        link.mend();
        let reply = held.reply();
        let late = began.elapsed();
        eprintln!("the network swallowed everything for {away:?}: the event was there after {late:.1?}");
        assert_eq!(reply.events().len(), 1, "{reply:?}");
        assert!(late < Duration::from_secs(11), "{late:?} late\n{}", daemon.log());
        daemon.wait_until_ready();
    }
}

#[test]
fn daemon_that_starts_while_the_database_is_down_becomes_ready_later() {
    let postgres = Postgres::start();
    let database = postgres.create_database();
    database.migrate();
    database.psql("INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', '0')");
    postgres.stop_immediate();
    let mut daemon = Daemon::on(database.url()).start_unready();
    wait::until("it says so", wait::PATIENCE, || {
        http::get("/readyz").send(daemon.address()).json()["status"] == "log_unavailable"
    });
    assert_eq!(http::get("/healthz").send(daemon.address()).status, 200);
    assert_unavailable(&poll("cheese", 0, "").send(daemon.address()), &["log_unavailable"]);
    assert_unavailable(&http::post_json("/publish", EVENT).send(daemon.address()), &["log_unavailable"]);
    // It does not know yet what `now` is. Either it says so, or the poll gets only what is new.
    let mut now = http::get("/e/cheese").begin(daemon.address());

    postgres.start_again();
    daemon.wait_until_ready();
    let id = daemon.publish(EVENT)[0];
    wait::until("the poll is answered", wait::PATIENCE, || !now.is_waiting());
    let reply = now.reply();
    match reply.status {
        503 => assert_unavailable(&reply, &["log_unavailable"]),
        _ => assert_eq!(ids(&reply.events()), [id], "events from before `now`"),
    }
    assert_eq!(poll("cheese", 0, "").send(daemon.address()).events().len(), 2);
}

#[test]
fn drain_does_not_wait_for_the_database() {
    let mut scene = Scene::new();
    let held = scene.hold_some("w");
    let _frozen = scene.freeze();
    // Questions that the database will not answer are in hand, too.
    let asked = poll("old", scene.old, "").begin(scene.daemon());
    scene.site.daemon.process().terminate();
    for held in held {
        assert_eq!(held.reply().status, 200);
    }
    let reply = asked.reply();
    assert_eq!(reply.status, 503);
    assert_eq!(scene.site.daemon.process().wait(Duration::from_secs(60)).code(), Some(0));
}
