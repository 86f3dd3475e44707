//! Thousands of clients whose daemon is killed, and who all come back to the next one at once: what the database is asked,
//! how soon they are held again, and what is left of it in memory.
//!
//! The clients ask the daemon themselves. The window is as small as it may be, so that it reaches nobody's cursor: what it
//! must not come to is one statement for each client.

use std::path::Path;
use std::time::Duration;

use everpoll_tests::crowd::channel;
use everpoll_tests::pollers::clock;
use everpoll_tests::process::resident_kilobytes;
use everpoll_tests::{Crowd, Daemon, Database, Postgres, wait};

use crate::judge;

/// A request that is out for so long is held; an answer takes far less.
const HELD: Duration = Duration::from_millis(500);

/// How soon all are held again once there is a daemon.
const HELD_AGAIN: Duration = Duration::from_secs(15);

/// How long the daemon is away at least.
const AWAY: Duration = Duration::from_secs(2);

/// How much is done.
struct Scale {
    clients: usize,
    channels: usize,
}

const SHORT: Scale = Scale { clients: 1_500, channels: 100 };

const LONG: Scale = Scale { clients: 15_000, channels: 1_000 };

#[test]
fn killed_daemon_costs_the_database_statements_by_channels_and_not_by_clients() {
    let Scale { clients, channels } =
        if std::env::var_os("EVERPOLL_TEST_LONG").is_some() { LONG } else { SHORT };
    let postgres = Postgres::start_with("shared_preload_libraries = 'pg_stat_statements'\n");
    let database = postgres.create_database();
    database.migrate();
    database.psql("CREATE EXTENSION pg_stat_statements");
    publish(&database, 0..channels, 3);
    push_out(&database);
    let mut daemon = Daemon::on(database.url()).setting("EVERPOLL_WINDOW_BYTES", "64KiB").start();
    let program = Path::new(env!("CARGO_BIN_EXE_crowd"));
    let mut crowd = Crowd::start(program, daemon.address(), clients, channels, 0);
    crowd.wait_until_held(0, HELD, wait::PATIENCE * 2);
    // Not all stand at the same place.
    for part in 0..5 {
        let began = clock();
        let newest = publish(&database, (0..channels).filter(|number| number % 5 == part), 1);
        let reached = newest - u64::try_from(channels / 5).expect("a few") + 1;
        wait::until("the daemon has read it", wait::PATIENCE, || {
            daemon.get("/e/nothing?flavor=short-poll").cursor() >= reached
        });
        // Those of the other channels move on when their holds end, which differ.
        wait::until("some have moved on", wait::PATIENCE, || crowd.answered_since(began) > clients * 2 / 5);
    }
    push_out(&database);
    let quiet = clock();
    crowd.wait_until_held(quiet, HELD, wait::PATIENCE * 2);
    let memory = resident_kilobytes(daemon.process().id());

    let killed = clock();
    daemon.kill_9();
    // A tenth of them miss something.
    publish(&database, (0..channels).filter(|number| number % 10 == 0), 2);
    push_out(&database);
    wait::until("it was away for a while", AWAY * 2, || clock() - killed > AWAY.as_micros() as u64);
    database.psql("SELECT pg_stat_statements_reset()");
    daemon.start_again();
    let ready = clock();
    let held = crowd.wait_until_held(ready, HELD, HELD_AGAIN + HELD);
    let statements: usize = database
        .psql("SELECT sum(calls) FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%' AND toplevel")
        .trim()
        .parse()
        .expect("a number");
    let top = database.psql("SELECT calls, left(regexp_replace(query, '\\s+', ' ', 'g'), 150) FROM pg_stat_statements WHERE toplevel ORDER BY calls DESC LIMIT 12");
    let attempts = crowd.attempts(killed, Duration::from_millis(500));
    let after = resident_kilobytes(daemon.process().id());
    eprintln!(
        "{clients} clients on {channels} channels: the daemon was killed, and ready {:.1} s later; all held {held:.1?} after that; \
         {statements} statements; memory {memory} kB before, {after} kB after; attempts to connect in each half second since the \
         kill: {attempts:?}",
        (ready - killed) as f64 / 1e6,
    );
    eprintln!("{top}");
    let newest = publish(&database, 0..channels, 1);
    crowd.wait_until_reached(newest + 1 - u64::try_from(channels).expect("some"), wait::PATIENCE);
    wait::until("all have all", wait::PATIENCE, || crowd_is_complete(&mut crowd, &database));
    let tally = crowd.tally();
    assert_eq!(tally.statuses.keys().collect::<Vec<_>>(), ["200"], "{tally:?}");
    assert_eq!(tally.gaps, 0, "nothing was trimmed");
    assert!(
        statements < 2 * channels,
        "{statements} statements for {channels} channels:\n{}",
        database.psql("SELECT calls, query FROM pg_stat_statements ORDER BY calls DESC LIMIT 12")
    );
    assert!(after < memory + memory / 4 + 10_000, "{after} kB after {memory} kB");
    let at_ready = usize::try_from((ready - killed) / 500_000).expect("a few");
    // How they are spread is the browser client's affair; that they come once each is the daemon's.
    let later: usize = attempts[(at_ready + 1).min(attempts.len())..].iter().sum();
    assert!(later <= clients + clients / 10, "{later} attempts of {clients} clients");
}

fn crowd_is_complete(crowd: &mut Crowd, database: &Database) -> bool {
    let ledger = judge::ledger_of(&judge::events_of(database));
    let report = judge::judge(&ledger, &crowd.readings());
    let complete = report.total.lost == 0;
    assert!(report.kept || !complete, "{report}");
    complete
}

/// Publishes `each` events on each of these channels, and returns the newest id.
fn publish(database: &Database, channels: impl IntoIterator<Item = usize>, each: usize) -> u64 {
    let names: Vec<_> = channels.into_iter().map(channel).collect();
    let mut client = database.connect();
    let sql = "INSERT INTO everpoll.events (channel, type, data)
        SELECT name, 'made', '{}' FROM unnest($1::text[]) name, generate_series(1, $2::int)";
    client.execute(sql, &[&names, &i32::try_from(each).expect("a few")]).expect("the database runs");
    let newest = client.query_one("SELECT max(id) FROM everpoll.positions", &[]).expect("the database runs");
    u64::try_from(newest.get::<_, i64>(0)).expect("ids are positive")
}

/// Publishes so much on a channel that nobody reads that nothing else is left in the daemon's memory.
fn push_out(database: &Database) {
    database.psql(
        "INSERT INTO everpoll.events (channel, type, data)
         SELECT 'noise', 'made', to_json(repeat('x', 1000)) FROM generate_series(1, 100)",
    );
}
