//! Databases that go away, stand still, come back, or take nothing.

use std::time::{Duration, Instant};

use everpoll_log::{Log, LogError, Options, Wakeups};
use everpoll_protocol::Cursor;
use everpoll_tests::{Postgres, wait};

use crate::common::{Store, event, ids, keyed, read};

crate::on_both!(wake_up_comes_with_a_commit_and_not_without, rolled_back_transaction_wakes_nobody);

const SOON: Duration = Duration::from_secs(10);

fn wake_up_comes_with_a_commit_and_not_without(store: &Store) {
    let mut wakeups = Wakeups::new(&store.url(), Options::default()).unwrap();
    assert!(wakeups.wait(SOON).unwrap(), "a new connection is a hint");
    assert!(!wakeups.wait(Duration::from_millis(20)).unwrap());
    let mut log = store.log();
    for _ in 0..3 {
        // However many events and transactions, one hint is enough.
        log.publish(&[event("a", "1"), event("a", "2")]).unwrap();
        log.publish(&[event("a", "1")]).unwrap();
        assert!(wakeups.wait(SOON).unwrap());
        while wakeups.wait(Duration::from_millis(20)).unwrap() {}
    }
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| (wakeups.wait(SOON).unwrap(), Instant::now()));
        let published = log.publish(&[event("a", "1")]).map(|_| Instant::now()).unwrap();
        let (came, at) = waiting.join().unwrap();
        assert!(came && at.saturating_duration_since(published) < Duration::from_secs(2));
    });
}

fn rolled_back_transaction_wakes_nobody(store: &Store) {
    let mut wakeups = Wakeups::new(&store.url(), Options::default()).unwrap();
    assert!(wakeups.wait(SOON).unwrap());
    store.sql("begin; insert into everpoll.events (channel, type, data) values ('a', 't', '1'); rollback;");
    assert!(!wakeups.wait(Duration::from_millis(50)).unwrap());
}

/// A log on a server that the test may stop.
fn own_server() -> (Postgres, everpoll_tests::Database, Log) {
    let server = Postgres::start();
    let database = server.create_database();
    let options = Options { statement_timeout: Duration::from_secs(1), ..Options::default() };
    let mut log = Log::new(&database.url(), options).unwrap();
    log.migrate().unwrap();
    log.publish(&[event("a", "1")]).unwrap();
    (server, database, log)
}

#[test]
fn restart_of_the_database_is_survived_by_reads_publishes_and_wake_ups() {
    let (server, database, mut log) = own_server();
    let mut wakeups = Wakeups::new(&database.url(), Options::default()).unwrap();
    assert!(wakeups.wait(SOON).unwrap());
    for stop in [Postgres::stop_fast, Postgres::stop_immediate] {
        let before = log.bounds().unwrap();
        stop(&server);
        let error = log.bounds().unwrap_err();
        assert!(matches!(error, LogError::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains("cannot be reached"), "{error}");
        let error = log.publish(&[event("a", "2")]).unwrap_err();
        assert!(matches!(error, LogError::Unavailable { .. }), "{error:?}");
        assert!(wakeups.wait(SOON).is_err(), "a lost connection is an error");
        server.start_again();
        assert!(wakeups.wait(SOON).unwrap(), "a new connection is a hint");
        assert_eq!(log.bounds().unwrap(), before, "it is the same log");
        let published = log.publish(&[event("a", "2")]).unwrap();
        assert_eq!(ids(&read(&mut log, &["a"], Cursor::After(before.newest))), published);
        assert!(wakeups.wait(SOON).unwrap());
    }
}

#[test]
fn connection_that_was_cut_while_idle_is_replaced_without_an_error() {
    let (_server, database, mut log) = own_server();
    let cut = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{}' and pid <> pg_backend_pid()",
        database.name()
    );
    database.psql(&cut);
    assert_eq!(log.bounds().unwrap().newest, 1);
    database.psql(&cut);
    // Without a key it must not be sent twice, so the loss has to be noticed before it is sent.
    wait::until("the backends are gone", SOON, || {
        database.psql(&format!("select count(*) from pg_stat_activity where datname = '{}'", database.name()))
            == "1\n"
    });
    assert_eq!(log.publish(&[event("a", "2")]).unwrap().len(), 1);
}

#[test]
fn frozen_server_blocks_nobody_for_ever_and_the_outcome_of_a_publish_is_called_unknown() {
    let (server, database, mut log) = own_server();
    server.freeze();
    let start = Instant::now();
    let error = log.publish(&[event("a", "2")]).unwrap_err();
    let took = start.elapsed();
    let second = log.bounds();
    server.thaw();
    assert!(matches!(error, LogError::OutcomeUnknown { .. }), "{error:?}");
    assert!(error.to_string().contains("publish them again with the same key"), "{error}");
    assert!(took < SOON, "{took:?}");
    assert!(matches!(second, Err(LogError::Unavailable { .. })), "{second:?}");
    drop(database);
}

#[test]
fn keyed_events_are_published_once_although_the_connection_breaks() {
    let (_server, database, mut log) = own_server();
    // The second transaction waits for the first one's key, and is cut while it does.
    let mut client = database.connect();
    let mut first = client.transaction().unwrap();
    first.execute("select everpoll.publish('a', 'happened', '{}', key => 'k')", &[]).unwrap();
    let name = database.name();
    let waiting = format!("from pg_stat_activity where datname = '{name}' and wait_event_type = 'Lock'");
    let id = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| log.publish(&[keyed("a", "k")]));
        wait::until("it waits", SOON, || database.psql(&format!("select count(*) {waiting}")) == "1\n");
        database.psql(&format!("select pg_terminate_backend(pid) {waiting}"));
        wait::until("it waits again", SOON, || database.psql(&format!("select count(*) {waiting}")) == "1\n");
        first.commit().unwrap();
        publisher.join().unwrap().unwrap()
    });
    assert_eq!(ids(&read(&mut log, &["a"], Cursor::After(1))), id);
}

#[test]
fn statement_that_takes_too_long_is_an_error_of_the_database() {
    let (_server, database, mut log) = own_server();
    let mut client = database.connect();
    let mut open = client.transaction().unwrap();
    open.execute("lock table everpoll.events in access exclusive mode", &[]).unwrap();
    let error = log.publish(&[event("a", "2")]).unwrap_err();
    assert!(matches!(&error, LogError::Unavailable { detail } if detail.contains("too slow")), "{error:?}");
}

#[test]
fn locked_file_is_an_error_that_says_so() {
    let store = Store::sqlite();
    let Store::Sqlite(file) = &store else { unreachable!("it was made above") };
    let other = rusqlite::Connection::open(file.path()).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let options = Options { statement_timeout: Duration::from_millis(50), ..Options::default() };
    let mut log = Log::new(&store.url(), options).unwrap();
    let error = log.publish(&[event("a", "1")]).unwrap_err();
    assert!(matches!(&error, LogError::Unavailable { detail } if detail.contains("is locked")), "{error:?}");
    assert_eq!(log.bounds().unwrap().newest, 0, "readers do not wait");
    other.execute_batch("commit").unwrap();
    assert_eq!(log.publish(&[event("a", "1")]).unwrap(), [1]);
}
