//! Transactions that publish commit at the same time; readers keep the order nevertheless, and hear of all of them although
//! most leave out their wake-up.

use std::time::Duration;

use everpoll_tests::Daemon;
use postgres::fallible_iterator::FallibleIterator as _;

use crate::site::{Site, Store, collect, hold, ids, poll};

/// Draws its id, as at COMMIT, and stays there: a disk or a synchronous standby that takes its time.
const HANG: &str = "BEGIN;
    INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', '1');
    SET CONSTRAINTS ALL IMMEDIATE;";

const PUBLISH: &str = "SET statement_timeout = '20s';
    INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', '2');";

#[test]
fn commit_that_hangs_holds_up_no_publisher_and_what_follows_it_waits_for_its_outcome() {
    // A snapshot does not name those who run if they are younger than all that are done.
    for (commits, is_younger) in [(true, false), (false, false), (true, true), (false, true)] {
        let site = Site::on(Store::postgres());
        let database = site.store.database();
        let before = site.publish("cheese", "0");
        let held = hold(&site, "cheese", before, "page");
        let (mut hanging, mut other) = (database.connect(), database.connect());
        let publish = |other: &mut postgres::Client| {
            other.batch_execute(&format!("BEGIN; {PUBLISH}")).expect("the database runs");
        };
        if is_younger {
            publish(&mut other);
        }
        hanging.batch_execute(HANG).expect("the database runs");
        if !is_younger {
            publish(&mut other);
        }

        // Fails when it has to wait.
        other.batch_execute("COMMIT").expect("it waits for nobody");
        let newest: u64 = database.psql("SELECT max(id) FROM everpoll.places").trim().parse().expect("an id");
        assert_eq!(newest, before + 2);
        for _ in 0..3 {
            for (name, door) in site.doors() {
                let reply = poll("cheese", before, "flavor=short-poll").send(door);
                assert_eq!((ids(&reply.events()), reply.cursor()), (vec![], before), "{name}");
                let reply = poll("cheese", "now", "flavor=short-poll").send(door);
                assert_eq!(reply.cursor(), before, "{name}: a page that starts now");
            }
            let here = "SELECT everpoll.cursor(), (SELECT max(id) FROM everpoll.positions)";
            assert_eq!(database.psql(here).trim(), format!("{before}|{before}"));
        }
        // Trimming must not go past it either.
        site.store.run_well(&["trim", "--count", "0"]);
        assert_eq!(database.psql("SELECT low FROM everpoll.log").trim(), before.to_string());

        hanging.batch_execute(if commits { "COMMIT" } else { "ROLLBACK" }).expect("the database runs");
        let expected = if commits { vec![before + 1, before + 2] } else { vec![before + 2] };
        assert_eq!(ids(&held.reply().events()), expected, "held by the daemon");
        for (name, door) in site.doors() {
            let (events, cursor) = collect(door, "cheese", before, expected.len());
            assert_eq!((ids(&events), cursor), (expected.clone(), newest), "{name}");
        }
        assert_eq!(database.psql("SELECT everpoll.cursor()").trim(), newest.to_string());
    }
}

#[test]
fn transaction_that_is_open_for_long_holds_up_nobody() {
    let site = Site::on(Store::postgres());
    let database = site.store.database();
    let before = site.publish("cheese", "0");
    let mut open = database.connect();
    open.batch_execute(
        "BEGIN; INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', '1')",
    )
    .expect("the database runs");
    database.psql(PUBLISH);
    // Seen by all, although a transaction that will publish is older than what is seen.
    let here = "SELECT everpoll.cursor(), (SELECT max(id) FROM everpoll.positions)";
    assert_eq!(database.psql(here).trim(), format!("{0}|{0}", before + 1));
    for (_, door) in site.doors() {
        collect(door, "cheese", before, 1);
    }
    open.batch_execute("COMMIT").expect("the database runs");
    for (_, door) in site.doors() {
        let (events, _) = collect(door, "cheese", before, 2);
        assert_eq!(events[1].data, 1);
    }
}

#[test]
fn most_wake_ups_are_left_out_and_no_event_waits_for_the_sweep() {
    const WRITERS: usize = 8;
    const EACH: usize = 150;
    let store = Store::postgres();
    let database = store.database();
    // Without a sweep, what nobody tells the daemon comes too late.
    let daemon = Daemon::on(store.url()).setting("EVERPOLL_SWEEP_INTERVAL", "60s").start();
    let mut listener = database.connect();
    listener.batch_execute("LISTEN everpoll").expect("the database runs");
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut client = database.connect();
                for number in 0..EACH {
                    client.batch_execute(PUBLISH).expect("the database runs");
                    // Also the last one before a pause, which nobody follows, must be heard of.
                    std::thread::sleep(Duration::from_millis(if number % 30 == 29 { 20 } else { 0 }));
                }
            });
        }
    });
    let (events, _) = collect(daemon.address(), "cheese", 0, WRITERS * EACH);
    assert!(ids(&events).is_sorted());
    // What was sent before this answer comes before it.
    listener.batch_execute("SELECT 1").expect("the database runs");
    let wake_ups = listener.notifications().iter().filter(|told| Ok(told.payload().is_empty())).count();
    let wake_ups = wake_ups.expect("the connection is there");
    println!("{wake_ups} wake-ups for {} transactions", WRITERS * EACH);
    assert!((1..WRITERS * EACH / 2).contains(&wake_ups), "{wake_ups}");
}
