//! Publishing does not depend on Everpoll: with all of its programs gone, and Redis too, applications publish in SQL as fast
//! as ever, and pages get all of it when the daemon is back.

use std::time::{Duration, Instant};

use everpoll_tests::pollers::Reading;
use everpoll_tests::{Database, Postgres, Redis};

use crate::judge;
use crate::site::{self, Site, Store};

/// Events that are published while nobody is there.
const ALONE: usize = 10_000;

/// Events that are published before and after, to compare the speed.
const WITH_US: usize = 2_000;

/// Connections of the application.
const WRITERS: usize = 16;

#[test]
fn ten_thousand_publishes_with_every_program_away_arrive_when_the_daemon_is_back() {
    // Of its own: how fast its disk is, with all that other tests do to it, is not the question here.
    let postgres = Postgres::start_with("fsync = off\n");
    let database = postgres.create_database();
    database.migrate();
    let mut redis = Redis::start();
    let mut site = Site::with(Store::Postgres(database), &[("EVERPOLL_REDIS_URL", &redis.url())]);
    let cursor = site.cursor("cheese");
    let held = site::hold(&site, "cheese", cursor, "one");
    let before = publish(site.store.database(), "before", WITH_US);
    let first = held.reply_within(site::SOON);
    assert!(!first.events().is_empty());

    site.daemon.kill_9();
    site.fallback.kill_9();
    redis.kill_9();
    let alone = publish(site.store.database(), "alone", ALONE);
    site.daemon.start_again();
    site.fallback.start_again();
    site.settle();
    let published = judge::events(&site.store);
    assert_eq!(published.len(), WITH_US + ALONE);
    let ledger = judge::ledger_of(&published);
    for (name, address) in site.doors() {
        let mut events: Vec<_> = first.events();
        let rest = published.len() - events.len();
        let (more, end) = site::collect(address, "cheese", first.cursor(), rest);
        events.extend(more);
        let reading = Reading {
            channels: vec!["cheese".to_owned()],
            began_after: Some(cursor),
            cursor: end,
            events: events.into_iter().map(|event| (event.id, event.channel)).collect(),
            ..Reading::default()
        };
        let report = judge::judge(&ledger, [&reading]);
        assert!(report.kept, "{name}: {report}");
    }
    let after = publish(site.store.database(), "after", WITH_US);

    let speed = |count: usize, took: Duration| count as f64 / took.as_secs_f64();
    let (before, alone, after) = (speed(WITH_US, before), speed(ALONE, alone), speed(WITH_US, after));
    eprintln!(
        "publishes a second by {WRITERS} connections: {before:.0} with the programs, {alone:.0} without them, \
         {after:.0} with them again; ratio {:.2}",
        alone / f64::midpoint(before, after)
    );
}

/// Publishes events one by one, each in a transaction, half of them with a plain INSERT; returns how long that took.
fn publish(database: &Database, name: &str, count: usize) -> Duration {
    let clients: Vec<_> = (0..WRITERS).map(|_| database.connect()).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (writer, mut client) in clients.into_iter().enumerate() {
            scope.spawn(move || {
                for number in (writer..count).step_by(WRITERS) {
                    let sql = if number % 2 == 0 {
                        "SELECT everpoll.publish('cheese', 'made', json_build_object('name', $1::text))"
                    } else {
                        "INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', json_build_object('name', $1::text))"
                    };
                    client.execute(sql, &[&format!("{name} {number}")]).expect("nobody else is needed");
                }
            });
        }
    });
    start.elapsed()
}
